"""penstockd gives its place to another, and nobody who waits or works notices."""

import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from client import Client
from conftest import simulate
from processes import BUILD
from test_slow_reader import WORDY, until_it_rests
from upgrading import ALICE, Asked, ctl, families, gated, put_back, replace, serve, text, upgrade, upgraded  # noqa: F401 (fixtures)
from waiting import until
from wire import ACCEPTED, CALLER, CHUNK, DONE, FAILED, GOODBYE, HEAD, HELLO, PROGRESS, SUBMIT, Connection, frame

WORKER = 2  # a role


# ---- what stays ----

def test_workers_and_the_socket_stay(serve):
    service = serve(simulate(slots=2))
    before, pid = families(service), service.penstockd.process.pid
    assert service.complete().status == 200
    for _ in range(3):
        upgrade(service)
        assert service.complete().status == 200
    assert families(service) == before
    assert service.penstockd.process.pid == pid and service.penstockd.process.alive()
    assert len(os.listdir(f"/proc/{pid}/fd")) < 40


def test_a_stream_goes_on_byte_for_byte(serve, gated):
    service = serve(gated.worker())
    gated.let(3)
    asked = Asked(service, "a", 40)
    until(lambda: len(asked.lines) == 3, "the stream has begun")
    for lines in (10, 20, 40):
        upgrade(service)
        gated.let(lines)
        until(lambda: len(asked.lines) == lines, lambda: f"the stream goes on: {asked.lines} {text(service)[-1500:]}")
    asked.whole("a", 40)
    assert gated.runs() == ["a"]


def test_an_answer_that_a_slow_reader_holds_up_goes_on(serve):
    service = serve(*WORDY)
    stream = service.stream(max_tokens=60000)
    assert stream.next_event()
    until_it_rests(service)
    upgrade(service)
    events = list(stream.events())
    assert events[-1] == "[DONE]" and len(events) > 59000


def test_who_waits_keeps_connection_and_place(serve, gated):
    service = serve(gated.worker())
    asked = []
    for i in range(6):
        asked.append(Asked(service, f"job{i}", 2))
        service.penstockd.wait_for(running=1, length=i)
    upgrade(service)
    service.penstockd.wait_for(running=1, length=5)
    late = Asked(service, "late", 2)
    service.penstockd.wait_for(running=1, length=6)
    upgrade(service)
    gated.let(2)
    for i, each in enumerate(asked):
        each.whole(f"job{i}", 2)
    late.whole("late", 2)
    assert gated.runs() == [f"job{i}" for i in range(6)] + ["late"]


def test_fair_shares_and_classes_are_what_they_were(serve, gated):
    """By the wire, where each job's owner, class and weight can be said."""
    service = serve(gated.worker())
    caller = Connection(service.penstockd.socket)

    def submit(id, owner, priority=0, weight=1, cost=1):
        body = json.dumps({"model": "sim", "prompt": f"{owner}{id}", "max_tokens": 1})
        caller.send(frame(SUBMIT, id, queue="default", model="sim", owner=owner, priority=priority, weight=weight, cost=cost,
                          method="POST", path="/v1/completions", content_type="application/json", body=body))

    submit(1, "first")
    service.penstockd.wait_for(running=1)
    count = itertools.count(2)
    for _ in range(4):
        submit(next(count), "flood", cost=5)
    for owner, weight in (("b", 1), ("c", 4), ("b", 1), ("c", 4)):
        submit(next(count), owner, weight=weight, cost=5)
    submit(next(count), "urgent", priority=5)
    service.penstockd.wait_for(length=9)
    upgrade(service)
    submit(next(count), "flood", cost=5)
    submit(next(count), "new", cost=5)
    service.penstockd.wait_for(length=11)
    upgrade(service)
    gated.let(1)
    ended = 0
    while ended < 12:
        kind, _, _ = caller.receive()
        ended += kind in (DONE, FAILED)
    runs = gated.runs()
    assert runs[:2] == ["first1", "urgent10"], runs
    places = {run: i for i, run in enumerate(runs)}
    # Of equals, each owner has one before anybody has two, whoever came when; `c` has four times its share.
    assert max(places[run] for run in ("flood2", "b6", "c7", "new12")) < min(places["flood3"], places["b8"]), runs
    assert places["flood5"] > places["new12"] and places["flood11"] == 11, runs


