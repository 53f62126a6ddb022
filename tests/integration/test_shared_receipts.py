"""What a home's edge has charged for a promised job of a shared queue is settled by what the job used, once, though the home's penstockd
was away when it ended."""

import os
import re
import signal
import socket
import subprocess
import threading

import pytest

from hosts import PATIENT, kill
from processes import BUILD, environment
from shared_hosts import ALICE, BODY, SERVER, ask, get, post, promise, redis, until_known, until_one_runs, until_status, \
    worker  # noqa: F401 (redis is a fixture)
from waiting import until
from wire import EDGE, HOLD, OVER, SETTLED, TAKE, Connection, frame

# No token comes back by itself.
PLAN = "penstock_tier free { quota 1000000t/M; concurrency 9; }\n"
CHARGES = SERVER.replace("key=$http_held", "key=$http_authorization") + "location = /quota { penstock_quota; }\n"
RESERVES = {**BODY, "max_tokens": 5000}
SHORT = dict(output_tokens=40)


@pytest.fixture
def host(redis, penstock):
    def build(*workers, zone="penstock_zone edge 1m;\n", state=True, **queue):
        text = f'redis: {{ url: "unix:{redis.socket}" }}\n' + ("state: state\n" if state else "") + "drain_timeout: 1s\n"
        return penstock(http=zone + PLAN, server=CHARGES, workers=list(workers), yaml=text, queue={"shared": "true", **queue})
    return build


def quota(service):
    return get(service, "/quota").json()


def held(service):
    return quota(service)["concurrency"]["in_use"]


def charged(service):
    return next(each["used"] for each in quota(service)["limits"] if each["unit"] == "tokens")


def used(service, *ids):
    """What these jobs have used, as their answers say."""
    return sum(get(service, f"/jobs/{id}/result").json()["usage"]["total_tokens"] for id in ids)


def until_settled(service):
    until(lambda: held(service) == 0, lambda: f"nothing is held; it is {quota(service)}", 30)


def order(service, *words):
    subprocess.run([BUILD / "penstockctl", *words, "-s", service.penstockd.socket], check=True, capture_output=True, timeout=30,
                   env=environment(service.folder))


def ready(edge):
    """The edge knows who serves, and nothing is held there any more. What it has charged."""
    id = until_known(edge)
    until_status(edge, id, "completed")
    until_settled(edge)
    assert charged(edge) == used(edge, id)
    return charged(edge)


def restart(edge):
    edge.penstockd.kill()
    edge.penstockd.start()


def until_kept(edge, count):
    """So many receipts are kept on the host's disk, as the next start says."""
    def kept():
        before = len(edge.penstockd.process.text())
        edge.penstockd.stop()  # which writes what is to be written
        edge.penstockd.start()
        found = re.search(r"what was charged for (\d+) promised jobs", edge.penstockd.process.text()[before:])
        return int(found[1] if found else 0) == count
    until(kept, f"{count} receipts are kept")


def beginning_of_id(number):
    """Of the job of that number: its 63 bits in Crockford's base 32."""
    return "job_" + "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[(number >> shift) & 31] for shift in range(60, -1, -5))


# ---- the home's penstockd is away when the job ends

@pytest.mark.parametrize("how", ["waits", "runs"])
def test_what_a_job_used_that_ended_while_its_home_was_away_is_settled_once_it_is_back(host, how):
    edge, gpu = host(), host(worker("20ms" if how == "waits" else "2s", **SHORT))
    before = ready(edge)
    if how == "waits":
        order(gpu, "pause", "default")
    id = promise(edge, RESERVES).json()["id"]
    if how == "runs":
        until_one_runs(gpu)
    assert held(edge) == 1 and charged(edge) >= before + 5000
    edge.penstockd.kill()
    if how == "waits":
        order(gpu, "resume", "default")
    until_status(gpu, id, "completed")
    edge.penstockd.start()
    until_settled(edge)
    assert charged(edge) == before + used(gpu, id)
    # What is said after another start comes before what is said of the next job.
    restart(edge)
    until_known(edge)
    other = promise(edge, RESERVES).json()["id"]
    until_status(edge, other, "completed")
    until_settled(edge)
    all = [each["id"] for each in get(edge, "/jobs").json()["data"]]
    assert id in all and other in all
    assert charged(edge) == used(edge, *all)
    until_kept(edge, 0)


