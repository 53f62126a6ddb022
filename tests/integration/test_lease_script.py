"""The scripts by which hosts share limits, through the real redis-server: random histories beside a slow exact model."""

import random
from fractions import Fraction
from pathlib import Path

import pytest

from redis_server import RedisError, RedisServer

SCRIPTS = Path(__file__).parents[2] / "shared" / "redis" / "scripts"
SECOND = 16_000_000  # ticks
LIFE = 2 * SECOND


@pytest.fixture(scope="module")
def server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def redis(server):
    connection = server.connect()
    connection("FLUSHALL")
    yield connection
    connection.close()


class Script:
    def __init__(self, redis, name):
        self._redis = redis
        self._sha = redis("SCRIPT", "LOAD", (SCRIPTS / f"{name}.lua").read_text())

    def __call__(self, key, *arguments):
        return self._redis("EVALSHA", self._sha, 1, key, *arguments)


class Lease(Script):
    def __init__(self, redis):
        super().__init__(redis, "lease")

    def __call__(self, now, host, interval, burst, seq=0, holds=0, back=0, waiting=0, each=1, batch=0, keep=0, correction=0, debt=0,
                 ahead=0, born=0, delay=0, key="bucket", life=LIFE):
        return super().__call__(key, now, host, interval, burst, life, seq, holds, back, waiting, each, batch, keep, correction, debt,
                                ahead, born, delay)


