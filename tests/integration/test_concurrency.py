"""Concurrency: held from admission to the end of the request, however it ends, and by nobody who is dead."""

import json
import os
import signal
import socket
import threading
import time

import pytest

from client import Client
from conftest import simulate
from scripted import accepted, answer, chunk, done, failed, head
from structured import parse_list
from waiting import until

ZONE = "penstock_zone edge 1m;\n"
LIMIT = "penstock_limit zone=edge key=$arg_key concurrency=1 name=own;"
BODY = json.dumps({"model": "sim", "prompt": "a", "max_tokens": 2000})
BUFFERING = pytest.mark.parametrize("buffering", ["off", "on"])


def server(engine="penstock_pass gpu;", more=""):
    return f"location /look {{ {LIMIT} empty_gif; }} location / {{ {more} {LIMIT} {engine} }}"


def status(service, key="k"):
    """Of a request that is over as soon as it is admitted."""
    return service.get(f"/look?key={key}").status


def begin(service, key="k"):
    """A caller that waits for its answer."""
    client = Client(service.port)
    client._connection.request("POST", f"/v1/completions?key={key}", BODY, {"Content-Type": "application/json"})
    return client


def slow(**options):
    return simulate(**{"slots": 1, "service_time": "60s", **options})


def until_free(service, key="k", seconds=5):
    until(lambda: status(service, key) == 200, "its place is free", seconds)


def test_a_place_is_held_until_the_request_is_over(penstock):
    service = penstock(http=ZONE, server=server(), workers=[slow()])
    client = begin(service)
    service.penstockd.wait_for(running=1)
    refused = service.complete("/v1/completions?key=k")
    assert refused.status == 429 and int(refused.headers["Retry-After"]) >= 1
    body = refused.json()
    assert body["error"]["code"] == "concurrency_exceeded" and body["violated-policies"] == ["own"]
    assert body["detail"].startswith("Limit own allows 1 request at a time. 1 is running already. Try again in ")
    assert parse_list(refused.headers["RateLimit-Policy"]) == [("own", {"q": 1, "qu": "concurrent-requests"})]
    (name, values), = parse_list(refused.headers["RateLimit"])
    assert (name, values["r"]) == ("own", 0) and values["t"] == int(refused.headers["Retry-After"])
    assert service.complete("/look?key=other").status != 429
    client.close()
    until_free(service)


@pytest.mark.parametrize("stream", [False, True])
def test_a_place_is_free_once_it_was_answered(penstock, stream):
    service = penstock(http=ZONE, server=server(), workers=[simulate(slots=1)])
    for client in [service.client()] * 10 + [service.client() for _ in range(10)]:
        came = client.request("POST", "/v1/completions?key=k", None, {"model": "sim", "prompt": "a", "max_tokens": 4, "stream": stream})
        assert came.status == 200
    assert "x-ratelimit-limit-requests" not in came.headers


@BUFFERING
def test_who_has_the_whole_answer_may_ask_again_at_once(peer, edge, buffering):
    over = threading.Event()
    service = edge(peer("a", accepted("job_1") + head(length=2) + chunk(b"hi"), lambda caller: over.wait(20), done()),
                   server=server("penstock_pass a;", f"penstock_buffering {buffering};"))
    client = begin(service)
    came = client._connection.getresponse()
    assert came.read() == b"hi"
    assert status(service) == 200
    over.set()
    client.close()


def test_a_place_is_free_when_a_caller_leaves_that_was_waiting(penstock):
    service = penstock(http=ZONE, server=server(), workers=[slow()])
    first = begin(service, "first")
    service.penstockd.wait_for(running=1)
    client = begin(service)
    service.penstockd.wait_for(running=1, length=1)
    assert status(service) == 429
    client.close()
    until_free(service)
    assert status(service, "first") == 429
    first.close()


def test_a_place_is_free_when_a_caller_leaves_in_mid_answer(penstock):
    service = penstock(http=ZONE, server=server(), workers=[slow(tokens_per_second=30, output_tokens=2000)])
    stream = service.stream("/v1/completions?key=k", max_tokens=2000)
    stream.next_event()
    assert status(service) == 429
    stream.close()
    until_free(service)


@pytest.mark.parametrize("more", ["", "penstock_limit zone=edge key=$arg_key rate=1000t/s name=tokens;"])
def test_a_caller_takes_no_place_before_its_body_has_come(penstock, more):
    service = penstock(http=ZONE, server=server(more=more), workers=[slow()])
    slow_ones = []
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", service.port))
        connection.sendall(b'POST /v1/completions?key=k HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{"prompt":"')
        slow_ones.append(connection)
    assert status(service) != 429
    for connection in slow_ones:
        connection.close()
    until_free(service)


@pytest.mark.parametrize("steps", [[failed(502, code="engine_failed")], [accepted("job_1"), failed(503, retry_after_s=1)],
                                   [accepted("job_1") + head(length=9) + chunk(b"x"), lambda caller: caller.socket.shutdown(socket.SHUT_RDWR)]])
def test_a_place_is_free_when_the_job_has_failed(peer, edge, steps):
    service = edge(peer("a", *steps), server=server("penstock_pass a;"))
    for _ in range(3):
        client = begin(service)
        try:
            client._connection.getresponse().read()
        except Exception:  # the answer is broken off in one case
            pass
        client.close()
        until_free(service)


def test_nobody_home_holds_no_place(penstock):
    service = penstock(http=ZONE, server=server())
    for _ in range(3):
        assert service.complete("/v1/completions?key=k").status == 502
        assert status(service) == 200