def test_what_still_waits_is_held_by_each_penstockd_that_follows(host):
    edge, gpu = host(), host(worker(**SHORT))
    ready(edge)
    order(gpu, "pause", "default")
    id = promise(edge, RESERVES).json()["id"]
    edge.nginx.stop()
    for _ in range(2):
        restart(edge)
        line = Connection(edge.penstockd.socket, role=EDGE)
        kind, number, said = line.receive_fields()
        assert kind == HOLD and said["receipt"] and id.startswith(beginning_of_id(number))
        line.close()


def test_an_end_is_told_after_each_start_until_the_edge_has_settled_it(host):
    edge, gpu = host(), host(worker(**SHORT))
    ready(edge)
    order(gpu, "pause", "default")
    id = promise(edge, RESERVES).json()["id"]
    edge.nginx.stop()
    edge.penstockd.kill()
    order(gpu, "resume", "default")
    until_status(gpu, id, "completed")
    told = []
    for _ in range(2):  # killed with the end unsettled, the second time
        restart(edge)
        line = Connection(edge.penstockd.socket, role=EDGE)
        kind, number, said = line.receive_fields()
        while kind == HOLD:
            kind, number, said = line.receive_fields()
        assert kind == OVER
        told.append((number, said))
    assert told[0] == told[1]
    assert "refund" not in said and said["prompt_tokens"] + said["completion_tokens"] == used(gpu, id)
    line.send(frame(SETTLED, number) + frame(TAKE, 1))  # which is a worker's to say: the line is closed, once the first was read
    line.until_closed()
    line.close()
    until_kept(edge, 0)


# ---- what cannot be had

def test_what_nobody_knows_the_end_of_stays_charged_and_is_held_no_longer(host, redis):
    edge, gpu = host(), host(worker(**SHORT))
    before = ready(edge)
    order(gpu, "pause", "default")
    id = promise(edge, RESERVES).json()["id"]
    reserved = charged(edge)
    assert reserved >= before + 5000
    edge.penstockd.kill()
    redis.ask("DEL", f"penstock:q1:{{default}}:j|{id}")
    edge.penstockd.start()
    until_settled(edge)
    assert charged(edge) == reserved
    until_kept(edge, 0)


def test_a_home_without_a_state_lets_its_charges_lapse(host):
    edge, gpu = host(state=False), host(worker("20ms", **SHORT))
    before = ready(edge)
    order(gpu, "pause", "default")
    promise(edge, RESERVES)
    reserved = charged(edge)
    restart(edge)
    order(gpu, "resume", "default")
    until_settled(edge)
    assert charged(edge) == reserved > before + 4000


# ---- a caller who does not wait for the 202

def test_a_job_whose_caller_left_before_its_202_is_settled_by_what_it_used(host, redis):
    edge, gpu = host(), host(worker(**SHORT))
    before = ready(edge)
    redis.stop_answering()
    try:
        caller = socket.create_connection(("127.0.0.1", edge.port), 30)
        body = b'{"model": "sim", "prompt": "a", "max_tokens": 5000}'
        caller.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\nPrefer: respond-async\r\n"
                       b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (ALICE["Authorization"].encode(), len(body)) + body)
        until(lambda: charged(edge) >= before + 5000, "it is charged")
        caller.close()
    finally:
        redis.go_on()
    until(lambda: len(get(gpu, "/jobs").json()["data"]) == 2, "its job is there")
    all = [each["id"] for each in get(gpu, "/jobs").json()["data"]]
    for id in all:
        until_status(gpu, id, "completed")
    until_settled(edge)
    until(lambda: charged(edge) == used(gpu, *all), lambda: f"it is settled: {charged(edge)} and {used(gpu, *all)}")