class Bucket:
    """The same, told in another way: what is in the bucket, and who holds what until when. All numbers are whole or fractions."""

    def __init__(self, interval, burst):
        self.interval, self.burst = interval, burst
        self.exists = False

    def out(self):
        return sum(units for units, _, _ in self.leases.values())

    def fill(self, now):
        """`level` is in units, below 0 where there is a debt."""
        self.level = min(self.level + Fraction(now - self.seen, self.interval), Fraction(self.burst - self.out()))
        self.seen = now

    def call(self, now, host, seq=0, holds=0, back=0, waiting=0, each=1, batch=0, keep=0, correction=0, debt=0, ahead=0, born=0, delay=0):
        if not self.exists:
            self.exists, self.level, self.leases, self.seen, self.born = True, Fraction(self.burst), {}, now, now
        if now < self.seen - SECOND:
            shift = self.seen - now
            self.leases = {h: (units, end - shift, n) for h, (units, end, n) in self.leases.items()}
            self.seen = now
        now = max(now, self.seen)
        if born != self.born:
            self.fill(now)
            self.level = min(self.level, self.burst - Fraction(ahead, self.interval))
        self.fill(now)
        self.lapsed = sum(units for units, end, _ in self.leases.values() if end <= now)
        self.leases = {h: lease for h, lease in self.leases.items() if lease[1] > now}
        own, _, last = self.leases.get(host, (0, 0, 0))
        valid, spent, over = 1, 0, 0
        if seq:
            if seq <= last:
                return [-1]
            if holds + back > own:
                self.lapsed += own
                valid, holds, back, own = 0, 0, 0, 0
            spent = own - holds - back
            self.level += back
            own = holds
            self.leases.pop(host, None)
            if own:
                self.leases[host] = (own, now + LIFE, seq)
        if correction > 0 and born == self.born:
            over = max(0, correction // self.interval - max(0, int(max(self.level, 0))))
            floor = -Fraction(debt, self.interval)
            self.level = min(self.level, max(self.level - Fraction(correction, self.interval), floor))
        if correction < 0 and born == self.born:
            self.level = min(self.level - Fraction(correction, self.interval), Fraction(self.burst - self.out()))
        served = max(0, min(waiting, int(max(self.level + Fraction(delay, self.interval), 0)) // each)) if waiting else 0
        self.level -= served * each
        granted = max(0, min(batch, int(max(self.level, 0)) - keep)) if seq and batch else 0
        self.level -= granted
        own += granted
        if seq and own:
            self.leases[host] = (own, now + LIFE, seq)
        fills = (self.burst - self.level) * self.interval
        assert fills.denominator == 1
        return [served, granted, int(fills), valid, self.born, self.out(), self.lapsed, spent, over]


@pytest.mark.parametrize("seed", range(60))
def test_the_script_answers_as_the_exact_model_does(redis, seed):
    random_ = random.Random(seed)
    lease = Lease(redis)
    interval = random_.choice([16, 17, 1601, 16_000, 1_600_000, 16_000_000, 9_600_000_000])
    burst = random_.choice([1, 2, 3, 10, 100, 100_000])
    bucket = Bucket(interval, burst)
    now, seqs = 10**15, {}
    known = {}
    for step in range(150):
        now += random_.choice([0, 1, random_.randrange(interval), random_.randrange(10 * interval + 1), random_.randrange(LIFE)])
        if random_.random() < 0.02:
            now -= random_.choice([SECOND // 3, 5 * SECOND])
        host = f"{random_.randrange(4)}"
        own = bucket.leases.get(host, (0, 0, 0))[0] if bucket.exists else 0
        words = {}
        if random_.random() < 0.7:
            seqs[host] = seqs.get(host, 0) + random_.choice([1, 1, 1, 7])
            words["seq"] = seqs[host] - random_.choice([0] * 9 + [3])
            if words["seq"] < 1:
                continue
            words["holds"] = random_.randrange(own + 1) if random_.random() < 0.95 else own + 1
            words["back"] = random_.randrange(own - words["holds"] + 1) if words["holds"] <= own else 0
            words["batch"] = random_.choice([0, 1, burst // 4, burst, 2 * burst])
            words["keep"] = random_.choice([0, 0, 1])
        if random_.random() < 0.5:
            words["waiting"], words["each"] = random_.randrange(4), random_.choice([1, 1, 2, burst])
            words["delay"] = random_.choice([0, 0, random_.randrange(2 * burst * interval)])
        if random_.random() < 0.2:
            words["correction"] = random_.choice([-1, 1]) * random_.randrange(3 * interval)
            words["debt"] = random_.randrange(burst * interval)
        if random_.random() < 0.8:
            words["born"] = known.get(host, 0)
            words["ahead"] = random_.randrange(burst * interval)
        told = lease(now, host, interval, burst, **words)
        assert told == bucket.call(now, host, **words), f"step {step}: {words}"
        if len(told) > 1:
            known[host] = told[4]


class Host:
    """One that spends what it holds at any time, early or late, loses answers, sends calls that come late, and dies."""

    def __init__(self, number):
        self.number = number
        self.begin_anew()

    def begin_anew(self):
        self.number += 1000
        self.holds, self.seq, self.ends = 0, 0, 0


@pytest.mark.parametrize("seed,hosts,interval,burst", [(1, 2, 1_600_000, 10), (2, 4, 16_000_000, 1), (3, 4, 160_000, 100),
                                                       (4, 16, 1_600_000, 20), (5, 3, 1601, 1000), (6, 16, 16_000_000, 3),
                                                       *((seed, 2, 1_600_000, 4) for seed in range(7, 13))])
def test_no_window_admits_more_than_the_burst_and_the_rate_whatever_dies_or_is_lost(redis, seed, hosts, interval, burst):
    random_ = random.Random(seed)
    lease = Lease(redis)
    now, all_hosts = 10**15, [Host(i) for i in range(hosts)]
    admitted, late = [], []
    for _ in range(4000):
        if random_.random() < 0.3:  # else much happens at one moment
            now += int(random_.expovariate(1 / interval))
        if random_.random() < 0.1:
            now += random_.randrange(1, burst + 1) * interval  # all is quiet: who hoards now has a full bucket beside it
        if random_.random() < 0.03:
            now += LIFE  # all that was held has lapsed
        host = random_.choice(all_hosts)
        if now >= host.ends:
            host.holds = 0
        what = random_.random()
        if what < 0.25:  # all that is there is wanted at once
            if random_.random() < 0.8:
                admitted += [now] * host.holds
                host.holds = 0
            admitted += [now] * lease(now, "another", interval, burst, waiting=burst)[0]
        elif what < 0.35 and host.holds:
            host.holds -= 1
            admitted.append(now)
        elif what < 0.37:
            host.begin_anew()
        elif what < 0.50 and late:  # a call that lay in a socket until now; nobody hears its answer
            lease(now, *late.pop(random_.randrange(len(late))))
        else:
            host.seq += 1
            back = random_.choice([0, host.holds, random_.randrange(host.holds + 1)])
            host.holds -= back
            call = (str(host.number), interval, burst, host.seq, host.holds, back, random_.choice([0, 0, 1, 2]), 1,
                    random_.choice([0, 0, max(1, burst // (2 * hosts)), burst]), 0)
            if random_.random() < 0.3:
                late.append(call)
                continue
            sent = now
            served, granted, _, valid, *_ = lease(now, *call)
            if random_.random() < 0.05:
                continue  # the answer is lost
            host.holds = granted + (host.holds if valid else 0)
            host.ends = sent + LIFE if host.holds else 0
            admitted += [now] * served
    full = 0  # one exact bucket, to which all that was admitted comes
    for at in admitted:
        full = max(full, at) + interval
        assert full - at <= burst * interval, f"at {at}: more than the limit"
    assert len(admitted) > 200


def test_a_batch_and_those_who_wait_share_what_there_is(redis):
    lease = Lease(redis)
    served, granted, fills, valid, _, out, *_ = lease(10**15, "a", 1_600_000, 10, seq=1, waiting=3, batch=20, keep=2)
    assert (served, granted, fills, valid, out) == (3, 5, 8 * 1_600_000, 1, 5)


def test_a_bucket_that_redis_has_lost_goes_on_where_the_host_last_knew_it(redis):
    lease = Lease(redis)
    _, _, fills, _, born, *_ = lease(10**15, "a", 1_600_000, 10, waiting=10)
    redis("FLUSHALL")
    assert lease(10**15 + 16, "a", 1_600_000, 10, waiting=10, ahead=fills, born=born)[0] == 0
    assert lease(10**15 + 1_600_000 + 16, "a", 1_600_000, 10, waiting=10)[0] == 1


def test_what_is_given_back_is_there_at_once_and_what_is_spent_is_not(redis):
    lease = Lease(redis)
    assert lease(10**15, "a", 16_000_000, 10, seq=1, batch=10)[1] == 10
    assert lease(10**15, "b", 16_000_000, 10, waiting=1)[0] == 0
    lease(10**15, "a", 16_000_000, 10, seq=2, holds=3, back=4)  # and 3 were spent
    assert lease(10**15, "b", 16_000_000, 10, waiting=10)[0] == 4


def test_keys_expire_when_nothing_of_them_is_left(redis):
    lease = Lease(redis)
    lease(0, "a", 16_000, 10, seq=1, waiting=1, batch=3)
    assert 2000 < redis("PTTL", "bucket") <= 3100


@pytest.mark.parametrize("put", [("SET", "bucket", "1"), ("HSET", "bucket", "name", "x"), ("RPUSH", "bucket", "1"),
                                 ("HSET", "bucket", "t", "x", "o", "1", "n", "1", "l", "1", "b", "1"),
                                 ("HSET", "bucket", "t", "1", "o", "1", "n", "1", "l", "1", "b", "1", "ha", "much")])
def test_what_is_not_ours_is_left_alone(redis, put):
    redis(*put)
    before = redis("DUMP", "bucket")
    with pytest.raises(RedisError, match="FOREIGN|WRONGTYPE"):
        Lease(redis)(10**15, "a", 16_000, 10, seq=1, waiting=1, batch=1)
    assert redis("DUMP", "bucket") == before


def test_hosts_are_counted_while_they_call(redis):
    hosts = Script(redis, "hosts")
    assert hosts("hosts", 1000, "a", 3000) == 1
    assert hosts("hosts", 2000, "b", 3000) == 2
    assert hosts("hosts", 4500, "b", 3000) == 1
    assert hosts("hosts", 4600, "b", 0) == 0


def test_a_reset_fills_the_bucket_to_what_is_not_held(redis):
    lease = Lease(redis)
    _, _, fills, _, born, *_ = lease(10**15, "a", 1_600_000, 10, seq=1, waiting=5, batch=3)
    assert Script(redis, "reset")("bucket", 0) == 1
    assert lease(10**15, "b", 1_600_000, 10, waiting=10, ahead=fills, born=born)[0] == 7
    assert lease(10**15, "a", 1_600_000, 10, seq=2, holds=3, born=born)[3] == 1
