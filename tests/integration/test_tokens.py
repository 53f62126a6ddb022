"""Tokens and GPU time: reserved at admission, settled by what was used, given back when nothing was."""

import http.client
import json
import struct
import threading
import time

import pytest

from client import Client, exchange
from conftest import simulate
from scripted import Caller, Gate, accepted, answer, chunk, done, failed, head
from structured import parse_list
from waiting import until
from wire import DONE, HEAD, NOTE, PROGRESS, frame

BUFFERING = pytest.mark.parametrize("buffering", ["off", "on"])
LIMIT = "penstock_limit zone=edge key=$arg_key rate=1000t/M name=tokens;"
LOOK = f"location /look {{ {LIMIT} empty_gif; }}\n"
PROMPT = "x" * 98  # with its quotes 100 bytes, of which 25 tokens are reckoned


def server(engine="penstock_pass a;", more=""):
    return LOOK + f"location / {{ {more} {LIMIT} {engine} }}"


def states(response):
    """What RateLimit says is left, by limit."""
    return {name: values["r"] for name, values in parse_list(response.headers["RateLimit"])}


def left(service, key="k"):
    """Asking costs no tokens."""
    return states(service.get(f"/look?key={key}"))["tokens"]


def ask(service, path="/?key=k", headers=None, **body):
    return service.request("POST", path, headers, {"prompt": PROMPT, "max_tokens": 50, **body})


def leave_after(service, **body):
    """A caller with a request under way."""
    client = Client(service.port)
    client._connection.request("POST", "/?key=k", json.dumps({"prompt": PROMPT, "max_tokens": 50, **body}))
    return client


# --- Reserved and settled

@BUFFERING
def test_tokens_are_reserved_at_admission_and_settled_by_what_was_used(peer, edge, buffering):
    gate = Gate()
    engine = peer("a", accepted("job_1") + head(length=2), gate, chunk(b"hi") + done(prompt_tokens=10, completion_tokens=20))
    service = edge(engine, server=server(more=f"penstock_buffering {buffering};"))
    client = leave_after(service)
    until(gate.reached.is_set, "the engine has the job")
    assert left(service) == 1000 - 25 - 50
    assert engine.submits[0]["cost"] == 75
    gate.open()
    came = client._connection.getresponse()
    assert came.status == 200 and parse_list(came.headers["RateLimit"])[0][1]["r"] == 925
    assert came.read() == b"hi"
    client.close()
    until(lambda: left(service) == 970, lambda: f"what was not used is given back: {left(service)} are left")


