"""What an operator sees and does by penstockctl: jobs, dead letters, pause, drain, scale, and a live screen."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading

import pytest

from conftest import simulate
from processes import BUILD, environment, sanitizer_reports
from test_jobs import ALICE, HTTP, SERVER, job, jobs, post, promise, until_status  # noqa: F401 (jobs is a fixture)
from waiting import until


@pytest.fixture
def ctl(folder):
    """Runs penstockctl against a service: ctl(service, "jobs", ...)."""
    def run(service, *arguments, **variables):
        return subprocess.run([BUILD / "penstockctl", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                              env={**environment(folder), "PENSTOCK_SOCKET": str(service.penstockd.socket), **variables})
    yield run
    assert not sanitizer_reports(folder)


@pytest.fixture
def said(ctl):
    """The same, when it must go well: what was said."""
    def run(service, *arguments):
        done = ctl(service, *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout
    return run


def killed_jobs(service, count):
    """The ids of jobs that failed every attempt."""
    ids = [promise(service, X=str(i)).json()["id"] for i in range(count)]
    for id in ids:
        until_status(service, id, "failed")
    return ids


def workers(service, said):
    return said(service, "status", "--json")["workers"]


def test_an_order_without_an_answer_says_that_it_may_yet_happen(folder, ctl):
    """A penstockd that takes orders and says nothing: a question is only unanswered."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "silent.sock"))
        silent.listen()
        said = {}
        def ask(*arguments):
            done = subprocess.run([BUILD / "penstockctl", *arguments, "-s", folder / "silent.sock"], capture_output=True, text=True, timeout=60,
                                  env=environment(folder))
            assert done.returncode == 1
            said[arguments[0]] = done.stderr
        threads = [threading.Thread(target=ask, args=words) for words in (["pause", "default"], ["cancel", "job_1"], ["drain"], ["jobs"], ["status"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all("gave no answer" in text for text in said.values())
    assert {name for name, text in said.items() if "may yet be carried out" in text} == {"pause", "cancel", "drain"}


def test_jobs_of_everybody_are_listed_filtered_shown_and_cancelled(jobs, said, ctl):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="60s")])
    mine = [promise(service).json()["id"] for _ in range(2)]
    until_status(service, mine[0], "processing")
    bob = service.request("POST", "/v1/completions", {"Authorization": "Bearer bob", "Prefer": "respond-async"},
                          {"model": "sim", "prompt": "a"}).json()["id"]
    table = said(service, "jobs")
    assert table.splitlines()[0].split()[:4] == ["JOB", "STATUS", "QUEUE", "MODEL"]
    assert [line.split()[0] for line in table.splitlines()[1:]] == [bob, mine[1], mine[0]], "newest first"
    assert re.search(rf"{mine[0]}\s+processing\s+default\s+sim\s+free", table)
    assert "Bearer" not in table and "alice" not in table
    ids = [each["id"] for each in said(service, "jobs", "--json", "--owner", "Bearer bob")["data"]]
    assert ids == [bob]
    assert [each["id"] for each in said(service, "jobs", "--json", "--status", "queued", "--limit", "1")["data"]] == [bob]
    shown = said(service, "job", mine[1])
    assert re.search(r"^status +queued$", shown, re.M) and re.search(r"^tier +free$", shown, re.M)
    assert said(service, "cancel", mine[0]) == f"{mine[0]} is cancelled\n"
    assert job(service, mine[0])["status"] == "cancelled"
    unknown = ctl(service, "job", "job_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert unknown.returncode == 1 and "no such job" in unknown.stderr
    assert "scheduled, queued" in ctl(service, "jobs", "--status", "lost").stderr
    for id in mine[1:] + [bob]:
        said(service, "cancel", id)


def test_dead_letters_are_listed_shown_queued_again_and_dropped(jobs, said, ctl):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="1ms", failure_rate="1")], queue={"attempts": 2})
    ids = killed_jobs(service, 3)
    assert [each["id"] for each in said(service, "dead", "--json")["data"]] == ids[::-1]
    assert ids[0] in said(service, "dead", "list")
    shown = said(service, "dead", "show", ids[0])
    assert "POST /v1/completions" in shown and '"prompt": "Tell me"' in shown and re.search(r"^tries +2$", shown, re.M)
    assert "alice" not in shown
    assert "3 dead letters" in said(service, "status")
    config = service.penstockd.config
    config.write_text(config.read_text().replace("failure_rate: 1", "failure_rate: 0"))
    service.penstockd.process.signal(signal.SIGHUP)
    assert said(service, "dead", "requeue", ids[0]) == f"{ids[0]} is queued again\n"
    until_status(service, ids[0], "completed")
    assert said(service, "dead", "drop", ids[1]) == f"{ids[1]} is dropped\n"
    assert said(service, "dead", "requeue", "--all") == "1 dead letter queued again\n"
    until_status(service, ids[2], "completed")
    assert said(service, "dead") == "there are no dead letters\n"
    assert said(service, "dead", "drop", "--all") == "0 dead letters dropped\n"
    gone = ctl(service, "dead", "requeue", ids[1])
    assert gone.returncode == 1 and "no dead letter" in gone.stderr


