"""One limit over several Nginx hosts, shared through a real Redis: counted exactly."""

import random
import re
import signal
import threading
import time

import pytest

from client import Client
from hosts import PATIENT, SERVER, Load, counted, counted_by_all, kill_and_start, signal_all, until_they_know_each_other
from server import ModelServer
from waiting import until


@pytest.fixture
def hosts(penstock, redis):
    """hosts(2, "rate=100r/s burst=20"): so many Nginx, each a host of its own, that share `redis`; ready to."""

    def build(count, limit, options="", ready=True, address=None, **parts):
        built = [penstock(http=f"penstock_zone edge 1m redis={address or redis.address} {options};", server=SERVER % limit, **parts)
                 for _ in range(count)]
        if ready:
            until_they_know_each_other(built)
        return built
    return build


def known_hosts(redis):
    connection = redis.connect()
    try:
        return connection("ZCARD", "penstock:1:hosts")
    finally:
        connection.close()


@pytest.mark.parametrize("limit,wait", [("rate=10r/m burst=4", (5, 6)), ("rate=4r/h algorithm=sliding_log", (3590, 3600)),
                                        ("rate=4r/d algorithm=sliding_window", (60, 172_800)), ("rate=4r/d algorithm=fixed_window", (1, 86_400)),
                                        ("quota=4r/M", (1, 31 * 86_400))])
def test_two_hosts_admit_together_what_one_would(hosts, limit, wait):
    first, second = hosts(2, limit, PATIENT)
    one, other = first.client(), second.client()
    answers = [client.request("GET", "/?key=a") for client in (one, other, one, other, one, other)]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 429, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["3", "2", "1", "0", "0", "0"]
    for answer in answers[4:]:
        assert wait[0] <= int(answer.headers["Retry-After"]) <= wait[1]
    trips = counted(second, "penstock_lease_trips_total")
    assert other.request("GET", "/?key=a").status == 429
    assert counted(second, "penstock_lease_trips_total") == trips  # it knows
    assert one.request("GET", "/?key=b").status == 200


@pytest.mark.parametrize("algorithm", ["sliding_log", "sliding_window"])
def test_in_no_second_do_two_hosts_admit_more_than_a_window_allows(hosts, algorithm):
    services = hosts(2, f"rate=100r/s algorithm={algorithm}", PATIENT, processes=2)
    load = Load([service.port for service in services], seconds=4, threads=2).join()
    assert counted_by_all(services, "penstock_lease_charges_total", how="alone") == 0
    assert load.most_in(1.0) <= 100 * (1 if algorithm == "sliding_log" else 2)  # a counter knows not when in its window they came
    assert len(load.admitted) >= 0.99 * 100 * 4 * (1 if algorithm == "sliding_log" else 0.9)


@pytest.mark.parametrize("limit", ["quota=5r/d", "rate=5r/h algorithm=sliding_log", "rate=5r/m"])
def test_quota_tells_what_this_host_heard_last(penstock, redis, limit):
    service = penstock(http=f"penstock_zone edge 1m redis={redis.address} {PATIENT};", server=SERVER % limit +
                       "\nlocation = /quota { penstock_limit zone=edge key=$arg_key %s name=a; penstock_quota; }" % limit)
    until(lambda: counted(service, "penstock_lease_up"), "Redis is there")
    assert service.statuses(2, "/?key=a") == [200, 200]
    told, = service.get("/quota?key=a").json()["limits"]
    assert (told["limit"], told["used"], told["remaining"]) == (5, 2, 3)


@pytest.mark.parametrize("limit", ["quota=4r/d", "rate=4r/h algorithm=sliding_log", "rate=4r/d algorithm=sliding_window"])
def test_a_window_without_redis_is_shared_out_and_told_of_when_it_is_back(hosts, redis, limit):
    services = hosts(2, limit, "timeout=20ms")
    redis.stop_answering()
    assert [service.statuses(4, "/?key=a").count(200) for service in services] == [2, 2]
    redis.go_on()
    until(lambda: all(counted(service, "penstock_lease_up") for service in services), "Redis is back")
    for service in services:  # what the first of them does not know yet, it is told by the other
        service.statuses(2, "/?key=a")
    assert [service.statuses(3, "/?key=a").count(200) for service in services] == [0, 0]


