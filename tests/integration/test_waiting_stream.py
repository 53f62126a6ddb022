"""A stream that speaks while its job waits: comments, events, how it ends, and who reads it."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
from http.client import HTTPException, IncompleteRead
from pathlib import Path

import pytest

from conftest import simulate
from scripted import JOB, accepted, chunk, done, failed, head
from waiting import until
from wire import HEAD, NOTE, frame

SPEAKS = "location /v1/ { penstock_waiting_events 100ms; penstock_pass gpu; }"
ERROR = {"message": "too long", "type": "invalid_request_error", "code": "context_length"}


def opens():
    return frame(HEAD, JOB, status=200, content_type="text/event-stream", opens=1)


def begins():
    return frame(HEAD, JOB, status=200, content_type="text/event-stream", queue_us=1, run_us=1)


def note(text=b": queued position=5 eta=42\n\n", **fields):
    return frame(NOTE, JOB, body=text, **fields)


def ask(service, path="/v1/completions", tokens=4, **headers):
    """A stream that was asked for, when its head has come."""
    body = {"model": "sim", "prompt": "a", "max_tokens": tokens, "stream": True}
    return service.client().stream("POST", path, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def busy(penstock, seconds="2s", server=SPEAKS, **more):
    """A service whose only slot is taken for so long."""
    service = penstock(server=server, workers=[simulate(slots=1, service_time=seconds)], **more)
    occupy(service)
    return service


def occupy(service):
    def leave_it():
        with contextlib.suppress(OSError, HTTPException):  # the service may end before it does
            service.complete()

    threading.Thread(target=leave_it, daemon=True).start()
    service.penstockd.wait_for(running=1)


class EventSource:
    """What a browser's EventSource makes of a stream (HTML, "Server-sent events", 9.2.6)."""

    def __init__(self, text):
        self.events, name, data = [], "", []
        for line in re.split("\r\n|\n|\r", text):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "":
                if data:
                    self.events.append((name or "message", "\n".join(data)))
                name, data = "", []
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)


def test_a_waiting_stream_tells_its_place_and_then_the_answer(penstock):
    service = busy(penstock)
    stream = ask(service)
    assert service.penstockd.queue().length == 1, "the head came while it waits"
    assert (stream.status, stream.headers["Content-Type"]) == (200, "text/event-stream")
    assert stream.headers["Penstock-Job-Id"].startswith("job_")
    assert stream.headers["X-Accel-Buffering"] == "no"
    assert re.fullmatch(r"limit;dur=\d+\.\d{3}", stream.headers["Server-Timing"])
    text = stream.rest().decode()
    assert text.startswith(": queued position=1")
    first = text.index("data: ")
    assert set(re.findall(r"^: (\w+)", text[:first], re.M)) <= {"queued", "processing"}
    assert ":" not in re.sub(r"^data: .*$", "", text[first:], flags=re.M), "the answer is what it ever was"
    events = EventSource(text).events
    assert events[-1] == ("message", "[DONE]")
    assert all(name == "message" for name, _ in events)


def test_what_starts_in_time_goes_out_as_ever(penstock):
    service = penstock(server="location /v1/ { penstock_pass gpu; }", workers=[simulate(slots=1, service_time="50ms")])
    stream = ask(service)
    assert re.fullmatch(r"limit;dur=\d+\.\d{3}, queue;dur=\d+\.\d{3}, run;dur=\d+\.\d{3}", stream.headers["Server-Timing"])
    assert "\n:" not in "\n" + stream.rest().decode()


@pytest.mark.parametrize("server, headers", [
    (SPEAKS.replace("100ms", "100ms as=event"), {}),
    (SPEAKS, {"Penstock_Events": "queue"})])
def test_events_come_where_they_are_wanted(penstock, server, headers):
    text = ask(busy(penstock, server=server), **headers).rest().decode()
    name, data = EventSource(text).events[0]
    assert name == "queue"
    job = json.loads(data)
    assert (job["object"], job["status"], job["position"]) == ("job", "queued", 1)


