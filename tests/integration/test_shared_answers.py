"""Answers between hosts that share a queue: heard where they are waited for, as they are made there where they run."""

import collections
import json
import os
import queue
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from client import Client
from server import ModelServer, completion, stream, word
from shared_hosts import ALICE, get, host, in_line, job, redis, until_open, until_status
from waiting import until

WORDS = [f"word{i} " for i in range(12)]
WHOLE = "".join(WORDS)
DRAWING = """\
import base64, json, sys
def say(**line): print(json.dumps(line), flush=True)
say(penstock=1)
say(ready=True)
for line in sys.stdin:
    job = json.loads(line)
    if "job" in job and "draw" in json.dumps(job):
        say(progress=0.25, step=1, steps=4)
        say(preview={"type": "image/png", "base64": base64.b64encode(b"a picture").decode()})
    elif "job" in job:
        say(result={"body": "done"})
"""


def chat(name, **more):
    """A request for the answer of that name."""
    return {"model": "sim", "messages": [{"role": "user", "content": name}], **more}


class Model:
    """A model's server whose streams go on only when they are let; what is no stream is answered at once."""

    def __init__(self):
        self.turns = collections.defaultdict(queue.Queue)
        self.begun = collections.Counter()
        self.pieces = None
        self.server = ModelServer(self._answer)

    def _answer(self, asked, reply):
        if not asked.json().get("stream"):
            return reply(completion())
        name = asked.json()["messages"][0]["content"]
        self.begun[name] += 1
        reply(self._paced(f"{name}{self.begun[name]}"), type="text/event-stream")

    def _paced(self, run):
        for piece in self.pieces or stream(WORDS):
            self.turns[run].get()
            yield piece

    def let(self, count=1, run="a1"):
        """Of the run with that number of the answer of that name."""
        for _ in range(count):
            self.turns[run].put("go on")

    def let_all(self, *runs):
        for run in runs or ("a1",):
            self.let(1000, run)

    def worker(self, slots=1):
        return dict(name="sim", engine="http", url=f'"{self.server.url}"', model="sim", slots=slots)


@pytest.fixture
def model():
    it = Model()
    yield it
    it.let_all(*it.turns)
    it.server.close()


@pytest.fixture
def hosts(host, model):
    """An edge, and a host with workers, that know each other."""
    edge, gpu = host(), host(model.worker())
    known(edge)
    return edge, gpu


def known(service):
    until(lambda: service.request("POST", "/v1/chat/completions", {**ALICE, "Prefer": "respond-async"}, chat("x")).status == 202, "it is known")
    until_open(service)


def ask_stream(service, name="a", **headers):
    """Answered once the first word has been made."""
    return Client(service.port, timeout=30).stream("POST", "/v1/chat/completions", {**ALICE, **headers}, chat(name, stream=True))


def promise_stream(service, name="a"):
    reply = service.request("POST", "/v1/chat/completions", {**ALICE, "Prefer": "respond-async"}, chat(name, stream=True))
    assert reply.status == 202, reply.body
    return reply.json()["id"]


def text_of(events):
    """The words of OpenAI's events."""
    return "".join(json.loads(each)["choices"][0]["delta"].get("content", "") for each in events if each != "[DONE]"
                   and json.loads(each).get("choices"))


def told(service, id, last=None, until_text=None, until_event=None):
    """What a job's events tell: [(event, id, data)], to their end, or until that has come."""
    client = Client(service.port, timeout=30)
    events = client.stream("GET", f"/jobs/{id}/events", {**ALICE, **({"Last-Event-ID": last} if last else {})})
    assert events.status == 200, events.rest()
    seen, name, number = [], None, None
    for line in events._response:
        line = line.decode().rstrip("\n")
        name = line[7:] if line.startswith("event: ") else name
        number = line[4:] if line.startswith("id: ") else number
        if line.startswith("data: "):
            seen.append((name, number, json.loads(line[6:])))
            if name == until_event or until_text and until_text in chunks(seen):
                break
    events.close()
    return seen


