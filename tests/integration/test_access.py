"""Who may do what on penstockd's socket: it is the kernel that says who connects."""

import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys

import pytest

from conftest import simulate
from processes import BUILD, environment
from waiting import until
from wire import CALLER, EDGE, GOODBYE, STATUS, TOOL, Connection, frame

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")

NOBODY, DAEMON, BIN = 65534, 1, 2  # as on every Debian
SERVER = "location / { penstock_pass gpu; }"

ASK = """
import sys; sys.path.insert(0, sys.argv[2])
from wire import HELLO, STATUS, Connection, frame
line = Connection(sys.argv[1], hello=False)
try:
    line.send(frame(HELLO, version=1, role=int(sys.argv[3])) + frame(STATUS, 1))
except BrokenPipeError:
    pass  # it has hung up, and what it said last is still to be read
kind, _, fields = line.receive_fields()
print(kind, fields.get("message", b"").decode())
"""


def says(service, user, role):
    """What penstockd says to a user who asks for the status in a role: the frame's type, and its message."""
    here = os.path.dirname(__file__)
    done = subprocess.run([sys.executable, "-c", ASK, service.penstockd.socket, here, str(role)], user=user, group=user,
                          extra_groups=[], capture_output=True, text=True, timeout=30, check=True)
    kind, _, message = done.stdout.strip().partition(" ")
    return int(kind), message


def ctl(service, user, *arguments):
    return subprocess.run([BUILD / "penstockctl", *arguments, "-s", service.penstockd.socket], user=user, group=user,
                          extra_groups=[], capture_output=True, text=True, timeout=30, env=environment(service.folder))


@pytest.fixture
def service(penstock, request):
    more = getattr(request, "param", "socket_group: daemon")
    service = penstock(server=SERVER, workers=[simulate(slots=1)], yaml=f"socket_mode: 0666\n{more}\n")
    service.folder.chmod(0o755)
    return service


def test_members_of_the_sockets_group_are_edges_and_no_operators(service):
    for role in CALLER, EDGE:
        kind, message = says(service, DAEMON, role)
        assert kind == GOODBYE and "STATUS is for tools" in message, "it was let in as what it is"
    kind, message = says(service, DAEMON, TOOL)
    assert kind == GOODBYE and f"uid {DAEMON}, pid" in message and "access.operators" in message


@pytest.mark.parametrize("order", [["status"], ["drain"], ["jobs"], ["pause", "default"]])
def test_who_is_no_operator_gives_no_orders_and_sees_no_jobs(service, order):
    done = ctl(service, DAEMON, *order)
    assert done.returncode == 1 and "is no operator" in done.stderr, done.stderr
    assert service.penstockd.queue().slots == 1, "nothing was drained"
    assert "is no operator" in service.penstockd.process.text(), "it is in the log"


def test_strangers_are_told_so_and_closed(service):
    for role in CALLER, EDGE, TOOL:
        kind, message = says(service, NOBODY, role)
        assert kind == GOODBYE and f"uid {NOBODY}, pid" in message


@pytest.mark.parametrize("service", ["access: { operators: [daemon], edges: [root], viewers: [bin] }"], indirect=True)
def test_access_names_operators_edges_and_viewers(service):
    assert says(service, DAEMON, TOOL)[0] == STATUS
    assert says(service, BIN, TOOL)[0] == STATUS
    assert ctl(service, DAEMON, "pause", "default").returncode == 0
    refused = ctl(service, BIN, "resume", "default")
    assert refused.returncode == 1 and "Viewers see the status" in refused.stderr
    assert ctl(service, BIN, "jobs").returncode == 0 and ctl(service, BIN, "dead", "list").returncode == 0
    log = service.penstockd.process.text()
    assert re.search(rf"\[info\] order uid={DAEMON} pid=\d+ deed=pause object=/queues/default outcome=done status=200\n", log)
    assert re.search(rf"\[warn\] order uid={BIN} pid=\d+ deed=resume object=/queues/default outcome=refused status=403\n", log)


def test_access_that_is_taken_away_ends_what_stands_on_it(service):
    kind, _ = says(service, NOBODY, TOOL)
    assert kind == GOODBYE
    config = service.penstockd.config.read_text()
    service.penstockd.config.write_text(config + "access: { operators: [nogroup] }\n")
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: says(service, NOBODY, TOOL)[0] == STATUS, "nobody is an operator now")


def test_who_says_nothing_is_sent_away(penstock):
    service = penstock(server=SERVER, workers=[simulate(slots=1)], limits={"hello_timeout": "200ms"})
    silent = Connection(service.penstockd.socket, hello=False)
    assert [kind for kind, *_ in silent.until_closed()] == [GOODBYE]
    until(lambda: f"pid {os.getpid()} was sent away: no HELLO came within 200ms" in service.penstockd.process.text(), "it is in the log")
    talker = Connection(service.penstockd.socket, role=TOOL)
    talker.send(frame(STATUS, 1))
    assert talker.receive()[0] == STATUS


def test_an_operator_is_let_in_when_all_places_are_taken(penstock):
    full = penstock(server=SERVER, workers=[simulate(slots=1)], limits={"max_connections": 3},
                    yaml="socket_mode: 0666\nsocket_group: daemon\n")
    full.folder.chmod(0o755)
    held = [Connection(full.penstockd.socket, role=CALLER) for _ in range(3)]
    until(lambda: json.loads(full.penstockd.status())["connections"] == 4, "three are there beside whoever asks")
    kind, message = says(full, DAEMON, CALLER)
    assert kind == GOODBYE and message == "too many connections"
    assert len(held) == 3


def test_a_log_that_nobody_reads_stops_nothing(folder):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    (folder / "p.yaml").write_text(f"socket: {folder}/p.sock\nworkers: []\n")
    daemon = subprocess.Popen([BUILD / "penstockd", "-c", folder / "p.yaml"], stdin=subprocess.DEVNULL, stdout=writer,
                              stderr=writer, env=environment(folder))
    try:
        until(lambda: (folder / "p.sock").exists(), "it listens")
        tool = Connection(folder / "p.sock", role=TOOL)
        tool.send(frame(STATUS, 1))
        assert tool.receive()[0] == STATUS, "it serves, though its first line has no place"
        os.read(reader, 4096)
        daemon.send_signal(signal.SIGHUP)
        said = b""
        while b"reloaded" not in said:
            said += os.read(reader, 4096)
        assert b"lines before this one were lost: the log was not read" in said
    finally:
        daemon.kill()
        daemon.wait()
        os.close(reader)
        os.close(writer)


def test_with_few_descriptors_connections_are_refused_and_files_can_still_be_opened(folder):
    (folder / "p.yaml").write_text(f"socket: {folder}/p.sock\nstate: {folder}/state\nworkers: []\n")
    out = open(folder / "out", "wb")
    daemon = subprocess.Popen([BUILD / "penstockd", "-c", folder / "p.yaml"], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                              env=environment(folder), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))
    try:
        until(lambda: (folder / "p.sock").exists(), "it listens")
        held = [Connection(folder / "p.sock", role=TOOL) for _ in range(100 + 16)]
        held[-1].send(frame(STATUS, 1))
        assert held[-1].receive()[0] == STATUS, "a half of 200, and those kept for operators"
        one_more = Connection(folder / "p.sock", hello=False)
        assert [kind for kind, *_ in one_more.until_closed()] == [GOODBYE]
        said = (folder / "out").read_text()
        assert "only 200 files may be open: 100 connections are taken" in said
        assert "out of descriptors" not in said
    finally:
        daemon.kill()
        daemon.wait()
