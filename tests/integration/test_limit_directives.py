"""What an operator says of limits: where they end, which pages they hold for, what is logged, which answers tell of them."""

import re

import pytest

from scripted import answer
from waiting import until

ZONE = "penstock_zone edge 1m;"
INHERITED = "penstock_limit zone=edge key=$arg_key rate=1r/h name=calls;"


# --- penstock_limit off

def test_off_ends_what_was_inherited(penstock):
    service = penstock(http=ZONE, server=INHERITED + """
        location / { empty_gif; }
        location /free { penstock_limit off; empty_gif; location /free/not { %s empty_gif; } }""" % INHERITED.replace("calls", "again"))
    assert service.statuses(3, "/?key=k") == [200, 429, 429]
    assert service.statuses(3, "/free?key=k") == [200] * 3
    assert service.statuses(2, "/free/not?key=k") == [200, 429]


@pytest.mark.parametrize("lines", ["penstock_limit off; " + INHERITED, INHERITED + " penstock_limit off;", "penstock_limit off; penstock_limit off;"])
def test_off_stands_alone(penstock, lines):
    service = penstock(start=False, http=ZONE, server=f"location / {{ {lines} }}")
    accepted, said = service.nginx.check()
    assert not accepted and "stands alone in its place" in said


# --- Pages

def test_quota_can_be_limited_itself(penstock):
    service = penstock(http=ZONE, server=INHERITED + """
        location / { empty_gif; }
        location = /quota { penstock_quota; penstock_limit zone=edge key=$remote_addr rate=3r/h name=asking pages=on; }
        location = /metrics { penstock_metrics; penstock_limit zone=edge key=all rate=1r/h name=scrapes pages=on; }""")
    answers = [service.get("/quota?key=k") for _ in range(4)]
    assert [one.status for one in answers] == [200, 200, 200, 429]
    assert [limit["name"] for limit in answers[0].json()["limits"]] == ["calls"]  # it tells of the callers' own
    assert answers[2].json()["limits"][0]["remaining"] == 1  # and costs nothing there
    assert answers[3].json()["violated-policies"] == ["asking"]
    assert service.statuses(2, "/metrics") == [200, 429]


def test_a_limit_that_shows_and_refuses_nothing_says_how_it_would(penstock):
    service = penstock(start=False, http=ZONE, server=f"location /metrics {{ penstock_metrics; {INHERITED} }}")
    accepted, said = service.nginx.check()
    assert not accepted and "pages=on" in said


# --- The error log

def refusals(service):
    return re.findall(r"\[(\w+)\][^\n]* (limiting request: [^\n]*)", service.nginx.log())


def test_a_refusal_is_a_line_of_the_error_log_without_the_key(penstock):
    service = penstock(http=ZONE + "penstock_tier free { rate 1r/h; }",
                       server="location / { penstock_limit zone=edge key=$http_x_key tier=free; empty_gif; }")
    for _ in range(2):
        service.get("/", X_Key="secret-1")
    ((level, line),) = refusals(service)
    assert level == "error"
    assert re.match(r'limiting request: 429 by "free-rate", plan "free", retry after 3[56]\d\d s, client: 127.0.0.1', line), line
    assert "secret" not in service.nginx.log()


@pytest.mark.parametrize("level", ["warn", "notice", "info", "off"])
def test_its_level_is_the_operators(penstock, level):
    service = penstock(http=ZONE, server=f"penstock_log_level {level}; location / {{ {INHERITED} empty_gif; }}")
    service.statuses(2, "/?key=k")
    assert [seen for seen, _ in refusals(service)] == ([] if level == "off" else [level])


