"""Jobs of engines that work in steps, cancelled on one host and run on another: the slot is free within a step and a round trip. And what
they say of how far they are is told on each host."""

import json
import time

import pytest

from client import Client
from shared_hosts import ALICE, get, host, job, promise, redis, until_known, until_status  # noqa: F401 (host and redis are fixtures)
from test_demo_model import MODEL
from waiting import until

STEP = 0.3
ROUND_TRIP = 0.5  # with what a busy machine adds to it
STEPS = """\
import json, os, select, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(penstock=1)
say(ready=True)
lines = b""
def read(wait):
    "The lines that have come."
    global lines
    if select.select([0], [], [], wait)[0]:
        data = os.read(0, 65536)
        if not data: sys.exit()
        lines += data
    *whole, lines = lines.split(b"\\n")
    return [json.loads(line) for line in whole]
jobs = []
while True:
    jobs += [each for each in read(None if not jobs else 0) if "job" in each]
    if not jobs: continue
    job = jobs.pop(0)
    if "quick" in json.dumps(job):
        say(result={"body": "done"}, job=job["job"])
        continue
    for step in range(1000):
        time.sleep(STEP)  # it hears nothing in a step
        said = read(0)
        jobs += [each for each in said if "job" in each]
        if any(each.get("cancel") == job["job"] for each in said):
            say(error={"code": "cancelled", "message": "as told"}, job=job["job"])
            break
        say(progress=(step + 1) / 1000, step=step + 1, steps=1000, job=job["job"])
"""


@pytest.fixture
def hosts(host, folder):  # noqa: F811
    """An edge, a host that runs the program of steps in one slot, and another edge."""
    (folder / "steps.py").write_text(STEPS.replace("STEP", str(STEP)))
    (folder / "scratch").mkdir()
    edge, gpu, third = host(), host(dict(name="sim", engine="process", command=f"[/usr/bin/python3, {folder / 'steps.py'}]", model="sim",
                                         scratch=folder / "scratch", slots=1)), host()
    for service in (edge, third):
        until(lambda: service.request("POST", "/v1/work", {**ALICE, "Prefer": "respond-async"}, {"model": "sim", "prompt": "quick"}).status == 202,
              "it is known")
    until(lambda: gpu.penstockd.queue().running == 0, "those are done")
    return edge, gpu, third


def time_to_free(gpu):
    began = time.monotonic()
    until(lambda: gpu.penstockd.queue().running == 0, "its slot is free", 10)
    return time.monotonic() - began


def is_running(gpu, service, id):
    until(lambda: job(service, id).get("progress"), "it is in its steps")
    assert gpu.penstockd.queue().running == 1


def test_a_cancel_on_another_host_frees_the_slot_within_a_step(hosts):
    edge, gpu, third = hosts
    times = []
    for service in (edge, third, edge):
        id = promise(edge, {"model": "sim", "prompt": "slow"}).json()["id"]
        is_running(gpu, edge, id)
        assert service.request("DELETE", f"/jobs/{id}", ALICE).json()["status"] == "cancelled"
        times.append(time_to_free(gpu))
        assert get(third, f"/jobs/{id}/result").status == 410
    assert min(times) < STEP + ROUND_TRIP and max(times) < STEP + 4 * ROUND_TRIP, times


def test_a_caller_that_leaves_its_edge_frees_the_slot_within_a_step(hosts):
    edge, gpu, _ = hosts
    caller = Client(edge.port)
    until(lambda: edge.request("POST", "/v1/work", ALICE, {"model": "none"}).status == 404, "the queue is open")
    caller._connection.request("POST", "/v1/work", '{"model":"sim","prompt":"slow"}', {**ALICE, "Content-Type": "application/json"})
    until(lambda: gpu.penstockd.queue().running == 1, "it runs")
    caller.close()
    assert time_to_free(gpu) < STEP + 2 * ROUND_TRIP


def steps_told(service, id, count):
    """By its events, until there were so many."""
    events, seen = service.client().stream("GET", f"/jobs/{id}/events", ALICE), []
    for told in map(json.loads, events.events()):
        if told["status"] == "processing" and told["progress"]:
            seen.append(told["progress"]["step"])
        if len(set(seen)) == count:
            break
    events.close()
    return seen


def test_events_on_each_host_tell_how_far_it_is(hosts):
    edge, gpu, third = hosts
    id = promise(edge, {"model": "sim", "prompt": "slow"}).json()["id"]
    is_running(gpu, edge, id)
    for service in (third, edge, gpu):
        steps = steps_told(service, id, 3)
        assert steps == sorted(steps), steps
    assert third.request("DELETE", f"/jobs/{id}", ALICE).json()["status"] == "cancelled"


# ---- a model

def test_a_model_that_is_cancelled_on_another_host_stops_between_two_tokens(host):  # noqa: F811
    edge, gpu, third = host(), host(dict(name="demo", engine="llama", model=MODEL, device="cpu", slots=4, memory="256MiB")), host()
    until_status(edge, until_known(edge, "demo"), "completed")
    until_known(third, "demo")
    until(lambda: gpu.penstockd.queue().running == 0, "those are done")
    asked = {"model": "demo", "prompt": "The ", "max_tokens": 480, "temperature": 1, "stream": True, "ignore_eos": True}
    for _ in range(20):
        ids = [promise(edge, {**asked, "seed": seed}).json()["id"] for seed in range(4)]
        until(lambda: gpu.penstockd.queue().running == 4, "all four run", 5)
        said = [third.request("DELETE", f"/jobs/{id}", ALICE).json()["status"] for id in ids]
        if said == ["cancelled"] * 4:
            break  # else one was quicker
    assert said == ["cancelled"] * 4
    assert time_to_free(gpu) < ROUND_TRIP
    for id in ids:
        assert job(edge, id)["status"] == "cancelled"
