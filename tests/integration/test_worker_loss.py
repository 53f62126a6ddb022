"""Whose fault it is when a worker ends: an order's, a request's, a step's, or penstockd's own."""

import json
import re
import signal
import time

from conftest import simulate
from test_jobs import ALICE, BODY, HTTP, SERVER, job, jobs, post, promise, until_status  # noqa: F401 (jobs is a fixture)
from test_operator import ctl, said  # noqa: F401 (fixtures)
from waiting import until
from wire import STATUS, TOOL, Connection, frame

MANY = HTTP.replace("concurrency 3;", "concurrency 500;")


def worker(service):
    return json.loads(service.penstockd.status())["workers"][0]


def reconfigure(service, before, after):
    config = service.penstockd.config
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))
    service.penstockd.process.signal(signal.SIGHUP)


def test_three_reloads_over_a_busy_worker_are_no_attempt(jobs):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="2s", memory="1MiB")], yaml="drain_timeout: 0s\n")
    id = promise(service).json()["id"]
    for reload in range(3):
        until_status(service, id, "processing")
        old = worker(service)["pid"]
        reconfigure(service, f"memory: {reload + 1}MiB", f"memory: {reload + 2}MiB")
        until(lambda: worker(service)["state"] == "ready" and worker(service)["pid"] != old, "another process is ready")
    done = until_status(service, id, "completed")
    assert done["attempts"] == 0
    assert json.loads(service.penstockd.status())["state"]["dead_letters"] == 0


def test_a_request_that_crashes_its_worker_dies_alone(jobs):  # noqa: F811
    service = jobs(workers=[simulate(slots=4, service_time="300ms", crash_on="poison")], http=MANY)
    good = [promise(service).json()["id"] for _ in range(2)]
    poison = promise(service, {"model": "sim", "prompt": "poison"}).json()["id"]
    good.append(promise(service).json()["id"])
    dead = until_status(service, poison, "failed")
    assert dead["attempts"] == 3 and "signal 9" in dead["error"]["message"]
    for id in good:
        assert until_status(service, id, "completed")["attempts"] == 0
    assert service.penstockd.process.text().count("was killed by signal 9") <= 2 + 3


def test_a_step_that_takes_long_is_no_crash(jobs, folder):  # noqa: F811
    faults = folder / "faults"
    service = jobs(workers=[simulate(slots=1, service_time="1ms", device=0, faults=faults)], limits={"heartbeat_timeout": "2s"})
    pid = worker(service)["pid"]
    faults.write_text("0 slow\n")
    id = promise(service).json()["id"]
    until(lambda: worker(service)["step_ms"] > 3000, "its step takes longer than heartbeat_timeout")
    faults.unlink()
    assert until_status(service, id, "completed")["attempts"] == 0
    assert worker(service)["pid"] == pid
    until(lambda: worker(service)["step_ms"] == 0, "it is between steps again")


def test_a_step_that_never_ends_is_found(jobs, folder):  # noqa: F811
    faults = folder / "faults"
    service = jobs(workers=[simulate(slots=1, service_time="1ms", device=0, faults=faults)], limits={"step_timeout": "2s"})
    pid = worker(service)["pid"]
    faults.write_text("0 hang\n")
    id = promise(service).json()["id"]
    log = service.penstockd.process.text
    until(lambda: "worker sim: its engine took longer than limits.step_timeout, 2s, for one step; killing process" in log(),
          "it is killed")
    faults.unlink()
    assert until_status(service, id, "completed")["attempts"] == 1
    assert worker(service)["pid"] != pid


