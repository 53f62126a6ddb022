"""Engine process: programs behind Nginx, penstockd and a worker."""

import json
import os
import re
import signal
import socket
import textwrap
from pathlib import Path

import pytest

from processes import QueueStatus, children, state_of
from waiting import until

SERVER = """\
client_max_body_size 8m;
location / { penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
"""
PROTOCOL = Path(__file__).parents[2] / "docs" / "PROCESS_PROTOCOL.md"

HELLO = """\
import json, os, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(penstock=1)
say(ready=True)
jobs = (json.loads(line) for line in sys.stdin)
jobs = (job for job in jobs if "job" in job)
"""


def program(folder, text, hello=HELLO, **keys):
    """A worker whose program is that Python."""
    path = folder / "program.py"
    path.write_text(hello + textwrap.dedent(text))
    scratch = folder / "scratch"
    scratch.mkdir()
    return dict(name="program", engine="process", command=f"[/usr/bin/python3, {path}]", model="sim", scratch=scratch, **keys)


def serve(penstock, *workers, ready=True, **parts):
    """The service, once every program is ready."""
    service = penstock(start=False, server=SERVER, workers=list(workers), **parts)
    service.penstockd.start()
    service.penstockd.wait_for(state=QueueStatus.OPEN if ready else QueueStatus.NO_WORKER)
    service.nginx.start(service.port)
    return service


def family(pid):
    """All descendants that live."""
    return [each for child in children(pid) for each in (child, *family(child))]


def gone(pids):
    return all(state_of(pid) in ("", "Z") for pid in pids)


def test_the_program_of_the_documentation_answers(penstock, folder):
    text = re.search(r"```python\n(.*?)```", PROTOCOL.read_text(), re.S).group(1)
    assert text.count("\n") == 19
    service = serve(penstock, program(folder, text, hello=""))
    for prompt in ("one two", "three"):
        answer = service.complete(prompt=prompt)
        assert (answer.status, answer.text()) == (200, prompt.upper())
        assert answer.headers["Content-Type"] == "text/plain"
    chat = service.request("POST", "/v1/chat/completions", None, {"model": "sim", "messages": [{"role": "user", "content": "four five"}]})
    assert (chat.status, chat.body) == (200, b"FOUR FIVE")
    assert service.complete(prompt="long " * 20_000).text() == ("LONG " * 20_000).strip(), "its body is in a file"
    for body in ({"input": "x"}, {"prompt": 7}, {"messages": []}, {"messages": [{"content": [{"type": "text"}]}]}):
        refused = service.request("POST", "/v1/completions", None, {"model": "sim", **body})
        assert refused.status == 400 and "a prompt, or messages" in refused.json()["error"]["message"], (body, refused.body)


def test_a_job_has_no_longer_than_its_caller_waits(penstock, folder):
    service = serve(penstock, program(folder, """\
        for job in jobs:
            say(result={"body": {"deadline_ms": job["deadline_ms"], "query": job.get("query")}})
        """, timeout="50s"), queue={"deadline": "40s"})
    told = service.request("POST", "/v1/completions?a=b", None, {"model": "sim"}).json()
    assert 35_000 < told["deadline_ms"] <= 40_000 and told["query"] == "a=b"
    service.penstockd.write_config(service.penstockd.config.read_text().split("\n", 2)[2].replace("40s", "60s"))
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: service.request("POST", "/v1/completions", None, {"model": "sim"}).json() == {"deadline_ms": 50_000, "query": None},
          "the program's own timeout counts where it is the smaller")


def test_an_error_has_its_status_and_its_words(penstock, folder):
    service = serve(penstock, program(folder, """\
        for job in jobs:
            say(error={"code": "invalid_request", "message": "The prompt is dull.", "param": "prompt"})
        """))
    answer = service.complete()
    assert answer.status == 400
    error = answer.json()["error"]
    assert (error["code"], error["message"], error["param"]) == ("invalid_request", "The prompt is dull.", "prompt")


def test_a_stream_is_passed_on_while_the_program_works(penstock, folder):
    service = serve(penstock, program(folder, """\
        for job in jobs:
            for word in ("one", "two"):
                say(chunk=f"data: {word}\\n\\n", type="text/event-stream")
                while word == "one" and not os.path.exists(os.environ["GO_ON"]): time.sleep(0.01)
            say(result={})
        """, env=f"{{ GO_ON: {folder}/go_on }}"))
    stream = service.stream()
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert stream.next_event() == "one"
    (folder / "go_on").touch()
    assert list(stream.events()) == ["two"]