@pytest.mark.parametrize("how", ["in memory", "in pieces", "on disk"])
def test_the_body_is_weighed_wherever_it_is(peer, edge, how):
    more = "client_body_buffer_size 1k;" if how == "on disk" else ""
    service = edge(peer("a", answer(b"hi", prompt_tokens=1, completion_tokens=1)), server=server(more=more))
    body = json.dumps({"padding": ["y" * 100] * 100, "prompt": PROMPT, "max_tokens": 50}).encode()
    if how == "in pieces":
        pieces = [body[i:i + 700] for i in range(0, len(body), 700)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        came = exchange(service.port, b"POST /?key=k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body)
    else:
        came = exchange(service.port, b"POST /?key=k HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    assert came.startswith(b"HTTP/1.1 200 ") and b'RateLimit: "tokens";r=925;' in came
    until(lambda: left(service) == 998, "two tokens were used")


def test_each_of_n_answers_is_reserved(peer, edge):
    service = edge(peer("a", answer(b"hi")), server=server())
    assert states(ask(service, n=4)) == {"tokens": 1000 - 25 - 200}


def test_the_newer_name_of_max_tokens_counts_too(peer, edge):
    service = edge(peer("a", answer(b"hi")), server=server())
    assert states(ask(service, max_completion_tokens=7)) == {"tokens": 1000 - 25 - 7}


def test_a_chat_is_weighed_by_its_messages(peer, edge):
    service = edge(peer("a", answer(b"hi")), server=server())
    messages = [{"role": "user", "content": "x" * 200}]
    came = service.request("POST", "/?key=k", None, {"messages": messages, "max_tokens": 50})
    reckoned = -(-len(json.dumps(messages, separators=(",", ":"))) // 4) + 50
    assert states(came) == {"tokens": 1000 - reckoned}


def test_a_request_without_a_body_costs_no_tokens(peer, edge):
    service = edge(peer("a", answer(b"hi", completion_tokens=1000)), server=server())
    assert ask(service).status == 200
    until(lambda: left(service) == 0, "all are used")
    assert ask(service).status == 429
    assert service.get("/?key=k").status == 200


def test_what_was_used_beyond_the_reservation_is_charged_too(peer, edge):
    service = edge(peer("a", answer(b"hi", prompt_tokens=100, completion_tokens=300)), server=server())
    assert ask(service).status == 200
    until(lambda: left(service) == 600, lambda: f"400 were used: {left(service)} are left")


def test_a_debt_is_paid_before_anything_is_admitted(peer, edge):
    service = edge(peer("a", answer(b"hi", completion_tokens=1060)), server=server())
    assert ask(service).status == 200
    until(lambda: left(service) == 0, "more than all are used")
    refused = ask(service)
    # At 1000 tokens in 30 days: the 60 of the debt, and the 75 that this request is reckoned at.
    assert refused.status == 429 and 0.134 < int(refused.headers["Retry-After"]) / 2592000 <= 0.135


def test_a_request_reckoned_at_nothing_is_settled_all_the_same(peer, edge):
    service = edge(peer("a", answer(b"hi", prompt_tokens=1, completion_tokens=100)), server=server())
    assert service.request("POST", "/?key=k", None, b'{"max_tokens":0}').status == 200
    until(lambda: left(service) == 899, lambda: f"101 were used: {left(service)} are left")


def test_the_reservation_learns_what_answers_use(penstock):
    service = penstock(workers=[simulate(output_tokens=40)], http="penstock_zone edge 1m;", server=server("penstock_pass gpu;"))
    def reserved():
        before = left(service)
        came = service.request("POST", "/v1/completions?key=k", None, {"model": "sim", "prompt": "a" * 400})
        assert came.status == 200, came
        return before - states(came)["tokens"]
    first = reserved()
    until(lambda: left(service) > 1000 - first, "the first is settled")
    assert reserved() < first / 2


# --- Given back

@pytest.mark.parametrize("status", [400, 404, 500, 502, 503, 504])
def test_what_a_job_that_failed_has_reserved_is_given_back(peer, edge, status):
    service = edge(peer("a", accepted("job_1"), failed(status, code="engine_failed")), server=server())
    assert ask(service).status == status
    assert left(service) == 1000


@pytest.mark.parametrize("break_off", [b"\xff" * 32, frame(HEAD, 1, status=99), frame(DONE, 1)])
def test_what_a_broken_answer_has_reserved_is_given_back(peer, edge, break_off):
    service = edge(peer("a", accepted("job_1"), break_off), server=server())
    assert ask(service).status == 502
    assert left(service) == 1000


@BUFFERING
def test_a_caller_that_leaves_before_the_answer_pays_nothing(peer, edge, buffering):
    gate = Gate()
    service = edge(peer("a", accepted("job_1"), gate), server=server(more=f"penstock_buffering {buffering};"))
    client = leave_after(service)
    until(gate.reached.is_set, "the engine has the job")
    assert left(service) == 925
    client.close()
    until(lambda: left(service) == 1000, "the reservation is given back")
    gate.open()


def test_a_caller_that_leaves_a_stream_that_waits_pays_for_the_run_it_was_told_of(peer, edge):
    gate = Gate()
    opened = frame(HEAD, 1, status=200, content_type="text/event-stream", opens=1)
    runs = [frame(NOTE, 1, body=b": processing eta=60\n\n", position=0, eta_ms=60000)] * 2  # that is until its end
    service = edge(peer("a", accepted("job_1") + opened + runs[0], Caller.wait_until_read, gate, runs[1]),
                   server=server(more="penstock_waiting_events 100ms;"))
    client = leave_after(service, stream=True)
    until(gate.reached.is_set, "it is told that it runs")
    started = time.monotonic()
    until(lambda: time.monotonic() - started > 0.2, "it has run")
    gate.open()
    client.close()
    until(lambda: left(service) != 925, "it is settled")
    assert left(service) < 1000 - 5


def runs_for(seconds):
    """A step of a script: the job runs so long."""
    return lambda caller: time.sleep(seconds)  # what is measured is time


@pytest.mark.parametrize("told", [b"", frame(PROGRESS, 1, position=1, eta_ms=0), frame(PROGRESS, 1, position=2, eta_ms=60000)],
                         ids=["at first", "after a while", "early"])
def test_a_caller_that_leaves_a_job_that_is_told_to_run_pays_for_the_run(peer, edge, told):
    gate = Gate()
    runs = frame(PROGRESS, 1, position=0)
    service = edge(peer("a", accepted("job_1") + told + runs, Caller.wait_until_read, runs_for(0.2), gate, runs), server=server())
    client = leave_after(service)
    until(gate.reached.is_set, "it has run")
    client.close()
    gate.open()
    until(lambda: left(service) != 925, "it is settled")
    assert left(service) < 1000 - 5


@BUFFERING
@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_is_paid_for(peer, edge, buffering, status):
    gate = Gate()
    service = edge(peer("a", accepted("job_1", position=0), Caller.wait_until_read, runs_for(0.2), head(status, ""), gate),
                   server=server(more=f"penstock_buffering {buffering};"))
    assert ask(service).status == status
    gate.open()
    until(lambda: left(service) != 925, "it is settled")
    assert left(service) < 1000 - 5


@BUFFERING
def test_a_caller_that_leaves_in_mid_stream_pays_for_what_was_made(peer, edge, buffering):
    gate = Gate()
    service = edge(peer("a", accepted("job_1") + head(content_type="text/event-stream"),
                        *[chunk(b"data: %d\n\n" % i) for i in range(3)], Caller.wait_until_read, gate),
                   server=server(more=f"penstock_buffering {buffering};"))
    client = leave_after(service)
    until(gate.reached.is_set, "three pieces were made")
    client.close()
    gate.open()
    until(lambda: left(service) != 925, "it is settled")
    assert left(service) == 1000 - 25 - 3


def test_a_piece_that_comes_in_many_parts_is_one_piece(peer, edge):
    gate = Gate()
    service = edge(peer("a", accepted("job_1") + head(content_type="text/event-stream"),
                        lambda caller: caller.send_byte_by_byte(chunk(b"data: " + b"x" * 100 + b"\n\n")), gate), server=server())
    client = leave_after(service)
    until(gate.reached.is_set, "the piece was made")
    client.close()
    gate.open()
    until(lambda: left(service) != 925, "it is settled")
    assert left(service) == 1000 - 25 - 1


def test_a_caller_that_leaves_an_answer_that_is_whole_pays_what_was_reserved(peer, edge):
    gate = Gate()
    service = edge(peer("a", accepted("job_1") + head(length=1000) + chunk(b"x" * 999), gate), server=server())
    client = leave_after(service)
    until(gate.reached.is_set, "most of the answer is there")
    response = client._connection.getresponse()
    assert len(response.read(999)) == 999
    response.close()
    client.close()
    gate.open()
    until(lambda: "closed" in service.nginx.log(), "Nginx has noticed")
    assert left(service) == 925


@BUFFERING
@pytest.mark.parametrize("status, kept", [(408, 75), (500, 0)])
def test_an_answer_that_is_cut_short_is_paid_for_where_its_caller_did_not_read_it(peer, edge, buffering, status, kept):
    service = edge(peer("a", accepted("job_1") + head(length=1000) + chunk(b"x" * 999), Caller.wait_until_read,
                        failed(status, code="not_read")), server=server(more=f"penstock_buffering {buffering};"))
    response = leave_after(service)._connection.getresponse()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    assert left(service) == 1000 - kept


def test_only_the_server_that_answered_is_paid(peer, edge):
    service = edge(peer("a", failed(503, retry_after_s=1)), peer("b", answer(b"hi", prompt_tokens=10, completion_tokens=20)),
                   server=server("penstock_pass all;"))
    assert ask(service).body == b"hi"
    until(lambda: left(service) == 970, "it is settled")


def test_a_caller_that_may_not_come_in_has_no_tokens_reserved(peer, edge):
    service = edge(peer("a", answer(b"hi")), server=server(more="auth_request /may;") + "location = /may { internal; return 403; }")
    assert ask(service).status == 403
    assert left(service) == 1000


# --- What penstockd says

HUGE = [2**64 - 1, 2**63, 2**62, 2**40]


@pytest.mark.parametrize("number", HUGE)
def test_an_absurd_use_harms_nobody_else(peer, edge, number):
    raw = struct.pack("<Q", number)
    service = edge(peer("a", answer(b"hi", prompt_tokens=raw, completion_tokens=raw, device_ns=raw)), server=server(
        more="penstock_limit zone=edge key=$arg_key rate=100gs/M name=gpu;"))
    assert ask(service).status == 200
    until(lambda: left(service) == 0, "all are used")
    assert ask(service).status == 429
    assert left(service, "other") == 1000
    # Though the model is now believed to be dear.
    assert ask(service, "/?key=other").status == 200


@pytest.mark.parametrize("payload", [struct.pack("<II", 22, 4) + b"1234", struct.pack("<II", 22, 100) + b"1",
                                     struct.pack("<IIQ", 22, 8, 1) * 2])
def test_a_broken_account_is_no_account(peer, edge, payload):
    service = edge(peer("a", accepted("job_1") + head(length=2) + chunk(b"hi") + frame(DONE, 1, payload)), server=server())
    ask_raw = exchange(service.port, b"POST /?key=k HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 17\r\n\r\n"
                                     b'{"max_tokens":50}')
    assert ask_raw.count(b"HTTP/1.1 200") == 1
    assert service.get("/?key=x").status in (200, 502)
    assert 900 <= left(service) <= 1000


# --- More than there can be

def test_a_request_that_can_never_be_admitted_is_told_why(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=LOOK + f"""
        location / {{
            {LIMIT}
            penstock_limit zone=edge key=$arg_key rate=5r/M name=calls;
            penstock_pass a;
        }}
        location /calls {{ penstock_limit zone=edge key=$arg_key rate=5r/M name=calls; empty_gif; }}""")
    refused = ask(service, max_tokens=5000)
    assert refused.status == 400 and "Retry-After" not in refused.headers
    assert refused.headers["Content-Type"] == "application/problem+json"
    error = refused.json()["error"]
    assert (error["code"], error["param"], error["type"]) == ("invalid_request", "max_tokens", "invalid_request_error")
    assert "5025 tokens" in error["message"] and "at most 1000" in error["message"]
    assert left(service) == 1000 and not engine.submits
    assert states(service.get("/calls?key=k")) == {"calls": 4}
    for _ in parse_list(refused.headers["RateLimit"]) + parse_list(refused.headers["RateLimit-Policy"]):
        pass


@pytest.mark.parametrize("asked", ["1e300", "1e999", "9" * 400, "18446744073709551616", "-5", "0.5", '"50"', "null", "[]", "true"])
def test_odd_numbers_are_no_way_round_a_limit(peer, edge, asked):
    service = edge(peer("a", answer(b"hi", prompt_tokens=25, completion_tokens=50)), server=server())
    came = service.request("POST", "/?key=k", None, '{"prompt":"%s","max_tokens":%s}' % (PROMPT, asked))
    assert came.status in (200, 400)
    if came.status == 200:
        until(lambda: left(service) == 925, lambda: f"75 were used: {left(service)} are left")
    else:
        assert left(service) == 1000


# --- Several units

SEVERAL = """
    penstock_tier free { rate 100r/M; rate 1000t/M; rate 500t/d name=day; quota 100gs/M; }
"""


def test_the_units_of_a_plan_are_charged_all_or_none(peer, edge):
    service = edge(peer("a", answer(b"hi", prompt_tokens=25, completion_tokens=375, device_ns=2_000_000_000)), http=SEVERAL, server="""
        location /look { penstock_limit zone=edge key=$arg_key tier=free; empty_gif; }
        location / { penstock_limit zone=edge key=$arg_key tier=free; penstock_pass a; }""")
    def look():
        return states(service.get("/look?key=k"))
    first = ask(service, max_tokens=400)
    assert first.status == 200
    assert states(first) == {"free-rate": 99, "free-rate-tokens-M": 575, "day": 75, "free-quota-gpu-M": 99}
    until(lambda: look()["free-quota-gpu-M"] == 98, "it is settled")
    before = look()
    refused = ask(service, max_tokens=400)
    assert refused.status == 429 and refused.json()["violated-policies"] == ["day"]
    after = look()
    assert after == {**before, "free-rate": before["free-rate"] - 1}  # by looking itself
    assert before["free-rate-tokens-M"] == 600 and before["day"] == 100


def test_tokens_are_told_as_openai_clients_read_them_and_with_their_unit(peer, edge):
    service = edge(peer("a", answer(b"hi")), http=SEVERAL, server="""
        location / { penstock_limit zone=edge key=$arg_key tier=free; penstock_pass a; }""")
    came = ask(service)
    policies = dict(parse_list(came.headers["RateLimit-Policy"]))
    assert policies == {"free-rate": {"q": 100, "w": 2592000}, "free-rate-tokens-M": {"q": 1000, "w": 2592000, "qu": "tokens"},
                        "day": {"q": 500, "w": 86400, "qu": "tokens"}, "free-quota-gpu-M": {"q": 100, "w": 2592000, "qu": "gpu-seconds"}}
    assert came.headers["x-ratelimit-limit-tokens"] == "500" and came.headers["x-ratelimit-remaining-tokens"] == "425"
    assert came.headers["x-ratelimit-limit-requests"] == "100" and came.headers["x-ratelimit-remaining-requests"] == "99"
    assert came.headers["x-ratelimit-reset-tokens"] and len(came.headers.get_all("x-ratelimit-reset-tokens")) == 1


# --- Formulas

GPU = "penstock_limit zone=edge key=$arg_key rate=100gs/M name=gpu;"
IMAGES = f"""
    location /look {{ {GPU} empty_gif; }}
    location / {{ penstock_cost gs "(n|1) * size * (steps|30) / 20000000"; {GPU} penstock_pass a; }}"""


def gpu_left(service):
    return states(service.get("/look?key=k"))["gpu"]


def test_an_image_costs_its_formula_and_is_settled_by_the_device(peer, edge):
    gate = Gate()
    service = edge(peer("a", accepted("job_1"), gate, head(length=2) + chunk(b"hi") + done(device_ns=3_200_000_000)), server=IMAGES)
    client = Client(service.port)
    client._connection.request("POST", "/?key=k", '{"size":"1024x1024","steps":50,"n":2}')
    until(gate.reached.is_set, "the engine has the job")
    assert gpu_left(service) == 94  # 100 - 5.24288
    gate.open()
    assert client._connection.getresponse().read() == b"hi"
    client.close()
    until(lambda: gpu_left(service) == 96, "it is settled")


@pytest.mark.parametrize("body", ['{"steps":50}', '{"size":"huge"}', '{"size":-5}', '{"size":"1024x1024","steps":1e999}', "[]", "no json"])
def test_a_body_that_the_formula_cannot_weigh_is_refused(peer, edge, body):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=IMAGES)
    refused = service.request("POST", "/?key=k", None, body)
    assert refused.status == 400 and "Retry-After" not in refused.headers
    assert refused.json()["error"]["code"] == "invalid_request" and "cost" in refused.json()["detail"]
    assert gpu_left(service) == 100 and not engine.submits


def test_requests_may_weigh_differently(peer, edge):
    service = edge(peer("a", answer(b"hi")), server="""
        location / { penstock_cost r "(n|1)"; penstock_limit zone=edge key=$arg_key rate=10r/M name=calls; penstock_pass a; }""")
    assert states(ask(service, n=4)) == {"calls": 6}
    refused = ask(service, n=7)
    assert refused.status == 429 and refused.headers["Retry-After"]
    assert ask(service, n=11).status == 400
    assert states(ask(service, n=6)) == {"calls": 0}


# --- Estimates

def test_an_estimate_beyond_the_limit_is_no_reason_to_refuse(peer, edge):
    limits = ("penstock_limit zone=edge key=$arg_key rate=100t/M name=tokens; "
              "penstock_limit zone=edge key=$arg_key quota=2gs/M name=gpu;")
    gate = Gate()
    service = edge(peer("a", answer(b"hi", prompt_tokens=2, completion_tokens=8, device_ns=50_000_000_000), gate),
                   server=f"location /look {{ {limits} empty_gif; }} location / {{ {limits} penstock_pass a; }}")
    gate.open()
    # Nobody said how long the answer may be: it is reckoned at more than there can be.
    came = service.request("POST", "/?key=k", None, {"prompt": "a"})
    assert came.status == 200 and states(came)["tokens"] == 0
    until(lambda: states(service.get("/look?key=k"))["tokens"] == 90, "it is settled")
    # Now the model is known to take 50 s of the GPU.
    assert service.request("POST", "/?key=k", None, {"prompt": "a"}).json()["violated-policies"] == ["gpu"]
    assert service.request("POST", "/?key=other", None, {"prompt": "a"}).status == 200
    # What the caller itself asks for is another matter.
    assert service.request("POST", "/?key=third", None, {"prompt": "a", "max_tokens": 256}).status == 400


# --- Under load

@pytest.mark.parametrize("used, admitted", [(75, 13), (40, 24)])
def test_two_workers_never_give_out_more_tokens_than_there_are(peer, edge, used, admitted):
    """Each request is reckoned at 75 of 1000; at the end no 75 are left of what was not used."""
    service = edge(peer("a", answer(b"hi", completion_tokens=used)), processes=2, server=server())
    statuses = []

    def caller():
        for _ in range(20):
            statuses.append(ask(service).status)
    callers = [threading.Thread(target=caller) for _ in range(6)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert set(statuses) == {200, 429} and statuses.count(200) == admitted
    assert left(service) == 1000 - used * admitted


@pytest.mark.parametrize("owner", ["", "penstock_owner $arg_key;"])
def test_who_asks_for_less_is_told_to_come_back_sooner(peer, edge, owner):
    """RateLimit and Retry-After agree, whatever the same owner was told for a larger request."""
    engine = peer("a", accepted("job_1"))
    service = edge(engine, server=f"""
        {owner}
        location / {{ penstock_limit zone=edge key=$arg_key rate=1000t/h name=tokens; penstock_pass a; }}""")
    waiting = leave_after(service, prompt="", max_tokens=999)
    until(lambda: engine.submits, "the bucket is empty")
    told = [int(ask(service, prompt="", max_tokens=tokens).headers["Retry-After"]) for tokens in (900, 9)]
    assert 3000 < told[0] < 3600 and 20 < told[1] < 40
    waiting.close()
