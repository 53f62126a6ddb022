"""penstockctl replay: what is over runs again, of this host's own jobs and of those that hosts share."""

import json
import re
import subprocess

import pytest

import wire
from conftest import simulate
from processes import BUILD
from shared_hosts import ALICE, BODY, SLOW, get, host, job, promise, redis, until_known, until_one_runs, until_status, worker  # noqa: F401
from waiting import until
from wire import Connection, frame

SERVER = "penstock_owner $http_authorization;\nlocation /v1/ { penstock_pass gpu; }\nlocation /jobs { penstock_jobs gpu; }\n"


def replay(service, *words):
    return subprocess.run([BUILD / "penstockctl", "replay", "--queue", "default", "--since", "1h", *words, "-s", service.penstockd.socket],
                          capture_output=True, text=True, timeout=60)


@pytest.fixture(params=["local", "shared"])
def service(request, penstock):
    """One host; its jobs are its own, or in Redis."""
    if request.param == "local":
        def build(*workers, **queue):
            return penstock(server=SERVER, workers=list(workers), yaml="state: state\n", queue={"keep_bodies": "7d", **queue})
    else:
        shared = request.getfixturevalue("host")

        def build(*workers, **queue):
            return shared(*workers, keep_bodies="7d", **queue)
    return build


def finished(service, count, **body):
    ids = []
    for _ in range(count):
        reply = until(lambda: (reply := service.request("POST", "/v1/completions", {**ALICE, "Prefer": "respond-async"}, {**BODY, **body})).status == 202
                      and reply, "it is taken")
        ids.append(reply.json()["id"])
    for id in ids:
        until(lambda: job(service, id)["status"] in ("completed", "failed"), "it is over")
    return ids


def listed(service, query=""):
    return get(service, "/jobs?limit=100" + query).json()["data"]


def test_what_is_done_runs_again_once(service):
    started = service(worker())
    ids = finished(started, 5)
    dry = replay(started, "--dry-run")
    assert dry.stdout.split() == [*ids, "5", "would", "run", "again"] and len(listed(started)) == 5
    done = replay(started, "--at-once", "2")
    assert done.stdout == "5 run again: 5 completed, 0 did not\n", done
    told = re.findall(r"order uid=\d+ pid=\d+ deed=replay object=/jobs/(\S+?)(?:\?\S*)? outcome=done", started.penstockd.process.text())
    assert set(told) == set(ids), "each is an order like others"
    again = listed(started)[:5]
    assert {each["label"] for each in again} == {f"replay of {id}" for id in ids} and len(listed(started)) == 10
    assert get(started, f"/jobs/{again[0]['id']}/result").status == 200


def test_a_replay_that_is_given_once_more_goes_on(service):
    started = service(worker())
    ids = finished(started, 3)
    api = json.loads(replay(started, "--json").stdout)
    assert (api["begun"], api["there"], api["completed"]) == (3, 0, 3)
    again = json.loads(replay(started, "--json").stdout)
    assert (again["begun"], again["there"]) == (0, 3), "neither what ran again nor its replays"
    assert sum(each.get("label") in {f"replay of {id}" for id in ids} for each in listed(started)) == 3
    assert json.loads(replay(started, "--json", "--run", "two").stdout)["begun"] == 3
    assert len(listed(started)) == 9


def test_a_replay_is_none_of_what_runs_again(service):
    started = service(worker())
    [id] = finished(started, 1)
    replay(started)
    mine, first = json.loads(subprocess.run([BUILD / "penstockctl", "jobs", "--json", "-s", started.penstockd.socket],
                                            capture_output=True, text=True, timeout=60).stdout)["data"]
    assert (mine["replay"], "replay" in first, first["id"]) == (True, False, id)
    operator = Connection(started.penstockd.socket, role=wire.TOOL)
    operator.send(frame(wire.ASK, id=1, method="POST", path=f"/jobs/{mine['id']}/replay"))
    kind = 0
    while kind not in (wire.DONE, wire.FAILED):
        kind, _, fields = operator.receive_fields()
    operator.close()
    assert (kind, fields["status"]) == (wire.FAILED, 409) and b"It is a replay itself" in fields["message"]


def test_what_failed_runs_by_another_model(service):
    started = service(worker(name="bad", failure_rate=1), worker(), attempts=1)
    ids = finished(started, 3, model="bad")
    assert all(job(started, id)["status"] == "failed" for id in ids)
    done = replay(started, "--status", "failed", "--model", "sim")
    assert done.stdout == "3 run again: 3 completed, 0 did not\n", done
    for _ in range(2):  # a replay that failed is made once more
        worse = json.loads(replay(started, "--status", "failed", "--model", "bad", "--json").stdout)
        assert (worse["begun"], worse["there"], worse["failed"]) == (3, 0, 3)
    assert {each["model"] for each in listed(started, "&status=completed")} == {"sim"}
    wrong = replay(started, "--status", "failed", "--model", "none")
    assert "3 are left: No worker of queue default serves model" in wrong.stdout, wrong


