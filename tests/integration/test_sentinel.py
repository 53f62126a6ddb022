"""Hosts that share through a master which Sentinels watch: who it is now they find by themselves."""

import random
import re
import signal
import socketserver
import threading
import time

import pytest

from dns import FalseDns
from hosts import SERVER, Load, counted, counted_by_all, kill_and_start, until_they_know_each_other
from redis_groups import Watched
from redis_server import RedisServer
from waiting import until


@pytest.fixture
def watched(request):
    group = Watched(*getattr(request, "param", ()))
    yield group
    group.close()


@pytest.fixture
def hosts(penstock, watched):
    def build(count, limit, options, address=None, ready=True, http="", **parts):
        built = [penstock(http=f"{http}penstock_zone edge 1m {address or watched.address} {options};", server=SERVER % limit, **parts)
                 for _ in range(count)]
        if ready:
            until_they_know_each_other(built)
        return built
    return build


def failed_over(watched, service, old):
    until(lambda: watched.master is not old, "there is another master", 30)
    until(lambda: counted(service, "penstock_lease_up"), "it is found")


RATE, BURST = 1000, 200
# What a failover may add: units whose write no replica had yet. Replication lags by milliseconds here.
LAG_S = 0.05


@pytest.mark.parametrize("how,on_error", [("SIGKILL", "deny"), ("SIGSTOP", "deny"), ("SIGKILL", "local")])
def test_a_new_master_is_found_under_load(hosts, watched, how, on_error):
    services = hosts(3, f"rate={RATE}r/s burst={BURST}", f"timeout=20ms on_error={on_error}", processes=2)
    old = watched.master
    load = Load([service.port for service in services], seconds=9, threads=1, pause=0.001)
    time.sleep(1)
    before = counted_by_all(services, "penstock_lease_charges_total", how="alone")
    old.process.send_signal(getattr(signal, how))
    failed = time.monotonic()
    failed_over(watched, services[0], old)
    took = time.monotonic() - failed
    load.join()
    old.go_on() if how == "SIGSTOP" else None
    assert took < 10
    # By their shares hosts may together admit a burst more as Redis goes, and another as it comes back.
    assert load.most_over(RATE, BURST) <= RATE * LAG_S + (2 * BURST if on_error == "local" else 0)
    assert load.slowest < 1  # beside other load on this machine
    assert set(load.others) <= ({503} if on_error == "deny" else set())
    assert before == 0 or on_error == "local"
    for service in services:
        assert counted(service, "penstock_lease_up")
        log = service.nginx.log()
        assert len(re.findall("limits are not shared now", log)) == 1, log
        assert f"shared again, by Redis at 127.0.0.1:{watched.master.port}" in log


@pytest.mark.parametrize("seed", [1])
def test_four_hosts_keep_the_limit_while_they_and_masters_are_killed(hosts, watched, seed):
    random_ = random.Random(seed)
    services = hosts(4, f"rate={RATE}r/s burst={BURST}", "timeout=20ms on_error=deny")
    load = Load([service.port for service in services], seconds=14, threads=1, may_die=True)
    end = time.monotonic() + 12
    # One that comes back before the Sentinels have made it a replica is a master to whoever asks it: it stays away.
    old = None
    while time.monotonic() < end:
        time.sleep(random_.uniform(0.1, 0.6))
        if old is not None or random_.random() < 0.7 or not watched.is_replica(next(server for server in watched.servers if server is not watched.master)):
            kill_and_start(random_.choice(services))
            continue
        old = watched.master
        old.kill()
        kill_and_start(random_.choice(services))
        until(lambda: watched.master is not old, "there is another master", 30)
    load.join()
    assert old is not None and len(load.admitted) > RATE
    assert load.most_over(RATE, BURST) <= RATE * LAG_S
    assert set(load.others) <= {503}