def keep_and_use(services, load_of, rate, burst, used):
    """load_of(path) asks for a key. The limit is kept each time; so much of it is used in the best of three tries, as other load on
    this machine may take some."""
    shares = []
    while len(shares) < 3 and max(shares, default=0) < used:
        load = load_of(f"/?key=a{len(shares)}")
        assert not load.others and load.most_over(rate, burst) <= 0
        shares.append(load.used(rate, burst))
    assert counted_by_all(services, "penstock_lease_charges_total", how="alone") == 0
    assert max(shares) >= used, shares


@pytest.mark.parametrize("rate,burst,processes", [(100, 20, 1), (1000, 1000, 2)])
def test_under_load_from_all_the_limit_is_kept_and_used(hosts, rate, burst, processes):
    services = hosts(2, f"rate={rate}r/s burst={burst}", PATIENT, processes=processes)
    ports = [service.port for service in services]
    keep_and_use(services, lambda path: Load(ports, seconds=4, threads=3, path=path).join(), rate, burst, 0.99)


@pytest.mark.parametrize("rate,burst,used", [(200, 200, 0.97), (1000, 100, 0.97), (20, 1, 0.95)])
def test_where_one_of_four_hosts_has_nearly_all_the_load_the_limit_is_used(hosts, rate, burst, used):
    services = hosts(4, f"rate={rate}r/s burst={burst}", PATIENT)
    busy, *rest = [service.port for service in services]

    def load(path):
        others = Load(rest, seconds=4, threads=1, path=path, pause=0.1)
        return Load([busy], seconds=4, threads=4, path=path).join().with_(others.join())
    keep_and_use(services, load, rate, burst, used)


# ---- what runs at once


@pytest.fixture
def busy(penstock, redis):
    """Hosts before a server that answers only when `free` is set: busy(2, "concurrency=3")."""
    free = threading.Event()
    server = ModelServer(lambda asked, reply: (free.wait(30), reply("done")))

    def build(count, limit, options=PATIENT):
        place = "location / { penstock_limit zone=edge key=$arg_key %s name=a; proxy_pass %s; }\nlocation = /metrics { penstock_metrics; }"
        built = [penstock(http=f"penstock_zone edge 1m redis={redis.address} {options};", server=place % (limit, server.url))
                 for _ in range(count)]
        until_they_know_each_other(built)
        return built
    build.free, build.server = free, server
    yield build
    free.set()
    server.close()


def run(service, path="/?key=a"):
    """A request that runs until the server is free; join() gives its status."""
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(service.get(path).status))
    thread.start()
    return lambda: (thread.join(), statuses[0])[1]


def test_no_more_run_at_once_on_all_hosts_than_one_would_let(busy):
    first, second = busy(2, "concurrency=3")
    running = [run(first), run(second), run(first)]
    until(lambda: busy.server.running == 3, "three run")
    assert [service.get("/?key=a").status for service in (first, second)] == [429, 429]
    other = run(second, "/?key=b")
    until(lambda: busy.server.running == 4, "another key runs")
    busy.free.set()
    assert [request() for request in (*running, other)] == [200] * 4
    until(lambda: second.get("/?key=a").status == 200, "a place is free")


def test_what_runs_is_renewed_and_let_go(busy, redis):
    service, = busy(1, "concurrency=3")
    request = run(service)
    until(lambda: busy.server.running == 1, "it runs")
    connection = redis.connect()
    key, = connection("KEYS", "penstock:1:g:*")
    began = connection("ZRANGE", key, 0, -1, "WITHSCORES")
    until(lambda: connection("ZRANGE", key, 0, -1, "WITHSCORES")[1] > began[1], "it is renewed")
    assert connection("ZRANGE", key, 0, -1) == began[:1]
    busy.free.set()
    assert request() == 200
    until(lambda: connection("ZCARD", key) == 0, "it is let go")


