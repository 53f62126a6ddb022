"""Hosts that share a queue, as one: what each knows of all, orders that hold for all, and hosts that come and go."""

import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from processes import BUILD, environment
from shared_hosts import ALICE, BODY, HTTP, LEASE, SERVER, SLOW, get, job, post, promise, redis, until_known, \
    until_one_runs, until_status, worker  # noqa: F401 (redis is a fixture)
from waiting import until

METRICS = SERVER + "location = /metrics { penstock_metrics gpu; }\n"


@pytest.fixture
def host(penstock, redis):
    """A host by its name."""
    def build(name, *workers, yaml="", start=True, ready=True, keep_results="1h", **queue):
        text = f'redis: {{ url: "unix:{redis.socket}", host: {name} }}\nstate: state\n{yaml}'
        text += "" if "drain_timeout" in yaml else "drain_timeout: 1s\n"
        return penstock(http=HTTP, server=METRICS, workers=list(workers), yaml=text, start=start, ready=ready,
                        queue={"shared": "true", "keep_results": keep_results, **queue})
    return build


def ctl(service, *arguments):
    done = subprocess.run([BUILD / "penstockctl", *arguments, "-s", service.penstockd.socket], capture_output=True, text=True, timeout=30,
                          env=environment(service.folder))
    return done


def said(service, *arguments):
    done = ctl(service, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def cluster(service):
    return said(service, "status", "--cluster", "--json")


def host_named(service, name):
    return next((each for each in cluster(service)["hosts"] if each["name"] == name), None)


def paused(service):
    return json.loads(service.penstockd.status())["queues"][0]["paused"]


def stop(service):
    assert service.penstockd.stop() == 0
    service.penstockd.expect_death = True


def metric(service, name, **labels):
    """Its value where it has these labels and any socket."""
    text = service.get("/metrics").text()
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}{{(.*)}} (\S+)", line)
        if found and all(f'{label}="{value}"' in found[1] for label, value in labels.items()):
            return float(found[2])
    return None


# ---- what a 202 says

def test_all_are_told_what_a_202_says_now(host, redis):
    edge = host("edge", worker())
    until_known(edge)
    until(lambda: "a 202 says: Redis at" in said(edge, "status", "--cluster"), "it was looked at")
    assert "has the job on its disk (appendonly yes, appendfsync always)" in said(edge, "status", "--cluster")
    told = cluster(edge)["redis"]["promise"]
    assert told["by"] == "fsync" and [each["appendfsync"] for each in told["servers"]] == ["always"], told
    until(lambda: metric(edge, "penstock_shared_promise_kept", queue="default") == 1, "the metric")
    redis.ask("CONFIG", "SET", "appendfsync", "everysec")
    redis.ask("CLIENT", "KILL", "TYPE", "normal")  # who comes back looks again
    until(lambda: "(appendfsync everysec): a 202 holds unless its machine loses power within 2 s" in said(edge, "status", "--cluster"), "it is told")
    until(lambda: metric(edge, "penstock_shared_promise_kept", queue="default") == 0, "the metric")


# ---- pause

def test_a_queue_that_is_paused_on_one_host_is_paused_on_all(host):
    edge, first, second = host("edge"), host("gpu-1", worker()), host("gpu-2", worker())
    until_known(edge)
    until(lambda: len(cluster(second)["hosts"]) == 3, "all are known")
    said(edge, "pause", "default")
    for service in (first, second):
        until(lambda: paused(service), "it is told", 2)
        assert "paused" in said(service, "status", "--cluster")
    id = promise(first).json()["id"]
    waiting = promise(edge).json()
    assert waiting["eta_reason"] == "paused" and waiting["eta_seconds"] is None
    assert all(service.penstockd.queue().running == 0 for service in (first, second))
    assert job(second, id)["status"] == "queued"
    said(second, "resume", "default")
    until_status(edge, id, "completed")
    for service in (edge, first):
        until(lambda: not paused(service), "it is told", 2)


def test_a_pause_outlives_the_host_that_was_told_and_holds_where_hosts_are_started(host):
    edge, gpu = host("edge"), host("gpu", worker())
    until_known(edge)
    said(gpu, "pause", "default")
    stop(gpu)
    gpu.penstockd.start()
    gpu.wait_for_workers(gpu.penstockd)
    late = host("late", worker())
    id = until_known(edge)
    for service in (gpu, late):
        until(lambda: paused(service), "it has heard")
    assert job(late, id)["status"] == "queued"
    said(edge, "resume", "default")
    until_status(edge, id, "completed")


def test_while_redis_is_away_nobody_says_that_a_queue_is_paused(host, redis):
    edge = host("edge", worker())
    until_known(edge)
    redis.stop_answering()
    try:
        refused = ctl(edge, "pause", "default")
        assert refused.returncode == 1 and "does not answer" in refused.stderr
        assert not paused(edge)
    finally:
        redis.go_on()


