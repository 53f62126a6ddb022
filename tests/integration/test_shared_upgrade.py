"""Hosts that share a queue, started anew one after the other under load, their Nginx reloaded meanwhile: what was promised ends once, and
who was refused was told so, and only by the host that was away."""

import http.client
import json
import os
import threading
import time
from pathlib import Path

import pytest

from client import Client
from processes import BUILD
from shared_hosts import ALICE, get, redis, until_known, until_open, until_status, worker  # noqa: F401 (redis is a fixture)
from test_shared_cluster import cluster, ctl, host, said  # noqa: F401 (host is a fixture)
from waiting import until
from wire import ASK, FAILED, TOOL, Connection, frame

NEXT = Path(os.environ.get("PENSTOCK_OTHER", BUILD / "penstockd_next"))  # or one of another release
WORK = "/v1/work"  # whose runs are logged with their bodies


class Load:
    """Callers of each service, one after the other on each thread: some have jobs promised, some wait. Of all that were not served it keeps
    whose service that was, when, and what they were told."""

    def __init__(self, services):
        self.ids, self.served, self.failed, self.never = {}, 0, [], 0
        self._goes_on, self._lock, self._services = True, threading.Lock(), services
        self._threads = [threading.Thread(target=self._run, args=(number, waits)) for number in range(len(services)) for waits in (False, True)]
        for thread in self._threads:
            thread.start()

    def _run(self, number, waits):
        count = 0
        while self._goes_on:
            count += 1
            key, began = f"{'waits' if waits else 'promised'}-{number}-{count}", time.monotonic()
            try:
                client = Client(self._services[number].port, timeout=30)
                reply = client.request("POST", WORK, {**ALICE, **({} if waits else {"Prefer": "respond-async"})}, {"model": "sim", "prompt": key})
                client.close()
                said, retry = reply.status, reply.headers["Retry-After"]
            except TimeoutError:
                said = retry = None
            except (OSError, http.client.HTTPException) as error:
                said, retry = repr(error), None
            with self._lock:
                if said == 202:
                    self.ids[key] = reply.json()["id"]
                elif said == 200:
                    self.served += 1
                elif said is None:
                    self.never += 1
                else:
                    self.failed.append((number, began, time.monotonic(), said, retry))
            time.sleep(0.01 if waits else 0.1)  # fewer than one host alone can do

    def more(self, count):
        ids, served = len(self.ids) + count, self.served + count
        until(lambda: len(self.ids) >= ids and self.served >= served, lambda: f"{count} more are promised, and served: {self.failed[-5:]}")

    def end(self):
        self._goes_on = False
        for thread in self._threads:
            thread.join()


@pytest.fixture
def hosts(host, folder):  # noqa: F811
    built = [host("edge")] + [host(name, worker("20ms", slots=2, run_log=folder / f"runs-{name}")) for name in ("gpu-1", "gpu-2")]
    for service in built:
        until_known(service)
        until_open(service)
    return built


def runs(folder):
    """How often each job was begun, by its key."""
    seen = {}
    for file in folder.glob("runs-*"):
        for line in file.read_text().splitlines():
            key = json.loads(line.split(" ", 1)[1]).get("prompt")
            seen[key] = seen.get(key, 0) + 1
    return seen


def start_anew(service, program):
    """While others serve. When it went, and when it was back."""
    began = time.monotonic()
    assert service.penstockd.stop() == 0
    service.penstockd.start_by([program, "-c", service.penstockd.config])
    until(service.penstockd._answers, "penstockd answers")
    until(lambda: get(service, "/v1/models").status == 200 and service.penstockd.queue(), "it is back")
    until_known(service)
    until_open(service)
    return began, time.monotonic()


