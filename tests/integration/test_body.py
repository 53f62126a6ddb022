"""The body's fields: what limits are keyed by and costs are reckoned from, however odd or large the body."""

import json
import re

import pytest

from scripted import answer
from structured import parse_list
from test_variables import lines
from waiting import until

FORMULA = """
    location / {
        penstock_cost r "(steps|1) + (refs|0)";
        penstock_limit zone=edge key=$arg_key rate=100r/M name=calls;
        penstock_pass a;
    }"""
TOKENS = """
    location / { penstock_limit zone=edge key=$arg_key rate=1000t/M name=tokens; penstock_pass a; }
    location /look { penstock_limit zone=edge key=$arg_key rate=1000t/M name=tokens; empty_gif; }"""


def post(service, body, path="/?key=k"):
    return service.request("POST", path, None, body)


def left(response):
    return {name: values["r"] for name, values in parse_list(response.headers["RateLimit"])}


# --- What a formula is given

@pytest.mark.parametrize("body, cost", [("{}", 1), ('{"steps":null}', 1), ('{"steps":20,"refs":3}', 23), ('{"steps":"20"}', 20), ('{"steps":0}', 0)])
def test_a_default_stands_in_for_what_is_not_there(peer, edge, body, cost):
    service = edge(peer("a", answer(b"hi")), server=FORMULA)
    assert left(post(service, body)) == {"calls": 100 - cost}


@pytest.mark.parametrize("value", ['"abc"', "[1]", "{}", "-1", '"-1"', '""', '"%s"' % ("1" * 129)])
def test_no_default_stands_in_for_what_cannot_be_read(peer, edge, value):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=FORMULA)
    for field in ("steps", "refs"):
        refused = post(service, '{"%s":%s}' % (field, value))
        assert refused.status == 400 and not engine.submits
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("invalid_request", field) and f'"{field}"' in error["message"]


@pytest.mark.parametrize("body", ['{"max_tokens":0,"n":1e999}', '{"max_tokens":1e999}', '{"max_tokens":1,"n":1e999}', '{"n":1e999}'])
def test_what_is_no_number_costs_the_most(peer, edge, body):
    service = edge(peer("a", answer(b"hi")), server=TOKENS)
    assert post(service, body).status == 400


# --- Estimates

@pytest.mark.parametrize("prompt", ["x" * 4100, " " * 100_000], ids=["text", "spaces"])
def test_a_long_prompt_reserves_no_more_than_there_is(peer, edge, prompt):
    service = edge(peer("a", answer(b"hi", prompt_tokens=500, completion_tokens=50)), server=TOKENS)
    assert post(service, {"prompt": prompt, "max_tokens": 50}).status == 200
    until(lambda: left(service.get("/look?key=k")) == {"tokens": 450}, "it is settled")
    # What the caller itself asks for is not there.
    assert post(service, {"prompt": prompt, "max_tokens": 1001}, "/?key=l").status == 400


def test_nobody_makes_the_prompts_of_others_look_small(peer, edge):
    service = edge(peer("a", answer(b"hi", prompt_tokens=1, completion_tokens=1)), server=TOKENS)
    for i in range(20):
        assert post(service, {"messages": ["x" * 2000], "max_tokens": 1}, f"/?key={i}").status == 200
    assert left(post(service, {"prompt": "x" * 798, "max_tokens": 50}))["tokens"] <= 1000 - 150


def test_white_space_between_tokens_is_no_prompt(peer, edge):
    service = edge(peer("a", answer(b"hi")), server=TOKENS)
    assert left(post(service, '{"messages":[%s"12345678"],"max_tokens":10}' % (" " * 3000))) == {"tokens": 987}


# --- Fields as keys

KEYED = "location / { penstock_limit zone=edge key=$penstock_body_user rate=1r/d name=user; penstock_pass a; }"


@pytest.mark.parametrize("one, other", [('"%sa"' % ("x" * 200), '"%sb"' % ("x" * 200)), ("1" * 200, "1" * 201), ("[1]", "[2]"),
                                        ('"\\ud83d\\ude00"', '"\\ud83d\\ude01"')], ids=["string", "number", "array", "surrogates"])
