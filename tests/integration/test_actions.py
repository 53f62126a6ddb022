"""Being over a limit need not mean a refusal: delay, degrade, dry_run."""

import json
import socket
import struct
import threading
import time

import pytest

from client import Client, exchange
from conftest import simulate
from scripted import answer, failed
from structured import parse_list
from waiting import until

ZONE = "penstock_zone edge 1m;\n"
LOG = "log_format v '$request_uri $status $penstock_status limit=$penstock_limit_name retry=$penstock_retry_after model=$penstock_model';\n"


def logged(service, count):
    """The access log's lines, once there are so many."""
    path = service.folder / "access.log"
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= count, f"the access log has {count} lines")
    return path.read_text().splitlines()


def with_log(penstock, http, server, **parts):
    """The service of penstock() or edge(), with an access log of the variables."""
    service = penstock(start=False, http=LOG + http, server=server, **parts)
    config = service.nginx.config
    config.write_text(config.read_text().replace("backlog=1024;", f"backlog=1024; access_log {service.folder}/access.log v;"))
    return service.start()


def together(*calls):
    """Runs them at once; their results in the order in which they ended, each with when that was."""
    ended, start = [], time.monotonic()

    def run(call):
        value = call()
        ended.append((time.monotonic() - start, value))
    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ended, key=lambda one: one[0])


# --- Delay

def delayed(rate="rate=5r/s burst=1", max_delay="10s", more=""):
    own = "penstock_limit zone=edge key=$arg_key"
    return f"""
        location /look {{ {own} {rate} name=a; empty_gif; }}
        location / {{ {own} {rate} name=a action=delay max_delay={max_delay}; {more} empty_gif; }}"""


def test_what_comes_early_waits_for_its_turn(penstock):
    service = with_log(penstock, ZONE, delayed())
    ended = together(*[lambda: service.get("/?key=k")] * 5)
    assert [came.status for _, came in ended] == [200] * 5
    for i, (moment, _) in enumerate(ended):
        assert 0.2 * i - 0.01 <= moment <= 0.2 * i + 2
    assert sorted(line.split()[2] for line in logged(service, 5)) == ["DELAYED"] * 4 + ["PASSED"]
    assert all("limit=- retry=-" in line for line in logged(service, 5))


def test_nobody_waits_longer_than_max_delay(penstock):
    service = penstock(http=ZONE, server=delayed("rate=1r/s burst=1", "1500ms"))
    ended = together(*[lambda: service.get("/?key=k")] * 3)
    assert sorted(came.status for _, came in ended) == [200, 200, 429]
    refused = next(came for _, came in ended if came.status == 429)
    # Half a second later it would have been held back for 1.5 s.
    assert refused.headers["Retry-After"] == "1" and refused.json()["violated-policies"] == ["a"]
    assert ended[-1][0] >= 0.99 and ended[-1][1].status == 200


def waiting_for(service, key="k"):
    """Seconds until the key's bucket has room: 60 for each request that it holds."""
    refused = service.get(f"/look?key={key}")
    return int(refused.headers["Retry-After"]) if refused.status == 429 else 0


def test_who_leaves_while_held_back_gets_its_charge_back(penstock):
    service = penstock(http=ZONE, server=delayed("rate=1r/m burst=1", "10m"))
    assert service.get("/?key=k").status == 200
    client = Client(service.port)
    client._connection.request("GET", "/?key=k")
    until(lambda: waiting_for(service) > 60, "it is held back")
    client.close()
    until(lambda: waiting_for(service) <= 60, "its charge is given back")
    # And its place among those held back is free: see below.


