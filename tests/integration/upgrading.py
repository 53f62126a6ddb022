"""A service whose penstockd is replaced while it serves, and a worker whose jobs go on as a test lets them."""

import signal
import subprocess
import textwrap
import threading
from http.client import HTTPException

import pytest

from client import Client
from processes import BUILD, QueueStatus, children, environment
from waiting import until

SERVER = """\
penstock_owner $http_authorization;
location /v1/ { penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
"""
ALICE = {"Authorization": "Bearer alice"}

# Streams lines of its job, as far as the number in a file allows. Each run is noted.
PROGRAM = """\
import json, os, sys, time
def say(**line): print(json.dumps(line), flush=True)
def allowed():
    try: return int(open("GATE").read())
    except (OSError, ValueError): return 0
say(penstock=1)
say(ready=True)
for line in sys.stdin:
    job = json.loads(line)
    if "job" not in job: continue
    body = json.loads(job["body"])
    with open("RUNS", "a") as runs: runs.write(body["prompt"] + "\\n")
    for i in range(body["max_tokens"]):
        while i >= allowed(): time.sleep(0.002)
        say(chunk=f"data: {body['prompt']}{'x' * body.get('size', 0)} {i}\\n\\n", type="text/event-stream")
        say(progress=(i + 1) / body["max_tokens"])
    say(result={})
"""


class Gated:
    """A worker whose jobs go on only as the test lets them."""

    def __init__(self, folder):
        self.gate, self.runs_file, self.path = folder / "gate", folder / "runs", folder / "program.py"
        self.path.write_text(PROGRAM.replace("GATE", str(self.gate)).replace("RUNS", str(self.runs_file)))
        (folder / "scratch").mkdir()
        self.scratch = folder / "scratch"

    def worker(self, **more):
        return dict(name="program", engine="process", command=f"[/usr/bin/python3, {self.path}]", model="sim",
                    scratch=self.scratch, **{"slots": 1, **more})

    def let(self, lines):
        fresh = self.gate.with_suffix(".new")
        fresh.write_text(str(lines))
        fresh.rename(self.gate)

    def runs(self):
        return self.runs_file.read_text().split() if self.runs_file.exists() else []


@pytest.fixture
def gated(folder):
    return Gated(folder)


@pytest.fixture
def serve(penstock, folder):
    """serve(workers, ...): a service whose penstockd can be replaced: its program is a link."""
    def start(*workers, ready=True, **parts):
        service = penstock(start=False, server=SERVER, workers=list(workers), **parts)
        service.program = service.folder / "penstockd-now"
        service.program.symlink_to(BUILD / "penstockd")
        service.penstockd.start_by([service.program, "-c", service.penstockd.config])
        until(service.penstockd._answers, "penstockd answers")
        if ready:
            service.penstockd.wait_for(state=QueueStatus.OPEN)
        service.nginx.start(service.port)
        return service
    return start


def text(service):
    return service.penstockd.process.text()


def upgraded(service):
    return text(service).count("upgraded from")


def upgrade(service):
    """USR2, until the next one is there."""
    before = upgraded(service)
    service.penstockd.process.signal(signal.SIGUSR2)
    until(lambda: upgraded(service) > before, lambda: "penstockd was upgraded: " + text(service)[-2000:])


def ctl(service, *arguments):
    return subprocess.run([BUILD / "penstockctl", *arguments, "-s", service.penstockd.socket], capture_output=True, text=True,
                          timeout=60, env=environment(service.folder))


def families(service):
    """Every process that penstockd started, and theirs."""
    return [(child, children(child)) for child in service.penstockd.workers()]


def replace(service, script):
    """Another program is where penstockd's was."""
    fresh = service.folder / "fresh"
    fresh.write_text("#!/bin/sh\n" + textwrap.dedent(script))
    fresh.chmod(0o755)
    fresh.rename(service.program)


def put_back(service):
    fresh = service.folder / "link"
    fresh.symlink_to(BUILD / "penstockd")
    fresh.rename(service.program)


class Asked:
    """One request in a thread of its own; its lines as they came."""

    def __init__(self, service, prompt, tokens, headers=None, stream=True, **body):
        self.lines, self.status, self.error = [], None, None
        self._arguments = service.port, prompt, tokens, headers or {}, stream, body
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        port, prompt, tokens, headers, stream, body = self._arguments
        client = Client(port)
        try:
            answer = client.stream("POST", "/v1/completions", headers,
                                   {"model": "sim", "prompt": prompt, "max_tokens": tokens, "stream": stream, **body})
            self.status = answer.status
            for event in answer.events():
                self.lines.append(event)
        except (OSError, HTTPException) as error:
            self.error = error
        finally:
            client.close()

    def whole(self, prompt, tokens):
        self.thread.join(30)
        assert not self.thread.is_alive() and self.error is None, (self.error, self.lines)
        assert self.status == 200
        assert self.lines == [f"{prompt} {i}" for i in range(tokens)], (prompt, self.lines)
