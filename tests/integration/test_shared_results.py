"""Results of shared jobs that are too large for Redis: in S3's protocol (s3rver), or in a folder that all hosts have."""

import json
import re
import socket
import threading
import time
import urllib.request

import pytest

from server import ModelServer
from shared_hosts import ALICE, BODY, BOB, HTTP, SERVER, get, post, promise, redis, until_known, until_status
from test_shared_answers import chunks, told
from test_results_storage import BUCKET, Front, Server
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
def fronted(folder):
    """In S3's protocol, behind a Front that notes, and holds up, what it is asked."""
    where = Stored(folder, "s3")
    with Front(where.s3) as where.front:
        where.yaml = where.yaml.replace(where.s3.url, where.front.url)
        yield where
        for gate in where.front.gates.values():
            gate.set()
    where.close()


@pytest.fixture
def host(redis, model, penstock):
    def build(stored, *engines, at=None, **queue):
        workers = [dict(name="http", engine="http", url=f'"{model.url}"', model="sim", slots=2) for _ in engines]
        yaml = f'redis: {{ url: "unix:{at or redis.socket}" }}\nstate: state\ndrain_timeout: 1s\n' + stored.yaml
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
    (name,) = stored.names()
    assert name.startswith(f"{id}.")
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


def test_events_of_a_large_result_go_on_where_they_were_broken_off(host, stored, redis):
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    id = done(edge, LARGE)
    run = int.from_bytes(redis.ask("GETRANGE", f"penstock:q1:{{default}}:j|{id}", 4, 7)) << 8
    result = get(edge, f"/jobs/{id}/result").text()
    for service in (edge, gpu):
        assert chunks(told(service, id, last=f"{run}-{LARGE}")) == result[LARGE:]
        assert chunks(told(service, id, last=f"{run}-0")) == result


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


NOTES = "penstock:q1:{default}:g"


def now_us(redis):
    seconds, us = redis.ask("TIME")
    return int(seconds) * 1_000_000 + int(us)


def outlives(redis, name, id):
    """Whether the result is to be removed once its job is forgotten."""
    left_ms = redis.ask("PTTL", f"penstock:q1:{{default}}:j|{id}")
    return left_ms > 0 and float(redis.ask("ZSCORE", NOTES, name)) > now_us(redis) + left_ms * 1000


def asked(stored, method):
    return [path for each, path in stored.front.asked if each == method]


def test_a_result_that_was_long_on_its_way_outlives_its_job_all_the_same(host, fronted, redis):
    """It is noted again as its job's end is told, from when it is kept."""
    edge, gpu = host(fronted), host(fronted, "http")
    until_known(edge)
    fronted.front.gates["PUT"] = threading.Event()
    id = promise(edge, {**BODY, "prompt": str(LARGE)}).json()["id"]
    until(lambda: asked(fronted, "PUT"), "it is on its way")
    (name,) = redis.ask("ZRANGE", NOTES, 0, -1)
    redis.ask("ZADD", NOTES, now_us(redis) + 300_000_000, name)  # as if that had been noted an hour ago
    fronted.front.gates["PUT"].set()
    until_status(edge, id, "completed", 60)
    until(lambda: outlives(redis, name.decode(), id), "it is noted again")


def test_a_result_on_its_way_to_who_waits_is_asked_for_once(host, fronted):
    edge, gpu = host(fronted), host(fronted, "http")
    until_known(edge)
    gate = fronted.front.gates["GET"] = threading.Event()
    replies = []
    asks = {"Prefer": "respond-async, wait=20"}
    caller = threading.Thread(target=lambda: replies.append(post(edge, asks, {**BODY, "prompt": str(LARGE)})))
    caller.start()
    until(lambda: asked(fronted, "GET"), "it is on its way")
    time.sleep(2.5)  # this test is about the clock: each second the edge looks for the end of what is waited for
    gate.set()
    caller.join()
    assert text(replies[0]) == content(LARGE)
    assert len(asked(fronted, "GET")) == 1


def test_a_result_goes_with_its_job_and_what_nobody_told_of_goes_as_well(host, stored, redis):
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    id = done(edge, LARGE)
    (name,) = stored.names()
    assert redis.ask("ZRANGE", NOTES, 0, -1) == [name.encode()]
    assert outlives(redis, name, id)
    redis.ask("ZADD", NOTES, 1, name)  # its time has come
    until(lambda: stored.names() == [] and redis.ask("ZCARD", NOTES) == 0, "it is removed", 30)


def test_a_result_goes_when_its_job_is_purged(host, stored, redis):
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    id, kept = done(edge, LARGE), done(edge, LARGE)
    assert text(get(edge, f"/jobs/{id}/result")) == content(LARGE)
    fetched = list(edge.penstockd.folder.glob("state/fetched/*"))
    assert edge.request("DELETE", f"/jobs/{id}?purge", ALICE).json()["purged"]
    until(lambda: [name.split(".")[0] for name in stored.names()] == [kept], "it is removed, and no other", 30)
    until(lambda: not any(file.exists() for file in fetched), "also what was brought here")
    assert text(get(gpu, f"/jobs/{kept}/result")) == content(LARGE)


class Line:
    """A line to Redis on which an answer is lost: that to the request that tells of a stored result. Redis has done it by then."""

    def __init__(self, path, target):
        self.lost = threading.Event()
        self._named = 0  # requests that name one: the first notes it
        self._target, self._sockets = target, []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            self._sockets += [near, far]
            cut = threading.Event()
            for source, to, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pass, args=(source, to, up, cut), daemon=True).start()

    def _pass(self, source, to, up, cut):
        try:
            while data := source.recv(1 << 20):
                if up:
                    self._named += len(re.findall(rb"job_\w{26}\.\w+", data))
                    if self._named == 2 and not self.lost.is_set():
                        cut.set()
                elif cut.is_set():
                    self.lost.set()
                    break
                to.sendall(data)
        except OSError:
            pass
        for each in (source, to):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        for each in (self._listener, *self._sockets):
            each.close()


def test_an_end_that_is_said_again_as_its_answer_was_lost_leaves_the_result_there(host, redis, folder):
    stored = Stored(folder, "folder")
    edge = host(stored)
    line = Line(str(folder / "line.sock"), str(redis.socket))
    try:
        host(stored, "http", at=folder / "line.sock")
        until_known(edge)
        id = done(edge, LARGE)
        assert line.lost.is_set()
        done(edge, LARGE)  # by then it has said so again, and what would be removed is
        assert text(get(edge, f"/jobs/{id}/result")) == content(LARGE)
    finally:
        line.close()


def test_a_store_that_is_away_leaves_what_fits_to_redis(host, folder):
    stored = Stored(folder, "s3")
    edge, gpu = host(stored), host(stored, "http")
    until_known(edge)
    stored.close()
    id = done(edge, LARGE)
    assert text(get(edge, f"/jobs/{id}/result")) == content(LARGE)
    assert "cannot be stored" in gpu.penstockd.process.text()
