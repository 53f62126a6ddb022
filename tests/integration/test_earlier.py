"""The answer of an earlier request that asked the same, where there would be none: over a limit, and where the queue is busy."""

import re

from conftest import simulate
from test_actions import logged, with_log
from test_jobs import standing_still
from waiting import until

HTTP = "penstock_zone edge 1m;\n"
ALICE = {"Authorization": "alice"}
BOB = {"Authorization": "bob"}
ONE = "penstock_limit zone=edge key=$http_authorization rate=1r/h burst=1 name=one action=degrade degrade_to=earlier;"
SERVER = """\
penstock_owner $http_authorization;
location /v1/ { %s penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
location = /metrics { penstock_metrics gpu; }
"""


def start(penstock, inside, beside="", workers=None, **more):
    """A service whose location /v1/ has this inside, and an access log of the variables."""
    return with_log(penstock, HTTP, SERVER % inside + beside, workers=workers or [simulate(slots=1, service_time="1ms")],
                    yaml="state: state\n", **more)


def ask(service, who=ALICE, prompt="Tell me", **body):
    return service.complete(headers=who, prompt=prompt, **body)


def kept(service, who=ALICE):
    """Until an answer was written to disk, so that others may have it."""
    until(lambda: service.request("GET", "/jobs", who).json()["data"], "its answer is kept")


def statuses(service, count):
    """$penstock_status of the requests for answers, once there are so many."""
    return [line.split()[2] for line in logged(service, count) if line.startswith("/v1/")]


def counted(service, outcome):
    """How many requests the limit has made that of."""
    found = re.search(rf'^penstock_limit_requests_total{{[^}}]*limit="one"[^}}]*outcome="{outcome}"}} (\d+)$', service.get("/metrics").text(), re.M)
    return int(found[1]) if found else 0


def is_earlier(reply):
    return reply.status == 200 and reply.headers["Penstock-Degraded"] == "earlier" and reply.headers["Age"].isdigit()


def test_who_is_over_a_limit_gets_what_was_answered_before(penstock):
    service = start(penstock, ONE)
    first = ask(service)
    assert first.status == 200 and first.headers["Age"] is None and first.headers["Penstock-Degraded"] is None
    kept(service)
    again = ask(service)
    assert is_earlier(again) and again.body == first.body, again
    assert again.headers["Penstock-Job-Id"] == first.headers["Penstock-Job-Id"]
    assert again.headers["Content-Security-Policy"].startswith("sandbox") and again.headers["Retry-After"] is None
    until(lambda: statuses(service, 2) == ["PASSED", "DEGRADED"], "both are in the log")
    assert counted(service, "degraded") == 1 and counted(service, "rejected") == 0
    until(lambda: 'queue="default",event="earlier"} 1' in service.get("/metrics").text(), "penstockd counted it")


def test_where_none_was_kept_the_refusal_is_as_without(penstock):
    service = start(penstock, ONE)
    assert ask(service).status == 200
    refused = ask(service, prompt="Tell me more")
    assert refused.status == 429 and refused.headers["Penstock-Degraded"] is None
    assert int(refused.headers["Retry-After"]) > 3000 and refused.headers["retry-after-ms"].endswith("000")
    assert refused.headers["Content-Type"] == "application/problem+json" and refused.json()["violated-policies"] == ["one"]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded" and '"one";r=0' in refused.headers["RateLimit"]
    assert statuses(service, 2) == ["PASSED", "REJECTED"] and "limit=one" in logged(service, 2)[1]
    assert counted(service, "rejected") == 1 and counted(service, "degraded") == 0


def test_an_operators_error_page_has_the_word_where_none_was_kept(penstock):
    service = start(penstock, ONE + " error_page 429 = @later;", "location @later { return 200 later; }\n")
    assert ask(service).status == 200
    assert ask(service, prompt="Tell me more").body == b"later"