def chunks(seen):
    """The text of the chunks, which have no hole and no overlap; of the last run."""
    text, end = "", None
    for name, _, data in seen:
        if name == "chunk":
            if data["offset"] == 0:
                text, end = "", 0
            assert end is None or data["offset"] == end, seen
            text, end = text + data["text"], data["offset"] + len(data["text"].encode())
    return text


# ---- who waits

def test_a_stream_comes_from_another_host_as_it_is_made(hosts, model):
    edge, gpu = hosts
    model.let()
    answer = ask_stream(edge)
    heard = [answer.next_event()]
    for text in WORDS[1:]:
        model.let()
        heard.append(answer.next_event())  # before the next is made
        assert text_of(heard).endswith(text)
    model.let_all("a1", "a2")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    heard += answer.events()
    assert text_of(heard) == WHOLE and heard[-1] == "[DONE]"
    assert heard == list(ask_stream(gpu).events())


def test_nothing_goes_through_redis_where_the_job_runs_on_the_host_that_let_it_in(hosts, model, redis):
    edge, gpu = hosts
    listener = redis.connect()
    listener("PSUBSCRIBE", "penstock:q1:{default}:c|*")
    model.let_all("here1", "there1", "promised1")
    for service, name, heard in ((gpu, "here", 0), (edge, "there", len(WORDS))):
        assert text_of(ask_stream(service, name).events()) == WHOLE
        redis.ask("PUBLISH", "penstock:q1:{default}:c|end", "end")
        messages = []
        while not messages or messages[-1] != b"end":
            messages.append(listener.answer()[3])
        assert b"".join(each for each in messages if each.startswith(b"parts ")).count(b"word") == heard
    listener.close()
    assert not words_in_streams(redis)
    until_status(edge, promise_stream(gpu, "promised"), "completed")
    assert until(lambda: words_in_streams(redis), "the promised job has a stream") == len(WORDS)


def words_in_streams(redis):
    return sum(b"".join(entry[1]).count(b"word") for key in redis.ask("KEYS", "penstock:q1:{default}:e|*")
               for entry in redis.ask("XRANGE", key, "-", "+"))


def test_a_caller_that_leaves_in_mid_stream_frees_the_slot(hosts, model):
    edge, gpu = hosts
    model.let()
    answer = ask_stream(edge)
    answer.next_event()
    began = time.monotonic()
    answer.close()
    until(lambda: gpu.penstockd.queue().running == 0, "its slot is free", 3)
    assert time.monotonic() - began < 0.5


def test_a_cancel_in_mid_stream_frees_the_slot_and_tells_who_waits(hosts, model):
    edge, gpu = hosts
    model.let(1, "a1"), model.let(1, "b1")
    for service, name in ((edge, "a"), (gpu, "b")):
        answer = ask_stream(edge, name)
        answer.next_event()
        began = time.monotonic()
        assert service.request("DELETE", f"/jobs/{answer.headers['Penstock-Job-Id']}", ALICE).json()["status"] == "cancelled"
        until(lambda: gpu.penstockd.queue().running == 0, "its slot is free", 3)
        assert time.monotonic() - began < 0.5
        assert json.loads(list(answer.events())[-1])["error"]["code"] == "cancelled"


def test_a_worker_that_dies_in_mid_stream_is_told_as_on_one_host(hosts, model):
    edge, gpu = hosts
    errors = []
    for service, name in ((gpu, "a"), (edge, "b")):
        model.let(1, f"{name}1")
        answer = ask_stream(service, name)
        answer.next_event()
        os.kill(gpu.penstockd.workers()[0], signal.SIGKILL)
        errors.append(json.loads(list(answer.events())[-1])["error"])
        until(lambda: gpu.penstockd.queue().running == 0 and gpu.penstockd.workers(), "another has come")
    assert errors[0] == errors[1] and "cut short" in errors[0]["message"]


