"""The ledger: what each owner used, equal to what the limits count, whatever is killed."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from client import Client
from conftest import simulate
from processes import BUILD
from test_operator import ctl, said  # noqa: F401 (fixtures)
from waiting import until

LIMITS = """
    penstock_limit zone=edge key=$arg_key quota=1000000r/M name=requests;
    penstock_limit zone=edge key=$arg_key quota=10000000t/M name=tokens;
    penstock_limit zone=edge key=$arg_key quota=1000000gs/M name=gpu;
"""
SERVER = f"""
    penstock_owner $arg_key;
    location /v1/ {{ {LIMITS} penstock_pass gpu; }}
    location /jobs {{ penstock_jobs gpu; }}
    location = /quota {{ {LIMITS} penstock_quota; }}
"""
CHARGED = ("requests", "tokens", "gpu_ms")


@pytest.fixture
def metered(penstock, folder):
    """A service whose every request is counted by a quota of requests, of tokens and of GPU time, each by its key."""
    def build(workers=(simulate(slots=8),), yaml="", **parts):
        return penstock(http="penstock_zone edge 1m;", server=SERVER, workers=list(workers),
                        yaml=f"state: {folder}/state\n" + yaml, **parts)
    return build


def ask(service, key, prefer=None, **body):
    headers = {"Prefer": prefer} if prefer else {}
    return service.complete(f"/v1/completions?key={key}", headers=headers, **body)


def counted(service, key):
    """By the limiter."""
    limits = {row["name"]: row["used"] for row in service.get(f"/quota?key={key}").json()["limits"]}
    return {"requests": limits["requests"], "tokens": limits["tokens"], "gpu_ms": round(limits["gpu"] * 1000)}


def rows(said, service, *more):
    return said(service, "usage", "--json", *more)["data"]


def sum_of(rows):
    total = {name: sum(row[name] for row in rows) for name in
             ("completed", "failed", "cancelled", "expired", "joined", "requests", "gpu_ms")}
    total["tokens"] = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
    return total


def charged(said, service, key):
    """By the ledger."""
    total = sum_of(rows(said, service, "--owner", key))
    return {name: total[name] for name in CHARGED}


def agree(said, service, key):
    """Until both say the same, which is told."""
    def same():
        ledger, limiter = charged(said, service, key), counted(service, key)
        return ledger == limiter and ledger
    return until(same, lambda: f"the ledger's {charged(said, service, key)} is the limiter's {counted(service, key)}")


def wait_for_ends(said, service, key, count):
    def over():
        total = sum_of(rows(said, service, "--owner", key))
        return sum(total[name] for name in ("completed", "failed", "cancelled", "expired")) >= count
    until(over, lambda: f"{count} ends are in the ledger: {rows(said, service, '--owner', key)}")


def test_what_is_waited_for_and_what_is_promised_is_counted_as_the_limits_do(metered, said):
    service = metered()
    for _ in range(3):
        assert ask(service, "ann").status == 200
        assert ask(service, "bob", prefer="respond-async").status == 202
    wait_for_ends(said, service, "ann", 3)
    wait_for_ends(said, service, "bob", 3)
    for key in "ann", "bob":
        total = agree(said, service, key)
        assert total["requests"] == 3 and total["tokens"] > 0
        assert sum_of(rows(said, service, "--owner", key))["completed"] == 3
    assert charged(said, service, "cid") == dict.fromkeys(CHARGED, 0)
    first = rows(said, service, "--owner", "ann")[0]
    assert first["queue"] == "default" and first["model"] == "sim" and len(first["owner_hash"]) == 16
    assert rows(said, service, "--owner-hash", first["owner_hash"]) == rows(said, service, "--owner", "ann")


def test_what_fails_by_no_fault_of_its_caller_is_not_charged(metered, said):
    service = metered([simulate(slots=8, failure_rate=1)], queue={"attempts": 1})
    assert ask(service, "ann").status == 502
    assert ask(service, "ann", prefer="respond-async").status == 202
    wait_for_ends(said, service, "ann", 2)
    assert agree(said, service, "ann") == dict.fromkeys(CHARGED, 0)
    assert sum_of(rows(said, service, "--owner", "ann"))["failed"] == 2


def test_the_same_key_is_one_job_and_two_requests(metered, said):
    service = metered()
    for _ in range(2):
        answer = service.complete("/v1/completions?key=ann", headers={"Idempotency-Key": '"one"'})
        assert answer.status == 200
    until(lambda: sum_of(rows(said, service, "--owner", "ann"))["joined"] == 1, "the second has joined the first")
    assert agree(said, service, "ann")["requests"] == 2
    assert sum_of(rows(said, service, "--owner", "ann"))["completed"] == 1


@pytest.mark.parametrize("pieces", [0, 3])
def test_a_caller_that_leaves_is_charged_what_was_done_until_then(metered, said, pieces):
    service = metered([simulate(slots=8, service_time="60s")] if pieces == 0 else
                      [simulate(slots=8, tokens_per_second=20)])
    client = Client(service.port)
    stream = None
    if pieces:
        stream = client.stream("POST", "/v1/completions?key=ann", None,
                               {"model": "sim", "prompt": "a", "stream": True, "max_tokens": 400})
        for _ in range(pieces):
            stream.next_event()
        stream.close()
    else:
        body = json.dumps({"model": "sim", "prompt": "a", "max_tokens": 4})
        client._connection.request("POST", "/v1/completions?key=ann", body, {"Content-Type": "application/json"})
        service.penstockd.wait_for(running=1)
        client.close()
    wait_for_ends(said, service, "ann", 1)
    total = agree(said, service, "ann")
    assert total["requests"] == 1 and sum_of(rows(said, service, "--owner", "ann"))["cancelled"] == 1
    assert total["tokens"] >= pieces


def test_after_a_crash_of_penstockd_the_ledger_is_what_the_limits_count(metered, said):
    """Callers that wait, and others that are promised, while penstockd is killed and comes back, three times."""
    service = metered([simulate(slots=8, service_time="5ms")])
    over = threading.Event()
    answered, promised, failures = [], [], []

    def load(key, prefer, done):
        while not over.is_set():
            try:
                answer = ask(service, key, prefer=prefer)
            except OSError as error:
                failures.append(error)
                return
            if answer.status in (200, 202):
                done.append(answer)

    threads = [threading.Thread(target=load, args=work) for work in
               2 * [("ann", None, answered)] + 2 * [("bob", "respond-async", promised)]]
    for thread in threads:
        thread.start()
    for _ in range(3):
        seen = len(answered), len(promised)
        until(lambda: len(answered) > seen[0] + 20 and len(promised) > seen[1] + 20, "jobs come and go")
        service.penstockd.kill()
        service.penstockd.start()
        service.wait_for_workers(service.penstockd)
    over.set()
    for thread in threads:
        thread.join()
    assert not failures
    wait_for_ends(said, service, "bob", len(promised))
    # Of a promise that was on its way nobody heard: it may be kept, or its charge stands for nothing. Two callers, three crashes, and
    # each may meet a crash twice: on a connection that is used, and on one that was still to be accepted.
    perhaps = 12

    def settled():
        ledger, limiter = charged(said, service, "bob"), counted(service, "bob")
        lost = limiter["requests"] - ledger["requests"]
        return ledger if 0 <= lost <= perhaps and (lost or ledger == limiter) and 0 <= limiter["tokens"] - ledger["tokens"] <= 20 * lost else None

    bob = until(settled, lambda: f"the ledger's {charged(said, service, 'bob')} is the limiter's {counted(service, 'bob')}")
    assert len(promised) <= bob["requests"] <= len(promised) + perhaps
    until(lambda: charged(said, service, "ann")["requests"] >= len(answered), "all that was answered is counted")
    ledger, limiter = charged(said, service, "ann"), counted(service, "ann")
    # Of what was waited for, the ledger may know of ends that the edge had yet to hear of: two callers, three crashes.
    assert limiter["requests"] == len(answered) and 0 <= ledger["requests"] - limiter["requests"] <= 6


def test_after_kills_of_workers_the_ledger_is_what_the_limits_count(metered, said):
    """Jobs run again where a worker was killed, and each is counted once: those that are waited for, and those that were promised."""
    service = metered([simulate(slots=4, service_time="20ms"), simulate("other", slots=4, service_time="20ms", model="sim")], queue={"attempts": 50})
    over = threading.Event()
    statuses = {"ann": [], "bob": []}

    def load(key, prefer):
        while not over.is_set():
            statuses[key].append(ask(service, key, prefer=prefer, max_tokens=8).status)

    threads = [threading.Thread(target=load, args=work) for work in 2 * [("ann", None), ("bob", "respond-async")]]
    for thread in threads:
        thread.start()
    for _ in range(4):
        seen = {key: len(done) for key, done in statuses.items()}
        until(lambda: all(len(done) > seen[key] + 10 for key, done in statuses.items()), "jobs come and go")
        service.penstockd.wait_for(slots=8)
        os.kill(next(pid for pid in service.penstockd.workers() if b"--name" in Path(f"/proc/{pid}/cmdline").read_bytes()), signal.SIGKILL)
    over.set()
    for thread in threads:
        thread.join()
    assert set(statuses["ann"]) == {200} and set(statuses["bob"]) == {202}
    assert json.loads(service.penstockd.status())["workers"][0]["restarts"] + json.loads(service.penstockd.status())["workers"][1]["restarts"] == 4
    for key, done in statuses.items():
        wait_for_ends(said, service, key, len(done))
        assert agree(said, service, key)["requests"] == len(done)


def test_a_killed_worker_of_nginx_leaves_its_reservation_with_the_limits_alone(metered, said):
    service = metered([simulate(slots=8, service_time="60s")], master=True)
    client = Client(service.port)
    body = json.dumps({"model": "sim", "prompt": "a", "max_tokens": 400})
    client._connection.request("POST", "/v1/completions?key=ann", body, {"Content-Type": "application/json"})
    service.penstockd.wait_for(running=1)
    service.expected_alert = "exited on signal 9"
    old = service.nginx.workers()
    for worker in old:
        os.kill(worker, signal.SIGKILL)
    client.close()
    wait_for_ends(said, service, "ann", 1)
    until(lambda: service.nginx.workers() and not set(service.nginx.workers()) & set(old), "Nginx has another worker")
    ledger, limiter = charged(said, service, "ann"), counted(service, "ann")
    assert ledger["requests"] == limiter["requests"] == 1
    assert 0 <= limiter["tokens"] - ledger["tokens"] <= 401


def test_a_dead_letter_that_runs_again_is_not_charged_for(metered, said):
    service = metered([simulate(slots=8, failure_rate=1)], queue={"attempts": 1})
    id = ask(service, "ann", prefer="respond-async").json()["id"]
    wait_for_ends(said, service, "ann", 1)
    text = service.penstockd.config.read_text()
    service.penstockd.config.write_text(text.replace("failure_rate: 1", "failure_rate: 0"))
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in service.penstockd.process.text(), "the worker is another one")
    said(service, "dead", "requeue", id)
    wait_for_ends(said, service, "ann", 2)
    total = sum_of(rows(said, service, "--owner", "ann"))
    assert total["completed"] == 1 and total["failed"] == 1
    assert agree(said, service, "ann") == dict.fromkeys(CHARGED, 0)


def test_rows_are_summed_up_and_told_in_several_forms(metered, said, ctl):
    service = metered()
    for key in "ann", "ann", "bob":
        assert ask(service, key).status == 200
    for key, count in ("ann", 2), ("bob", 1):
        wait_for_ends(said, service, key, count)
    months = rows(said, service, "--by", "month")
    assert [row["completed"] for row in months] == [3] and list(months[0])[:2] == ["time", "completed"]
    by_owner = rows(said, service, "--by", "owner,model")
    assert sorted(row["completed"] for row in by_owner) == [1, 2] and {row["model"] for row in by_owner} == {"sim"}
    table = list(csv.DictReader(io.StringIO(said(service, "usage", "--csv"))))
    assert sum(int(row["completed"]) for row in table) == 3 and {row["queue"] for row in table} == {"default"}
    assert "owner_hash" in said(service, "usage") and said(service, "usage", "--since", "2100-01-01") == "nothing was used\n"
    # The hour is not over: nothing of it is an event yet.
    assert json.loads(said(service, "usage", "--cloudevents")) == []
    for arguments, words in ((("--by", "year"), "--by is"), (("--csv", "--json"), "give one of"), (("--since", "soon"), "are times"),
                             (("--owner", "a", "--owner-hash", "b"), "not both"), (("ann",), "--owner NAME")):
        done = ctl(service, "usage", *arguments)
        assert done.returncode == 2 and words in done.stderr


def test_events_of_hours_that_are_over_have_ids_that_stay(metered, said):
    service = metered()
    assert ask(service, "ann").status == 200
    wait_for_ends(said, service, "ann", 1)
    service.penstockd.stop()
    with contextlib.closing(sqlite3.connect(service.folder.parent / "state" / "jobs.db")) as db, db:
        db.execute("UPDATE usage SET hour = hour - 5")
    service.penstockd.start()
    events = json.loads(said(service, "usage", "--cloudevents"))
    assert len(events) == 1
    event = events[0]
    assert event["specversion"] == "1.0" and event["type"] == "penstock.usage.hour" and event["source"].startswith("/penstock/ledgers/")
    assert event["id"].split("/")[0] == event["time"] and event["data"]["completed"] == 1
    assert json.loads(said(service, "usage", "--cloudevents")) == events


def test_what_is_old_is_dropped(metered, said):
    service = metered(yaml="ledger: { keep: 24h }\n")
    assert ask(service, "ann").status == 200
    wait_for_ends(said, service, "ann", 1)
    service.penstockd.stop()
    with contextlib.closing(sqlite3.connect(service.folder.parent / "state" / "jobs.db")) as db, db:
        db.execute("UPDATE usage SET hour = hour - 30")
    service.penstockd.start()
    until(lambda: rows(said, service) == [], "the ledger is empty")


def test_without_a_state_there_is_no_ledger(penstock, ctl):
    service = penstock(server="location / { penstock_pass gpu; }", workers=[simulate()])
    done = ctl(service, "usage")
    assert done.returncode == 1 and "no ledger" in done.stderr


# --- The chapter

CHAPTER = (Path(__file__).parents[2] / "docs" / "USAGE.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", CHAPTER, re.M | re.S)


def test_every_command_of_the_chapter_does_what_it_says(metered, ctl):
    service = metered()
    (commands,) = blocks("sh")
    for line in commands.splitlines():
        words = shlex.split(line)
        assert words[0] == "build/penstockctl"
        done = ctl(service, *words[1:])
        assert done.returncode == 0, done.stderr


def test_its_configurations_are_accepted(penstock, folder):
    for i, block in enumerate(blocks("yaml")):
        file = folder / f"{i}.yaml"
        file.write_text(f"socket: s.sock\nstate: {folder}/state\n" + block)
        done = subprocess.run([BUILD / "penstockd", "-t", "-c", file], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (part,) = blocks("nginx location")
    service = penstock(start=False, http="penstock_zone edge 1m;", server=f"location / {{ {part} empty_gif; }}")
    accepted, said = service.nginx.check()
    assert accepted and "[warn]" not in said, said
