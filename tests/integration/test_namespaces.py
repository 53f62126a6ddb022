"""Four hosts, two of them in networks of their own: their way to Redis is cut, and nobody is answered by that."""

import re
import time

import pytest

from hosts import SERVER, Load, counted, until_they_know_each_other
from namespaces import namespaces
from redis_server import RedisServer
from waiting import until


@pytest.fixture
def networks():
    with namespaces(2) as made:
        yield made


@pytest.fixture
def redis():
    server = RedisServer("--bind", "0.0.0.0", "--protected-mode", "no", tcp=True)
    yield server
    server.close()


class Inside:
    """A service that is asked from its own network."""

    def __init__(self, service, network):
        self._service, self._network = service, network
        self.port, self.nginx = service.port, service.nginx

    def get(self, path):
        with self._network.entered():
            return self._service.get(path)


def test_a_host_whose_way_to_redis_is_cut_goes_without_and_comes_back(penstock, networks, redis):
    rate, burst = 1000, 200

    def host(address):
        return penstock(start=False, http=f"penstock_zone edge 1m redis={address}:{redis.port} timeout=20ms on_error=deny;",
                        server=SERVER % f"rate={rate}r/s burst={burst}")
    outside = [host("127.0.0.1").start() for _ in range(2)]
    inside = []
    for network in networks:
        with network.entered():
            inside.append(Inside(host(network.here).start(), network))
    until_they_know_each_other([*outside, *inside])
    loads = [Load([service.port for service in outside], seconds=6, threads=1, pause=0.001)]
    loads += [Load([service.port], seconds=6, threads=1, pause=0.001, within=network.entered)
              for service, network in zip(inside, networks)]
    time.sleep(1)
    networks[0].pull()
    until(lambda: not counted(inside[0], "penstock_lease_up"), "it misses Redis")
    assert inside[0].get("/?key=a").status == 503
    assert all(counted(service, "penstock_lease_up") for service in (*outside, inside[1]))
    time.sleep(1.5)
    networks[0].plug_in()
    until(lambda: counted(inside[0], "penstock_lease_up"), "it is back")
    first, *others = [load.join() for load in loads]
    for load in others:
        first.with_(load)
    assert first.most_over(rate, burst) <= 0
    assert first.used(rate, burst) > 0.8
    assert first.slowest < 0.5
    assert set(first.others) == {503}
    assert len(re.findall("limits are not shared now", inside[0].nginx.log())) == 1
    assert inside[0].get("/?key=b").status == 200
