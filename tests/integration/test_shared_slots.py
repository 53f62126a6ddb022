"""A queue of a Redis Cluster whose slot is moved to another master, as redis-cli moves one: key by key, while hosts use it."""

import pytest

from redis_groups import Cluster
from shared_hosts import ALICE, BODY, HTTP, SERVER, ask, get, promise, until_known, until_one_runs, until_open, until_status, worker
from test_shared_answers import WHOLE, ask_stream, known, model, text_of  # noqa: F401 (model is a fixture)
from waiting import until


@pytest.fixture
def cluster():
    group = Cluster("--appendonly", "yes", "--appendfsync", "always")
    yield group
    group.close()


@pytest.fixture
def host(penstock):
    def build(cluster, *workers, more=""):
        url = "redis://" + ",".join(f"127.0.0.1:{server.port}" for server in cluster.servers[:3])
        return penstock(http=HTTP, server=SERVER, workers=list(workers), queue={"shared": "true"},
                        yaml=f'redis: {{ url: "{url}"{more} }}\nstate: state\ndrain_timeout: 1s\n')
    return build


class Move:
    """Of the queue's slot, to a master that has not had it."""

    def __init__(self, cluster):
        self.slot = cluster.slot("penstock:q1:{default}:s")
        self.source = cluster.owner(self.slot)
        self.target = next(server for server in cluster.servers[:3] if server is not self.source)
        self._steps = cluster.move(self.slot, self.target)

    def begin(self):
        next(self._steps)

    def move_keys(self):
        next(self._steps)

    def end(self):
        assert list(self._steps) == []

    def give_up(self):
        for server in (self.source, self.target):
            server.ask("CLUSTER", "SETSLOT", self.slot, "STABLE")

    def keys_at(self, server):
        return server.ask("CLUSTER", "COUNTKEYSINSLOT", self.slot)


def said(service):
    return service.penstockd.process.text()


def until_refused(service):
    refused = until(lambda: (reply := ask(service)).status == 503 and reply, "it is refused")
    assert int(refused.headers["Retry-After"]) >= 1, refused.body


def test_a_queue_waits_while_its_slot_is_moved_and_goes_on_there(cluster, host):
    edge, gpu = host(cluster), host(cluster, worker("600ms"))
    ids = [until_known(edge), *(promise(edge, Idempotency_Key=f'"{number}"').json()["id"] for number in range(3))]
    until_one_runs(gpu)
    move = Move(cluster)
    keys = move.keys_at(move.source)
    move.begin()
    for service in (edge, gpu):
        until_refused(service)
        assert f"slot {move.slot} is being moved to {move.target.address}" in said(service)
    assert get(edge, f"/jobs/{ids[-1]}").status == 503
    until(lambda: gpu.penstockd.queue().running == 0, "what ran has run to its end")
    assert (move.keys_at(move.source), move.keys_at(move.target)) == (keys, 0)  # nothing is done on half of the data
    move.move_keys()
    until_refused(edge)
    assert (move.keys_at(move.source), move.keys_at(move.target)) == (0, keys)
    move.end()
    for id in ids:
        assert until_status(edge, id, "completed")["attempts"] == 0
    for service in (edge, gpu):
        assert promise(service, Idempotency_Key='"2"').json()["id"] == ids[-1]
        assert said(service).count("is being moved") == 1
    assert until_status(gpu, promise(edge).json()["id"], "completed")
    assert move.keys_at(move.source) == 0


def test_a_slot_that_is_not_moved_after_all_goes_on_where_it_is(cluster, host):
    edge, gpu = host(cluster), host(cluster, worker("200ms"))
    until_known(edge)
    id = promise(edge).json()["id"]
    move = Move(cluster)
    move.begin()
    until_refused(edge)
    move.give_up()
    assert until_status(gpu, id, "completed")["attempts"] == 0
    assert until_status(edge, until_known(edge), "completed")


def test_who_waits_while_a_slot_is_moved_gets_the_whole_answer(cluster, host, model):
    edge, gpu = host(cluster), host(cluster, model.worker(slots=2))
    known(edge)
    model.let(3)
    answer = ask_stream(edge)
    heard = [answer.next_event() for _ in range(3)]
    move = Move(cluster)
    move.begin()
    until_refused(edge)
    model.let(3)
    refused = edge.request("POST", "/v1/completions", ALICE, BODY)
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
    move.move_keys()
    move.end()
    heard += [answer.next_event() for _ in range(3)]
    model.let_all()
    heard += answer.events()
    assert text_of(heard) == WHOLE and heard[-1] == "[DONE]"
    until_open(edge)


def test_what_replicas_are_to_have_waits_and_is_promised_after_the_move(host):
    group = Cluster(count=6)
    try:
        group.add_replicas()
        edge, gpu = (host(group, *workers, more=', promise: "replicas:1"') for workers in ((), (worker("200ms"),)))
        ids = [until_known(edge), promise(edge).json()["id"]]
        move = Move(group)
        move.begin()
        until_refused(edge)
        move.move_keys()
        move.end()
        ids.append(until_known(edge))
        for id in ids:
            assert until_status(gpu, id, "completed")["attempts"] == 0
        assert "it is in line again" not in said(edge) + said(gpu)
    finally:
        group.close()