def test_a_flood_of_refusals_is_no_flood_of_lines(penstock):
    service = penstock(http=ZONE, server=f"location / {{ {INHERITED} empty_gif; }}")
    client = service.client()

    def told():
        """Refused, and accounted for: by a line, or by a later one's count."""
        assert client.request("GET", "/?key=k").status in (200, 429)
        lines = refusals(service)
        return lines if any("more were not logged" in line for _, line in lines) else None
    lines = until(told, "what was left out is counted")
    counted = sum(int(more) for _, line in lines for more in re.findall(r"(\d+) more were not logged", line))
    assert counted > 0 and "429" in lines[0][1]


# --- Headers

@pytest.mark.parametrize("on, told", [("on", (True, True)), ("refused", (False, True)), ("off", (False, False))])
def test_which_answers_tell_of_limits_is_the_operators(penstock, on, told):
    service = penstock(http=ZONE, server=f"penstock_headers {on}; location / {{ {INHERITED} empty_gif; }}")
    passed, refused = [service.get("/?key=k") for _ in range(2)]
    assert (passed.status, refused.status) == (200, 429)
    for answered, expected in zip((passed, refused), told):
        names = [name.lower() for name in answered.headers]
        assert ("ratelimit" in names, "ratelimit-policy" in names, any(name.startswith("x-ratelimit-") for name in names)) == (expected,) * 3
    assert int(refused.headers["Retry-After"]) > 0


# --- Methods

def test_405_says_what_is_allowed(penstock):
    service = penstock(http=ZONE, workers=[], server="""
        location / { penstock_pass gpu; if ($request_method = PUT) { return 405; } }
        location /jobs { penstock_jobs gpu; }
        location = /quota { penstock_quota; }""")
    for path, method, allowed in (("/", "PUT", "GET, HEAD, POST"), ("/jobs", "POST", "GET, HEAD"), ("/quota", "POST", "GET, HEAD")):
        refused = service.request(method, path)
        assert refused.status == 405 and refused.headers["Allow"] == allowed
        assert refused.json()["error"]["code"] == "method_not_allowed"


# --- Variables

@pytest.mark.parametrize("limit", [
    "key=id:$request_id rate=1r/h name=each",
    'key="$penstock_model:$request_id" rate=1r/h name=each',  # read with one that hangs on the body, after it
    'key="$by_model:$by_id" rate=1r/h name=each',
    "key=$by_model tier=$plan_by_id",
])
def test_a_variable_that_hangs_on_nothing_of_the_body_is_evaluated_once(penstock, limit):
    """$request_id is another one each time that it is evaluated; the debug log shows what goes into a value."""
    service = penstock(start=False, http=ZONE + """
        penstock_tier free { rate 1r/h; }
        map $penstock_model $by_model { default "$penstock_model!"; }
        map "id:$request_id" $by_id { default $request_id; }
        map "id:$request_id" $plan_by_id { default free; }""", server=f"""
        location / {{
            penstock_limit zone=edge {limit};
            penstock_limit zone=edge key=$by_model rate=1r/h name=model;
            add_header X-Model $by_model always;
            add_header X-Id "id:$request_id" always;
            empty_gif;
        }}""")
    service.nginx.write_config(service.nginx.config.read_text().replace("error.log info;", "error.log debug;"))
    service.start()
    answer = service.request("POST", "/", None, {"model": "m"})
    assert answer.headers["X-Model"] == "m!"
    ids = re.findall(r'http (?:script var|map started): "(?:id:|[^":]*:)?([0-9a-f]{32})"', service.nginx.log())
    assert ids and set(ids) == {answer.headers["X-Id"].removeprefix("id:")}


def test_the_debug_log_tells_the_way_of_a_request(peer, edge):
    service = edge(peer("a", answer(b"hi")), server=f"location / {{ {INHERITED} penstock_pass a; }}", start=False)
    service.nginx.write_config(service.nginx.config.read_text().replace("error.log info;", "error.log debug;"))
    service.start()
    assert service.request("POST", "/?key=k", None, {}).status == 200
    until(lambda: re.findall(r"\[debug\][^\n]* penstock (judged|charged|hands over|settles)", service.nginx.log())
          == ["judged", "charged", "hands over", "settles"], "all four are told")
