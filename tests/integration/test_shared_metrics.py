"""What /metrics tells of promises that replicas acknowledge, before and after there are too few."""

import pytest

from redis_groups import Watched
from shared_hosts import ask, until_known, until_one_runs, worker, SLOW
from test_shared_cluster import METRICS, metric
from test_shared_promise import replica_of, sentinels
from waiting import until


@pytest.fixture
def watched():
    group = Watched()
    yield group
    group.close()


def told(service, name):
    return metric(service, f"penstock_shared_{name}", queue="default")


def test_how_replicas_acknowledge_is_told(watched, penstock):
    def host(*workers):
        return penstock(http="penstock_zone edge 1m; penstock_tier free { rate 1000r/s; concurrency 2; }", server=METRICS, workers=list(workers),
                        yaml=f"redis: {{ {sentinels(watched)}, promise: \"replicas:1\" }}\nstate: state\ndrain_timeout: 1s\n",
                        queue={"shared": "true"})
    edge, gpu = host(), host(worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    until(lambda: (told(edge, "acknowledged_replicas"), told(edge, "promise_kept")) == (1, 1), lambda: edge.get("/metrics").text())
    before = told(edge, "unacknowledged_total")  # as it began, it may have asked before the replica was known
    assert told(gpu, "acknowledged_replicas") == 0, "it has promised nothing"
    replica = replica_of(watched)
    replica.stop_answering()
    try:
        assert ask(edge).status == 503
        until(lambda: told(edge, "unacknowledged_total") > before, lambda: edge.get("/metrics").text())
        assert (told(edge, "acknowledged_replicas"), told(edge, "promise_kept")) == (0, 0)
    finally:
        replica.go_on()
    until(lambda: ask(edge).status == 202, "it promises again")
    until(lambda: (told(edge, "acknowledged_replicas"), told(edge, "promise_kept")) == (1, 1), lambda: edge.get("/metrics").text())
    after = told(edge, "unacknowledged_total")
    assert ask(edge).status == 202 and told(edge, "unacknowledged_total") == after
