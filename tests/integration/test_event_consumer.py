"""config/events-consumer where consumers die and Redis is away, and what the feed of events (penstock:events) keeps meanwhile."""

import json
import subprocess

import pytest

from conftest import simulate
from shared_hosts import redis  # noqa: F401 (a fixture)
from test_event_feed import CONSUMER
from waiting import until
from wire import DONE, FAILED, SUBMIT, Connection, frame

STREAM, GROUP = "penstock:events", "billing"
KEPT = 10_000  # by a host in its memory
AT_ONCE = 64


def consume(redis, *words):  # noqa: F811
    done = subprocess.run([CONSUMER, "--once", "-s", str(redis.socket), *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["id"] for line in done.stdout.splitlines()]


@pytest.fixture
def feed(redis):  # noqa: F811
    """Five ends; the first two were taken by a consumer that has died since."""
    for number in range(5):
        redis.ask("XADD", STREAM, "*", "id", f"job_{number}", "status", "completed")
    redis.ask("XGROUP", "CREATE", STREAM, GROUP, 0)
    taken = redis.ask("XREADGROUP", "GROUP", GROUP, "billing-1", "COUNT", 2, "STREAMS", STREAM, ">")
    assert len(taken[0][1]) == 2
    return redis


def pending(redis):  # noqa: F811
    return redis.ask("XPENDING", STREAM, GROUP)[0]


def test_a_consumer_begins_with_what_an_earlier_life_of_it_did_not_acknowledge(feed):
    assert consume(feed) == [f"job_{number}" for number in range(5)]
    assert pending(feed) == 0 and consume(feed) == []


def test_what_another_consumer_took_is_taken_over_once_that_has_been_silent(feed):
    assert consume(feed, "--name", "billing-2") == ["job_2", "job_3", "job_4"]
    assert pending(feed) == 2  # it may still be at it
    assert consume(feed, "--name", "billing-2", "--claim-after", 0) == ["job_0", "job_1"]
    assert pending(feed) == 0 and consume(feed) == []


def test_more_than_is_taken_over_at_once_is(redis):  # noqa: F811
    for number in range(250):
        redis.ask("XADD", STREAM, "*", "id", number)
    redis.ask("XGROUP", "CREATE", STREAM, GROUP, 0)
    redis.ask("XREADGROUP", "GROUP", GROUP, "billing-1", "COUNT", 250, "STREAMS", STREAM, ">")
    assert consume(redis, "--name", "billing-2", "--claim-after", 0) == [str(number) for number in range(250)]
    assert pending(redis) == 0


@pytest.mark.parametrize("name", ["billing-1", "billing-2"])
def test_what_was_cut_before_it_was_billed_holds_up_nobody(feed, name):
    feed.ask("XTRIM", STREAM, "MAXLEN", 3)
    assert consume(feed, "--name", name, "--claim-after", 0) == ["job_2", "job_3", "job_4"]
    assert pending(feed) == 0


def test_who_finds_no_redis_says_so(redis):  # noqa: F811
    redis.kill()
    done = subprocess.run([CONSUMER, "--once", "-s", str(redis.socket)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and done.stderr.startswith("events-consumer: ") and "connect" in done.stderr, done


# ---- what penstockd keeps

def run_jobs(service, count, first=0):
    """As many, each labelled with its number, through one connection."""
    caller = Connection(service.penstockd.socket)
    for begin in range(first, first + count, 100):
        for number in range(begin, min(begin + 100, first + count)):
            caller.send(frame(SUBMIT, number + 1, model="sim", method="POST", path="/work", body="x"))
        left = min(100, first + count - begin)
        while left:
            kind, _, _ = caller.receive()
            assert kind != FAILED
            left -= kind == DONE
    caller.close()


def test_while_redis_is_away_a_host_keeps_ten_thousand_ends_and_says_that_it_dropped_the_rest(penstock, redis):  # noqa: F811
    """Here Redis keeps what it was told, so that what is counted is what came in."""
    service = penstock(server="location /v1/ { penstock_pass gpu; }", workers=[simulate(slots=100, service_time="1ms")],
                       queue={"max_length": 1000}, yaml=f'redis: {{ url: "unix:{redis.socket}", events: 100000 }}\nstate: state\n')
    run_jobs(service, 50)
    until(lambda: redis.ask("XLEN", STREAM) == 50, lambda: f"the feed is there: {redis.ask('XLEN', STREAM)}")
    redis.kill()
    run_jobs(service, KEPT - AT_ONCE)
    assert "the feed of events misses" not in service.penstockd.process.text()
    run_jobs(service, 500)
    until(lambda: "the feed of events misses some of this host's: Redis does not answer" in service.penstockd.process.text(), "it is said")
    redis.start()
    until(lambda: "the feed of events goes on" in service.penstockd.process.text(), "it goes on")
    until(lambda: redis.ask("XLEN", STREAM) >= KEPT, lambda: f"what was kept is there: {redis.ask('XLEN', STREAM)}", 30)
    run_jobs(service, 1)
    ids = {id.decode() for (_, words) in redis.ask("XRANGE", STREAM, "-", "+") for name, id in zip(words[::2], words[1::2]) if name == b"id"}
    until(lambda: redis.ask("XLEN", STREAM) <= 50 + KEPT + AT_ONCE + 1, "no more than was kept")
    assert KEPT - AT_ONCE <= len(ids) <= 50 + KEPT + AT_ONCE + 1
    assert service.penstockd.process.text().count("the feed of events misses") == 1
