"""stage=access: limits whose key and plan come from who checks the credentials, and the two stages together."""

import json
import time

import pytest

from conftest import simulate
from scripted import answer
from structured import parse_list
from waiting import until

ZONE = "penstock_zone edge 1m;\n"
PLANS = ZONE + """
    penstock_tier free { rate 2r/d; }
    penstock_tier pro { rate 4r/d; rate 1000t/M; }
"""
# Knows each user's plan by the credentials, as a service of the operator's would.
ISSUER = """
    location = /issuer {
        add_header X-Plan $http_x_plan always;
        add_header X-User $http_x_user always;
        if ($http_x_user = "") { return 401; }
        return 204;
    }
    location = /may {
        internal;
        proxy_pass http://127.0.0.1:$server_port/issuer;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
    }
    auth_request_set $plan $upstream_http_x_plan;
    auth_request_set $user $upstream_http_x_user;
"""
BY_USER = "penstock_limit zone=edge key=$user tier=$plan stage=access;"
BY_ADDRESS = "penstock_limit zone=edge key=$arg_key rate=6r/d name=address;"
LOOK = f"location /address {{ {BY_ADDRESS} empty_gif; }}\n"


def guarded(limits, content="empty_gif;", more=""):
    return ISSUER + LOOK + f"location / {{ auth_request /may; {more} {limits} {content} }}"


def states(response):
    return {name: values["r"] for name, values in parse_list(response.headers["RateLimit"])}


def address_left(service):
    """What is left to the address, the asking itself included."""
    return states(service.get("/address?key=k"))["address"]


def test_key_and_plan_come_from_who_checks_the_credentials(penstock):
    service = penstock(http=PLANS, server=guarded(BY_USER))
    def statuses(count, **headers):
        return [service.get("/?key=k", **headers).status for _ in range(count)]
    assert statuses(3, X_User="ann", X_Plan="free") == [200, 200, 429]
    assert statuses(5, X_User="bob", X_Plan="pro") == [200] * 4 + [429]
    assert statuses(1, X_User="cid", X_Plan="free") == [200]
    refused = service.get("/?key=k", X_User="ann", X_Plan="free")
    assert refused.json()["detail"].startswith("Plan free allows 2 requests a day.")
    assert parse_list(refused.headers["RateLimit-Policy"]) == [("free-rate", {"q": 2, "w": 86400})]


def test_who_may_not_come_in_is_not_charged_in_the_later_stage(penstock):
    service = penstock(http=PLANS, server=guarded("penstock_limit zone=edge key=all rate=2r/d name=all stage=access;"))
    assert [service.get("/").status for _ in range(5)] == [401] * 5
    assert [service.get("/", X_User="ann").status for _ in range(3)] == [200, 200, 429]


def test_what_an_earlier_stage_has_charged_is_given_back(penstock):
    service = penstock(http=PLANS, server=guarded(BY_ADDRESS + BY_USER))
    answers = [service.get("/?key=k", X_User="ann", X_Plan="free") for _ in range(5)]
    assert [came.status for came in answers] == [200, 200, 429, 429, 429]
    assert address_left(service) == 3
    # What is told is of the plan, and of one stage only.
    assert states(answers[0]) == {"free-rate": 1}
    assert len(answers[0].headers.get_all("RateLimit")) == len(answers[0].headers.get_all("x-ratelimit-limit-requests")) == 1
    assert states(answers[2]) == {"free-rate": 0} and answers[2].json()["violated-policies"] == ["free-rate"]


def test_a_plan_of_the_earlier_stage_is_what_is_told(penstock):
    service = penstock(http=PLANS, server=guarded("""
        penstock_limit zone=edge key=$arg_key tier=pro;
        penstock_limit zone=edge key=$user rate=50r/d name=user stage=access;"""))
    came = service.get("/?key=k", X_User="ann")
    assert states(came) == {"pro-rate": 3, "pro-rate-tokens-M": 1000}