# ---- a caller who is told that nothing is promised, while its job is still on its way to Redis

def until_charged(service, more):
    return until(lambda: charged(service) >= more and charged(service), lambda: f"{more} are charged: {charged(service)}")


class TurnedAway:
    """A caller whose home is stopped while Redis is slow to answer about its job."""

    def __init__(self, edge, redis):
        self.answer, self._edge = None, edge
        charged_before = charged(edge)
        redis.stop_answering()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        until_charged(edge, charged_before + 5000)
        edge.penstockd.process.signal(signal.SIGTERM)
        self._thread.join(30)
        assert self.answer.status == 503 and "stopped or restarted" in self.answer.json()["error"]["message"], self.answer.body
        until(lambda: charged(edge) == charged_before, lambda: f"it is given back: {charged(edge)}, not {charged_before}")

    def _ask(self):
        self.answer = ask(self._edge, RESERVES)


def test_what_was_given_back_as_a_stop_turned_a_job_away_is_not_settled_by_its_end(host, redis):
    edge, gpu = host(), host(worker(**SHORT))
    before = ready(edge)
    order(gpu, "pause", "default")
    promised = promise(edge, RESERVES).json()["id"]
    try:
        TurnedAway(edge, redis)
        assert edge.penstockd.process.wait() == 0
    finally:
        redis.go_on()
    until(lambda: len(get(gpu, "/jobs").json()["data"]) == 3, "its job came to Redis all the same")
    edge.penstockd.start()
    order(gpu, "resume", "default")
    for each in get(gpu, "/jobs").json()["data"]:
        until_status(gpu, each["id"], "completed")
    until_settled(edge)
    until_kept(edge, 0)
    assert charged(edge) == before + used(gpu, promised)


def test_what_was_given_back_as_a_stop_turned_a_job_away_is_not_once_more_when_redis_refuses_it(host, redis):
    edge, gpu = host(worker(model="other"), max_length=1), host(worker(**SHORT), max_length=1)
    ready(edge)
    order(gpu, "pause", "default")
    promise(edge, RESERVES)
    all = charged(edge)
    own, = edge.penstockd.workers()
    os.kill(own, signal.SIGSTOP)  # so that penstockd stays to hear of it
    try:
        TurnedAway(edge, redis)
        assert edge.penstockd.process.alive()
    finally:
        redis.go_on()
    assert edge.penstockd.process.wait() == 0
    assert charged(edge) == all


# ---- limits that are in Redis

def heard(service):
    """What is charged in Redis, as the host hears with a request of its own, which costs nothing."""
    assert post(service, body={**BODY, "model": "none"}).status == 404
    return charged(service)


def test_of_a_home_that_does_not_return_places_in_redis_come_free_and_others_settle_the_rest(host, redis):
    zone = f"penstock_zone edge 1m redis=unix:{redis.socket} prefix=limits {PATIENT};\n"
    edge, other, gpu = host(zone=zone), host(zone=zone), host(worker(**SHORT))
    for service in (edge, other):
        until_status(service, until_known(service), "completed")
        until_settled(service)
    order(gpu, "pause", "default")
    id = promise(edge, RESERVES).json()["id"]
    edge.penstockd.kill()
    kill(edge)
    edge.nginx.process = None  # it does not come back
    order(gpu, "resume", "default")
    until_status(other, id, "completed")
    until(lambda: heard(other) >= 5000, "it is charged")
    until(lambda: held(other) == 0, "its place lapses", 20)
    home, = redis.ask("ZRANGE", "penstock:q1:{default}:M", 0, 0)
    redis.ask("ZADD", "penstock:q1:{default}:M", 0, home)  # as if half a minute had passed
    all = [each["id"] for each in get(other, "/jobs").json()["data"]]
    until(lambda: heard(other) == used(other, *all), lambda: f"it is settled: {heard(other)}, {used(other, *all)}")
    assert held(other) == 0
