"""An upgrade as the unit has it: under a service manager, and from one version to another."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
from pathlib import Path

from conftest import simulate
from processes import BUILD
from test_systemd import Holder, inbox  # noqa: F401 (inbox is a fixture)
from upgrading import SERVER, Asked, ctl, gated, serve, text, upgraded  # noqa: F401 (gated and serve are fixtures)
from waiting import until


def hear(inbox, words, pid):  # noqa: F811
    """The next of what is said, until one fits; all of it comes from that process."""
    heard = []
    while not heard or not re.search(words, heard[-1]):
        said, ancillary, *_ = inbox.recvmsg(512, socket.CMSG_SPACE(struct.calcsize("3i")))
        heard.append(said.decode())
        assert struct.unpack("3i", ancillary[0][2])[0] == pid, said
    return heard


def sockets(pid):
    return {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}


def told(pid):
    """What a service manager says to whom it starts, as it stands in the environment."""
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return [word for word in words if word.startswith(("NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_", "PENSTOCK_HAND_OVER="))]


def test_the_service_manager_sees_the_same_process_reload(penstock, gated, inbox, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    service = penstock(start=False, server=SERVER, workers=[gated.worker()], yaml="state: state\n")
    holder = Holder(service.penstockd)
    holder.start()
    service.nginx.start(service.port)
    pid = service.penstockd.process.pid
    hear(inbox, r"STATUS=0 jobs; 1 of 1 workers ready", pid)
    held = f"socket:[{os.fstat(holder.socket.fileno()).st_ino}]"
    assert held in sockets(pid)
    gated.let(1)
    asked = Asked(service, "a", 3)
    until(lambda: asked.lines == ["a 0"], "it streams")
    for upgrades in (1, 2):
        service.penstockd.process.signal(signal.SIGUSR2)
        before = hear(inbox, "RELOADING=1", pid)
        assert re.fullmatch(r"WATCHDOG=1\nWATCHDOG_USEC=300000000\n", before[-2]), "it may stand still as long as at a start"
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+\n", before[-1])
        assert hear(inbox, "READY=1", pid)[-2:] == ["WATCHDOG=1\nWATCHDOG_USEC=400000\n", "READY=1\n"]
        for _ in range(3):
            assert "STOPPING" not in hear(inbox, "WATCHDOG=1", pid)[-1]
        assert upgraded(service) == upgrades and held in sockets(pid)
        gated.let(1 + upgrades)
        until(lambda: len(asked.lines) == 1 + upgrades, "the stream goes on")
    asked.whole("a", 3)
    # Who is started afterwards knows nothing of it.
    (worker,) = service.penstockd.workers()
    os.kill(worker, signal.SIGKILL)
    (another,) = until(lambda: [each for each in service.penstockd.workers() if each != worker
                                and Path(f"/proc/{each}/comm").read_text() == "penstock-worker\n"], "it is started again")
    assert told(another) == []
    service.penstockd.process.signal(signal.SIGHUP)
    hear(inbox, "RELOADING=1", pid)
    hear(inbox, "READY=1", pid)
    assert service.penstockd.stop() == 0
    assert "STOPPING=1\n" in hear(inbox, "STOPPING", pid)
    assert service.penstockd.socket.exists(), "it is the manager's"
    holder.socket.close()


def version_of(program):
    return subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]


def test_one_version_takes_over_from_another_and_back(serve, gated):  # noqa: F811
    service = serve(gated.worker(), yaml="state: state\n")
    gated.let(1)
    asked = Asked(service, "v", 3)
    until(lambda: asked.lines == ["v 0"], "it streams")
    here, following = BUILD / "penstockd", BUILD / "penstockd_next"
    for lines, old, new in ((2, here, following), (3, following, here)):
        link = service.folder / "link"
        link.symlink_to(new)
        link.rename(service.program)
        done = ctl(service, "upgrade")
        was, now = version_of(old), version_of(new)
        assert done.returncode == 0 and was != now, done
        assert done.stdout.splitlines()[-1].startswith(f"upgraded from version {was} to {now}: "), done.stdout
        assert f"upgraded from {was} to {now}: " in text(service)
        assert json.loads(ctl(service, "status", "--json").stdout)["version"] == now
        assert Path(os.readlink(f"/proc/{service.penstockd.process.pid}/exe")) == new
        gated.let(lines)
        until(lambda: len(asked.lines) == lines, "the stream goes on")
    asked.whole("v", 3)
    assert gated.runs() == ["v"]
