"""penstock:events: every job's end is in one stream, whoever ran it, and config/events-consumer reads it."""

import json
import subprocess
from pathlib import Path

from shared_hosts import ALICE, BODY, SERVER, SLOW, host, job, post, promise, redis, until_known, until_one_runs, until_open, until_status, worker  # noqa: F401
from conftest import simulate
from waiting import until

CONSUMER = Path(__file__).parents[2] / "config/events-consumer"


def consume(redis):  # noqa: F811
    done = subprocess.run([CONSUMER, "--once", "-s", str(redis.socket)], capture_output=True, text=True, timeout=30, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def feed_host(penstock, redis, *workers, shared="true", **queue):  # noqa: F811
    text = f'redis: {{ url: "unix:{redis.socket}", events: 1000 }}\nstate: state\n'
    return penstock(http="penstock_zone edge 1m; penstock_tier free { rate 1000r/s; concurrency 2; }", server=SERVER, workers=list(workers),
                    yaml=text, queue={"shared": shared, **queue})


def until_events(redis, wanted):  # noqa: F811
    """How those jobs ended, once all of them are in the feed."""
    seen = {}

    def look():
        seen.update({each["id"]: each for each in consume(redis)})
        return wanted <= seen.keys()
    until(look, lambda: f"{wanted - seen.keys()} are in the feed")
    return seen


def test_every_end_of_a_shared_job_is_in_the_feed(penstock, redis):  # noqa: F811
    edge = feed_host(penstock, redis, attempts=1)
    gpu = feed_host(penstock, redis, worker(), worker(name="bad", failure_rate=1), attempts=1)
    good = until_known(edge)
    until_open(edge)
    waited = post(edge).headers["Penstock-Job-Id"]
    bad = promise(edge, {**BODY, "model": "bad"}).json()["id"]
    unwanted = promise(gpu, Penstock_Delay="60").json()["id"]
    assert edge.request("DELETE", f"/jobs/{unwanted}", ALICE).json()["status"] == "cancelled"
    seen = until_events(redis, {good, waited, bad, unwanted})
    assert {id: seen[id]["status"] for id in (good, waited, bad, unwanted)} == {
        good: "completed", waited: "completed", bad: "failed", unwanted: "cancelled"}
    event = seen[good]
    assert event["queue"] == "default" and event["model"] == "sim" and int(event["completion_tokens"]) > 0 and event["owner"]
    assert int(event["created_ms"]) <= int(event["started_ms"]) <= int(event["finished_ms"])
    assert seen[bad]["error_code"] == "engine_failed" and seen[bad]["attempts"] == "1"


def test_a_host_that_died_leaves_its_ends_to_others(penstock, redis):  # noqa: F811
    gpu = feed_host(penstock, redis, worker())
    ids = {until_known(gpu)} | {promise(gpu).json()["id"] for _ in range(20)}
    for id in ids:
        until_status(gpu, id, "completed")
    gpu.penstockd.kill()
    feed_host(penstock, redis)
    until_events(redis, ids)


def test_jobs_of_one_host_alone_are_in_the_feed_too(penstock, redis):  # noqa: F811
    alone = feed_host(penstock, redis, worker(), shared="false")
    id = until(lambda: (reply := post(alone, {"Prefer": "respond-async"})).status == 202 and reply, "it is taken").json()["id"]
    waited = post(alone).headers["Penstock-Job-Id"]
    seen = until_events(redis, {id, waited})
    assert seen[id]["status"] == seen[waited]["status"] == "completed"


def test_the_feed_is_cut(penstock, redis):  # noqa: F811
    text = f'redis: {{ url: "unix:{redis.socket}", events: 10 }}\nstate: state\n'
    alone = penstock(server="location /v1/ { penstock_pass gpu; }", workers=[simulate(slots=4, service_time="1ms")], yaml=text)
    for _ in range(300):
        assert alone.complete().status == 200
    until(lambda: 0 < redis.ask("XLEN", "penstock:events") <= 110, lambda: redis.ask("XLEN", "penstock:events"))
