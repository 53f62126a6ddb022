"""The state, looked after: backed up while penstockd runs, restored, checked, repaired, exported, purged; and doctor."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

import processes
from conftest import simulate
from processes import BUILD, environment, sanitizer_reports
from redis_server import RedisServer
from test_jobs import ALICE, get, job, jobs, promise, until_status  # noqa: F401 (jobs is a fixture)
from waiting import until
from wire import EDGE, HELLO, Connection, frame

LARGE = {"model": "sim", "prompt": "Tell me", "max_tokens": 12000}  # its result is a file
BOB = {"Authorization": "Bearer bob"}


@pytest.fixture
def ctl(folder):
    def run(*arguments, service=None, **variables):
        sockets = {"PENSTOCK_SOCKET": str(service.penstockd.socket)} if service else {}
        return subprocess.run([BUILD / "penstockctl", *map(str, arguments)], capture_output=True, text=True, timeout=120,
                              env={**environment(folder), **sockets, **variables})
    yield run
    assert not sanitizer_reports(folder)


@pytest.fixture
def said(ctl):
    def run(*arguments, **more):
        done = ctl(*arguments, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout
    return run


def state_of(service):
    return service.penstockd.folder / "state"


def completed(service, body=None, who=None, **headers):
    id = promise(service, body, **headers).json()["id"]
    until_status(service, id, "completed")
    return id


def stop(service):
    service.penstockd.process.signal(signal.SIGTERM)
    until(lambda: not service.penstockd.process.alive(), "penstockd has stopped")


def findings(ctl, *arguments):
    done = ctl("check", "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, {(each["about"], each["level"]): each["text"] for each in json.loads(done.stdout)["findings"]}


def test_a_backup_is_taken_while_jobs_come_and_is_whole_and_restores(jobs, folder, ctl, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=4, service_time="5ms", output_tokens=20000)])
    early = completed(service, LARGE)
    result = get(service, f"/jobs/{early}/result").body
    assert (state_of(service) / "results" / early).exists()
    stopping, sent = threading.Event(), []
    def load():
        while not stopping.is_set():
            sent.append(promise(service, Authorization=f"Bearer {len(sent)}"))
    loader = threading.Thread(target=load)
    loader.start()
    until(lambda: sent, "jobs come")
    try:
        assert "its sums are in SHA256SUMS" in said("backup", folder / "saved", service=service)
    finally:
        stopping.set()
        loader.join()
    until(lambda: not (state_of(service) / "backup").exists(), "the copy is gone")
    assert re.search(r"order uid=\d+ pid=\d+ deed=backup .*outcome=done status=200", service.penstockd.process.text()), "it is an order like others"
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=folder / "saved").returncode == 0
    code, found = findings(ctl, folder / "saved")
    assert code == 0, found
    lines = [json.loads(line) for line in said("export", folder / "saved").splitlines()]
    (line,) = [line for line in lines if line["id"] == early]
    assert line["status"] == "completed" and line["result_file"] == f"results/{early}"
    again = ctl("backup", folder / "saved", service=service)
    assert again.returncode == 1 and "is there and not empty" in again.stderr
    used = ctl("restore", folder / "saved", state_of(service))
    assert (used.returncode, used.stderr) == (1, f"penstockctl: a penstockd uses {state_of(service)}: stop it first\n")
    stop(service)
    state_of(service).rename(folder / "lost")
    assert "all checked" in said("restore", folder / "saved", state_of(service))
    full = ctl("restore", folder / "saved", state_of(service))
    assert full.returncode == 1 and "nothing is overwritten" in full.stderr
    (folder / "half").mkdir()
    (folder / "half" / "jobs.db-wal").write_bytes(b"another state's")  # SQLite would take it for this one's
    assert "jobs.db-wal is there" in ctl("restore", folder / "saved", folder / "half").stderr
    service.penstockd.start()
    service.wait_for_workers(service.penstockd)
    assert get(service, f"/jobs/{early}/result").body == result
    assert "set aside" not in service.penstockd.process.text()


def test_jobs_are_exported_while_penstockd_runs(jobs, ctl, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=4, service_time="1ms")])
    ids = [completed(service) for _ in range(3)]
    state = state_of(service)
    lines = [json.loads(line) for line in said("export", service=service).splitlines()]
    assert [line["id"] for line in lines] == ids and all(line["result"] for line in lines)
    until(lambda: not (state / "backup").exists(), "the copy is gone again")
    busy = ctl("export", state)
    assert busy.returncode != 0 and "name no folder" in busy.stderr
    stop(service)
    assert len(said("export", state).splitlines()) == 3
    away = ctl("export", "--socket", service.penstockd.socket)
    assert away.returncode != 0 and str(service.penstockd.socket) in away.stderr


def test_a_backup_that_was_changed_is_refused(jobs, folder, ctl, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=4, service_time="1ms", output_tokens=20000)])
    id = completed(service, LARGE)
    said("backup", folder / "saved", service=service)
    stored = folder / "saved" / "results" / id
    bytes = stored.read_bytes()
    stored.write_bytes(bytes[:-1] + b"?")
    code, found = findings(ctl, folder / "saved")
    assert code == 2 and f"results/{id} is not as it was written" in found["digests", "bad"]
    refused = ctl("restore", folder / "saved", folder / "fresh")
    assert refused.returncode == 1 and "is not as it was written" in refused.stderr
    assert not (folder / "fresh" / "jobs.db").exists()
    (folder / "saved" / "SHA256SUMS").write_text("0" * 64 + "  ../../etc/passwd\n")
    assert "is no sum of a file of a backup" in ctl("restore", folder / "saved", folder / "other").stderr


def test_what_does_not_fit_together_is_found_and_put_right_in_a_copy(jobs, folder, ctl, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=4, service_time="1ms", output_tokens=20000)])
    large, small = completed(service, LARGE), completed(service)
    state = state_of(service)
    busy = ctl("check", state)
    assert busy.returncode == 1 and "a penstockd uses" in busy.stderr
    stop(service)
    assert findings(ctl, state)[0] == 0
    (state / "results" / large).unlink()
    (state / "results" / "stray").write_text("x")
    with sqlite3.connect(state / "jobs.db") as db:
        db.execute("DELETE FROM results")
        db.execute("INSERT INTO results VALUES(7, x'00')")
        db.execute("INSERT INTO recently_ended VALUES(9)")
    (state / "secret").chmod(0o644)
    before = {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()}
    code, found = findings(ctl, state)
    assert code == 2
    assert "1 of 1 files are not there" in found["results", "bad"] or "answers are not there" in found["results", "bad"]
    assert ("lists", "warn") in found and "secret has mode 0644" in found["modes", "warn"]
    done = ctl("repair", state)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()} == before, "the state is as it was"
    (copy,) = [path for path in state.parent.iterdir() if path.name.startswith("state.repaired-")]
    assert "1 jobs whose files are gone have failed" in done.stdout and "belonged to no job" in done.stdout
    (copy / "secret").chmod(0o600)
    code, found = findings(ctl, copy)
    assert code == 0, found
    lines = {line["id"]: line for line in map(json.loads, said("export", copy).splitlines())}
    assert lines[large]["status"] == "failed" and lines[small]["status"] == "failed"
    assert said("repair", "--in-place", state)
    service.penstockd.start()
    service.wait_for_workers(service.penstockd)
    assert job(service, large)["status"] == "failed"


def test_a_damaged_database_is_found_and_not_mended_in_silence(jobs, ctl):  # noqa: F811
    service = jobs()
    for _ in range(40):
        completed(service)
    stop(service)
    state = state_of(service)
    with sqlite3.connect(state / "jobs.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    bytes = bytearray((state / "jobs.db").read_bytes())
    for page in range(2, len(bytes) // 4096, 2):
        bytes[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    (state / "jobs.db").write_bytes(bytes)
    code, found = findings(ctl, state)
    assert code == 2 and ("database", "bad") in found
    done = ctl("repair", state)
    assert done.returncode != 0 and "docs/STATE.md" in done.stdout + done.stderr


def test_nothing_is_left_of_a_job_that_is_purged(jobs, ctl, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=4, service_time="1ms")])
    mark = "KORALLENRIFF"
    body = {"model": "sim", "prompt": mark * 2000, "max_tokens": 5}
    kept = completed(service)
    id = completed(service, body, Idempotency_Key='"once"')
    state = state_of(service)
    held = lambda: sum(mark.encode() in (state / name).read_bytes() for name in ("jobs.db", "jobs.db-wal"))  # noqa: E731
    assert held(), "or the test looks for the wrong thing"
    assert service.request("DELETE", f"/jobs/{id}?purge", BOB).status == 404
    assert service.request("DELETE", f"/jobs/{id}?purge", ALICE).json() == {"id": id, "object": "job", "purged": True}
    assert get(service, f"/jobs/{id}").status == 404
    until(lambda: not held(), "nothing of it is on disk")
    assert job(service, kept)["status"] == "completed"
    again = promise(service, body, Idempotency_Key='"once"').json()["id"]
    assert again != id, "its key is free"


def test_a_job_that_is_alive_is_cancelled_first(jobs):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="60s")])
    id = promise(service).json()["id"]
    refused = service.request("DELETE", f"/jobs/{id}?purge", ALICE)
    assert refused.status == 409 and b"cancel it by DELETE first" in refused.body
    assert service.request("DELETE", f"/jobs/{id}", ALICE).json()["status"] == "cancelled"
    assert service.request("DELETE", f"/jobs/{id}?purge", ALICE).status == 200


def test_all_of_an_owner_is_purged_and_nothing_of_others(jobs, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=2, service_time="20ms")])
    mine = [completed(service) for _ in range(3)]
    bobs = service.request("POST", "/v1/completions", {**BOB, "Prefer": "respond-async"}, {"model": "sim", "prompt": "a"}).json()["id"]
    until(lambda: get(service, f"/jobs/{bobs}", BOB).json()["status"] == "completed", "bob's is done")
    said("pause", "default", service=service)
    mine.append(promise(service).json()["id"])
    assert said("purge", "--owner", ALICE["Authorization"], service=service) == "4 jobs are purged\n"
    assert "deed=purge" in service.penstockd.process.text(), "it is an order like others"
    assert [get(service, f"/jobs/{id}").status for id in mine] == [404] * 4
    assert get(service, f"/jobs/{bobs}", BOB).json()["status"] == "completed"
    owner = said("job", bobs, "--json", service=service)["owner"]
    assert said("purge", "--owner-hash", owner, "--json", service=service) == {"purged": 1}


def test_the_disk_is_free_again_after_a_flood(jobs, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="1ms")], queue={"keep_results": "0s"})
    state = state_of(service)
    size = lambda: (state / "jobs.db").stat().st_size  # noqa: E731
    said("pause", "default", service=service)
    body = {"model": "sim", "prompt": "y" * 500_000, "max_tokens": 1}
    for i in range(60):
        promise(service, body, Authorization=f"Bearer {i}")  # a plan allows few at once
    until(lambda: size() + (state / "jobs.db-wal").stat().st_size > 25 << 20, "the flood is on disk")
    full = size()
    said("resume", "default", service=service)
    until(lambda: said("jobs", service=service) == "there are no such jobs\n", "all are over, and swept", seconds=60)
    until(lambda: size() < max(full // 4, 8 << 20), lambda: f"the disk use falls: {size()} of {full}", seconds=60)


def test_doctor_says_how_all_is_and_exits_by_the_worst(jobs, folder, ctl):  # noqa: F811
    service = jobs()
    state_of(service).chmod(0o750)
    done = ctl("doctor", "--json", service=service)
    told = json.loads(done.stdout)
    level = {each["about"]: each["level"] for each in told["findings"]}
    assert done.returncode == ["ok", "warn", "bad"].index(told["level"])
    assert level["penstockd"] == level["workers"] == level["reload"] == level["flushes"] == "ok"
    assert {"clock", "socket", "state", "nofile", "limits.max_connections"} <= set(level)
    assert all(each["advice"] for each in told["findings"] if each["level"] != "ok")
    daemon = service.penstockd
    daemon.config.write_text(daemon.config.read_text() + "drain_timeout: 7s\n")
    table = ctl("doctor", service=service)
    assert table.returncode >= 1 and "1 keys of" in table.stdout and "penstockctl diff shows them" in table.stdout
    daemon.config.write_text(daemon.config.read_text() + "nonsense: 7s\n")
    bad = ctl("doctor", service=service)
    assert bad.returncode == 2 and "would be refused" in bad.stdout and bad.stdout.splitlines()[1].startswith("bad ")
    stop(service)
    gone = ctl("doctor", "-c", daemon.config)
    assert gone.returncode == 2 and "cannot reach penstockd" in gone.stdout and "systemctl status penstockd" in gone.stdout
    state_of(service).rename(folder / "elsewhere")
    daemon.config.write_text(daemon.config.read_text().replace("nonsense: 7s\n", ""))
    gone = ctl("doctor", "-c", daemon.config)
    assert f"{state_of(service)} is not there, so they were not measured" in gone.stdout and "call this as" not in gone.stdout


def test_doctor_tells_versions_that_differ(jobs, folder, ctl, monkeypatch):  # noqa: F811
    programs = folder / "programs"
    programs.mkdir()
    for name in ("penstockd", "penstock-worker"):
        shutil.copy(BUILD / name, programs)
    monkeypatch.setattr(processes, "BUILD", programs)
    service = jobs()
    completed(service)
    found = lambda: {each["about"]: each for each in json.loads(ctl("doctor", "--json", service=service).stdout)["findings"]}  # noqa: E731
    before = found()
    runs = json.loads(service.penstockd.status())["version"]
    assert before["module"] == {**before["module"], "level": "ok", "text": f"the Nginx that came here has that of {runs}"}, before["module"]
    assert before["SQLite"]["text"] == f"{sqlite3.sqlite_version}, here" and not {"program", "programs of workers", "version"} & set(before)
    for name in ("penstockd", "penstock-worker"):
        shutil.copy(BUILD / name, programs / "new")
        os.replace(programs / "new", programs / name)
    service.nginx.stop()
    old, future = Connection(service.penstockd.socket, hello=False), Connection(service.penstockd.socket, hello=False)
    old.send(frame(HELLO, version=1, role=EDGE, name="0.0.9"))
    until(lambda: "0.0.9" in found()["module"]["text"], "it is noted")
    after = found()
    assert after["module"]["level"] == "warn" and f"and penstockd is {runs}" in after["module"]["text"]
    for about, what in (("program", f"{programs}/penstockd was replaced since"), ("programs of workers", "sim")):
        assert after[about]["level"] == "warn" and what in after[about]["text"] and "systemctl restart penstockd" in after[about]["advice"]
    future.send(frame(HELLO, version=9, role=EDGE, name="9.0.0"))
    future.until_closed()
    bad = next(each for each in json.loads(ctl("doctor", "--json", service=service).stdout)["findings"] if each["about"] == "module")
    assert bad["level"] == "bad" and f"9.0.0, which speaks protocol 9; penstockd {runs} speaks 1 to 3" in bad["text"]
    old.close()


def test_doctor_tells_which_redis_answers(penstock, folder, ctl):
    server = RedisServer("--requirepass", "secret", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
    password = folder / "redis.password"
    password.write_text("secret\n")
    password.chmod(0o600)
    service = penstock(workers=[simulate()], queue={"shared": "true"},
                       yaml=f'state: state\nredis: {{ url: "unix:{server.socket}", password_file: {password} }}\n')
    redis = lambda: next(each for each in json.loads(ctl("doctor", "--json", service=service).stdout)["findings"] if each["about"] == "Redis")  # noqa: E731
    assert re.fullmatch(r"\d+\.\d+\.\d+ at .*", redis()["text"]) and redis()["level"] == "ok"
    server.close()
    assert redis()["level"] == "warn" and "does not tell its version" in redis()["text"]


def test_the_chapter_does_what_it_says(jobs, folder):  # noqa: F811
    service = jobs()
    id = completed(service)
    chapter = (Path(__file__).parents[2] / "docs" / "STATE.md").read_text()
    (commands,) = re.findall(r"^```sh state\n(.*?)^```", chapter, re.M | re.S)
    done = subprocess.run(["bash", "-euc", commands.replace("build/", f"{BUILD}/")], capture_output=True, text=True, cwd=folder, timeout=60,
                          env={**environment(folder), "PENSTOCK_SOCKET": str(service.penstockd.socket)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SHA256SUMS" in done.stdout and "every page is sound" in done.stdout and f'"id":"{id}"' in done.stdout
    help = subprocess.run([BUILD / "penstockctl", "--help"], capture_output=True, text=True, env=environment(folder)).stdout
    named = set(re.findall(r"`penstockctl ([a-z]+)|build/penstockctl ([a-z]+)", chapter))
    named = {one or other for one, other in named}
    assert named >= {"backup", "restore", "check", "repair", "export", "purge"} and named <= set(re.findall(r"^  ([a-z]+)", help, re.M))
