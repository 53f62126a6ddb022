"""What is admitted, and when: rates and bursts over one and several Nginx workers."""

import re
import threading
import time

import pytest

from client import Client, exchange
from scripted import answer
from structured import parse_list


def remaining(response):
    return parse_list(response.headers["RateLimit"])[0][1]["r"]


def limited(rate, location="location /", more="empty_gif;"):
    return f"{location} {{ penstock_limit zone=edge key=$arg_key {rate} name=a; {more} }}"


def test_a_burst_is_admitted_at_once_and_then_spaced_by_the_rate(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=limited("rate=120r/m burst=4"))
    client = service.client()
    statuses, admitted = [], []
    start = time.monotonic()
    while time.monotonic() - start < 2.2:
        statuses.append(client.request("GET", "/?key=k").status)
        if statuses[-1] == 200:
            admitted.append(time.monotonic() - start)
    assert statuses[:5] == [200, 200, 200, 200, 429]
    later = admitted[4:]
    # One each half second, counted from the first; never early, and late only by what the machine is slow.
    assert len(later) == 4
    for i, moment in enumerate(later):
        assert 0.5 * (i + 1) - 0.02 <= moment <= 0.5 * (i + 1) + 0.3


def test_a_rate_without_burst_is_a_burst_of_its_own_number(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=limited("rate=3r/h"))
    assert service.statuses(5, "/?key=k") == [200, 200, 200, 429, 429]


def test_every_key_has_its_own_counter(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=limited("rate=1r/h"))
    assert [service.get(f"/?key={key}").status for key in ("a", "b", "a", "b")] == [200, 200, 429, 429]


def test_retry_after_is_true_and_tight(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=limited("rate=20r/m burst=1"))
    assert service.get("/?key=k").status == 200
    refused = service.get("/?key=k")
    told = time.monotonic()
    assert refused.status == 429 and refused.headers["Retry-After"] == "3"
    assert parse_list(refused.headers["RateLimit"]) == [("a", {"r": 0, "t": 3})]
    # This test is about the clock: it sends at the very moments that are promised.
    time.sleep(max(0, told + 2 - time.monotonic()))
    assert service.get("/?key=k").status == 429
    time.sleep(max(0, told + 3 - time.monotonic()))
    assert service.get("/?key=k").status == 200


def test_the_largest_retry_after_of_all_exceeded_limits_is_told(penstock):
    service = penstock(http="penstock_zone edge 1m;", server="""
        location / {
            penstock_limit zone=edge key=$arg_key rate=1r/m name=minute;
            penstock_limit zone=edge key=$arg_key rate=1r/h name=hour;
            empty_gif;
        }""")
    service.get("/?key=k")
    refused = service.get("/?key=k")
    assert refused.status == 429
    assert 3590 <= int(refused.headers["Retry-After"]) <= 3600
    assert sorted(refused.json()["violated-policies"]) == ["hour", "minute"]


def test_five_limits_are_charged_all_or_none(penstock):
    names = ["one", "two", "three", "four", "five"]
    bursts = dict(one=50, two=40, three=3, four=30, five=20)
    rules = {name: f"penstock_limit zone=edge key=$arg_key rate=1r/h burst={bursts[name]} name={name};" for name in names}
    service = penstock(http="penstock_zone edge 1m;",
                       server=f"location /all {{ {' '.join(rules.values())} empty_gif; }}\n" +
                       "\n".join(f"location /{name} {{ {rules[name]} empty_gif; }}" for name in names))
    assert service.statuses(9, "/all?key=k") == [200] * 3 + [429] * 6
    # Three were admitted; the six refusals, by the third limit alone, cost nothing anywhere.
    for name in names:
        probe = service.get(f"/{name}?key=k")
        assert probe.status == (429 if name == "three" else 200)
        assert remaining(probe) == max(bursts[name] - 4, 0), name


def test_a_limit_is_shared_by_every_location_and_server_that_names_it(penstock):
    service = penstock(start=False, http="penstock_zone edge 1m;")
    other = service.free_port()
    rule = "penstock_limit zone=edge key=$arg_key rate=1r/h burst=3 name=shared;"
    service.nginx.write_config(service.configuration(
        f"penstock_zone edge 1m; server {{ listen 127.0.0.1:{other}; location / {{ {rule} empty_gif; }} }}",
        f"location /x {{ {rule} empty_gif; }} location /y {{ {rule} empty_gif; }}"))
    service.start()
    there = service.client(other)
    assert service.get("/x?key=k").status == 200
    assert service.get("/y?key=k").status == 200
    assert there.request("GET", "/?key=k").status == 200
    assert service.get("/x?key=k").status == 429
    assert there.request("GET", "/?key=k").status == 429