@pytest.mark.parametrize("server", ["location /v1/ { penstock_waiting_events off; penstock_pass gpu; }", SPEAKS])
def test_nothing_is_said_where_it_is_off_or_no_stream_was_asked_for(penstock, server):
    service = busy(penstock, "1s", server)
    if "off" in server:
        assert ask(service).rest().startswith(b"data: ")
    else:
        assert service.complete().json()["object"] == "text_completion"


def test_refusals_keep_their_status(penstock):
    service = busy(penstock, "3s", """
        location /v1/ { penstock_waiting_events 100ms; penstock_max_wait 100ms; penstock_pass gpu; }
        location /limited/v1/ { penstock_waiting_events 100ms; penstock_limit zone=edge key=all rate=1r/h name=a; penstock_pass gpu; }
    """, http="penstock_zone edge 1m;")
    until(lambda: service.penstockd.queue().running == 0, "the first job is over, and its time known")
    occupy(service)
    assert ask(service).status == 503
    assert service.stream(model="nobody's").status == 404
    assert ask(service, Penstock_Events="all").status == 400
    assert ask(service, "/limited/v1/completions").status == 200
    assert ask(service, "/limited/v1/completions").status == 429


@pytest.mark.parametrize("line", ["5s as=comment", "50ms", "soon", "off as=event", "0"])
def test_a_wrong_directive_is_refused(penstock, line):
    service = penstock(start=False, workers=[simulate()],
                       server=f"location / {{ penstock_waiting_events {line}; penstock_pass gpu; }}")
    accepted_, said = service.nginx.check()
    assert not accepted_ and "penstock_waiting_events takes off" in said


# --- How it ends

@pytest.mark.parametrize("buffering", ["off", "on"])
def test_a_reader_of_single_bytes_sees_whole_events(peer, edge, buffering):
    script = [accepted("job_1"),
              lambda caller: caller.send_byte_by_byte(opens() + note() + note(b": processing\n\n") + begins()
                                                      + chunk(b"data: 1\n\n") + done())]
    service = edge(peer("a", *script), server=f"location / {{ penstock_buffering {buffering}; penstock_pass a; }}")
    body = json.dumps({"stream": True, "prompt": "a"}).encode()
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                       % (len(body), body))
        got = b""
        while piece := client.recv(1):
            got += piece
    assert got.split(b"\r\n\r\n", 1)[1] == b": queued position=5 eta=42\n\n: processing\n\ndata: 1\n\n"


@pytest.mark.parametrize("buffering", ["off", "on"])
def test_each_comment_goes_out_at_once(peer, edge, buffering):
    heard = threading.Event()
    service = edge(peer("a", accepted("job_1"), opens(), note(b": 1\n\n"), lambda _: heard.wait(20), note(b": 2\n\n"), failed(503)),
                   server=f"location / {{ penstock_buffering {buffering}; penstock_pass a; }}")
    stream = ask(service)
    assert stream._response.readline() == b": 1\n"
    heard.set()
    assert b": 2\n\n" in stream.rest()


def test_a_failure_is_an_error_event_and_the_end(peer, edge):
    service = edge(peer("a", accepted("job_1"), opens(), note(), failed(504, "Too late.", "deadline_exceeded")),
                   server="location / { penstock_limit zone=edge key=all rate=1r/h burst=2 name=a; penstock_pass a; }")
    for _ in range(3):  # what never ran is not charged
        events = EventSource(ask(service).rest().decode()).events
        assert len(events) == 1
        assert json.loads(events[0][1])["error"] == {
            "message": "Too late.", "type": "server_error", "param": None, "code": "deadline_exceeded"}


def test_the_engines_own_error_is_told_in_its_words(peer, edge):
    words = json.dumps({"error": ERROR}).encode()
    service = edge(peer("a", accepted("job_1"), opens(), note(), failed(400, "It answered 400.", "invalid_request", json=words)))
    assert EventSource(ask(service).rest().decode()).events == [("message", words.decode())]


