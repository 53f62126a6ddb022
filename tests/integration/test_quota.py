"""penstock_quota: what a caller is told of its own limits, and that telling costs nothing."""

import threading

import pytest

from gate import Gate
from waiting import until

PLANS = """
    penstock_zone edge 1m;
    penstock_docs https://example.com/plans;
    penstock_tier free {
        rate 10r/h burst=5;
        rate 2000t/h;
        rate 60gs/h;
        quota 50r/M;
        concurrency 2;
    }
    penstock_tier pro { quota 100r/M; }
"""
API = """
    location /v1/ {
        penstock_cost t 300;
        penstock_cost gs 0.25;
        penstock_limit zone=edge key=$arg_key tier=$arg_tier;
        penstock_limit zone=edge key=$arg_address rate=100r/h name=ip;
        penstock_limit zone=edge key=all rate=1000r/h name=site;
        empty_gif;
    }
    location = /quota { penstock_quota; }
"""


@pytest.fixture
def gate():
    held = Gate()
    yield held
    held.close()


def rows(answer):
    """The limits told of, by name."""
    assert answer.status == 200, answer
    return {row["name"]: row for row in answer.json()["limits"]}


def standing(answer, name):
    row = rows(answer)[name]
    return row["used"], row["remaining"]


def test_a_caller_is_told_each_limit_of_its_plan(penstock):
    service = penstock(http=PLANS, server=API)
    assert service.statuses(3, "/v1/?key=k&tier=free") == [200] * 3
    answer = service.get("/quota?key=k&tier=free")
    assert answer.headers["Content-Type"] == "application/json" and answer.headers["Cache-Control"] == "no-store"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    told = answer.json()
    assert list(told) == ["tier", "limits", "concurrency", "documentation"]
    assert told["tier"] == "free" and told["documentation"] == "https://example.com/plans"
    assert told["concurrency"] == {"limit": 2, "in_use": 0}
    limits = rows(answer)
    assert list(limits) == ["free-rate", "free-rate-tokens-h", "free-rate-gpu-h", "free-quota-M"]
    resets = {name: row.pop("reset_seconds") for name, row in limits.items()}
    assert limits["free-rate"] == {"name": "free-rate", "unit": "requests", "limit": 5, "amount": 10, "period_seconds": 3600,
                                   "used": 3, "remaining": 2}
    assert 1000 < resets["free-rate"] <= 1080
    assert limits["free-rate-tokens-h"] == {"name": "free-rate-tokens-h", "unit": "tokens", "limit": 2000, "amount": 2000,
                                            "period_seconds": 3600, "used": 900, "remaining": 1100}
    gpu = limits["free-rate-gpu-h"]
    assert gpu["unit"] == "gpu_seconds" and gpu["limit"] == 60 and gpu["used"] == pytest.approx(0.75, abs=0.1)
    assert gpu["used"] + gpu["remaining"] == pytest.approx(60)
    assert limits["free-quota-M"] == {"name": "free-quota-M", "unit": "requests", "limit": 50, "used": 3, "remaining": 47}
    assert 0 < resets["free-quota-M"] <= 31 * 86400


@pytest.mark.parametrize("terms, limit", [
    ("rate=10r/h burst=5", 5), ("rate=10r/h burst=5 algorithm=leaky_bucket", 5), ("rate=10r/h algorithm=sliding_window", 10),
    ("rate=10r/h algorithm=sliding_log", 10), ("rate=10r/M algorithm=fixed_window", 10), ("quota=10r/M", 10)])
def test_every_algorithm_tells_what_is_used(penstock, terms, limit):
    service = penstock(http="penstock_zone edge 1m;", server=f"""
        location / {{ penstock_limit zone=edge key=$arg_key {terms} name=a; empty_gif; }}
        location = /quota {{ penstock_quota; }}""")
    assert rows(service.get("/quota?key=k"))["a"]["reset_seconds"] == 0
    service.statuses(3, "/?key=k")
    row = rows(service.get("/quota?key=k"))["a"]
    assert (row["limit"], row["used"], row["remaining"]) == (limit, 3, limit - 3)
    assert row["reset_seconds"] > 0


