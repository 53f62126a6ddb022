"""What the edge of a host that does not return had charged for promised jobs under limits in Redis is settled by another host's edge, once."""

import shutil
import sqlite3
import subprocess

import pytest

from hosts import kill
from processes import BUILD, environment
from shared_hosts import redis, worker  # noqa: F401 (redis is a fixture)
from test_operator import ctl, said  # noqa: F401 (fixtures)
from test_shared_settlement import ASYNC, BODY, KEY, SERVER, counted, submit, until_completed, until_known, until_settled
from waiting import until

QUEUE = "penstock:q1:{default}:"
MANY = {"max_tokens": 3000}
OTHER_TERMS = SERVER.replace("quota=10000t/M", "quota=10000t/d")


@pytest.fixture
def host(penstock, redis):  # noqa: F811
    def build(*workers, server=SERVER, limits=None, **queue):
        zone = f"penstock_zone edge 1m redis=unix:{(limits or redis).socket} prefix=limits timeout=500ms;"
        return penstock(http=zone, server=server, workers=list(workers), queue={"shared": "true", **queue},
                        yaml=f'redis: {{ url: "unix:{redis.socket}" }}\nstate: state\ndrain_timeout: 1s\n')
    return build


def order(service, *words):
    subprocess.run([BUILD / "penstockctl", *words, "-s", service.penstockd.socket], check=True, capture_output=True, timeout=30,
                   env=environment(service.folder))


def until_sealed(redis, edge):  # noqa: F811
    """The edge knows which Redis its limits are in: by somebody else's jobs."""
    until(lambda: len(note(redis, edge.request("POST", "/v1/completions?key=other", ASYNC, BODY).json()["id"])) > 8, "it seals what it charges")


def cluster(host, redis, edges=1, slots=4, **first):  # noqa: F811
    """A host with workers, whose queue is paused; one whose edge is to die; and others."""
    gpu, edge, others = host(worker("5ms", slots=slots, output_tokens=40)), host(**first), [host() for _ in range(edges)]
    for service in (edge, *others):
        until_known(service)
    order(gpu, "pause", "default")
    until_sealed(redis, edge)
    return gpu, edge, *others


def die(edge):
    """With all that it had on its disk."""
    edge.penstockd.kill()
    kill(edge)
    edge.nginx.process = None
    shutil.rmtree(edge.folder / "state")


def note(redis, id):  # noqa: F811
    """What Redis has of what was charged for the job."""
    return redis.ask("GET", f"{QUEUE}m|{id}") or b""


def until_noted(redis, *ids):  # noqa: F811
    until(lambda: all(len(note(redis, id)) > 8 for id in ids), "it is noted what was charged")


def miss(redis, id):  # noqa: F811
    """As if the job's home had been gone for half a minute."""
    redis.ask("ZADD", QUEUE + "M", "XX", 0, note(redis, id)[:8])


def until_inherited(redis, *ids):  # noqa: F811
    until(lambda: all(note(redis, id) == b"T" for id in ids), lambda: f"they are inherited: {[note(redis, id) for id in ids]}")


def kept(service):
    """How many receipts are on the host's disk. REQUIRES: its penstockd has ended."""
    store = sqlite3.connect(f"file:{service.folder}/state/jobs.db?mode=ro", uri=True)
    try:
        return store.execute("SELECT count(*) FROM away WHERE CAST(id AS TEXT) LIKE 'receipt %'").fetchone()[0]
    finally:
        store.close()


def test_what_a_host_that_does_not_return_charged_is_settled_once_by_one_of_the_others(host, said, redis):  # noqa: F811
    gpu, edge, *others = cluster(host, redis, edges=2)
    ids = [submit(edge, **MANY) for _ in range(3)]
    until_noted(redis, *ids)
    home = note(redis, ids[0])[:8]
    die(edge)
    assert counted(others[0])["tokens"] >= 9000
    order(gpu, "resume", "default")
    for id in ids:
        until_completed(others[0], id)
    miss(redis, ids[0])
    charged = until_settled(said, others, gpu, *others)
    assert charged["requests"] == 3 and 0 < charged["tokens"] < 400
    until_inherited(redis, *ids)
    until(lambda: redis.ask("ZSCORE", QUEUE + "M", home) is None, "nobody looks for more")
    assert until_settled(said, others, gpu, *others) == charged


def test_of_a_job_that_failed_all_is_given_back_and_of_one_that_was_cancelled_all_but_the_request(host, said, redis):  # noqa: F811
    gpu, edge, other = cluster(host, redis, deadline="2s")
    late, cancelled = submit(edge, **MANY), submit(edge, **MANY)
    until_noted(redis, late, cancelled)
    die(edge)
    assert other.request("DELETE", f"/jobs/{cancelled}?key={KEY}").json()["status"] == "cancelled"
    until(lambda: other.get(f"/jobs/{late}?key={KEY}").json()["status"] == "expired", "it was not started in time")
    miss(redis, late)
    until(lambda: counted(other) == {"requests": 1, "tokens": 0, "gpu_ms": 0}, lambda: f"it is given back: {counted(other)}")


def test_a_job_that_runs_is_settled_once_it_has_ended(host, said, redis):  # noqa: F811
    gpu, edge, other = cluster(host, redis)
    id = submit(edge, **MANY)
    until_noted(redis, id)
    home = note(redis, id)[:8]
    die(edge)
    miss(redis, id)
    until(lambda: float(redis.ask("ZSCORE", QUEUE + "M|" + home.decode(), id)) > 0, "it was looked at")
    assert counted(other)["tokens"] >= 3000
    order(gpu, "resume", "default")
    until_completed(other, id)
    redis.ask("ZADD", QUEUE + "M|" + home.decode(), 0, id)  # half a minute later
    until_settled(said, (other,), gpu, other)


def test_a_host_that_is_back_late_does_not_settle_what_another_has(host, said, redis):  # noqa: F811
    gpu, edge, other = cluster(host, redis)
    id = submit(edge, **MANY)
    until_noted(redis, id)
    edge.penstockd.kill()  # its edge knows still what it has charged
    assert kept(edge) >= 1
    order(gpu, "resume", "default")
    until_completed(other, id)
    miss(redis, id)
    charged = until_settled(said, (other,), gpu, other)
    until_inherited(redis, id)
    edge.penstockd.start()
    until(lambda: f"what job {id} was charged under limits in Redis has been settled by another host" in edge.penstockd.process.text(), "it hears so")

    def nothing_is_kept():
        edge.penstockd.stop()
        left = kept(edge)
        edge.penstockd.start()
        return left == 0
    until(nothing_is_kept, "its edge has seen to the rest")
    assert until_settled(said, (edge, other), gpu, other) == charged


def test_a_host_whose_nginx_and_penstockd_are_started_anew_settles_itself(host, said, redis):  # noqa: F811
    """Its zone has forgotten what it charged; Redis has not."""
    gpu, edge, other = cluster(host, redis)
    id = submit(edge, **MANY)
    until_noted(redis, id)
    edge.penstockd.kill()
    kill(edge)
    order(gpu, "resume", "default")
    until_completed(other, id)
    edge.nginx.start(edge.port)
    edge.penstockd.start()
    until_settled(said, (edge, other), gpu, edge, other)
    until(lambda: note(redis, id) in (b"S", b""), lambda: f"by itself: {note(redis, id)}")
