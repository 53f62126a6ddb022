"""What runs the storm's jobs, and who judges it: each engine's workers, what is asked of them, and what they say they ran.

  simulate  three workers of engine simulate, which log each run
  process   two workers with programs of ours (storm_program.py), some of which are killed; the programs count themselves
  http      one worker before two servers: a gateway from npm (tests/bench/gateway), now and then killed, and behind it the demo
            model, served by a penstockd and an Nginx of their own. We stand before the gateway, and count
"""
import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import npm
from processes import Nginx, Penstockd, children
from waiting import Port, until

HERE = Path(__file__).resolve().parent


class Simulate:
    KILLS = {}  # what else is killed, and how often beside the others
    SIZE = {"kills": 100, "jobs": 5000}
    path, content_type = "/work", "text/plain"
    processes = 3

    def __init__(self, build, folder):
        self.build, self.folder = build, folder

    def workers(self):
        return "".join(f"  - {{ name: w{n}, engine: simulate, service_time: 60ms, distribution: exponential, seed: {n}, slots: 4, "
                       f"run_log: {self.folder}/runs }}\n" for n in range(self.processes))

    async def start(self):
        pass

    def kill(self, what, workers):
        """False: there is nobody to kill."""

    def stop(self):
        pass

    def body(self, key):
        return key

    def run_of(self, answer):
        """By which the run that gave this answer calls itself; None: no run's."""
        with contextlib.suppress(ValueError):
            return json.loads(answer).get("run")

    def runs(self):
        """Of each job, the runs that were logged."""
        runs = collections.defaultdict(set)
        for text in (self.folder / "runs").read_text().splitlines():
            run, key = text.split(" ", 1)
            runs[key].add(run)
        return runs

    def faults(self):
        """What the judges have seen, once all has ended."""
        return []


class Process(Simulate):
    KILLS = {"program": 4}
    SIZE = {"kills": 40, "jobs": 1500}
    WORKERS, SLOTS = 2, 4

    def workers(self):
        (self.folder / "scratch").mkdir()
        return "".join(f"  - {{ name: w{n}, engine: process, slots: {self.SLOTS}, scratch: {self.folder}/scratch, command: "
                       f"[/usr/bin/python3, -BS, {HERE}/storm_program.py, {self.folder}/runs, {self.folder}/seat.w{n}, {self.SLOTS}] }}\n"
                       for n in range(self.WORKERS))

    def kill(self, what, workers):
        programs = [pid for worker in workers for guard in children(worker) for pid in children(guard)]
        if programs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(programs), signal.SIGKILL)
        return bool(programs)

    def faults(self):
        left = list((self.folder / "scratch").iterdir())
        over = len(self.runs()["the-slots"])
        return [f"left in the scratch folder: {left}"] * bool(left) + ["more jobs at once than there are slots"] * over


class Judge:
    """The server before the gateway: it counts how many requests are open at once, and notes each answer."""

    def __init__(self, gateway, answers):
        self.gateway, self.answers = gateway, answers
        self.running = self.peak = self.served = 0
        self.port = Port()

    async def start(self):
        self.server = await asyncio.get_running_loop().create_server(lambda: Asker(self), "127.0.0.1", self.port.number, backlog=256)


