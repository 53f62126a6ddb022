"""Shared queues of a Redis Cluster: each on the master that has its slot; and all that callers may ask for there, failovers in the middle."""

import json
import os
import shutil

import pytest

from redis_groups import Cluster
from shared_hosts import ALICE, HTTP, ask, get, post, promise, until_known, until_open, until_status, worker
from test_shared_answers import WHOLE, WORDS, ask_stream, chat, chunks, known, model, promise_stream, text_of, told  # noqa: F401 (model is a fixture)
from test_shared_webhooks import ids_of, until_told
from test_webhooks import SECRET, receiver  # noqa: F401 (a fixture)
from waiting import until

OTHERS = ("image", "speech", "batch", "embed", "night")
SERVER = """\
penstock_owner $http_authorization;
location = /v1/chat/completions { penstock_pass gpu queue=%s; }
location /v1/ { penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
"""
OTHER_BODY = {"model": "other", "messages": [{"role": "user", "content": "Tell me"}], "max_tokens": 8}


@pytest.fixture
def cluster(request):
    """Three masters; each with a replica where the test says so."""
    replicas = getattr(request, "param", False)
    group = Cluster("--appendonly", "yes", "--appendfsync", "always", count=6 if replicas else 3)
    if replicas:
        group.add_replicas()
    yield group
    group.close()


@pytest.fixture
def host(penstock, cluster):
    def build(*workers, other=None, yaml="", redis=""):
        url = "redis://" + ",".join(f"127.0.0.1:{server.port}" for server in cluster.servers[:3])
        service = penstock(http=HTTP, server=SERVER % (other or "default"), workers=list(workers), queue={"shared": "true"}, start=False,
                           yaml=f'redis: {{ url: "{url}"{redis} }}\nstate: state\ndrain_timeout: 1s\n{yaml}')
        if other:
            config = service.penstockd.config
            config.write_text(config.read_text().replace("  default:", f"  {other}: {{ shared: true }}\n  default:"))
        return service.start(ready=not other)
    return build


def master_of(cluster, queue="default"):
    return cluster.owner(cluster.slot(f"penstock:q1:{{{queue}}}:s"))


def ask_other(service, **headers):
    return service.request("POST", "/v1/chat/completions", {**ALICE, **{name.replace("_", "-"): value for name, value in headers.items()}},
                           OTHER_BODY)


def promise_other(service):
    return until(lambda: (reply := ask_other(service, Prefer="respond-async")).status == 202 and reply, "it is promised").json()["id"]


def test_queues_are_spread_and_one_goes_on_while_the_others_master_is_dead(cluster, host):
    other = next(name for name in OTHERS if master_of(cluster, name) is not master_of(cluster))
    edge, gpu = host(other=other), host(worker("50ms", slots=2), worker("1s", name="other", queue=other), other=other)
    until_known(edge)
    ids = [promise_other(edge) for _ in range(2)]
    until_status(gpu, ids[0], "processing")
    assert master_of(cluster).ask("DBSIZE") > 0 and master_of(cluster, other).ask("DBSIZE") > 0
    dead = master_of(cluster, other)
    dead.kill()
    refused = until(lambda: (reply := ask_other(edge, Prefer="respond-async")).status == 503 and reply, "it is refused")
    assert int(refused.headers["Retry-After"]) >= 1
    refused = ask_other(edge)
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
    until_open(edge)
    for service in (edge, gpu):
        done = promise(service).json()["id"]
        until_status(edge, done, "completed")
        assert get(gpu, f"/jobs/{done}/result").status == 200
        assert post(service).status == 200
        assert get(service, f"/jobs/{ids[1]}").status == 503  # nobody knows
        assert f"queue {other} takes no jobs: Redis at {dead.address}" in service.penstockd.process.text()
    dead.start()
    for id in (*ids, promise_other(gpu)):
        assert until_status(edge, id, "completed")["attempts"] == 0


def test_each_queue_whose_master_dies_is_told_of_and_what_that_has_lost_is_said_again_though_another_is_away(cluster, host):
    other = next(name for name in OTHERS if master_of(cluster, name) is not master_of(cluster))
    gpu = host(worker("50ms"), worker(name="other", queue=other), other=other)
    said = gpu.penstockd.process.text
    until_status(gpu, until_known(gpu), "completed")
    first, second = master_of(cluster, other), master_of(cluster)
    first.kill()
    until(lambda: f"queue {other} takes no jobs: Redis at {first.address}" in said(), "the first is told of")
    data, copy = second.folder / "appendonlydir", second.folder / "copy"
    shutil.copytree(data, copy)
    done = promise(gpu).json()["id"]
    until_status(gpu, done, "completed")
    second.kill()
    until(lambda: f"queue default takes no jobs: Redis at {second.address}" in said(), "the second is told of")
    shutil.rmtree(data)
    copy.rename(data)
    second.start()
    until(lambda: "queue default is reached again" in said(), "it is back")
    until(lambda: get(gpu, f"/jobs/{done}/result").status == 200, "it has the end that was told")
    assert f"queue {other} is reached again" not in said()
    first.start()
    until(lambda: f"queue {other} is reached again" in said(), "that is back, too")
    assert said().count("takes no jobs") == 2 and said().count("reached again") == 2, said()


