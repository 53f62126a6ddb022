"""What becomes of a shared queue while its Redis is away, or is not what it was; and what it needs of Redis."""

import time

import pytest

from chapter import block_with
from redis_server import RedisServer
from shared_hosts import (ALICE, BODY, HTTP, SERVER, ask, get, host, job, post, promise, redis, until_known, until_status, worker)
from waiting import until


def said(service):
    return service.penstockd.process.text()


def until_refused(service, **headers):
    return until(lambda: (reply := ask(service, **headers)).status == 503 and reply, "it is refused")


# ---- a host serves its own callers meanwhile

@pytest.fixture
def away(redis):
    """Redis, from here to the end of the block."""
    class Away:
        def __enter__(self):
            redis.stop_answering()

        def __exit__(self, *_):
            redis.go_on()
    yield Away()
    redis.go_on()


def until_alone(service):
    """Its job's id, once it knows that Redis is away."""
    until(lambda: "shared queues take no jobs" in said(service), "it knows")
    return until(lambda: (reply := ask(service)).status == 202 and reply, "it serves its own callers").json()["id"]


def test_while_redis_is_away_a_host_serves_its_own_callers_from_its_own_queue(host, away, redis):
    edge, gpu = host(on_error="local"), host(worker("100ms"), on_error="local")
    until_known(edge)
    until_known(gpu)
    with away:
        until_refused(edge)  # it has no worker of its own
        ids = [until_alone(gpu) for _ in range(4)]
        assert until_status(gpu, ids[0], "completed")
        assert post(gpu).status == 200
        assert get(gpu, f"/jobs/{ids[0]}/result").status == 200
    until_known(edge)
    for id in ids:  # what began here ends here, and is nowhere else
        assert until_status(gpu, id, "completed")["attempts"] == 0
        assert get(edge, f"/jobs/{id}").status == 404
        assert redis.ask("EXISTS", f"penstock:q1:{{default}}:j|{id}") == 0
    assert until_status(edge, promise(edge).json()["id"], "completed")


def test_what_a_host_took_alone_ends_there_though_it_is_started_anew(host, away):
    gpu = host(worker("300ms"), on_error="local")
    until_known(gpu)
    with away:
        ids = [until_alone(gpu) for _ in range(3)]
        gpu.penstockd.kill()
        gpu.penstockd.start()
    for id in ids:
        assert until_status(gpu, id, "completed")


def test_a_key_is_one_job_whether_redis_is_there_or_not(host, away):
    gpu = host(worker("100ms"), on_error="local")
    until_known(gpu)
    shared = promise(gpu, Idempotency_Key='"shared"').json()["id"]
    with away:
        until_alone(gpu)
        refused = ask(gpu, Idempotency_Key='"shared"')  # nobody knows what became of it
        assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
        alone = promise(gpu, Idempotency_Key='"alone"').json()["id"]
        assert promise(gpu, Idempotency_Key='"alone"').json()["id"] == alone
        assert ask(gpu, {**BODY, "prompt": "Something else"}, Idempotency_Key='"alone"').status == 422
    until(lambda: ask(gpu, Idempotency_Key='"shared"').status == 202, "Redis is back")
    assert promise(gpu, Idempotency_Key='"shared"').json()["id"] == shared
    assert promise(gpu, Idempotency_Key='"alone"').json()["id"] == alone
    until_status(gpu, alone, "completed")
    assert promise(gpu, Idempotency_Key='"alone"').json()["id"] == alone
    assert ask(gpu, {**BODY, "prompt": "Something else"}, Idempotency_Key='"alone"').status == 422


# ---- Redis is not what it was

def test_a_redis_that_has_become_a_replica_takes_no_jobs_until_it_is_a_master_again(host, redis):
    edge, gpu = host(), host(worker("300ms"))
    until_known(edge)
    id = promise(edge).json()["id"]
    redis.ask("REPLICAOF", "127.0.0.1", 1)
    until_refused(edge)
    until(lambda: "it is a replica" in said(edge) or "READONLY" in said(edge), "it is said")
    redis.ask("REPLICAOF", "NO", "ONE")
    assert until_status(edge, id, "completed")["attempts"] == 0
    until_known(edge)