def judge(load, away, hosts, folder):
    """Who was refused was told so, by a host that was away just then; what was promised has ended once, after one run."""
    assert load.never == 0
    for number, began, ended, told, retry in load.failed:
        assert any(who == number and gone - 0.5 <= ended and began <= back + 0.5 for who, gone, back in away), \
            f"host {number} was not away: {told} after {ended - began:.3f} s"
        assert told in (502, 503), told  # 502: nobody was there, or left in the middle
        assert told == 502 or int(retry) >= 1
    assert max(back - gone for _, gone, back in away) < 10, away  # drain_timeout is 1s
    assert all(until_status(hosts[0], id, "completed", 30)["attempts"] == 0 for id in load.ids.values())
    print(f"{len(load.ids)} promised, {load.served} served, not: {load.failed}")
    assert len(set(load.ids.values())) == len(load.ids)
    begun = runs(folder)
    assert all(begun[key] >= 1 for key in load.ids)
    twice = sum(begun[key] > 1 for key in load.ids)
    assert twice <= 2 * len(away), f"{twice} ran twice: more than hosts of two slots had when they were stopped"
    for key in list(load.ids)[::10]:
        assert get(hosts[1], f"/jobs/{load.ids[key]}/result").body == get(hosts[2], f"/jobs/{load.ids[key]}/result").body


def test_all_hosts_are_started_anew_one_after_the_other_and_who_was_not_served_was_told(hosts, folder, redis):  # noqa: F811
    before = len(redis.ask("KEYS", "penstock:q1:{default}:j|*"))
    load, away = Load(hosts), []
    load.more(10)
    for number, service in enumerate(hosts):
        away.append((number, *start_anew(service, BUILD / "penstockd")))
        load.more(10)
    load.end()
    judge(load, away, hosts, folder)
    assert before <= len(redis.ask("KEYS", "penstock:q1:{default}:j|*"))


def test_hosts_of_two_versions_serve_a_queue_together_and_one_goes_back(hosts, folder):
    """Each way: what runs on the one was let in by the other, and is told by both."""
    def versions():
        return [next(each["version"] for each in cluster(hosts[0])["hosts"] if each["name"] == name) for name in ("edge", "gpu-1", "gpu-2")]
    (old,) = set(versions())
    load, away, seen = Load(hosts), [], []
    load.more(10)
    for number, program in ((1, NEXT), (0, NEXT), (2, NEXT), (1, BUILD / "penstockd")):
        away.append((number, *start_anew(hosts[number], program)))
        load.more(10)
        seen.append([version == old for version in versions()])
        id = until_known(hosts[0])
        for service in hosts:
            until_status(service, id, "completed")
    load.end()
    assert seen == [[True, False, True], [False, False, True], [False, False, False], [False, True, False]]
    judge(load, away, hosts, folder)


def test_reloads_of_nginx_on_all_hosts_are_noticed_by_nobody(hosts):
    load = Load(hosts)
    for service in (*hosts, *hosts):
        load.more(5)
        service.nginx.reload()
    load.more(5)
    load.end()
    assert load.failed == [] and load.never == 0
    assert all(until_status(hosts[0], id, "completed", 30)["attempts"] == 0 for id in load.ids.values())


def test_a_host_that_is_drained_under_load_leaves_the_rest_to_the_others_and_takes_work_again(hosts):
    edge, first, second = hosts
    load = Load(hosts)
    load.more(10)
    said(first, "drain")
    until(lambda: first.penstockd.queue().running == 0, "what it had is done")
    load.more(20)
    said(first, "scale", "sim", "1")
    until(lambda: first.penstockd.queue().running > 0, "it takes work again")
    load.end()
    assert load.failed == [] and load.never == 0
    assert all(until_status(edge, id, "completed", 30)["attempts"] == 0 for id in load.ids.values())


def test_a_penstockd_whose_queues_are_shared_is_not_replaced_and_says_why(hosts):
    edge, gpu, _ = hosts
    for service in (edge, gpu):
        for words in (("upgrade", "--dry-run"), ("upgrade",)):
            refused = ctl(service, *words)
            assert refused.returncode == 1 and "queues are shared with other hosts" in refused.stderr, refused
        operator = Connection(service.penstockd.socket, role=TOOL)
        operator.send(frame(ASK, id=1, method="POST", path="/upgrade"))
        kind, _, fields = operator.receive_fields()
        operator.close()
        assert (kind, fields["status"]) == (FAILED, 409), fields
    id = until_known(edge)
    until_status(gpu, id, "completed")
