"""One queue over several hosts: penstockds that share it by a real Redis, each behind an Nginx of its own."""

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from server import ModelServer, completion
from shared_hosts import (ALICE, BOB, BODY, LEASE, SLOW, ask, get, host, in_line, job, post, promise, redis, until_known, until_one_runs,
                          until_open, until_status, waiting_caller, worker)
from waiting import until

# ---- accepted here, run there

def test_a_job_that_is_accepted_here_runs_there_and_each_host_answers_for_it(host):
    edge, gpu = host(state=False), host(worker(), state=False)
    until_known(edge)
    reply = promise(edge)
    id = reply.json()["id"]
    assert reply.headers["Location"] == f"/jobs/{id}"
    assert (reply.json()["queue"], reply.json()["model"]) == ("default", "sim")
    for service in (edge, gpu):
        seen = until_status(service, id, "completed")
        assert (seen["result_url"], seen["attempts"]) == (f"/jobs/{id}/result", 0)
        assert seen["finished_at"] + 86000 < seen["expires_at"] < seen["finished_at"] + 87000
        result = get(service, f"/jobs/{id}/result")
        assert result.status == 200 and result.json()["choices"][0]["text"]
    assert get(edge, f"/jobs/{id}/result").body == get(gpu, f"/jobs/{id}/result").body


def test_nobody_sees_the_jobs_of_others_on_whatever_host(host):
    edge, gpu = host(), host(worker(SLOW))
    until_known(edge)
    running, waiting = promise(edge).json()["id"], promise(edge).json()["id"]
    for service in (edge, gpu):
        for id in (running, waiting, "job_" + "0" * 26):
            assert get(service, f"/jobs/{id}", BOB).status == 404
            assert service.request("DELETE", f"/jobs/{id}", BOB).status == 404
        assert job(service, waiting)["status"] == "queued"


def test_places_are_those_of_all_hosts(host):
    first, second = host(worker(SLOW)), host()
    until_known(second)
    ids = [promise(service).json()["id"] for service in (second, first, second)]
    places = [job(first, id)["position"] for id in ids]
    assert places == [job(second, id)["position"] for id in ids] == list(range(places[0], places[0] + 3))


def test_a_model_is_known_while_some_host_serves_it_and_for_a_while_after(host, redis):
    edge = host()
    gpu = host(worker(), worker(name="other"))
    other = {**BODY, "model": "other"}
    until_known(edge, "other")
    until_open(edge)
    assert ask(edge, {**BODY, "model": "none"}).status == 404
    gpu.penstockd.stop()
    until(lambda: post(edge, body={**BODY, "model": "none"}).status == 503, "nobody may wait")
    refused = post(edge, body=other)
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
    id = promise(edge, other).json()["id"]
    assert job(edge, id)["status"] == "queued"
    assert ask(edge, {**BODY, "model": "none"}).status == 404
    redis.ask("DEL", "penstock:q1:{default}:r")  # as it is ten minutes later
    until(lambda: ask(edge, other).status == 404, "it is forgotten")
    gpu.penstockd.start()
    until_status(edge, id, "completed")


def test_bounds_are_of_all_hosts_together(host):
    edge, gpu = host(max_length=2, max_per_owner=2), host(worker(SLOW), max_length=2, max_per_owner=2)
    until_known(edge)
    until_one_runs(gpu)
    refused = until(lambda: next((reply for reply in (ask(service) for service in (edge, gpu))
                                  if reply.status == 503), None), "the queue is full")
    assert int(refused.headers["Retry-After"]) >= 1
    assert {ask(service).status for service in (edge, gpu)} == {503}


# ---- keys

def test_a_key_is_one_job_on_all_hosts(host):
    edge, gpu = host(state=False), host(worker())
    until_known(edge)
    first = promise(edge, Idempotency_Key='"k1"')
    id = first.json()["id"]
    again = promise(gpu, Idempotency_Key='"k1"')
    assert (again.json()["id"], again.headers["Penstock-Duplicate"]) == (id, "true")
    until_status(edge, id, "completed")
    assert promise(edge, Idempotency_Key='"k1"').json()["id"] == id
    other = ask(gpu, {**BODY, "prompt": "Something else"}, Idempotency_Key='"k1"')
    assert (other.status, other.json()["error"]["code"]) == (422, "duplicate")
    assert ask(edge, **BOB, Idempotency_Key='"k1"').json()["id"] != id


