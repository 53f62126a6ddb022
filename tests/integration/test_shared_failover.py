"""A failover that loses what was acknowledged: the replica that is promoted has not heard of the last jobs, or of how they ended."""

import re
import signal

import pytest

from redis_groups import Watched
from redis_server import RedisError
from shared_hosts import HTTP, SERVER, ask, get, job, post, promise, until_known, until_one_runs, until_open, until_status, waiting_caller, worker
from waiting import until


@pytest.fixture
def watched(request):
    group = Watched(replicas=request.param)
    yield group
    group.close()


@pytest.fixture
def host(penstock, watched):
    def build(*workers, promise):
        url = "redis://" + ",".join(f"127.0.0.1:{each.port}" for each in watched.sentinels)
        return penstock(http=HTTP, server=SERVER, workers=list(workers), queue={"shared": "true"},
                        yaml=f'redis: {{ url: "{url}", sentinel: main, promise: "{promise}" }}\nstate: state\ndrain_timeout: 1s\n')
    return build


def said(*services):
    return "".join(service.penstockd.process.text() for service in services)


class Hung:
    """The replica that came last: from here on it hears nothing more; then all others die, and it is the master."""

    def __init__(self, watched):
        self._watched, self.server = watched, watched.servers[-1]
        self.server.stop_answering()
        master = watched.master
        replicas = re.findall(rb"^id=(\d+) ", master.ask("CLIENT", "LIST", "TYPE", "replica"), re.M)
        # What is on its way to it would be read once it goes on.
        assert master.ask("CLIENT", "KILL", "ID", max(map(int, replicas))) == 1

    def becomes_master(self):
        for server in self._watched.servers:
            if server is not self.server:
                server.kill()
        self.server.go_on()
        until(self._is_master, "it is the master", 30)

    def _is_master(self):
        try:
            return self.server.ask("ROLE")[0] == b"master" and self._watched.master is self.server
        except (OSError, RedisError):
            return False

    def has(self, id):
        return self.server.ask("EXISTS", f"penstock:q1:{{default}}:j|{id}") == 1


@pytest.mark.parametrize("watched", [2], indirect=True)
def test_what_a_replica_that_was_promoted_has_not_heard_of_is_announced_again(watched, host):
    edge, gpu = (host(*workers, promise="replicas:1") for workers in ((), (worker("500ms"),)))
    until_status(edge, until_known(edge), "completed")
    running = promise(edge).json()["id"]
    until_one_runs(gpu)
    hung = Hung(watched)
    ids = [promise(edge, Idempotency_Key=f'"{number}"').json()["id"] for number in range(3)]  # the other replica has them
    ended = until_status(edge, running, "completed")
    result = get(edge, f"/jobs/{running}/result").body
    hung.becomes_master()
    assert hung.server.ask("GETRANGE", f"penstock:q1:{{default}}:j|{running}", 0, 0) == b"\4"  # as far as it knows, that runs
    for id in ids:
        assert until_status(gpu, id, "completed", 30)
        assert get(edge, f"/jobs/{id}/result").status == 200
    until(lambda: job(gpu, running) == ended and get(edge, f"/jobs/{running}/result").body == result, "an end that was told holds")
    assert "it is in line again" in said(edge) and "Redis had lost the ends" in said(edge, gpu)
    refused = ask(edge)  # it has no replica
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("watched", [1], indirect=True)
def test_what_a_disk_alone_had_is_lost_by_a_failover_and_nobody_waits_for_it(watched, host):
    """promise: fsync says what one Redis's disk has."""
    edge, gpu = (host(*workers, promise="fsync") for workers in ((), (worker("60s"),)))
    kept = until_known(edge)
    until_one_runs(gpu)
    until_open(edge)
    hung = Hung(watched)
    lost = promise(edge, Idempotency_Key='"lost"').json()["id"]
    caller = waiting_caller(edge, watched.master)
    hung.becomes_master()
    assert caller.recv(4096).startswith(b"HTTP/1.1 503 ")
    until(lambda: get(edge, f"/jobs/{lost}").status == 404, "it is said to be unknown")
    assert job(gpu, kept)["status"] == "processing"  # the replica had it
    again = until(lambda: (reply := ask(edge, Idempotency_Key='"lost"')).status == 202 and reply, "who asks again is promised it anew")
    assert again.json()["id"] != lost
    assert "a failover may lose it" in said(edge)