def test_a_failover_that_is_asked_for_is_followed_and_keeps_what_was_counted(hosts, watched):
    services = hosts(2, "rate=4r/h burst=4", "timeout=500ms")
    assert [service.statuses(2, "/?key=a") for service in services] == [[200, 200]] * 2
    old = watched.master
    old.ask("WAIT", 1, 1000)
    watched.sentinels[0]("SENTINEL", "FAILOVER", "main")
    failed_over(watched, services[0], old)
    until(lambda: watched.is_replica(old), "the old one is a replica")
    until_they_know_each_other(services)
    assert [service.statuses(2, "/?key=a") for service in services] == [[429, 429]] * 2
    assert services[1].get("/?key=b").status == 200


def test_a_sentinel_that_is_silent_is_passed_over(hosts, watched):
    for sentinel in watched.sentinels[:2]:
        sentinel.process.send_signal(signal.SIGSTOP)
    try:
        services = hosts(2, "rate=10r/m burst=4", "timeout=500ms")
        assert [service.statuses(2, "/?key=a") for service in services] == [[200, 200]] * 2
    finally:
        for sentinel in watched.sentinels[:2]:
            sentinel.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("watched,says", [(("secret", True), "Sentinel"), (("secret", False), "Redis")], indirect=["watched"])
def test_a_password_is_told_to_sentinels_that_want_it(hosts, watched, says, folder):
    (folder / "password").write_text("secret\n")
    (folder / "password").chmod(0o600)
    service, = hosts(1, "rate=10r/m burst=4", f"timeout=500ms password_file={folder}/password")
    assert service.statuses(5, "/?key=a") == [200] * 4 + [429]
    without, = hosts(1, "rate=10r/m burst=4", "timeout=20ms", ready=False)
    until(lambda: re.search("not shared now.*: " + says + " at .*NOAUTH", without.nginx.log()), "it says so")


def test_without_sentinels_the_master_is_kept(hosts, watched):
    service, = hosts(1, "rate=10r/m burst=4", "timeout=500ms")
    for sentinel in watched.sentinels:
        sentinel.process.kill()
    time.sleep(2.5)  # in which it asks each of them
    assert counted(service, "penstock_lease_up")
    assert service.statuses(5, "/?key=a") == [200] * 4 + [429]
    assert "not shared now" not in service.nginx.log()


def test_a_name_that_no_sentinel_knows_is_told(hosts, watched):
    service, = hosts(1, "rate=10r/m burst=4", "timeout=20ms", address=watched.address.replace("sentinel=main", "sentinel=other"),
                     ready=False)
    until(lambda: re.search(r"not shared now.*: Sentinel at 127\.0\.0\.1:\d+, asked for master other: it knows no master of that name",
                            service.nginx.log()), lambda: "it says so: " + service.nginx.log())
    assert service.statuses(5, "/?key=a").count(200) == 4


def test_what_is_no_sentinel_is_told(hosts, watched):
    service, = hosts(1, "rate=10r/m burst=4", "timeout=20ms", address=f"sentinel=main redis={watched.servers[0].address}", ready=False)
    until(lambda: re.search("not shared now.*Sentinel at .*unknown command", service.nginx.log()), "it says so")


def test_a_sentinel_is_no_redis(hosts, watched):
    service, = hosts(1, "rate=10r/m burst=4", "timeout=20ms", address=f"redis=127.0.0.1:{watched.sentinels[0].port}", ready=False)
    until(lambda: re.search("not shared now.*it is a Sentinel: add sentinel=NAME", service.nginx.log()), "it says so")


# ---- what a Sentinel may answer


class FalseSentinel:
    """Answers each question with `answer`, bytes."""

    def __init__(self, answer):
        outer = self
        self.answer, self.asked = answer, 0
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while line := self.rfile.readline():
                    for _ in range(int(line[1:])):
                        size = int(self.rfile.readline()[1:])
                        self.rfile.read(size + 2)
                    outer.asked += 1
                    self.wfile.write(outer.answer)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # the other side has gone

        self._server = Server(("127.0.0.1", 0), Handler)
        self.place = f"redis=127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def at(host, port):
    return b"*2\r\n$%d\r\n%s\r\n$%d\r\n%d\r\n" % (len(host), host.encode(), len(str(port)), port)