@pytest.mark.parametrize("seconds", [0.3, 2.5])
def test_an_answer_goes_on_whole_though_redis_hung_in_mid_stream(hosts, model, redis, seconds):
    """Within a second nobody gives up; after more the connections are new ones, and what was said meanwhile was lost on the way."""
    edge, gpu = hosts
    model.let(3)
    answer = ask_stream(edge)
    heard = [answer.next_event() for _ in range(3)]
    redis.stop_answering()
    try:
        model.let(3)
        time.sleep(seconds)
    finally:
        redis.go_on()
    model.let(1)
    heard += [answer.next_event() for _ in range(4)]  # though it goes on
    assert gpu.penstockd.queue().running == 1
    model.let_all()
    heard += answer.events()
    assert text_of(heard) == WHOLE and heard[-1] == "[DONE]"


def test_what_began_while_its_home_did_not_listen_is_told_though_nothing_follows(hosts, model, redis):
    edge, gpu = hosts
    model.let(1, "first1")
    first = ask_stream(edge, "first")
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(ask_stream, edge, "waits")
        until(lambda: in_line(redis) == 1, "it waits")
        edge.penstockd.process.signal(signal.SIGSTOP)
        try:
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            heard = redis.connect()
            heard("PSUBSCRIBE", "penstock:q1:{default}:c|*")
            model.let_all("first1")
            until(lambda: model.begun["waits"] == 1, "it has begun")
            while b"word11" not in heard.answer()[3]:  # all of the first has been told
                pass
            model.let(1, "waits1")
            while WORDS[0].encode() not in heard.answer()[3]:
                pass
        finally:
            edge.penstockd.process.signal(signal.SIGCONT)
            heard.close()
        answer = waits.result(10)
    begins = answer.next_event()
    assert text_of([begins]) == WORDS[0]
    model.let_all("waits1")
    assert text_of([begins, *answer.events()]) == WHOLE
    assert text_of(first.events()) == WHOLE


def test_a_slow_reader_gets_all_and_holds_up_nobody(host, model):
    edge, gpu = host(), host(model.worker(slots=2))
    known(edge)
    model.pieces = [word("x" * 60_000) for _ in range(250)] + ["data: [DONE]\n\n"]
    model.let_all("slow1", "b1")
    slow = Client(edge.port)
    slow._connection.sock = socket.socket()
    slow._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # no more than that is taken before it reads
    slow._connection.sock.connect(("127.0.0.1", edge.port))
    answer = slow.stream("POST", "/v1/chat/completions", ALICE, chat("slow", stream=True))
    until(lambda: gpu.penstockd.queue().running == 0, "all of it has been made")
    model.pieces = None
    assert text_of(ask_stream(edge, "b").events()) == WHOLE
    assert text_of(answer.events()) == "x" * 60_000 * 250


# ---- the runner dies

def test_a_runner_that_dies_is_not_heard_of_but_by_who_has_seen_the_beginning(host, model):
    edge, gpu, third = host(), host(model.worker(slots=3)), host()
    for service in (edge, third):
        known(service)
    id = promise_stream(edge, "promised")
    model.let(4, "promised1")
    seen = told(edge, id, until_text=WORDS[3])
    model.let(1, "cut1")
    cut = ask_stream(edge, "cut")
    first = cut.next_event()
    with ThreadPoolExecutor() as pool:
        whole = pool.submit(lambda: list(ask_stream(edge, "whole").events()))
        until(lambda: gpu.penstockd.queue().running == 3, "all run")
        gpu.penstockd.kill()
        # Nobody runs it now: what there was is told all the same.
        again = told(third, id, last=seen[0][1], until_text=WORDS[3])
        assert chunks(again) == chunks(seen)
        events = pool.submit(told, third, id, seen[-1][1])

        other = host(model.worker(slots=3))
        model.let_all("whole2", "promised2")
        rest = list(cut.events())
        assert text_of([first]) == WORDS[0] and "cut short" in json.loads(rest[-1])["error"]["message"] and len(rest) == 1
        assert text_of(whole.result()) == WHOLE
        rest = events.result()
    assert [name for name, _, _ in rest].count("completed") == 1
    assert chunks(rest) == get(edge, f"/jobs/{id}/result").text()
    assert {number.split("-")[0] for name, number, _ in rest if name == "chunk"}.isdisjoint({seen[-1][1].split("-")[0]})
    until(lambda: other.penstockd.queue().running == 0, "nobody's job does not run on")


