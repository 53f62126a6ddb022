"""penstock_zone ... file=PATH: what was counted outlives Nginx, however it ends."""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

import processes
from processes import Process, children, state_of
from waiting import until

LIMITED = "location / { penstock_limit zone=edge key=$arg_key rate=1r/h burst=5 name=a; empty_gif; }"


@pytest.fixture
def path(folder):
    return folder / "edge.zone"


@pytest.fixture
def durable(penstock, path):
    """A service whose zone is kept in `path`."""
    memories = set()

    def build(size="1m", file=path, **more):
        service = penstock(master=True, http=f"penstock_zone edge {size} file={file};", server=LIMITED, **more)
        service.memory = memory_of(service)
        memories.add(service.memory)
        return service

    yield build
    for left in memories:
        left.unlink(missing_ok=True)


def memory_of(service):
    """The zone's file in tmpfs; of a service, or a pid. It gets its name only after Nginx listens."""
    pid = service if isinstance(service, int) else service.nginx.process.pid

    def named():
        return re.search(r"/dev/shm/penstock-[0-9a-f]{16}$", Path(f"/proc/{pid}/maps").read_text(), re.M)
    return Path(until(named, "the zone's memory has its name")[0])


def gone(pid):
    return state_of(pid) in ("", "Z")


def kill_everything(service):
    """As when the machine runs out of memory, or loses its power."""
    master = service.nginx.process.pid
    pids = [master, *children(master)]
    os.kill(master, signal.SIGKILL)  # first, so that it starts no others
    for pid in pids[1:]:
        os.kill(pid, signal.SIGKILL)
    service.nginx.process.wait()
    until(lambda: all(gone(pid) for pid in pids), "every process has gone")


def stop(service):
    assert service.nginx.stop() == 0


def start(service):
    service.nginx.start(service.port)


def taken_ns(path):
    """The wall time of a snapshot."""
    try:
        return struct.unpack_from("<q", path.read_bytes(), 56)[0]
    except FileNotFoundError:
        return 0


def wait_for_snapshot(path):
    """Until there is one of everything counted so far. An older one is removed: Nginx makes another if none is there."""
    now = time.time_ns()

    def newer():
        if taken_ns(path) > now:
            return True
        path.unlink(missing_ok=True)
        return False
    until(newer, f"{path} is a new snapshot")


def change_zone(service, size, file=None):
    more = f" file={file}" if file else ""
    service.nginx.write_config(service.configuration(f"penstock_zone edge {size}{more};", LIMITED))


def lines(service, *words):
    return [line for line in service.nginx.log().splitlines() if all(word in line for word in words)]


def test_what_was_counted_outlives_a_kill_of_every_process(durable):
    service = durable()
    assert service.statuses(3, "/?key=k") == [200] * 3
    kill_everything(service)
    assert service.memory.stat().st_mode & 0o777 == 0o600
    start(service)
    assert service.statuses(3, "/?key=k") == [200, 200, 429]
    assert service.get("/?key=other").status == 200


def test_a_clean_stop_leaves_a_snapshot_and_no_memory(durable, path):
    service = durable()
    assert service.memory.exists()
    assert service.statuses(3, "/?key=k") == [200] * 3
    stop(service)
    assert not service.memory.exists()
    assert path.stat().st_mode & 0o777 == 0o600
    start(service)
    assert service.statuses(3, "/?key=k") == [200, 200, 429]


def test_a_reboot_costs_what_was_counted_since_the_last_snapshot(durable, path):
    service = durable()
    assert service.statuses(3, "/?key=k") == [200] * 3
    wait_for_snapshot(path)
    kill_everything(service)
    service.memory.unlink()
    start(service)
    assert service.statuses(3, "/?key=k") == [200, 200, 429]


def test_snapshots_go_on_when_the_memory_has_lost_its_name(durable, path):
    service = durable()
    service.memory.unlink()
    assert service.statuses(2, "/?key=k") == [200] * 2
    wait_for_snapshot(path)
    until(lambda: lines(service, "[warn]", "somebody has removed its file"), "that is told")
    assert service.get("/?key=k").status == 200
    stop(service)
    assert len(lines(service, "[warn]", "somebody has removed its file")) == 1
    start(service)
    assert service.statuses(3, "/?key=k") == [200, 200, 429]


