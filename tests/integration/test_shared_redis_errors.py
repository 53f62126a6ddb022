"""What Redis may answer instead of doing it (BUSY, MISCONF, LOADING, NOREPLICAS, OOM): new callers are told, and nothing else is lost."""

import os
import time

import pytest

from redis_server import RedisError, RedisServer
from server import completion
from shared_hosts import ALICE, BODY, HTTP, SERVER, ask, get, post, promise, until_known, until_open, until_status, worker
from test_shared_answers import WHOLE, Model, ask_stream, chat, known, promise_stream, text_of
from test_shared_webhooks import ids_of, until_told
from test_webhooks import SECRET, receiver  # noqa: F401 (a fixture)
from waiting import until

LARGE = "x" * 300_000  # goes to the folder of results


class Busy:
    def begin(self, redis):
        redis.ask("CONFIG", "SET", "busy-reply-threshold", 10)
        self._connection = redis.connect()
        self._connection.send([("EVAL", "while true do end", 0)])

        def refuses():
            try:
                redis.ask("GET", "x")
            except RedisError as error:
                return str(error).startswith("BUSY")
        until(refuses, "it is busy")

    def end(self, redis):
        redis.ask("SCRIPT", "KILL")


class Misconf:
    """It cannot write its data, and takes no more of it."""

    def begin(self, redis):
        redis.ask("CONFIG", "SET", "save", "3600 1")
        redis.ask("CONFIG", "SET", "dir", "/proc")
        redis.ask("BGSAVE")
        until(lambda: b"rdb_last_bgsave_status:err" in redis.ask("INFO", "persistence"), "it has failed")

    def end(self, redis):
        redis.ask("CONFIG", "SET", "dir", redis.folder)
        redis.ask("CONFIG", "SET", "save", "")


class NoReplicas:
    def begin(self, redis):
        redis.ask("CONFIG", "SET", "min-replicas-to-write", 1)

    def end(self, redis):
        redis.ask("CONFIG", "SET", "min-replicas-to-write", 0)


class Loading:
    """It was started anew, and reads 4000 keys, each slowly."""

    def begin(self, redis):
        redis.ask("BGREWRITEAOF")
        until(lambda: b"aof_rewrite_in_progress:0" in (told := redis.ask("INFO", "persistence")) and b"aof_last_bgrewrite_status:ok" in told,
              "its data is in one file")
        redis.kill()
        redis.options += ["--key-load-delay", "600", "--loading-process-events-interval-bytes", "1024"]
        redis.start()

    def end(self, redis):
        until(lambda: b"loading:0" in redis.ask("INFO", "persistence"), "it has read all")


TROUBLES = [Busy, Misconf, NoReplicas, Loading]


@pytest.fixture
def redis():
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always", "--enable-protected-configs", "yes")
    server.ask("EVAL", "for i = 1, 4000 do redis.call('SET', 'filler' .. i, i) end", 0)
    yield server
    server.close()


class Answers(Model):
    """As Model's; of "large" it is long, and waits to be let."""

    def _answer(self, asked, reply):
        asks = asked.json().get("messages", [{}])[0].get("content")
        if asks == "large":
            self.begun[asks] += 1
            self.turns["large1"].get()
            return reply(completion(LARGE))
        return super()._answer(asked, reply)


@pytest.fixture
def model():
    it = Answers()
    yield it
    it.let_all("large1", *it.turns)
    it.server.close()


@pytest.fixture
def host(penstock, redis, folder):
    secret = folder / "webhook.secret"
    secret.write_text(SECRET + "\n")
    os.chmod(secret, 0o600)
    (folder / "results").mkdir()
    yaml = f'redis: {{ url: "unix:{redis.socket}", events: 1000 }}\nstate: state\ndrain_timeout: 1s\n' \
           f"webhooks: {{ secret_file: {secret}, allow: [127.0.0.1] }}\nresults: {{ folder: {folder}/results, from: 64KiB }}\n"

    def build(*workers):
        return penstock(http=HTTP, server=SERVER, workers=list(workers), yaml=yaml, queue={"shared": "true"})
    return build


def said(service):
    return service.penstockd.process.text()


def assert_refused(reply):
    assert reply.status == 503 and int(reply.headers["Retry-After"]) >= 1, (reply.status, reply.body)


def until_refused(service):
    assert_refused(until(lambda: (reply := ask(service)).status == 503 and reply, "it is refused"))


def in_feed(redis, ids):
    events = [dict(zip(words[::2], words[1::2])) for _, words in redis.ask("XRANGE", "penstock:events", "-", "+")]
    return sorted(event[b"id"].decode() for event in events if event[b"id"].decode() in ids) == sorted(ids)


