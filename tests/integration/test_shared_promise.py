"""Promises of a shared queue that replicas keep (`promise: replicas:1`): nothing that was promised is lost as Redis fails over."""

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from redis_groups import Cluster, Watched
from redis_server import RedisServer
from shared_hosts import ALICE, BODY, HTTP, SERVER, SLOW, ask, get, job, promise, until_known, until_one_runs, until_status, worker
from waiting import until


@pytest.fixture
def watched():
    group = Watched()
    yield group
    group.close()


@pytest.fixture
def host(penstock):
    def build(redis, *workers, promise="replicas:1", yaml="", **queue):
        text = f"redis: {{ {redis}, promise: \"{promise}\" }}\nstate: state\n" + yaml
        return penstock(http=HTTP, server=SERVER, workers=list(workers), yaml=text, queue={"shared": "true", **queue})
    return build


def sentinels(watched):
    return 'url: "redis://' + ",".join(f"127.0.0.1:{each.port}" for each in watched.sentinels) + '", sentinel: main'


def replica_of(watched):
    return next(server for server in watched.servers if server is not watched.master)


def until_replicated(watched):
    until(lambda: b"connected_slaves:1" in watched.master.ask("INFO", "replication"), "there is a replica")


def said(service):
    return service.penstockd.process.text()


def test_a_promise_is_in_a_replica_before_it_is_told(host, watched):
    edge, gpu = host(sentinels(watched)), host(sentinels(watched), worker(SLOW))
    until_known(edge)
    id = promise(edge).json()["id"]
    assert replica_of(watched).ask("EXISTS", f"penstock:q1:{{default}}:j|{id}") == 1


def test_where_too_few_replicas_acknowledge_nothing_is_promised_and_a_retry_joins(host, watched):
    edge, gpu = host(sentinels(watched)), host(sentinels(watched), worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    replica = replica_of(watched)
    replica.stop_answering()
    try:
        before = len(watched.master.ask("KEYS", "*j|*"))
        refused = ask(edge, Idempotency_Key='"k1"')
        assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1, refused.body
        assert "replicas" in refused.json()["error"]["message"]
        assert len(watched.master.ask("KEYS", "*j|*")) == before + 1  # it may be there all the same
        for service in (edge, gpu):  # and who asks again is told the same, from whichever host
            assert ask(service, Idempotency_Key='"k1"').status == 503
    finally:
        replica.go_on()
    ids = {until(lambda: (reply := ask(service, Idempotency_Key='"k1"')).status == 202 and reply, "it is promised").json()["id"]
           for service in (gpu, edge)}
    assert len(ids) == 1
    assert len(watched.master.ask("KEYS", "*j|*")) == before + 1
    assert "jobs are not promised: fewer than 1 replicas" in said(edge)