@pytest.mark.parametrize("spoil, fault", [
    (lambda path: path.chmod(0o620), "others than its owner may write to it"),
    (lambda path: os.chown(path, 12345, -1), "it belongs to user 12345"),
], ids=["mode", "owner"])
def test_a_snapshot_that_others_may_have_written_is_not_used(durable, path, spoil, fault):
    if os.geteuid() != 0:
        pytest.skip("needs the right to give files away")
    service = durable()
    service.expected_alert = "cannot be read"
    assert service.statuses(5, "/?key=k") == [200] * 5
    stop(service)
    spoil(path)
    start(service)
    assert lines(service, "[alert]", fault, "all counters start anew")
    assert service.get("/?key=k").status == 200


@pytest.mark.parametrize("damage, fault", [
    (lambda good: good[:-1], "ends in the middle of a frame"),
    (lambda good: good[:100] + bytes([good[100] ^ 1]) + good[101:], "checksum is wrong"),
    (lambda good: b"", "ends before its last frame"),
    (lambda good: good + b"x", "something follows"),
], ids=["cut", "flipped", "empty", "long"])
def test_a_damaged_snapshot_is_set_aside_and_told(durable, path, damage, fault):
    service = durable()
    service.expected_alert = "is damaged"
    assert service.statuses(6, "/?key=k") == [200] * 5 + [429]
    stop(service)
    path.write_bytes(damage(path.read_bytes()))
    start(service)
    assert service.statuses(6, "/?key=k") == [200] * 5 + [429]
    assert len(lines(service, "[alert]", 'zone "edge"', fault, "all counters start anew")) == 1
    assert path.with_name("edge.zone.damaged").exists()
    wait_for_snapshot(path)


def test_a_damaged_snapshot_is_told_of_even_where_it_isnt_needed(durable, path):
    service = durable()
    service.expected_alert = "is damaged"
    assert service.statuses(5, "/?key=k") == [200] * 5
    kill_everything(service)
    path.write_bytes(b"nonsense" * 20)
    start(service)
    assert service.get("/?key=k").status == 429
    assert lines(service, "[alert]", "the counters still in memory are used")
    assert path.with_name("edge.zone.damaged").read_bytes() == b"nonsense" * 20


def test_a_snapshot_of_another_size_is_told_and_not_used(durable, path):
    service = durable()
    assert service.statuses(5, "/?key=k") == [200] * 5
    stop(service)
    change_zone(service, "2m", path)
    start(service)
    assert lines(service, "[warn]", 'zone "edge": its size was changed', "all counters start anew")
    assert service.statuses(6, "/?key=k") == [200] * 5 + [429]


def test_memory_of_another_size_is_told_and_not_used(durable, path):
    service = durable()
    assert service.statuses(5, "/?key=k") == [200] * 5
    kill_everything(service)
    change_zone(service, "2m", path)
    start(service)
    assert lines(service, "[warn]", "what the last run left in memory cannot be used")
    assert service.get("/?key=k").status == 200
    stop(service)
    start(service)
    assert service.statuses(5, "/?key=k") == [200] * 4 + [429]


@pytest.mark.parametrize("kept", [True, False], ids=["with a file", "without"])
def test_a_reload_with_another_size_says_that_counters_start_anew(penstock, path, kept):
    file = path if kept else None
    service = penstock(master=True, http="penstock_zone edge 1m;", server=LIMITED, start=False)
    change_zone(service, "1m", file)
    service.start()
    assert service.statuses(6, "/?key=k") == [200] * 5 + [429]
    change_zone(service, "1536k", file)
    service.nginx.reload()
    assert lines(service, "[warn]", 'zone "edge": its size was changed from 1m to 1536k: all counters start anew')
    assert service.statuses(6, "/?key=k") == [200] * 5 + [429]
    if kept:
        kill_everything(service)
        start(service)
        assert service.get("/?key=k").status == 429
        wait_for_snapshot(path)


def test_a_reload_keeps_counters_and_memory(durable, path):
    service = durable()
    memory = memory_of(service)
    inode = memory.stat().st_ino
    for _ in range(3):
        assert service.get("/?key=k").status == 200
        service.nginx.reload()
    assert service.statuses(3, "/?key=k") == [200, 200, 429]
    assert memory_of(service) == memory and memory.stat().st_ino == inode
    mappings = Path(f"/proc/{service.nginx.process.pid}/maps").read_text().count(str(memory))
    descriptors = [fd for fd in Path(f"/proc/{service.nginx.process.pid}/fd").iterdir() if os.readlink(fd) == str(memory)]
    assert mappings == 1 and len(descriptors) == 1
    wait_for_snapshot(path)