@pytest.mark.parametrize("what", ["unknown plan", "a cost that cannot be told", "more than there can be"])
def test_every_refusal_of_the_later_stage_gives_back_what_the_earlier_has_charged(peer, edge, what):
    engine = peer("a", answer(b"hi"))
    plan, body = "pro", {"max_tokens": 10, "size": 3}
    if what == "unknown plan":
        plan = "gold"
    elif what == "a cost that cannot be told":
        body = {"size": "large"}
    else:
        body = {"max_tokens": 5000, "size": 3}
    costs = "penstock_cost gs size;" if what == "a cost that cannot be told" else ""
    place = "penstock_limit zone=edge key=$arg_key concurrency=1 name=place;"
    service = edge(engine, http=PLANS[len(ZONE):], server=f"location /place {{ {place} empty_gif; }}" +
                   guarded(place + BY_USER, f"{costs} penstock_pass a;"))
    for _ in range(3):
        refused = service.request("POST", "/?key=k", {"X-User": "ann", "X-Plan": plan}, body)
        assert refused.status == (403 if what == "unknown plan" else 400)
        assert service.get("/place?key=k").status == 200
    assert not engine.submits


def test_an_address_is_given_back_what_an_unknown_plan_refused(penstock):
    service = penstock(http=PLANS, server=guarded(BY_ADDRESS + BY_USER))
    answers = [service.get("/?key=k", X_User="ann", X_Plan="gold") for _ in range(3)]
    assert [came.status for came in answers] == [403] * 3 and "RateLimit" not in answers[0].headers
    assert address_left(service) == 5


def test_with_satisfy_any_the_later_stage_is_judged_all_the_same(penstock):
    service = penstock(http=PLANS, server=guarded("penstock_limit zone=edge key=$arg_key rate=2r/d name=all stage=access;",
                                                  more="satisfy any; allow 127.0.0.1; deny all;"))
    assert service.statuses(3, "/?key=k") == [200, 200, 429]


def test_tokens_are_reserved_in_the_later_stage_and_settled(peer, edge):
    service = edge(peer("a", answer(b"hi", prompt_tokens=10, completion_tokens=20)), http=PLANS[len(ZONE):],
                   server=guarded(BY_ADDRESS + BY_USER, "penstock_pass a;", "client_body_buffer_size 1k;"))
    body = {"prompt": "x" * 398, "max_tokens": 50, "padding": "y" * 5000}
    too_much = service.request("POST", "/?key=k", {"X-User": "ann", "X-Plan": "pro"}, {**body, "max_tokens": 1001})
    assert too_much.status == 400
    came = service.request("POST", "/?key=k", {"X-User": "ann", "X-Plan": "pro"}, body)
    assert came.status == 200 and came.body == b"hi"
    assert states(came) == {"pro-rate": 3, "pro-rate-tokens-M": 850}
    until(lambda: states(service.get("/look?key=k", X_User="ann", X_Plan="pro"))["pro-rate-tokens-M"] == 970, "it is settled")
    assert service.get("/?key=k", X_User="ann", X_Plan="pro").status == 200


def test_concurrency_is_held_by_both_stages_and_freed(penstock):
    service = penstock(http=ZONE, workers=[simulate(slots=1, service_time="60s")], server=ISSUER + """
        location /early { penstock_limit zone=edge key=$arg_key concurrency=1 name=early; empty_gif; }
        location /late { penstock_limit zone=edge key=$arg_key concurrency=1 name=late; empty_gif; }
        location / {
            auth_request /may;
            penstock_limit zone=edge key=$arg_key concurrency=1 name=early;
            penstock_limit zone=edge key=$arg_key concurrency=1 name=late stage=access;
            penstock_pass gpu;
        }""")
    client = service.client()
    client._connection.request("POST", "/v1/completions?key=k", json.dumps({"model": "sim", "prompt": "a"}), {"X-User": "ann"})
    service.penstockd.wait_for(running=1)
    assert service.get("/early?key=k").status == service.get("/late?key=k").status == 429
    client.close()
    until(lambda: service.get("/early?key=k").status == service.get("/late?key=k").status == 200, "both are free", 5)