@pytest.fixture
def beside(penstock):
    """A service beside a Sentinel that answers so."""
    sentinels = []

    def build(answer, http=""):
        sentinels.append(FalseSentinel(answer))
        return penstock(http=f"{http}penstock_zone edge 1m sentinel=main {sentinels[-1].place} timeout=20ms;", server=SERVER % "rate=10r/m burst=4")
    yield build
    for sentinel in sentinels:
        sentinel.close()


@pytest.fixture
def redis():
    server = RedisServer(tcp=True)
    yield server
    server.close()


def test_a_master_may_have_an_address_of_ipv6(beside, redis):
    service = beside(at("::1", redis.port))
    until(lambda: counted(service, "penstock_lease_up"), lambda: "it is found: " + service.nginx.log())


def test_a_name_of_a_master_is_looked_up_by_the_resolver(beside, redis):
    dns = FalseDns({"redis.test": "127.0.0.1"})
    service = beside(at("redis.test", redis.port), f"resolver 127.0.0.1:{dns.port} ipv6=off;\n")
    until(lambda: counted(service, "penstock_lease_up"), lambda: "it is found: " + service.nginx.log())
    dns.close()


@pytest.mark.parametrize("resolver,says", [(False, "give http{} a resolver"), (True, "no address is found")])
def test_a_name_that_cannot_be_looked_up_is_told(beside, resolver, says):
    dns = FalseDns({})
    service = beside(at("redis.test", 1), f"resolver 127.0.0.1:{dns.port} ipv6=off;\n" if resolver else "")
    until(lambda: re.search("not shared now.*Redis at redis.test:1: .*" + says, service.nginx.log()),
          lambda: "it says so: " + service.nginx.log())
    dns.close()


def test_one_sentinel_alone_parts_nobody_from_a_master_that_works(penstock, redis):
    other = RedisServer(tcp=True)
    sentinels = [FalseSentinel(at("127.0.0.1", redis.port)) for _ in range(3)]
    service = penstock(http="penstock_zone edge 1m sentinel=main %s timeout=500ms;" % " ".join(sentinel.place for sentinel in sentinels),
                       server=SERVER % "rate=10r/m burst=4")
    until(lambda: counted(service, "penstock_lease_up"), "the master is found")
    liar = max(sentinels, key=lambda sentinel: sentinel.asked)
    liar.answer = at("127.0.0.1", other.port)
    until(lambda: sum(sentinel.asked for sentinel in sentinels if sentinel is not liar) >= 2, "another is asked, and asked again")
    assert counted(service, "penstock_lease_up") and not other.ask("EXISTS", "penstock:1:hosts")
    for sentinel in sentinels:
        sentinel.answer = liar.answer
    until(lambda: other.ask("EXISTS", "penstock:1:hosts"), "two are believed")
    for closing in (*sentinels, other):
        closing.close()


@pytest.mark.parametrize("answer", [b"$-1\r\n", b":1\r\n", b"*0\r\n", b"*1\r\n$1\r\na\r\n", at("127.0.0.1", 0), at("127.0.0.1", 99999), at("", 1),
                                    at("a\nb", 1), at("a" * 1000, 1), b"*2\r\n:1\r\n:2\r\n", b"*2\r\n$-1\r\n$-1\r\n", b"-ERR no\r\n",
                                    b"HTTP/1.1 200 OK\r\n\r\n", b"*-7\r\n"])
def test_whatever_a_sentinel_answers_requests_go_on(beside, answer):
    service = beside(answer)
    until(lambda: "not shared now" in service.nginx.log(), "it says so")
    assert service.statuses(5, "/?key=a").count(200) == 4
    assert len(re.findall("not shared now", service.nginx.log())) == 1
