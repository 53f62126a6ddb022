"""The logs: what they tell, that they change while penstockd runs, that nobody waits for who reads them, and what they never tell."""

import fcntl
import gzip
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

import planted
from conftest import simulate
from processes import BUILD, environment
from server import ModelServer, completion, event, word
from waiting import until
from wire import TOOL, STATUS, Connection, frame

SERVER = "penstock_owner $http_authorization;\nlocation /v1/ { penstock_pass gpu; }\nlocation /jobs { penstock_jobs gpu; }\n"
PROMPT = "My dear diary, today I met a tall dark stranger"
KEY = "sk-live-0123456789abcdefghij"
PROGRAM = """\
import json, sys
print(json.dumps({"penstock": 1}), flush=True)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if "job" in job:
        print("asked for", job["body"], file=sys.stderr, flush=True)
        print(json.dumps({"job": job["job"], "result": {"content_type": "text/plain", "body": "done"}}), flush=True)
"""


def lines(service, words, path=None):
    return [line for line in (path or service.penstockd.process.output).read_text().splitlines() if words in line]


def one_line(service, words):
    until(lambda: lines(service, words), f"the log says {words}")
    return lines(service, words)[-1]


def fields(line):
    return dict(re.findall(r" (\w+)=(\S+)", line))


def reload(service, old, new):
    config = service.penstockd.config
    before = len(lines(service, "changed: log."))
    config.write_text(config.read_text().replace(old, new))
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: len(lines(service, "changed: log.")) > before, "it is reloaded")


def test_one_line_tells_what_a_job_took_and_what_came_of_it(penstock):
    service = penstock(server=SERVER, workers=[simulate(slots=1, service_time="30ms")], yaml="state: state\n")
    headers = {"Authorization": "Bearer alice", "Prefer": "respond-async"}
    id = service.complete(headers=headers).json()["id"]
    line = one_line(service, "job ended")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[info\] job ended job=job_", line), line
    told = fields(line)
    assert told["job"] == id and told["outcome"] == "completed" and told["queue"] == "default" and told["model"] == "sim"
    assert int(told["run_ms"]) >= 20 and int(told["queue_ms"]) >= 0 and told["attempts"] == "0"
    usage = service.get(f"/jobs/{id}/result", Authorization="Bearer alice").json()["usage"]
    assert (int(told["prompt_tokens"]), int(told["completion_tokens"])) == (usage["prompt_tokens"], usage["completion_tokens"])
    seen = subprocess.run([BUILD / "penstockctl", "jobs", "--json", "-s", service.penstockd.socket], capture_output=True, text=True)
    assert json.loads(seen.stdout)["data"][0]["owner"].endswith(told["owner"]), "whose it is, as operators see it"
    assert len(lines(service, "job ended")) == 1


def test_each_outcome_is_told_once_also_of_those_that_were_waited_for(penstock):
    service = penstock(server=SERVER, workers=[simulate(slots=1), simulate(name="fails", failure_rate=1)],
                       yaml="state: state\nlog: { format: json }\n", queue={"attempts": 1})
    assert [service.complete(model=model).status for model in ("sim", "fails", "sim")] == [200, 502, 200]
    until(lambda: len(lines(service, '"job ended"')) == 3, "each end is a line")
    told = [json.loads(line) for line in lines(service, '"job ended"')]
    assert sorted(each["outcome"] for each in told) == ["completed", "completed", "failed"]
    (failed,) = [each for each in told if each["outcome"] == "failed"]
    assert failed["level"] == "warn" and failed["status"] == 502 and failed["error"] == "engine_failed" and failed["attempts"] == 1
    assert "owner" not in told[0], "nobody's"
    reload(service, "log: { format: json }", "log: { format: json, jobs: false }")
    service.complete()
    assert len(lines(service, '"job ended"')) == 3


def test_a_job_that_is_cancelled_before_it_ran_has_no_run_time(penstock):
    service = penstock(server=SERVER, workers=[simulate(slots=1, service_time="60s")], yaml="state: state\nlog: { format: json }\n")
    first = service.stream()
    service.penstockd.wait_for(running=1)
    waits = service.complete(headers={"Prefer": "respond-async"}).json()["id"]
    assert service.request("DELETE", f"/jobs/{waits}").status == 200
    until(lambda: lines(service, waits), "its end is told")
    told = json.loads(lines(service, waits)[-1])
    assert told["outcome"] == "cancelled" and "run_ms" not in told
    first.close()


def program(folder):
    path = folder / "program.py"
    path.write_text(PROGRAM)
    return dict(name="prog", engine="process", command=f'["/usr/bin/python3", "{path}"]', model="sim", slots=1)