def test_no_more_are_held_back_than_penstock_max_delayed(penstock):
    service = penstock(http=ZONE + "penstock_max_delayed 1;", server=delayed("rate=1r/m burst=1", "10m"))
    for _ in range(2):
        client = Client(service.port)
        if waiting_for(service) == 0:
            assert waiting_for(service) > 0
        client._connection.request("GET", "/?key=k")
        until(lambda: waiting_for(service) > 60, "it is held back")
        refused = service.get("/?key=k")
        assert refused.status == 429 and 100 <= int(refused.headers["Retry-After"]) <= 120
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 100 <= waiting_for(service) <= 120  # the refusal was free
        other = service.get("/?key=other")
        assert other.status in (200, 429)
        client.close()
        until(lambda: waiting_for(service) <= 60, "its charge is given back")


def test_delayed_requests_on_one_connection_stay_in_order(penstock, folder):
    for i in range(4):
        (folder / f"{i}.txt").write_text(f"answer {i}\n")
    service = penstock(http=ZONE, server=f"""root {folder};
        location / {{ penstock_limit zone=edge key=k rate=5r/s burst=1 name=a action=delay max_delay=10s; }}""")
    start = time.monotonic()
    pipelined = b"".join(b"GET /%d.txt HTTP/1.1\r\nHost: x\r\n%s\r\n" % (i, b"Connection: close\r\n" if i == 3 else b"") for i in range(4))
    came = exchange(service.port, pipelined)
    assert time.monotonic() - start >= 0.59
    assert came.count(b"HTTP/1.1 200 OK") == 4
    assert [came.index(b"answer %d\n" % i) for i in range(4)] == sorted(came.index(b"answer %d\n" % i) for i in range(4))
    client = service.client()
    assert [client.request("GET", f"/{i}.txt").text() for i in range(3)] == [f"answer {i}\n" for i in range(3)]


def test_a_delayed_post_is_served_with_its_body(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server="""
        location / {
            penstock_limit zone=edge key=$penstock_body_user rate=5r/s burst=1 name=a action=delay max_delay=10s;
            client_body_buffer_size 1k;
            penstock_pass a;
        }""")
    bodies = [json.dumps({"user": "u", "n": i, "prompt": "x" * 5000}) for i in range(3)]
    ended = together(*[lambda body=body: service.request("POST", "/", None, body) for body in bodies])
    assert [came.body for _, came in ended] == [b"hi"] * 3 and ended[-1][0] >= 0.39
    assert sorted(job["json"].decode() for job in engine.submits) == bodies


class Http2:
    """As much of RFC 9113 as it takes to ask for several things on one connection."""

    HEADERS, RST_STREAM, SETTINGS = 1, 3, 4

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(self.SETTINGS, 0, 0, b"")

    def send(self, kind, flags, stream, payload):
        self._socket.sendall(struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload)

    def get(self, stream, path):
        path = path.encode()
        self.send(self.HEADERS, 5, stream, b"\x82\x86\x01\x01x\x04" + bytes([len(path)]) + path)

    def statuses(self, count):
        """(stream, status) of so many answers, as they come."""
        came = []
        while len(came) < count:
            size, kind, flags, stream = struct.unpack("!IBBI", b"\0" + self._exactly(9))
            payload = self._exactly(size)
            if kind == self.HEADERS:
                came.append((stream, 200 if payload[0] == 0x88 else None))
        return came

    def close(self):
        self._socket.close()

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            assert more, "the connection was closed"
            data += more
        return data


def test_streams_of_http_2_are_delayed_each_by_itself(penstock):
    service = penstock(start=False, http=ZONE)
    port = service.free_port()
    service.nginx.write_config(service.configuration(
        ZONE + f"server {{ listen 127.0.0.1:{port} http2; {delayed()} location /slow {{ "
               "penstock_limit zone=edge key=$arg_key rate=1r/m burst=1 name=slow action=delay max_delay=10m; empty_gif; } }",
        "location /look { penstock_limit zone=edge key=$arg_key rate=1r/m burst=1 name=slow; empty_gif; }"))
    service.start()
    client = Http2(port)
    start = time.monotonic()
    for stream in (1, 3, 5, 7):
        client.get(stream, "/?key=k" if stream != 5 else "/?key=other")
    assert client.statuses(4) == [(1, 200), (5, 200), (3, 200), (7, 200)]
    assert time.monotonic() - start >= 0.39
    # A stream that is given up leaves the others alone, and gets its charge back.
    client.get(9, "/slow?key=k")
    assert client.statuses(1) == [(9, 200)]
    client.get(11, "/slow?key=k")
    until(lambda: waiting_for(service) > 60, "it is held back")
    client.send(client.RST_STREAM, 0, 11, struct.pack("!I", 8))
    until(lambda: waiting_for(service) <= 60, "its charge is given back")
    client.get(13, "/?key=third")
    assert client.statuses(1) == [(13, 200)]
    client.close()


