"""The whole way of a job that outlives its request: promised, queued, seen, finished, fetched, cancelled; across restarts."""

import json
import signal

import pytest

from conftest import simulate
from waiting import until

HTTP = """\
penstock_zone edge 1m;
penstock_tier free { rate 1000r/s; concurrency 3; }
"""
SERVER = """\
penstock_owner $http_authorization;
location /v1/ { penstock_limit zone=edge key=$http_authorization tier=free; penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
location = /quota { penstock_quota; }
"""
ALICE = {"Authorization": "Bearer alice"}
BODY = {"model": "sim", "prompt": "Tell me", "max_tokens": 8}


@pytest.fixture
def jobs(penstock):
    def start(**more):
        options = dict(http=HTTP, server=SERVER, workers=[simulate(slots=1, service_time="20ms")])
        options.update(more)
        options["yaml"] = "state: state\n" + options.get("yaml", "")
        return penstock(**options)
    return start


def post(service, headers=(), body=None):
    return service.post("/v1/completions", json.dumps(body or BODY), {**ALICE, "Content-Type": "application/json", **dict(headers)})


def promise(service, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = post(service, {"Prefer": "respond-async", **headers})
    assert reply.status == 202, reply.body
    return reply


def job(service, id, who=ALICE):
    return json.loads(service.get(f"/jobs/{id}", who).body)


def until_status(service, id, status):
    until(lambda: job(service, id)["status"] == status, lambda: f"{id} is {status}; it is {job(service, id)}")
    return job(service, id)


def test_a_202_says_where_to_look_and_the_result_is_there_in_the_end(jobs):
    service = jobs()
    reply = promise(service)
    said = json.loads(reply.body)
    assert reply.headers["Location"] == f"/jobs/{said['id']}"
    assert reply.headers["Preference-Applied"] == "respond-async"
    assert reply.headers["Penstock-Job-Id"] == said["id"]
    done = until_status(service, said["id"], "completed")
    assert done["result_url"] == f"/jobs/{said['id']}/result"
    assert done["started_at"] and done["finished_at"]
    result = service.get(done["result_url"], ALICE)
    assert result.status == 200
    assert json.loads(result.body)["object"] == "text_completion"


def test_a_promise_survives_the_death_of_penstockd(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="300ms")])
    ids = [json.loads(promise(service).body)["id"] for _ in range(3)]
    service.penstockd.kill()
    service.penstockd.expect_death = False
    service.penstockd.start()
    for id in ids:
        until_status(service, id, "completed")


def test_the_same_key_runs_once(jobs):
    service = jobs()
    first = json.loads(promise(service, Idempotency_Key='"a"').body)["id"]
    until_status(service, first, "completed")
    again = promise(service, Idempotency_Key='"a"')
    assert again.headers["Penstock-Duplicate"] == "true"
    assert json.loads(again.body)["id"] == first
    waited = post(service, {"Idempotency-Key": '"a"'})
    assert waited.status == 200 and waited.headers["Penstock-Duplicate"] == "true"
    other = post(service, {"Idempotency-Key": '"a"'}, {**BODY, "prompt": "else"})
    assert other.status == 422


def test_concurrency_is_held_until_the_job_is_over(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="30s")])
    ids = [json.loads(promise(service).body)["id"] for _ in range(3)]
    refused = post(service, {"Prefer": "respond-async"})
    assert refused.status == 429
    assert json.loads(refused.body)["error"]["code"] == "concurrency_exceeded"
    for id in ids:
        assert service.request("DELETE", f"/jobs/{id}", headers=ALICE).status == 200
    until(lambda: json.loads(service.get("/quota", ALICE).body)["concurrency"]["in_use"] == 0, "the leases came back")
    promise(service)


def test_nobody_sees_anothers_job(jobs):
    service = jobs()
    id = json.loads(promise(service).body)["id"]
    bob = {"Authorization": "Bearer bob"}
    for part in ("", "/events", "/result"):
        assert service.get(f"/jobs/{id}{part}", bob).status == 404
    assert service.request("DELETE", f"/jobs/{id}", headers=bob).status == 404
    assert json.loads(service.get("/jobs", bob).body)["data"] == []
    assert [each["id"] for each in json.loads(service.get("/jobs", ALICE).body)["data"]] == [id]


def test_events_come_as_they_happen(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="300ms")])
    id = json.loads(promise(service).body)["id"]
    stream = service.get(f"/jobs/{id}/events", ALICE)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    names = [line[7:] for line in stream.body.decode().splitlines() if line.startswith("event: ")]
    assert names[0] in ("queued", "processing") and names[-1] == "completed", names
    assert "processing" in names


def test_a_stop_leaves_promises_for_the_next_start(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="500ms")], yaml="drain_timeout: 0s\n")
    ids = [json.loads(promise(service).body)["id"] for _ in range(3)]
    assert service.penstockd.stop() == 0
    service.penstockd.start()
    for id in ids:
        until_status(service, id, "completed")


def test_without_a_worker_promises_are_made_and_kept(jobs):
    service = jobs()
    for worker in service.penstockd.workers():
        import os
        os.kill(worker, signal.SIGSTOP)
    id = json.loads(promise(service).body)["id"]
    for worker in service.penstockd.workers():
        os.kill(worker, signal.SIGCONT)
    until_status(service, id, "completed")