def test_an_empty_key_means_that_the_limit_does_not_apply(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=limited("rate=1r/h"))
    answers = [service.get("/") for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert "RateLimit" not in answers[0].headers


def test_the_tier_follows_the_request(penstock):
    service = penstock(
        http="""
            penstock_zone edge 1m;
            penstock_tier free { rate 1r/h; priority 0; weight 1; }
            penstock_tier pro { rate 3r/h; rate 2r/d name=pro-day; priority 10; weight 4; }
        """,
        server="location / { penstock_limit zone=edge key=$arg_key tier=$arg_tier; empty_gif; }")
    assert service.statuses(2, "/?key=k&tier=free") == [200, 429]
    assert service.statuses(3, "/?key=k&tier=pro") == [200, 200, 429]
    refused = service.get("/?key=k&tier=pro")
    assert refused.json()["violated-policies"] == ["pro-day"]


def test_an_unknown_tier_is_refused_and_told_to_the_operator(penstock):
    service = penstock(http="penstock_zone edge 1m;\npenstock_tier free { rate 1r/h; }",
                       server="location / { penstock_limit zone=edge key=$arg_key tier=$arg_tier; empty_gif; }")
    refused = service.get("/?key=k&tier=gold")
    assert refused.status == 403
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["error"]["code"] == "forbidden"
    line = next(at for at, text in enumerate(service.nginx.config.read_text().splitlines(), 1) if "penstock_limit" in text)
    assert re.search(rf'\[error\].*unknown penstock tier "gold" for the limit in \S+/nginx\.conf:{line}: ', service.nginx.log())


def test_a_tier_that_is_not_known_yet_is_told_as_such(penstock):
    service = penstock(http="penstock_zone edge 1m;\npenstock_tier free { rate 1r/h; }", server="""
        auth_request_set $plan $upstream_http_x_plan;
        location / { penstock_limit zone=edge key=$arg_key tier=$plan; empty_gif; }""")
    assert service.get("/?key=k").status == 403
    assert re.search(r'unknown penstock tier "\(empty\)" .*auth_request.*stage=access', service.nginx.log())


@pytest.mark.parametrize("pool", ["512", "1k", "2k", "4k"])
def test_what_comes_behind_a_request_of_an_unknown_plan_is_answered(penstock, pool):
    # The first ends, and its memory is the second's, before its limits are through.
    service = penstock(http="penstock_zone edge 1m;\npenstock_tier free { rate 1r/h; }", server=f"""
        client_header_buffer_size 8k; request_pool_size {pool};
        location /p {{ penstock_limit zone=edge key=$arg_key tier=$arg_tier; proxy_pass http://127.0.0.1:9; }}
        location / {{ empty_gif; }}""")
    first = b"POST /p?key=k&tier=gold HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
    last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answers = exchange(service.port, first * 8 + last)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"403"] * 8 + [b"200"]
    assert "exited on signal" not in service.nginx.log()


