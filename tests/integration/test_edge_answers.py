"""Answers, refusals and status pages as the real penstockd never gives them, and the corners of Nginx where they meet."""

import http.client
import json
import os
import struct
import time

import pytest

from client import exchange
from conftest import simulate
from processes import ASAN, Penstockd, QueueStatus
from scripted import Caller, Gate, accepted, answer, chunk, done, failed, goodbye, head, progress
from structured import parse_list
from test_large_bodies import resident
from waiting import until
from wire import PROGRESS, SUBMIT, Connection, frame

ZONE = "penstock_zone edge 1m;\n"
BUFFERING = pytest.mark.parametrize("buffering", ["off", "on"])


def post(service, path="/", model=None, **headers):
    body = {"prompt": "a"} if model is None else {"model": model}
    return service.request("POST", path, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def left(response):
    return parse_list(response.headers["RateLimit"])[0][1]["r"]


# --- Patience

def test_each_sign_of_life_renews_the_read_timeout(peer, edge):
    # This test is about the clock: the pauses are shorter than the timeout, and together longer.
    waiting = [lambda caller: time.sleep(0.3), progress()] * 5
    service = edge(peer("a", accepted("job_1"), *waiting, answer(b"late")),
                   server="location / { penstock_read_timeout 1s; penstock_pass a; }")
    came = post(service)
    assert (came.status, came.body) == (200, b"late")


# --- Subrequests

def test_a_mirror_that_is_refused_neither_disturbs_nor_refunds_the_request(peer, edge):
    shadow = peer("b", failed(503, retry_after_s=7))
    service = edge(peer("a", answer(b"hello")), shadow, server="""
        location / { mirror /shadow; penstock_limit zone=edge key=$server_port rate=1r/h burst=3 name=a; penstock_pass a; }
        location = /shadow { internal; penstock_pass b; }""")
    for i in range(3):
        came = post(service)
        assert (came.status, came.body, left(came)) == (200, b"hello", 2 - i)
        assert "Retry-After" not in came.headers
        until(lambda: len(shadow.submits) == i + 1, "the mirror was asked")
    assert post(service).status == 429


def test_two_parts_of_a_page_come_whole_whichever_is_first(peer, edge, folder):
    (folder / "page.html").write_text('[<!--#include virtual="/one" -->|<!--#include virtual="/two" -->]')
    two = peer("b", *[frames for i in range(20) for frames in ((head() if i == 0 else b"") + chunk(b"two " * 100),)], done())
    one = peer("a", head(), lambda caller: until(lambda: two.submits, "the other part is asked for"),
               *[chunk(b"one " * 100)] * 20, done())
    service = edge(one, two, server=f"""
        location = /page.html {{ ssi on; root {folder}; }}
        location = /one {{ penstock_pass a; }}
        location = /two {{ penstock_pass b; }}""")
    assert service.get("/page.html").text() == "[" + "one " * 2000 + "|" + "two " * 2000 + "]"


@pytest.mark.parametrize("limit, statuses", [("", [200, 200, 200]),
                                             ("penstock_limit zone=edge key=$penstock_model rate=1r/h name=a;", [200, 200, 429])])
def test_asking_for_permission_keeps_the_model_of_the_body(peer, edge, limit, statuses):
    engine = peer("a", answer(b"hello"))
    service = edge(engine, peer("b", answer(b"yes")), server=f"""
        location / {{ auth_request /may; {limit} penstock_pass a; }}
        location = /may {{ internal; penstock_pass b; }}""")
    assert [post(service, model=model).status for model in ("m1", "m2", "m1")] == statuses
    assert [(job["model"], json.loads(job["json"])) for job in engine.submits[:2]] == [
        (b"m1", {"model": "m1"}), (b"m2", {"model": "m2"})]


# --- Bodies

@pytest.mark.parametrize("key", ["$remote_addr", "$penstock_model"])
def test_a_body_that_no_frame_can_hold_is_refused_by_its_headers(peer, edge, key):
    engine = peer("a", answer(b"hello"))
    service = edge(engine, server=f"""
        client_max_body_size 0;
        client_body_timeout 1s;
        lingering_timeout 100ms;
        location / {{ penstock_limit zone=edge key={key} rate=9r/s name=a; penstock_pass a; }}""")
    came = exchange(service.port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000000\r\n\r\n")
    assert came.startswith(b"HTTP/1.1 413 ") and b"application/problem+json" in came
    assert not engine.submits


def test_a_caller_over_its_limit_is_not_asked_to_send_its_body(peer, edge):
    service = edge(peer("a", answer(b"hello")),
                   server="""
        lingering_timeout 100ms;
        location / { penstock_limit zone=edge key=all rate=1r/h name=a; penstock_pass a; }""")
    assert post(service).status == 200
    came = exchange(service.port, b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                                  b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
    assert came.startswith(b"HTTP/1.1 429 ") and b"100 Continue" not in came


# --- Redirects

def test_a_fallback_gives_its_own_answer_and_nothing_of_the_refusal(peer, edge):
    service = edge(peer("a", accepted("job_a"), failed(503, retry_after_s=7)), peer("b", answer(b"from b", "job_b")), server="""
        location / { penstock_intercept_errors on; error_page 503 = @b; penstock_pass a; }
        location @b { penstock_pass b; }""")
    came = post(service)
    assert (came.status, came.body, came.headers["Content-Type"]) == (200, b"from b", "text/plain")
    assert "Retry-After" not in came.headers
    assert came.headers.get_all("Penstock-Job-Id") == ["job_b"]


def test_a_full_queue_does_not_lift_the_limits_of_the_fallback(peer, edge):
    service = edge(peer("cloud", answer(b"cloud")), start=False, workers=[simulate(slots=1, service_time="60s")],
                   queue={"max_length": 1}, server="""
        location / {
            penstock_limit zone=edge key=all rate=100r/h name=own;
            error_page 503 = @cloud;
            penstock_pass gpu;
        }
        location @cloud { penstock_limit zone=edge key=all rate=1r/h name=cloud; penstock_pass cloud; }""")
    service.penstockd.start()
    service.wait_for_workers(service.penstockd)
    caller = Connection(service.penstockd.socket)
    job = dict(queue="default", model="sim", method="POST", path="/v1/completions", content_type="application/json",
               body='{"model":"sim","prompt":"a","max_tokens":1}')
    caller.send(frame(SUBMIT, 1, **job))
    service.penstockd.wait_for(running=1)
    caller.send(frame(SUBMIT, 2, **job))
    service.penstockd.wait_for(state=QueueStatus.FULL)
    # It reads the status page as it starts.
    service.nginx.start(service.port)
    came = [post(service) for _ in range(2)]
    caller.close()
    assert [one.status for one in came] == [200, 429]
    assert came[0].body == b"cloud" and came[1].json()["violated-policies"] == ["cloud"]


@pytest.mark.parametrize("equals, status", [("", 404), ("=", 200)])
def test_an_error_page_from_an_engine_is_passed_as_it_is(peer, edge, folder, equals, status):
    service = edge(peer("a", head(content_type="text/html"), chunk(b"<b>first</b>"), Caller.wait_until_read,
                        chunk(b"<i>second</i>"), done()), server=f"""
        location / {{ root {folder}/nowhere; error_page 404 {equals} /engine; }}
        location = /engine {{ penstock_pass a; }}""")
    came = service.get("/x")
    assert (came.status, came.body) == (status, b"<b>first</b><i>second</i>")
    assert came.headers["Content-Type"] == "text/html"


@pytest.mark.parametrize("equals", ["", "="])
def test_a_limit_on_an_error_page_is_told_in_the_status_line(peer, edge, folder, equals):
    service = edge(peer("a", answer(b"page")), server=f"""
        location / {{ root {folder}/nowhere; error_page 404 {equals} /engine; }}
        location = /engine {{ penstock_limit zone=edge key=all rate=1r/h name=a; penstock_pass a; }}""")
    assert service.get("/x").body == b"page"
    refused = service.get("/x")
    assert refused.status == 429 and refused.json()["status"] == 429
    assert refused.headers.get_all("Retry-After") == [str(refused.json()["retry_after"])]


# --- Failover

def test_busy_is_what_is_told_when_the_other_server_is_dead(peer, edge, folder):
    service = edge(peer("a", accepted("job_a"), failed(503, retry_after_s=7)),
                   more=f"server unix:{folder}/dead.sock max_fails=0;")
    came = post(service)
    assert came.status == 503 and came.headers["Content-Type"] == "application/problem+json"
    assert came.json()["error"]["code"] == "busy"
    assert came.headers.get_all("Retry-After") == ["7"]


@BUFFERING
def test_the_next_server_s_answer_comes_whole_and_carries_nothing_of_the_first(peer, edge, buffering):
    text = b"from b " * 1000
    service = edge(peer("a", accepted("job_a"), failed(503, retry_after_s=7)), peer("b", answer(text, "job_b")),
                   server=f"location / {{ penstock_buffering {buffering}; penstock_pass all; }}")
    for _ in range(3):
        came = post(service)
        assert (came.status, came.body) == (200, text)
        assert "Retry-After" not in came.headers
        assert came.headers.get_all("Penstock-Job-Id") == ["job_b"]


def test_behind_a_server_that_refused_the_limits_are_told_of_as_charged(peer, edge):
    service = edge(peer("a", failed(503, retry_after_s=7)), peer("b", answer(b"from b")), server="""location / {
        penstock_limit zone=edge key=$arg_key rate=10r/h name=bucket;
        penstock_limit zone=edge key=$arg_key concurrency=3 name=lease;
        penstock_pass all; }""")
    for remaining in (9, 8):
        came = post(service, "/?key=k")
        assert came.body == b"from b"
        assert {name: told["r"] for name, told in parse_list(came.headers["RateLimit"])} == {"bucket": remaining, "lease": 2}


def test_the_next_server_s_failure_comes_whole(peer, edge):
    service = edge(peer("a", failed(503, retry_after_s=7)), peer("b", failed(500, "z" * 2000, "engine_failed")))
    came = post(service)
    assert came.status == 500 and came.json()["detail"] == "z" * 2000
    assert came.json()["error"]["code"] == "engine_failed" and "Retry-After" not in came.headers


@pytest.mark.parametrize("status", [503, 500])
def test_an_engines_own_failure_is_the_answer_and_no_other_runs_the_job(peer, edge, status):
    other = peer("b", answer(b"from b"))
    service = edge(peer("a", accepted("job_a") + head(status, length=4) + chunk(b"busy") + done()), other,
                   server="location / { penstock_next_upstream error http_500 http_503 non_idempotent; penstock_pass all; }")
    came = post(service)
    assert (came.status, came.body) == (status, b"busy") and not other.submits


def test_goodbye_sends_the_job_to_the_next_server(peer, edge):
    first = peer("a", goodbye())
    service = edge(first, peer("b", answer(b"from b")))
    came = post(service)
    assert (came.status, came.body) == (200, b"from b") and first.submits
    assert "Retry-After" not in came.headers


@BUFFERING
def test_goodbye_in_mid_answer_cuts_it_short_and_says_why(peer, edge, buffering):
    service = edge(peer("a", head(), chunk(b"some"), goodbye("penstockd is being stopped")),
                   server=f"location / {{ penstock_buffering {buffering}; penstock_pass a; }}")
    with pytest.raises(http.client.IncompleteRead):
        post(service)
    until(lambda: "penstockd says goodbye: penstockd is being stopped" in service.nginx.log(), "the reason is logged")
    assert "invalid frame" not in service.nginx.log()


def test_goodbye_of_the_only_server_is_busy(peer, edge):
    service = edge(peer("a", goodbye()))
    came = post(service)
    assert came.status == 503 and came.json()["error"]["code"] == "busy"
    assert came.headers.get_all("Retry-After") == ["1"]


# --- Keys

def test_a_key_that_mixes_in_the_model_is_judged_with_the_model(peer, edge):
    service = edge(peer("a", answer(b"hello")), server="""
        location / { penstock_limit zone=edge key=$remote_addr:$penstock_model rate=1r/h burst=1 name=a; penstock_pass a; }""")
    assert [post(service, model=model).status for model in (None, None, "m1", "m2", "m1")] == [200, 429, 200, 200, 429]


def test_a_tier_that_follows_the_model_is_judged_with_the_model(peer, edge):
    service = edge(peer("a", answer(b"hello")), http="""
        map $penstock_model $plan { volatile; m1 gold; m2 silver; }
        penstock_tier gold { rate 2r/h; }
        penstock_tier silver { rate 1r/h; }""",
                   server="location / { penstock_limit zone=edge key=$remote_addr tier=$plan; penstock_pass a; }")
    assert [post(service, model=model).status for model in ("m1", "m2", "m1", "m2", "m1")] == [200, 200, 200, 429, 429]
    assert post(service, model="m3").status == 403


def test_an_address_told_by_a_trusted_proxy_is_the_key(penstock):
    service = penstock(http=ZONE, server="""location / {
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Real-IP;
        penstock_limit zone=edge key=$remote_addr rate=1r/h name=a;
        empty_gif;
    }""")
    addresses = ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2")
    assert [service.get("/", X_Real_IP=address).status for address in addresses] == [200, 200, 429, 429]


# --- Frames

def promising(peer, edge, buffering, frames):
    """Nginx before an engine that breaks its promise at / and keeps it at /good."""
    return edge(peer("a", *frames), peer("b", answer(b"good")), server=f"""
        penstock_buffering {buffering};
        location / {{ penstock_pass a; }}
        location = /good {{ penstock_pass b; }}""")


@BUFFERING
@pytest.mark.parametrize("together", [True, False])
def test_an_answer_shorter_than_promised_is_broken_off(peer, edge, buffering, together):
    frames = [head(length=100), chunk(b"only"), done()]
    if together:
        frames = [b"".join(frames)]
    else:
        frames = [step for part in frames for step in (part, Caller.wait_until_read)]
    service = promising(peer, edge, buffering, frames)
    with pytest.raises(http.client.IncompleteRead):
        post(service)
    assert post(service, "/good").body == b"good"


@BUFFERING
def test_an_answer_longer_than_promised_is_broken_off(peer, edge, buffering):
    service = promising(peer, edge, buffering, [head(length=4) + chunk(b"abcdHTTP/1.1 200 OK\r\n\r\n") + done()])
    with pytest.raises((http.client.IncompleteRead, http.client.RemoteDisconnected)):
        post(service)
    assert post(service, "/good").body == b"good"


@BUFFERING
def test_what_comes_behind_the_promised_bytes_is_never_sent(peer, edge, buffering):
    service = promising(peer, edge, buffering, [head(length=4), chunk(b"abcd"), Caller.wait_until_read,
                                                chunk(b"HTTP/1.1 200 OK\r\n\r\n"), done()])
    # Nginx closes the connection, though it was not asked to.
    came = exchange(service.port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    assert came.count(b"HTTP/1.1") == 1 and came.partition(b"\r\n\r\n")[2] in (b"", b"abcd")
    assert post(service, "/good").body == b"good"


@BUFFERING
@pytest.mark.parametrize("send", [Caller.send, Caller.send_byte_by_byte], ids=["at once", "byte by byte"])
def test_frames_come_whole_however_they_are_cut(peer, edge, buffering, send):
    nothing, begin = progress() + chunk(b""), accepted("job_1") + progress() + head()
    frames = begin + nothing + chunk(b"a") + chunk(b"") + chunk(b"bc") + nothing + done()
    service = edge(peer("a", lambda caller: send(caller, frames)),
                   server=f"location / {{ penstock_buffering {buffering}; penstock_pass a; }}")
    client = service.client()
    for _ in range(2):
        came = client.request("POST", "/", {}, {"model": "m1"})
        assert (came.status, came.body, came.headers["Penstock-Job-Id"]) == (200, b"abc", "job_1")


@pytest.mark.skipif(ASAN, reason="the sanitizer keeps what was freed")
def test_frames_that_come_in_parts_take_no_more_memory_the_longer_it_lasts(peer, edge):
    large = frame(PROGRESS, 1, message=b"x" * 16000)
    begun, over = Gate(), Gate()

    def many(caller):
        for _ in range(1500):
            caller.send(large[:100])
            caller.wait_until_read()
            caller.send(large[100:])
            caller.wait_until_read()
    service = edge(peer("a", accepted("job_a") + head(content_type="text/event-stream") + chunk(b"data: a\n\n"), begun, many, over,
                        done()), master=True)
    stream = service.client().stream("POST", "/", None, {})
    assert stream.next_event() == "a"
    worker = service.nginx.workers()[0]
    before = resident(worker, "VmRSS")
    begun.open()
    until(over.reached.is_set, "all have come")
    assert resident(worker, "VmRSS") < before + 4 * 2**20
    over.open()
    stream.rest()


def test_a_failure_that_grows_in_json_comes_whole(peer, edge):
    service = edge(peer("a", failed(400, "\t" * 200, "invalid_request")))
    client = service.client()
    for _ in range(2):
        came = client.request("POST", "/", {}, {"model": "m1"})
        assert came.status == 400 and came.json()["detail"] == came.json()["error"]["message"] == "\t" * 200
        assert int(came.headers["Content-Length"]) == len(came.body)


# --- Status pages

def write_page(socket, heartbeat_ns, length=1, drain_step_us=0):
    """The status page of one queue that is full (shared/wire/status_page.h)."""
    page = struct.pack("<QqQ", 0x3247504B434F5453, heartbeat_ns, os.getpid())
    page += struct.pack("<40sIIIIQQQq", b"default", QueueStatus.FULL, length, 1, 1, 100, 5, drain_step_us, 0)
    new = socket.with_name(socket.name + ".status.new")  # Nginx may read at any moment
    new.write_bytes(page.ljust(24 + 64 * 88, b"\0"))
    new.rename(socket.with_name(socket.name + ".status"))


def test_a_status_page_from_the_future_is_not_believed(peer, edge):
    engine = peer("a", answer(b"hello"))
    write_page(engine.path, time.monotonic_ns() + 3600 * 10**9)
    service = edge(engine)
    assert post(service).status == 200

    def believed():
        write_page(engine.path, time.monotonic_ns())
        came = post(service)
        return came.status == 503 and came.headers["Retry-After"] == "5"
    until(believed, "one of now is believed")


def test_made_up_callers_move_nobodys_return_beyond_the_time_in_which_the_queue_drains(peer, edge):
    engine = peer("a", answer(b"hello"))
    write_page(engine.path, time.monotonic_ns(), length=10, drain_step_us=500_000)
    service = edge(engine, server="location / { penstock_owner $http_authorization; penstock_pass all; }")
    told = []

    def full():
        write_page(engine.path, time.monotonic_ns(), length=10, drain_step_us=500_000)
        return post(service).status == 503
    until(full, "the queue is full")
    for i in range(60):
        write_page(engine.path, time.monotonic_ns(), length=10, drain_step_us=500_000)
        came = service.request("POST", "/v1/completions", {"Authorization": f"made up {i}"}, {})
        assert came.status == 503
        told.append(int(came.headers["Retry-After"]))
    assert 1 < max(told) <= 5, told


def test_who_is_over_a_limit_of_its_own_is_told_that_and_takes_no_place_before_a_full_queue(peer, edge):
    engine = peer("a", answer(b"hello"))
    write_page(engine.path, time.monotonic_ns() - 60 * 10**9)  # too old to be believed
    service = edge(engine, server="""location / {
        penstock_owner $http_authorization;
        penstock_limit zone=edge key=$arg_key rate=1r/h name=own;
        penstock_pass all;
    }""")
    assert service.get("/v1/models?key=k").status == 200

    def busy():
        write_page(engine.path, time.monotonic_ns(), length=100, drain_step_us=500_000)
        came = service.request("POST", "/v1/completions", {"Authorization": "me"}, {})
        return came.status == 503 and came.headers["Retry-After"] == "1"
    until(busy, "the queue is full, and I am the only one")
    for i in range(20):
        write_page(engine.path, time.monotonic_ns(), length=100, drain_step_us=500_000)
        came = service.request("POST", "/v1/completions?key=k", {"Authorization": f"made up {i}"}, {})
        assert came.status == 429 and came.json()["violated-policies"] == ["own"]
    assert busy()


def test_a_refusal_of_penstockd_tells_of_the_limits_as_they_are_when_all_is_given_back(peer, edge):
    service = edge(peer("a", accepted("job_a"), failed(503, retry_after_s=500)), server="""location / {
        penstock_limit zone=edge key=$arg_key rate=10r/h name=bucket;
        penstock_limit zone=edge key=$arg_key quota=20r/d name=quota;
        penstock_limit zone=edge key=$arg_key concurrency=3 name=lease;
        penstock_limit zone=edge key=$arg_key rate=5r/h algorithm=sliding_log name=log;
        penstock_pass all;
    }""")
    came = service.request("POST", "/v1/completions?key=k", {}, {})
    assert came.status == 503
    assert {name: told["r"] for name, told in parse_list(came.headers["RateLimit"])} == {"bucket": 10, "quota": 20, "lease": 3, "log": 5}
    assert came.headers["x-ratelimit-remaining-requests"] == "5"
    assert came.headers["retry-after-ms"] == "500000" and came.headers["x-should-retry"] == "false"


def test_a_status_page_that_is_cut_to_nothing_harms_no_worker_of_nginx(peer, edge):
    engine = peer("a", answer(b"hello"))
    write_page(engine.path, time.monotonic_ns())
    service = edge(engine, master=True)
    assert post(service).status == 503
    workers = service.nginx.workers()
    os.truncate(f"{engine.path}.status", 0)
    # Sooner than the page that was read grows stale.
    until(lambda: post(service).status == 200, "requests are served", seconds=2)
    assert service.nginx.workers() == workers and "exited on signal" not in service.nginx.log()


def test_a_status_page_that_is_cut_to_nothing_harms_no_penstockd(folder):
    penstockd = Penstockd(folder, "penstockd", "workers: []\n")
    penstockd.start()
    try:
        page = f"{penstockd.socket}.status"
        until(lambda: os.path.exists(page), "its status page is there")
        os.truncate(page, 0)
        # For longer than until its next heartbeat.
        with pytest.raises(AssertionError):
            until(lambda: not penstockd.process.alive(), "it is dead", seconds=1)
    finally:
        penstockd.stop()


def test_what_another_directive_answers_in_an_if_block_is_not_the_queues(peer, edge):
    """No problem takes the place of its error pages, and a full queue does not concern it."""
    engine = peer("a", answer(b"hello"))
    service = edge(engine, server="""
        location / {
            penstock_limit zone=edge key=all rate=3r/d name=all;
            if ($arg_old) { proxy_pass http://127.0.0.1:1; }
            if ($arg_new) { set $is new; }
            penstock_pass a;
        }""")
    assert service.request("POST", "/?new=1", None, "{}").body == b"hello"
    other = service.request("POST", "/?old=1", None, "{}")
    assert (other.status, other.headers["Content-Type"]) == (502, "text/html") and len(engine.submits) == 1
    assert [service.request("POST", "/?old=1", None, "{}").status for _ in range(2)] == [502, 429]
