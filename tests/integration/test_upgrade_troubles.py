"""An upgrade in the midst of something: a device that is full, a disk that hangs, workers that crash or that others start, an exec that fails."""

import contextlib
import fcntl
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from conftest import simulate
from processes import ASAN, BUILD
from test_devices import GPU, gpus, the_watch  # noqa: F401 (gpus is a fixture)
from test_external import start as start_external
from test_jobs import message, websocket
from test_systemd import inbox, until_said  # noqa: F401 (inbox is a fixture)
from upgrading import ALICE, Asked, ctl, families, gated, put_back, replace, serve, text, upgrade, upgraded  # noqa: F401 (fixtures)
from waiting import until
from wire import CHUNK, DONE, FAILED, HEAD, HELLO, NOTE, STATUS, SUBMIT, TAGS, TAKE, TOOL, Connection, frame

WORKER = 2  # a role
MIB = 1 << 20
TAGS.update(slots=5, credit=32)


def status(service):
    return json.loads(service.penstockd.status())


def worker(service, n=0):
    return status(service)["workers"][n]


def promise(service, **body):
    answer = service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"}, {"model": "sim", **body})
    assert answer.status == 202, answer
    return answer.json()["id"]


def job(service, id):
    return service.request("GET", f"/jobs/{id}", ALICE).json()


def body_of(prompt, tokens):
    return json.dumps({"model": "sim", "prompt": prompt, "max_tokens": tokens})


def submit(id, prompt, tokens=1, **fields):
    return frame(SUBMIT, id, queue="default", model="sim", method="POST", path="/v1/completions",
                 content_type="application/json", **fields, body=body_of(prompt, tokens))


# ---- devices ----

def test_memory_that_was_waited_for_keeps_to_its_devices_bound(serve, folder):
    occupancy = folder / "occupancy"
    device = dict(model="sim", device=0, slots=4, memory="100MiB", job_memory="60MiB", service_time="700ms", occupancy=occupancy)
    service = serve(simulate("a", **device), simulate("b", **device))
    done = []
    asked = [threading.Thread(target=lambda: done.append(service.complete().status), daemon=True) for _ in range(3)]
    for each in asked:
        each.start()

    def there():
        found = status(service)["bounds"][0]
        return found["held_bytes"], found["waiting_for_memory"]
    until(lambda: there() == (60 * MIB, 2), "one runs, and two wait for memory")
    upgrade(service)
    assert there() in [(60 * MIB, 2), (60 * MIB, 1)]
    for each in asked:
        each.join(20)
    assert done == [200] * 3
    peak, = memoryview(occupancy.read_bytes()[72:80]).cast("q")
    assert peak == 60 * MIB, "never two at once"
    until(lambda: there() == (0, 0), "all is free again")


def test_devices_stay_whose_they_are_and_what_is_out_stays_out(serve, gpus):  # noqa: F811
    other = {**GPU, "uuid": "GPU-bb"}
    gpus.answer(GPU, other)
    service = serve(simulate("a", device=0, slots=1), simulate("b", device=1, model="b", slots=1), limits={"heartbeat_timeout": "2s"})
    both = {each["name"]: each["pid"] for each in status(service)["workers"]}
    gpus.answer(GPU, {**other, "error": 15})

    def states():
        return [each["state"] for each in status(service)["bounds"]]
    until(lambda: states() == ["good", "out"], lambda: f"one is out: {states()}")
    os.kill(both["b"], signal.SIGKILL)
    until(lambda: worker(service, 1)["state"] == "waiting", "its worker waits for it")
    watch = the_watch(service)
    upgrade(service)
    assert states() == ["good", "out"]
    assert worker(service)["pid"] == both["a"] and worker(service, 1)["state"] == "waiting"
    until(lambda: the_watch(service) not in (None, watch), "another process looks at the devices")
    for lock in service.folder.glob("penstockd.sock.device.*"):
        with open(lock) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    gpus.answer(GPU, other)
    until(lambda: states() == ["good", "good"] and worker(service, 1)["state"] == "ready", "it is used again")


# ---- workers ----