def test_a_key_whose_job_did_not_complete_is_free_again(host):
    edge, gpu = host(), host(worker(SLOW))
    until_known(edge)
    id = promise(edge, Idempotency_Key='"k1"').json()["id"]
    assert ask(gpu, {**BODY, "prompt": "Something else"}, Idempotency_Key='"k1"').status == 422
    assert edge.request("DELETE", f"/jobs/{id}", ALICE).json()["status"] == "cancelled"
    assert promise(gpu, Idempotency_Key='"k1"').json()["id"] != id


# ---- cancelled

def test_a_job_is_cancelled_from_any_host_wherever_it_is(host):
    edge, gpu = host(), host(worker(SLOW))
    first = until_known(edge)
    until_one_runs(gpu)
    second = promise(gpu).json()["id"]
    for id in (second, first):  # it waits; it runs
        assert edge.request("DELETE", f"/jobs/{id}", ALICE).json()["status"] == "cancelled"
        for service in (edge, gpu):
            assert job(service, id)["status"] == "cancelled"
            assert get(service, f"/jobs/{id}/result").status == 410
    until(lambda: gpu.penstockd.queue().running == 0, "its slot is free", 3)
    assert edge.request("DELETE", f"/jobs/{first}", ALICE).json()["status"] == "cancelled"


def test_the_host_that_runs_a_job_may_cancel_it_as_well(host):
    edge, gpu = host(), host(worker(SLOW))
    id = until_known(edge)
    until_one_runs(gpu)
    assert gpu.request("DELETE", f"/jobs/{id}", ALICE).json()["status"] == "cancelled"
    assert job(edge, id)["status"] == "cancelled"


def test_a_deadline_ends_a_job_wherever_it_is(host):
    edge, gpu = host(deadline="1s"), host(worker(SLOW), deadline="1s")
    first = until_known(edge)
    until_one_runs(gpu)
    second = promise(edge).json()["id"]
    for id in (first, second):
        assert until_status(edge, id, "expired")["error"]["code"] == "deadline_exceeded"
        assert get(gpu, f"/jobs/{id}", BOB).status == 404
    until(lambda: gpu.penstockd.queue().running == 0, "its slot is free")


# ---- hosts and workers die

def test_a_worker_that_dies_costs_its_job_an_attempt_and_no_more(host):
    edge, gpu = host(), host(worker("1s"))
    until_known(edge)
    id = promise(edge).json()["id"]
    until_status(edge, id, "processing")
    os.kill(gpu.penstockd.workers()[0], signal.SIGKILL)
    assert until_status(edge, id, "completed")["attempts"] == 1


def test_a_job_that_fails_all_attempts_is_dead_on_all_hosts(host):
    edge, gpu = host(attempts=2), host(worker(failure_rate=1), attempts=2)
    until_known(edge)
    id = promise(edge).json()["id"]
    for service in (edge, gpu):
        seen = until_status(service, id, "failed")
        assert (seen["attempts"], seen["error"]["code"]) == (2, "engine_failed")
        assert get(service, f"/jobs/{id}/result").status == 502


def test_what_a_host_ran_that_was_killed_runs_on_another(host):
    edge, gpu = host(), host(worker(SLOW))
    id = until_known(edge)
    until_one_runs(gpu)
    gpu.penstockd.kill()
    other = host(worker())
    assert until_status(edge, id, "completed", LEASE + 15)
    assert until_status(other, id, "completed")


def test_a_job_that_is_given_to_its_host_again_goes_on_there(host, redis):
    """Redis is as it was before that was taken: as a replica that had not heard of it."""
    gpu = host(worker("6s", slots=2))
    known = until_known(gpu)
    first, last = promise(gpu).json()["id"], promise(gpu).json()["id"]
    until(lambda: gpu.penstockd.queue().running == 2, "two run")
    redis.ask("EVAL", "for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', key, key, 'DB', 1) end", 0)
    for id in (known, first):  # one slot is for the last, one is free for what Redis gives then
        assert gpu.request("DELETE", f"/jobs/{id}", ALICE).status == 200
    until_status(gpu, last, "processing")
    redis.ask("SWAPDB", 0, 1)
    until(lambda: redis.ask("GETRANGE", f"penstock:q1:{{default}}:j|{last}", 0, 0) == b"\4", "it runs again, as Redis sees it")
    assert until_status(gpu, last, "completed")["attempts"] == 0


