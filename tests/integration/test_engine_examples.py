"""The programs of config/engines, each by the YAML of its README: real pictures, real llama.cpp, and what a missing part says."""

import base64
import functools
import http.server
import json
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

from npm import installed
from processes import BUILD, children
from waiting import until

ROOT = Path(__file__).parents[2]
ENGINES = ROOT / "config" / "engines"
DEMO = ROOT / "config" / "models" / "demo"
SERVER = "location /v1/ { penstock_pass gpu; } location /jobs { penstock_jobs gpu; }"
DIGITS = "zero one two three four five six seven eight nine".split()
IMAGES = "/v1/images/generations"


def yaml_of(name):
    """The workers of its README, which lie where this checkout has them."""
    block = re.search(r"```yaml\nworkers:\n(.*?)```", (ENGINES / name / "README.md").read_text(), re.S)[1]
    return block.replace("engines/", f"{ENGINES}/")


def serve(penstock, *workers, ready=True):
    service = penstock(start=False, server=SERVER, workers=[])
    config = service.penstockd.config
    config.write_text(config.read_text().replace("workers: []", "workers:\n" + "".join(workers)))
    service.penstockd.start()
    until(lambda: not ready or all_ready(service), lambda: status(service))
    service.nginx.start(service.port)
    return service


def all_ready(service):
    workers = json.loads(service.penstockd.status())["workers"]
    return all(worker["state"] == "ready" and worker["open_slots"] in (None, worker["slots"]) for worker in workers)


def status(service):
    """What `penstockctl status` prints."""
    return subprocess.run([BUILD / "penstockctl", "status", "-s", service.penstockd.socket], capture_output=True, text=True).stdout


class Program:
    """A program that the test speaks with itself."""

    def __init__(self, folder, *command, **env):
        self._process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
                                         env={**os.environ, **env})
        assert [self.line(), self.line()] == [{"penstock": 1}, {"ready": True}]

    def line(self):
        return json.loads(self._process.stdout.readline())

    def say(self, **line):
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def job(self, number=1, path=IMAGES, **body):
        self.say(job=number, model="m", method="POST", path=path, content_type="application/json", body=json.dumps(body))

    def answer(self):
        """All lines up to the end of the job."""
        lines = [self.line()]
        while not lines[-1].keys() & {"result", "error"}:
            lines.append(self.line())
        return lines

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(20) == 0


@pytest.fixture
def program(folder):
    programs = []

    def start(*command, **env):
        programs.append(Program(folder, *command, **env))
        return programs[-1]

    yield start
    for one in programs:
        one.close()