@pytest.mark.parametrize("frames", [chunk(b"data: 1\n\n"), done(), head(500), opens()], ids=["CHUNK", "DONE", "HEAD 500", "opens"])
def test_frames_out_of_order_end_the_wait_with_an_error(peer, edge, frames):
    service = edge(peer("a", accepted("job_1"), opens(), note(), frames))
    events = EventSource(ask(service).rest().decode()).events
    assert [json.loads(data)["error"]["code"] for _, data in events] == ["busy"]
    assert "invalid frame" in service.nginx.log()


@pytest.mark.parametrize("frames", [note(), begins()], ids=["NOTE", "HEAD"])
def test_news_in_an_answer_cut_it_short(peer, edge, frames):
    service = edge(peer("a", accepted("job_1"), opens(), note(), begins(), chunk(b"data: 1\n\n"), frames))
    with pytest.raises(IncompleteRead):
        ask(service).rest()
    assert "invalid frame" in service.nginx.log()


def test_a_lost_penstockd_is_told(penstock):
    service = busy(penstock, "20s")
    stream = ask(service)
    service.penstockd.kill()
    text = stream.rest().decode()
    assert text.startswith(": queued position=1")
    name, data = EventSource(text).events[-1]
    assert json.loads(data)["error"]["code"] == "busy"
    service.penstockd.start()


def test_a_caller_that_leaves_leaves_the_queue(penstock):
    service = busy(penstock, "20s")
    stream = ask(service)
    stream.close()
    until(lambda: service.penstockd.queue().length == 0, "its job is gone")


def test_a_reload_of_nginx_disturbs_nobody(penstock):
    service = busy(penstock, "2s", master=True)
    stream = ask(service)
    service.nginx.process.signal(signal.SIGHUP)
    until(lambda: "gracefully shutting down" in service.nginx.log(), "the old worker has been told")
    assert stream.rest().endswith(b"data: [DONE]\n\n")


def test_a_proxy_that_cuts_what_is_silent_lets_a_long_wait_be(penstock):
    # 5 s, 15 s, and a proxy that cuts after 20 s of silence; ten times as fast.
    service = busy(penstock, "6s", server=SPEAKS.replace("100ms", "500ms"))
    front = penstock(server=f"location / {{ proxy_read_timeout 2s; proxy_pass http://127.0.0.1:{service.port}; }}")
    started = time.monotonic()
    text = ask(front, tokens=32).rest().decode()
    assert time.monotonic() - started > 5
    assert text.endswith("data: [DONE]\n\n")


# --- Who reads it

COMMANDS = re.findall(r"^```sh\n(.*?)^```", (Path(__file__).parents[2] / "docs/WAITING.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_the_commands_of_the_chapter_do_what_it_says(penstock, command):
    service = busy(penstock, "1s")
    said = subprocess.run(command.replace(":8080/", f":{service.port}/"), shell=True, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    if "Within" in command:
        assert json.loads(said.stdout)["object"] == "text_completion"
        return
    assert said.stdout.startswith(": queued position=1 reason=learning\n\n")
    assert ("event: queue\ndata: {" in said.stdout) == ("Penstock-Events" in command)
    assert said.stdout.endswith("data: [DONE]\n\n")


def test_the_pages_own_client_hears_the_answer_alone(penstock, tmp_path):
    client = Path(__file__).parents[2] / "config/www/ui/penstock.js"
    service = busy(penstock, server=SPEAKS)
    script = tmp_path / "read.mjs"
    script.write_text(f"""
        import {{ Penstock }} from "{client}";
        const penstock = new Penstock({{ base: "http://127.0.0.1:{service.port}" }});
        const comments = [], words = [];
        for await (const {{ type, data }} of penstock.stream("/v1/completions", {{ model: "sim", prompt: "a", max_tokens: 4 }})) {{
          if (type === "comment") comments.push(data);
          else if (data !== "[DONE]") words.push(JSON.parse(data).choices[0]?.text ?? "");
        }}
        if (!comments[0].trim().startsWith("queued position=1") || words.join("").trim() === "") throw new Error(JSON.stringify([comments, words]));
    """)
    finished = subprocess.run(["node", script], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr[-2000:]