def test_asking_costs_nothing_and_is_never_refused(penstock):
    service = penstock(http=PLANS, server=API)
    assert service.statuses(7, "/v1/?key=k&tier=free").count(429) == 2
    answers = [service.get("/quota?key=k&tier=free") for _ in range(20)]
    assert {standing(answer, "free-rate") for answer in answers} == {(5, 0)}
    assert {standing(answer, "free-quota-M") for answer in answers} == {(5, 45)}
    assert not any("RateLimit" in answer.headers for answer in answers)


def test_a_caller_is_told_nothing_of_others(penstock):
    service = penstock(http=PLANS, server=API)
    service.statuses(4, "/v1/?key=a&tier=free&address=1")
    other = service.get("/quota?key=b&tier=free&address=2")
    assert {row["used"] for row in rows(other).values()} == {0}
    assert set(rows(other)) == {"free-rate", "free-rate-tokens-h", "free-rate-gpu-h", "free-quota-M", "ip"}
    nobody = service.get("/quota").json()
    assert nobody == {"tier": None, "limits": [], "concurrency": None}


def test_the_tier_is_that_of_the_request(penstock):
    service = penstock(http=PLANS, server="add_header X-Tier $penstock_tier;" + API)
    answer = service.get("/quota?key=k&tier=pro&address=1")
    assert answer.headers["X-Tier"] == "pro"
    assert answer.json()["tier"] == "pro" and answer.json()["concurrency"] is None
    assert list(rows(answer)) == ["pro-quota-M", "ip"]
    refused = service.get("/quota?key=k&tier=gold")
    assert refused.status == 403 and refused.headers["Cache-Control"] == "no-store"
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["error"]["code"] == "forbidden" and "gold" in service.nginx.log()
    # The connection goes on after it.
    client = service.client()
    assert [client.request("GET", path).status for path in ("/quota?key=k&tier=gold", "/quota?key=k&tier=pro")] == [403, 200]


def test_what_hangs_on_the_body_is_not_told(penstock):
    service = penstock(http="penstock_zone edge 1m;", server="""
        location / {
            penstock_limit zone=edge key=$penstock_model rate=10r/h name=model;
            penstock_limit zone=edge key=$arg_key$penstock_body_user rate=10r/h name=mixed;
            penstock_limit zone=edge key=$arg_key rate=10r/h name=own;
            empty_gif;
        }
        location = /quota { penstock_quota; }""")
    assert list(rows(service.get("/quota?key=k"))) == ["own"]
    assert list(rows(service.request("GET", "/quota?key=k", body='{"model":"a","user":"b"}'))) == ["own"]


def test_a_request_that_runs_is_in_use_and_then_is_not(penstock, gate):
    service = penstock(http=PLANS, server=f"""
        location /v1/ {{
            penstock_limit zone=edge key=$arg_key tier=free;
            penstock_limit zone=edge key=$arg_key concurrency=8 name=wide;
            proxy_pass http://127.0.0.1:{gate.port};
        }}
        location = /quota {{ penstock_quota; }}""")

    def in_use(key):
        return service.get(f"/quota?key={key}").json()["concurrency"]

    running = [threading.Thread(target=service.get, args=("/v1/?key=k",)) for _ in range(2)]
    for thread in running:
        thread.start()
    until(lambda: len(gate.arrived) == 2, "two requests are held")
    assert in_use("k") == {"limit": 2, "in_use": 2}
    assert in_use("other") == {"limit": 2, "in_use": 0}
    assert service.get("/v1/?key=k").status == 429
    gate.open()
    for thread in running:
        thread.join()
    until(lambda: in_use("k") == {"limit": 2, "in_use": 0}, "nothing is in use any more")