def test_without_redis_each_host_runs_its_share(busy, redis):
    services = busy(2, "concurrency=4", "timeout=20ms")
    redis.stop_answering()
    running = [run(service) for service in services for _ in range(2)]
    until(lambda: busy.server.running == 4, "two run on each")
    assert [service.get("/?key=a").status for service in services] == [429, 429]
    busy.free.set()
    assert [request() for request in running] == [200] * 4
    until(lambda: [run(service)() for service in services] == [200, 200], "places are free")
    redis.go_on()


# ---- Redis is slow, hung, gone, or not what it should be


def test_while_redis_hangs_nobody_waits_longer_and_hosts_go_by_their_shares(hosts, redis):
    services = hosts(2, "rate=10r/m burst=8", "timeout=20ms")
    assert services[0].statuses(2, "/?key=a") == [200, 200]
    redis.stop_answering()
    load = Load([service.port for service in services], seconds=1.5, threads=1, path="/?key=a", pause=0.01).join()
    assert 3 <= len(load.admitted) <= 7  # each host has half: one of 8, the other of the 6 that it knows to be left
    assert load.slowest < 0.5
    assert not load.others
    redis.go_on()
    until(lambda: all(counted(service, "penstock_lease_up") for service in services), "Redis is back")
    load = Load([service.port for service in services], seconds=0.5, threads=1, path="/?key=a", pause=0.01).join()
    assert len(load.admitted) <= 6
    log = services[0].nginx.log()
    assert len(re.findall(r"its limits are not shared now, this host goes by its own share of them: Redis at unix:", log)) == 1
    assert "its limits are shared again" in log


@pytest.mark.parametrize("on_error,admitted", [("local", 4), ("allow", 20), ("deny", 0)])
def test_where_there_is_no_redis_the_fallback_decides(hosts, redis, on_error, admitted):
    redis.kill()
    service, = hosts(1, "rate=10r/m burst=4", f"on_error={on_error}", ready=False)
    statuses = service.statuses(20, "/?key=a")
    assert statuses.count(200) == admitted
    assert {status for status in statuses if status != 200} <= {503 if on_error == "deny" else 429}
    redis.start()
    until(lambda: counted(service, "penstock_lease_up"), "Redis is there")
    assert service.get("/?key=b").status == 200
    assert service.get("/?key=a").status == {"local": 429, "allow": 200, "deny": 200}[on_error]


@pytest.mark.parametrize("limit", ["rate=10r/m burst=4", "quota=4r/d", "rate=4r/h algorithm=sliding_log", "rate=4r/d algorithm=sliding_window"])
def test_a_redis_that_comes_back_empty_gives_no_burst(hosts, redis, limit):
    services = hosts(2, limit, PATIENT)
    for service in (*services, services[0]):
        service.statuses(3, "/?key=a")
    redis.kill()
    redis.start()
    until(lambda: known_hosts(redis) == 2, "all hosts have come to Redis again", 30)
    assert [service.statuses(3, "/?key=a").count(200) for service in services] == [0, 0]


def test_scripts_that_were_flushed_are_loaded_again(hosts, redis):
    service, = hosts(1, "rate=10r/m burst=4", PATIENT)
    assert service.get("/?key=a").status == 200
    connection = redis.connect()
    connection("SCRIPT", "FLUSH")
    assert service.statuses(4, "/?key=a") == [200, 200, 200, 429]
    assert counted(service, "penstock_lease_charges_total", how="alone") == 0


@pytest.mark.parametrize("redis,says", [(("--maxmemory-policy", "allkeys-lru"), "maxmemory-policy is allkeys-lru.*noeviction"),
                                        (("--requirepass", "secret"), "NOAUTH"),
                                        (("--replicaof", "127.0.0.1", "1"), "READONLY: it is a replica"),
                                        (("--replicaof", "127.0.0.1", "1", "--replica-read-only", "no"), "READONLY: it is a replica")], indirect=["redis"])
