"""penstockctl doctor: each of its warnings, provoked. That all is in order, versions and Redis: test_state_care.py."""

import json
import os
import resource
import socketserver
import subprocess
import threading

import pytest

from conftest import simulate
from processes import ASAN, BUILD, environment
from test_jobs import HTTP, SERVER, jobs, promise  # noqa: F401 (a fixture)
from waiting import until

MACHINE = {"LD_PRELOAD": str(BUILD / "libfake_machine.so")}


@pytest.fixture
def doctor(folder):
    """What it finds of a service, the worst of each subject: {about: finding}."""
    def run(service, *words, **variables):
        done = subprocess.run([BUILD / "penstockctl", "doctor", "--json", *words], capture_output=True, text=True, timeout=60,
                              env={**environment(folder), "PENSTOCK_SOCKET": str(service.penstockd.socket), **variables})
        told = json.loads(done.stdout)
        assert done.returncode == ["ok", "warn", "bad"].index(told["level"]), done.stdout
        assert all(each["advice"] for each in told["findings"] if each["level"] != "ok")
        return {each["about"]: each for each in reversed(told["findings"])}
    return run


def test_modes_by_which_others_could_look_or_write_are_told(jobs, doctor):  # noqa: F811
    service = jobs()
    state, config = service.penstockd.folder / "state", service.penstockd.config
    state.chmod(0o750)
    assert {doctor(service)[each]["level"] for each in ("state", "configuration", "socket")} == {"ok"}
    state.chmod(0o755)
    assert "everybody may look into it" in doctor(service)["state"]["text"] and doctor(service)["state"]["level"] == "warn"
    (state / "secret").chmod(0o644)
    found = doctor(service)
    assert found["state"]["level"] == "bad" and found["state"]["advice"] == f"chmod 0600 {state}/secret"
    (state / "secret").chmod(0o600)
    config.chmod(0o666)
    assert doctor(service)["configuration"]["level"] == "bad" and f"chmod o-w {config}" in doctor(service)["configuration"]["advice"]
    config.chmod(0o644)
    secret = service.folder / "hook"
    secret.write_text("whsec_" + "A" * 40 + "\n")
    secret.chmod(0o644)
    config.write_text(config.read_text() + f"webhooks: {{ secret_file: {secret} }}\n")
    assert doctor(service)["webhooks.secret_file"]["level"] == "warn" and f"chmod 0640 {secret}" in doctor(service)["webhooks.secret_file"]["advice"]
    service.folder.chmod(0o777)
    assert doctor(service)["socket"]["level"] == "bad" and "put another socket there" in doctor(service)["socket"]["text"]
    service.folder.chmod(0o755)


def test_workers_of_which_none_is_ready_are_told_with_their_error(jobs, doctor, folder):  # noqa: F811
    service = jobs(workers=[simulate(slots=1), dict(name="broken", engine="llama", model=folder / "nowhere", device="cpu")], start=False)
    service.start(ready=False)
    found = until(lambda: (now := doctor(service))["workers"]["level"] == "ok" and "nowhere" in now.get("worker broken", {}).get("text", "") and now,
                  "one is ready, and why the other is not")
    assert found["worker broken"]["level"] == "warn" and "1 of 2" in found["workers"]["text"]
    config = service.penstockd.config
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "engine: simulate" not in line))
    os.kill(service.penstockd.process.pid, 1)
    found = until(lambda: (now := doctor(service))["workers"]["level"] == "bad" and now, "none is")
    assert "none is ready: nothing is served" in found["workers"]["text"]


def test_what_is_served_is_told_by_slots_and_by_queues(jobs, doctor):  # noqa: F811
    down = dict(name="down", engine="http", url="http://127.0.0.1:9", model_name="down", slots=2)
    service = jobs(workers=[simulate(slots=1), down], yaml="", start=False)
    config = service.penstockd.config
    config.write_text(config.read_text().replace("queues:", "queues:\n  slow: {}", 1))
    service.start()
    service.request("POST", "/v1/completions", {"Authorization": "Bearer alice"}, b'{"model":"down","prompt":"a"}')
    found = until(lambda: (now := doctor(service)).get("worker down", {}).get("text", "").startswith("is ready, and") and
                  "queue slow" in now and now, "what is not served is told")
    assert "none of its slots is open: " in found["worker down"]["text"] and "1 of 2" in found["workers"]["text"], found
    assert found["queue slow"]["level"] == "bad" and "who would wait there is refused" in found["queue slow"]["text"]


