"""Promises of a shared queue that replicas keep (`promise: replicas:1`): nothing that was promised is lost as Redis fails over."""

import json
import re
import signal
import subprocess
import threading
import time

import pytest

from client import Client
from processes import BUILD, environment
from redis_groups import Cluster, Watched
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
        text += "" if "drain_timeout" in yaml else "drain_timeout: 1s\n"
        return penstock(http=HTTP, server=SERVER, workers=list(workers), yaml=text, queue={"shared": "true", **queue})
    return build


def sentinels(watched):
    return 'url: "redis://' + ",".join(f"127.0.0.1:{each.port}" for each in watched.sentinels) + '", sentinel: main'


def replica_of(watched):
    return next(server for server in watched.servers if server is not watched.master)


def until_replicated(watched):
    until(lambda: b"state=online" in watched.master.ask("INFO", "replication"), "there is a replica, and it has all")


def ctl(service, *arguments):
    return subprocess.run([BUILD / "penstockctl", *arguments, "-s", service.penstockd.socket], capture_output=True, text=True, timeout=30,
                          check=True, env=environment(service.folder)).stdout


def said(service):
    return service.penstockd.process.text()


def test_a_promise_is_in_a_replica_before_it_is_told(watched, host):
    edge, gpu = host(sentinels(watched)), host(sentinels(watched), worker(SLOW))
    until_known(edge)
    id = promise(edge).json()["id"]
    assert replica_of(watched).ask("EXISTS", f"penstock:q1:{{default}}:j|{id}") == 1


def test_where_too_few_replicas_acknowledge_nothing_is_promised_and_a_retry_joins(watched, host):
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
        told = ctl(edge, "status", "--cluster")
        assert re.search(r"a 202 of queue default says: 1 or more replicas have the job; .* ago: 0 acknowledged it", told), told
        all = json.loads(ctl(edge, "status", "--cluster", "--json"))
        assert all["redis"]["promise"] == {"by": "replicas", "replicas": 1, "servers": []}
        assert all["queues"][0]["acknowledged"]["failed"] >= 1, all
    finally:
        replica.go_on()
    ids = {until(lambda: (reply := ask(service, Idempotency_Key='"k1"')).status == 202 and reply, "it is promised").json()["id"]
           for service in (gpu, edge)}
    assert len(ids) == 1
    assert len(watched.master.ask("KEYS", "*j|*")) == before + 1
    assert json.loads(ctl(edge, "status", "--cluster", "--json"))["queues"][0]["acknowledged"]["replicas"] == 1
    assert "jobs are not promised: fewer than 1 replicas" in said(edge)


JOBS = 300


class Callers:
    """Each has a job promised, by a key of its own, and asks until it is: then it has its id."""

    def __init__(self, services, count, pause=0.0):
        self.ids, self.refused, self.others = {}, 0, []
        self._services, self._pause, self._lock = services, pause, threading.Lock()
        self._numbers = iter(range(count))
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while True:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            for turn in range(2000):
                reply = ask(self._services[(number + turn) % len(self._services)],
                            {**BODY, "prompt": f"Tell me {number}"}, Idempotency_Key=f'"{number}"')
                if reply.status == 202:
                    break
                with self._lock:
                    self.refused += 1
                    if reply.status != 503:
                        self.others.append((reply.status, reply.body))
                time.sleep(0.05)
            with self._lock:
                self.ids[number] = reply.json()["id"]
            time.sleep(self._pause)

    def join(self):
        for thread in self._threads:
            thread.join()
        return self


def fail_over(watched, how):
    """The master dies, or hangs, and comes back as a replica of the other."""
    old = watched.master
    until_replicated(watched)
    old.process.send_signal(how)
    until(lambda: watched.master is not old, "there is another master", 30)
    if how == signal.SIGKILL:
        old.kill()
        old.start()
    else:
        old.go_on()
    until(lambda: watched.is_replica(old), "the old one is a replica", 30)
    until_replicated(watched)


def test_what_was_promised_is_there_after_failovers_and_is_stored_once(watched, host):
    """The master is killed, and then the next one hangs, while callers have jobs promised and ask again where they are refused."""
    services = [host(sentinels(watched)), host(sentinels(watched), worker("2ms", slots=4))]
    for service in services:
        until_known(service)
    callers = Callers(services, JOBS, pause=0.05)
    time.sleep(0.5)
    for how in (signal.SIGKILL, signal.SIGSTOP):
        fail_over(watched, how)
    callers.join()
    assert callers.others == [] and callers.refused > 0
    assert len(set(callers.ids.values())) == JOBS  # each key is one job
    for number, id in callers.ids.items():
        until_status(services[number % 2], id, "completed", 30)
    assert len(watched.master.ask("KEYS", "*:k|*")) == JOBS


