"""Workers that others start: they connect to penstockd's socket, if their user may."""

import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import simulate
from processes import BUILD, environment
from test_jobs import jobs, post, promise, until_status  # noqa: F401 (jobs is a fixture)
from test_operator import ctl, said, workers  # noqa: F401 (fixtures)
from waiting import until

DAEMON = 1  # as on every Debian


def start(service, name="sim", slots=1, user=None, time="20ms"):
    return subprocess.Popen(
        [BUILD / "penstock-worker", "--connect", service.penstockd.socket, "--name", name, "--engine", "simulate", "--slots", str(slots),
         "--option", f"service_time={time}"],
        stderr=subprocess.PIPE, text=True, user=user, env=environment(service.folder))


@pytest.fixture
def service(jobs):  # noqa: F811
    return jobs(workers=[simulate(slots=2, external="true")], limits={"worker_grace": "0s"})


def test_it_serves_as_any_other_and_its_place_is_free_again_after_it(service, said):  # noqa: F811
    waiting = workers(service, said)[0]
    assert waiting["state"] == "waiting" and "started by others" in waiting["waits_for"]
    id = promise(service).json()["id"]
    first = start(service, time="5000ms")
    until_status(service, id, "processing")
    assert workers(service, said)[0]["state"] == "ready"
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start(service)
    assert until_status(service, id, "completed")["attempts"] == 1
    third = start(service)
    assert "all the processes that it may have" in third.stderr.read(), "there is one place"
    assert third.wait(10) == 0
    second.send_signal(signal.SIGTERM)
    assert second.wait(10) == 0, "it ends when it is told"


def test_one_that_an_operator_has_drained_says_that_it_is_not_to_be_started_again(service, said):  # noqa: F811
    unit = (Path(__file__).parents[2] / "config/systemd/penstock-worker@.service").read_text()
    drained = int(re.search(r"^RestartPreventExitStatus=(\d+)$", unit, re.M)[1])
    assert f"SuccessExitStatus={drained}\n" in unit
    id = promise(service).json()["id"]
    worker = start(service, time="500ms")
    until_status(service, id, "processing")
    said(service, "drain", "sim")
    assert worker.wait(10) == drained and "penstockctl scale" in worker.stderr.read()
    assert until_status(service, id, "completed")["attempts"] == 0
    too_early = start(service)  # as at the next boot
    assert too_early.wait(10) == drained and "penstockctl scale" in too_early.stderr.read()
    said(service, "scale", "sim", "1")
    back = start(service)
    until(lambda: workers(service, said)[0]["state"] == "ready", "it serves again")
    said(service, "scale", "sim", "0")
    assert back.wait(10) == drained


def test_one_that_a_reload_changes_is_to_be_started_again(service, said):  # noqa: F811
    worker = start(service)
    until(lambda: workers(service, said)[0]["state"] == "ready", "it serves")
    config = service.penstockd.config
    config.write_text(config.read_text().replace("slots: 2", "slots: 1"))
    service.penstockd.process.signal(signal.SIGHUP)
    assert worker.wait(10) == 0


def test_a_stop_lets_it_finish(jobs):  # noqa: F811
    service = jobs(workers=[simulate(slots=2, external="true")])
    worker = start(service, time="1000ms")
    answers = []
    asks = threading.Thread(target=lambda: answers.append(post(service).status))
    asks.start()
    service.penstockd.wait_for(running=1)
    service.penstockd.process.signal(signal.SIGTERM)
    asks.join(20)
    assert answers == [200] and worker.wait(10) == 0


def test_a_name_that_is_not_external_is_no_place(service):
    stranger = start(service, name="other")
    assert "no worker 'other' with external: true" in stranger.stderr.read()
    stranger.wait(10)


def test_it_loads_its_model_before_it_connects(folder):
    """penstockd waits `hello_timeout` for a HELLO, and a model may take minutes."""
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(folder / "socket"))
        place.listen()
        place.setblocking(False)
        done = subprocess.run([BUILD / "penstock-worker", "--connect", folder / "socket", "--name", "gpu", "--engine", "llama", "--model", folder / "none"],
                              capture_output=True, text=True, env=environment(folder), timeout=20)
        assert done.returncode == 1 and str(folder / "none") in done.stderr, done
        with pytest.raises(BlockingIOError):
            place.accept()


def test_a_socket_that_it_cannot_come_to_is_told_of_at_once(folder):
    done = subprocess.run([BUILD / "penstock-worker", "--connect", folder / "away", "--name", "gpu", "--engine", "llama", "--model", folder / "none"],
                          capture_output=True, text=True, env=environment(folder), timeout=20)
    assert done.returncode == 2 and str(folder / "away") in done.stderr, done


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_its_user_must_be_one_that_may(jobs, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=2, external="true")], yaml="socket_mode: 0666\nsocket_group: daemon\n")
    service.folder.chmod(0o755)
    stranger = start(service, user=DAEMON)
    assert "may be no worker; `access.workers` names who may" in stranger.stderr.read()
    stranger.wait(10)
    service = jobs(workers=[simulate(slots=2, external="true")], yaml="socket_mode: 0666\naccess: { workers: [daemon] }\n")
    service.folder.chmod(0o755)
    welcome = start(service, user=DAEMON)
    until(lambda: workers(service, said)[0]["state"] == "ready", "it serves")
    welcome.kill()
    welcome.wait()
