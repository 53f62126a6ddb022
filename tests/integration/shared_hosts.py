"""Several hosts that share a queue by a real Redis: penstockds, each behind an Nginx of its own, and what tests ask of them."""

import json
import socket

import pytest

from conftest import simulate
from redis_server import RedisServer
from waiting import until

HTTP = """\
penstock_zone edge 1m;
penstock_tier free { rate 1000r/s; concurrency 2; }  # of those that send Held
"""
SERVER = """\
penstock_owner $http_authorization;
location /v1/ { penstock_limit zone=edge key=$http_held tier=free; penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
"""
ALICE = {"Authorization": "Bearer alice"}
BOB = {"Authorization": "Bearer bob"}
BODY = {"model": "sim", "prompt": "Tell me", "max_tokens": 8}
SLOW = "60s"
LEASE = 8


@pytest.fixture
def redis():
    """One that keeps what it is told."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
    yield server
    server.close()


@pytest.fixture
def host(redis, penstock):
    def build(*workers, state=True, server=SERVER, yaml="", **queue):
        text = f'redis: {{ url: "unix:{redis.socket}" }}\n' + ("state: state\n" if state else "") + yaml
        text += "" if "drain_timeout" in yaml else "drain_timeout: 1s\n"
        return penstock(http=HTTP, server=server, workers=list(workers), yaml=text, queue={"shared": "true", **queue})
    return build


def worker(service_time="20ms", slots=1, **more):
    return simulate(slots=slots, service_time=service_time, **more)


def post(service, headers=(), body=None):
    return service.request("POST", "/v1/completions", {**ALICE, **dict(headers)}, body or BODY)


def ask(service, body=None, **headers):
    """For a promise, whatever comes of it."""
    return post(service, {"Prefer": "respond-async", **{name.replace("_", "-"): value for name, value in headers.items()}}, body)


def promise(service, body=None, **headers):
    reply = ask(service, body, **headers)
    assert reply.status == 202, (reply.status, reply.body)
    return reply


def get(service, path, who=ALICE):
    return service.request("GET", path, who)


def job(service, id, who=ALICE):
    return get(service, f"/jobs/{id}", who).json()


def until_status(service, id, status, seconds=20):
    until(lambda: job(service, id).get("status") == status, lambda: f"{id} is {status}; it is {job(service, id)}", seconds)
    return job(service, id)


def until_known(service, model="sim"):
    """The host has reached Redis, and knows who serves the model. The id of the job that has shown it."""
    reply = until(lambda: (reply := ask(service, {**BODY, "model": model})).status == 202 and reply, f"{model} is known")
    return reply.json()["id"]


def until_open(service):
    """Nginx lets callers wait: it asks penstockd, who does not know that model."""
    until(lambda: post(service, body={**BODY, "model": "none"}).status == 404, "the queue is open")


def until_one_runs(service):
    until(lambda: service.penstockd.queue().running == 1, "one runs")


def in_line(redis):
    return int(redis.ask("HGET", "penstock:q1:{default}:s", "w") or 0)


def waiting_caller(service, redis, asked=BODY):
    """Somebody who waits for an answer, and whose job is in line."""
    before = in_line(redis)
    caller = socket.create_connection(("127.0.0.1", service.port), 30)
    body = json.dumps(asked).encode()
    caller.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    until(lambda: in_line(redis) == before + 1, "the caller's job is in line")
    return caller
