"""A request that is admitted: into the queue, to a worker, and its answer back."""

import json

import pytest

from client import exchange
from conftest import simulate
from waiting import until

PASS = "location / { penstock_pass gpu; }"
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


def text_of(events):
    return "".join(json.loads(event)["choices"][0]["text"] for event in events if event != "[DONE]")


def test_a_whole_answer_is_one_json_object(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    answer = service.complete(max_tokens=5)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/json")
    completion = answer.json()
    assert completion["object"] == "text_completion" and completion["model"] == "sim"
    assert completion["choices"][0]["finish_reason"] in ("length", "stop")
    assert completion["usage"]["completion_tokens"] == 5
    assert completion["usage"]["total_tokens"] == completion["usage"]["prompt_tokens"] + 5


def test_a_streamed_answer_comes_in_order_and_ends_with_done(penstock):
    service = penstock(server=PASS, workers=[simulate(tokens_per_second=500)])
    whole = service.complete(max_tokens=100).json()["choices"][0]["text"]
    stream = service.stream(max_tokens=100)
    assert stream.status == 200 and stream.headers["Content-Type"].startswith("text/event-stream")
    events = list(stream.events())
    assert events[-1] == "[DONE]" and events.count("[DONE]") == 1
    assert text_of(events) == whole
    assert len({json.loads(event)["id"] for event in events[:-1]}) == 1
    assert json.loads(events[-2])["choices"][0]["finish_reason"] in ("length", "stop")


def test_words_arrive_while_the_job_still_runs(penstock):
    service = penstock(server=PASS, workers=[simulate(tokens_per_second=50)])
    stream = service.stream(max_tokens=100)
    stream.next_event()
    assert service.penstockd.queue().running == 1
    stream.close()


def test_usage_is_streamed_when_it_is_asked_for(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    events = list(service.stream(max_tokens=7, stream_options={"include_usage": True}).events())
    last = json.loads(events[-2])
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 7


def test_chat_is_answered_whole_and_streamed(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    whole = service.complete("/v1/chat/completions", **CHAT, prompt=None).json()
    assert whole["object"] == "chat.completion" and whole["choices"][0]["message"]["role"] == "assistant"
    stream = service.client().stream("POST", "/v1/chat/completions", {}, {"model": "sim", "max_tokens": 4, "stream": True, **CHAT})
    events = [json.loads(event) for event in list(stream.events())[:-1]]
    assert events[0]["choices"][0]["delta"].get("role") == "assistant"
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]) == \
        whole["choices"][0]["message"]["content"]


def test_models_are_listed(penstock):
    service = penstock(server=PASS, workers=[simulate(), simulate("other")])
    answer = service.get("/v1/models")
    assert answer.status == 200
    models = answer.json()
    assert models["object"] == "list"
    assert sorted(model["id"] for model in models["data"]) == ["other", "sim"]
    assert all(model["object"] == "model" for model in models["data"])


def test_head_of_models_has_no_body(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    client = service.client()
    answer = client.request("HEAD", "/v1/models")
    assert answer.status == 200 and answer.body == b""
    assert client.request("GET", "/v1/models").json()["object"] == "list"


@pytest.mark.parametrize("streamed", [False, True])
def test_an_http_1_0_client_gets_the_bare_answer(penstock, streamed):
    service = penstock(server=PASS, workers=[simulate()])
    body = json.dumps({"model": "sim", "prompt": "a", "max_tokens": 3, "stream": streamed})
    answer = exchange(service.port, f"POST /v1/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0] and b"chunked" not in head
    assert content.endswith(b"data: [DONE]\n\n") if streamed else json.loads(content)["usage"]["completion_tokens"] == 3


def test_connections_to_penstockd_are_reused(penstock):
    service = penstock(start=False, workers=[simulate()])
    service.nginx.write_config(service.configuration("", """
        add_header X-Upstream "$upstream_addr $upstream_status $connection_requests";
        location / { penstock_pass gpu; }"""))
    service.start()
    client = service.client()
    fds = set()
    for i in range(20):
        answer = client.request("POST", "/v1/completions", {}, {"model": "sim", "prompt": "a", "max_tokens": 1})
        assert answer.status == 200
        assert answer.headers["X-Upstream"] == f"unix:{service.penstockd.socket} 200 {i + 1}"
        fds.add(len(open_sockets(service.penstockd.process.pid)))
    # Twenty requests, and no more connections at the end than after the first.
    assert len(fds) == 1


def open_sockets(pid):
    import os
    return [fd for fd in os.listdir(f"/proc/{pid}/fd") if _link(pid, fd).startswith("socket:")]


def _link(pid, fd):
    import os
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def test_a_connection_that_served_a_stream_serves_the_next_request(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    client = service.client()
    for _ in range(5):
        assert client.stream("POST", "/v1/completions", {}, {"model": "sim", "prompt": "a", "stream": True}).rest().endswith(
            b"data: [DONE]\n\n")
        assert client.request("GET", "/v1/models").status == 200


def test_a_body_larger_than_the_memory_buffer_goes_by_a_file(penstock):
    service = penstock(server="client_max_body_size 8m; client_body_buffer_size 8k;\n" + PASS, workers=[simulate()])
    answer = service.complete(prompt="word " * 400_000, max_tokens=2)
    assert answer.status == 200 and answer.json()["usage"]["completion_tokens"] == 2


def test_a_body_of_unknown_length_is_taken(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    body = json.dumps({"model": "sim", "prompt": "a", "max_tokens": 2}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:10], body[10:])) + b"0\r\n\r\n"
    answer = exchange(service.port, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                                    b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert b" 200 " in answer.split(b"\r\n")[0] and b'"completion_tokens":2' in answer


def test_jobs_of_a_higher_class_go_first(penstock):
    service = penstock(
        workers=[simulate(slots=1, tokens_per_second=40)],
        http="""
            penstock_zone edge 1m;
            penstock_tier free { rate 100r/s; priority 0; }
            penstock_tier pro { rate 100r/s; priority 10; }
        """,
        server="location / { penstock_limit zone=edge key=all tier=$arg_tier; penstock_pass gpu; }")
    ended = []
    import threading

    def ask(name, tier, tokens):
        assert service.complete(f"/v1/completions?tier={tier}", max_tokens=tokens).status == 200
        ended.append(name)

    threads = [threading.Thread(target=ask, args=("first", "free", 20))]
    threads[0].start()
    service.penstockd.wait_for(running=1)
    for length, (name, tier) in enumerate([("free1", "free"), ("free2", "free"), ("pro", "pro")], 1):
        threads.append(threading.Thread(target=ask, args=(name, tier, 2)))
        threads[-1].start()
        service.penstockd.wait_for(length=length)
    for thread in threads:
        thread.join()
    assert ended == ["first", "pro", "free1", "free2"]


def test_queue_chooses_the_workers(penstock):
    service = penstock(
        workers=[simulate(), simulate("clip", queue="video")], queue={"attempts": 3},
        server="location / { penstock_pass gpu; } location /v1/videos/ { penstock_pass gpu queue=video; }",
        start=False)
    config = service.penstockd.config
    config.write_text(config.read_text().replace("workers:", "  video: { max_length: 10 }\nworkers:"))
    service.start(ready=False)
    service.penstockd.wait_for(slots=1)
    service.penstockd.wait_for(slots=1, queue="video")
    # Nginx was started before the workers; it looks at the status page ten times a second.
    until(lambda: service.complete("/v1/videos/completions", model="clip").status == 200, "Nginx has seen the worker")
    until(lambda: service.complete(model="sim").status == 200, "Nginx has seen the other")
    assert service.complete(model="clip").status == 404