def test_jobs_live_on_without_the_host_that_accepted_them(host):
    edge, gpu = host(state=False), host(worker("1s"))
    until_known(edge)
    id = promise(edge).json()["id"]
    edge.penstockd.kill()
    assert until_status(gpu, id, "completed")
    assert get(gpu, f"/jobs/{id}/result").status == 200


def test_a_host_that_is_stopped_gives_back_what_it_has(host):
    edge, gpu = host(), host(worker(SLOW), yaml="drain_timeout: 100ms\n")
    id = until_known(edge)
    until_one_runs(gpu)
    assert gpu.penstockd.stop() == 0
    gpu.penstockd.expect_death = True
    began = time.monotonic()
    host(worker())
    assert until_status(edge, id, "completed")["attempts"] == 0
    assert time.monotonic() - began < LEASE


# ---- Redis dies

def test_while_redis_is_away_what_runs_goes_on_and_no_job_is_promised(host, redis):
    edge, gpu = host(), host(worker("1s"))
    until_known(edge)
    id = promise(edge).json()["id"]
    until_status(edge, id, "processing")
    redis.stop_answering()
    try:
        refused = until(lambda: b"Redis does not answer" in (reply := ask(edge)).body and reply, "it is refused, and why")
        assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
        assert get(edge, f"/jobs/{id}").status == 503
        until(lambda: gpu.penstockd.queue().running == 0, "it has run to its end")
    finally:
        redis.go_on()
    assert until_status(edge, id, "completed")["attempts"] == 0


def test_a_redis_that_is_started_anew_has_what_was_promised(host, redis):
    edge, gpu = host(), host(worker("500ms"))
    until_known(edge)
    ids = [promise(edge).json()["id"] for _ in range(3)]
    until_status(edge, ids[0], "processing")
    redis.kill()
    until(lambda: gpu.penstockd.queue().running == 0, "the end is there, and Redis is not")
    redis.start()
    for id in ids:
        assert until_status(edge, id, "completed")["attempts"] == 0


def test_when_redis_has_no_memory_left_only_new_jobs_are_refused(host, redis):
    edge, gpu = host(), host(worker("500ms"))
    until_known(edge)
    id = promise(edge).json()["id"]
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    refused = ask(edge)
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
    assert until_status(edge, id, "completed")["attempts"] == 0
    redis.ask("CONFIG", "SET", "maxmemory", 0)
    assert until_status(gpu, until_known(edge), "completed")


def test_a_redis_that_is_started_empty_takes_jobs_and_who_waited_is_told(host, redis):
    edge, gpu = host(), host(worker(SLOW))
    lost = until_known(edge)
    until_one_runs(gpu)
    until_open(edge)
    caller = waiting_caller(edge, redis)
    redis.kill()
    shutil.rmtree(redis.folder / "appendonlydir")
    redis.start()
    assert caller.recv(4096).startswith(b"HTTP/1.1 503 ")
    until(lambda: get(edge, f"/jobs/{lost}").status == 404, "it is lost")
    until(lambda: gpu.penstockd.queue().running == 0, "it does not run any more")
    assert "Redis has lost what it had" in edge.penstockd.process.text() + gpu.penstockd.process.text()
    id = until_known(edge)
    assert edge.request("DELETE", f"/jobs/{id}", ALICE).json()["status"] == "cancelled"


# ---- who waits

def test_who_waits_here_is_answered_from_there(host):
    edge, gpu = host(state=False), host(worker())
    until_known(edge)
    until_open(edge)
    reply = post(edge)
    assert reply.status == 200 and reply.json()["choices"][0]["text"]
    assert post(gpu).status == 200
    waited = post(edge, {"Prefer": "respond-async, wait=10"})
    assert waited.status == 200 and waited.json()["choices"][0]["text"]