def test_a_worker_that_others_started_goes_on_and_its_end_is_seen(serve):
    service = serve(simulate(slots=1, external="true"), ready=False, yaml="state: state\n")
    first = start_external(service, time="1500ms")
    until(lambda: worker(service)["state"] == "ready", "it serves")
    id = promise(service, prompt="a")
    service.penstockd.wait_for(running=1)
    upgrade(service)
    assert worker(service)["state"] == "ready" and worker(service)["running"] == 1
    until(lambda: job(service, id)["status"] == "completed", "its job ends")
    again = promise(service, prompt="b")
    service.penstockd.wait_for(running=1)
    upgrade(service)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: worker(service)["state"] == "waiting", "its place is free")
    second = start_external(service)
    until(lambda: job(service, again)["status"] == "completed", "its job runs again")
    assert job(service, again)["attempts"] == 1
    assert ctl(service, "drain", "sim").returncode == 0
    assert second.wait(10) == 10, "it was sent away"


def test_part_of_a_workers_frame_is_read_on(serve):
    service = serve(simulate("own", model="sim", slots=1, external="true"), ready=False)
    worker_ = Connection(service.penstockd.socket, hello=False)
    worker_.send(frame(HELLO, version=1, role=WORKER, name="own", model="sim", slots=1) + frame(TAKE, credit=1))
    caller = Connection(service.penstockd.socket)
    caller.send(submit(1, "x"))
    while True:
        kind, number, _ = worker_.receive()
        if kind == SUBMIT:
            break
    head = frame(HEAD, number, status=200, content_type="text/event-stream")
    chunk = frame(CHUNK, number, b"data: some\n\n")
    worker_.send(head + chunk[:5])
    seen = []

    def heard(*kinds):
        while not seen or seen[-1] not in kinds:
            kind, _, payload = caller.receive()
            seen.append(kind)
        return payload
    heard(HEAD)
    upgrade(service)
    worker_.send(chunk[5:20])
    upgrade(service)
    worker_.send(chunk[20:])
    assert heard(CHUNK) == b"data: some\n\n"
    worker_.send(frame(DONE, number))
    heard(DONE, FAILED)
    assert [kind for kind in seen if kind in (HEAD, CHUNK, DONE, FAILED)] == [HEAD, CHUNK, DONE]


def test_a_worker_that_keeps_failing_is_started_no_sooner_for_it(serve):
    service = serve(simulate(slots=1))
    config = service.penstockd.config
    config.write_text(config.read_text().replace(f"{BUILD}/penstock-worker", "/bin/false"))
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in text(service), "it is so from the next start on")
    os.kill(service.penstockd.workers()[0], signal.SIGKILL)

    def waits():
        return re.findall(r"worker sim: next start in (\S+)", text(service))
    until(lambda: waits()[-1:] == ["400ms"], lambda: f"it has failed three times: {waits()}")
    upgrade(service)
    until(lambda: len(waits()) >= 4, "it fails again")
    assert waits()[:4] == ["100ms", "200ms", "400ms", "800ms"]


def test_who_may_have_crashed_a_worker_is_still_a_suspect(serve):
    service = serve(simulate(slots=4, service_time="600ms", crash_on="poison"), yaml="state: state\n", queue={"attempts": 1})
    assert ctl(service, "pause", "default").returncode == 0
    poison = promise(service, prompt="poison")
    good = [promise(service, prompt=f"good {i}") for i in range(3)]
    assert ctl(service, "resume", "default").returncode == 0

    def crashes():
        return len(re.findall(r"worker sim: process \d+ was killed by signal 9", text(service)))
    for n in (1, 2, 3):  # of four; of two; alone
        until(lambda: crashes() == n, lambda: f"it crashes: {crashes()}")
        upgrade(service)
        if n == 1:
            service.penstockd.wait_for(running=2)
            upgrade(service)  # while suspects run
            assert service.penstockd.queue().running == 2
    until(lambda: job(service, poison)["status"] == "failed", "it has failed")
    assert job(service, poison)["attempts"] == 1
    for id in good:
        until(lambda: job(service, id)["status"] == "completed", "the others end")
        assert job(service, id)["attempts"] == 0
    assert crashes() == 3, "each time half of those that may have done it"


# ---- callers ----

def test_a_websocket_hears_on(serve, gated):  # noqa: F811
    service = serve(gated.worker(), yaml="state: state\n")
    id = promise(service, prompt="w", max_tokens=6, stream=True)
    gated.let(2)
    connection, stream, head = websocket(service, id)
    assert head.startswith("HTTP/1.1 101 ")
    heard, last = "", None

    def hear(until_):
        nonlocal heard, last
        while not until_():
            opcode, payload = message(stream)
            assert opcode == 1, (opcode, payload, heard)
            last = json.loads(payload)
            heard += last.get("data", {}).get("text", "") if isinstance(last.get("data"), dict) else ""
    hear(lambda: heard.count("data: w") == 2)
    for lines in (4, 6):
        upgrade(service)
        gated.let(lines)
        hear(lambda: heard.count("data: w") == lines)
    hear(lambda: last["event"] == "completed")
    assert heard == "".join(f"data: w {n}\n\n" for n in range(6))
    connection.close()