@pytest.fixture
def hooks(folder):
    secret = folder / "webhook.secret"
    secret.write_text(SECRET + "\n")
    os.chmod(secret, 0o600)
    return f"webhooks: {{ secret_file: {secret}, allow: [127.0.0.1] }}\n"


def test_callers_of_a_queue_in_a_cluster_have_all_that_they_have_elsewhere(cluster, host, model, hooks, receiver):  # noqa: F811
    edge, gpu = (host(*workers, yaml=hooks, redis=", events: 1000") for workers in ((), (model.worker(slots=3),)))
    here = receiver()
    known(edge)

    model.let_all("b1")
    waited = edge.request("POST", "/v1/chat/completions", ALICE, chat("whole"))
    assert waited.status == 200 and waited.json()["choices"]
    assert text_of(ask_stream(edge, "b").events()) == WHOLE

    id = promise_stream(edge, "c")
    model.let(4, "c1")
    seen = told(edge, id, until_text=WORDS[3])
    model.let_all("c1")
    rest = told(gpu, id, last=seen[-1][1])
    assert chunks(seen) + chunks(rest) == get(edge, f"/jobs/{id}/result").text() and rest[-1][0] == "completed"

    model.let(1, "d1")
    answer = ask_stream(edge, "d")
    answer.next_event()
    assert gpu.request("DELETE", f"/jobs/{answer.headers['Penstock-Job-Id']}", ALICE).json()["status"] == "cancelled"
    assert json.loads(list(answer.events())[-1])["error"]["code"] == "cancelled"
    model.let(1, "e1")
    left = ask_stream(edge, "e")
    left.next_event()
    left.close()
    until(lambda: gpu.penstockd.queue().running == 0, "the slots are free")

    hooked = promise(edge, Penstock_Callback=here.url).json()["id"]
    until_told(gpu, hooked, "delivered")
    assert ids_of(here.posts) == [hooked]
    feed = cluster.owner(cluster.slot("penstock:events"))
    ids = {id: "completed", hooked: "completed", waited.headers["Penstock-Job-Id"]: "completed", answer.headers["Penstock-Job-Id"]: "cancelled"}

    def ends():
        events = [dict(zip(words[::2], words[1::2])) for _, words in feed.ask("XRANGE", "penstock:events", "-", "+")]
        return {event[b"id"].decode(): event[b"status"].decode() for event in events}
    until(lambda: ids.items() <= ends().items(), lambda: f"all ends are in the feed: {ends()}")


@pytest.mark.parametrize("cluster", [True], indirect=True)
@pytest.mark.parametrize("how", ["asked to", "its master killed"])
def test_an_answer_goes_on_whole_though_a_replica_is_promoted_in_mid_stream(cluster, host, model, how):
    edge, gpu = host(), host(model.worker(slots=2))
    known(edge)
    model.let(3)
    answer = ask_stream(edge)
    heard = [answer.next_event() for _ in range(3)]
    promised = promise_stream(edge, "p")
    model.let(2, "p1")
    until(lambda: gpu.penstockd.queue().running == 2, "both run")
    old = master_of(cluster)
    slot = cluster.slot("penstock:q1:{default}:s")
    replica = cluster.replica_of(old)
    if how == "asked to":
        replica.ask("CLUSTER", "FAILOVER")
    else:
        old.kill()
    until(lambda: any(low <= slot <= high and master[1] == replica.port for low, high, master, *_ in replica.ask("CLUSTER", "SLOTS")),
          "it has the slots", 30)
    model.let(3)
    heard += [answer.next_event() for _ in range(3)]
    model.let_all("a1", "p1")
    heard += answer.events()
    assert text_of(heard) == WHOLE and heard[-1] == "[DONE]"
    assert until_status(edge, promised, "completed")["attempts"] == 0
    later = until(lambda: (reply := ask(edge)).status == 202 and reply, "it is promised").json()["id"]
    assert until_status(gpu, later, "completed")["attempts"] == 0
