"""Nginx and penstockd as the tests see them: started, signalled, watched, stopped."""

import os
import re
import signal
import socket
import struct
import subprocess
from pathlib import Path

from waiting import until
from wire import STATUS, TOOL, Connection, frame

BUILD = Path(os.environ.get("PENSTOCK_BUILD", Path(__file__).parents[2] / "build")).resolve()
NGINX = os.environ.get("PENSTOCK_NGINX", "nginx")
ASAN = os.environ.get("PENSTOCK_ASAN") == "1"
MODULE = BUILD / "ngx_http_penstock_module.so"

# What the sanitizers say of Nginx itself, and no module can help: memory that workers take when they start and give
# back by exiting, and copies of nothing from nowhere.
KNOWN_LEAKS = "".join(f"leak:ngx_{name}\n" for name in (
    "regex_malloc", "process_options", "create_pool", "event_process_init", "worker_process_init", "set_environment", "save_argv"))
KNOWN_REPORTS = re.compile(r"^src/(core/ngx_string|core/ngx_hash|http/ngx_http_variables|http/ngx_http_core_module|http/v2/ngx_http_v2_filter_module)\.c:\d+"
                           r".*(null pointer|misaligned)", re.M)


def environment(folder):
    """For every program under test: the sanitizers write into the test's folder, one file a process."""
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin")
    if ASAN:
        (folder / "known_leaks").write_text(KNOWN_LEAKS)
        env["ASAN_OPTIONS"] = f"detect_odr_violation=0:log_path={folder}/sanitizer"
        env["UBSAN_OPTIONS"] = f"print_stacktrace=1:log_path={folder}/sanitizer"
        env["LSAN_OPTIONS"] = f"suppressions={folder}/known_leaks:print_suppressions=0:exitcode=0"
    return env


def sanitizer_reports(folder):
    """What the sanitizers found, without what is known of Nginx."""
    reports = []
    for path in folder.glob("sanitizer.*"):
        text = path.read_text(errors="replace")
        found = re.findall(r"^.*(?:runtime error|ERROR: (?!Leak)\w+Sanitizer|(?:Direct|Indirect) leak).*$", text, re.M)
        if any(not KNOWN_REPORTS.search(line) for line in found):
            reports.append(text)
    return reports


def children(pid):
    """The process's children that live."""
    pids = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        pids += [int(child) for child in task.read_text().split()]
    return [child for child in pids if state_of(child) not in ("Z", "")]


def state_of(pid):
    """R, S, T, Z ... as in /proc; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


class Process:
    """A program in the foreground, its stdout and stderr in one file."""

    def __init__(self, folder, name, command, pass_fds=()):
        self.output = folder / f"{name}.out"
        self._file = open(self.output, "ab")
        self._process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=self._file,
                                         stderr=self._file, cwd=folder, env=environment(folder), pass_fds=pass_fds)
        self.pid = self._process.pid

    def alive(self):
        return self._process.poll() is None

    def signal(self, number):
        if self.alive():
            self._process.send_signal(number)

    def wait(self, seconds=20):
        """Its exit status; negative: the signal that ended it."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.output.stem} did not end within {seconds} s; "
                                 f"its last words: {self.text()[-2000:]}") from None

    def kill(self):
        self.signal(signal.SIGKILL)
        self._process.wait()

    def text(self):
        return self.output.read_text(errors="replace")


class QueueStatus:
    """One queue on the status page (shared/wire/status_page.h)."""

    OPEN, FULL, NO_WORKER, DRAINING, CANNOT_LOAD = 1, 2, 3, 4, 5

    def __init__(self, raw):
        self.state, self.length, self.running, self.slots, _, self.retry_after_s = struct.unpack_from("<IIIIQQ", raw, 40)


