#!/usr/bin/env python3
"""G1 of BENCH.md: tokens a second through Nginx, the queue and the worker at overload, beside the same engine alone.

Usage: through_nginx.py BUILD_DIR GPU_CHECK [--folder MODEL --device DEVICE --seconds N] [--rehearse]

Without --folder the model is made up: the shape of Llama 3.2 1B but for the vocabulary, which is the demo model's, so
that there is a tokenizer. Twice as many callers as slots ask one after another for answers of a fixed length; the
engine alone runs full batches of the same sizes and keeps its best. Python's own library is all that is needed. Prints
a row of gpu_check's table. --rehearse needs no GPU: the demo model on the CPU for a moment, and every answer must come.
"""
import argparse
import array
import asyncio
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
DEMO = next(folder for folder in (HERE / "models/demo", HERE.parent.parent / "config/models/demo") if folder.exists())
GOAL = 0.97
SLOTS = 64
ANSWER = 256
WARM_S = 4
PATIENCE_S = 60

CONFIG = {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
          "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 1536,
          "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True,
          "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 0}

NGINX_CONF = """\
load_module {build}/ngx_http_penstock_module.so;
{user}
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {work}/a; proxy_temp_path {work}/b; fastcgi_temp_path {work}/c;
    uwsgi_temp_path {work}/d; scgi_temp_path {work}/e; penstock_temp_path {work}/f;
    upstream gpu {{ server unix:{work}/penstock.sock; keepalive 256; }}
    server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ penstock_pass gpu; }} }}
}}
"""

PENSTOCK_YAML = """\
socket: {work}/penstock.sock
state: {work}/state
workers:
  - {{ name: g1, engine: llama, model: {folder}, model_name: g1, device: "{device}", slots: {slots} }}
"""


def shapes():
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    query = CONFIG["num_attention_heads"] * CONFIG["head_dim"]
    key = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    yield "model.embed_tokens.weight", [CONFIG["vocab_size"], hidden]
    yield "model.norm.weight", [hidden]
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", [hidden]
        yield layer + "post_attention_layernorm.weight", [hidden]
        for name, rows, cols in (("self_attn.q", query, hidden), ("self_attn.k", key, hidden),
                                 ("self_attn.v", key, hidden), ("self_attn.o", hidden, query), ("mlp.gate", inner, hidden),
                                 ("mlp.up", inner, hidden), ("mlp.down", hidden, inner)):
            yield f"{layer}{name}_proj.weight", [rows, cols]


def make_model(folder):
    """Random bfloat16 weights, a stretch of numbers repeated: what they are does not change how long a product takes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shutil.copy(DEMO / "tokenizer.json", folder)
    rng = random.Random(1)
    stretch = array.array("H", (struct.unpack("<I", struct.pack("<f", rng.uniform(-0.03, 0.03)))[0] >> 16
                                for _ in range(1 << 18))).tobytes()
    header, offset = {}, 0
    for name, shape in shapes():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, entry in header.items():
            size = entry["data_offsets"][1] - entry["data_offsets"][0]
            source = b"\x80\x3f" * (size // 2) if "norm" in name else stretch * (size // len(stretch) + 1)
            file.write(source[:size])


class Counter:
    tokens = 0
    failures = 0


async def caller(port, counter, until):
    body = json.dumps({"model": "g1", "prompt": "The ", "max_tokens": ANSWER, "ignore_eos": True, "temperature": 0}).encode()
    request = (f"POST /v1/completions HTTP/1.1\r\nHost: g1\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        if length:
            answer = await reader.readexactly(int(length.group(1)))
        else:
            answer = b""
            while size := int(await reader.readline(), 16):
                answer += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readline()
        if " 200 " in head.split("\r\n")[0]:
            counter.tokens += json.loads(answer)["usage"]["completion_tokens"]
        else:
            counter.failures += 1
            sys.stderr.write(answer.decode(errors="replace")[:300] + "\n")
            await asyncio.sleep(0.1)
    writer.close()


async def overload(port, seconds):
    counter = Counter()
    until = time.monotonic() + WARM_S + seconds
    callers = [asyncio.create_task(caller(port, counter, until)) for _ in range(2 * SLOTS)]
    await asyncio.sleep(WARM_S)
    before, begun = counter.tokens, time.monotonic()
    await asyncio.sleep(seconds)
    while counter.tokens == before and time.monotonic() < until + PATIENCE_S:  # a machine with much else to do
        await asyncio.sleep(0.1)
    rate = (counter.tokens - before) / (time.monotonic() - begun)
    for task in callers:
        task.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    return rate, counter.failures


def wait_for_answer(port, daemons):
    for _ in range(600):
        if any(daemon.poll() is not None for daemon in daemons):
            sys.exit("through_nginx: nginx or penstockd ended, see their words above")
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
                if b'"g1"' in b"".join(iter(lambda: connection.recv(65536), b"")):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("through_nginx: no answer within a minute")


def through(build, work, folder, device, seconds):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = dict(build=build, work=work, folder=folder, device=device, slots=SLOTS, port=port,
                 user="user root;" if os.getuid() == 0 else "")
    (work / "nginx.conf").write_text(NGINX_CONF.format(**names))
    (work / "penstock.yaml").write_text(PENSTOCK_YAML.format(**names))
    path = os.environ["PATH"] + ":/usr/sbin"
    daemons = [subprocess.Popen([f"{build}/penstockd", "-c", work / "penstock.yaml"], stdout=sys.stderr),
               subprocess.Popen([shutil.which("nginx", path=path), "-p", work, "-e", work / "nginx.log", "-c",
                                 work / "nginx.conf", "-g", "daemon off;"], stdout=sys.stderr)]
    try:
        wait_for_answer(port, daemons)
        return asyncio.run(overload(port, seconds))
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def alone(gpu_check, work, folder):
    flat = work / "g1.flat"
    subprocess.run([sys.executable, HERE / "flatten_model.py", folder, flat], check=True)
    out = subprocess.run([gpu_check, "decode", flat, "16", "32", str(SLOTS)], capture_output=True, text=True)
    sys.stderr.write(out.stderr)
    rates = [float(rate) for rate in re.findall(r"\| ([\d.]+) tokens/s", out.stdout)]
    return max(rates, default=0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("gpu_check")
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--device", default="0")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    if options.rehearse:
        options.folder, options.device, options.seconds = DEMO, "cpu", 1
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        folder = options.folder and options.folder.resolve()
        if not folder:
            folder = work / "model"
            make_model(folder)
        engine = 0 if options.rehearse else alone(options.gpu_check, work, folder)
        rate, failures = through(options.build.resolve(), work, folder, options.device, options.seconds)
    if options.rehearse:
        well = failures == 0 and rate > 0
        print(f"| through Nginx, queue and worker on the CPU, {2 * SLOTS} callers | {rate:.0f} tokens/s; {failures} failed | all answered "
              f"| {'yes' if well else '**NO**'} |")
        sys.exit(0 if well else 1)
    well = failures == 0 and engine > 0 and rate >= GOAL * engine
    print(f"| G1: through Nginx, queue and worker, {SLOTS} slots, {2 * SLOTS} callers, beside the engine alone "
          f"| {rate:.0f} and {engine:.0f} tokens/s: {rate / max(engine, 1):.2f}; {failures} failed | >= {GOAL} "
          f"| {'yes' if well else '**NO**'} |")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
