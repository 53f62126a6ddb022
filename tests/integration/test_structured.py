"""Headers that are structured fields (RFC 9651): a strict parser, and what we write and read held to it."""

from decimal import Decimal

import pytest

from client import Client
from conftest import simulate
from structured import Date, DisplayString, Token, parse_dictionary, parse_item, parse_list
from test_jobs import ALICE, BODY, jobs  # noqa: F401 (jobs is a fixture)


@pytest.mark.parametrize("text,value", [
    ("0", 0), ("-0", 0), ("042", 42), ("999999999999999", 999999999999999), ("-999999999999999", -999999999999999),
    ("1.0", Decimal("1.0")), ("-123456789012.125", Decimal("-123456789012.125")), ("  1 ", 1),
    ('""', ""), (r'"\"\\"', '"\\'), ('"a b"', "a b"), ("*a/b:c", Token("*a/b:c")), ("A", Token("A")),
    (":aGk=:", b"hi"), (":aGk:", b"hi"), ("::", b""), ("?1", True), ("?0", False), ("@-1", Date(-1)),
    ('%"f%c3%bc%22"', DisplayString('fü"')),
])
def test_an_item_is_read(text, value):
    read, parameters = parse_item(text)
    assert read == value and type(read) is type(value) and parameters == {}


@pytest.mark.parametrize("text", [
    "", "1000000000000000", "1234567890123.1", "1.", "1.2345", ".5", "--1", "-", "+1", "1e3", '"', '"a', '"\\a"', '"é"', '"\t"', "'a'", "é",
    ":a:", ":a", ":a b=:", "?2", "?", "@1.0", "@", "%a", '%"%C3%A9"', '%"%c3"', '%"é"', "a b", "a,b", "\ta", "a;", "a;A", "a ;b", "a;b=", "a; \tb", "(a)", "{}",
])
def test_what_is_no_item_is_an_error(text):
    with pytest.raises(ValueError):
        parse_item(text)


def test_parameters_and_members_are_read():
    assert parse_item('a;b;c=?0;  d="e";b=2') == ("a", {"c": False, "d": "e", "b": 2}), "the last of a name counts"
    assert parse_list('"a";q=1 ,\t"b"') == [("a", {"q": 1}), ("b", {})]
    assert parse_list("(a 1;x  );y, ()") == [([("a", {}), (1, {"x": True})], {"y": True}), ([], {})]
    assert parse_list("") == []
    assert parse_dictionary("a=1, b;x=2, a=(3)") == {"b": (True, {"x": 2}), "a": ([(3, {})], {})}
    for text in ("a,", "a,,b", ",a", "a b", "(a", "(a,b)", "(a\tb)", "a;b c", "a=1"):
        with pytest.raises(ValueError):
            parse_list(text)
    for text in ("A=1", "a=", "a=1,", "a;=1", "a 1", '"a"=1'):
        with pytest.raises(ValueError):
            parse_dictionary(text)


def test_our_own_limits_are_lists_of_strings_with_whole_numbers(penstock):
    service = penstock(http="""penstock_zone edge 1m;
        penstock_tier free { rate 2r/m burst=2; rate 100000t/m; rate 60gs/m; quota 50r/d; quota 900000r/M; concurrency 8; }""", server="""
        location / { penstock_limit zone=edge key=$arg_key tier=free;
                     penstock_limit zone=edge key=$arg_key rate=500r/s algorithm=sliding_window name=a-b_c.d1;
                     penstock_limit zone=edge key=$arg_key rate=10000000r/s name=most; penstock_pass gpu; }""", workers=[simulate()])
    for answer in [service.complete("/v1/completions?key=k") for _ in range(3)]:
        limits = {name: parse_list(answer.headers[name]) for name in ("RateLimit", "RateLimit-Policy")}
        assert limits["RateLimit"] and limits["RateLimit-Policy"], answer.headers
        policies = [name for name, _ in limits["RateLimit-Policy"]]
        assert len(set(policies)) == len(policies) and {name for name, _ in limits["RateLimit"]} <= set(policies)
        for header, keys in (("RateLimit", {"r", "t", "pk"}), ("RateLimit-Policy", {"q", "qu", "w", "pk"})):
            for name, parameters in limits[header]:
                assert type(name) is str and set(parameters) <= keys, limits
                assert all(type(parameters[key]) is int and parameters[key] >= 0 for key in {"r", "t", "q", "w"} & set(parameters)), limits
                assert type(parameters.get("qu", "")) is str
    assert answer.status == 429


@pytest.mark.parametrize("key,status", [
    ('"a";x=1', 202), ('"a\\"\\\\b"', 202), ("  \"a\" ", 202), ('"a";x=', 400), ('"a", "b"', 400), ("a", 400), ('"\xe9"', 400), ('"a\\n"', 400), (":aGk=:", 400),
])
def test_an_idempotency_key_is_a_string_item(jobs, key, status):  # noqa: F811
    reply = jobs().request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async", "Idempotency-Key": key}, BODY)
    assert reply.status == status, reply.body
    assert status == 202 or "Idempotency-Key" in reply.json()["detail"]


def test_two_spellings_of_one_string_are_one_key(jobs):  # noqa: F811
    service = jobs()
    first, second = (service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async", "Idempotency-Key": key}, BODY)
                     for key in ('"a"', ' "a";by=client'))
    assert first.json()["id"] == second.json()["id"] and second.headers["Penstock-Duplicate"] == "true"