def test_both_stages_may_delay(penstock):
    service = penstock(http=ZONE, server=guarded("""
        penstock_limit zone=edge key=$arg_key rate=5r/s burst=1 name=early action=delay max_delay=5s;
        penstock_limit zone=edge key=$arg_key rate=2r/s burst=1 name=late action=delay max_delay=5s stage=access;"""))
    start = time.monotonic()
    assert [service.get("/?key=k", X_User="ann").status for _ in range(3)] == [200] * 3
    assert time.monotonic() - start >= 0.9


def test_who_leaves_while_the_later_stage_holds_it_back_gets_all_back(penstock):
    service = penstock(http=ZONE, server=guarded(BY_ADDRESS + """
        penstock_limit zone=edge key=$arg_key rate=1r/m burst=1 name=late action=delay max_delay=5m stage=access;""") +
        "location /late { penstock_limit zone=edge key=$arg_key rate=1r/m burst=1 name=late; empty_gif; }")
    def wait():
        refused = service.get("/late?key=k")
        return int(refused.headers["Retry-After"]) if refused.status == 429 else 0
    assert service.get("/?key=k", X_User="ann").status == 200
    client = service.client()
    client._connection.request("GET", "/?key=k", headers={"X-User": "ann"})
    until(lambda: wait() > 60, "it is held back")
    client.close()
    until(lambda: wait() <= 60, "its charge is given back")
    assert address_left(service) == 4


def test_the_later_stage_may_degrade(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=guarded("""
        penstock_limit zone=edge key=$user rate=1r/d name=big stage=access action=degrade degrade_to=model=small;""",
        "penstock_pass a;"))
    answers = [service.request("POST", "/?key=k", {"X-User": "ann"}, {"model": "large"}) for _ in range(2)]
    assert [came.status for came in answers] == [200, 200]
    assert parse_list(answers[1].headers["Penstock-Degraded"]) == [("big", {"model": "small"})]
    assert [job["model"] for job in engine.submits] == [b"large", b"small"]


def test_each_stage_s_charges_are_settled_in_its_own_zone(peer, edge, folder):
    def limits(zone, more=""):
        return (f"penstock_limit zone={zone} key=$arg_key rate=100t/M name={zone}-tokens {more}; "
                f"penstock_limit zone={zone} key=$arg_key concurrency=1 name={zone}-place {more};")
    service = edge(peer("a", answer(b"hi", prompt_tokens=1, completion_tokens=9)), http="penstock_zone other 1m;", server=f"""
        location /edge {{ {limits("edge")} empty_gif; }}
        location /other {{ {limits("other")} empty_gif; }}
        location / {{ root {folder}/nowhere; {limits("edge")} try_files $uri @engine; }}
        location @engine {{ {limits("other", "stage=access")} penstock_pass a; }}""")
    for used in (10, 20):
        came = service.request("POST", "/?key=k", None, {"prompt": "a", "max_tokens": 50})
        assert (came.status, came.body) == (200, b"hi")
        for zone in ("edge", "other"):
            now = service.get(f"/{zone}?key=k")
            assert now.status == 200 and states(now)[f"{zone}-tokens"] == 100 - used


def test_a_refusal_by_the_later_stage_says_nothing_of_what_the_earlier_has_made_of_it(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=guarded("""
        penstock_limit zone=edge key=all rate=1r/d name=big action=degrade degrade_to=model=small;
        penstock_limit zone=edge key=all rate=2r/d name=all stage=access;""", "penstock_pass a;"))
    answers = [service.request("POST", "/", {"X-User": "ann"}, {"model": "large"}) for _ in range(3)]
    assert [came.status for came in answers] == [200, 200, 429]
    assert ["Penstock-Degraded" in came.headers for came in answers] == [False, True, False]
    assert [name for name, _ in parse_list(answers[2].headers["RateLimit"])] == ["all"]
