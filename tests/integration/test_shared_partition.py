"""A shared queue whose hosts are in networks of their own: the way to Redis of one that runs jobs is cut."""

import pytest

from conftest import simulate
from namespaces import namespaces
from redis_server import RedisServer
from waiting import until

SERVER = """\
penstock_owner $http_authorization;
location /v1/ { penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
"""
ALICE = {"Authorization": "Bearer alice"}
LEASE = 8


@pytest.fixture
def network():
    with namespaces(1) as (made,):
        yield made


@pytest.fixture
def redis():
    server = RedisServer("--bind", "0.0.0.0", "--protected-mode", "no", "--appendonly", "yes", "--appendfsync", "always", tcp=True)
    yield server
    server.close()


@pytest.fixture
def host(penstock, redis):
    def build(*workers, address="127.0.0.1"):
        return penstock(start=False, server=SERVER, workers=list(workers), queue={"shared": "true"},
                        yaml=f'redis: {{ url: "redis://{address}:{redis.port}" }}\nstate: state\n')
    return build


def promise(service):
    reply = service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"}, {"model": "sim", "prompt": "a"})
    return reply.status == 202 and reply.json()["id"]


def job(service, id):
    return service.request("GET", f"/jobs/{id}", ALICE).json()


def test_a_host_that_is_cut_off_stops_what_others_run_on_and_comes_back(host, network):
    edge = host().start()
    with network.entered():
        cut = host(simulate(slots=1, service_time="60s"), address=network.here).start()
    id = until(lambda: promise(edge), "the model is known")
    until(lambda: cut.penstockd.queue().running == 1, "it runs")
    network.pull()
    other = host(simulate(slots=1, service_time="20ms")).start()
    until(lambda: job(edge, id)["status"] == "completed", lambda: f"another host runs it: {job(edge, id)}", LEASE + 15)
    assert job(other, id)["attempts"] == 1
    # Its own clock ended its lease before Redis's did, so by now it has stopped.
    assert cut.penstockd.queue().running == 0
    other.penstockd.stop()
    other.penstockd.expect_death = True
    network.plug_in()
    last = until(lambda: promise(edge), "the model is known again", LEASE + 15)
    until(lambda: cut.penstockd.queue().running == 1, lambda: f"it takes jobs again: {job(edge, last)}", LEASE + 15)
    assert edge.request("DELETE", f"/jobs/{last}", ALICE).json()["status"] == "cancelled"
    until(lambda: cut.penstockd.queue().running == 0, "its slot is free", 3)
