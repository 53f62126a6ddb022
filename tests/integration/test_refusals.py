"""What a refused caller is told (CONTRACT, section 4), and what an admitted one."""

import re
import socket

import pytest

from conftest import simulate
from structured import parse_list

DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+(\.\d+)?s)?|\d+ms")

FREE = """
    penstock_zone edge 1m;
    penstock_tier free { rate 10r/m burst=5; }
"""
LOCATION = "location / { penstock_limit zone=edge key=$arg_key tier=free; empty_gif; }"


def refused_by_free(penstock):
    service = penstock(http=FREE, server=LOCATION)
    assert service.statuses(5, "/?key=k") == [200] * 5
    return service, service.get("/?key=k")


def test_a_refusal_carries_the_ietf_headers(penstock):
    _, refused = refused_by_free(penstock)
    assert refused.status == 429
    assert refused.headers.get_all("Retry-After") == ["6"]
    assert parse_list(refused.headers["RateLimit-Policy"]) == [("free-rate", {"q": 10, "w": 60})]
    assert parse_list(refused.headers["RateLimit"]) == [("free-rate", {"r": 0, "t": 6})]


def test_a_refusal_carries_the_headers_that_openai_clients_read(penstock):
    _, refused = refused_by_free(penstock)
    # What these clients take for the limit is what may be left at most: the burst.
    assert refused.headers["x-ratelimit-limit-requests"] == "5"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert DURATION.fullmatch(refused.headers["x-ratelimit-reset-requests"])


@pytest.mark.parametrize("terms, told", [("rate=10r/m burst=1", None), ("rate=1r/h", "false"), ("quota=1r/M", "false")])
def test_sdks_are_told_how_long_and_not_to_come_back_where_they_would_not_wait_so_long(penstock, terms, told):
    service = penstock(http="penstock_zone edge 1m;", server=f"location / {{ penstock_limit zone=edge key=$arg_key {terms} name=a; empty_gif; }}")
    first = service.get("/?key=k")
    assert first.status == 200 and "retry-after-ms" not in first.headers and "x-should-retry" not in first.headers
    refused = service.get("/?key=k")
    seconds = refused.headers["Retry-After"]
    assert refused.status == 429 and refused.headers.get_all("retry-after-ms") == [seconds + "000"]
    assert refused.headers["x-should-retry"] == (told if int(seconds) > 120 else None)


