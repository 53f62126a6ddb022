"""What every process of a worker is bound by: its rights, its cores, who goes first when memory is out; and that it ends whole."""

import os
import pwd
import re
import signal
from pathlib import Path

import pytest

from conftest import simulate
from processes import BUILD, children, state_of
from test_devices import gpus  # noqa: F401 (a fixture)
from upgrading import ctl
from waiting import until

PROGRAM = """\
import json, sys
print(json.dumps({"penstock": 1}), json.dumps({"ready": True}), sep="\\n", flush=True)
for line in sys.stdin: pass
"""
WITH_CORES = ["bash", "-c", 'ulimit -Sc hard; exec "$@"', "bash"]


def oom_score(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def bounds(pid):
    """(no new rights, cores of no size for good, its turn when memory is out)"""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return (re.search(r"^NoNewPrivs:\t1$", Path(f"/proc/{pid}/status").read_text(), re.M) is not None,
            re.search(r"^Max core file size +0 +0 ", limits, re.M) is not None, oom_score(pid))


def guarded(worker):
    """The guard of its one program, and that program."""
    (guard,) = until(lambda: children(worker), "its guard is there")
    (program,) = until(lambda: [child for child in children(guard) if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"/usr/bin/python3\0")],
                       "its program runs")
    return guard, program


def engine_of(pid):
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return words[words.index("--engine") + 1] if "--engine" in words else words[1]


def test_no_process_of_a_worker_gains_rights_or_leaves_a_core_or_outlives_penstockd(penstock, folder, gpus):  # noqa: F811
    (folder / "program.py").write_text(PROGRAM)
    service = penstock(start=False, workers=[
        simulate(slots=1), dict(name="program", engine="process", command=f"[/usr/bin/python3, {folder}/program.py]", model="p", slots=1)])
    service.penstockd.start_by([*WITH_CORES, BUILD / "penstockd", "-c", service.penstockd.config])
    service.penstockd.wait_for(slots=2)
    workers = until(lambda: (lambda found: found if len(found) == 3 else None)({engine_of(pid): pid for pid in service.penstockd.workers()}),
                    "two work, and one looks at devices")
    assert set(workers) == {"simulate", "process", "--watch-devices"}
    daemon = oom_score(service.penstockd.process.pid)
    for engine, pid in workers.items():
        assert bounds(pid) == (True, True, max(daemon, 250)), engine
    guard, program = guarded(workers["process"])
    assert bounds(guard) == (True, True, max(daemon, 250))
    assert bounds(program) == (True, True, 500)
    assert daemon < 250


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_program_of_another_user_takes_the_capabilities_that_the_chapter_names_and_has_none(penstock, folder):
    chapter = (Path(__file__).parents[2] / "docs/ENGINES.md").read_text()
    names = re.findall(r"CAP_(\w+)", re.search(r"`user: penstock-worker` .*?\n\n", chapter, re.S)[0])
    assert len(names) == 5
    (folder / "program.py").write_text(PROGRAM)
    service = penstock(start=False, workers=[dict(name="program", engine="process", command=f"[/usr/bin/python3, {folder}/program.py]", model="p",
                                                  slots=1, user="games", scratch=folder / "scratch")])
    for path in (service.folder, folder / "scratch"):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
    capabilities = ",".join(["-all", *(f"+{name.lower()}" for name in names)])
    service.penstockd.start_by([
        "setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups", "--no-new-privs", f"--inh-caps={capabilities}",
        f"--ambient-caps={capabilities}", f"--bounding-set={capabilities}", BUILD / "penstockd", "-c", service.penstockd.config])
    service.penstockd.wait_for(slots=1)
    (worker,) = service.penstockd.workers()
    _, program = guarded(worker)
    told = dict(re.findall(r"^(\w+):\t(.*)$", Path(f"/proc/{program}/status").read_text(), re.M))
    assert told["Uid"].split() == [str(pwd.getpwnam("games").pw_uid)] * 4
    assert {int(told[name], 16) for name in ("CapEff", "CapPrm", "CapAmb")} == {0}
    assert service.penstockd.stop() == 0
    until(lambda: state_of(program) in ("Z", ""), "it has ended")


def killed(service, worker):
    os.kill(worker, signal.SIGKILL)


def hangs(service, worker):
    os.kill(worker, signal.SIGSTOP)


def drained(service, worker):
    assert ctl(service, "drain", "sim").returncode == 0


@pytest.mark.parametrize("end", [killed, hangs, drained])
def test_what_a_worker_leaves_behind_ends_with_it(penstock, folder, end):
    """A library's helper, say: it has the worker's group, and its socket."""
    wrapper = folder / "worker"
    wrapper.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! >{folder}/stray.$$\nexec {BUILD}/penstock-worker \"$@\"\n")
    wrapper.chmod(0o755)
    service = penstock(start=False, workers=[simulate(slots=1)], limits={"heartbeat_timeout": "2s"})
    config = service.penstockd.config
    config.write_text(config.read_text().replace(f"{BUILD}/penstock-worker", str(wrapper)))
    service.penstockd.start()
    service.penstockd.wait_for(slots=1)
    (worker,) = service.penstockd.workers()
    stray = int((folder / f"stray.{worker}").read_text())
    assert state_of(stray) == "S" and os.getpgid(stray) == worker
    end(service, worker)
    until(lambda: {state_of(pid) for pid in (worker, stray)} <= {"Z", ""}, "both have ended")
