"""What Nginx keeps for promised jobs and hears of them, and where a client meets it at a bad moment."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from conftest import simulate
from processes import children
from scripted import accepted, answer, chunk, done
from test_jobs import ALICE, BODY, HTTP, SERVER, get, jobs, masked, post, promise, until_status, websocket  # noqa: F401
from waiting import until
from wire import ACCEPTED, HEAD, HOLD, OVER, frame

LONG = dict(workers=[simulate(slots=1, service_time="60s")])
MANY_TOKENS = dict(workers=[simulate(slots=1, service_time="1ms", output_tokens=20000)])


def in_use(service):
    return get(service, "/quota").json()["concurrency"]["in_use"]


def tokens_left(service):
    return next(each["remaining"] for each in get(service, "/quota").json()["limits"] if each["unit"] == "tokens")


# --- Leases

def test_a_reload_counts_no_lease_twice(jobs):
    service = jobs(http=HTTP.replace("concurrency 3", "concurrency 9"), master=True, **LONG)
    ids = [promise(service).json()["id"] for _ in range(3)]
    # This test is about the clock: by now every lease has been renewed in another window than it was taken in.
    time.sleep(6)
    assert in_use(service) == 3
    service.nginx.reload()
    counted = []
    while len(counted) < 60:  # beyond the life of a lease that nobody renews
        counted.append(in_use(service))
        time.sleep(0.1)
    assert max(counted) == 3 and counted[-1] == 3, counted
    for id in ids:
        service.request("DELETE", f"/jobs/{id}", ALICE)
    until(lambda: in_use(service) == 0, lambda: f"none runs, {in_use(service)} are counted")


def test_one_worker_listens_for_all_and_no_helper_does(peer, edge, folder):
    engine, kept = peer("a", answer(b"hello")), folder / "kept"
    service = edge(engine, http=f"penstock_zone kept 1m file={kept};", processes=3,
                   server="location / { penstock_limit zone=kept key=$remote_addr rate=1r/s name=a; penstock_pass a; }")
    until(lambda: post(service) and kept.exists(), "the cache manager is at work", 60)
    kinds = [Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0] for pid in children(service.nginx.process.pid)]
    assert kinds.count(b"nginx: worker process") == 3 and b"nginx: cache manager process" in kinds, kinds
    listeners = [Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0] for pid in engine.edges]
    assert listeners == [b"nginx: worker process"], listeners


def test_an_edge_that_did_not_reach_the_redis_of_its_limits_connects_anew_once_it_does(peer, edge, redis):
    """What it can settle of other hosts is said as it connects."""
    redis.stop_answering()
    engine = peer("a", answer(b"hello"))
    edge(engine, http=f"penstock_zone shared 1m redis={redis.address} timeout=100ms;",
         server="location / { penstock_limit zone=shared key=$remote_addr quota=9r/d name=a; penstock_pass a; }")
    until(lambda: engine.hellos, "it connects all the same")
    assert "settles" not in engine.hellos[0]
    redis.go_on()
    until(lambda: engine.hellos[-1].get("settles") == 1, lambda: f"it says so: {engine.hellos}")
    assert engine.hellos[-1]["nginx"] == engine.hellos[0]["nginx"] != 0


def test_a_restart_of_penstockd_counts_no_lease_twice(jobs):
    service = jobs(http=HTTP.replace("concurrency 3", "concurrency 4"), processes=4, workers=[simulate(slots=2, service_time="90s")])
    ids = [promise(service).json()["id"] for _ in range(2)]
    # This test is about the clock: by now every lease has been renewed in another window than it was taken in.
    time.sleep(11)
    counted = []
    for _ in range(3):
        service.penstockd.kill()
        service.penstockd.start()
        ends = time.monotonic() + 2  # by then all lines are up again, and penstockd has named its jobs
        while time.monotonic() < ends:
            counted.append(in_use(service))
            time.sleep(0.1)
    assert set(counted) == {2}, counted
    for id in ids:
        service.request("DELETE", f"/jobs/{id}", ALICE)
    until(lambda: in_use(service) == 0, lambda: f"none runs, {in_use(service)} are counted")


def test_a_job_that_was_charged_before_nginx_began_anew_takes_no_place_in_the_new_zone(jobs):
    service = jobs(server=SERVER + "location = /metrics { penstock_metrics gpu; }", **LONG)
    promise(service)
    service.nginx.stop()
    service.nginx.start(service.port)
    # What penstockd has to say of the first job comes before what it says of one that is promised now.
    other = promise(service).json()["id"]
    service.request("DELETE", f"/jobs/{other}", ALICE)
    until(lambda: in_use(service) == 0, "the second job is over")
    live = re.search(r'penstock_zone_slots{[^}]*state="live"[^}]*} (\d+)', service.get("/metrics").text())
    assert live[1] == "1", live  # that the second is settled is noted, and nothing else


# --- What is settled

TOKENS = "penstock_zone edge 1m;\npenstock_tier free { rate 1000000t/h; concurrency 9; }\n"


def test_a_large_answer_that_is_replayed_costs_no_tokens_again(jobs):
    service = jobs(http=TOKENS, **MANY_TOKENS)
    body = {**BODY, "max_tokens": 20000}
    id = promise(service, body=body, Idempotency_Key='"a"').json()["id"]
    until_status(service, id, "completed")
    until(lambda: in_use(service) == 0, "it is settled")
    before = tokens_left(service)
    again = post(service, {"Idempotency-Key": '"a"'}, body)
    assert again.status == 200 and again.headers["Penstock-Duplicate"] == "true" and len(again.body) > 65536
    assert tokens_left(service) >= before


def settled(service, before, used):
    """What is left of the tokens, once no more than `used` are gone. The rate gives back some 280 a second."""
    until(lambda: tokens_left(service) >= before - used, lambda: f"what was not used is given back; {before} were left, and {tokens_left(service)} are", 30)


def test_an_nginx_worker_that_dies_with_the_end_unread_leaves_it_to_the_next(jobs):
    """What a job reserved, and did not use, comes back all the same: the end is told until it is answered."""
    service = jobs(http="penstock_zone edge 1m;\npenstock_tier free { rate 100000t/d; concurrency 9; }\n", master=True,
                   workers=[simulate(slots=1, service_time="300ms", output_tokens=8)])
    before = tokens_left(service)
    id = promise(service, body={**BODY, "max_tokens": 50000}).json()["id"]
    frozen = service.nginx.workers()[0]
    os.kill(frozen, signal.SIGSTOP)
    until(lambda: json.loads(service.penstockd.status())["counters"]["completed"] == 1, "the job is done")
    os.kill(frozen, signal.SIGKILL)
    service.expected_alert = "exited on signal 9"
    until(lambda: service.nginx.workers() and frozen not in service.nginx.workers(), "another Nginx worker is there")
    until_status(service, id, "completed")
    settled(service, before, 100)


def test_an_end_that_is_told_again_is_answered_again_and_settled_once(peer, edge):
    promised = accepted("job_01J") + frame(HEAD, 1, status=202, content_type="application/json", content_length_plus1=3, promised=1)
    engine = peer("a", promised + chunk(b"{}") + done())
    service = edge(engine, http="penstock_tier free { rate 100000t/d; }\n",
                   server=SERVER.replace("gpu", "a"))
    body = {**BODY, "max_tokens": 100}
    assert post(service, {"Prefer": "respond-async"}, body).status == 202
    until(lambda: engine.lines, "Nginx keeps a line")
    before = tokens_left(service)
    over = frame(OVER, 7, receipt=engine.submits[0]["receipt"], prompt_tokens=1, completion_tokens=20000)
    engine.lines[0].send(over)
    until(lambda: engine.settled == [7], "it is answered")
    once = tokens_left(service)
    assert once < before - 19000, (before, once)
    engine.lines[-1].send(over)
    until(lambda: engine.settled == [7, 7], "it is answered again")
    assert tokens_left(service) >= once


def test_the_reservation_learns_what_promised_jobs_use(jobs):
    service = jobs(http=TOKENS, workers=[simulate(slots=1, service_time="1ms", output_tokens=40)])
    body = {"model": "sim", "prompt": "a"}

    def reserved():
        before = tokens_left(service)
        came = post(service, {"Prefer": "respond-async"}, body)
        assert came.status == 202
        until_status(service, came.json()["id"], "completed")
        until(lambda: in_use(service) == 0, "it is settled")
        return before - int(came.headers["x-ratelimit-remaining-tokens"])

    first = reserved()
    assert reserved() < first / 2


# --- Files

def test_a_file_is_fetched_where_the_query_says_who_asks(jobs):
    server = SERVER.replace("$http_authorization", "$arg_who").replace(
        "location /jobs {", 'location /jobs { if ($arg_who = "") { return 401; }')
    service = jobs(server=server, **MANY_TOKENS)
    reply = service.request("POST", "/v1/completions?who=a", {"Prefer": "respond-async"}, {**BODY, "max_tokens": 20000})
    id = reply.json()["id"]
    until(lambda: service.get(f"/jobs/{id}?who=a").json()["status"] == "completed", "it is done")
    assert service.get(f"/jobs/{id}/result").status == 401
    result = service.get(f"/jobs/{id}/result?who=a")
    assert result.status == 200 and len(result.body) > 65536


# --- Clients and penstockds that misbehave

@pytest.mark.parametrize("early", [masked(8, b"\x03\xe8"), b"\x81\x01x"])
def test_a_client_that_ends_its_websocket_with_the_handshake_is_answered(jobs, early):
    service = jobs(**LONG)
    id = promise(service).json()["id"]
    connection, stream, head = websocket(service, id, early)
    assert head.startswith("HTTP/1.1 101 ")
    stream.read()
    connection.close()
    assert get(service, f"/jobs/{id}").status == 200
    service.request("DELETE", f"/jobs/{id}", ALICE)


def test_whatever_penstockd_says_of_promised_jobs_the_edge_goes_on(peer, edge):
    entry = b"\x04edge\x01a" + bytes(32)
    receipts = [b"", b"\x01", b"\x02" + entry, b"\x01" + entry[:-1], b"\x01" + entry * 200, b"\x01\xff", b"\x01" + entry]
    said = b"".join(frame(HOLD, i, receipt=receipt) + frame(OVER, 100 + i, receipt=receipt, completion_tokens=-1, device_ns=-1)
                    for i, receipt in enumerate(receipts))
    engine = peer("a", answer(b"hello"), tell_edge=said + frame(ACCEPTED, 1, job_id="job_1"))
    service = edge(engine, server="location / { penstock_limit zone=edge key=$remote_addr concurrency=2 name=a; penstock_pass a; }")
    # Its last word is none of those that it may say: the line is closed, and another one opened.
    until(lambda: len(engine.edges) >= 3, "it came again")
    assert post(service).body == b"hello"
