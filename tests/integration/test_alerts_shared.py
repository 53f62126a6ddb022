"""Alerts and the dashboard of queues that hosts share."""

import json
from pathlib import Path

import pytest

from monitoring import Monitoring
from redis_groups import Watched
from shared_hosts import HTTP, SERVER, ask, host, promise, redis, until_known, worker  # noqa: F401 (fixtures)
from waiting import until

METRICS = SERVER + "location = /metrics { penstock_metrics gpu; }\n"
BOARD = json.loads((Path(__file__).parents[2] / "config" / "grafana" / "penstock-shared.json").read_text())


@pytest.fixture
def watch():
    monitorings = []

    def build(service):
        monitorings.append(Monitoring(service.folder, service.port))
        return monitorings[-1]
    yield build
    for each in monitorings:
        each.close()


def test_every_query_of_its_dashboard_has_an_answer(host, watch):  # noqa: F811
    service = host(worker(), server=METRICS)
    until_known(service)
    eyes = watch(service)
    until(lambda: promise(service) and not eyes.unanswered(BOARD), lambda: f"all are answered, not {eyes.unanswered(BOARD)}", 60)
    (queue,) = [each for each in BOARD["templating"]["list"] if each["name"] == "queue"]
    assert queue["definition"] == "label_values(penstock_shared_hosts, queue)"
    assert eyes.label_values("queue", "penstock_shared_hosts") == ["default"]


# ---- alerts, end to end


def test_a_redis_that_is_away_or_keeps_less_is_told_of(host, redis, watch):  # noqa: F811
    service = host(worker(), server=METRICS)
    until_known(service)
    eyes = watch(service)

    def flushes(when):
        redis.ask("CONFIG", "SET", "appendfsync", when)
        for kind in ("pubsub", "normal"):  # whoever connects anew looks
            redis.ask("CLIENT", "KILL", "TYPE", kind)
    flushes("everysec")
    eyes.until_fire("PenstockSharedPromiseWeak", meanwhile=lambda: ask(service))
    flushes("always")
    eyes.until_over("PenstockSharedPromiseWeak", meanwhile=lambda: ask(service))
    redis.kill()
    eyes.until_fire("PenstockSharedRedisAway")
    redis.start()
    eyes.until_over("PenstockSharedRedisAway")


def test_a_redis_that_was_never_there_is_told_of_as_well(host, redis, watch):  # noqa: F811
    redis.kill()
    eyes = watch(host(worker(), server=METRICS))
    eyes.until_fire("PenstockSharedRedisAway")
    redis.start()
    eyes.until_over("PenstockSharedRedisAway")


def test_replicas_that_do_not_acknowledge_are_told_of(penstock, watch):
    group = Watched()
    try:
        sentinels = ",".join(f"127.0.0.1:{each.port}" for each in group.sentinels)
        service = penstock(http=HTTP, server=METRICS, workers=[worker()], queue={"shared": "true"},
                           yaml=f'redis: {{ url: "redis://{sentinels}", sentinel: main, promise: "replicas:1" }}\nstate: state\ndrain_timeout: 1s\n')
        until_known(service)
        eyes = watch(service)
        until(lambda: eyes.query("penstock_shared_unacknowledged_total"), "the stack is seen")
        (replica,) = [server for server in group.servers if server is not group.master]
        replica.stop_answering()
        try:
            eyes.until_fire("PenstockSharedUnacknowledged", meanwhile=lambda: ask(service))
        finally:
            replica.go_on()
        eyes.until_over("PenstockSharedUnacknowledged")
    finally:
        group.close()
