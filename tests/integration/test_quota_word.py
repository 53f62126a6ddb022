"""warn= on a quota: a word when a key has used much of it, and when it has used it up, once for each key and period."""

import json
import re

import pytest

from conftest import simulate
from test_webhooks import receiver  # noqa: F401 (a fixture)
from waiting import until

QUOTA = "penstock_limit zone=edge key=$arg_key quota=10r/M name=calls warn=80%;"
LINE = re.compile(r'\[notice\].*quota "(\S+)": key ([0-9a-f]{16}) has used (\d+) of (\d+) requests, (\d+) % were passed')


def words(service):
    """Of each line: limit, used, most, percent; and the keys' hashes."""
    found = LINE.findall(service.nginx.log())
    return [(limit, int(used), int(most), int(percent)) for limit, _, used, most, percent in found], [key for _, key, *_ in found]


def test_a_word_is_said_at_so_much_and_at_all_once_for_each_key(penstock):
    quota = QUOTA.replace("$arg_key", "$http_x_key")
    service = penstock(http="penstock_zone edge 1m;", server=f"location / {{ {quota} empty_gif; }}", processes=2)
    for key in "secret-a", "secret-b":
        assert [service.get("/", X_Key=key).status for _ in range(12)] == [200] * 10 + [429] * 2
    said, keys = words(service)
    assert said == 2 * [("calls", 8, 10, 80), ("calls", 10, 10, 100)]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    service.nginx.reload()
    assert service.get("/", X_Key="secret-a").status == 429
    assert words(service)[0] == said and "secret" not in service.nginx.log()


def test_whoever_is_refused_has_used_it_up(penstock):
    service = penstock(http="penstock_zone edge 1m;", server="""location / { penstock_cost t $arg_cost;
        penstock_limit zone=edge key=$arg_key quota=100t/M name=tokens warn=50%; empty_gif; }""")
    assert service.get("/?key=k&cost=40").status == 200
    assert 'quota "tokens"' not in service.nginx.log()
    assert service.get("/?key=k&cost=70").status == 429
    found = re.findall(r'quota "tokens": key \S+ has used (\d+) of (\d+) tokens, (\d+) %', service.nginx.log())
    assert found == [("40", "100", "100")]
    assert service.get("/?key=k&cost=20").status == 200, "who asks for less is let in"
    assert len(re.findall(r'quota "tokens"', service.nginx.log())) == 1


def test_hooks_hear_of_it_and_a_plan_has_it_too(penstock, receiver):  # noqa: F811
    here = receiver()
    hook = {"on": ["quota"], "url": here.url}
    service = penstock(
        http="penstock_zone edge 1m; penstock_tier free { quota 2r/d warn=50%; }",
        server="location /v1/ { penstock_limit zone=edge key=$arg_key tier=free; penstock_pass gpu; }",
        workers=[simulate(slots=1, service_time="1ms")], yaml=f"state: state\nnotify:\n  - {json.dumps(hook)}\n")
    for _ in range(3):
        service.complete("/v1/completions?key=secret")
    until(lambda: len(here.posts) == 2, "both are told")
    told = sorted((json.loads(body) for _, body in here.posts), key=lambda notice: notice["data"]["percent"])
    assert [notice["type"] for notice in told] == ["quota.reached"] * 2
    first, second = (notice["data"] for notice in told)
    assert (first["percent"], first["used"], first["most"]) == (50, 1, 2) and (second["percent"], second["used"]) == (100, 2)
    assert first["limit"] == "free-quota-d" and first["unit"] == "requests" and first["period"] == "d"
    assert first["resets_at"] - first["began_at"] == 86400 and first["key_hash"] == second["key_hash"]
    assert "secret" not in str(here.posts)


def test_a_template_has_the_quotas_fields(penstock, receiver):  # noqa: F811
    here = receiver()
    hook = {"on": ["quota"], "url": here.url, "json": {"text": "{{limit}} {{unit}}", "percent": "{{percent}}", "job": "{{id}}"}}
    service = penstock(http="penstock_zone edge 1m;", server=f"location /v1/ {{ {QUOTA.replace('10r', '1r')} penstock_pass gpu; }}",
                       workers=[simulate(slots=1, service_time="1ms")], yaml=f"state: state\nnotify:\n  - {json.dumps(hook)}\n")
    service.complete("/v1/completions?key=k")
    until(lambda: here.posts, "it is told")
    assert json.loads(here.posts[0][1]) == {"text": "calls requests", "percent": 100, "job": None}


@pytest.mark.parametrize("limit, words", [
    ("rate=10r/s warn=80%", "warn= belongs to a quota"), ("concurrency=3 warn=80%", "warn= belongs to a quota"),
    ("quota=10r/d warn=0%", "from 1% to 100%"), ("quota=10r/d warn=101%", "from 1% to 100%"), ("quota=10r/d warn=80", "from 1% to 100%")])
def test_a_warning_that_makes_no_sense_is_refused(penstock, limit, words):
    service = penstock(start=False, http="penstock_zone edge 1m;",
                       server=f"location / {{ penstock_limit zone=edge key=$arg_key name=a {limit}; empty_gif; }}")
    accepted, said = service.nginx.check()
    assert not accepted and words in said, said


def test_of_a_shared_quota_each_host_says_it_once(penstock, redis):
    shared = f"penstock_zone edge 1m redis={redis.address};"
    hosts = [penstock(http=shared, server=f"location / {{ {QUOTA} empty_gif; }}") for _ in range(2)]
    statuses = [hosts[i % 2].get("/?key=k").status for i in range(12)]
    assert statuses.count(200) == 10
    for host in hosts:
        said, _ = words(host)
        assert [percent for *_, percent in said] in ([80, 100], [100]), said