def test_who_has_seen_the_beginning_hears_of_the_loss_though_nobody_takes_the_job(host, model):
    edge, gpu = host(), host(model.worker())
    known(edge)
    model.let()
    answer = ask_stream(edge)
    answer.next_event()
    gpu.penstockd.kill()
    assert "cut short" in list(answer.events())[-1]


# ---- what is told on any host

def test_any_host_tells_what_another_makes_and_goes_on_where_it_was_broken_off(host, model):
    edge, gpu, third = host(), host(model.worker()), host()
    for service in (edge, third):
        known(service)
    id = promise_stream(edge)
    model.let(4)
    seen = told(third, id, until_text=WORDS[3])
    model.let(4)
    more = told(edge, id, last=seen[-1][1], until_text=WORDS[7])
    assert more[0][0] == "processing"
    model.let_all()
    rest = told(gpu, id, last=more[-1][1])
    assert chunks(seen) + chunks(more) + chunks(rest) == get(third, f"/jobs/{id}/result").text()
    assert rest[-1][:2] == ("completed", "end")


def test_events_go_on_where_they_were_broken_off_though_the_job_has_ended(host, model):
    edge, gpu, third = host(), host(model.worker()), host()
    for service in (edge, third):
        known(service)
    id = promise_stream(edge)
    model.let(4)
    seen = told(edge, id, until_text=WORDS[3])
    model.let_all()
    until_status(third, id, "completed")
    for service in (third, gpu, edge):
        rest = told(service, id, last=seen[-1][1])
        assert chunks(seen) + chunks(rest) == get(third, f"/jobs/{id}/result").text()
        assert rest[-1][:2] == ("completed", "end")
        assert [name for name, _, _ in told(service, id)] == ["completed"]
        assert Client(service.port).request("GET", f"/jobs/{id}/events", {**ALICE, "Last-Event-ID": "end"}).status == 204


def test_what_begins_anew_where_it_runs_is_told_anew(host, model):
    """Two ran when their worker was killed: each runs once more there, alone, and no other host has it."""
    edge, gpu = host(), host(model.worker(slots=2))
    known(edge)
    ids = {name: promise_stream(edge, name) for name in "ab"}
    seen = {}
    for name, id in ids.items():
        model.let(4, f"{name}1")
        seen[name] = told(edge, id, until_text=WORDS[3])
    os.kill(gpu.penstockd.workers()[0], signal.SIGKILL)
    for name, id in ids.items():
        model.let(1, f"{name}2")
        anew = told(edge, id, last=seen[name][-1][1], until_text=WORDS[0])
        assert next(data["offset"] for event, _, data in anew if event == "chunk") == 0
        model.let_all(f"{name}2")
        for service in (edge, gpu):
            until_status(service, id, "completed")
            assert chunks(told(service, id, last=seen[name][-1][1])) == "", "no event of the run that was broken off goes on"


def test_any_host_tells_how_far_a_job_has_come_and_what_it_looks_like(host, folder):
    (folder / "drawing.py").write_text(DRAWING)
    scratch = folder / "scratch"
    scratch.mkdir()
    edge, third = host(), host()
    host(dict(name="sim", engine="process", command=f"[/usr/bin/python3, {folder / 'drawing.py'}]", model="sim", scratch=scratch))
    for service in (edge, third):
        known(service)
    reply = edge.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"}, {"model": "sim", "prompt": "draw"})
    id = reply.json()["id"]
    for service in (third, edge):
        until(lambda: job(service, id)["progress"], "its progress is told")
        assert job(service, id)["progress"] == {"fraction": 0.25, "step": 1, "steps": 4}
        until(lambda: get(service, f"/jobs/{id}/preview").status == 200, "it can be seen")
        picture = get(service, f"/jobs/{id}/preview")
        assert (picture.headers["Content-Type"], picture.body) == ("image/png", b"a picture")
        assert get(service, f"/jobs/{id}/preview", {"Authorization": "Bearer bob"}).status == 404
        assert told(service, id, until_event="preview")[-1][2]["url"].startswith(f"/jobs/{id}/preview")
