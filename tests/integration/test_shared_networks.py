"""Hosts that share a queue, each in a network of its own (a namespace), with nothing but Redis in common: one edge, one with workers, one
with both."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import simulate
from namespaces import namespaces
from shared_hosts import ALICE, BODY, LEASE
from test_shared_partition import SERVER, redis  # noqa: F401 (a fixture)
from waiting import until


@pytest.fixture
def networks():
    with namespaces(3) as made:
        yield made


class Inside:
    """A host that is asked from its own network."""

    def __init__(self, service, network):
        self.service, self.network = service, network
        with network.entered():
            service.start()

    def request(self, method, path, headers=None, body=None):
        with self.network.entered():
            return self.service.request(method, path, {**ALICE, **(headers or {})}, body)

    def ask(self, **headers):
        return self.request("POST", "/v1/completions", {name.replace("_", "-"): value for name, value in headers.items()}, BODY)

    def job(self, id):
        return self.request("GET", f"/jobs/{id}").json()

    def running(self):
        return self.service.penstockd.queue().running


@pytest.fixture
def host(penstock, redis, networks):  # noqa: F811
    left = list(networks)

    def build(*workers):
        network = left.pop()
        return Inside(penstock(start=False, server=SERVER, workers=list(workers), queue={"shared": "true"},
                               yaml=f'redis: {{ url: "redis://{network.here}:{redis.port}" }}\nstate: state\n'), network)
    return build


def worker(service_time):
    return simulate(slots=1, service_time=service_time)


def until_promised(service):
    return until(lambda: (reply := service.ask(Prefer="respond-async")).status == 202 and reply, "it is promised", LEASE + 15).json()["id"]


def until_completed(service, id):
    until(lambda: service.job(id)["status"] == "completed", lambda: f"{id} is completed: {service.job(id)}", LEASE + 15)


def test_hosts_that_reach_nothing_but_redis_are_one_queue(host):
    edge, gpu, both = host(), host(worker("100ms")), host(worker("100ms"))
    ids = [until_promised(edge), *(until_promised(service) for service in (both, edge, both, edge))]
    for id in ids:
        for service in (both, edge, gpu):
            until_completed(service, id)
            assert service.request("GET", f"/jobs/{id}/result").status == 200
    until(lambda: edge.ask().status == 200, "the edge lets callers wait")
    with ThreadPoolExecutor() as pool:  # three at once: both hosts with workers have one
        assert [each.result().status for each in [pool.submit(edge.ask) for _ in range(3)]] == [200] * 3


def test_an_edge_that_is_cut_off_says_so_and_its_jobs_go_on(host):
    edge, gpu, other = host(), host(worker("1s")), host()
    until_completed(edge, until_promised(edge))
    id = until_promised(edge)
    until(lambda: gpu.running() == 1, "it runs")
    edge.network.pull()
    try:
        refused = until(lambda: (reply := edge.ask(Prefer="respond-async")).status == 503 and reply, "it is refused")
        assert int(refused.headers["Retry-After"]) >= 1
        assert edge.request("GET", f"/jobs/{id}").status == 503
        until_completed(other, id)
        last = until_promised(other)
    finally:
        edge.network.plug_in()
    for each in (id, last):
        until(lambda: edge.request("GET", f"/jobs/{each}").status == 200, "it is back", LEASE + 15)
        until_completed(edge, each)
    until_completed(other, until_promised(edge))