def hammer(service, path, threads=8, each=100):
    """`threads` clients at once; returns every answer's (status, who served it)."""
    answers, gate = [], threading.Barrier(threads)

    def client():
        gate.wait()
        for _ in range(each):
            connection = Client(service.port)
            answer = connection.request("GET", path)
            answers.append((answer.status, answer.headers["X-Worker"]))
            connection.close()

    running = [threading.Thread(target=client) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return answers


def test_two_workers_never_admit_more_than_the_limit_under_concurrent_load(penstock):
    service = penstock(processes=2, http="penstock_zone edge 1m;", server="""
        location / {
            add_header X-Worker $pid always;
            penstock_limit zone=edge key=$arg_key rate=1r/h burst=100 name=a;
            penstock_limit zone=edge key=all rate=1r/h burst=250 name=b;
            empty_gif;
        }""")
    for key, admitted in (("x", 100), ("y", 100), ("z", 50)):
        answers = hammer(service, f"/?key={key}", each=50)
        assert [status for status, _ in answers].count(200) == admitted
        assert len({worker for _, worker in answers}) == 2


def test_a_reload_keeps_every_counter(penstock):
    service = penstock(master=True, http="penstock_zone edge 1m;", server=limited("rate=1r/h burst=5"))
    assert service.statuses(3, "/?key=k") == [200] * 3
    service.nginx.reload()
    assert service.statuses(3, "/?key=k") == [200, 200, 429]


def test_a_reload_to_another_rate_forgives_nobody(penstock):
    service = penstock(master=True, http="penstock_zone edge 1m;", server=limited("rate=1r/h burst=2"))
    assert service.statuses(3, "/?key=k") == [200, 200, 429]
    service.nginx.write_config(service.configuration("penstock_zone edge 1m;", limited("rate=2r/h burst=2")))
    service.nginx.reload()
    assert service.get("/?key=k").status == 429


def test_counters_outlive_a_worker_that_dies(penstock):
    import os
    import signal

    from waiting import until
    service = penstock(master=True, http="penstock_zone edge 1m;", server=limited("rate=1r/h burst=3"))
    assert service.statuses(2, "/?key=k") == [200, 200]
    old = service.nginx.workers()
    os.kill(old[0], signal.SIGTERM)
    until(lambda: service.nginx.workers() not in ([], old), "Nginx has started another worker")
    assert service.statuses(2, "/?key=k") == [200, 429]


def test_a_map_of_what_the_body_says_is_as_good_as_the_body(penstock):
    """Nginx keeps a map's value; one that was looked up before the body had come must not stay."""
    service = penstock(
        http="""
            penstock_zone edge 1m;
            map $penstock_model $plan { default free; large pro; }
            map $plan $caller { default ""; pro $arg_key; }
            penstock_tier free { rate 1r/h; }
            penstock_tier pro { rate 3r/h; }
        """,
        server="""
            location / {
                penstock_limit zone=edge key=$caller rate=2r/h name=mapped;
                penstock_limit zone=edge key=$arg_key tier=$plan;
                empty_gif;
            }""")
    client = service.client()
    for _ in range(2):
        answer = client.request("POST", "/?key=k", body={"model": "large"})
        assert answer.status == 405 or answer.status == 200  # the module that answers wants GET; the limits come first
        assert answer.headers["RateLimit-Policy"] == '"pro-rate";q=3;w=3600'
    refused = client.request("POST", "/?key=k", body={"model": "large"})
    assert refused.status == 429 and refused.json()["violated-policies"] == ["mapped"]


def test_a_map_of_what_the_body_says_may_be_one_of_very_many(peer, edge):
    maps = "".join(f"map $arg_x{i} $many{i} {{ default a; }} log_format many{i} $many{i};\n" for i in range(1100))
    service = edge(peer("a", answer(b"hi")), http=f"""
        variables_hash_max_size 8192;
        {maps}
        map $penstock_model $class {{ default small; large large; }}""", server="""
        location / { penstock_limit zone=edge key=$class rate=1r/d name=class; penstock_pass a; }""")
    assert [service.request("POST", "/", None, {"model": model}).status for model in ("large", "other", "large", "other")] == [200, 200, 429, 429]


def keyed_by_a_header(penstock, more=""):
    service = penstock(http=f"penstock_zone edge 1m; {more}", server="""
        location / { penstock_limit zone=edge key=$http_x_key rate=1r/h name=a; empty_gif; }
        location /set { set $http_x_set all; penstock_limit zone=edge key=$http_x_set rate=1r/h name=b; empty_gif; }""")

    def status(*lines, path="/"):
        head = "".join(f"{line}\r\n" for line in lines)
        answer = exchange(service.port, f"GET {path} HTTP/1.1\r\nHost: test\r\n{head}Connection: close\r\n\r\n".encode())
        return int(answer.split()[1])
    return status


def test_a_header_keys_a_limit_however_its_name_is_written(penstock):
    status = keyed_by_a_header(penstock)
    assert [status("X-Key: a"), status("x-KEY: a"), status("X-Key: b"), status("X-Key: b")] == [200, 429, 200, 429]
    assert [status(), status(), status("X-Ke: a"), status("X-Keys: a"), status("X-Key:")] == [200] * 5
    # One that is sent several times is what the variable makes of it; never none.
    assert [status("X-Key: c", "X-Key: d"), status("X-Key: c", "X-Key: d")] == [200, 429]


def test_a_header_with_underscores_is_the_same_key_where_nginx_lets_it_pass(penstock):
    status = keyed_by_a_header(penstock, "underscores_in_headers on;")
    assert [status("x_key: a"), status("X-Key: a")] == [200, 429]
    status("x_key: a", "X-Key: b")  # the first to Nginx before 1.23, both to later ones
    assert status("x_key: a", "X-Key: b") == 429


def test_a_variable_that_is_named_as_a_header_is_what_it_was_set_to(penstock):
    status = keyed_by_a_header(penstock)
    assert [status("X-Set: a", path="/set"), status("X-Set: b", path="/set")] == [200, 429]