def test_level_and_format_change_while_it_runs_and_workers_follow(penstock, folder):
    service = penstock(server=SERVER, workers=[program(folder)], yaml="log: { level: info, format: text }\n")
    assert service.complete().status == 200
    said = one_line(service, "stderr: asked for")
    assert re.match(r"\S+Z \[info\] penstock-worker prog: slot 0, job 1: stderr: ", said), said
    pids = service.penstockd.workers()
    reload(service, "log: { level: info, format: text }", "log: { level: info, format: json }")
    assert service.complete().status == 200
    said = json.loads(one_line(service, 'job 2: stderr'))
    assert said["program"] == "penstock-worker" and said["worker"] == "prog" and said["level"] == "info"
    for line in service.penstockd.process.text().split("changed: log.format", 1)[1].splitlines()[1:]:
        json.loads(line)
    reload(service, "level: info", "level: error")
    count = len(service.penstockd.process.text())
    assert service.complete().status == 200
    assert len(service.penstockd.process.text()) == count, "neither of them writes what is less"
    assert service.penstockd.workers() == pids, "no worker was started anew"


def test_a_level_or_format_that_there_is_not_is_refused_by_name(folder):
    config = folder / "p.yaml"
    for log, words in (("{ level: loud }", "'loud' is not known; write debug, info, warn or error"),
                       ("{ format: xml }", "'xml' is not known; write text or json"),
                       ("{ lvl: info }", "did you mean 'level'?"), ("{ jobs: 3 }", "write true or false")):
        config.write_text(f"socket: {folder}/s\nworkers: []\nlog: {log}\n")
        done = subprocess.run([BUILD / "penstockd", "-t", "-c", config], capture_output=True, text=True)
        assert done.returncode == 1 and words in done.stderr and "p.yaml:3: key 'log." in done.stderr, done.stderr


def test_a_full_pipe_holds_up_no_job_and_the_count_is_told_by_itself(folder, penstock):
    service = penstock(server=SERVER, workers=[program(folder)], start=False)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        daemon = service.penstockd
        process = subprocess.Popen([BUILD / "penstockd", "-c", daemon.config], stdin=subprocess.DEVNULL, stdout=writer, stderr=writer,
                                   env=environment(folder))
        until(lambda: daemon.socket.exists(), "it listens")
        until(lambda: (queue := daemon.queue()) and queue.slots == 1, "its worker is ready")
        service.nginx.start(service.port)
        for _ in range(60):
            assert service.complete().status == 200
        tool = Connection(daemon.socket, role=TOOL)
        tool.send(frame(STATUS, 1))
        assert tool.receive()[0] == STATUS
        os.set_blocking(reader, False)
        said = ""

        def read():
            nonlocal said
            try:
                said += os.read(reader, 1 << 16).decode()
            except BlockingIOError:
                pass
            return said
        until(lambda: re.search(r"\[warn\] lines before this one were lost: the log was not read lost=\d+\n", read()),
              "it says what was lost, though nothing else happens")
        assert all(re.match(r"\d{4}-\S+Z \[\w+\] ", line) for line in said.splitlines()), "no line is torn"
    finally:
        process.terminate()
        process.wait()
        os.close(reader)
        os.close(writer)


