"""What a caller that waits takes of memory: no more of Nginx than one behind proxy_pass."""

import json
import socket
import threading

import pytest

from conftest import simulate
from processes import ASAN
from test_large_bodies import resident
from waiting import until

FIRST, MORE = 100, 350  # the first ones pay for what is made once
POST = b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: 16\r\n\r\n0123456789abcdef"


class Silent:
    """Takes every connection, reads, and never answers."""

    def __init__(self, path):
        self.held = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(512)
        path.chmod(0o777)
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self):
        while True:
            self.held.append(self._listener.accept()[0])


def grown_by(service, path, pids, waiting):
    """By how much each process has grown for each of MORE callers. `waiting` says how many have come through."""
    callers, before = [], []
    for count in (FIRST, FIRST + MORE):
        while len(callers) < count:
            callers.append(socket.create_connection(("127.0.0.1", service.port)))
            callers[-1].sendall(POST % path)
        until(lambda: waiting() >= count, f"{count} wait")
        before, sizes = [resident(pid, "VmRSS") for pid in pids], before
    for caller in callers:
        caller.close()
    return [(now - then) / MORE for now, then in zip(before, sizes)]


@pytest.mark.skipif(ASAN, reason="a sanitizer's own memory")
def test_who_waits_takes_no_more_memory_than_behind_proxy_pass(penstock, folder):
    silent = Silent(folder / "silent.sock")
    peer = penstock(http=f"upstream silent {{ server unix:{folder}/silent.sock; }}", server="location / { proxy_pass http://silent; }")
    theirs, = grown_by(peer, b"/", peer.nginx.workers(), lambda: len(silent.held))
    ours = penstock(workers=[simulate(slots=1, service_time="1h")], server="location / { penstock_pass gpu; }")
    edge, daemon = grown_by(ours, b"/", [*ours.nginx.workers(), ours.penstockd.process.pid],
                            lambda: sum(json.loads(ours.penstockd.status())["queues"][0][key] for key in ("waiting", "running")))
    assert edge <= 1.02 * theirs, (edge, theirs)
    assert daemon <= 1700, daemon