def test_a_queue_that_is_not_there_is_no_replay_of_nothing(service):
    started = service(worker())
    wrong, paused = (subprocess.run([BUILD / "penstockctl", *words, "-s", started.penstockd.socket], capture_output=True, text=True, timeout=60)
                     for words in (["replay", "--queue", "nope", "--since", "2h"], ["pause", "nope"]))
    assert (wrong.returncode, wrong.stdout) == (1, "") and wrong.stderr == paused.stderr, (wrong, paused)
    assert wrong.stderr == "penstockctl: There is no queue 'nope'. Queues: default.\n"
    assert replay(started).stdout == "0 run again: 0 completed, 0 did not\n"


def test_a_replay_lets_everybody_else_go_first(service, folder):
    """Both are in line before either is taken, the replays first."""
    log = folder / "runs"
    started = service(worker("20ms", run_log=log))

    def order(word):
        return subprocess.run([BUILD / "penstockctl", word, "default", "-s", started.penstockd.socket], check=True, capture_output=True)

    def ask_for(prompt):
        reply = until(lambda: (reply := started.request("POST", "/v1/work", {**ALICE, "Prefer": "respond-async"}, {"model": "sim", "prompt": prompt}))
                      .status == 202 and reply, "it is taken")
        return reply.json()["id"]

    def until_over(*ids):
        for id in ids:
            until(lambda: job(started, id)["status"] == "completed", "it is over")

    until_over(*(ask_for(f"again {n}") for n in range(3)))
    order("pause")
    running = subprocess.Popen([BUILD / "penstockctl", "replay", "--queue", "default", "--since", "1h", "-s", started.penstockd.socket],
                               stdout=subprocess.PIPE, text=True)
    until(lambda: sum(each["status"] == "queued" for each in listed(started)) == 3, "all three are in line")
    later = [ask_for(f"new {n}") for n in range(3)]
    assert [job(started, id)["position"] for id in later] == [1, 2, 3]
    before = len(log.read_text().splitlines())
    order("resume")
    assert running.communicate(timeout=30)[0].startswith("3 run again: 3 completed")
    until_over(*later)
    ran = [json.loads(line.split(" ", 1)[1])["prompt"] for line in log.read_text().splitlines()[before:]]
    assert ran == [f"{which} {n}" for which in ("new", "again") for n in range(3)]


def test_what_no_queue_keeps_does_not_run_again(penstock):
    started = penstock(server=SERVER, workers=[simulate(slots=1, service_time="1ms")], yaml="state: state\n")
    finished(started, 1)
    assert "1 are left: Nothing is kept of that job's body" in replay(started).stdout


def test_a_job_of_one_host_is_run_again_from_another(host):  # noqa: F811
    edge, gpu = host(keep_bodies="7d"), host(worker(), keep_bodies="7d")
    id = until_known(edge)
    until_status(gpu, id, "completed")
    assert replay(edge).stdout == "1 run again: 1 completed, 0 did not\n"


def test_when_what_is_kept_of_shared_jobs_has_its_time_it_is_gone_on_all_hosts(host, redis):  # noqa: F811
    edge, gpu = host(keep_bodies="7d"), host(worker(), keep_bodies="7d")
    first = until_known(edge)
    second = promise(edge).json()["id"]
    for id in (first, second):
        until_status(gpu, id, "completed")
        key = f"penstock:q1:{{default}}:j|{id}"
        assert 6 * 86_400_000 < redis.ask("PTTL", key) <= 7 * 86_400_000
        assert redis.ask("STRLEN", key) > len(json.dumps(BODY)), "its body is there as well"
    redis.ask("PEXPIRE", f"penstock:q1:{{default}}:j|{first}", 1)  # its time has come
    until(lambda: get(edge, f"/jobs/{first}").status == 404, "it is gone")
    for service in (edge, gpu):
        assert [each["id"] for each in listed(service)] == [second]
        assert replay(service, "--dry-run").stdout.split()[0] == second
    assert replay(gpu).stdout == "1 run again: 1 completed, 0 did not\n"


def test_what_no_shared_queue_keeps_does_not_run_again(host):  # noqa: F811
    gpu = host(worker())
    id = until_known(gpu)
    until_status(gpu, id, "completed")
    assert "1 are left: Nothing is kept of that job's body" in replay(gpu).stdout