def test_promised_jobs_that_run_are_not_run_again(serve, gated):
    service = serve(gated.worker(slots=1), yaml="state: state\n")
    promised = []
    for i in range(4):
        answer = service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"},
                                 {"model": "sim", "prompt": f"p{i}", "max_tokens": 4, "stream": True})
        assert answer.status == 202, answer
        promised.append(answer.json()["id"])
    service.penstockd.wait_for(running=1, length=3)
    gated.let(2)
    until(lambda: service.request("GET", f"/jobs/{promised[0]}", ALICE).json()["progress"] == {"fraction": 0.5}, "it is half done")
    before = [service.request("GET", f"/jobs/{id}", ALICE).json() for id in promised]
    upgrade(service)
    after = [service.request("GET", f"/jobs/{id}", ALICE).json() for id in promised]
    for was, now in zip(before, after):
        assert {key: was.get(key) for key in ("id", "status", "position", "progress", "attempts", "started_at")} \
            == {key: now.get(key) for key in ("id", "status", "position", "progress", "attempts", "started_at")}
    gated.let(4)
    for i, id in enumerate(promised):
        until(lambda: service.request("GET", f"/jobs/{id}", ALICE).json()["status"] == "completed", f"{id} ends")
        result = service.request("GET", f"/jobs/{id}/result", ALICE)
        assert result.body == "".join(f"data: p{i} {n}\n\n" for n in range(4)).encode()
    assert gated.runs() == [f"p{i}" for i in range(4)]


def test_a_large_promised_result_goes_on_in_its_file(serve, gated):
    service = serve(gated.worker(), yaml="state: state\n")
    gated.let(12)
    id = service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"},
                         {"model": "sim", "prompt": "big", "size": 100_000, "max_tokens": 30, "stream": True}).json()["id"]
    file = service.folder / "state" / "results" / id
    for lines in (20, 30):
        until(lambda: file.exists() and file.stat().st_size > (lines - 10) * 100_000, "some of it is in its file")
        upgrade(service)
        gated.let(lines)
    until(lambda: service.request("GET", f"/jobs/{id}", ALICE).json()["status"] == "completed", lambda: text(service)[-2000:])
    assert service.request("GET", f"/jobs/{id}/result", ALICE).body == "".join(f"data: big{'x' * 100_000} {i}\n\n" for i in range(30)).encode()
    assert len(gated.runs()) == 1


def test_events_of_a_job_go_on(serve, gated):
    service = serve(gated.worker(), yaml="state: state\n")
    id = service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"},
                         {"model": "sim", "prompt": "e", "max_tokens": 6, "stream": True}).json()["id"]
    stream = service.client().stream("GET", f"/jobs/{id}/events", ALICE)
    seen = stream.events()
    gated.let(2)
    heard = ""
    while heard.count("data: e") < 2:
        event = json.loads(next(seen))
        heard += event.get("text", "")
    upgrade(service)
    gated.let(6)
    for each in seen:
        event = json.loads(each)
        heard += event.get("text", "")
    assert heard == "".join(f"data: e {n}\n\n" for n in range(6))


def test_a_cancel_and_a_caller_that_leaves_are_heard_after_it(serve, gated):
    service = serve(gated.worker(), yaml="state: state\n")
    gated.let(1)
    running = service.client().stream("POST", "/v1/completions", {}, {"model": "sim", "prompt": "r", "max_tokens": 5, "stream": True})
    assert running.next_event() == "r 0"
    id = service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"},
                         {"model": "sim", "prompt": "w", "max_tokens": 1}).json()["id"]
    upgrade(service)
    assert service.request("DELETE", f"/jobs/{id}", ALICE).status in (200, 202, 204)
    until(lambda: service.request("GET", f"/jobs/{id}", ALICE).json()["status"] == "cancelled", "it is cancelled")
    running.close()
    service.penstockd.wait_for(seconds=10, running=0)
    gated.let(9)
    assert service.complete(prompt="z", max_tokens=1).status == 200


