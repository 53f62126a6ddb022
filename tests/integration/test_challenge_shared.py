"""Hosts that share limits through a real Redis sign challenges and passes by one secret, which lies there."""

import pytest

from hosts import until_they_know_each_other
from proof_of_work import Keys, mac, payload, solved
from test_challenge import LIMIT, asked, passed, server
from waiting import until

ROOMY = LIMIT.replace("verified=3r/h", "verified=1000r/h")
KEY = "penstock:1:challenge-secret"


@pytest.fixture
def host(penstock, redis):
    """host(): one more Nginx, a host of its own."""
    return lambda redis=redis, **parts: penstock(http=f"penstock_zone edge 1m redis={redis.address};", 
                                                server=server("algorithm=sha-256", limit=ROOMY), **parts)


def takes(service, carried):
    """Whether it takes the pass of somebody who is over the limit."""
    asked(service)
    return service.get("/?key=k", Penstock_Pass=carried).status == 200


def signs_by(service, secret, zone=b"edge", path="/?key=k"):
    challenge = asked(service, path)
    return mac(Keys(mac(secret, zone).digest()).signature, challenge["challenge"].encode()).hexdigest() == challenge["signature"]


def agreed(redis, *services):
    until_they_know_each_other(services)
    until(lambda: redis.ask("EXISTS", KEY), "Redis has the secret")
    until(lambda: all(signs_by(service, redis.ask("GET", KEY)) for service in services), "all have it")


def until_taken(service, carried):
    until(lambda: takes(service, carried), "the pass is taken")


def test_a_pass_of_one_host_is_good_on_another(redis, host):
    one, two = host(), host(processes=2)
    agreed(redis, one, two)
    secret = redis.ask("GET", KEY)
    assert len(secret) == 32 and redis.ask("TTL", KEY) == -1
    assert takes(two, passed(one))
    challenge = asked(one)
    answer = two.get("/?key=k", Penstock_Solution=payload(solved(challenge)))
    assert answer.status == 200
    one.nginx.reload()
    until_taken(one, answer.headers["Penstock-Pass"])
    assert redis.ask("GET", KEY) == secret


def test_a_pass_of_one_zone_is_none_in_another_of_the_same_redis(redis, penstock):
    other = f"location /other {{ {ROOMY.replace('zone=edge', 'zone=other')}; empty_gif; }}"
    service = penstock(http="".join(f"penstock_zone {zone} 1m redis={redis.address};" for zone in ("edge", "other")),
                       server=server("algorithm=sha-256", limit=ROOMY, more=other))
    until(lambda: redis.ask("EXISTS", KEY), "Redis has the secret")
    for zone, path in ((b"edge", "/?key=k"), (b"other", "/other?key=k")):
        until(lambda zone=zone, path=path: signs_by(service, redis.ask("GET", KEY), zone, path), "the zone has the secret")
    carried = passed(service)
    assert takes(service, carried)
    assert service.get("/other?key=k", Penstock_Pass=carried).status == 403


def test_what_was_signed_before_redis_came_stays_good(redis, host):
    redis.kill()
    one, two = host(), host()
    early = passed(one)
    assert takes(one, early) and not takes(two, early)
    redis.start()
    agreed(redis, one, two)
    assert takes(two, passed(one))
    assert takes(one, early) and not takes(two, early)


def test_a_redis_that_comes_back_empty_gets_the_secret_again(redis, host):
    one, two = host(), host()
    agreed(redis, one, two)
    assert takes(two, passed(one))
    carried, secret = passed(one), redis.ask("GET", KEY)
    redis.kill()
    assert takes(two, carried)
    redis.start()
    until(lambda: redis.ask("GET", KEY) == secret, "it is put back")
    redis.ask("FLUSHALL")
    until(lambda: redis.ask("GET", KEY) == secret, "it is put back")
    three = host()
    until_taken(three, carried)


def test_another_secret_is_learned_and_the_last_one_stays_good(redis, host):
    one = host()
    agreed(redis, one)
    carried = passed(one)
    redis.ask("SET", KEY, bytes(range(32)))
    until(lambda: signs_by(one, bytes(range(32))), "it has the other secret")
    assert takes(one, carried) and takes(one, passed(one))


@pytest.mark.parametrize("what", [b"short", b"x" * 33])
def test_a_secret_that_is_none_is_not_used(redis, host, what):
    redis.ask("SET", KEY, what)
    one = host()
    until(lambda: "is none; passes are good on this host alone" in one.nginx.log(), "it is told")
    assert takes(one, passed(one))


def test_a_secret_of_a_file_is_not_told(redis, penstock, folder):
    (folder / "secret").write_bytes(bytes(32))
    (folder / "secret").chmod(0o600)
    one = penstock(http=f"penstock_zone edge 1m redis={redis.address} secret_file={folder}/secret;", server=server())
    two = penstock(http=f"penstock_zone edge 1m redis={redis.address} prefix=other;", 
                   server=server(limit=LIMIT.replace("challenge verified=3r/h", "reject")))
    until_they_know_each_other([one])
    until_they_know_each_other([two])
    assert passed(one)
    assert redis.ask("KEYS", "*secret*") == []