def quoting(asked, reply):
    """A model's server that quotes what it was asked, and its key, in every complaint."""
    if asked.method == "GET":
        return reply({"data": [{"id": "sim"}]})
    quoted = {"error": {"message": f"cannot take {asked.body.decode()} of {asked.headers['Authorization']}", "type": "invalid_request_error"}}
    kind = asked.json().get("user", "")
    if kind == "stream":
        return reply([word("Hi"), event(**quoted)], type="text/event-stream")
    if kind == "html":
        return reply(f"<h1>{asked.body.decode()}</h1>", status=502, type="text/html")
    if kind.isdigit():
        return reply(quoted, status=int(kind))
    if kind == "no json":
        return reply(asked.body.decode()[2:])
    return reply(completion())


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_log_of_the_whole_stack_shows_a_prompt_or_a_key(penstock, folder, format):
    (folder / "key").write_text(planted.plant("sk-upstream-abcdefghijklmnop") + "\n")
    (folder / "key").chmod(0o600)
    upstream = ModelServer(quoting)
    http = "penstock_zone edge 1m; penstock_log_level notice;"
    server = """
    penstock_owner $http_authorization;
    location /v1/ { penstock_limit zone=edge key=$http_authorization rate=1000r/s burst=1000 name=a; penstock_pass gpu; }
    location /few/ { penstock_limit zone=edge key=$http_authorization rate=1r/m name=few; rewrite ^/few(/.*) $1 break; penstock_pass gpu; }
    location /jobs { penstock_jobs gpu; }
    """
    chat = dict(name="chat", engine="http", url=f'"{upstream.url}"', model="chat", slots=4, key_file=folder / "key")
    try:
        service = penstock(http=http, server=server, workers=[chat, program(folder), simulate(name="fails", failure_rate=1)],
                           yaml=f"state: state\nlog: {{ level: debug, format: {format} }}\n", queue={"attempts": 1}, limits={"max_body": "1MiB"})
        who = {"Authorization": f"Bearer {KEY}", "X-Api-Key": KEY + "-other"}
        for kind in ("", "400", "401", "404", "422", "500", "no json", "html", "stream"):
            for prompt in (PROMPT, "你好，请问一下今天天气怎么样呢？我想知道更多", 'he said "no", \\ then left for good'):
                service.request("POST", "/v1/chat/completions", who,
                                {"model": "chat", "user": kind, "stream": kind == "stream", "messages": [{"role": "user", "content": prompt}]})
        for model in ("sim", "fails", "none"):
            for more in ({}, {"Prefer": "respond-async"}, {"Prefer": "respond-async", "Idempotency-Key": '"k"', "Penstock-Label": "mine"}):
                service.request("POST", "/v1/completions", {**who, **more}, {"model": model, "prompt": PROMPT, "max_tokens": 4})
        statuses = [service.request("POST", "/few/v1/completions", who, {"model": "sim", "prompt": PROMPT}).status for _ in range(3)]
        assert statuses == [200, 429, 429]
        service.request("POST", "/v1/completions", {**who, "Content-Type": "application/json"}, '{"prompt": "' + planted.plant(PROMPT))
        service.request("POST", "/v1/completions", who, {"model": "sim", "prompt": "x" * (2 << 20)})
        service.penstockd.wait_for(running=0, length=0)
        said = service.penstockd.process.text()
        assert "asked for [withheld]" in said or "asked for {" in said and "[withheld]" in said
        assert "cannot take [withheld]" in said, "what else the server says is told"
        assert "job ended" in said
        assert "limiting request: 429" in service.nginx.log()
    finally:
        upstream.close()


CHAPTER = (Path(__file__).parents[2] / "docs" / "LOGS.md").read_text()


def test_the_chapters_settings_are_those_in_force(folder):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", CHAPTER, re.M | re.S)
    (folder / "p.yaml").write_text(f"socket: {folder}/s\nworkers: []\n{block}")
    shown = subprocess.run([BUILD / "penstockd", "-T", "-c", folder / "p.yaml"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^log\..*$", shown, re.M) == ["log.format: text", "log.jobs: true", "log.level: info"]


def test_the_chapters_line_is_like_one_that_is_written_and_its_query_finds_it(penstock, folder):
    example = re.search(r"^\d{4}-.* job ended .*$", CHAPTER, re.M)[0]
    service = penstock(server=SERVER, workers=[simulate(slots=1)], yaml="log: { format: json }\n")
    assert service.complete(headers={"Authorization": "Bearer alice"}).status == 200
    told = json.loads(one_line(service, '"job ended"'))
    assert set(fields(example)) <= set(told) and set(told) - set(fields(example)) <= {"time", "level", "program", "message", "status"}
    for name in fields(example):
        assert f"`{name}`" in CHAPTER or name in ("job", "queue", "model"), name
    (query,) = re.findall(r"^journalctl .* \| (jq .*)$", CHAPTER, re.M)
    log = service.penstockd.process.output
    found = subprocess.run(["bash", "-c", query.replace("10000", "-1") + f" <{log}"], capture_output=True, text=True, check=True).stdout
    assert found.split("\t")[:2] == [told["job"], "sim"]


def test_a_log_that_is_a_file_is_rotated_as_the_chapter_says(penstock, folder):
    service = penstock(workers=[simulate(slots=1)])
    log = service.penstockd.process.output  # which is appended to
    (block,) = re.findall(r"^```logrotate\n(.*?)^```", CHAPTER, re.M | re.S)
    (folder / "conf").write_text(block.replace("/var/log/penstock.log", str(log)))
    until(lambda: "ready" in log.read_text(), "it has said something")
    subprocess.run(["logrotate", "--force", "--state", folder / "state", folder / "conf"], check=True,
                   env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "reload" in log.read_text(), lambda: f"it goes on: {log.read_bytes()}")
    assert "ready" not in log.read_text() and b"\0" not in log.read_bytes()
    assert b"ready" in gzip.decompress(log.with_name(log.name + ".1.gz").read_bytes())


def test_the_tests_would_see_it(folder):
    (folder / "x.out").write_text(f"a line\nand {PROMPT[:20]}\n")
    planted.note({"Authorization": "Bearer short"}, {"messages": [{"content": [{"type": "text", "text": PROMPT}]}]})
    found = planted.shown_in(folder)
    planted.forget()
    assert len(found) == 1 and "x.out shows" in found[0]