def test_a_deadline_goes_on_by_elapsed_time(serve, gated):
    service = serve(gated.worker(), queue={"deadline": "3s"})
    began = time.monotonic()
    asked = Asked(service, "d", 5)
    service.penstockd.wait_for(running=1)
    upgrade(service)
    upgrade(service)
    asked.thread.join(20)
    assert asked.status == 504 and 2.5 < time.monotonic() - began < 5, (asked.status, asked.lines)


def test_what_a_device_may_hold_is_held_across_it(serve, gated):
    service = serve(gated.worker(slots=2))
    gated.let(1)
    asked = [Asked(service, f"s{i}", 2) for i in range(4)]
    service.penstockd.wait_for(running=2, length=2)
    until(lambda: len(gated.runs()) == 2, "two run")
    upgrade(service)
    service.penstockd.wait_for(running=2, length=2)
    time.sleep(0.3)  # nothing more may start
    assert len(gated.runs()) == 2
    gated.let(2)
    for each in asked:
        each.thread.join(20)
        assert each.status == 200 and len(each.lines) == 2


def test_a_key_under_way_is_still_one(serve, gated):
    service = serve(gated.worker(), yaml="state: state\n")
    body = {"model": "sim", "prompt": "k", "max_tokens": 2, "stream": True}
    answers = []

    def ask():
        answers.append(service.request("POST", "/v1/completions", {**ALICE, "Idempotency-Key": '"one"'}, body))

    threads = [threading.Thread(target=ask, daemon=True)]
    threads[0].start()
    service.penstockd.wait_for(running=1)
    upgrade(service)
    threads.append(threading.Thread(target=ask, daemon=True))
    threads[1].start()
    gated.let(2)
    for thread in threads:
        thread.join(20)
    assert [answer.body for answer in answers] == [b"data: k 0\n\ndata: k 1\n\n"] * 2
    assert gated.runs() == ["k"]


def test_a_pause_and_a_scale_stay_without_a_state(serve):
    service = serve(simulate(slots=4))
    assert ctl(service, "pause", "default").returncode == 0
    assert ctl(service, "scale", "sim", "2").returncode == 0
    until(lambda: len(service.penstockd.workers()) == 2, "two processes run")
    before = service.penstockd.workers()
    upgrade(service)
    status = json.loads(ctl(service, "status", "--json").stdout)
    assert status["queues"][0]["paused"] is True
    assert service.penstockd.workers() == before


def test_a_worker_whose_section_has_changed_is_replaced_as_by_a_reload(serve, gated):
    service = serve(gated.worker(), dict(simulate("other"), model="other", slots=1))
    gated.let(1)
    asked = Asked(service, "x", 2)
    until(lambda: asked.lines == ["x 0"], "it streams")
    before = {pid for pid in service.penstockd.workers()}
    config = service.penstockd.config
    config.write_text(config.read_text().replace("name: other, engine: simulate, model: other, slots: 1",
                                                 "name: other, engine: simulate, model: other, slots: 3"))
    upgrade(service)
    until(lambda: len(before & set(service.penstockd.workers())) == 1 and len(service.penstockd.workers()) == 2, "one was replaced")
    gated.let(2)
    asked.whole("x", 2)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_edge_of_any_version_in_the_range_goes_on(serve, gated, version):
    service = serve(gated.worker())
    caller = Connection(service.penstockd.socket, hello=False)
    caller.send(frame(HELLO, version=version, role=CALLER))
    body = json.dumps({"model": "sim", "prompt": "v", "max_tokens": 1})
    caller.send(frame(SUBMIT, 1, queue="default", model="sim", method="POST", path="/v1/completions",
                      content_type="application/json", body=body)[:-7])  # the rest comes to the next penstockd
    upgrade(service)
    caller.send(body.encode()[-7:])
    service.penstockd.wait_for(running=1)
    upgrade(service)
    gated.let(1)
    frames = []
    while not frames or frames[-1][0] not in (DONE, FAILED):
        frames.append(caller.receive())
    assert [kind for kind, _, _ in frames if kind not in (ACCEPTED, PROGRESS)] == [HEAD, CHUNK, DONE], frames
    assert b"".join(payload for kind, _, payload in frames if kind == CHUNK) == b"data: v 0\n\n"


