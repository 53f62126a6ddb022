"""Hosts that share through a Redis Cluster: each key at its own node, also while slots move and nodes die."""

import re
import signal
import threading
import time

import pytest

from hosts import PATIENT, SERVER, Load, counted, counted_by_all, until_they_know_each_other
from redis_groups import Cluster
from redis_server import RedisServer
from waiting import until


@pytest.fixture
def cluster(request):
    group = Cluster(**getattr(request, "param", {}))
    yield group
    group.close()


@pytest.fixture
def hosts(penstock, cluster):
    def build(count, limit, options=PATIENT, address=None, ready=True, server=None, **parts):
        built = [penstock(http=f"penstock_zone edge 1m {address or cluster.address} {options};", server=server or SERVER % limit, **parts)
                 for _ in range(count)]
        if ready:
            until_they_know_each_other(built)
        return built
    return build


def keys_of(server):
    return {key for key in server.ask("KEYS", "penstock:1:[lgw]:*")}


def key_at(cluster, services, server, prefix):
    """A key of requests that is counted at this server."""
    for number in range(1000):
        name = f"{prefix}{number}"
        before = keys_of(server)
        assert services[0].get(f"/?key={name}").status == 200
        if keys_of(server) - before:
            return name, (keys_of(server) - before).pop().decode()
    raise AssertionError("no key is there")


@pytest.mark.parametrize("limit", ["rate=10r/m burst=4", "quota=4r/d", "rate=4r/h algorithm=sliding_log"])
def test_two_hosts_admit_together_what_one_would_at_every_node(hosts, cluster, limit):
    first, second = hosts(2, limit)
    one, other = first.client(), second.client()
    for key in range(12):
        assert [client.request("GET", f"/?key={key}").status for client in (one, other, one, other, one, other)] == [200] * 4 + [429] * 2
    assert all(keys_of(server) for server in cluster.servers)
    assert counted_by_all((first, second), "penstock_lease_charges_total", how="alone") == 0


def test_one_given_node_is_enough_to_find_all(hosts, cluster):
    given = f"redis=127.0.0.1:{cluster.servers[0].port} redis=127.0.0.1:1"
    service, = hosts(1, "rate=10r/m burst=4", address=given)
    for key in range(9):
        assert service.statuses(5, f"/?key={key}") == [200] * 4 + [429]
    assert all(keys_of(server) for server in cluster.servers)


def test_under_load_the_limit_is_kept_and_used(hosts):
    services = hosts(3, "rate=1000r/s burst=1000", processes=2)
    load = Load([service.port for service in services], seconds=3, threads=2).join()
    assert not load.others and load.most_over(1000, 1000) <= 0
    assert counted_by_all(services, "penstock_lease_charges_total", how="alone") == 0
    assert load.used(1000, 1000) >= 0.5  # other load on this machine may take some


ALL_OR_NONE = """location / {
    penstock_limit zone=edge key=$arg_key rate=10r/m burst=4 name=a;
    penstock_limit zone=edge key=$arg_other rate=10r/h burst=2 name=b;
    penstock_limit zone=edge key=$arg_third quota=3r/d name=c;
    empty_gif; }
location = /metrics { penstock_metrics; }"""


def test_limits_at_several_nodes_are_charged_all_or_none(hosts, cluster):
    services = hosts(2, "", server=ALL_OR_NONE)
    for number in range(8):  # wherever their keys are
        path = f"/?key=k{number}&other=o{number}&third=t{number}"
        assert services[0].statuses(2, path) == [200, 200]
        assert services[1].statuses(3, path) == [429] * 3  # by b, of which there were two
        others = [services[1].get(f"/?key=k{number}&other=x{number}{i}&third=y{number}{i}").status for i in range(4)]
        assert others == [200, 200, 429, 429]  # what b refused has cost a nothing
        assert services[0].get(f"/?key=z{number}&other=w{number}&third=t{number}").status == 200  # nor c
        assert services[0].get(f"/?key=z{number}&other=w{number}&third=t{number}").status == 429


def test_a_slot_moves_under_load_and_nothing_is_lost(hosts, cluster):
    services = hosts(2, "rate=500r/s burst=100")
    source, to = cluster.servers[:2]
    name, key = key_at(cluster, services, source, "m")
    slot = cluster.slot(key)
    load = Load([service.port for service in services], seconds=4, threads=2, path=f"/?key={name}")
    for _ in range(2):  # there and back
        for step in cluster.move(slot, to):
            time.sleep(0.4)
        assert cluster.owner(slot) is to
        source, to = to, source
        time.sleep(0.4)
    load.join()
    assert not load.others
    assert load.most_over(500, 100) <= 0
    assert counted_by_all(services, "penstock_lease_charges_total", how="alone") == 0
    assert counted_by_all(services, "penstock_lease_errors_total") == 0
    assert load.used(500, 100) >= 0.5
    assert "not shared now" not in services[0].nginx.log()


