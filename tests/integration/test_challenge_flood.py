"""Challenges that are asked for in masses and never solved: each is signed and not stored, so neither the zone nor Nginx grows.

CHALLENGES says how many of each kind (20,000 in the suite):
    CHALLENGES=1000000 PENSTOCK_BUILD=build /usr/bin/python3 -B -m pytest -q -s tests/integration/test_challenge_flood.py
"""

import os
import re
import select
import socket
import time

import pytest

from test_challenge import LIMIT, live
from test_large_bodies import resident

COUNT = int(os.environ.get("CHALLENGES", "20000"))
CONNECTIONS, CALLERS, AT_ONCE = 8, 100, 50
REFUSED = b"HTTP/1.1 403 Forbidden\r\n"


class Asker:
    """A connection that is kept, and always has AT_ONCE requests under way."""

    def __init__(self, port, count, path):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.requests = [f"GET {path}?key={i} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for i in range(CALLERS)]
        self.to_send, self.to_hear, self.sent, self.rest, self.out = count, count, 0, b"", b""

    def step(self):
        """Hears what has come, and asks for as many more."""
        try:
            while came := self.socket.recv(1 << 20):
                text = self.rest + came
                self.to_hear -= text.count(REFUSED)
                self.rest = text[1 - len(REFUSED):]  # which may be the beginning of one
            raise AssertionError("Nginx has closed a connection that was to be kept")
        except BlockingIOError:
            pass
        while self.to_send and self.to_hear - self.to_send < AT_ONCE and len(self.out) < 1 << 16:
            self.out += self.requests[self.sent % CALLERS]
            self.sent += 1
            self.to_send -= 1
        try:
            self.out = self.out[self.socket.send(self.out):] if self.out else b""
        except BlockingIOError:
            pass


def ask(port, count, path="/"):
    askers = [Asker(port, count // CONNECTIONS, path) for _ in range(CONNECTIONS)]
    while open_ := [asker for asker in askers if asker.to_hear]:
        for asker in open_:
            asker.step()
        select.select([asker.socket for asker in open_], [], [], 0.1)
    for asker in askers:
        asker.socket.close()


def issued(service):
    return int(re.search(r'penstock_challenges_total{zone="edge",limit="a",event="issued"} (\d+)', service.get("/metrics").text())[1])


@pytest.mark.parametrize("what", ["pow algorithm=sha-256", "pow algorithm=pbkdf2", "turnstile sitekey=a upstream=gpu"])
def test_challenges_that_are_asked_for_and_never_solved_cost_no_memory(penstock, what):
    service = penstock(http="penstock_zone edge 1m; keepalive_requests 1000000000;", master=True, server=f"""
        penstock_challenge {what};
        location = /metrics {{ penstock_metrics; }}
        location / {{ {LIMIT}; empty_gif; }}""")
    client = service.client()
    for i in range(CALLERS):
        assert client.request("GET", f"/?key={i}").status == 200
    ask(service.port, 4000)
    worker, = service.nginx.workers()
    zone, count, began = live(service), issued(service), time.monotonic()
    sizes = [resident(worker, "VmRSS")]
    for _ in range(4):
        ask(service.port, COUNT // 4)
        sizes.append(resident(worker, "VmRSS"))
    seconds = time.monotonic() - began
    print(f"{what}: {COUNT} challenges in {seconds:.1f} s, {COUNT / seconds:.0f}/s; {live(service)} keys in the zone; the worker's memory by quarters, KiB: "
          + ", ".join(str(size >> 10) for size in sizes))
    assert issued(service) - count == COUNT
    assert live(service) == zone == CALLERS
    assert sizes[-1] <= sizes[0] + (2 << 20), sizes  # which is no room for anything of each