def test_a_caller_that_leaves_ends_its_job(host, redis):
    edge, gpu = host(), host(worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    until_open(edge)
    waiting_caller(edge, redis).close()
    until(lambda: in_line(redis) == 0, "its place is free")


def test_what_the_edge_holds_for_a_job_it_lets_go_when_that_ends_elsewhere(host):
    edge, gpu = host(), host(worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    ids = [promise(edge, Held="alice").json()["id"] for _ in range(2)]
    assert ask(edge, Held="alice").status == 429
    assert gpu.request("DELETE", f"/jobs/{ids[0]}", ALICE).json()["status"] == "cancelled"
    until(lambda: ask(edge, Held="alice").status == 202, "one is free again")


def test_events_tell_of_a_job_that_is_elsewhere(host):
    edge, gpu = host(), host(worker("500ms"))
    until_known(edge)
    id = promise(edge).json()["id"]
    text = get(edge, f"/jobs/{id}/events").text()
    assert "event: completed" in text


def key_of(id):
    return f"penstock:q1:{{default}}:j|{id}"


def test_what_only_one_caller_waits_for_is_kept_for_a_minute(host, redis):
    """Others could not ask for it: Redis is not to fill with answers that everybody has had."""
    edge, gpu = host(), host(worker())
    until_known(edge)
    until_open(edge)
    waited = post(edge)
    assert waited.status == 200 and 0 < redis.ask("PTTL", key_of(waited.headers["Penstock-Job-Id"])) <= 60_000
    keyed = post(edge, {"Idempotency-Key": '"k1"'}).headers["Penstock-Job-Id"]
    for id in (keyed, promise(gpu).json()["id"]):
        until_status(gpu, id, "completed")
        assert redis.ask("PTTL", key_of(id)) > 60_000


def test_of_whom_a_caller_left_no_body_is_kept(host, redis):
    edge, gpu = host(), host(worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    until_open(edge)
    before = set(redis.ask("KEYS", key_of("*")))
    caller = waiting_caller(edge, redis, {**BODY, "prompt": "x" * 100_000})
    left, = set(redis.ask("KEYS", key_of("*"))) - before
    assert redis.ask("STRLEN", left) > 100_000
    caller.close()
    until(lambda: redis.ask("STRLEN", left) < 5000, "its body is gone")
    assert 0 < redis.ask("PTTL", left) <= 60_000


def test_no_promise_is_made_of_what_only_another_caller_waits_for(host, redis):
    """That caller may leave, and its job with it: who asks the same waits as long."""
    edge, gpu = host(), host(worker("1s"))
    until_known(edge)
    until_one_runs(gpu)
    until_open(edge)
    key = {"Idempotency-Key": '"k1"'}
    with ThreadPoolExecutor() as pool:
        first = pool.submit(post, edge, key)
        until(lambda: in_line(redis) == 1, "the first is in line")
        others = [pool.submit(post, service, {**key, "Prefer": "respond-async"}) for service in (edge, gpu)]
        assert [each.result().status for each in (first, *others)] == [200] * 3
        assert len({each.result().headers["Penstock-Job-Id"] for each in (first, *others)}) == 1


def test_a_host_that_stops_takes_the_jobs_of_its_callers_out_of_the_line(host, redis):
    edge, gpu = host(yaml="drain_timeout: 100ms\n"), host(worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    until_open(edge)
    caller = waiting_caller(edge, redis)
    assert edge.penstockd.stop() == 0
    edge.penstockd.expect_death = True
    until(lambda: in_line(redis) == 0, "nobody's job is in line")
    assert b" 503 " in caller.recv(100)
    caller.close()


def test_a_large_answer_comes_whole_from_elsewhere(host):
    text = "x" * (8 << 20)
    model = ModelServer(lambda asked, reply: reply(completion(text)))
    edge = host()
    host(dict(name="sim", engine="http", url=f'"{model.url}"', model="sim", slots=1))
    until_known(edge)
    until_open(edge)
    reply = edge.request("POST", "/v1/chat/completions", ALICE, {"model": "sim", "messages": [{"role": "user", "content": "x"}]})
    assert reply.status == 200 and reply.json()["choices"][0]["message"]["content"] == text
    model.close()


# ---- what is not there yet

def test_a_webhook_is_refused(host):
    gpu = host(worker())
    until_known(gpu)
    reply = ask(gpu, Penstock_Callback="https://example.com/")
    assert (reply.status, reply.json()["error"]["param"]) == (400, "Penstock-Callback")