def test_the_body_is_a_problem_and_an_openai_error(penstock):
    _, refused = refused_by_free(penstock)
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert int(refused.headers["Content-Length"]) == len(refused.body)
    detail = "Plan free allows 10 requests a minute. Try again in 6 s."
    assert refused.json() == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too Many Requests", "status": 429, "detail": detail,
        "violated-policies": ["free-rate"], "retry_after": 6,
        "error": {"message": detail, "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}}


def test_a_refusal_keeps_the_connection(penstock):
    service, _ = refused_by_free(penstock)
    client = service.client()
    first = client.request("GET", "/?key=k")
    address = client._connection.sock.getsockname()
    assert first.status == 429
    assert client.request("GET", "/?key=other").status == 200
    assert client._connection.sock.getsockname() == address


def test_a_refused_body_is_read_past(penstock):
    service = penstock(http=FREE, server=LOCATION, workers=None)
    service.statuses(5, "/?key=k")
    client = service.client()
    assert client.request("POST", "/?key=k", body=b"x" * 100_000).status == 429
    assert client.request("GET", "/?key=k").status == 429


@pytest.mark.parametrize("expect, connection", [("", "keep-alive"), ("Expect: 100-continue\r\n", "close")])
def test_who_need_not_send_its_body_is_not_taken_at_its_next_words_for_it(penstock, expect, connection):
    service, _ = refused_by_free(penstock)
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(f"POST /?key=k HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n{expect}\r\n".encode())
        answer = client.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 429 ") and "100 Continue" not in answer
    assert f"\r\nConnection: {connection}\r\n" in answer


def test_head_is_refused_without_a_body(penstock):
    service, _ = refused_by_free(penstock)
    answer = service.request("HEAD", "/?key=k")
    assert answer.status == 429 and answer.body == b"" and answer.headers["Retry-After"]


def test_an_admitted_answer_tells_what_is_left(penstock):
    service = penstock(http=FREE, workers=[simulate()],
                       server="location / { penstock_limit zone=edge key=$arg_key tier=free; penstock_pass gpu; }")
    first = service.complete("/v1/completions?key=k")
    assert first.status == 200
    assert parse_list(first.headers["RateLimit-Policy"]) == [("free-rate", {"q": 10, "w": 60})]
    name, left = parse_list(first.headers["RateLimit"])[0]
    assert (name, left["r"]) == ("free-rate", 4) and 0 <= left["t"] <= 60
    assert first.headers["x-ratelimit-limit-requests"] == "5"
    assert first.headers["x-ratelimit-remaining-requests"] == "4"
    assert DURATION.fullmatch(first.headers["x-ratelimit-reset-requests"])
    assert re.fullmatch(r"job_\w+", first.headers["Penstock-Job-Id"])
    second = service.complete("/v1/completions?key=k")
    assert parse_list(second.headers["RateLimit"])[0][1]["r"] == 3
    assert second.headers["Penstock-Job-Id"] != first.headers["Penstock-Job-Id"]


def test_several_limits_are_told_in_one_list(penstock):
    service = penstock(http=FREE, server="""location / {
        penstock_limit zone=edge key=$arg_key rate=10r/m name=key;
        penstock_limit zone=edge key=$binary_remote_addr rate=50r/s name=ip;
        empty_gif;
    }""")
    answer = service.get("/?key=k")
    assert parse_list(answer.headers["RateLimit-Policy"]) == [("key", {"q": 10, "w": 60}), ("ip", {"q": 50, "w": 1})]
    assert {name: values["r"] for name, values in parse_list(answer.headers["RateLimit"])} == {"key": 9, "ip": 49}


def test_a_caller_with_a_plan_is_told_the_plan_and_not_what_guards_the_site(penstock):
    service = penstock(http=FREE, server="""location / {
        penstock_limit zone=edge key=$arg_key tier=free;
        penstock_limit zone=edge key=all rate=3r/m name=site;
        empty_gif;
    }""")
    assert [name for name, _ in parse_list(service.get("/?key=k").headers["RateLimit"])] == ["free-rate"]
    assert service.statuses(3, "/?key=other") == [200, 200, 429]
    assert [name for name, _ in parse_list(service.get("/?key=other").headers["RateLimit"])] == ["site"]


def test_an_error_page_of_the_operator_is_honoured(penstock):
    service = penstock(http=FREE, server="""
        error_page 429 /slow-down;
        location = /slow-down { internal; default_type text/plain; return 429 "easy\\n"; }
        location / { penstock_limit zone=edge key=$arg_key tier=free; empty_gif; }""")
    service.statuses(5, "/?key=k")
    refused = service.get("/?key=k")
    assert (refused.status, refused.body) == (429, b"easy\n")
    assert refused.headers["Retry-After"] == "6"


def test_no_key_is_ever_logged_or_shown(penstock):
    service = penstock(http=FREE, server="location / { penstock_limit zone=edge key=$http_authorization tier=free; empty_gif; }")
    answers = [service.get("/", Authorization="Bearer sk-secret-1234") for _ in range(7)]
    assert answers[-1].status == 429
    shown = "".join(str(answer.headers) + str(answer.body) for answer in answers)
    assert "sk-secret" not in shown + service.nginx.log()


@pytest.mark.parametrize("terms, code, says", [
    ("rate 1r/h", "rate_limit_exceeded", "Plan free allows 1 request an hour."),
    ("rate 2r/s burst=1", "rate_limit_exceeded", "Plan free allows 2 requests a second."),
    ("rate 1r/d algorithm=sliding_log", "rate_limit_exceeded", "Plan free allows 1 request a day."),
    ("quota 1r/d", "quota_exceeded", "Plan free allows 1 request a day. Today's quota is used up."),
    ("quota 1r/M", "quota_exceeded", "Plan free allows 1 request a month. This month's quota is used up."),
    ("quota 1t/w", "quota_exceeded", "Plan free allows 1 token a week. This week's quota is used up."),
    ("rate 1gs/m", "rate_limit_exceeded", "Plan free allows 1 GPU second a minute."),
])
def test_a_refusal_names_its_reason(penstock, terms, code, says):
    service = penstock(http=f"penstock_zone edge 1m;\npenstock_tier free {{ {terms} name=own; }}", server="""
        penstock_cost t 1;
        penstock_cost gs 1;
        location / { penstock_limit zone=edge key=$arg_key tier=free; empty_gif; }""")
    assert service.get("/?key=k").status == 200
    refused = service.get("/?key=k")
    body = refused.json()
    assert refused.status == 429 and body["status"] == 429
    assert body["detail"] == body["error"]["message"] == f"{says} Try again in {body['retry_after']} s."
    assert body["error"]["code"] == code and body["error"]["type"] == "rate_limit_error"
    assert refused.headers["Retry-After"] == str(body["retry_after"])
    assert parse_list(refused.headers["RateLimit"]) == [("own", {"r": 0, "t": body["retry_after"]})]
    assert "documentation" not in body


@pytest.mark.parametrize("everywhere, own, told", [(None, None, [None, None]), ("/all", None, ["/all", "/all"]),
                                                   (None, "/own", ["/own", None]), ("/all", "/own", ["/own", "/all"])])
def test_the_operator_s_explanation_is_pointed_to(penstock, everywhere, own, told):
    service = penstock(http=f"""
        penstock_zone edge 1m;
        {f"penstock_docs https://example.com{everywhere};" if everywhere else ""}
        penstock_tier free {{ rate 1r/h; quota 1r/M; {f"penstock_docs https://example.com{own};" if own else ""} }}""", server="""
        location /plan { penstock_limit zone=edge key=$arg_key tier=free; empty_gif; }
        location /site { penstock_limit zone=edge key=$arg_key rate=1r/h name=site; empty_gif; }
        location /site2 { penstock_limit zone=edge key=$arg_key rate=1r/h name=x; penstock_limit zone=edge key=$arg_key rate=1r/h name=y; empty_gif; }""")
    for path, docs in zip(("/plan?key=k", "/site?key=k", "/site2?key=k"), told + told[1:]):
        service.get(path)
        body = service.get(path).json()
        assert body.get("documentation") == (f"https://example.com{docs}" if docs else None)


def test_an_explanation_may_stand_below_the_limits(penstock):
    service = penstock(http="penstock_zone edge 1m; penstock_limit zone=edge key=$arg_key rate=1r/h name=site; "
                            "penstock_docs https://example.com;", server="location / { empty_gif; }")
    service.get("/?key=k")
    assert service.get("/?key=k").json()["documentation"] == "https://example.com"


def test_an_explanation_is_told_as_it_was_written(penstock):
    docs = 'https://example.com/plans?a=b&c="d"\\e'
    service = penstock(http=f"penstock_docs '{docs}';" + FREE, server=LOCATION)
    service.statuses(5, "/?key=k")
    assert service.get("/?key=k").json()["documentation"] == docs


def test_several_reasons_are_told_by_the_one_to_wait_for_longest(penstock):
    service = penstock(http="penstock_zone edge 1m;\npenstock_tier free { rate 1r/m; quota 1r/M; concurrency 1; }", server="""
        location / { penstock_limit zone=edge key=$arg_key tier=free; empty_gif; }""")
    service.get("/?key=k")
    refused = service.get("/?key=k")
    assert refused.json()["error"]["code"] == ("quota_exceeded" if int(refused.headers["Retry-After"]) > 60 else "rate_limit_exceeded")
    assert refused.json()["violated-policies"] == ["free-rate", "free-quota-M"]
    assert [name for name, _ in parse_list(refused.headers["RateLimit-Policy"])] == ["free-rate", "free-quota-M"]
