"""Limits that edges share (penstock_zone redis=) before a queue that hosts share: what is admitted on one edge and run on another host is
charged once, and settled once by what it took."""

import json

import pytest

from shared_hosts import redis, worker  # noqa: F401 (redis is a fixture)
from test_operator import ctl, said  # noqa: F401 (fixtures)
from test_shared_usage import ASYNC, BODY, PATH, KEY, ends, total
from test_usage import CHARGED
from waiting import until

LIMITS = """
    penstock_limit zone=edge key=$arg_key quota=1000r/M name=requests;
    penstock_limit zone=edge key=$arg_key quota=10000t/M name=tokens;
    penstock_limit zone=edge key=$arg_key quota=100gs/M name=gpu_ms;
"""
SERVER = f"""
    penstock_owner $arg_key;
    location /v1/ {{ {LIMITS} penstock_pass gpu; }}
    location /jobs {{ penstock_jobs gpu; }}
    location /console/ {{ penstock_console; }}
"""


@pytest.fixture
def host(penstock, redis):  # noqa: F811
    def build(*workers):
        return penstock(http=f"penstock_zone edge 1m redis={redis.address} timeout=500ms;", server=SERVER, workers=list(workers),
                        yaml=f'redis: {{ url: "unix:{redis.socket}" }}\nstate: state\ndrain_timeout: 1s\n', queue={"shared": "true"})
    return build


def counted(service):
    """What Redis has, as this edge tells it."""
    used = {row["name"]: row["used"] for row in service.get("/console/limits", Penstock_Key=KEY).json()["limits"]}
    return {**used, "gpu_ms": round(used["gpu_ms"] * 1000)}


def submit(service, **body):
    reply = service.request("POST", PATH, ASYNC, {**BODY, **body})
    assert reply.status == 202, reply.body
    return reply.json()["id"]


def until_known(service):
    """By somebody else's job, which no limit of ours is charged for."""
    until(lambda: service.request("POST", "/v1/completions?key=other", ASYNC, BODY).status == 202, "the model is known")
    until(lambda: service.request("POST", "/v1/completions?key=other", {}, {**BODY, "model": "none"}).status == 404, "callers may wait")


def until_completed(service, id):
    until(lambda: service.get(f"/jobs/{id}?key={KEY}").json()["status"] == "completed", f"{id} is completed")


def until_settled(said, edges, *hosts):  # noqa: F811
    """Until each edge tells what the ledgers of all hosts have together. That is returned."""
    def same():
        charged = {name: total(said, *hosts)[name] for name in CHARGED}
        return all(counted(edge) == charged for edge in edges) and charged
    return until(same, lambda: f"the ledgers say {total(said, *hosts)}, the limits {[counted(edge) for edge in edges]}")


def test_each_edge_counts_once_what_was_admitted_on_one_and_run_elsewhere(host, said):  # noqa: F811
    first, second, gpu = host(), host(), host(worker("5ms", slots=4))
    for edge in (first, second):
        until_known(edge)
    ids = []
    for edge in (first, second, first):
        ids.append(submit(edge))
        assert edge.request("POST", PATH, {}, BODY).status == 200
    for id in ids:
        until_completed(second, id)
    charged = until_settled(said, (first, second), first, second, gpu)
    assert charged["requests"] == 6 and charged["tokens"] == total(said, gpu)["tokens"] > 0
    for id in ids:  # who asks for the result at another edge is not charged again, nor is the job
        assert second.get(f"/jobs/{id}/result?key={KEY}").status == 200
    assert until_settled(said, (first, second), first, second, gpu) == charged


def test_a_promised_stream_is_settled_by_the_tokens_it_told(host, said):  # noqa: F811
    """Its parts go to the job's stream in Redis; nobody's connection has them."""
    first, second, gpu = host(), host(), host(worker("50ms", slots=2))
    for edge in (first, second):
        until_known(edge)
    ids = [submit(first, stream=True, max_tokens=n, stream_options={"include_usage": True}) for n in (3, 8)]
    told = 0
    for id in ids:
        until_completed(second, id)
        events = second.get(f"/jobs/{id}/result?key={KEY}").events()
        usage, = [json.loads(each)["usage"] for each in events if each != "[DONE]" and json.loads(each).get("usage")]
        told += usage["total_tokens"]
    charged = until_settled(said, (first, second), first, second, gpu)
    assert (charged["requests"], charged["tokens"]) == (2, told)


def test_what_another_edge_cancels_is_settled_once_where_it_was_charged(host, said):  # noqa: F811
    first, second, gpu = host(), host(), host(worker("60s", slots=2))
    for edge in (first, second):
        until_known(edge)
    until(lambda: gpu.penstockd.queue().running == 2, "others' jobs run")
    waiting = [submit(first) for _ in range(2)]
    for id in waiting:
        assert second.request("DELETE", f"/jobs/{id}?key={KEY}").json()["status"] == "cancelled"
    until(lambda: ends(said, first, second, gpu)["cancelled"] == 2, lambda: f"they are told: {ends(said, first, second, gpu)}")
    charged = until_settled(said, (first, second), first, second, gpu)
    assert charged["gpu_ms"] == 0 and charged["tokens"] == 0


def test_a_job_whose_host_was_killed_is_charged_once(host, said):  # noqa: F811
    first, second, gpu = host(), host(), host(worker("60s", slots=2))
    for edge in (first, second):
        until_known(edge)
    until(lambda: gpu.penstockd.queue().running == 2, "others' jobs run")
    gpu.penstockd.kill()
    id = submit(first)
    other = host(worker("5ms", slots=2))
    until_completed(second, id)
    charged = until_settled(said, (first, second), first, second, other)
    assert charged["requests"] == 1 and charged["tokens"] > 0
