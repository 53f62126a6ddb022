"""`make run`'s script: everything up, a line to try, and everything down."""

import os
import re
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from processes import ASAN, BUILD, children, state_of
from waiting import Port, until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(ASAN, reason="the script runs the installed Nginx, which cannot load a sanitized module")


class Run:
    """scripts/run on a port of its own."""

    def __init__(self, folder, port=None):
        self._port = None if port else Port()
        self.port = port or self._port.number
        handle, output = tempfile.mkstemp(".out", "run-", folder)
        self.output = Path(output)
        with open(handle, "wb") as out:
            self.process = subprocess.Popen([ROOT / "scripts" / "run", BUILD, str(self.port)], stdout=out, stderr=out,
                                            stdin=subprocess.DEVNULL)

    def text(self):
        return self.output.read_text()

    def wait_until_ready(self):
        until(lambda: "\n\n" in self.text() or self.process.poll() is not None, "it is ready", 90)
        assert f"ready http://127.0.0.1:{self.port}\n" in self.text(), self.text()
        return self

    def commands(self, count=4):
        """The lines to try."""
        def printed():
            lines = re.findall(r"^(?:curl|for) .*$", self.text(), re.M)
            return lines if len(lines) == count else None
        return until(printed, f"{count} lines to try are printed")

    def family(self):
        """Every process that it started."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            todo += children(pid)
            found.append(pid)
        return found

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(30)
        if self._port:
            self._port.release()
        return status


@pytest.fixture
def run(folder):
    runs = []

    def start(port=None):
        runs.append(Run(folder, port))
        return runs[-1]

    yield start
    for one in runs:
        one.stop()
        for path in (ROOT / "run").glob(f"{one.port}*"):
            subprocess.run(["rm", "-rf", path], check=True)


def shell(command):
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60).stdout


def gone(pids):
    return all(state_of(pid) in ("", "Z") for pid in pids)


def test_the_lines_it_prints_work_as_they_are(run, folder, monkeypatch):
    service = run().wait_until_ready()
    models, stream, burst, draw = service.commands()
    assert '"demo"' in shell(models) and '"digits"' in shell(models)
    words = shell(stream)
    assert words.count("data: ") > 2 and words.rstrip().endswith("data: [DONE]")
    statuses = re.findall(r"HTTP/1.1 (\d+)", refused := shell(burst))
    assert statuses == ["200"] * 5 + ["429"], refused
    assert re.search(r"Retry-After: [1-6]\b", refused, re.I)
    monkeypatch.chdir(folder)
    shell(draw)
    assert (folder / "seven.png").read_bytes().startswith(b"\x89PNG")


def test_without_numpy_there_is_one_model_less(run, folder, monkeypatch):
    (folder / "numpy.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    models, *_ = run().wait_until_ready().commands(3)
    assert '"digits"' not in (said := shell(models)) and '"demo"' in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_that_it_started(run, number):
    service = run().wait_until_ready()
    family = service.family()
    assert len(family) >= 4  # itself, Nginx and a worker of it, penstockd, its worker
    assert service.stop(number) == 0
    until(lambda: gone(family), "every process is gone")


def test_nothing_outlives_it_when_it_is_killed(run):
    service = run().wait_until_ready()
    family = service.family()
    service.stop(signal.SIGKILL)
    until(lambda: gone(family), "every process is gone")
    assert run(service.port).wait_until_ready()  # and what it left in run/ is no hindrance


def test_two_live_side_by_side(run):
    for service in [run(), run()]:
        service.wait_until_ready()


def test_a_port_in_use_is_told(run):
    port = Port()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port.number))
        other.listen()
        service = run(port.number)
        assert service.process.wait(20) == 1
        assert re.search(rf"port {port.number} is in use.*PORT=", service.text())
    port.release()


def test_a_second_run_on_the_same_port_is_told(run):
    first = run().wait_until_ready()
    second = run(first.port)
    assert second.process.wait(20) == 1
    assert "PORT=" in second.text()
    assert '"demo"' in shell(first.commands()[0])


def test_it_ends_and_tells_when_a_part_dies(run):
    service = run().wait_until_ready()
    penstockd = next(pid for pid in children(service.process.pid) if Path(f"/proc/{pid}/comm").read_text() == "penstockd\n")
    os.kill(penstockd, signal.SIGKILL)
    assert service.process.wait(30) == 1
    assert "penstockd has ended" in service.text()