@pytest.mark.parametrize("role", [CALLER, WORKER])
@pytest.mark.parametrize("version", [0, 4])
def test_another_version_is_told_the_range(serve, role, version):
    service = serve(simulate(slots=1), dict(simulate("own"), model="own", external="true", slots=1))
    peer = Connection(service.penstockd.socket, hello=False)
    peer.send(frame(HELLO, version=version, role=role, name="own"))
    kind, _, payload = peer.receive()
    assert kind == GOODBYE and b"versions 1 to 3" in payload


# ---- what is refused ----

def test_the_order_says_what_is_not_kept_first_and_what_was_done(serve):
    service = serve(simulate(slots=1))
    dry = ctl(service, "upgrade", "--dry-run")
    assert dry.returncode == 0 and re.search(r"^not kept: counters", dry.stdout, re.M), dry
    assert upgraded(service) == 0
    done = ctl(service, "upgrade")
    assert done.returncode == 0, done
    version = subprocess.run([BUILD / "penstockd", "-V"], capture_output=True, text=True).stdout.split()[1]
    lines = done.stdout.splitlines()
    assert f"version {version} to {version}" in lines[0] and lines[1].startswith("not kept: ")
    assert re.fullmatch(rf"upgraded from version {re.escape(version)} to {re.escape(version)}: \d+ connections?, 1 process and 0 jobs go on",
                        lines[-1]), done.stdout
    log = text(service)
    assert log.index("upgrade: not kept: ") < log.index("upgraded from")
    assert re.search(r"order .*deed=upgrade .*outcome=done", log), log
    assert json.loads(ctl(service, "upgrade", "--json").stdout)["object"] == "upgrade"


@pytest.mark.parametrize("script,why", [
    ("exit 3", "exited with status 3"),
    ("echo 'penstockd.yaml:3: no good' >&2; exit 1", "penstockd.yaml:3: no good"),
    ("echo takes-over; echo version 9.9.9; echo formats 7 9", "formats 7 to 9"),
    ("echo takes-over; echo version 9.9.9; echo formats nine", "line on formats"),
    ("echo usage: penstockd", "says nothing of taking over"),
    ("head -c 100000 /dev/zero; exit 1", "exited with status 1"),
])
def test_a_program_that_cannot_take_over_is_refused_before(serve, gated, script, why):
    service = serve(gated.worker())
    gated.let(1)
    asked = Asked(service, "y", 3)
    until(lambda: asked.lines == ["y 0"], "it streams")
    before = families(service)
    replace(service, script)
    done = ctl(service, "upgrade")
    assert done.returncode == 1 and why in done.stderr, done
    service.penstockd.process.signal(signal.SIGUSR2)
    until(lambda: text(service).count("no upgrade: ") == 1, "the log says so")
    assert families(service) == before
    gated.let(3)
    asked.whole("y", 3)
    put_back(service)
    assert ctl(service, "upgrade").returncode == 0


def test_a_configuration_that_is_wrong_or_asks_for_a_restart_is_refused_before(serve):
    service = serve(simulate(slots=1), yaml="state: state\n")
    config, good = service.penstockd.config, service.penstockd.config.read_text()
    for bad, why in ((good + "nonsense: 1\n", "nonsense"), (good.replace("state: state", "state: another"), "another state"),
                     (good.replace(f"{service.penstockd.socket}", f"{service.folder}/x.sock"), "another socket")):
        config.write_text(bad)
        done = ctl(service, "upgrade")
        assert done.returncode == 1 and why in done.stderr, done
    config.write_text(good)
    assert ctl(service, "upgrade").returncode == 0
    assert service.complete().status == 200


def test_a_program_that_is_gone_is_refused_before(serve):
    service = serve(simulate(slots=1))
    service.program.unlink()
    done = ctl(service, "upgrade")
    assert done.returncode == 1 and "cannot be started" in done.stderr, done
    assert service.complete().status == 200


