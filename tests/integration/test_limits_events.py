"""`limits` in an owner's stream (GET /jobs/events): what GET /quota says, when it has changed, at most each 5 s."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import simulate
from processes import ASAN, BUILD

HTTP = "penstock_zone edge 1m; penstock_tier free { rate 60r/m burst=50; quota 500r/d; concurrency 9; }"
JOBS = "location /v1/ { penstock_limit zone=edge key=$http_authorization tier=free; penstock_pass gpu; } location /jobs { penstock_jobs gpu; }"
SERVER = "penstock_owner $http_authorization; " + JOBS
QUOTA = " location = /quota { penstock_quota; }"
ALICE = {"Authorization": "alice"}


def start(penstock, server=SERVER + QUOTA, **more):
    return penstock(http=HTTP, server=server, workers=[simulate(slots=4, service_time="1ms")], yaml="state: state\n", **more)


def events(service, who=ALICE, path="/jobs/events"):
    """Yields each event of the stream: its type and its data."""
    stream = service.client().stream("GET", path, who)
    assert stream.status == 200
    kind = None
    for line in stream._response:
        if line.startswith(b"event: "):
            kind = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield kind, json.loads(line[6:])


def promise(service, who=ALICE):
    reply = service.complete(headers={"Prefer": "respond-async", **who})
    assert reply.status == 202, reply
    return reply.json()["id"]


def test_they_come_behind_the_snapshot_as_quota_says_them(penstock):
    service = start(penstock)
    promise(service)
    heard = events(service)
    assert next(heard)[0] == "snapshot"
    kind, limits = next(heard)
    told = service.request("GET", "/quota", ALICE).json()
    assert kind == "limits" and limits["tier"] == "free"
    steady = [[{**limit, "reset_seconds": 0} for limit in each["limits"]] for each in (limits, told)]
    assert steady[0] == steady[1] and limits["limits"][1]["used"] == 1 and limits.keys() == told.keys()


def test_they_come_again_when_they_have_changed_but_not_each_time(penstock):
    service = start(penstock)
    heard = events(service)
    while next(heard)[0] != "limits":
        pass
    first, promised = time.monotonic(), 0
    kind = ""
    while kind != "limits":
        promise(service)
        promised += 1
        kind, data = next(heard)
        while kind not in ("job", "limits"):
            kind, data = next(heard)
        assert time.monotonic() - first < 20
    assert time.monotonic() - first >= 4.9, "at most each 5 s"
    assert data["limits"][1]["name"] == "free-quota-d" and 0 < data["limits"][1]["used"] <= promised


def test_each_owner_hears_of_its_own(penstock):
    service = start(penstock)
    for _ in range(3):
        promise(service)
    for who, used in ((ALICE, 3), ({"Authorization": "bob"}, 0)):
        heard = events(service, who)
        kind, data = next(heard)
        while kind != "limits":
            kind, data = next(heard)
        assert data["limits"][1]["used"] == used


def test_without_a_quota_in_the_server_there_are_none(penstock):
    service = start(penstock, server=SERVER)
    heard = events(service)
    assert next(heard)[0] == "snapshot"
    promise(service)
    assert next(heard)[0] == "job"


def test_a_jobs_own_stream_has_none(penstock):
    service = start(penstock)
    id = promise(service)
    assert "limits" not in [kind for kind, _ in events(service, path=f"/jobs/{id}/events")]


@pytest.mark.skipif(ASAN, reason="a bench starts a plain Nginx")
def test_the_bench_of_waiting_streams_opens_them_and_is_answered(tmp_path):
    """Its shape alone: what it measures on a busy machine says nothing."""
    told = subprocess.run([sys.executable, Path(__file__).parents[2] / "tests/bench/waiting_bench.py", BUILD, "--streams", "200", "--seconds", "0.2", "--rate", "50",
                           "--rounds", "1"], capture_output=True, text=True, timeout=100)
    assert told.returncode == 0 and told.stdout.startswith("| E9 | 200 waiting event streams"), told