def test_what_penstockd_slept_through_is_held_against_nobody(jobs):  # noqa: F811
    """More callers are ready when it wakes than it hears in one round, and the worker's answer behind them."""
    service = jobs(workers=[simulate(slots=1, service_time="1s")], queue={"deadline": "2s"}, limits={"heartbeat_timeout": "2s"})
    pid = worker(service)["pid"]
    callers = [Connection(service.penstockd.socket, role=TOOL) for _ in range(700)]
    id = promise(service).json()["id"]
    until_status(service, id, "processing")
    service.penstockd.process.signal(signal.SIGSTOP)
    for caller in callers:
        caller.send(frame(STATUS))
    time.sleep(4)  # the stall itself
    service.penstockd.process.signal(signal.SIGCONT)
    assert until_status(service, id, "completed")["attempts"] == 0
    log = service.penstockd.process.text()
    assert "penstockd did not run for" in log
    assert "gave no sign of life" not in log and "the clock was stepped" not in log
    assert worker(service)["pid"] == pid
    for caller in callers:
        caller.close()


def test_of_a_paused_queue_no_time_is_told(jobs, said):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="20ms")], server="""\
        location /v1/ { penstock_pass gpu; }
        location /jobs { penstock_jobs gpu; }
        location /short/ { penstock_max_wait 2s; penstock_pass gpu; }
        location = /metrics { penstock_metrics gpu; }
        """)
    for _ in range(3):
        assert post(service).status == 200
    said(service, "pause", "default")
    first, second = (promise(service).json() for _ in range(2))
    assert (first["eta_seconds"], second["position"], second["eta_seconds"]) == (None, 2, None)
    assert job(service, second["id"])["eta_seconds"] is None
    refused = service.complete("/short/completions")
    assert refused.status == 503 and refused.headers["Retry-After"] == "60" and refused.json()["error"]["code"] == "busy"
    assert "paused" in refused.text()
    assert json.loads(service.penstockd.status())["queues"][0]["predicted_wait_ms"] is None
    until(lambda: re.search(r'^penstock_queue_predicted_wait_seconds{[^}]*} \+Inf$', service.get("/metrics").text(), re.M), "the edge knows")
    said(service, "resume", "default")
    for each in (first, second):
        until_status(service, each["id"], "completed")


def test_of_a_model_that_cannot_be_loaded_callers_are_told_so(penstock):
    service = penstock(server="location / { penstock_pass gpu; }", limits={"worker_grace": "0s"},
                       workers=[dict(name="sim", engine="llama", model="nowhere/sim", slots=1)], ready=False)
    until(lambda: "next start in" in service.penstockd.process.text(), "it does not come up")
    told = until(lambda: (reply := service.complete()).status == 503 and "loaded" in reply.text() and reply, "callers are told")
    assert int(told.headers["Retry-After"]) >= 10 and told.json()["error"]["code"] == "busy"


def test_dead_letters_whose_queue_is_gone_are_left_and_said(jobs, said, ctl):  # noqa: F811
    service = jobs(workers=[simulate(slots=1, service_time="1ms", failure_rate="1")], queue={"attempts": 1},
                   server=SERVER + "location /old/ { penstock_pass gpu queue=old; }")

    def into_old():
        return service.request("POST", "/old/completions", {**ALICE, "Prefer": "respond-async"}, BODY)

    def configure(text):
        config.write_text(text)
        service.penstockd.process.signal(signal.SIGHUP)

    config = service.penstockd.config
    text = config.read_text()
    kept = promise(service).json()["id"]
    until_status(service, kept, "failed")
    configure(text.replace("workers:", "  old: { attempts: 1 }\nworkers:").replace("failure_rate: 1", "failure_rate: 1, queue: old"))
    until(lambda: worker(service)["queue"] == "old" and worker(service)["state"] == "ready", "the worker is of queue old")
    gone = into_old().json()["id"]
    until_status(service, gone, "failed")
    configure(text.replace("failure_rate: 1", "failure_rate: 0"))
    until(lambda: worker(service)["queue"] == "default" and worker(service)["state"] == "ready", "queue old is gone")
    done = ctl(service, "dead", "requeue", "--all")
    assert done.returncode == 1
    assert f"{gone} is left: Its queue 'old' is not there any more" in done.stderr and "1 dead letter queued again" in done.stderr
    until_status(service, kept, "completed")
    assert into_old().status == 404, "nothing is promised into a queue that is gone"