class Asker(asyncio.Protocol):
    """A connection from a worker, with one request at a time."""

    def __init__(self, judge):
        self.judge, self.buffer, self.task = judge, b"", None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if end and len(body) >= length and self.task is None:
            self.buffer = b""
            self.judge.running += 1
            self.judge.peak = max(self.judge.peak, self.judge.running)
            self.task = asyncio.ensure_future(self.answer(head, body))

    def leave(self):
        """At the last byte, or when the worker goes: from then on there is room for another."""
        if self.task is not None:
            self.judge.running -= 1
            self.task = None

    def eof_received(self):
        self.connection_lost(None)

    def connection_lost(self, _):
        if self.task is not None:
            self.task.cancel()
            self.leave()

    async def answer(self, head, body):
        try:
            answer = await self.ask(head, body)
        except ConnectionRefusedError:
            answer = b"HTTP/1.1 503 Down\r\nretry-after-ms: 200\r\nContent-Length: 0\r\n\r\n"
        except (OSError, EOFError):
            self.leave()
            return self.transport.abort()  # as it was cut
        self.judge.served += 1
        self.leave()
        self.transport.write(answer)

    async def ask(self, head, body):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.judge.gateway)
        try:
            writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
            answered = await reader.readuntil(b"\r\n\r\n")
            length = int(answered.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
        finally:
            writer.close()
        if answered.startswith(b"HTTP/1.1 200"):
            self.judge.answers[json.loads(body)["messages"][0]["content"]].add(json.loads(answer)["id"])
        status = answered.split(b"\r\n")[0]
        return status + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length + answer


MODEL = """\
workers:
  - {{ name: demo, engine: llama, model: {root}/config/models/demo, device: cpu, slots: 16 }}
"""
BEFORE_MODEL = """\
load_module {build}/ngx_http_penstock_module.so;
{user}
worker_processes 1; pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; penstock_temp_path {folder}/t;
  penstock_zone edge 1m;
  upstream gpu {{ server unix:{socket}; keepalive 8; }}
  server {{ listen 127.0.0.1:{port}; location / {{ penstock_pass gpu; }} }}
}}
"""


class Http(Simulate):
    KILLS = {"server": 2}
    SIZE = {"kills": 30, "jobs": 600}
    SLOTS = 4
    path, content_type = "/v1/chat/completions", "application/json"

    def workers(self):
        self.answers = collections.defaultdict(set)
        self.gateway_port, self.model_port = Port(), Port()
        self.judges = [Judge(self.gateway_port.number, self.answers) for _ in range(2)]
        urls = ", ".join(f'"http://127.0.0.1:{judge.port.number}"' for judge in self.judges)
        headers = f'{{ x-portkey-provider: openai, x-portkey-custom-host: "http://127.0.0.1:{self.model_port.number}/v1", Authorization: Bearer k }}'
        return f"  - {{ name: w, engine: http, url: [{urls}], model: demo, slots: {self.SLOTS}, headers: {headers} }}\n"

    async def start(self):
        home = self.folder / "behind"
        home.mkdir()
        self.penstockd = Penstockd(home, "model", MODEL.format(root=HERE.parents[1]))
        self.nginx = Nginx(home, BEFORE_MODEL.format(
            build=self.build, folder=home, socket=self.penstockd.socket, port=self.model_port.number,
            user="user root;" if os.getuid() == 0 else ""), True)
        self.penstockd.start()
        self.penstockd.wait_for(slots=16)
        self.nginx.start(self.model_port.number)
        self.start_gateway()
        until(self.answering, "the gateway listens", 60)
        for judge in self.judges:
            await judge.start()

    def start_gateway(self):
        script = npm.installed(HERE.parent / "bench" / "gateway") / "node_modules/@portkey-ai/gateway/build/start-server.js"
        with open(self.folder / "gateway.log", "ab") as log:
            self.gateway = subprocess.Popen(["node", script, f"--port={self.gateway_port.number}", "--headless"], cwd=self.folder,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def answering(self):
        return subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{self.gateway_port.number}"]).returncode == 0

    def kill(self, what, workers):
        self.gateway.kill()
        self.gateway.wait()
        self.start_gateway()
        return True

    def stop(self):
        for judge in self.judges:
            judge.port.release()
        for process in (self.gateway, self.nginx.process, self.penstockd.process):
            process.terminate() if process is self.gateway else process and process.signal(signal.SIGTERM)
            process.wait(40)

    def body(self, key):
        return json.dumps({"model": "demo", "max_tokens": 4, "messages": [{"role": "user", "content": key}]})

    def run_of(self, answer):
        with contextlib.suppress(ValueError):
            return json.loads(answer).get("id")

    def runs(self):
        return self.answers

    def faults(self):
        told = ", ".join(f"{judge.served} answers, at most {judge.peak} at once" for judge in self.judges)
        print(f"storm: the servers say: {told}")
        return [f"{judge.peak} requests at once at a server of {self.SLOTS} slots" for judge in self.judges if judge.peak > self.SLOTS]


ENGINES = {"simulate": Simulate, "process": Process, "http": Http}


def left_over(folder, patience_s=5):
    """Processes that still have to do with the folder."""
    def find():
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if int(process.name) != os.getpid() and (str(folder) in words or os.readlink(process / "cwd").startswith(str(folder))):
                    found.append(f"{process.name} {words}")
        return found
    end = time.monotonic() + patience_s
    while (found := find()) and time.monotonic() < end:
        time.sleep(0.05)
    return found