def test_a_refusal_by_another_limit_holds_no_place(penstock):
    service = penstock(http=ZONE, server=f"""
        location /look {{ {LIMIT} empty_gif; }}
        location / {{ {LIMIT} penstock_limit zone=edge key=$arg_key rate=1r/d name=day; empty_gif; }}""")
    assert service.statuses(3, "/?key=k") == [200, 429, 429]
    assert status(service) == 200


def test_a_place_is_free_after_a_page_of_nginx_s_own(penstock, folder):
    service = penstock(http=ZONE, server=f"location / {{ {LIMIT} root {folder}/nowhere; error_page 404 = /other; }} "
                                         f"location /other {{ {LIMIT} empty_gif; }}")
    assert service.statuses(5, "/?key=k") == [200] * 5


def hold_on_each_worker(service, stream):
    """A stream on each of two workers: {pid: (key, stream)}."""
    held = {}

    def another():
        key = f"k{len(held)}x{time.monotonic_ns()}"
        one = stream(key)
        pid = int(one.headers["X-Worker"])
        if pid in held:
            one.close()
        else:
            held[pid] = (key, one)
        return len(held) == 2
    until(another, "each worker has one")
    return held


def test_what_a_dead_worker_held_lapses_and_what_a_living_one_holds_does_not(peer, edge):
    over = threading.Event()
    service = edge(peer("a", accepted("job_1") + head(content_type="text/event-stream") + chunk(b"data: 1\n\n"),
                        lambda caller: over.wait(60), done()), processes=2,
                   server="add_header X-Worker $pid;" + server("penstock_pass a;"))
    service.expected_alert = "exited on signal 9"
    held = hold_on_each_worker(service, lambda key: service.client().stream("POST", f"/?key={key}", None, BODY))
    (dead, (lost, _)), (_, (kept, stream)) = held.items()
    assert status(service, lost) == status(service, kept) == 429
    killed = time.monotonic()
    os.kill(dead, signal.SIGKILL)

    def asked():
        try:
            return status(service, lost) == 200
        except OSError:  # it was on its way to the one that was killed
            return False
    until(asked, "the place of the dead is free", 20)
    assert 0 < time.monotonic() - killed
    # Longer than any lease lasts that is not renewed.
    while time.monotonic() - killed < 11:
        assert status(service, kept) == 429
        time.sleep(0.1)
    over.set()
    stream.rest()
    until_free(service, kept)


def test_a_reload_keeps_the_places_of_requests_that_run(peer, edge):
    over = threading.Event()
    service = edge(peer("a", accepted("job_1") + head(content_type="text/event-stream") + chunk(b"data: 1\n\n"),
                        lambda caller: over.wait(30), done()), master=True, server=server("penstock_pass a;"))
    stream = service.client().stream("POST", "/?key=k", None, BODY)
    assert status(service) == 429
    old = set(service.nginx.workers())
    service.nginx.process.signal(signal.SIGHUP)
    until(lambda: set(service.nginx.workers()) - old, "Nginx has a new worker")
    # For longer than half a lease, when it is renewed.
    begun = time.monotonic()
    while time.monotonic() - begun < 3:
        assert status(service) == 429
        time.sleep(0.05)
    over.set()
    stream.rest()
    stream.close()
    until_free(service)
    until(lambda: not old & set(service.nginx.workers()), "the old worker has ended")


def test_two_workers_never_run_more_than_the_limit(peer, edge):
    running, most, lock = [0], [0], threading.Lock()

    def work(caller):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
    service = edge(peer("a", accepted("job_1"), work, answer(b"hi")[len(accepted("job_1")):]), processes=2, server="""
        location / { penstock_limit zone=edge key=$arg_key concurrency=3 name=own; penstock_pass a; }""")
    statuses = []

    def client():
        for _ in range(30):
            statuses.append(service.request("POST", "/?key=k", None, BODY).status)
    callers = [threading.Thread(target=client) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert set(statuses) == {200, 429} and most[0] == 3
    assert service.request("POST", "/?key=k", None, BODY).status == 200


def test_many_requests_of_one_key_each_hold_a_place(penstock):
    service = penstock(http=ZONE, workers=[slow()], server="""
        location /look { penstock_limit zone=edge key=$arg_key concurrency=4 name=own; empty_gif; }
        location / { penstock_limit zone=edge key=$arg_key concurrency=4 name=own; penstock_pass gpu; }""")
    clients = [begin(service) for _ in range(3)]
    service.penstockd.wait_for(running=1, length=2)
    came = service.get("/look?key=k")
    assert came.status == 200 and parse_list(came.headers["RateLimit"])[0][1]["r"] == 0
    clients.append(begin(service))
    service.penstockd.wait_for(running=1, length=3)
    assert status(service) == 429
    clients.pop().close()
    until_free(service)
    for client in clients:
        client.close()
    until(lambda: parse_list(service.get("/look?key=k").headers["RateLimit"])[0][1]["r"] == 3, "all are free")


def test_what_is_refused_after_all_does_not_make_a_place_seem_free_soon(penstock):
    """The wait that is told is of how long places are held by those that are served."""
    service = penstock(http=ZONE, workers=[simulate(slots=1, service_time="2200ms")], server=f"""
        location / {{
            {LIMIT}
            penstock_limit zone=edge key=$arg_user rate=1r/d name=user stage=access;
            penstock_pass gpu;
        }}""")
    def ask(user):
        return service.complete(f"/v1/completions?key=k&user={user}")
    assert ask("ann").status == 200
    assert {ask("ann").json()["violated-policies"][0] for _ in range(60)} == {"user"}
    client = begin(service, "k&user=bob")
    service.penstockd.wait_for(running=1)
    refused = ask("cid")
    assert refused.json()["violated-policies"] == ["own"] and refused.headers["Retry-After"] == "3"
    client.close()