@pytest.mark.parametrize("cluster", [{"count": 4}], indirect=True)
def test_a_slot_moves_to_a_node_that_nobody_knew(hosts, cluster):
    service, = hosts(1, "rate=10r/m burst=4")
    name, key = key_at(cluster, [service], cluster.servers[0], "n")
    assert service.get(f"/?key={name}").status == 200
    statuses = [service.get(f"/?key={name}").status for _ in cluster.move(cluster.slot(key), cluster.servers[3])]
    assert statuses + service.statuses(2, f"/?key={name}") == [200, 200, 429, 429]
    assert key.encode() in keys_of(cluster.servers[3])
    assert counted(service, "penstock_lease_charges_total", how="alone") == 0


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("on_error", ["deny", "local"])
def test_where_a_node_is_gone_keys_of_the_others_go_on_untouched(hosts, cluster, how, on_error):
    services = hosts(2, "rate=10r/m burst=8", f"timeout=20ms on_error={on_error}")
    dead = cluster.servers[2]
    lost, _ = key_at(cluster, services, dead, "d")
    kept, _ = key_at(cluster, services, cluster.servers[0], "k")
    dead.process.send_signal(getattr(signal, how))
    until(lambda: [service.get(f"/?key={lost}") and counted(service, "penstock_lease_up") for service in services] == [0, 0],
          "it is missed")
    alone = counted_by_all(services, "penstock_lease_charges_total", how="alone")
    waited = counted_by_all(services, "penstock_lease_timeouts_total")
    answers = [service.statuses(8, f"/?key={lost}") for service in services]
    assert counted_by_all(services, "penstock_lease_timeouts_total") == waited  # nobody waits for what hangs
    if on_error == "deny":
        assert {status for part in answers for status in part} == {503}
    else:
        assert [part.count(200) for part in answers] <= [4, 4]
        assert counted_by_all(services, "penstock_lease_charges_total", how="alone") > alone
    alone = counted_by_all(services, "penstock_lease_charges_total", how="alone")
    both = [service.client() for service in services]
    statuses = [client.request("GET", f"/?key={kept}").status for _ in range(6) for client in both]
    assert statuses == [200] * 7 + [429] * 5
    assert counted_by_all(services, "penstock_lease_charges_total", how="alone") == alone
    for service in services:
        until(lambda: re.search(rf"some of its limits are not shared now.*Redis at 127\.0\.0\.1:{dead.port}", service.nginx.log()),
              lambda: "it says so: " + service.nginx.log())
        assert len(re.findall("limits are not shared now", service.nginx.log())) == 1
    if how == "SIGSTOP":
        dead.go_on()
    else:
        dead.start()
    until(lambda: all(counted(service, "penstock_lease_up") for service in services), "all is back", 30)


@pytest.mark.parametrize("cluster", [{"count": 4}], indirect=True)
def test_where_a_node_is_gone_its_replica_takes_its_place(hosts, cluster):
    dead, replica = cluster.servers[2:]
    replica.ask("CLUSTER", "REPLICATE", dead.ask("CLUSTER", "MYID"))
    until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"), "it follows", 30)
    services = hosts(2, "rate=4r/h burst=4")
    name, key = key_at(cluster, services, dead, "r")
    assert services[1].get(f"/?key={name}").status == 200
    dead.ask("WAIT", 1, 1000)
    dead.kill()
    until(lambda: replica.ask("ROLE")[0] == b"master", "the replica is the master", 30)
    until_they_know_each_other(services)
    assert [service.statuses(2, f"/?key={name}").count(200) for service in services] == [2, 0]
    assert key.encode() in keys_of(replica)


def test_a_database_is_no_cluster_and_is_told(hosts, cluster):
    other = RedisServer(tcp=True)
    service, = hosts(1, "rate=10r/m burst=4", address=f"redis={other.address} redis=127.0.0.1:1", ready=False)
    until(lambda: re.search("not shared now.*(cluster support disabled|Connection refused)", service.nginx.log()), "it says so")
    assert service.statuses(5, "/?key=a").count(200) == 4
    other.close()


def test_one_node_alone_is_told_to_be_of_a_cluster(hosts, cluster):
    server = cluster.servers[0]
    if cluster.owner(cluster.slot("penstock:1:hosts")) is server:
        server = cluster.servers[1]
    service, = hosts(1, "rate=10r/m burst=4", address=f"redis=127.0.0.1:{server.port}", ready=False)
    until(lambda: re.search("not shared now.*it is one of a cluster: give redis= for several of its nodes", service.nginx.log()), "it says so")