def test_what_has_no_short_text_is_a_key_all_the_same(peer, edge, one, other):
    service = edge(peer("a", answer(b"hi")), server=KEYED)
    assert [post(service, '{"user":%s}' % value).status for value in (one, one, other, other)] == [200, 429, 200, 429]


def test_a_key_is_the_same_from_memory_and_from_a_file(peer, edge):
    service = edge(peer("a", answer(b"hi")), server=KEYED)
    user = "x" * 300_000
    assert [post(service, {"pad": "x" * pad, "user": user}).status for pad in (0, 1, 12_345)] == [200, 429, 429]


def logged(penstock, rate):
    """A service that logs the user of each body, as limits see it, and what none has."""
    service = penstock(start=False)
    service.nginx.write_config(service.configuration("log_format v '$penstock_body_user|$penstock_body_none|';\npenstock_zone edge 1m;", f"""
        access_log {service.folder}/access.log v;
        location / {{ penstock_limit zone=edge key=$penstock_body_user rate={rate} name=user; empty_gif; }}"""))
    service.start()
    return service


def test_a_stand_in_is_short(penstock):
    service = logged(penstock, "10r/d")
    for user in ("ann", "x" * 200, "", None):
        service.request("GET", "/", None, json.dumps({"user": user}))
    first, second, third, fourth = lines(service, 4)
    assert (first, third, fourth) == ("ann|-|", "-|-|", "null|-|") and re.fullmatch(r"~[0-9a-f]{16}\|-\|", second)


def test_nobody_says_the_stand_in_of_another(penstock):
    service = logged(penstock, "1r/d")
    assert service.request("POST", "/", None, json.dumps({"user": "x" * 200})).status == 405
    said = lines(service, 1)[0].split("|")[0]
    assert service.request("POST", "/", None, json.dumps({"user": said})).status == 405
    assert lines(service, 2)[1].split("|")[0] != said
    assert service.request("POST", "/", None, json.dumps({"user": "x" * 200})).status == 429


# --- What others may read otherwise

FORM = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n--b--\r\n'
AMBIGUOUS = [('{"model":"small","Model":"big"}', "application/json", "model"), ('{"MAX_TOKENS":100000}', "application/json", "max_tokens"),
             ('{"max_to\\u212aens":100000}', "text/plain", "max_tokens"), ('{"model":"small"}', "multipart/form-data; boundary=b", None),
             ('{"model":"small"}', "multipart/form-data", None), ("{}\r\n" + FORM, "multipart/form-data; boundary=b", None)]


@pytest.mark.parametrize("limit", ["", "penstock_limit zone=edge key=$penstock_body_user$arg_key rate=5r/d name=user;"], ids=["unlimited", "limited"])
def test_a_body_that_others_may_read_otherwise_is_refused_and_costs_nothing(peer, edge, limit):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server=f"location / {{ {limit} penstock_pass a; }}")

    def send(body, content_type):
        return service.request("POST", "/?key=k", {"Content-Type": content_type}, body)
    for body, content_type, param in AMBIGUOUS:
        refused = send(body, content_type)
        assert refused.status == 400, (body, refused)
        assert refused.json()["error"]["code"] == "invalid_request" and refused.json()["error"]["param"] == param
    assert not engine.submits
    for body, content_type in (('{"model":"small","modes":1}', "application/json"), (FORM, "multipart/form-data; boundary=b")):
        served = send(body, content_type)
        assert served.status == 200, served
    assert not limit or left(served) == {"user": 3}


# --- One pass

def test_more_fields_than_can_be_looked_for_are_refused(penstock):
    service = penstock(start=False)

    def check(count):
        service.nginx.write_config(service.configuration("penstock_zone edge 1m;", "".join(f"""
            location /{i} {{ penstock_limit zone=edge key=$penstock_body_f{i} rate=1r/s name=l{i}; empty_gif; }}""" for i in range(count))))
        return service.nginx.check()
    assert check(24)[0]
    accepted, said = check(25)
    assert not accepted and "33 fields" in said and "at most 32" in said