def test_every_rule_of_the_server_comes_once_and_those_of_other_servers_never(penstock):
    service = penstock(start=False)
    other = service.free_port()
    service.nginx.write_config(service.configuration(
        f"""{PLANS}
        penstock_limit zone=edge key=$arg_key rate=10r/h name=everywhere;
        server {{
            listen 127.0.0.1:{other};
            location / {{ penstock_limit zone=edge key=$arg_key rate=10r/h name=elsewhere; empty_gif; }}
        }}""",
        """
        penstock_limit zone=edge key=all rate=10r/h name=site;
        location /x { penstock_limit zone=edge key=$arg_key tier=pro; empty_gif; }
        location /y {
            penstock_limit zone=edge key=$arg_key tier=pro;
            penstock_limit zone=edge key=$arg_key rate=10r/h name=y;
            penstock_limit zone=edge key=$arg_key rate=10r/h name=trial dry_run=on;
            empty_gif;
        }
        location = /quota { penstock_quota; }"""))
    service.start()
    assert service.get("/y?key=k").status == 200
    answer = service.get("/quota?key=k")
    assert sorted(row["name"] for row in answer.json()["limits"]) == ["everywhere", "pro-quota-M", "y"]
    assert standing(answer, "y") == (1, 9)


def test_a_location_with_limits_of_its_own_tells_of_those(penstock):
    service = penstock(http=PLANS, server=API + """
        location = /mine { penstock_limit zone=edge key=$arg_key rate=7r/h name=mine; penstock_quota; }""")
    answers = [service.get("/mine?key=k&tier=free") for _ in range(9)]
    assert {tuple(rows(answer)) for answer in answers} == {("mine",)}
    assert {standing(answer, "mine") for answer in answers} == {(0, 7)}


def test_limits_that_it_inherits_hide_no_plan(penstock):
    service = penstock(http=PLANS, server="""
        penstock_limit zone=edge key=$arg_key rate=7r/h name=all;
        penstock_limit zone=edge key=$arg_key rate=8r/h name=late stage=access;
        location /v1/ { penstock_limit zone=edge key=$arg_key tier=pro; penstock_limit zone=edge key=$arg_key rate=9r/h name=later stage=access; empty_gif; }
        location = /quota { if ($arg_key) { add_header X-Key k; } penstock_quota; }""")
    assert service.get("/v1/?key=k").status == 200
    answer = service.get("/quota?key=k")
    assert answer.json()["tier"] == "pro" and sorted(rows(answer)) == ["all", "late", "pro-quota-M"]
    assert standing(answer, "pro-quota-M") == (1, 99)


def test_two_workers_tell_the_same(penstock):
    service = penstock(processes=2, http=PLANS, server="add_header X-Worker $pid always;" + API)
    workers = set()

    def ask():
        answer = service.get("/quota?key=k&tier=free")
        workers.add(answer.headers["X-Worker"])
        return standing(answer, "free-quota-M")

    service.statuses(2, "/v1/?key=k&tier=free")
    until(lambda: ask() == (2, 48) and len(workers) == 2, "both workers have told of two requests")


def test_it_is_for_reading_only(penstock):
    service = penstock(http=PLANS, server=API)
    head = service.request("HEAD", "/quota?key=k&tier=free")
    assert head.status == 200 and int(head.headers["Content-Length"]) > 100 and head.body == b""
    for method in ("POST", "DELETE", "PUT"):
        refused = service.request(method, "/quota?key=k&tier=free", body="{}")
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
        assert refused.json()["error"]["code"] == "method_not_allowed"


def test_blocks_within_its_location_answer_as_it_does(penstock):
    service = penstock(http=PLANS, server="""
        location = /quota {
            penstock_limit zone=edge key=$arg_key rate=3r/h name=own;
            if ($arg_key = k) { add_header X-Key k; }
            limit_except POST { allow all; }
            penstock_quota;
        }""")
    answers = [service.get("/quota?key=k") for _ in range(5)]
    assert {standing(answer, "own") for answer in answers} == {(0, 3)}
    assert rows(service.get("/quota?key=other")).keys() == {"own"}


@pytest.mark.parametrize("lines, said", [
    ("penstock_quota; penstock_quota;", '"penstock_quota" is duplicate'),
    ("empty_gif; penstock_quota;", '"penstock_quota" stands where another directive answers already'),
    ("penstock_quota; proxy_pass http://127.0.0.1:1;", 'location "/quota" has two directives that answer'),
    ("penstock_quota on;", "invalid number of arguments")])
def test_what_makes_no_sense_is_refused(penstock, lines, said):
    service = penstock(start=False, server=f"location /quota {{ {lines} }}")
    accepted, words = service.nginx.check()
    assert not accepted and said in words, words