def test_a_reload_serves_who_is_held_back(penstock):
    service = penstock(master=True, http=ZONE, server=delayed("rate=1r/s burst=1"))
    assert service.get("/?key=k").status == 200
    client = service.client()
    client._connection.request("GET", "/?key=k")
    until(lambda: int(service.get("/look?key=k").headers.get("Retry-After", 0)) > 1, "it is held back")
    service.nginx.reload()
    came = client._connection.getresponse()
    assert came.status == 200
    came.read()


def test_of_several_delays_the_longest_is_waited_for(penstock):
    service = penstock(http=ZONE, server="""location / {
        penstock_limit zone=edge key=$arg_key rate=10r/s burst=1 name=a action=delay max_delay=10s;
        penstock_limit zone=edge key=$arg_key rate=2r/s burst=1 name=b action=delay max_delay=10s;
        empty_gif;
    }""")
    assert service.get("/?key=k").status == 200
    start = time.monotonic()
    assert service.get("/?key=k").status == 200
    assert time.monotonic() - start >= 0.4


def test_a_plan_is_delayed_by_its_rates_and_refused_by_its_quota(penstock):
    service = penstock(http=ZONE + "penstock_tier free { rate 5r/s burst=1; quota 2r/M; }", server="""location / {
        penstock_limit zone=edge key=$arg_key tier=free action=delay max_delay=10s;
        empty_gif;
    }""")
    assert service.statuses(3, "/?key=k") == [200, 200, 429]
    refused = service.get("/?key=k")
    assert refused.json()["error"]["code"] == "quota_exceeded" and refused.json()["violated-policies"] == ["free-quota-M"]


# --- Degrade