def test_a_refused_reload_changes_nothing(durable, path):
    service = durable()
    service.expected_alert = "bind()"
    memory = memory_of(service)
    assert service.statuses(3, "/?key=k") == [200] * 3
    good = service.nginx.config.read_text()
    busy = service.free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", busy))
        taken.listen()
        bad = good.replace("edge 1m", "edge 2m").replace("server {", f"server {{ listen 127.0.0.1:{busy};", 1)
        service.nginx.write_config(bad)
        service.nginx.process.signal(signal.SIGHUP)
        until(lambda: lines(service, "still could not bind()"), "the reload has failed")
    assert memory.exists() and not Path(f"{memory}.new").exists()
    service.nginx.write_config(good)
    kill_everything(service)
    start(service)
    assert service.statuses(3, "/?key=k") == [200, 200, 429]


def test_a_file_may_be_added_and_removed_by_a_reload(penstock, path):
    service = penstock(master=True, http="penstock_zone edge 1m;", server=LIMITED)
    assert service.statuses(2, "/?key=k") == [200] * 2
    change_zone(service, "1m", path)
    service.nginx.reload()
    assert lines(service, "[warn]", "keeps its memory until a restart")
    stop(service)
    start(service)
    memory = memory_of(service)
    assert service.statuses(2, "/?key=k") == [200] * 2
    change_zone(service, "1m", f"{path}2")
    service.nginx.reload()
    assert not memory.exists() and memory_of(service).exists()
    memory = memory_of(service)
    assert service.get("/?key=k").status == 200
    wait_for_snapshot(Path(f"{path}2"))
    change_zone(service, "1m")
    service.nginx.reload()
    assert not memory.exists()
    assert service.get("/?key=k").status == 429


def test_a_file_that_a_reload_removes_and_another_adds_again_is_written(durable, path):
    service = durable()
    assert service.statuses(3, "/?key=k") == [200] * 3
    change_zone(service, "1m")
    service.nginx.reload()
    assert not service.memory.exists()
    change_zone(service, "1m", path)
    service.nginx.reload()
    assert lines(service, "[error]", "was removed, and cannot be named")
    assert service.get("/?key=k").status == 200
    wait_for_snapshot(path)
    stop(service)
    start(service)
    assert service.statuses(2, "/?key=k") == [200, 429]


def test_a_folder_that_isnt_there_is_told_and_nginx_goes_on(durable, folder):
    path = folder / "gone" / "edge.zone"
    service = durable(file=path)
    until(lambda: lines(service, "[error]", "no snapshot", "No such file"), "the missing folder is told of")
    assert service.statuses(3, "/?key=k") == [200] * 3
    stop(service)
    assert lines(service, "[error]", "are left in", "for the next start")
    start(service)
    assert service.get("/?key=k").status == 200
    until(lambda: len(lines(service, "[error]", "no snapshot")) == 3, "it is told of again, by the new process")
    path.parent.mkdir()
    until(path.exists, "the snapshot is written once the folder is there")
    until(lambda: lines(service, "are written again"), "that is told")
    kill_everything(service)
    start(service)
    assert service.statuses(2, "/?key=k") == [200, 429]
    assert service.memory.exists()


def test_a_second_nginx_with_the_same_file_is_refused(durable, penstock, path):
    service = durable()
    second = penstock(master=True, http=f"penstock_zone edge 1m file={path};", server=LIMITED, start=False)
    process = Process(second.folder, "nginx", second.nginx._command())
    assert process.wait() != 0
    assert "are in use by another Nginx" in second.nginx.log()
    assert second.nginx.check()[0], "a test of the configuration touches nothing"
    assert service.get("/?key=k").status == 200


def test_a_test_of_the_configuration_leaves_the_counters_alone(durable, path):
    service = durable()
    assert service.statuses(3, "/?key=k") == [200] * 3
    accepted, _ = service.nginx.check()
    assert accepted
    assert service.statuses(3, "/?key=k") == [200, 200, 429]
    stop(service)
    path.write_bytes(b"damaged")
    service.nginx.check()
    assert path.read_bytes() == b"damaged"
    path.unlink()
    start(service)