def test_a_paused_queue_takes_jobs_in_and_gives_none_out(jobs, said, ctl):  # noqa: F811
    service = jobs()
    assert "is paused" in said(service, "pause", "default")
    id = promise(service).json()["id"]
    assert re.search(r"^default +open, paused +1 ", said(service, "status"), re.M)
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in service.penstockd.process.text(), "it has reloaded")
    assert job(service, id)["status"] == "queued"
    assert "goes on" in said(service, "resume", "default")
    until_status(service, id, "completed")
    unknown = ctl(service, "pause", "defualt")
    assert unknown.returncode == 1 and "Queues: default" in unknown.stderr


def test_a_reload_says_what_it_changes(jobs, said):  # noqa: F811
    service = jobs()
    daemon = service.penstockd
    before, config = daemon.folder / "before.yaml", daemon.config.read_text()
    before.write_text(config)
    daemon.config.write_text(re.sub(r"^limits:.*", "limits: { max_held: 3MiB }", config, flags=re.M))
    changed = "limits.max_held: 3MiB (was 1GiB)"
    compared = subprocess.run([BUILD / "penstockd", "-d", before, "-c", daemon.config], capture_output=True, text=True, check=True)
    assert changed in compared.stdout.splitlines()
    shown = subprocess.run([BUILD / "penstockd", "-T", "-c", daemon.config], capture_output=True, text=True, check=True).stdout
    assert "limits.max_held: 3MiB\n" in shown and "limits.max_body: 32MiB  # not written\n" in shown
    daemon.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in daemon.process.text(), "it has reloaded")
    assert f"changed: {changed}\n" in daemon.process.text()


def test_a_drained_worker_ends_its_job_first_and_comes_back_when_told(jobs, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="1500ms")], yaml="drain_timeout: 0s\n")
    first, second = (promise(service).json()["id"] for _ in range(2))
    until_status(service, first, "processing")
    said(service, "drain", "sim")
    done = until_status(service, first, "completed")
    assert done["attempts"] == 0
    until(lambda: [w["state"] for w in workers(service, said)] == ["stopped"], "the worker has ended")
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in service.penstockd.process.text(), "it has reloaded")
    assert [w["state"] for w in workers(service, said)] == ["stopped"]
    assert job(service, second)["status"] == "queued"
    said(service, "scale", "sim", 1)
    until_status(service, second, "completed")
    assert "all workers" in said(service, "drain")
    until(lambda: [w["state"] for w in workers(service, said)] == ["stopped"], "all have ended")