def test_files_that_may_be_open_are_told_where_they_are_too_few(jobs, doctor):  # noqa: F811
    service = jobs(limits={"max_connections": 1000})
    assert doctor(service)["nofile"]["level"] == "ok"
    resource.prlimit(service.penstockd.process.pid, resource.RLIMIT_NOFILE, (1000, 1000))
    found = doctor(service)["nofile"]
    assert found["level"] == "warn" and found["text"] == "1000 files may be open, and 1000 connections want 1512"
    assert "LimitNOFILE=1512" in found["advice"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_nearly_full_is_told(penstock, doctor):
    service = penstock(start=False, http=HTTP, server=SERVER, workers=[simulate()], limits={"max_state": "100MiB", "reserve": "1MiB"}, yaml="state: state\n")
    state = service.penstockd.folder / "state"
    state.mkdir(mode=0o750)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m,mode=750", "none", state], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(mounted.stderr)
    try:
        service.start()
        assert doctor(service)["state"]["level"] == "ok", doctor(service)["state"]
        with open(state / "ballast", "wb") as file:
            file.write(bytes(os.statvfs(state).f_bavail * os.statvfs(state).f_frsize - (6 << 20)))
        assert "less than a tenth of limits.max_state" in doctor(service)["state"]["text"]
        with open(state / "ballast", "ab") as file:
            file.write(bytes(os.statvfs(state).f_bavail * os.statvfs(state).f_frsize - (512 << 10)))
        found = doctor(service)["state"]
        assert found["level"] == "warn" and "0 MiB free beside limits.reserve" in found["text"], "which penstockd has"
        service.penstockd.stop()
        (state / "reserve").unlink()
        with open(state / "ballast", "ab") as file:
            file.write(bytes(os.statvfs(state).f_bavail * os.statvfs(state).f_frsize - (512 << 10)))
        told = subprocess.run([BUILD / "penstockd", "-t", "-c", service.penstockd.config], capture_output=True, text=True)
        assert "less than limits.reserve" in told.stdout + told.stderr, told
        (state / "ballast").unlink()
    finally:
        service.penstockd.stop()
        subprocess.run(["umount", state], check=True)
        service.penstockd.process = None


@pytest.mark.skipif(ASAN, reason="the sanitizer's library has to come first")
def test_a_slow_disk_and_a_clock_that_is_off_are_told(jobs, doctor):  # noqa: F811
    service = jobs()
    fine = doctor(service, **MACHINE)
    assert fine["clock"]["level"] == fine["flushes"]["level"] == "ok", fine
    poor = doctor(service, **MACHINE, FAKE_CLOCK="off", FAKE_FLUSH_MS="30")
    assert poor["clock"]["level"] == "warn" and "is not synchronised" in poor["clock"]["text"] and "NTP" in poor["clock"]["advice"]
    assert poor["flushes"]["level"] == "warn" and float(poor["flushes"]["text"].split()[0]) >= 30


def test_a_state_that_fills_and_a_penstockd_that_is_gone_are_told(jobs, doctor):  # noqa: F811
    service = jobs(limits={"max_state": "1MiB", "max_state_per_owner": "1MiB", "reserve": "64KiB"}, workers=[simulate(slots=1, service_time="60s")])
    promise(service, {"model": "sim", "prompt": "x" * 900_000})
    assert "of limits.max_state are taken" in doctor(service)["state"]["text"] and doctor(service)["state"]["level"] == "warn"
    service.penstockd.kill()
    found = doctor(service, "-c", str(service.penstockd.config))
    assert found["penstockd"]["level"] == "bad" and "systemctl status penstockd" in found["penstockd"]["advice"]
    assert "workers" not in found and found["configuration"]["level"] == "ok"


@pytest.fixture
def informant(folder):
    """A Redis at a socket that says nothing but this INFO."""
    servers = []

    def start(text):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while line := self.rfile.readline():
                    if line.strip() == b"INFO":
                        self.wfile.write(b"$%d\r\n%s\r\n" % (len(text), text))
        path = folder / f"informant-{len(servers)}"
        servers.append(socketserver.ThreadingUnixStreamServer(str(path), Handler))
        threading.Thread(target=servers[-1].serve_forever).start()
        return path
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("took_us", [100_000, 100_001, 2_500_000])
def test_a_redis_that_answered_nobody_while_it_forked_is_told(penstock, doctor, informant, took_us):
    path = informant(b"redis_version:7.2.4\r\nlatest_fork_usec:%d\r\ntotal_forks:3\r\n" % took_us)
    service = penstock(workers=[simulate(slots=1)], yaml=f'redis: {{ url: "unix:{path}" }}\n')
    found = doctor(service)["Redis"]
    if took_us > 100_000:
        assert found["level"] == "warn" and f"answered nobody for {took_us // 1000} ms when it forked last" in found["text"], found
        assert "auto-aof-rewrite-min-size" in found["advice"]
    else:
        assert (found["level"], found["text"]) == ("ok", f"7.2.4 at {path}")