def test_how_long_results_are_kept_follows_a_reload(host, redis):
    gpu = host("gpu", worker())
    until_status(gpu, until_known(gpu), "completed")
    config = gpu.penstockd.config
    config.write_text(config.read_text().replace("keep_results: 1h", "keep_results: 2h"))
    gpu.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in gpu.penstockd.process.text(), "it is read")
    id = promise(gpu).json()["id"]
    until_status(gpu, id, "completed")
    assert redis.ask("PTTL", f"penstock:q1:{{default}}:j|{id}") > 3_600_000


# ---- what is known of all

def test_status_of_the_cluster_shows_all_hosts_from_each(host):
    edge, gpu = host("edge"), host("gpu", worker(SLOW, slots=2))
    until_known(edge)
    until_one_runs(gpu)
    for _ in range(3):
        promise(edge)
    for service in (edge, gpu):
        def whole():
            seen = cluster(service)
            queue, = seen["queues"]
            return {each["name"]: each["role"] for each in seen["hosts"]} == {"edge": "edge", "gpu": "worker"} \
                and (queue["waiting"], queue["scheduled"], queue["running"]) == (2, 0, 2) \
                and queue["models"][0]["running"] == 2 and seen
        seen = until(whole, lambda: f"all is seen; it is {cluster(service)}")
        assert seen["redis"]["reached"] and seen["gone"] == []
        queue, = seen["queues"]
        model, = queue["models"]
        assert (model["model"], model["waiting"], model["slots"], model["running"], model["workers"], model["ready"]) == \
            ("sim", 2, 2, 2, 1, 1)
        assert queue["heard_ms"] < 3000 and queue["renewed_ms"] < 3000 and queue["unsent"] == 0
        for each in seen["hosts"]:
            assert each["state"] == "serving" and each["version"] and each["up_seconds"] >= 0
            line, = each["queues"]
            assert line["lease"] and 0 < line["lease_ms"] <= LEASE * 1000
            assert line["running"] == (2 if each["name"] == "gpu" else 0)
    text = said(edge, "status", "--cluster")
    assert re.search(r"^gpu +worker +serving .* sim \(2 of 2 slots, 1 of 1 workers\)", text, re.M), text
    assert re.search(r"^edge +edge +serving ", text, re.M)


def test_a_host_alone_says_that_nothing_is_shared(penstock):
    service = penstock(workers=[worker()])
    assert said(service, "status", "--cluster") == "no queue of this host is shared\n"


def test_hosts_that_have_died_or_left_are_remembered_as_such(host):
    edge, lost, left = host("edge"), host("lost", worker(SLOW)), host("left")
    until_known(edge)
    until(lambda: len(cluster(edge)["hosts"]) == 3, "all are known")
    stop(left)
    until(lambda: [(each["name"], each["end"]) for each in cluster(edge)["gone"]] == [("left", "left")], "it has left", 3)
    until_one_runs(lost)
    lost.penstockd.kill()
    until(lambda: sorted((each["name"], each["end"]) for each in cluster(edge)["gone"]) == [("left", "left"), ("lost", "lost")],
          "it is lost", LEASE + 4)
    assert [each["name"] for each in cluster(edge)["hosts"]] == ["edge"]
    until(lambda: cluster(edge)["queues"][0]["reaped"] == 1, "its job is back in line", LEASE + 4)
    assert re.search(r"^lost .* lost +\d+ s ago", said(edge, "status", "--cluster"), re.M)