@pytest.mark.parametrize("pool", ["512", "1k", "2k", "4k"])
def test_what_comes_behind_a_request_whose_cost_cannot_be_told_is_answered(peer, edge, pool):
    service = edge(peer("a", answer(b"hi")), server=f"""
        request_pool_size {pool}; client_header_buffer_size 8k;
        location /p {{ penstock_cost r "steps"; penstock_limit zone=edge key=$arg_key rate=9r/d action=degrade degrade_to=model=small name=a; penstock_pass a; }}
        location / {{ empty_gif; }}""")
    body = b'{"steps":"x"}'
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection, connection.makefile("rb") as answers:
        for _ in range(8):
            connection.sendall(b"POST /p?key=k HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
            assert answers.readline().split()[1] == b"100" and answers.readline() == b"\r\n"  # its body is waited for
            connection.sendall(body + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for status in (b"400", b"200"):
                head = b"".join(iter(answers.readline, b"\r\n"))
                assert head.split()[1] == status
                answers.read(int(head.lower().split(b"content-length: ")[1].split()[0]))


def degrading(to="model=small", rule="rate=1r/d name=big", engine="penstock_pass a;", more=""):
    return f"location / {{ penstock_limit zone=edge key=$arg_key {rule} action=degrade degrade_to={to}; {more} {engine} }}"


def ask(service, path="/?key=k", model="large", **body):
    return service.request("POST", path, None, {"model": model, "prompt": "a", **body})


def degraded(response):
    return parse_list(response.headers["Penstock-Degraded"]) if "Penstock-Degraded" in response.headers else []


def test_over_its_limit_a_request_runs_as_a_lesser_one(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=degrading())
    first, second, third = ask(service), ask(service), ask(service)
    assert [came.status for came in (first, second, third)] == [200] * 3
    assert [degraded(came) for came in (first, second, third)] == [[], [("big", {"model": "small"})], [("big", {"model": "small"})]]
    assert [job["model"] for job in engine.submits] == [b"large", b"small", b"small"]
    assert all(json.loads(job["json"])["model"] == "large" for job in engine.submits)


def test_the_lesser_model_is_what_answers(penstock):
    service = with_log(penstock, ZONE, degrading("model=small", engine="penstock_pass gpu;"),
                       workers=[simulate("large"), simulate("small")])
    answers = [ask(service, "/v1/completions?key=k", max_tokens=2) for _ in range(2)]
    assert [came.json()["model"] for came in answers] == ["large", "small"]
    lines = logged(service, 2)
    assert lines[0].endswith("200 PASSED limit=- retry=- model=large")
    assert lines[1].endswith("200 DEGRADED limit=- retry=- model=small")


@pytest.mark.parametrize("more", ["", "penstock_limit zone=edge key=$penstock_model rate=100r/d name=model;"])
def test_what_is_the_lesser_model_already_is_refused(peer, edge, more):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=degrading(more=more))
    assert [ask(service, model="small").status for _ in range(2)] == [200, 429]
    refused = ask(service, model="small")
    assert refused.json()["violated-policies"] == ["big"] and degraded(refused) == []
    assert int(refused.headers["Retry-After"]) > 86000
    assert ask(service, model="large").status == 200
    assert len(engine.submits) == 2


def test_a_large_body_on_disk_is_asked_for_its_model_too(peer, edge):
    service = edge(peer("a", answer(b"hi")), server=degrading(more="client_body_buffer_size 1k;"))
    padding = ["y" * 100] * 100
    assert [service.request("POST", "/?key=k", None, {"padding": padding, "model": "small"}).status for _ in range(2)] == [200, 429]


def test_limits_by_model_count_the_model_that_runs(peer, edge):
    engine = peer("a", answer(b"hi"))
    models = "penstock_limit zone=edge key=$penstock_model rate=3r/d name=model;"
    service = edge(engine, server=f"location /look {{ {models} penstock_pass a; }}" + degrading(more=models))
    assert [ask(service).status for _ in range(3)] == [200] * 3
    # The large one has been counted once, the small one twice.
    assert [ask(service, "/look", model).status for model in ("small", "small", "large", "large", "large")] == [200, 429, 200, 200, 429]
    # Now the lesser model is used up.
    refused = ask(service, model="larger")
    assert refused.status == 429 and refused.json()["violated-policies"] == ["model"]


def test_a_limit_that_rejects_is_heeded_before_one_that_degrades(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=degrading(more="penstock_limit zone=edge key=$arg_key rate=2r/d name=all;"))
    assert [ask(service).status for _ in range(3)] == [200, 200, 429]
    refused = ask(service)
    assert sorted(refused.json()["violated-policies"]) == ["all", "big"] and degraded(refused) == []
    assert len(engine.submits) == 2


def test_fewer_tokens_are_asked_for_and_reckoned(peer, edge):
    engine = peer("a", answer(b"hi"))
    tokens = "penstock_limit zone=edge key=$arg_key rate=10000t/M name=tokens;"
    service = edge(engine, server=degrading("max_tokens=64", more=tokens))
    for model in ("large", "large"):
        came = ask(service, model=model, max_tokens=500)
    assert degraded(came) == [("big", {"max_tokens": "64"})]
    assert [job.get("override") for job in engine.submits] == [None, b'{"max_tokens":64}']
    assert [job["cost"] for job in engine.submits] == [501, 65]
    # It only ever lowers, whatever the name under which the caller asked.
    ask(service, max_tokens=10)
    ask(service, max_completion_tokens=500)
    ask(service, max_completion_tokens=7, max_tokens=500)
    ask(service)
    assert [job["cost"] for job in engine.submits][2:] == [11, 65, 8, 65]


def test_fewer_tokens_are_what_comes(penstock):
    service = penstock(workers=[simulate("large", output_tokens=100)], http=ZONE,
                       server=degrading("max_tokens=3", engine="penstock_pass gpu;"))
    answers = [ask(service, "/v1/completions?key=k", max_tokens=20) for _ in range(2)]
    assert [came.json()["usage"]["completion_tokens"] for came in answers] == [20, 3]


@pytest.mark.parametrize("to, field, written", [
    ("model=meta-llama/Llama-3.1-8B", "model", None), ("size=512x512", "size", b'{"size":"512x512"}'),
    ("steps=-4.5", "steps", b'{"steps":-4.5}'), ("turbo=true", "turbo", b'{"turbo":true}'), ("seed=007", "seed", b'{"seed":"007"}'),
    ("x=-inf", "x", b'{"x":"-inf"}'), ("x=1.", "x", b'{"x":"1."}'), ("x=-", "x", b'{"x":"-"}'), ("x=1e5", "x", b'{"x":"1e5"}')])
def test_what_is_put_in_its_place_is_json_and_a_structured_field(peer, edge, to, field, written):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=degrading(to))
    ask(service)
    came = ask(service)
    assert degraded(came) == [("big", {field: to.partition("=")[2]})]
    assert engine.submits[1].get("override") == written
    if written:
        json.loads(written)
    else:
        assert engine.submits[1]["model"].decode() == to.partition("=")[2]