def test_a_stream_that_speaks_while_it_waits_speaks_on(serve, gated):  # noqa: F811
    service = serve(gated.worker())
    caller = Connection(service.penstockd.socket)
    caller.send(submit(1, "first"))
    service.penstockd.wait_for(running=1)
    other = Connection(service.penstockd.socket)
    other.send(submit(9, "between"))
    service.penstockd.wait_for(running=1, length=1)
    caller.send(submit(2, "news", news_ms=20, news_events=1))
    frames = []

    def hear(kind, id=2):
        while True:
            got, number, fields = caller.receive_fields() if kind != CHUNK else (*caller.receive()[:2], {})
            frames.append((got, number))
            if (got, number) == (kind, id):
                return fields
    assert hear(HEAD)["opens"] == 1
    assert hear(NOTE)["position"] == 2
    upgrade(service)
    other.close()  # it stands one further to the front
    while hear(NOTE)["position"] != 1:
        pass
    upgrade(service)
    gated.let(1)
    assert "opens" not in hear(HEAD), "its answer begins"
    hear(CHUNK), hear(DONE)
    assert frames.count((HEAD, 2)) == 2 and (FAILED, 2) not in frames


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_who_may_what_is_as_the_new_configuration_says(serve):
    service = serve(simulate(slots=1), yaml="socket_mode: 0666\naccess: { viewers: [daemon] }\n")
    service.folder.chmod(0o755)
    os.setegid(1), os.seteuid(1)  # the kernel tells who has connected
    try:
        viewer = Connection(service.penstockd.socket, role=TOOL)
    finally:
        os.seteuid(0), os.setegid(0)
    viewer.send(frame(STATUS))
    assert viewer.receive()[0] == STATUS
    config = service.penstockd.config
    config.write_text(config.read_text().replace("viewers: [daemon]", "viewers: [nobody]"))
    upgrade(service)
    with contextlib.suppress(BrokenPipeError):
        viewer.send(frame(STATUS))
    assert STATUS not in [kind for kind, _, _ in viewer.until_closed()]


# ---- what is looked at before ----

def test_a_program_that_knows_an_older_state_is_refused(serve):
    service = serve(simulate(slots=1), yaml="state: state\n")
    replace(service, f"{BUILD}/penstockd \"$@\" | sed 's/^schema .*/schema 1/'")
    done = ctl(service, "upgrade")
    assert done.returncode == 1 and "knows the state of schema 1, and it is of schema" in done.stderr, done
    assert upgraded(service) == 0 and service.complete().status == 200


def test_access_that_names_nobody_is_refused_before(serve):
    service = serve(simulate(slots=1))
    config = service.penstockd.config
    config.write_text(config.read_text() + "access: { operators: [no-such-group] }\n")
    done = ctl(service, "upgrade")
    assert done.returncode == 1 and "no-such-group" in done.stderr, done
    assert upgraded(service) == 0 and service.complete().status == 200


# ---- what fails or takes long ----

def test_an_exec_that_fails_leaves_all_as_it_was(serve, gated):  # noqa: F811
    service = serve(gated.worker(), dict(simulate("other"), model="other", slots=1), yaml="state: state\n")
    gated.let(1)
    asked = Asked(service, "y", 3)
    until(lambda: asked.lines == ["y 0"], "it streams")
    waits = Asked(service, "z", 1)
    service.penstockd.wait_for(running=1, length=1)
    before = families(service)
    # It says that it can, and when its turn comes, nobody may execute it.
    replace(service, f"chmod 644 {service.program}; exec {BUILD}/penstockd \"$@\"")
    done = ctl(service, "upgrade")
    assert done.returncode == 1 and "cannot be started: Permission denied" in done.stderr, done
    assert upgraded(service) == 0 and families(service) == before
    # What was to be handed over is not for those who are started now.
    os.kill(worker(service, 1)["pid"], signal.SIGKILL)
    fresh = until(lambda: [pid for pid in service.penstockd.workers() if pid not in dict(before)], "another worker was started")[0]
    sockets = {os.readlink(link) for link in Path(f"/proc/{service.penstockd.process.pid}/fd").iterdir() if "socket" in os.readlink(link)}
    theirs = {os.readlink(link) for link in Path(f"/proc/{fresh}/fd").iterdir()}
    assert not sockets & theirs
    gated.let(3)
    asked.whole("y", 3)
    waits.whole("z", 1)
    put_back(service)
    assert ctl(service, "upgrade").returncode == 0
    assert service.complete(prompt="n", max_tokens=1).status == 200