def test_metrics_tell_of_the_cluster(host):
    edge, gpu = host("edge"), host("gpu", worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    promise(edge)
    edge.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async", "Penstock-Delay": "3600"}, BODY)
    for service in (edge, gpu):
        def whole():
            return metric(service, "penstock_shared_hosts", queue="default") == 2 and [
                metric(service, "penstock_shared_jobs", queue="default", state=state)
                for state in ("waiting", "scheduled", "running")] == [1, 1, 1]
        until(whole, lambda: service.get("/metrics").text())
        assert metric(service, "penstock_shared_renewal_age_seconds") < 5
        requests, took = (metric(service, f"penstock_shared_request{name}_total") for name in ("s", "_seconds"))
        assert requests > 5 and 0 < took < requests
        assert 0 < metric(service, "penstock_shared_subscription_lag_seconds") < 5
        assert metric(service, "penstock_shared_unsent_ends") == metric(service, "penstock_shared_reaped_jobs_total") == 0
    alone = metric(edge, "penstock_queue_oldest_wait_seconds", queue="default")
    assert alone is not None and alone >= 0


# ---- hosts come and go

class Load:
    """Promises on some hosts, one after the other; all that were made."""

    def __init__(self, *services):
        self.ids, self.refused, self.services = [], 0, services
        self._goes_on = True
        self._threads = [threading.Thread(target=self._ask, args=(service,)) for service in services]
        for thread in self._threads:
            thread.start()

    def _ask(self, service):
        while self._goes_on:
            try:
                reply = post(service, {"Prefer": "respond-async"})
            except OSError:
                continue
            if reply.status == 202:
                self.ids.append(reply.json()["id"])
            else:
                assert reply.status in (502, 503), (reply.status, reply.body)  # its penstockd is started anew
                self.refused += 1
            time.sleep(0.01)

    def until(self, count):
        until(lambda: len(self.ids) >= count, f"{count} more were promised")

    def end(self):
        self._goes_on = False
        for thread in self._threads:
            thread.join()
        return self.ids


def attempts_of_all(service, ids, seconds=30):
    """Each has completed. How many attempts failed."""
    return sum(until_status(service, id, "completed", seconds)["attempts"] for id in ids)


def test_a_host_that_is_stopped_under_load_loses_no_job_and_no_attempt(host):
    edge, first, second = host("edge"), host("gpu-1", worker("30ms", slots=2), yaml="drain_timeout: 1s\n"), \
        host("gpu-2", worker("30ms", slots=2))
    until_known(edge)
    load = Load(edge, second)
    load.until(20)
    stop(first)
    load.until(len(load.ids) + 20)
    assert attempts_of_all(edge, load.end()) == 0
    assert load.refused == 0


@pytest.mark.parametrize("others, wait", [(True, "1"), (False, "5")])
def test_who_is_refused_by_a_host_that_stops_is_told_when_another_lets_it_in(host, others, wait):
    stopping = host("stopping", worker("3s"), yaml="drain_timeout: 20s\n")
    if others:
        until_known(host("stays"))
    until_known(stopping)
    until_one_runs(stopping)  # which it waits for
    stopping.penstockd.process.signal(signal.SIGTERM)
    until(lambda: post(stopping).status == 503, "it stops")
    reply = post(stopping)
    assert (reply.status, reply.headers["Retry-After"]) == (503, wait), reply.body
    assert stopping.penstockd.process.wait() == 0
    stopping.penstockd.expect_death = True


def test_workers_that_are_drained_leave_the_rest_to_other_hosts(host):
    edge, first, second = host("edge"), host("gpu-1", worker("30ms", slots=2)), host("gpu-2", worker("30ms", slots=2))
    until_known(edge)
    load = Load(edge, first)
    load.until(20)
    said(first, "drain")
    until(lambda: host_named(edge, "gpu-1")["queues"][0]["models"][0]["slots"] == 0, "it is known to have none")
    load.until(len(load.ids) + 20)
    assert attempts_of_all(first, load.end()) == 0
    assert load.refused == 0


def test_a_host_that_joins_takes_work_at_once(host):
    edge, slow = host("edge"), host("gpu-1", worker(SLOW))
    until_known(edge)
    until_one_runs(slow)
    ids = [promise(edge).json()["id"] for _ in range(5)]
    joined = host("gpu-2", worker(), start=False)
    joined.penstockd.start()
    joined.wait_for_workers(joined.penstockd)
    began = time.monotonic()
    for id in ids:
        until_status(edge, id, "completed")
    assert time.monotonic() - began < 3


# ---- what waits on a host is nobody else's

def runs(service, redis):
    """How many jobs Redis counts as the host's, whether they have begun or not."""
    lease = host_named(service, "gpu")["queues"][0]["lease"]
    return redis.ask("HLEN", f"penstock:q1:{{default}}:h|{lease}")


def test_two_models_on_one_device_take_one_job_for_one_free_slot(host, redis):
    both = (worker("3s", name="a", device=0), worker("3s", name="b", device=0))
    edge, gpu = host("edge"), host("gpu", *both, yaml="devices: { 0: { slots: 1 } }\n", ready=False)
    gpu.penstockd.wait_for(slots=1)
    until_status(edge, until_known(edge, "b"), "completed")
    said(edge, "pause", "default")
    ids = [promise(edge, {**BODY, "model": model}).json()["id"] for model in ("a", "b")]
    said(edge, "resume", "default")
    until_one_runs(gpu)

    def all_done():
        assert runs(gpu, redis) <= 1
        return {job(edge, id)["status"] for id in ids} == {"completed"}
    until(all_done, "both are done, one after the other", 30)


def test_a_suspect_whose_worker_does_not_come_back_is_run_elsewhere(penstock, host, redis):
    """Two ran when their worker was killed, so each is to be tried alone there; but nobody starts there any more."""
    edge = host("edge")
    gpu = host("gpu", worker(SLOW, slots=2), start=False, yaml="")
    binary = gpu.folder / "worker"
    binary.write_text(f"#!/bin/sh\n[ -e {gpu.folder}/broken ] && exit 1\nexec {BUILD}/penstock-worker \"$@\"\n")
    binary.chmod(0o755)
    config = gpu.penstockd.config
    config.write_text(config.read_text().replace(f"{BUILD}/penstock-worker", str(binary)).replace("worker_grace: 10s", "worker_grace: 1s"))
    gpu.start()
    ids = [until_known(edge), promise(edge).json()["id"]]
    until(lambda: gpu.penstockd.queue().running == 2, "both run")
    (gpu.folder / "broken").touch()
    for pid in gpu.penstockd.workers():
        os.kill(pid, signal.SIGKILL)
    host("other", worker())
    for id in ids:
        assert until_status(edge, id, "completed")["attempts"] == 1
    gpu.penstockd.expect_death = True
