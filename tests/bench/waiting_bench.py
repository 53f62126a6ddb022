#!/usr/bin/python3
"""What streams that wait cost others: the time of Nginx's other answers, with and without so many GET /jobs/events open, A B A B A B.

Nginx, penstockd, those who hold the streams and the one who asks share the machine. The one who asks sends so many requests a second,
for a picture behind a limit, over connections that are kept; a time is from when a request was due, so that a stall counts for all
that it held up.

Usage: waiting_bench.py BUILD_DIR [--streams 10000] [--seconds 10] [--rate 500] [--rounds 3]
"""
import argparse
import http.client
import os
import pathlib
import resource
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from edge_bench import free_port, wait_for
from table import row

PER_OWNER = 8  # streams that one may have
AT_ONCE = 32  # are opened
CONF = """
worker_processes 2;  # a stream takes two descriptors
daemon off;
user root;
pid {dir}/nginx.pid;
error_log {dir}/error.log error;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  penstock_temp_path {dir}/penstock;
  penstock_zone edge 8m;
  upstream gpu {{ server unix:{dir}/q.sock; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port} backlog=16384 reuseport;
    penstock_owner $http_authorization;
    location /v1/ {{ penstock_limit zone=edge key=$http_authorization rate=100000r/s name=caller; penstock_pass gpu; }}
    location /jobs {{ penstock_jobs gpu; }}
    location = /quota {{ penstock_quota; }}
    location = /other {{ penstock_limit zone=edge key=$arg_key rate=100000r/s name=other; empty_gif; }}
  }}
}}
"""
PENSTOCKD = "socket: {dir}/q.sock\nstate: {dir}/state\nlimits: {{ max_connections: 40000 }}\nworkers: [ {{ name: sim, engine: simulate, slots: 4 }} ]\n"


def raise_limit():
    wanted = 65536
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def hold(port, streams):
    """Opens them, a few at once, says "open" once each has its snapshot, and reads on until it is ended."""
    raise_limit()
    selector, opened, waiting = selectors.DefaultSelector(), 0, 0
    while True:
        while opened < streams and waiting < AT_ONCE:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"GET /jobs/events HTTP/1.1\r\nHost: bench\r\nAuthorization: o%d\r\n\r\n" % (opened // PER_OWNER))
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ, [b""])
            opened, waiting = opened + 1, waiting + 1
        for key, _ in selector.select():
            data = key.fileobj.recv(65536)
            if not data:
                raise SystemExit("waiting_bench: a stream has ended")
            if key.data is not None:
                key.data[0] += data
                if b"event: snapshot" in key.data[0]:
                    selector.modify(key.fileobj, selectors.EVENT_READ, None)
                    waiting -= 1
                    if waiting == 0 and opened == streams:
                        print("open", flush=True)


def ask(port, rate, seconds):
    """The time of each answer in ms."""
    clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(4)]
    times, began = [], time.monotonic()
    for i in range(int(rate * seconds)):
        due = began + i / rate
        left = due - time.monotonic()
        if left > 0:
            time.sleep(left)
        client = clients[i % len(clients)]
        client.request("GET", f"/other?key=k{i % 100}")
        answer = client.getresponse()
        answer.read()
        assert answer.status == 200
        times.append(1000 * (time.monotonic() - due))
    return sorted(times)


def quantile(times, part):
    return times[min(len(times) - 1, int(part * len(times)))]


def measure(build, streams, seconds, rate, rounds):
    """(without, with): the p50 and p99 of each round, in ms."""
    folder = tempfile.mkdtemp(prefix="waiting.", dir="/tmp")
    os.chmod(folder, 0o755)
    port, processes, results = free_port(), [], ([], [])
    try:
        pathlib.Path(folder, "penstock.yaml").write_text(PENSTOCKD.format(dir=folder))
        pathlib.Path(folder, "nginx.conf").write_text(f"load_module {build}/ngx_http_penstock_module.so;" + CONF.format(dir=folder, port=port))
        log = open(f"{folder}/penstockd.log", "w")
        processes.append(subprocess.Popen([f"{build}/penstockd", "-c", f"{folder}/penstock.yaml"], stdout=log, stderr=log, start_new_session=True))
        wait_for("penstockd", lambda: os.path.exists(f"{folder}/q.sock"))
        processes.append(subprocess.Popen(["nginx", "-c", f"{folder}/nginx.conf"], start_new_session=True))
        wait_for("nginx", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        for _ in range(rounds):
            times = ask(port, rate, seconds)
            results[0].append((quantile(times, 0.5), quantile(times, 0.99)))
            holder = subprocess.Popen([sys.executable, __file__, "hold", str(port), str(streams)], stdout=subprocess.PIPE, text=True)
            try:
                assert holder.stdout.readline() == "open\n", "the streams did not open"
                times = ask(port, rate, seconds)
                results[1].append((quantile(times, 0.5), quantile(times, 0.99)))
                assert holder.poll() is None, "the streams did not stay open"
            finally:
                holder.kill()
                holder.wait()
        return results
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    raise_limit()
    without, held = measure(pathlib.Path(args.build).resolve(), args.streams, args.seconds, args.rate, args.rounds)
    p50, p99 = ([statistics.median(one[i] for one in side) for side in (held, without)] for i in (0, 1))
    more = p99[0] - p99[1]
    row("E9", f"{args.streams} waiting event streams: other answers p50, p99", f"{p50[0]:.2f}, {p99[0]:.2f} ms",
        f"without {p50[1]:.2f}, {p99[1]:.2f} ms", f"p99 within 2 ms: {more:+.2f}", more <= 2, [p50 for p50, _ in without])
    for side, name in ((without, "without"), (held, "with")):
        print(f"  {name}: " + "; ".join(f"{a:.2f}, {b:.2f}" for a, b in side))


if __name__ == "__main__":
    hold(int(sys.argv[2]), int(sys.argv[3])) if sys.argv[1] == "hold" else main()
