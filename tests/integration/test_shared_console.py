"""What the operator is shown of a key's shared limits, and resets: on one host, of all."""

import subprocess

import pytest

from hosts import PATIENT, counted, until_they_know_each_other
from processes import BUILD
from waiting import until

KEY = "Bearer sk-0123456789abcdefghij"
LIMITS = ["rate=4r/h", "rate=4r/h algorithm=leaky_bucket burst=4", "quota=4r/d", "rate=4r/d algorithm=sliding_window", "rate=4r/h algorithm=sliding_log"]


@pytest.fixture
def hosts(penstock, redis):
    def build(limit, options=PATIENT):
        services = [penstock(http=f"penstock_zone edge 1m redis={redis.address} {options};", server=f"""
            location / {{ penstock_limit zone=edge key=$http_authorization {limit} name=a;
                          penstock_limit zone=edge key=$http_authorization rate=9r/h name=own shared=off; empty_gif; }}
            location /console/ {{ penstock_console; }}
            location = /metrics {{ penstock_metrics; }}""") for _ in range(2)]
        until_they_know_each_other(services)
        return services
    return build


def ctl(service, *arguments):
    done = subprocess.run([BUILD / "penstockctl", "limits", KEY, *arguments, "--url", f"http://127.0.0.1:{service.port}/console"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def limits(service):
    return {row["name"]: row for row in service.get("/console/limits", Penstock_Key=KEY).json()["limits"]}


def use(service, count):
    return service.statuses(count, "/", Authorization=KEY)


@pytest.mark.parametrize("limit", LIMITS)
def test_each_host_shows_what_all_have_used(hosts, limit):
    first, second = hosts(limit)
    assert use(first, 3) == [200] * 3
    row = limits(second)["a"]
    assert (row["used"], row["remaining"], row["live"]) == (3, 1, True)
    assert (limits(first)["own"]["used"], limits(second)["own"]["used"]) == (3, 0)
    assert "edge" in ctl(second) and " own " not in ctl(second)
    assert use(second, 2) == [200, 429]
    assert limits(first)["a"]["remaining"] == 0


@pytest.mark.parametrize("limit", LIMITS)
def test_what_one_host_resets_is_reset_for_all(hosts, limit):
    first, second = hosts(limit)
    assert use(first, 2) + use(second, 3) == [200] * 4 + [429]
    assert use(first, 1) == [429]
    assert "reset a" in ctl(first, "reset")
    assert limits(first)["a"]["used"] == 0
    assert use(first, 1) == [200]
    for _ in range(3):  # the other hears of it, and brings nothing back
        until(lambda: use(second, 1) == [200], lambda: f"there are three more: {limits(second)}", 5)
    assert use(first, 1) + use(second, 1) == [429] * 2


def test_what_runs_is_shown_by_each_host_and_kept(hosts):
    first, second = hosts("concurrency=4")
    assert limits(second)["a"]["used"] == 0
    assert second.request("DELETE", "/console/limits", {"Penstock-Key": KEY}).json()["reset"] == []


def test_without_redis_a_host_shows_what_it_knows_and_resets_nothing(hosts, redis):
    first, second = hosts("quota=4r/d", "timeout=20ms")
    assert use(first, 3) == [200] * 3
    redis.stop_answering()
    until(lambda: not counted(first, "penstock_lease_up"), "it has given Redis up")
    assert limits(first)["a"]["used"] == 3
    refused = first.request("DELETE", "/console/limits", {"Penstock-Key": KEY})
    assert refused.status == 503 and "Redis" in refused.json()["detail"]
    redis.go_on()
    until(lambda: counted(first, "penstock_lease_up") and counted(second, "penstock_lease_up"), "Redis is back")
    assert limits(second)["a"]["used"] == 3


def test_while_redis_hangs_a_look_waits_no_longer_than_a_request(hosts, redis):
    first, _ = hosts("quota=4r/d", "timeout=20ms")
    assert use(first, 1) == [200]
    redis.stop_answering()
    assert limits(first)["a"]["used"] == 1
    redis.go_on()