def test_scaled_processes_share_the_slots_and_never_have_more(jobs, said, ctl):  # noqa: F811
    service = jobs(workers=[simulate(slots=8, service_time="30ms")], http=HTTP.replace("concurrency 3;", "concurrency 500;"))
    stop, over = threading.Event(), []

    def load():
        while not stop.is_set():
            post(service)

    def watch():
        while not stop.is_set():
            total = sum(each["running"] for each in workers(service, said) if each["pid"])
            if total > 8:
                over.append(total)

    threads = [threading.Thread(target=load) for _ in range(16)] + [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    try:
        for n in (3, 8, 2, 1, 4):
            assert f"{n} process" in said(service, "scale", "sim", n)
            until(lambda: [w["state"] for w in workers(service, said)] == ["ready"] * n, f"{n} processes are ready")
        before = {w["pid"] for w in workers(service, said)}
        service.penstockd.process.signal(signal.SIGHUP)
        until(lambda: "reloaded" in service.penstockd.process.text(), "it has reloaded")
        assert {w["pid"] for w in workers(service, said)} == before, "a reload leaves them alone"
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len({w["pid"] for w in workers(service, said) if w["state"] == "ready"} - {min(before)}) == 4,
              "one that died is replaced")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not over
    too_many = ctl(service, "scale", "sim", 9)
    assert too_many.returncode == 1 and "from 0 to 8" in too_many.stderr
    assert "Workers: sim" in ctl(service, "scale", "sin", 1).stderr


def test_scaled_to_nothing_promises_wait_and_callers_are_told_to_come_back(jobs, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=2)], limits={"worker_grace": "0s"})
    said(service, "scale", "sim", 0)
    until(lambda: [w["state"] for w in workers(service, said)] == ["stopped"], "the worker has ended")
    refused = post(service)
    assert refused.status == 503 and refused.headers["Retry-After"]
    until(lambda: "No worker is running" in post(service).text(), "the edge refuses by itself who would wait")
    id = promise(service).json()["id"]
    said(service, "scale", "sim", 2)
    until_status(service, id, "completed")


class Terminal:
    """A program on a terminal of 100 columns and 30 rows."""

    def __init__(self, command, env):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.execve(command[0], command, {**env, "TERM": "xterm"})
        self.pid, self.output = pid, b""

    def read_until(self, text):
        def arrived():
            if select.select([self.fd], [], [], 0)[0]:
                try:
                    self.output += os.read(self.fd, 65536)
                except OSError:
                    pass
            return text in self.output
        until(arrived, lambda: f"{text!r} is on the screen: {self.output[-2000:]!r}")

    def type(self, text):
        os.write(self.fd, text)

    def status(self):
        """Its exit status, once it has ended."""
        self.read_until(b"\x1b[?1049l")
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("leave", [b"q", b"\x03"], ids=["q", "ctrl-c"])
def test_top_is_live_and_puts_the_terminal_back(jobs, folder, leave):  # noqa: F811
    service = jobs()
    screen = Terminal([str(BUILD / "penstockctl"), "top", "-s", str(service.penstockd.socket)], environment(folder))
    screen.read_until(b"\x1b[?1049h")
    screen.read_until(b"QUEUE")
    post(service)
    screen.read_until(b"completed/s")
    service.penstockd.kill()
    screen.read_until(b"Trying again")
    service.penstockd.start()
    screen.output = b""
    screen.read_until(b"penstockd is serving")
    screen.type(leave)
    assert screen.status() == 0
    assert screen.output.rindex(b"\x1b[?25h") < screen.output.rindex(b"\x1b[?1049l")


def test_top_without_a_terminal_says_what_there_is_instead(jobs, ctl):  # noqa: F811
    done = ctl(jobs(), "top")
    assert done.returncode == 1 and "status --json" in done.stderr