def test_a_redis_that_is_slow_costs_time_and_nothing_else(host, redis):
    edge, gpu = host(), host(worker("50ms"))
    until_known(edge)
    for _ in range(3):
        redis.stop_answering()
        time.sleep(0.4)
        redis.go_on()
        assert until_status(edge, promise(edge).json()["id"], "completed")["attempts"] == 0


def test_the_data_of_other_versions_is_not_met(host, redis):
    for layout in ("q0", "q2"):
        redis.ask("SET", f"penstock:{layout}:{{default}}:s", "of another make")
    edge, gpu = host(), host(worker())
    until_known(edge)
    assert until_status(edge, promise(edge).json()["id"], "completed")
    assert redis.ask("GET", "penstock:q2:{default}:s") == b"of another make"


def test_keys_that_are_not_of_this_make_refuse_jobs_and_lose_none(host, redis):
    edge, gpu = host(), host(worker())
    until_known(edge)
    redis.ask("RENAME", "penstock:q1:{default}:s", "aside")
    redis.ask("SET", "penstock:q1:{default}:s", "of another make")
    until_refused(edge)
    until(lambda: "WRONGTYPE" in said(edge), "it is said")
    redis.ask("RENAME", "aside", "penstock:q1:{default}:s")
    assert until_status(edge, until_known(edge), "completed")


# ---- what Redis is asked to be

@pytest.fixture
def at(penstock):
    def build(url, *workers, more=""):
        return penstock(http=HTTP, server=SERVER, workers=list(workers), yaml=f"redis: {{ url: \"{url}\"{more} }}\nstate: state\ndrain_timeout: 1s\n", queue={"shared": "true"})
    return build


@pytest.mark.parametrize("options,words", [
    (["--appendonly", "no"], "keeps what it is told in its memory alone (appendonly no): a 202 holds until it ends"),
    (["--appendonly", "yes", "--appendfsync", "everysec"], "a 202 holds unless its machine loses power within 2 s"),
    (["--appendonly", "yes", "--appendfsync", "always"], None)])
def test_what_a_202_means_is_said_once_where_it_is_less(at, options, words):
    server = RedisServer(*options)
    try:
        edge = at(f"unix:{server.socket}", worker())
        until_known(edge)
        assert said(edge).count("a 202 ") == (1 if words else 0) and (words or "") in said(edge)
        connections = server.ask("CLIENT", "KILL", "TYPE", "normal")
        assert connections
        until_known(edge)
        assert said(edge).count("a 202 ") == (1 if words else 0)
    finally:
        server.close()


USER = block_with("docs/MANY_HOSTS.md", "ACL SETUSER").replace(">PASSWORD", ">secret").split()[3:]


@pytest.mark.parametrize("config", [True, False])
def test_a_user_of_just_these_rights_is_enough(at, redis, config, folder):
    redis.ask("ACL", "SETUSER", "penstock", *(right for right in USER if config or right != "+config|get"))
    password = folder / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    edge, gpu = (at(f"unix:{redis.socket}", *workers, more=f", user: penstock, password_file: {password}") for workers in ((), (worker(),)))
    until_known(edge)
    id = promise(edge, Idempotency_Key='"1"').json()["id"]
    assert until_status(edge, id, "completed")
    assert get(edge, f"/jobs/{id}/result").status == 200
    last = until_known(edge)
    assert edge.request("DELETE", f"/jobs/{last}", ALICE).status == 200
    assert ("does not say whether it keeps what it is told" in said(edge)) == (not config)
    refused = {entry[entry.index(b"object") + 1] for entry in redis.ask("ACL", "LOG")}
    assert refused == (set() if config else {b"config|get"})


def test_a_name_is_looked_up_and_each_of_its_addresses_is_tried(at):
    server = RedisServer("--bind", "127.0.0.1", tcp=True)  # localhost has another address as well, where nobody is
    try:
        edge, gpu = at(f"redis://localhost:{server.port}"), at(f"redis://localhost:{server.port}", worker())
        until_known(edge)
        assert until_status(edge, promise(edge).json()["id"], "completed")
        server.kill()
        until_refused(edge)
        server.start()
        until_known(edge)
    finally:
        server.close()


def test_a_name_that_nobody_has_is_said(at):
    edge = at("redis://nobody.invalid:6379")
    until(lambda: "no address is found for its name" in said(edge), "it is said", 30)
