"""Memory runs out at each point of a request's way: what is not served is not paid for."""

import http.client
import mmap
import struct

import pytest

from client import Client
from conftest import simulate
from processes import ASAN, BUILD
from test_quota import rows

pytestmark = pytest.mark.skipif(ASAN, reason="the sanitizer has an allocator of its own")

LIMITS = """
penstock_limit zone=edge key=$remote_addr rate=100000r/M name=requests;
penstock_limit zone=edge key=$remote_addr rate=1000000t/M name=tokens;
"""
SERVER = f"""
location / {{ {LIMITS} penstock_pass gpu; }}
location = /quota {{ penstock_quota; }}
"""


@pytest.fixture
def fail_allocation(folder, monkeypatch):
    """fail_allocation(n): the n-th from now on. It returns what was left to go before the last chosen: 0, it failed."""
    path = folder / "allocations"
    path.write_bytes(bytes(4))
    with open(path, "r+b") as file:
        counter = mmap.mmap(file.fileno(), 4)
    monkeypatch.setenv("FAIL_ALLOCATION", str(path))

    def choose(n):
        left, = struct.unpack("i", counter[:])
        counter[:] = struct.pack("i", n)
        return left
    yield choose
    counter.close()


def status_of(service):
    """None: the connection was closed without an answer."""
    client = Client(service.port, timeout=20)
    try:
        return client.request("POST", "/v1/completions", None, {"model": "sim", "prompt": "a", "max_tokens": 4}).status
    except (http.client.HTTPException, ConnectionError):
        return None
    finally:
        client.close()


@pytest.mark.parametrize("pool", [256, 288, 320, 352, 384, 512])  # small, so that little comes from what the pool has
def test_a_request_for_which_memory_runs_out_costs_nothing(penstock, fail_allocation, monkeypatch, pool):
    service = penstock(http=f"penstock_zone edge 1m; request_pool_size {pool};", server=SERVER, workers=[simulate(slots=1, service_time="0ms")], start=False)
    service.penstockd.start()
    service.wait_for_workers(service.penstockd)
    with monkeypatch.context() as nginx_alone:
        nginx_alone.setenv("LD_PRELOAD", str(BUILD / "libfail_allocation.so"))
        service.nginx.start(service.port)

    service.expected_alert = "Cannot allocate memory"

    def used():
        return {name: row["used"] for name, row in rows(service.get("/quota")).items()}
    assert status_of(service) == 200
    statuses, left = [], 0
    while left == 0:
        before = used()
        fail_allocation(len(statuses) + 1)
        statuses.append(status_of(service))
        left = fail_allocation(0)
        assert statuses[-1] in (200, 500, 502, None)  # 502: Nginx could not send it to penstockd
        assert statuses[-1] not in (500, 502) or used() == before, f"allocation {len(statuses)}"
    assert 500 in statuses and statuses[-1] == 200
