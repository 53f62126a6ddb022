"""The ledger where hosts share a queue: the sum over the hosts is what the limits have charged, and each job is in it once."""

from conftest import simulate
from shared_hosts import HTTP, ask, host, in_line, job, post, promise, redis, until_known, until_one_runs, until_open, until_status, \
    worker  # noqa: F401 (host and redis are fixtures)
from test_operator import ctl, said  # noqa: F401 (fixtures)
from test_usage import SERVER as LIMITED, counted, rows, sum_of
from waiting import until

KEY = "ann"
PATH = f"/v1/completions?key={KEY}"
BODY = {"model": "sim", "prompt": "Tell me", "max_tokens": 8}
ASYNC = {"Prefer": "respond-async"}


def submit(service, **headers):
    reply = service.request("POST", PATH, {**ASYNC, **headers}, BODY)
    assert reply.status == 202, reply.body
    return reply.json()["id"]


def total(said, *hosts):
    return sum_of([row for service in hosts for row in rows(said, service, "--owner", KEY)])


def ends(said, *hosts):
    seen = total(said, *hosts)
    return {name: seen[name] for name in ("completed", "failed", "cancelled", "expired")}


def same_as_the_limits(said, edge, *hosts):
    """Only the edge's Nginx charges."""
    def same():
        seen = total(said, *hosts)
        return {name: seen[name] for name in ("requests", "tokens", "gpu_ms")} == counted(edge, KEY)
    until(same, lambda: f"the ledgers say {total(said, *hosts)}, the limits {counted(edge, KEY)}")


def test_a_job_is_counted_once_by_the_host_that_ran_it(host, said):
    edge, gpu = host(server=LIMITED), host(worker("5ms", slots=4))
    until_known(edge)
    until_open(edge)
    for _ in range(3):
        submit(edge)
        assert edge.request("POST", PATH, {}, BODY).status == 200
    until(lambda: ends(said, edge, gpu) == {"completed": 6, "failed": 0, "cancelled": 0, "expired": 0}, lambda: f"{ends(said, edge, gpu)} is six")
    assert rows(said, edge, "--owner", KEY) == [], "it ran none"
    same_as_the_limits(said, edge, edge, gpu)
    assert total(said, gpu)["tokens"] > 0


def test_a_job_that_is_cancelled_is_counted_by_the_host_that_cancelled_it(host, said):
    edge, gpu = host(server=LIMITED), host(worker("60s"))
    until_known(edge)
    until_one_runs(gpu)
    id = submit(edge)
    assert edge.request("DELETE", f"/jobs/{id}?key={KEY}").json()["status"] == "cancelled"
    until(lambda: ends(said, edge)["cancelled"] == 1, lambda: f"it is told by the edge: {ends(said, edge)}")
    same_as_the_limits(said, edge, edge, gpu)


def test_a_job_whose_host_was_killed_is_counted_once_by_the_next(host, said):
    edge, first = host(server=LIMITED), host(worker("60s"))
    until_known(edge)
    id = submit(edge)
    until_one_runs(first)
    second = host(worker("5ms", slots=4))
    first.penstockd.kill()
    until(lambda: edge.request("GET", f"/jobs/{id}?key={KEY}").json()["status"] == "completed", "another host runs it", 60)
    until(lambda: ends(said, edge, second)["completed"] == 1, lambda: f"{ends(said, edge, second)}")
    first.penstockd.start()
    until(lambda: rows(said, first, "--owner", KEY) == [], "the one that was killed has none of it")
    assert ends(said, edge, first, second)["completed"] == 1
    same_as_the_limits(said, edge, edge, first, second)
