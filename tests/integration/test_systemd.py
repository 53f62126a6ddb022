"""What systemd is told, the socket that it holds, and the units that are shipped."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import simulate
from processes import BUILD, environment
from waiting import until

UNITS = Path(__file__).parents[2] / "config" / "systemd"
HELD = "location / { penstock_pass gpu; }"


@pytest.fixture
def inbox(folder, monkeypatch):
    """The end of a notify socket; its words come without waiting."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(folder / "notify"))
        end.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        yield end


def until_said(inbox, words):
    while True:
        said = inbox.recv(512).decode()
        if re.search(words, said):
            return said


def test_it_hears_of_every_change_of_a_life(penstock, inbox, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    service = penstock(workers=[simulate()])
    assert inbox.recv(512) == b"READY=1\n"
    until_said(inbox, r"WATCHDOG=1\nSTATUS=0 jobs; 1 of 1 workers ready\n")
    for _ in range(3):  # nothing else happens
        assert until_said(inbox, "WATCHDOG") == "WATCHDOG=1\n"
    service.penstockd.process.signal(signal.SIGHUP)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+\n", until_said(inbox, "RELOADING"))
    assert until_said(inbox, "READY") == "READY=1\n"
    service.penstockd.process.signal(signal.SIGTERM)
    until_said(inbox, "STOPPING=1\n")


def test_a_daemon_that_hangs_is_silent(penstock, inbox, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    service = penstock(workers=[simulate()])
    until_said(inbox, "WATCHDOG")
    service.penstockd.process.signal(signal.SIGSTOP)
    inbox.settimeout(1)
    with pytest.raises(TimeoutError):
        while True:
            inbox.recv(512)
    service.penstockd.process.signal(signal.SIGCONT)
    inbox.settimeout(20)
    until_said(inbox, "WATCHDOG")


def test_workers_know_nothing_of_it(penstock, inbox):
    service = penstock(workers=[simulate()])
    worker = json.loads(service.penstockd.status())["workers"][0]["pid"]
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker}/environ").read_bytes()


class Holder:
    """Holds a daemon's socket, as systemd does, and starts the daemon with it."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(daemon.socket))
        self.socket.listen(128)

    def start(self):
        self.daemon.start_by([
            "bash", "-c", f"exec env LISTEN_FDS=1 LISTEN_PID=$$ {BUILD}/penstockd -c {self.daemon.config} 3<&{self.socket.fileno()}"],
            pass_fds=[self.socket.fileno()])


def test_a_restart_refuses_no_connection(penstock):
    service = penstock(start=False, workers=[simulate(slots=1)], server=HELD)
    holder = Holder(service.penstockd)
    holder.start()
    service.nginx.start(service.port)
    service.penstockd.wait_for(slots=1)
    assert service.complete().status == 200
    assert service.penstockd.stop() == 0
    assert service.penstockd.socket.exists(), "it is not ours to remove"
    answers = []
    asks = threading.Thread(target=lambda: answers.append(service.complete().status))
    asks.start()
    until(lambda: pending(service.penstockd.socket), "a connection waits for the next life")
    holder.start()
    asks.join(20)
    assert answers == [200]
    holder.socket.close()


def pending(path):
    """Connections that nobody has accepted yet."""
    line = subprocess.run(["ss", "-xlHn", "src", str(path)], capture_output=True, text=True).stdout
    return int(line.split()[2])


def test_systemds_own_tool_hands_the_socket_over(penstock):
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("systemd is not installed")
    service = penstock(start=False, workers=[simulate(slots=1)], server=HELD)
    daemon = service.penstockd
    daemon.start_by(["systemd-socket-activate", "-l", daemon.socket, BUILD / "penstockd", "-c", daemon.config])
    service.nginx.start(service.port)
    until(daemon.socket.exists, "it listens")
    assert service.complete().status == 200, "the first request starts it"


def test_another_path_than_the_configurations_is_refused(penstock, folder):
    service = penstock(start=False, workers=[simulate(slots=1)])
    holder = Holder(service.penstockd)
    service.penstockd.config.write_text(service.penstockd.config.read_text().replace("penstockd.sock", "other.sock"))
    said = subprocess.run(["bash", "-c", f"exec env LISTEN_FDS=1 LISTEN_PID=$$ {BUILD}/penstockd -c {service.penstockd.config} "
                           f"3<&{holder.socket.fileno()}"], pass_fds=[holder.socket.fileno()], capture_output=True, text=True,
                          env=environment(folder), timeout=20)
    assert said.returncode == 1 and "write the same path in both" in said.stderr
    holder.socket.close()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_units_are_right_and_give_little_away(folder):
    for unit in UNITS.iterdir():
        shutil.copy(unit, folder)
    service = folder / "penstockd.service"
    service.write_text(service.read_text().replace("/usr/sbin/penstockd", str(BUILD / "penstockd")))
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, folder.glob("penstock*"))], capture_output=True, text=True,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"})
    ours = [line for line in said.stderr.splitlines() if "penstock" in line]
    assert said.returncode == 0 and not ours, said.stderr
    scored = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(service)],
                            capture_output=True, text=True)
    assert scored.returncode == 0, scored.stdout[-400:]