def test_two_limits_may_degrade_one_request(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=degrading("model=small", more="""
        penstock_limit zone=edge key=$arg_key rate=1r/d name=short action=degrade degrade_to=max_tokens=9;
        penstock_limit zone=edge key=$arg_key rate=1r/d name=cold action=degrade degrade_to=temperature=0;"""))
    ask(service)
    assert degraded(ask(service)) == [("big", {"model": "small"}), ("short", {"max_tokens": "9"}), ("cold", {"temperature": "0"})]
    assert json.loads(engine.submits[1]["override"]) == {"max_tokens": 9, "temperature": 0}
    assert engine.submits[1]["model"] == b"small"


def test_a_plan_that_degrades_is_named_in_the_answer(peer, edge):
    service = edge(peer("a", answer(b"hi")), http="penstock_tier free { rate 1r/d; }", server="""
        location / { penstock_limit zone=edge key=$arg_key tier=free action=degrade degrade_to=model=small; penstock_pass a; }""")
    ask(service)
    assert degraded(ask(service)) == [("free", {"model": "small"})]


def test_what_became_of_a_request_is_told_though_a_server_was_tried_in_vain(peer, edge):
    service = with_log(lambda http, **parts: edge(peer("a", failed(503, retry_after_s=1)), peer("b", answer(b"hi")), http=http, **parts),
                       "", degrading(engine="penstock_pass all;"))
    assert [ask(service).status for _ in range(2)] == [200, 200]
    assert [line.split()[2] for line in logged(service, 2)] == ["PASSED", "DEGRADED"]


def test_a_lesser_request_is_counted_as_such_by_what_a_map_makes_of_its_model_too(peer, edge):
    service = edge(peer("a", answer(b"hi")), http="map $penstock_model $class { default other; large big; small little; }", server="""
        location /look { penstock_limit zone=edge key=$arg_class rate=9r/d name=class; penstock_quota; }
        location / {
            penstock_limit zone=edge key=all rate=1r/d name=large action=degrade degrade_to=model=small;
            penstock_limit zone=edge key=$class rate=9r/d name=class;
            penstock_pass a;
        }""")
    assert [service.request("POST", "/", None, {"model": "large"}).status for _ in range(3)] == [200] * 3
    used = [service.get(f"/look?class={name}").json()["limits"][0]["used"] for name in ("big", "little")]
    assert used == [1, 2]