def test_a_redis_that_cannot_be_relied_on_is_not_used(hosts, says):
    service, = hosts(1, "rate=10r/m burst=4", ready=False)
    until(lambda: re.search("not shared now.*" + says, service.nginx.log()), lambda: "it says so: " + service.nginx.log())
    assert service.statuses(5, "/?key=a").count(200) == 4


@pytest.mark.parametrize("redis", [("--requirepass", "secret")], indirect=True)
def test_a_password_opens_it_and_a_wrong_one_is_told(hosts, folder, redis):
    (folder / "right").write_text("secret\n")
    (folder / "wrong").write_text("else\n")
    for name in ("right", "wrong"):
        (folder / name).chmod(0o600)
    right, = hosts(1, "rate=10r/m burst=4", f"password_file={folder}/right", ready=False)
    wrong, = hosts(1, "rate=10r/m burst=4", f"password_file={folder}/wrong", ready=False)
    until(lambda: counted(right, "penstock_lease_up"), "it is let in")
    until(lambda: re.search("not shared now.*WRONGPASS", wrong.nginx.log()), "the other is not")


def test_a_user_who_may_not_ask_for_the_configuration_is_enough(hosts, folder, redis):
    redis.connect()("ACL", "SETUSER", "edge", "on", ">secret", "~shop:*", "+@all", "-config", "-@dangerous", "+info")
    (folder / "password").write_text("secret\n")
    (folder / "password").chmod(0o600)
    service, = hosts(1, "rate=10r/m burst=4", f"user=edge password_file={folder}/password prefix=shop", ready=False)
    until(lambda: counted(service, "penstock_lease_up"), "it is let in")
    assert service.statuses(5, "/?key=a") == [200] * 4 + [429]


def test_a_full_memory_is_told_and_got_over(hosts, redis):
    service, = hosts(1, "rate=10r/m burst=4", ready=True)
    connection = redis.connect()
    connection("CONFIG", "SET", "maxmemory", "1")
    assert service.statuses(6, "/?key=a").count(200) == 4
    until(lambda: re.search("not shared now.*OOM", service.nginx.log()), "it says so")
    connection("CONFIG", "SET", "maxmemory", "0")
    until(lambda: counted(service, "penstock_lease_up"), "it is used again")
    assert service.get("/?key=b").status == 200


def test_a_master_that_its_replicas_have_left_is_not_used(hosts, redis):
    service, = hosts(1, "rate=10r/m burst=4")
    redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    assert service.statuses(6, "/?key=a").count(200) == 4
    until(lambda: re.search("not shared now.*NOREPLICAS", service.nginx.log()), "it says so")
    redis.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    until(lambda: counted(service, "penstock_lease_up"), "it is used again")
    assert service.get("/?key=b").status == 200


def test_a_key_that_is_not_ours_is_left_alone_and_only_it_falls_back(hosts, redis):
    service, = hosts(1, "rate=10r/m burst=4", PATIENT)
    connection = redis.connect()
    assert service.get("/?key=a").status == 200
    key, = [name for name in connection("KEYS", "penstock:1:l:*")]
    connection("DEL", key)
    connection("SET", key, "x")
    assert service.get("/?key=a").status == 200
    assert connection("GET", key) == b"x"
    assert counted(service, "penstock_lease_errors_total") == 1
    assert re.search("a limit is not shared now: Redis at unix:.*WRONGTYPE", service.nginx.log())
    assert service.get("/?key=b").status == 200
    assert counted(service, "penstock_lease_charges_total", how="waited") == 2
    assert counted(service, "penstock_lease_up") == 1


def test_what_is_no_redis_is_told(hosts, penstock, redis):
    other = penstock(server="location / { empty_gif; }")
    service, = hosts(1, "rate=10r/m burst=4", ready=False, address=f"127.0.0.1:{other.port}")
    until(lambda: re.search("not shared now.*Redis at 127.0.0.1:", service.nginx.log()), "it says so")
    assert service.statuses(5, "/?key=a").count(200) == 4