def test_it_costs_no_tokens_and_other_limits_still_count_it(penstock):
    both = ONE + """
        penstock_limit zone=edge key=$http_authorization rate=1000t/h burst=1000 name=tokens;
        penstock_limit zone=edge key=$http_authorization rate=3r/h burst=3 name=all;"""
    service = start(penstock, both)
    first = ask(service)
    kept(service)
    assert is_earlier(ask(service)) and is_earlier(ask(service))
    refused = ask(service)
    assert refused.status == 429 and "all" in refused.json()["violated-policies"], "three came, of three"
    left = int(first.headers["x-ratelimit-remaining-tokens"])
    assert first.status == 200 and left > 900, first


def test_nobody_sees_what_another_was_answered(penstock):
    service = start(penstock, ONE)
    assert ask(service).status == ask(service, BOB, prompt="mine").status == 200
    kept(service)
    kept(service, BOB)
    assert ask(service, BOB).status == 429
    assert is_earlier(ask(service, BOB, prompt="mine"))


def test_what_is_shared_all_may_have(penstock):
    service = start(penstock, "penstock_earlier shared max_age=1h; " + ONE)
    first = ask(service)
    kept(service)
    assert ask(service, BOB, prompt="mine").status == 200
    told = ask(service, BOB)
    assert is_earlier(told) and told.body == first.body and told.headers["Penstock-Job-Id"] is None


def test_who_is_nobody_has_none_of_its_own(penstock):
    service = start(penstock, ONE.replace("$http_authorization", "all"))
    assert service.complete().status == 200
    assert service.complete().status == 429


def test_a_stream_is_told_again_as_a_stream(penstock):
    service = start(penstock, ONE)
    first = ask(service, stream=True)
    kept(service)
    again = ask(service, stream=True)
    assert is_earlier(again) and again.body == first.body and again.headers["Content-Type"].startswith("text/event-stream")
    assert again.events()[-1] == "[DONE]"
    assert ask(service).status == 429, "a stream is another request"


def test_large_ones_come_from_their_file(penstock):
    service = start(penstock, ONE, workers=[simulate(slots=1, service_time="1ms", output_tokens=20000)])
    first = ask(service, max_tokens=20000)
    kept(service)
    assert len(first.body) > 1 << 16
    again = ask(service, max_tokens=20000)
    assert is_earlier(again) and again.body == first.body


def test_a_full_queue_gives_what_was_answered_before(penstock):
    service = start(penstock, "penstock_busy earlier;", queue={"max_length": 1})
    first = ask(service)
    kept(service)
    with standing_still(service):
        for _ in range(2):  # one runs, one waits
            assert service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"},
                                   {"model": "sim", "prompt": "fills", "max_tokens": 4}).status == 202
        until(lambda: ask(service, prompt="new").status == 503, "the queue is full")
        again = ask(service)
        assert is_earlier(again) and again.body == first.body
        assert ask(service, BOB).json()["error"]["code"] == "busy"
    assert "DEGRADED" in statuses(service, 3)


def test_a_wait_that_is_too_long_does_so_too(penstock):
    service = start(penstock, "penstock_busy earlier; penstock_max_wait 50ms;", workers=[simulate(slots=1, service_time="200ms")])
    first = ask(service)  # what a job takes is known now
    kept(service)
    for i in range(4):
        assert service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"},
                               {"model": "sim", "prompt": f"fills {i}", "max_tokens": 4}).status == 202
    again = ask(service)
    assert is_earlier(again) and again.body == first.body
    refused = ask(service, prompt="new")
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1


def test_they_are_there_after_a_restart(penstock):
    service = start(penstock, ONE)
    first = ask(service)
    kept(service)
    assert service.penstockd.stop() == 0
    service.penstockd.start()
    service.wait_for_workers(service.penstockd)
    until(lambda: is_earlier(ask(service)), "Nginx sees that it is back")
    assert ask(service).body == first.body


def test_without_a_penstockd_the_refusal_stands(penstock):
    service = start(penstock, ONE)
    assert ask(service).status == 200
    kept(service)
    assert service.penstockd.stop() == 0
    until(lambda: ask(service).status == 429, "nobody is there who could have kept it")
    service.penstockd.start()
