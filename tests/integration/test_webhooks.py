"""Webhooks as a receiver sees them; the official `standardwebhooks` package verifies them (standardwebhooks/verify.mjs)."""

import base64
import contextlib
import http.server
import json
import os
import re
import socket
import subprocess
import threading

import pytest

from conftest import simulate
from npm import installed
from waiting import until
from wire import DONE, FAILED, HEAD, SUBMIT, Connection, frame

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Receiver:
    """Keeps what is posted to it, and answers with the statuses given, the last of them for ever."""

    def __init__(self, *statuses):
        receiver, self.posts, self._statuses = self, [], list(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append(({name.lower(): value for name, value in self.headers.items()}, body.decode()))
                status = receiver.status()
                with contextlib.suppress(OSError):  # who asked may have been killed
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def status(self):
        return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver():
    receivers = []

    def listen(*statuses):
        receivers.append(Receiver(*(statuses or (204,))))
        return receivers[-1]

    yield listen
    for one in receivers:
        one.close()


@pytest.fixture
def service(penstock, folder):
    def start(allow="[127.0.0.1]", **more):
        secret = folder / "webhook.secret"
        secret.write_text(SECRET + "\n")
        os.chmod(secret, 0o600)
        yaml = f"state: state\nwebhooks: {{ secret_file: {secret}, allow: {allow} }}\n"
        return penstock(server="location = /metrics { penstock_metrics gpu; }", workers=[simulate(slots=1, service_time="1ms", **more)], yaml=yaml)
    return start


def outcomes(service, of="webhooks"):
    """How many tries ended in which way."""
    series = re.findall(rf'^penstock_{of}_total\{{.*outcome="(\w+)".*\}} (\d+)$', service.get("/metrics").text(), re.M)
    return {name: int(count) for name, count in series}


def submit(service, callback, id=1):
    """The fields of HEAD or FAILED."""
    caller = Connection(service.penstockd.socket)
    caller.send(frame(SUBMIT, id, owner="alice", method="POST", path="/render", prefer="respond-async", callback=callback, body="{}"))
    answer = None
    while True:
        kind, _, fields = caller.receive_fields() if answer is None else (caller.receive()[0], None, None)
        if kind in (HEAD, FAILED):
            answer = fields
        if kind in (DONE, FAILED):
            caller.close()
            return answer


def test_the_official_package_verifies_what_comes(service, receiver):
    here = receiver()
    assert submit(service(), here.url)["status"] == 202
    until(lambda: here.posts, "a webhook comes")
    headers, body = here.posts[0]
    done = subprocess.run(["node", installed("standardwebhooks") / "verify.mjs"], text=True, capture_output=True, timeout=60,
                          input=json.dumps({"secret": SECRET, "headers": headers, "body": body}))
    assert done.returncode == 0, done.stderr
    payload = json.loads(done.stdout)
    assert payload["type"] == "job.completed"
    assert payload["data"]["status"] == "completed" and payload["data"]["object"] == "job"
    assert payload["data"]["result_url"].endswith("/result")
    forged = subprocess.run(["node", installed("standardwebhooks") / "verify.mjs"], text=True, capture_output=True, timeout=60,
                            input=json.dumps({"secret": SECRET, "headers": headers, "body": body.replace("completed", "cancelled")}))
    assert forged.returncode != 0


def test_what_was_not_taken_comes_again_also_after_a_restart(service, receiver):
    here = receiver(500)
    running = service()
    assert submit(running, here.url)["status"] == 202
    until(lambda: len(here.posts) == 1, "a first try is made")
    running.penstockd.kill()
    running.penstockd.start()
    until(lambda: len(here.posts) >= 2, "another try is made", 30)
    ids = {headers["webhook-id"] for headers, _ in here.posts}
    assert len(ids) == 1, "one delivery, one id"


def test_a_target_inside_is_refused_when_it_is_asked_for(service):
    running = service(allow="[]")
    for url in ("http://127.0.0.1/hook", "http://[::1]/", "http://169.254.169.254/latest/meta-data", "ftp://example.com/", "nonsense"):
        assert submit(running, url)["status"] == 400, url


def test_a_name_that_leads_inside_is_not_connected_to(service, receiver):
    here = receiver()
    running = service(allow="[]")
    assert submit(running, here.url.replace("127.0.0.1", "localhost"))["status"] == 202
    until(lambda: "was given up: its address is private" in running.penstockd.process.text(), "it is given up")
    assert here.posts == []


def test_a_url_that_said_410_stays_disabled_over_a_restart(service, receiver):
    gone, good = receiver(410), receiver()
    running = service()
    assert submit(running, gone.url)["status"] == 202
    until(lambda: gone.posts, "it is asked once")
    until(lambda: outcomes(running).get("disabled") == 1, "its answer is known")
    running.penstockd.stop()
    running.penstockd.start()
    running.wait_for_workers(running.penstockd)
    for url in (gone.url, good.url):
        assert submit(running, url)["status"] == 202
    until(lambda: good.posts, "a later one comes")
    until(lambda: outcomes(running).get("disabled") == 1, "the other has been judged in its new life")
    assert len(gone.posts) == 1


def test_a_receiver_that_hangs_holds_up_no_other(service, receiver):
    good, running = receiver(), service(allow="[127.0.0.1, localhost]")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hangs:  # connections are made, and nobody answers
        for id in range(1, 9):
            assert submit(running, f"http://127.0.0.1:{hangs.getsockname()[1]}/")["status"] == 202
        hangs.accept()[0].close()
        assert submit(running, good.url + "/port")["status"] == 202
        assert submit(running, good.url.replace("127.0.0.1", "localhost") + "/name")["status"] == 202
        until(lambda: len(good.posts) == 2, "another port and another name are told, long before the other is given up", 12)