def test_what_another_version_has_there_is_not_met_and_what_is_not_ours_is_told(hosts, redis):
    connection = redis.connect()
    for version in (0, 2):
        connection("SET", f"penstock:{version}:hosts", "x")
    connection("SET", "penstock:1:hosts", "x")
    service, = hosts(1, "rate=10r/m burst=4", ready=False)
    until(lambda: re.search("not shared now.*WRONGTYPE", service.nginx.log()), "it says so")
    assert service.statuses(5, "/?key=a").count(200) == 4
    connection("DEL", "penstock:1:hosts")
    until(lambda: counted(service, "penstock_lease_up"), "it is used")
    assert service.statuses(5, "/?key=b") == [200] * 4 + [429]
    assert [connection("GET", f"penstock:{version}:hosts") for version in (0, 2)] == [b"x", b"x"]


def ahead_by_an_hour(connection, key):
    """What is kept is of a clock that has since been set back by an hour."""
    if connection("TYPE", key) == "zset":
        for unit in connection("ZRANGE", key, 0, -1):
            connection("ZINCRBY", key, 3600 * 1_000_000, unit)
        return
    fields = connection("HGETALL", key)
    for name, value in zip(fields[::2], fields[1::2]):
        if name in (b"t", b"n", b"l"):
            connection("HSET", key, name, int(value) + 3600 * 16_000_000)
        elif name == b"p":
            connection("HSET", key, name, int(value) + 3600 * 1000)


@pytest.mark.parametrize("limit", ["rate=4r/h burst=4", "quota=4r/h", "rate=4r/h algorithm=sliding_log", "rate=4r/h algorithm=sliding_window"])
def test_a_clock_that_steps_back_in_redis_gives_nothing_anew_and_keeps_nobody_out_for_long(hosts, redis, limit):
    first, second = hosts(2, limit, PATIENT)
    assert first.statuses(4, "/?key=a") == [200] * 4
    connection = redis.connect()
    key, = connection("KEYS", "penstock:1:[lwg]:*")
    ahead_by_an_hour(connection, key)
    refused = second.get("/?key=a")
    assert refused.status == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 7200
    assert second.get("/?key=b").status == 200


# ---- leases come and go


def leases(redis):
    connection = redis.connect()
    try:
        return {key: connection("HGETALL", key) for key in connection("KEYS", "penstock:1:l:*")}
    finally:
        connection.close()


def held_in_redis(redis):
    return sum(int(value.split()[0]) for fields in leases(redis).values()
               for name, value in zip(fields[::2], fields[1::2]) if name.startswith(b"h"))


def holders(redis):
    """The hosts that hold some of a key."""
    return {name for fields in leases(redis).values() for name in fields[::2] if name.startswith(b"h")}


def test_a_busy_key_is_leased_and_what_lies_idle_is_given_back(hosts, redis):
    service, = hosts(1, "rate=10000r/s burst=10000", PATIENT)
    load = Load([service.port], seconds=1, threads=2)
    until(lambda: held_in_redis(redis) > 0, "some is held")
    load.join()
    assert not load.refused
    assert counted(service, "penstock_lease_charges_total", how="held") > len(load.admitted) * 0.9
    assert counted(service, "penstock_lease_trips_total") < len(load.admitted) * 0.2
    until(lambda: held_in_redis(redis) == 0, "all was given back")


def test_a_clean_stop_gives_back_what_was_held(hosts, redis):
    service, = hosts(1, "rate=1000r/s burst=1000", PATIENT)
    load = Load([service.port], seconds=0.5, threads=2)
    load.join()
    service.nginx.stop()
    # Known: one or two units of the last requests may stay held. They lapse with the lease.
    assert held_in_redis(redis) <= 2


def test_what_a_dead_host_held_lapses(hosts, redis):
    dying, other = hosts(2, "rate=1000r/s burst=1000", PATIENT)
    load = Load([dying.port], seconds=0.5, threads=2)
    until(lambda: holders(redis), "some is held")
    signal_all(dying, signal.SIGSTOP)
    dead = holders(redis)
    try:
        until(lambda: other.get("/?key=a").status == 200 and not dead & holders(redis), "its lease has ended", 10)
    finally:
        signal_all(dying, signal.SIGCONT)
    load.join()