class Penstockd:
    """penstockd with one configuration and its socket."""

    def __init__(self, folder, name, yaml):
        self.folder, self.name = folder, name
        self.socket = folder / f"{name}.sock"
        self.config = folder / f"{name}.yaml"
        self.write_config(yaml)
        self.process = None
        self.expect_death = False

    def write_config(self, yaml):
        self.config.write_text(f"socket: {self.socket}\nworker_binary: {BUILD}/penstock-worker\n{yaml}")

    def start(self):
        self.process = Process(self.folder, self.name, [BUILD / "penstockd", "-c", self.config])
        until(self._answers, f"{self.name} listens on {self.socket}")

    def start_by(self, command, pass_fds=()):
        """Another command than its own starts it; nobody waits until it answers."""
        self.process = Process(self.folder, self.name, command, pass_fds)

    def _answers(self):
        if not self.process.alive():
            raise AssertionError(f"{self.name} ended: {self.process.text()[-2000:]}")
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def queue(self, name="default"):
        """The queue as the edge reads it; None when there is none of that name."""
        try:
            page = Path(f"{self.socket}.status").read_bytes()
        except FileNotFoundError:
            return None
        for at in range(24, len(page) - 87, 88):
            if page[at:at + 40].rstrip(b"\0").decode() == name:
                return QueueStatus(page[at:at + 88])
        return None

    def wait_for(self, seconds=30, queue="default", unless=None, **expected):
        """Until the queue has these values: wait_for(running=1, length=0). Words of `unless` in the log end it early."""
        def reached():
            assert unless is None or unless not in self.process.text(), self.process.text()
            status = self.queue(queue)
            return status and all(getattr(status, key) == value for key, value in expected.items())
        until(reached, lambda: f"{self.name}'s queue {queue} has {expected}; it has {vars(self.queue(queue) or self)}", seconds)

    def status(self):
        """The answer to a tool's STATUS, as JSON text."""
        tool = Connection(self.socket, role=TOOL)
        tool.send(frame(STATUS))
        _, _, fields = tool.receive_fields()
        tool.close()
        return fields["body"] if "body" in fields else fields["json"]

    def workers(self):
        return children(self.process.pid)

    def kill(self):
        """kill -9, as a crash would."""
        self.expect_death = True
        self.process.kill()

    def stop(self):
        """TERM, and its exit status."""
        self.process.signal(signal.SIGTERM)
        return self.process.wait(40)


class Nginx:
    """Nginx with the module and one configuration."""

    def __init__(self, folder, configuration, several_processes):
        self.folder = folder
        self.config = folder / "nginx.conf"
        self.error_log = folder / "error.log"
        self.process = None
        self._several = several_processes or not ASAN
        self.write_config(configuration)

    def write_config(self, configuration):
        self.config.write_text(configuration)

    def _command(self, *more):
        globals_ = f"daemon off; master_process {'on' if self._several else 'off'};"
        return [NGINX, "-p", self.folder, "-c", self.config, "-e", self.error_log, *more, "-g", globals_]

    def check(self):
        """nginx -t: (accepted, what it said)."""
        done = subprocess.run([str(part) for part in self._command("-t")], capture_output=True, text=True,
                              env=environment(self.folder))
        return done.returncode == 0, done.stderr

    def start(self, port):
        self.process = Process(self.folder, "nginx", self._command())
        until(lambda: self._listens(port), f"Nginx listens on {port}")

    def _listens(self, port):
        if not self.process.alive():
            raise AssertionError(f"Nginx ended: {self.process.text()[-1000:]} {self.log()[-3000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def workers(self):
        return children(self.process.pid) if self._several else [self.process.pid]

    def reload(self):
        """HUP, and until every worker is a new one."""
        old = set(until(self.workers, "Nginx, which listens before it has workers, has some"))
        self.process.signal(signal.SIGHUP)
        until(lambda: self.workers() and not old & set(self.workers()), "Nginx has only new workers after HUP")

    def stop(self):
        """Gracefully, as then Nginx tells of connections that were left open."""
        self.process.signal(signal.SIGQUIT)
        return self.process.wait()

    def log(self):
        return self.error_log.read_text(errors="replace") if self.error_log.exists() else ""