def test_what_a_new_master_has_not_heard_of_is_announced_again(watched, host):
    """All that was promised, and had not ended, is gone: the master comes back empty, and its replica with it."""
    edge, gpu = host(sentinels(watched)), host(sentinels(watched), worker("300ms"))
    until_known(edge)
    ids = [promise(edge, Idempotency_Key=f'"{number}"').json()["id"] for number in range(6)]
    until_status(gpu, ids[0], "completed")
    watched.master.ask("FLUSHALL")
    for id in ids:
        assert until_status(gpu, id, "completed", 30)
        assert get(edge, f"/jobs/{id}/result").status == 200
    assert promise(gpu, Idempotency_Key='"5"').json()["id"] == ids[5]
    assert "it is in line again" in said(edge)


def test_who_watches_a_job_that_is_announced_again_hears_of_its_end_alone(watched, host):
    edge, gpu = host(sentinels(watched)), host(sentinels(watched), worker("700ms"))
    until_known(edge)
    ids = [promise(edge).json()["id"] for _ in range(4)]
    watchers = [Client(edge.port, timeout=60).stream("GET", f"/jobs/{id}/events", ALICE) for id in ids]
    watched.master.ask("FLUSHALL")
    for events in watchers:
        text = events.rest().decode()
        assert "event: completed" in text and "event: failed" not in text, text


def test_a_host_takes_what_it_has_let_in_once_though_the_replicas_are_still_waited_for(watched, host):
    gpu = host(sentinels(watched), worker(slots=4))
    until_known(gpu)
    ids = [promise(gpu).json()["id"] for _ in range(8)]
    for id in ids:
        until_status(gpu, id, "completed")
    assert int(watched.master.ask("HGET", "penstock:q1:{default}:s", "k")) == len(ids) + 1


def test_what_was_promised_is_announced_by_a_host_that_was_started_anew(watched, host):
    edge, gpu = host(sentinels(watched)), host(sentinels(watched), worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    id = promise(edge).json()["id"]
    edge.penstockd.kill()
    watched.master.ask("FLUSHALL")
    gpu.penstockd.kill()
    edge.penstockd.start()
    assert until(lambda: (seen := job(edge, id)).get("status") == "queued" and seen, "it is in line again")


def test_an_end_that_was_told_holds_though_redis_has_lost_it(watched, host):
    edge, gpu = host(sentinels(watched)), host(sentinels(watched), worker("300ms"))
    until_known(edge)
    id = promise(edge).json()["id"]
    cancelled = promise(edge).json()["id"]
    last = promise(edge).json()["id"]
    before = until_status(edge, id, "completed")
    result = get(edge, f"/jobs/{id}/result").body
    assert edge.request("DELETE", f"/jobs/{cancelled}", ALICE).json()["status"] == "cancelled"
    watched.master.ask("FLUSHALL")
    until_status(edge, last, "completed", 30)
    assert job(gpu, id) == before and get(gpu, f"/jobs/{id}/result").body == result
    assert job(gpu, cancelled)["status"] == "cancelled"
    assert "Redis had lost the ends" in said(gpu) + said(edge)


# ---- a cluster

@pytest.fixture
def cluster():
    """Three masters, and a replica of each."""
    group = Cluster(count=6)
    group.add_replicas()
    yield group
    group.close()


def of_cluster(cluster):
    return 'url: "redis://' + ",".join(f"127.0.0.1:{server.port}" for server in cluster.servers[:3]) + '"'


def test_a_queue_is_shared_by_a_cluster_and_follows_its_slot(cluster, host):
    """Promised, run and answered for; and again by the replica, once the master that has the queue is killed."""
    edge, gpu = host(of_cluster(cluster)), host(of_cluster(cluster), worker())
    until_known(edge)
    first = promise(edge, Idempotency_Key='"1"').json()["id"]
    assert until_status(edge, first, "completed")
    assert promise(gpu, Idempotency_Key='"1"').json()["id"] == first
    slot = cluster.slot("penstock:q1:{default}:s")
    old = cluster.owner(slot)
    old.kill()
    alive = next(server for server in cluster.servers if server is not old)
    until(lambda: any(low <= slot <= high and master[1] != old.port for low, high, master, *_ in alive.ask("CLUSTER", "SLOTS")),
          "its replica has its slots", 30)
    old.start()  # as a replica of that: nothing is promised without one
    second = until(lambda: (reply := ask(edge)).status == 202 and reply, "it is promised", 30).json()["id"]
    for id in (first, second):
        for service in (edge, gpu):
            assert until_status(service, id, "completed", 30)