@pytest.mark.parametrize("limit", ["rate=10r/m burst=4", "quota=4r/d", "rate=4r/h algorithm=sliding_log"])
def test_a_refused_request_costs_nothing_anywhere(hosts, penstock, redis, limit):
    server = """location / {
        penstock_limit zone=edge key=$arg_key LIMIT name=a;
        penstock_limit zone=edge key=$arg_key concurrency=1 name=c shared=off;
        penstock_limit zone=edge key=$arg_other rate=1r/h burst=1 name=b;
        empty_gif; }""".replace("LIMIT", limit)
    services = [penstock(http=f"penstock_zone edge 1m redis={redis.address} {PATIENT};", server=server) for _ in range(2)]
    until(lambda: known_hosts(redis) == 2, "all hosts have come to Redis")
    assert services[0].get("/?key=a&other=x").status == 200
    for _ in range(5):
        assert services[1].get("/?key=a&other=x").status == 429  # by b
    assert services[1].statuses(4, "/?key=a") == [200, 200, 200, 429]


def test_a_dry_run_asks_and_lets_pass(hosts):
    services = hosts(2, "rate=1r/h burst=1 dry_run=on", PATIENT)
    assert [service.get("/?key=a").status for service in services] == [200, 200]
    pages = [service.get("/metrics").text() for service in services]
    for outcome in ("passed", "rejected_dry_run"):
        assert sum(int(count) for page in pages for count in
                   re.findall(rf'^penstock_limit_requests_total{{.*outcome="{outcome}"}} (\d+)$', page, re.M)) == 1


def test_a_caller_that_leaves_while_it_waits_is_forgotten(hosts, redis):
    service, = hosts(1, "rate=10r/m burst=4", PATIENT)
    redis.stop_answering()
    clients = [service.client() for _ in range(3)]
    for client in clients:
        client._connection.request("GET", "/?key=a")
        client._connection.sock.close()
    time.sleep(0.1)
    redis.go_on()
    until(lambda: counted(service, "penstock_lease_up"), "Redis is back")
    until(lambda: service.get("/?key=a").status == 200, "what they were given has come back")


def test_a_reload_keeps_what_is_held_and_who_waits(hosts, redis):
    service, = hosts(1, "rate=10r/m burst=4", PATIENT, master=True)
    assert service.statuses(3, "/?key=a") == [200] * 3
    service.nginx.reload()
    assert service.statuses(2, "/?key=a") == [200, 429]


@pytest.mark.parametrize("redis", [("--appendonly", "yes", "--appendfsync", "always")], indirect=True)
@pytest.mark.parametrize("seed,rate,burst", [(1, 200, 40), (2, 2000, 2000)])
def test_four_hosts_keep_the_limit_while_they_and_redis_are_killed_and_stopped(hosts, redis, seed, rate, burst):
    random_ = random.Random(seed)
    services = hosts(4, f"rate={rate}r/s burst={burst}", "timeout=20ms on_error=deny")
    load = Load([service.port for service in services], seconds=7, threads=1, may_die=True)
    end = time.monotonic() + 6
    while time.monotonic() < end:
        time.sleep(random_.uniform(0.1, 0.6))
        what = random_.random()
        if what < 0.5:
            kill_and_start(random_.choice(services))
        elif what < 0.8:
            redis.stop_answering()
            time.sleep(random_.uniform(0.005, 0.3))
            redis.go_on()
        else:
            redis.kill()
            redis.start()
    load.join()
    assert len(load.admitted) > rate
    assert load.most_over(rate, burst) <= 0
    assert set(load.others) <= {503}


def test_a_host_whose_zones_share_is_one_host(penstock, redis):
    zones = "".join(f"penstock_zone {name} 1m redis={redis.address};\n" for name in ("edge", "other"))
    services = [penstock(http=zones, server=SERVER % "rate=10r/m burst=4") for _ in range(2)]
    until_they_know_each_other(services)
    assert known_hosts(redis) == 2
    assert all(counted(service, "penstock_lease_hosts", zone="other") == 2 for service in services)
