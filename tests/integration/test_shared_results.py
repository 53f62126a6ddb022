"""Results of shared jobs that are too large for Redis: in S3's protocol (s3rver), or in a folder that all hosts have."""

import json
import urllib.request

import pytest

from server import ModelServer
from shared_hosts import ALICE, BODY, BOB, HTTP, SERVER, get, promise, redis, until_known, until_status
from test_results_storage import BUCKET, Server
from waiting import until

LARGE = 300_000
HUGE = 20 << 20  # more than Redis would keep


def answer(asked, reply):
    """As many bytes as its prompt says, and which they are can be told."""
    size = int(asked.json()["prompt"]) if asked.json().get("prompt", "").isdigit() else 10
    reply({"choices": [{"index": 0, "text": content(size)}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


@pytest.fixture
def model():
    server = ModelServer(answer)
    yield server
    server.close()


class Stored:
    """Where results lie: `yaml` says so, and `names()` are there."""

    def __init__(self, folder, kind):
        self.kind, self.folder = kind, folder / "kept"
        self.s3 = Server(folder) if kind != "folder" else None
        if self.s3:
            key = folder / "s3.key"
            key.write_text("S3RVER:S3RVER\n")
            key.chmod(0o600)
            serve = ", serve: redirect" if kind == "redirect" else ""
            self.yaml = f'results: {{ s3: "{self.s3.url}", bucket: {BUCKET}, key_file: {key}, region: us-east-1, prefix: "results/"{serve} }}\n'
        else:
            self.folder.mkdir()
            self.yaml = f"results: {{ folder: {self.folder} }}\n"

    def names(self):
        if not self.s3:
            return sorted(path.name for path in self.folder.iterdir())
        home = self.s3.folder / BUCKET / "results"
        return sorted(path.name.split("._S3rver")[0] for path in home.glob("*_object")) if home.is_dir() else []

    def close(self):
        if self.s3:
            self.s3.stop()


@pytest.fixture(params=["folder", "s3"])
def stored(request, folder):
    where = Stored(folder, request.param)
    yield where
    where.close()


@pytest.fixture
def host(redis, model, penstock):
    def build(stored, *engines, **queue):
        workers = [dict(name="http", engine="http", url=f'"{model.url}"', model="sim", slots=2) for _ in engines]
        yaml = f'redis: {{ url: "unix:{redis.socket}" }}\nstate: state\ndrain_timeout: 1s\n' + stored.yaml
        return penstock(http=HTTP, server=SERVER, workers=workers, yaml=yaml, queue={"shared": "true", **queue})
    return build


def done(service, size):
    id = promise(service, {**BODY, "prompt": str(size)}).json()["id"]
    until_status(service, id, "completed", 60)
    return id


def content(size):
    return ("0123456789abcdef" * (size // 16 + 1))[:size]


def text(reply):
    assert reply.status == 200, (reply.status, reply.body[:300])
    return reply.json()["choices"][0]["text"]


def test_a_large_result_is_served_whole_and_in_ranges_by_each_host(host, stored, redis):
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    id = done(edge, LARGE)
    assert stored.names() == [f"{id}.1"]
    assert redis.ask("STRLEN", f"penstock:q1:{{default}}:j|{id}") < 5000
    for service in (edge, gpu):
        result = get(service, f"/jobs/{id}/result")
        assert text(result) == content(LARGE) and result.headers["Content-Type"] == "application/json"
        part = service.request("GET", f"/jobs/{id}/result", {**ALICE, "Range": "bytes=16-31"})
        assert (part.status, part.body) == (206, result.body[16:32])
        assert get(service, f"/jobs/{id}/result", BOB).status == 404


def test_what_is_small_stays_in_redis(host, stored):
    gpu = host(stored, "http")
    until_known(gpu)
    id = done(gpu, 1000)
    assert stored.names() == [] and text(get(gpu, f"/jobs/{id}/result")) == content(1000)


def test_a_result_may_be_larger_than_redis_would_keep(host, folder):
    stored = Stored(folder, "folder")
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    id = done(edge, HUGE)
    assert text(get(edge, f"/jobs/{id}/result")) == content(HUGE)


def test_who_waits_on_another_host_and_who_asks_again_by_key_get_all_of_it(host, stored):
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    asked = {**BODY, "prompt": str(LARGE)}
    headers = {**ALICE, "Prefer": "respond-async, wait=20", "Idempotency-Key": '"1"'}
    for service in (edge, gpu, edge):
        reply = service.request("POST", "/v1/completions", headers, asked)
        assert text(reply) == content(LARGE)


def test_a_caller_is_sent_to_the_store_where_that_is_asked_for(host, folder):
    stored = Stored(folder, "redirect")
    try:
        edge, gpu = host(stored), host(stored, "http")
        until_known(edge)
        id = done(edge, LARGE)
        sent = get(edge, f"/jobs/{id}/result")
        assert sent.status == 302 and sent.headers["Location"].startswith(stored.s3.url)
        with urllib.request.urlopen(sent.headers["Location"]) as reply:
            assert json.loads(reply.read())["choices"][0]["text"] == content(LARGE)
    finally:
        stored.close()


def test_a_result_goes_with_its_job_and_what_nobody_told_of_goes_as_well(host, stored, redis):
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    id = done(edge, LARGE)
    key = "penstock:q1:{default}:g"
    assert redis.ask("ZRANGE", key, 0, -1) == [f"{id}.1".encode()]
    assert float(redis.ask("ZSCORE", key, f"{id}.1")) / 1e6 > redis.ask("PTTL", f"penstock:q1:{{default}}:j|{id}") / 1000
    redis.ask("ZADD", key, 1, f"{id}.1")  # its time has come
    until(lambda: stored.names() == [] and redis.ask("ZCARD", key) == 0, "it is removed", 30)


def test_a_store_that_is_away_leaves_what_fits_to_redis(host, folder):
    stored = Stored(folder, "s3")
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    stored.close()
    id = done(edge, LARGE)
    assert text(get(edge, f"/jobs/{id}/result")) == content(LARGE)
    assert "cannot be stored" in gpu.penstockd.process.text()
