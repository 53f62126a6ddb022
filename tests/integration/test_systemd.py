"""What systemd is told, the socket that it holds, and the units that are shipped."""

import ctypes
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
from processes import BUILD, environment, state_of
from waiting import until

UNITS = Path(__file__).parents[2] / "config" / "systemd"
HELD = "location / { penstock_pass gpu; }"
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17


@pytest.fixture
def inbox(folder, monkeypatch):
    """The end of a notify socket; its words come without waiting."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(folder / "notify"))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # says who
        end.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        yield end


def until_silent(inbox):
    inbox.settimeout(1)
    with pytest.raises(TimeoutError):
        for _ in range(100):
            inbox.recv(512)
    inbox.settimeout(20)


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
    until_silent(inbox)
    service.penstockd.process.signal(signal.SIGCONT)
    until_said(inbox, "WATCHDOG")


def ptrace(request, thread):
    """https://man7.org/linux/man-pages/man2/ptrace.2.html"""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, thread, None, None) != 0:
        pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")


def test_a_loop_that_stands_still_is_silent_though_the_process_lives(penstock, inbox, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    service = penstock(workers=[simulate()], yaml="state: state\n")
    until_said(inbox, "WATCHDOG")
    loop = service.penstockd.process.pid
    ptrace(PTRACE_SEIZE, loop)  # that thread alone
    ptrace(PTRACE_INTERRUPT, loop)
    until(lambda: state_of(f"{loop}/task/{loop}") == "t", "the loop stands still")
    others = [thread for thread in os.listdir(f"/proc/{loop}/task") if int(thread) != loop]
    until_silent(inbox)
    assert others and not {state_of(f"{loop}/task/{thread}") for thread in others} & {"t", "T"}
    ptrace(PTRACE_DETACH, loop)
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


def setting(unit, name):
    (value,) = re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.M)
    return value


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd is not installed")
def test_the_units_command_takes_the_socket_from_systemds_own_tool(penstock, inbox):
    service = penstock(start=False, workers=[simulate(slots=1)], server=HELD)
    daemon = service.penstockd
    here = {"/usr/sbin/penstockd": BUILD / "penstockd", "/etc/penstock/penstock.yaml": daemon.config,
            "/run/penstock/penstock.sock": daemon.socket}
    command = [here.get(word, word) for word in setting("penstockd.service", "ExecStart").split()]
    watched_us = int(setting("penstockd.service", "WatchdogSec").removesuffix("s")) * 1_000_000
    assert setting("penstockd.service", "Type") == "notify"
    daemon.start_by(["systemd-socket-activate", "-l", here[setting("penstockd.socket", "ListenStream")],
                     *(word for name in environment(service.folder) for word in ("-E", name)), "-E", f"WATCHDOG_USEC={watched_us}", *command])
    service.nginx.start(service.port)
    until(daemon.socket.exists, "it listens")
    assert service.complete().status == 200, "the first request starts it"
    assert inbox.recv(512) == b"READY=1\n"
    until_said(inbox, r"WATCHDOG=1\nSTATUS=.*1 of 1 workers ready\n")
    daemon.process.signal(signal.SIGTERM)
    until_said(inbox, "STOPPING=1\n")


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
    services = [folder / "penstockd.service", folder / "penstock-worker@.service"]
    for service in services:
        service.write_text(service.read_text().replace("/usr/sbin/", f"{BUILD}/"))
    units = list(map(str, folder.glob("penstock*")))
    (folder / "penstockd.service.wants").mkdir()  # as `systemctl enable`: its order is no circle
    (folder / "penstockd.service.wants" / "penstock-worker@gpu.service").symlink_to(folder / "penstock-worker@.service")
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"})
    ours = [line for line in said.stderr.splitlines() if "penstock" in line]
    assert said.returncode == 0 and not ours, said.stderr
    for service in services:
        scored = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(service)],
                                capture_output=True, text=True)
        assert scored.returncode == 0, scored.stdout[-400:]


def test_what_nginx_reads_stays_its_groups():
    """RuntimeDirectory= and StateDirectory= would give the socket and the results to `Group=` at each start (systemd.exec(5)), and
    @privileged has chown."""
    unit = (UNITS / "penstockd.service").read_text()
    made = {line.split()[1]: line.split()[3:5] for line in (UNITS / "tmpfiles.conf").read_text().splitlines()}
    assert not re.search(r"^(Runtime|State)Directory=", unit, re.M) and set(setting("penstockd.service", "ReadWritePaths").split()) == set(made)
    assert set(map(tuple, made.values())) == {(setting("penstockd.service", "User"), setting("penstockd.service", "SupplementaryGroups"))}
    assert re.findall(r"^SystemCallFilter=(.*)$", unit, re.M)[-1] == "@chown"


def test_penstockd_stops_first_and_lets_its_workers_finish():
    """What is started first is stopped last (systemd.unit(5), Before=)."""
    unit = (UNITS / "penstock-worker@.service").read_text()
    after = " ".join(re.findall(r"^After=(.*)$", unit, re.M)).split()
    assert setting("penstock-worker@.service", "Before") == "penstockd.service" and "penstockd.service" not in after
    assert "penstockd.socket" in after and setting("penstock-worker@.service", "PartOf") == "penstockd.service"


def test_a_workers_unit_is_bound_as_penstockds_and_sees_no_state():
    bound, worker = ({line for line in (UNITS / unit).read_text().split("# Nothing more than it needs")[1].split("[Install]")[0].splitlines()[1:]
                      if line and not line.startswith("#")} for unit in ("penstockd.service", "penstock-worker@.service"))
    assert bound - {"SystemCallFilter=@chown"} <= worker and any(line.startswith("DeviceAllow=char-nvidia") for line in bound)
    hidden = setting("penstock-worker@.service", "InaccessiblePaths")
    state = re.search(r"^state: (\S+)", (UNITS.parent / "penstock.yaml").read_text(), re.M)[1]
    assert f"-{state}" in hidden.split() and state in setting("penstockd.service", "ReadWritePaths").split()
    assert setting("penstock-worker@.service", "User") != setting("penstockd.service", "User")