def promise_chat(service, name, **headers):
    reply = service.request("POST", "/v1/chat/completions", {**ALICE, "Prefer": "respond-async", **headers}, chat(name))
    assert reply.status == 202, reply.body
    return reply.json()["id"]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_new_callers_are_told_and_all_else_goes_on_afterwards(host, model, redis, receiver, trouble):  # noqa: F811
    edge, gpu, here, trouble = host(), host(model.worker(slots=4)), receiver(), trouble()
    known(edge)
    model.let(3, "away1"), model.let(3, "own1")
    away, own = ask_stream(edge, "away"), ask_stream(gpu, "own")
    heard = {each: [each.next_event() for _ in range(3)] for each in (away, own)}
    stream = promise_stream(edge, "p")
    model.let(2, "p1")
    large = promise_chat(edge, "large", **{"Penstock-Callback": here.url})
    until(lambda: model.begun["large"] == 1 and gpu.penstockd.queue().running == 4, "all run")
    trouble.begin(redis)
    began = time.monotonic()
    for service in (edge, gpu):
        until_refused(service)
        assert_refused(post(service))
        assert_refused(get(service, f"/jobs/{large}")) if service is edge else None
    model.let_all("own1")
    heard[own] += own.events()  # which needs no Redis
    assert text_of(heard[own]) == WHOLE and heard[own][-1] == "[DONE]"
    model.let_all("away1", "p1", "large1")
    until(lambda: gpu.penstockd.queue().running == 0, "what ran has run to its end")
    trouble.end(redis)
    assert time.monotonic() - began < 6, "its lease has ended"
    heard[away] += away.events()
    assert text_of(heard[away]) == WHOLE and heard[away][-1] == "[DONE]"
    for id in (stream, large):
        assert until_status(edge, id, "completed")["attempts"] == 0
    assert get(edge, f"/jobs/{large}/result").json()["choices"][0]["message"]["content"] == LARGE
    until_told(edge, large, "delivered")
    assert ids_of(here.posts) == [large]
    until(lambda: in_feed(redis, [stream, large]), "the feed has both, once")
    until(lambda: ask(edge).status == 202, "jobs are taken again")
    until_open(edge)
    assert post(edge).status == 200
    for service in (edge, gpu):  # it is not said again with each try
        assert said(service).count("shared queues take no jobs") == 1, said(service)


def test_where_redis_has_no_memory_left_only_newcomers_are_told(host, model, redis, receiver):  # noqa: F811
    edge, gpu, here = host(), host(model.worker(slots=4)), receiver()
    known(edge)
    model.let(3, "away1")
    away = ask_stream(edge, "away")
    heard = [away.next_event() for _ in range(3)]
    stream = promise_stream(edge, "p")
    model.let(2, "p1")
    large = promise_chat(edge, "large", **{"Penstock-Callback": here.url})
    until(lambda: gpu.penstockd.queue().running == 3, "all run")
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    for service in (edge, gpu):
        until_refused(service)
        assert_refused(post(service))
    model.let_all("away1", "p1", "large1")
    heard += away.events()
    assert text_of(heard) == WHOLE and heard[-1] == "[DONE]"
    for id in (stream, large):
        assert until_status(edge, id, "completed")["attempts"] == 0
    assert get(edge, f"/jobs/{large}/result").json()["choices"][0]["message"]["content"] == LARGE
    until_told(edge, large, "delivered")
    assert ids_of(here.posts) == [large]
    redis.ask("CONFIG", "SET", "maxmemory", 0)
    until(lambda: in_feed(redis, [stream, large]), "the feed has both, once", 30)
    until(lambda: ask(edge).status == 202, "jobs are taken again")


def test_before_its_memory_is_full_new_jobs_are_refused_and_who_has_a_key_joins(host, redis):
    edge, gpu = host(), host(worker("800ms"))
    until_known(edge)
    first, last = (promise(edge, Idempotency_Key=f'"{number}"').json()["id"] for number in range(2))
    taken = int(redis.ask("INFO", "memory").split(b"used_memory:")[1].split()[0])
    redis.ask("CONFIG", "SET", "maxmemory", int(taken / 0.95))
    until(lambda: "no new jobs are let in" in said(edge), "it is seen")
    refused = ask(edge)
    assert_refused(refused)
    assert "nearly full" in refused.json()["error"]["message"]
    assert_refused(ask(edge, Penstock_Delay="60"))
    assert_refused(post(edge))
    assert promise(edge, Idempotency_Key='"1"').json()["id"] == last
    assert ask(edge, {**BODY, "prompt": "Something else"}, Idempotency_Key='"1"').status == 422
    for id in (first, last):
        assert until_status(gpu, id, "completed")["attempts"] == 0
    redis.ask("CONFIG", "SET", "maxmemory", 10 * taken)
    until_status(edge, until_known(edge), "completed")
    assert "jobs are let in again" in said(edge)


def test_a_redis_that_evicts_is_not_taken(penstock):
    server = RedisServer("--maxmemory-policy", "allkeys-lru")
    try:
        edge = penstock(http=HTTP, server=SERVER, workers=[worker()], queue={"shared": "true"},
                        yaml=f'redis: {{ url: "unix:{server.socket}" }}\nstate: state\ndrain_timeout: 1s\n')
        until(lambda: "its maxmemory-policy is allkeys-lru" in said(edge), "it is said")
        assert_refused(ask(edge))
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        until_status(edge, until_known(edge), "completed")
    finally:
        server.close()


@pytest.mark.parametrize("first", ["own", "away"])
def test_an_answer_goes_on_to_its_end_though_redis_hangs_and_then_dies(host, model, redis, first):
    """As far as its caller is on the host that runs it; who is elsewhere gets the rest once Redis is back."""
    edge, gpu = host(), host(model.worker(slots=2))
    known(edge)
    model.let(3)
    answer = ask_stream(gpu if first == "own" else edge)
    heard = [answer.next_event() for _ in range(3)]
    redis.stop_answering()
    model.let(3)
    if first == "own":
        heard += [answer.next_event() for _ in range(3)]
    until_refused(gpu)
    redis.process.kill()
    redis.process.wait()
    model.let_all()
    if first == "own":
        heard += answer.events()
        assert text_of(heard) == WHOLE and heard[-1] == "[DONE]"
    until(lambda: gpu.penstockd.queue().running == 0, "it has run to its end")
    redis.start()
    if first == "away":
        heard += answer.events()
        assert text_of(heard) == WHOLE and heard[-1] == "[DONE]"
    until(lambda: ask(edge).status == 202, "jobs are taken again")