def pixels(png):
    """The lines of a grey PNG whose lines have no filter."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    parts, at = {}, 8
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        parts[kind] = png[at + 8:at + 8 + size]
        assert zlib.crc32(kind + parts[kind]) == struct.unpack_from(">I", png, at + 8 + size)[0]
        at += 12 + size
    width, height, *form = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert form == [8, 0, 0, 0, 0]
    data = zlib.decompress(parts[b"IDAT"])
    assert len(data) == height * (width + 1) and data[::width + 1] == bytes(height)
    return [data[at + 1:at + 1 + width] for at in range(0, len(data), width + 1)]


# ---- digits ------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def recognise():
    """What a classifier, which has learnt all the real digits, takes each picture for."""
    numpy, datasets, svm = (pytest.importorskip(name) for name in ("numpy", "sklearn.datasets", "sklearn.svm"))
    real = datasets.load_digits()
    classifier = svm.SVC(gamma=0.001).fit(real.data, real.target)

    def recognised(pngs):
        pictures = numpy.frombuffer(b"".join(line for png in pngs for line in pixels(png)), numpy.uint8)
        small = pictures.reshape(len(pngs), 8, 32, 8, 32).mean(axis=(2, 4))
        return classifier.predict(small.reshape(len(pngs), 64) / 255 * 16).tolist()

    return recognised


def test_each_prompt_draws_its_digit(penstock, recognise):
    service = serve(penstock, yaml_of("digits"))
    right = {}
    for digit, word in enumerate(DIGITS):
        answer = service.request("POST", IMAGES, body={"model": "digits", "prompt": f"a large {word}", "n": 10, "seed": 7})
        assert answer.status == 200 and answer.headers["Content-Type"] == "application/json", answer
        pngs = [base64.b64decode(image["b64_json"]) for image in answer.json()["data"]]
        assert len(set(pngs)) == 10
        right[word] = recognise(pngs).count(digit)
    print(right)
    assert min(right.values()) >= 9, right


def test_a_digit_is_a_file_on_any_other_path_and_the_same_for_the_same_seed(penstock, recognise):
    service = serve(penstock, yaml_of("digits"))
    ask = functools.partial(service.request, "POST", "/v1/draw")
    seven, again, other = (ask(body={"model": "digits", "prompt": "7", "seed": seed}) for seed in (1, 1, 2))
    assert (seven.status, seven.headers["Content-Type"]) == (200, "image/png")
    assert len(pixels(seven.body)) == 256 and recognise([seven.body]) == [7]
    assert again.body == seven.body != other.body
    for wrong in ({"prompt": "a cat"}, {"prompt": "7", "steps": 0}, {"prompt": "7", "seed": "x"}, {"prompt": None}, {"prompt": "7", "n": []}):
        refused = ask(body={"model": "digits", **wrong})
        assert refused.status == 400 and refused.json()["error"]["code"] == "invalid_request", refused
    assert ask(body='["digits"]', headers={"Content-Type": "application/json"}).status in (400, 404)


def test_a_digit_is_seen_as_it_becomes(program):
    digits = program("/usr/bin/python3", ENGINES / "digits" / "digits.py")
    digits.job(prompt="seven", steps=20, seed=1)
    *lines, end = digits.answer()
    assert [line["step"] for line in lines if "step" in line] == list(range(1, 21))
    previews = [base64.b64decode(line["preview"]["base64"]) for line in lines if "preview" in line]
    assert len(previews) == 4 and len(set(previews)) == 4
    assert base64.b64decode(end["result"]["body"]["data"][0]["b64_json"]) == previews[-1]
    assert end["usage"] == {"prompt_tokens": 1, "completion_tokens": 20}


# ---- node-llama --------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def node_llama(tmp_path_factory):
    """The folder with its packages, and the demo model as a GGUF."""
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    if os.uname().machine != "x86_64" or int(re.match(r"v(\d+)", version)[1]) < 20:
        pytest.skip(f"node-llama-cpp needs Node 20 on x86_64; this is {version.strip()} on {os.uname().machine}")
    home = installed(ENGINES / "node-llama")
    model = tmp_path_factory.mktemp("gguf") / "demo.gguf"
    subprocess.run([sys.executable, ENGINES / "node-llama" / "make_gguf.py", DEMO, model], check=True)
    return home / "llama.mjs", model


def llama_yaml(node_llama):
    script, model = node_llama
    return yaml_of("node-llama").replace(f"{ENGINES}/node-llama/llama.mjs", str(script)).replace(f"{ENGINES}/node-llama/demo.gguf", str(model))


def test_llama_cpp_streams_what_our_engine_says(penstock, node_llama):
    ours = f"  - {{ name: ours, engine: llama, model: {DEMO}, model_name: ours, device: cpu, slots: 1, memory: 256MiB }}\n"
    service = serve(penstock, llama_yaml(node_llama), ours)
    for prompt in ("The ", "A hacker is", "user: What is a daemon?\nassistant:", "naïve — 日本"):
        greedy = dict(prompt=prompt, max_tokens=20, temperature=0)
        expected = service.complete(model="ours", **greedy).json()
        whole = service.complete(model="llama", **greedy).json()
        assert whole["choices"][0] | {"logprobs": None} == expected["choices"][0] | {"logprobs": None}, prompt
        assert whole["usage"].items() <= expected["usage"].items()
        events = list(service.stream(model="llama", stream_options={"include_usage": True}, **greedy).events())
        *chunks, usage, done = events
        texts = [json.loads(chunk)["choices"][0]["text"] for chunk in chunks]
        assert len(texts) > 10 and "".join(texts) == whole["choices"][0]["text"]
        assert json.loads(usage)["usage"] == whole["usage"] and done == "[DONE]"


def test_llama_cpp_stops_within_a_token(program, node_llama):
    llama = program("node", *node_llama, THREADS="1")
    llama.job(1, "/v1/completions", prompt="The ", max_tokens=450, temperature=1, seed=3, stream=True)
    assert llama.line()["chunk"].startswith("data: ")
    llama.say(cancel=1)
    *late, end = llama.answer()
    assert end["error"]["code"] == "cancelled" and len(late) < 100, (len(late), end)
    llama.job(2, "/v1/completions", prompt="The ", max_tokens=4, temperature=0)
    assert llama.answer()[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


def test_a_caller_who_leaves_llama_cpp_makes_room_for_the_next(penstock, node_llama):
    service = serve(penstock, llama_yaml(node_llama))
    worker, = service.penstockd.workers()
    before = children(worker)
    stream = service.stream(model="llama", max_tokens=450, temperature=1)
    stream.next_event()
    stream.close()
    assert service.complete(model="llama").status == 200
    assert children(worker) == before  # it has obeyed, and was not ended


# ---- diffusers, ComfyUI ------------------------------------------------------------------------------

def test_the_missing_diffusers_is_named_in_the_status(penstock):
    service = serve(penstock, yaml_of("diffusers").replace("[python3", "[/usr/bin/python3, -S"), ready=False)  # no packages
    until(lambda: "torch is missing: pip install torch diffusers" in status(service), lambda: status(service))
    assert service.request("POST", IMAGES, body={"model": "image", "prompt": "a cat"}).status == 503


def test_a_missing_comfyui_is_named_in_the_status(penstock):
    service = serve(penstock, yaml_of("comfyui").replace("8188", "9"), ready=False)
    until(lambda: "ComfyUI does not answer at http://127.0.0.1:9:" in status(service), lambda: status(service))


class ComfyUi(http.server.BaseHTTPRequestHandler):
    """As much of its HTTP API as is asked for; a job is done when it is looked at for the second time, one that says "long" never."""

    def answer(self, body):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        asked = self.server.asked
        asked.append((self.path, None))
        picture = {"filename": "a b.png", "subfolder": "", "type": "output"}
        done = asked.count((self.path, None)) == 2 and "long" not in str(asked)
        self.answer({"/system_stats": {}, "/history/id-1": {"id-1": {"outputs": {"file": {"images": [picture]}}}} if done else {},
                     "/view?filename=a+b.png&subfolder=&type=output": b"a picture"}[self.path])

    def do_POST(self):
        self.server.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        self.answer({"prompt_id": "id-1"})

    def log_message(self, *_):
        pass


@pytest.fixture
def comfyui():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ComfyUi) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_comfyui_is_given_the_workflow_with_the_prompt_in_it(penstock, comfyui):
    service = serve(penstock, yaml_of("comfyui").replace("8188", str(comfyui.server_port)))
    answer = service.request("POST", "/v1/draw", body={"model": "image", "prompt": 'a "cat"', "seed": 5})
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "image/png", b"a picture")
    (workflow,) = [body["prompt"] for path, body in comfyui.asked if path == "/prompt"]
    assert workflow["wanted"]["inputs"]["text"] == 'a "cat"' and workflow["steps"]["inputs"]["seed"] == 5


def test_comfyui_is_interrupted_when_nobody_waits(program, comfyui):
    folder = ENGINES / "comfyui"
    one = program("/usr/bin/python3", folder / "comfyui.py", f"http://127.0.0.1:{comfyui.server_port}", folder / "workflow.json")
    one.job(4, "/v1/draw", prompt="a long one")
    until(lambda: ("/history/id-1", None) in comfyui.asked, "it waits for the picture")
    one.say(cancel=4)
    assert one.answer()[-1]["error"]["code"] == "cancelled"
    assert comfyui.asked[-2:] == [("/queue", {"delete": ["id-1"]}), ("/interrupt", {"prompt_id": "id-1"})]