def test_a_large_result_and_a_large_request_pass_through(penstock, folder):
    service = serve(penstock, program(folder, """\
        for job in jobs:
            prompt = json.load(open(job["body_file"]))["prompt"]
            with open("picture", "wb") as file: file.write(prompt.encode() * 16)
            say(result={"type": "image/png", "file": "picture"})
        """))
    prompt = "abcd" * (300 << 10)
    answer = service.complete(prompt=prompt)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.body == prompt.encode() * 16


def test_an_attempt_that_is_lost_is_made_again(penstock, folder):
    service = serve(penstock, program(folder, f"""\
        for job in jobs:
            if not os.path.exists("{folder}/second"):
                open("{folder}/second", "w").close()
                os._exit(3)
            say(result={{"body": "at last"}})
        """))
    answer = service.complete()
    assert (answer.status, answer.text()) == (200, "at last")
    assert "its program exited with status 3 without a result" in service.penstockd.process.text()


def test_a_caller_who_leaves_frees_the_slot_of_a_program_that_does_not_listen(penstock, folder):
    service = serve(penstock, program(folder, f"""\
        import signal
        for job in jobs:
            if "stubborn" not in job["body"]: say(result={{"body": "next"}}); continue
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0: os.setsid(); time.sleep(600)
            open("{folder}/works", "w").close()
            time.sleep(600)
        """, grace="100ms"))
    caller = socket.create_connection(("127.0.0.1", service.port))
    body = b'{"model":"sim","prompt":"stubborn"}'
    caller.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                   % (len(body), body))
    until((folder / "works").exists, "the program works")
    worker, = service.penstockd.workers()
    before = family(worker)
    assert len(before) == 3
    caller.close()
    answer = service.complete(prompt="b")
    assert (answer.status, answer.text()) == (200, "next")
    assert gone(before)


@pytest.mark.parametrize("end", ["worker is killed", "penstockd stops"])
def test_nothing_of_a_program_outlives_its_worker(penstock, folder, end):
    service = serve(penstock, program(folder, """\
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: os.setsid()
            time.sleep(600)
        for job in jobs: say(result={})
        time.sleep(600)
        """, grace="100ms"))
    worker, = service.penstockd.workers()
    until(lambda: len(family(worker)) == 4, lambda: f"the program has forked: {family(worker)}")
    all_of_them = family(worker)
    if end == "worker is killed":
        os.kill(worker, signal.SIGKILL)
        until(lambda: gone(all_of_them), "all are gone")
        service.penstockd.wait_for(state=QueueStatus.OPEN, slots=1)
        assert len(list((folder / "scratch").iterdir())) == 1  # what was left behind is removed
    else:
        service.penstockd.stop()
        assert gone(all_of_them)
        assert list((folder / "scratch").iterdir()) == []


def test_why_a_program_does_not_start_is_in_the_status(penstock, folder):
    service = serve(penstock, program(folder, "import no_such_module", hello=""), ready=False)
    worker, = until(lambda: [worker for worker in json.loads(service.penstockd.status())["workers"] if worker["why_closed"]],
                    "it is told")
    assert worker["open_slots"] == 0
    until(lambda: b"No module named 'no_such_module'" in service.penstockd.status(), service.penstockd.status)
    assert service.complete().status == 503


def test_a_promised_job_has_its_progress_and_its_result(penstock, folder):
    service = serve(penstock, program(folder, f"""\
        for job in jobs:
            say(progress=0.25, step=1, steps=4)
            while not os.path.exists("{folder}/go_on"): time.sleep(0.01)
            open("a.txt", "w").write("made")
            say(result={{"type": "text/plain", "file": "a.txt"}}, usage={{"prompt_tokens": 3}})
        """), yaml=f"state: {folder}/state")
    location = service.complete(headers={"Prefer": "respond-async"}).headers["Location"]
    until(lambda: service.get(location).json()["progress"] == {"fraction": 0.25, "step": 1, "steps": 4},
          lambda: service.get(location).text())
    (folder / "go_on").touch()
    until(lambda: service.get(location).json()["status"] == "completed", lambda: service.get(location).text())
    assert service.get(location + "/result").text() == "made"
