"""What was charged under limits in Redis stands where it cannot be settled once for sure: the host that took it dies, the limit is another on
that host, or Redis has what no edge has written."""

import signal

from hosts import signal_all
from redis_server import RedisServer
from shared_hosts import redis  # noqa: F401 (a fixture)
from test_inherited_receipts import MANY, OTHER_TERMS, QUEUE, cluster, die, host, miss, note, order, until_inherited, \
    until_noted  # noqa: F401 (host is a fixture)
from test_operator import ctl, said  # noqa: F401 (fixtures)
from test_shared_settlement import KEY, counted, submit, until_completed, until_known
from waiting import until


def abandoned(host, redis, count=1, each=MANY, deadline="10m", **others):  # noqa: F811
    """Jobs whose home is gone; a host that runs them once its queue goes on; and the only one whose edge may take what was charged."""
    gpu, edge = cluster(host, redis, edges=0, deadline=deadline)
    ids = [submit(edge, **each) for _ in range(count)]
    until_noted(redis, *ids)
    taker = host(**others)
    until_known(taker)
    gpu.nginx.stop()
    die(edge)
    return gpu, taker, *ids


def left_behind(host, redis, **how):  # noqa: F811
    """The same, once they have been run."""
    gpu, taker, *ids = abandoned(host, redis, **how)
    order(gpu, "resume", "default")
    for id in ids:
        until_completed(taker, id)
    return taker, *ids


def settles_its_own(taker, others=True):
    """A job of its own is settled, which comes behind all that it was told before. What is charged then, without that job's."""
    if others:
        until(lambda: counted(taker)["requests"] > 0, "it has heard from the Redis of its limits what others were charged")
    before = counted(taker)["tokens"]
    id = submit(taker, max_tokens=500)
    until_completed(taker, id)
    until(lambda: before < counted(taker)["tokens"] < before + 200, lambda: f"it is settled: {before}, {counted(taker)}")
    return counted(taker)["tokens"]


def test_if_the_host_that_took_it_dies_before_it_has_settled_it_stands(host, redis):  # noqa: F811
    taker, id = left_behind(host, redis)
    signal_all(taker, signal.SIGSTOP)  # its edge hears, and does nothing
    home = note(redis, id)[:8]
    miss(redis, id)
    until_inherited(redis, id)
    signal_all(taker, signal.SIGKILL)
    taker.penstockd.kill()
    taker.nginx.process.wait()
    taker.nginx.process = None
    last = host()
    until_known(last)
    assert counted(last)["tokens"] >= 3000
    until(lambda: redis.ask("ZSCORE", QUEUE + "M", home) is None, "nobody looks for it any more")
    assert counted(last)["tokens"] >= 3000


def test_an_edge_that_is_started_anew_is_not_told_of_it_again(host, redis):  # noqa: F811
    """Nobody knows what the one before has done."""
    taker, id = left_behind(host, redis)
    signal_all(taker, signal.SIGSTOP)
    miss(redis, id)
    until_inherited(redis, id)
    signal_all(taker, signal.SIGKILL)
    taker.nginx.process.wait()
    taker.nginx.start(taker.port)
    assert settles_its_own(taker) >= 3000


def test_under_a_limit_of_other_terms_it_stands(host, redis):  # noqa: F811
    _, taker, id = abandoned(host, redis, deadline="2s", server=OTHER_TERMS)
    until(lambda: taker.get(f"/jobs/{id}?key={KEY}").json()["status"] == "expired", "all is to be given back")
    before = counted(taker)
    miss(redis, id)
    until_inherited(redis, id)
    until(lambda: 'under limit "tokens" of zone "edge" stands' in taker.nginx.log(), "the log says so")
    until(lambda: counted(taker) == {"requests": 0, "tokens": before["tokens"], "gpu_ms": 0}, lambda: f"under the others it is: {counted(taker)}")


def test_under_limits_in_another_redis_it_stands(host, redis):  # noqa: F811
    other = RedisServer()
    try:
        taker, id = left_behind(host, redis, limits=other)
        settles_its_own(taker, others=False)
        before = counted(taker)
        miss(redis, id)
        until_inherited(redis, id)
        until(lambda: "stands: that limit is not in a Redis here, or in another" in taker.nginx.log(), "the log says so")
        assert counted(taker) == before
    finally:
        other.close()


def test_what_no_edge_has_written_gives_nothing_back(host, redis):  # noqa: F811
    taker, forged, cut, junk, again, good = left_behind(host, redis, count=5, each={"max_tokens": 1000})
    home, written = note(redis, good)[:8], note(redis, forged)

    def put(id, receipt):
        redis.ask("SET", f"{QUEUE}m|{id}", home + receipt)
    at = written.index(b"tokens") + len(b"tokens") + 32  # its cost
    put(forged, written[8:at] + b"\xff\xff\xff\x7f" + written[at + 4:])
    put(cut, written[8:-5])
    put(junk, bytes(range(256)) * 120)
    put(again, note(redis, good)[8:])
    before = counted(taker)["tokens"]
    miss(redis, good)
    until_inherited(redis, forged, cut, junk, again, good)
    until(lambda: counted(taker)["tokens"] < before, "one is settled")
    assert before - 1000 < settles_its_own(taker) < before, "and one alone"
    assert taker.penstockd.process.alive() and "broke the protocol" not in taker.nginx.log()
