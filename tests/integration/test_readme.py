"""What the README and its chapters say to paste does what it says."""

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from npm import installed
from test_run import Run, run, shell  # noqa: F401 (run is a fixture)
from processes import ASAN, BUILD
from test_webhooks import receiver  # noqa: F401 (a fixture)
from waiting import until

ROOT = Path(__file__).parents[2]
CHAPTERS = ("LIMITS", "JOBS", "OPERATING", "METRICS", "DEVICES", "MODELS", "BUILDING")
README = "\n".join([(ROOT / "README.md").read_text(), *((ROOT / "docs" / f"{name}.md").read_text() for name in CHAPTERS)])
pytestmark = pytest.mark.skipif(ASAN, reason="runs scripts/run, as test_run.py does")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def directives(text):
    """A configuration without comments and white space."""
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())
    return " ".join(" ".join(lines).split())


def test_the_nginx_conf_is_the_one_that_runs():
    assert [directives(block) for block in blocks("nginx")] == [directives((ROOT / "config" / "nginx.conf").read_text())]


def test_every_part_of_an_nginx_conf_is_accepted(penstock):
    parts = blocks("nginx location")
    assert len(parts) >= 3
    http = "map $arg_plan $plan { default free; } penstock_zone edge 1m; penstock_tier free { rate 10r/m; }"
    for part in parts:
        service = penstock(start=False, http=http, server=f"location / {{\n{part}\nempty_gif; }}")
        accepted, said = service.nginx.check()
        assert accepted and "[warn]" not in said, said


def test_the_lines_for_those_who_come_from_limit_req_are_accepted(penstock):
    lines = re.findall(r"`(penstock_limit [^`]*;)`", README[README.index("Coming from limit_req"):])
    assert len(lines) >= 4
    limits = "\n".join(line.replace("key=…", "key=$binary_remote_addr").replace("name=a", f"name=a{i}")
                       for i, line in enumerate(lines))
    service = penstock(start=False, http="map $arg_key $key { default a; } penstock_zone edge 1m;",
                       server=f"location / {{\n{limits}\nempty_gif; }}")
    accepted, said = service.nginx.check()
    assert accepted and "[warn]" not in said, said


def test_the_penstock_yaml_is_accepted_and_says_what_the_full_one_says(folder):
    block, _, devices = blocks("yaml")  # that in the middle is one of docs/ENGINES.md
    (folder / "devices.yaml").write_text("socket: s.sock\nqueues: { image: {} }\n" + devices)
    assert subprocess.run([BUILD / "penstockd", "-t", "-c", folder / "devices.yaml"]).returncode == 0
    (folder / "penstock.yaml").write_text(block)
    done = subprocess.run([BUILD / "penstockd", "-t", "-c", folder / "penstock.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    full = directives((ROOT / "config" / "penstock.yaml").read_text())
    assert [line for line in map(directives, block.splitlines()) if line not in full] == []


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z0-9-]+)", README)) | set(re.findall(r"^make ([a-z0-9-]+)", README, re.M))
    assert named and named <= targets


def test_the_operators_chapter_does_what_it_says(run, folder, monkeypatch):  # noqa: F811
    service = run().wait_until_ready()
    config = (ROOT / "run" / str(service.port) / "penstock.yaml").read_text()
    monkeypatch.setenv("PENSTOCK_SOCKET", re.search(r"^socket: *(\S+)", config, re.M).group(1))
    monkeypatch.chdir(folder)
    (commands,) = [block for block in blocks("sh") if "penstockctl jobs" in block]
    said = shell(commands.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}").replace("build/", f"{BUILD}/"))
    for words in ("penstockd is serving", "there are no such jobs", "there are no dead letters", "queue default is paused",
                  "queue default goes on", "worker demo: 2 processes, 8 slots in all", "3 requests: 3 answered, 0 failed"):
        assert words in said, said
    assert (folder / "batch.results.jsonl").read_text().count('"status_code":200') == 3


def test_every_curl_and_penstockctl_line_answers_as_it_says(run, monkeypatch):  # noqa: F811
    service = run().wait_until_ready()
    monkeypatch.setenv("PENSTOCK_CONSOLE", f"http://127.0.0.1:{service.port}/console")
    commands = [block.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}").replace("build/", f"{BUILD}/")
                for block in blocks("sh") if ("curl" in block or "penstockctl" in block) and "jobs" not in block and "respond-async" not in block]
    assert len(commands) == 4
    said = "".join(shell(command) for command in commands)
    assert '"free-quota-d"' in said and "free-rate" in said and "reset" in said
    assert '"demo"' in said and "data: [DONE]" in said
    assert re.search(r"HTTP/1.1 429", said) and re.search(r"Retry-After: \d+", said, re.I)


def test_the_first_request_of_the_openai_client(run, folder):  # noqa: F811
    service = run().wait_until_ready()
    (program,) = blocks("js")
    (folder / "first.mjs").write_text(program.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}"))
    (folder / "node_modules").symlink_to(installed("openai") / "node_modules")
    done = subprocess.run(["node", folder / "first.mjs"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def command_of(pid):
    """Empty: it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_the_chapter_on_jobs_tells_the_whole_way_of_one(run, receiver):  # noqa: F811
    service, here = run().wait_until_ready(), receiver()
    flow = [block for block in blocks("sh") if "respond-async" in block or "$job" in block]
    assert len(flow) == 2
    submit, *look = "".join(flow).replace("127.0.0.1:8080", f"127.0.0.1:{service.port}").splitlines()
    worker = next(pid for pid in service.family() if b"llama" in command_of(pid))
    os.kill(worker, signal.SIGSTOP)  # so that there is time to look
    said = shell(submit.replace("-H 'Prefer:", f"-H 'Penstock-Callback: {here.url}' -H 'Prefer:"))
    (job,) = set(re.findall(r"job_[0-9A-Z]{26}", said))
    assert re.search(r"HTTP/1.1 202", said) and f"Location: /jobs/{job}" in said and "Preference-Applied: respond-async" in said
    assert '"position":' in said and '"eta_seconds":' in said
    stream = service.output.with_suffix(".events")
    with open(stream, "wb") as out:
        looking = subprocess.Popen(["bash", "-c", "\n".join(look)], stdout=out)
    until(lambda: re.search(r"^event: (queued|processing)$", stream.read_text(), re.M), "its events are looked at")
    os.kill(worker, signal.SIGCONT)
    assert looking.wait(60) == 0
    said = stream.read_text()
    assert re.search(r"^event: chunk$", said, re.M) and re.search(r"^event: completed$", said, re.M)
    assert f'"result_url":"/jobs/{job}/result"' in said
    assert '"object":"text_completion"' in said and '"object":"list"' in said
    until(lambda: here.posts, "the webhook comes")
    headers, body = here.posts[0]
    assert headers["webhook-signature"].startswith("v1,")
    assert json.loads(body)["type"] == "job.completed" and json.loads(body)["data"]["id"] == job


def test_every_other_command_is_one_that_exists():
    for block in blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                assert re.match(r"\w+=", words[0]) or words[0] in ("curl", "for", "make", "python3", "apt-get", "git", "cd", "nginx", "build/penstockctl"), line