# --- Dry run

@pytest.mark.parametrize("action, status", [("", "REJECTED_DRY_RUN"), ("action=reject", "REJECTED_DRY_RUN"),
                                            ("action=delay max_delay=1h", "DELAYED_DRY_RUN"),
                                            ("action=degrade degrade_to=model=small", "DEGRADED_DRY_RUN")])
def test_a_dry_run_lets_pass_and_tells(peer, edge, action, status):
    engine = peer("a", answer(b"hi"))
    service = with_log(lambda **parts: edge(engine, **parts), "", f"""location / {{
        penstock_limit zone=edge key=$arg_key rate=1r/h name=a {action} dry_run=on; penstock_pass a; }}""")
    start = time.monotonic()
    answers = [ask(service) for _ in range(3)]
    assert [came.status for came in answers] == [200] * 3 and time.monotonic() - start < 20
    assert not any("RateLimit" in came.headers or "Penstock-Degraded" in came.headers for came in answers)
    assert {job["model"] for job in engine.submits} == {b"large"}
    lines = logged(service, 3)
    assert [line.split()[2] for line in lines] == ["PASSED", status, status]
    assert "limit=a" in lines[1] and "limit=-" in lines[0]


def test_a_dry_run_counts_and_charges_no_one_else(penstock):
    service = penstock(http=ZONE, server="""
        location /dry { penstock_limit zone=edge key=$arg_key rate=2r/d name=a dry_run=on; empty_gif; }
        location /wet { penstock_limit zone=edge key=$arg_key rate=2r/d name=a; empty_gif; }
        location /both {
            penstock_limit zone=edge key=$arg_key rate=2r/d name=a dry_run=on;
            penstock_limit zone=edge key=$arg_key rate=3r/d name=b;
            empty_gif;
        }""")
    # What it lets pass, and would have let pass, is counted; what it would have refused is not.
    assert service.statuses(5, "/dry?key=k") == [200] * 5
    assert service.get("/wet?key=k").status == 429
    assert service.statuses(5, "/both?key=other") == [200] * 3 + [429] * 2
    refused = service.get("/both?key=other")
    assert refused.json()["violated-policies"] == ["b"]
    assert [name for name, _ in parse_list(refused.headers["RateLimit"])] == ["b"]
    # A refusal by the other one is free here, too.
    assert service.get("/wet?key=other").status == 429


@pytest.mark.parametrize("limit", ["tier=$arg_tier", "rate=9gs/d name=gpu"])
def test_a_dry_run_refuses_nobody_for_a_plan_or_a_cost_that_cannot_be_told_either(peer, edge, limit):
    service = edge(peer("a", answer(b"hello")), http="penstock_tier free { rate 9r/d; }", server=f"""
        penstock_cost gs size;
        location / {{
            add_header X-Status $penstock_status always;
            penstock_limit zone=edge key=$arg_key {limit} dry_run=on;
            penstock_pass a;
        }}""")
    came = service.request("POST", "/?key=k&tier=gold", None, {"size": "large"})
    assert (came.status, came.headers["X-Status"]) == (200, "REJECTED_DRY_RUN")


def test_a_dry_run_of_concurrency_holds_and_frees(penstock):
    service = penstock(http=ZONE, workers=[simulate(slots=2, service_time="60s")], server="""
        location /look { penstock_limit zone=edge key=$arg_key concurrency=1 name=own; empty_gif; }
        location / { penstock_limit zone=edge key=$arg_key concurrency=1 name=own dry_run=on; penstock_pass gpu; }""")
    clients = [Client(service.port) for _ in range(2)]
    for client in clients:
        client._connection.request("POST", "/v1/completions?key=k", '{"model":"sim","prompt":"a"}')
    service.penstockd.wait_for(running=2)
    assert service.get("/look?key=k").status == 429
    for client in clients:
        client.close()
    until(lambda: service.get("/look?key=k").status == 200, "its place is free", 5)