class Upgrade:
    """A service's Nginx as a daemon, as others take no new binary, and then a second master beside the first."""

    def __init__(self, service):
        self._pid_file = service.folder / "nginx.pid"
        command = [str(part) for part in service.nginx._command()]
        command[0] = shutil.which(command[0], path=os.environ["PATH"] + ":/usr/sbin")  # Nginx starts itself by it
        command[-1] = "".join(f"env {name}_OPTIONS;" for name in ("ASAN", "UBSAN", "LSAN"))
        subprocess.run(command, check=True, env=processes.environment(service.folder))
        self.masters = []
        self.masters.append(until(self._master, "Nginx is a daemon"))

    def _master(self):
        """The pid of a master that is new, and has workers."""
        try:
            text = self._pid_file.read_text().strip()
        except FileNotFoundError:  # the old master has moved it away, the new one not yet written its own
            return None
        return int(text) if text and int(text) not in self.masters and children(int(text)) else None

    def begin(self):
        os.kill(self.masters[-1], signal.SIGUSR2)
        self.masters.append(until(self._master, "a new master has workers"))
        return self.masters[-1]

    def end(self, master):
        if not gone(master):
            os.kill(master, signal.SIGQUIT)
        until(lambda: gone(master), f"the master {master} has ended")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for master in self.masters:
            self.end(master)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_a_binary_upgrade_shares_the_counters(penstock, path, together):
    service = penstock(http=f"penstock_zone edge 1m file={path};", server=LIMITED, start=False)
    with Upgrade(service) as nginx:
        assert service.get("/?key=k").status == 200
        memory = memory_of(nginx.begin())
        assert service.statuses(2, "/?key=k") == [200] * 2
        if not together:
            nginx.end(nginx.masters[0])
            assert memory.exists(), "the new master goes on with it"
            assert service.get("/?key=k").status == 200
    assert not memory.exists()
    start(service)
    assert service.statuses(3, "/?key=k") == ([200, 200, 429] if together else [200, 429, 429])


def test_without_room_in_tmpfs_the_snapshot_still_serves(penstock, folder, path, monkeypatch):
    tiny = "mount -t tmpfs -o size=64k none /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", tiny], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    nginx = folder / "nginx"
    nginx.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{tiny} && exec {processes.NGINX} \"$@\"' sh \"$@\"\n")
    nginx.chmod(0o755)
    monkeypatch.setattr(processes, "NGINX", nginx)
    service = penstock(master=True, http=f"penstock_zone edge 1m file={path};", server=LIMITED)
    assert lines(service, "[warn]", "No space left", "a kill -9 of all processes will lose")
    assert service.statuses(3, "/?key=k") == [200] * 3
    wait_for_snapshot(path)
    kill_everything(service)
    start(service)
    assert service.get("/?key=k").status == 200
    stop(service)
    start(service)
    assert service.statuses(2, "/?key=k") == [200, 429]


def test_a_single_process_writes_when_it_ends(penstock, path):
    service = penstock(master=True, http=f"penstock_zone edge 1m file={path};", server=LIMITED, start=False)
    service.nginx._several = False
    service.start()
    assert lines(service, "[warn]", "master_process off")
    memory = memory_of(service)
    assert service.get("/?key=k").status == 200
    kill_everything(service)
    start(service)
    assert service.get("/?key=k").status == 200
    stop(service)
    assert path.exists() and not memory.exists()
    start(service)
    assert service.statuses(4, "/?key=k") == [200] * 3 + [429]


def test_what_another_user_has_in_the_way_of_the_memory_costs_only_that(durable, path):
    service = durable()
    assert service.get("/?key=k").status == 200
    stop(service)
    service.memory.mkdir()  # as what cannot be unlinked
    try:
        start(service)
        assert lines(service, "[warn]", "removing another user's", "a kill -9 of all processes will lose")
        assert service.get("/?key=k").status == 200
        stop(service)
    finally:
        service.memory.rmdir()
    start(service)
    assert service.statuses(4, "/?key=k") == [200] * 3 + [429]


def test_two_zones_in_one_file_are_refused(penstock, path):
    service = penstock(http=f"penstock_zone a 1m file={path};\npenstock_zone b 1m file={path};", start=False)
    accepted, said = service.nginx.check()
    assert not accepted and 'zones "a" and "b" have the same file=' in said