@pytest.mark.parametrize("arguments", [
    ["jobs", "x"], ["job"], ["job", "a", "b"], ["job", "../queues/default/pause"], ["cancel"], ["dead", "revive"], ["dead", "show"],
    ["dead", "show", "--all"], ["dead", "requeue"], ["dead", "drop", "a", "--all"], ["pause"], ["pause", "a/b"], ["resume", "a", "b"],
    ["drain", "a", "b"], ["scale", "sim"], ["scale", "sim", "two"], ["scale", "sim", "-1"], ["top", "x"],
    ["jobs", "-s", "a", "-c", "b"],
], ids=str)
def test_misuse_is_2_and_shows_the_usage(folder, arguments):
    done = subprocess.run([BUILD / "penstockctl", *arguments], capture_output=True, text=True, env=environment(folder), timeout=30)
    assert done.returncode == 2 and done.stdout == "" and "usage: penstockctl" in done.stderr


def test_what_is_no_penstockd_is_said(folder):
    import socket
    path = folder / "odd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def babble():
            connection = listener.accept()[0]
            connection.sendall(b"220 mail.example ESMTP\r\n")
            while connection.recv(65536):
                pass
            connection.close()
        thread = threading.Thread(target=babble)
        thread.start()
        done = subprocess.run([BUILD / "penstockctl", "jobs", "-s", path], capture_output=True, text=True,
                              env=environment(folder), timeout=30)
        thread.join()
    assert done.returncode == 1 and "no penstockd" in done.stderr


def test_what_is_paused_and_scaled_outlives_a_crash_unless_the_file_was_changed(jobs, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=4, service_time="1ms")])
    said(service, "pause", "default")
    said(service, "scale", "sim", 2)
    id = promise(service).json()["id"]
    service.penstockd.kill()
    service.penstockd.start()
    until(lambda: [w["state"] for w in workers(service, said)] == ["ready"] * 2, "it is scaled as before")
    until(lambda: "queue default: is paused, as before this start" in service.penstockd.process.text(), "it is said")
    assert job(service, id)["status"] == "queued"
    service.penstockd.kill()
    config = service.penstockd.config
    config.write_text(config.read_text().replace("slots: 4", "slots: 3"))
    service.penstockd.start()
    until(lambda: "has changed: what was paused or scaled before this start is as it says" in service.penstockd.process.text(), "the file wins, and it is said")
    until_status(service, id, "completed")
    assert [w["state"] for w in workers(service, said)] == ["ready"]


@pytest.mark.parametrize("leave", [b"q", b"\x03"], ids=["q", "ctrl-c"])
def test_what_is_watched_is_asked_again_each_second(jobs, said, ctl, folder, leave):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="60s")])
    id = promise(service).json()["id"]
    until_status(service, id, "processing")
    command = [str(BUILD / "penstockctl"), "job", id, "--watch", "-s", str(service.penstockd.socket)]
    screen = Terminal(command, environment(folder))
    screen.read_until(b"processing")
    screen.read_until(b"q leaves")
    said(service, "cancel", id)
    screen.output = b""
    screen.read_until(b"cancelled")
    service.penstockd.kill()
    screen.output = b""
    screen.read_until(b"cannot reach penstockd")
    service.penstockd.start()
    screen.output = b""
    screen.read_until(b"cancelled")
    screen.type(leave)
    assert screen.status() == 0
    assert screen.output.rindex(b"\x1b[?25h") < screen.output.rindex(b"\x1b[?1049l"), "the terminal is as it was"


def test_each_that_can_be_watched_is_and_what_is_wrong_is_said_before_the_screen_is_taken(jobs, ctl, folder):  # noqa: F811
    service = jobs()
    for words, shown in ((["status"], b"penstockd is serving"), (["jobs"], b"there are no such jobs")):
        screen = Terminal([str(BUILD / "penstockctl"), *words, "-w", "-s", str(service.penstockd.socket)], environment(folder))
        screen.read_until(shown)
        screen.type(b"q")
        assert screen.status() == 0
    wrong = ctl(service, "job", "job_01ARZ3NDEKTSV4RRFFQ69G5FAV", "--watch")
    assert wrong.returncode == 1 and "no such job" in wrong.stderr and not wrong.stdout
    nowhere = ctl(service, "status", "--watch")
    assert nowhere.returncode == 1 and "terminal" in nowhere.stderr, nowhere