@pytest.mark.skipif(ASAN, reason="the sanitizer must be loaded first")
def test_a_disk_that_hangs_is_waited_for_no_longer_than_said_and_nobody_is_to_blame(serve, folder, monkeypatch):
    hang = folder / "hang"
    monkeypatch.setenv("FAKE_HANG", str(hang))
    monkeypatch.setenv("LD_PRELOAD", str(BUILD / "libfake_machine.so"))
    service = serve(simulate(slots=1, service_time="1ms"), yaml="state: state\n", limits={"heartbeat_timeout": "2s"})
    monkeypatch.delenv("LD_PRELOAD")
    before = families(service)
    hang.touch()

    def written():
        return {file.name: file.stat().st_mtime_ns for file in (service.folder / "state").iterdir()}
    as_it_was, promised = written(), []
    asks = threading.Thread(target=lambda: promised.append(promise(service, prompt="p")), daemon=True)
    asks.start()
    caller = Connection(service.penstockd.socket)
    half = submit(1, "half")
    caller.send(half[:30])
    until(lambda: written() != as_it_was, "it is written, and not flushed")
    began = time.monotonic()
    done = ctl(service, "upgrade")
    assert done.returncode == 1 and "took longer than 3s" in done.stderr, done
    assert 2.5 < time.monotonic() - began < 8
    assert upgraded(service) == 0 and families(service) == before, text(service)[-2000:]
    caller.send(half[30:])
    while True:
        kind, _, _ = caller.receive()
        if kind in (DONE, FAILED):
            break
    assert kind == DONE
    hang.unlink()
    asks.join(20)
    until(lambda: job(service, promised[0])["status"] == "completed", "what was promised runs")
    assert "gave no sign of life" not in text(service)
    assert ctl(service, "upgrade").returncode == 0
    assert families(service) == before


def test_a_start_that_takes_long_blames_nobody_and_keeps_the_watchdog_quiet(serve, inbox, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    service = serve(simulate(slots=1, service_time="1ms"), limits={"heartbeat_timeout": "2s"})
    before = families(service)
    replace(service, f"[ \"$1\" = --takes-over ] || sleep 3; exec {BUILD}/penstockd \"$@\"")
    asked = threading.Thread(target=upgrade, args=(service,), daemon=True)
    asked.start()
    assert until_said(inbox, "WATCHDOG_USEC") == "WATCHDOG=1\nWATCHDOG_USEC=300000000\n"
    until_said(inbox, "RELOADING")
    late = service.complete()  # it has come meanwhile
    asked.join(20)
    assert late.status == 200
    assert until_said(inbox, "WATCHDOG_USEC") == "WATCHDOG=1\nWATCHDOG_USEC=2000000\n"
    assert until_said(inbox, "READY") == "READY=1\n"
    assert families(service) == before and "gave no sign of life" not in text(service)
    put_back(service)


# ---- Redis ----

def test_queues_that_hosts_share_need_a_restart(serve, redis):
    service = serve(simulate(slots=1), queue={"shared": "true"}, yaml=f'redis: {{ url: "unix:{redis.socket}" }}\n')
    done = ctl(service, "upgrade", "--dry-run")
    assert done.returncode == 1 and "queues are shared with other hosts" in done.stderr, done


def test_events_that_are_fed_to_redis_are_there_before(serve, redis):
    service = serve(simulate(slots=1, service_time="1ms"), yaml=f'redis: {{ url: "unix:{redis.socket}", events: 1000 }}\n')
    for n in range(1, 6):
        assert service.complete().status == 200
        assert ctl(service, "upgrade").returncode == 0
        assert redis.ask("XLEN", "penstock:events") == n
    assert len(os.listdir(f"/proc/{service.penstockd.process.pid}/fd")) < 40
    redis.stop_answering()
    assert service.complete().status == 200
    done = ctl(service, "upgrade")
    redis.go_on()
    assert done.returncode == 1 and "to Redis" in done.stderr, done
    until(lambda: redis.ask("XLEN", "penstock:events") > 5, "its event is there")
    assert ctl(service, "upgrade").returncode == 0