def test_one_at_a_time_and_none_while_it_stops(serve):
    service = serve(simulate(slots=1))
    replace(service, f"[ \"$1\" = --takes-over ] && while [ ! -e {service.folder}/go ]; do sleep 0.01; done; exec {BUILD}/penstockd \"$@\"")
    service.penstockd.process.signal(signal.SIGUSR2)
    done = until(lambda: (lambda d: d if "under way" in d.stderr else None)(ctl(service, "upgrade")), "the second is refused")
    assert done.returncode == 1
    (service.folder / "go").touch()
    until(lambda: upgraded(service) == 1, "the first is done")
    put_back(service)


def test_a_program_that_dies_at_once_is_as_a_crash(serve, gated):
    """Its word was good, and then it dies: what was promised is there at the next start."""
    service = serve(gated.worker(), yaml="state: state\n")
    answer = service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"},
                             {"model": "sim", "prompt": "q", "max_tokens": 1, "stream": True})
    assert answer.status == 202
    replace(service, f"[ \"$1\" = --takes-over ] && exec {BUILD}/penstockd \"$@\"; exit 7")
    service.penstockd.expect_death = True
    service.penstockd.process.signal(signal.SIGUSR2)
    assert service.penstockd.process.wait() == 7
    put_back(service)
    gated.let(1)
    service.penstockd.expect_death = False
    service.penstockd.start_by([service.program, "-c", service.penstockd.config])
    until(lambda: service.request("GET", f"/jobs/{answer.json()['id']}", ALICE).status == 200, "the next one answers")
    until(lambda: service.request("GET", f"/jobs/{answer.json()['id']}", ALICE).json()["status"] == "completed", "the job is done")


# ---- under load ----

def test_twenty_in_a_row_under_load(serve, gated):
    service = serve(gated.worker(slots=4), yaml="state: state\n", processes=2)
    gated.let(1000)
    stop = threading.Event()
    faults, whole, promised = [], [], []

    def call(name):
        client = Client(service.port)
        try:
            for n in itertools.count():
                if stop.is_set():
                    return
                prompt, tokens = f"{name}-{n}", 1 + n % 7
                if n % 5 == 4:
                    answer = client.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"},
                                            {"model": "sim", "prompt": prompt, "max_tokens": tokens, "stream": True})
                    assert answer.status == 202, answer
                    promised.append((prompt, tokens, answer.json()["id"]))
                    continue
                answer = client.request("POST", "/v1/completions", ALICE,
                                        {"model": "sim", "prompt": prompt, "max_tokens": tokens, "stream": True})
                assert answer.status == 200 and answer.events() == [f"{prompt} {i}" for i in range(tokens)], (prompt, answer)
                whole.append(prompt)
        except Exception as error:  # noqa: BLE001: told below
            faults.append((name, repr(error)))
        finally:
            client.close()

    callers = [threading.Thread(target=call, args=(f"c{i}",), daemon=True) for i in range(8)]
    before = until(lambda: families(service) if len(families(service)[0][1]) == 4 else None, "all programs run")
    for caller in callers:
        caller.start()
    began = time.monotonic()
    for _ in range(20):
        done = ctl(service, "upgrade")
        assert done.returncode == 0, (done, faults[:3])
        seen = len(whole)
        until(lambda: len(whole) > seen or faults, "callers are served between two upgrades")
    took = time.monotonic() - began
    stop.set()
    for caller in callers:
        caller.join(30)
    assert not faults, faults[:5]
    assert families(service) == before
    for prompt, tokens, id in promised:
        until(lambda: service.request("GET", f"/jobs/{id}", ALICE).json()["status"] == "completed", f"{id} ends")
        assert service.request("GET", f"/jobs/{id}/result", ALICE).body == "".join(f"data: {prompt} {i}\n\n" for i in range(tokens)).encode()
    runs = gated.runs()
    assert sorted(runs) == sorted(whole + [prompt for prompt, _, _ in promised]), "every job ran once"
    assert took < 30, took
