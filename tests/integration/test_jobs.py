"""The whole way of a job that outlives its request: promised, queued, seen, finished, fetched, cancelled; across restarts."""

import os
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
    return service.request("POST", "/v1/completions", {**ALICE, **dict(headers)}, body or BODY)


def get(service, path, who=ALICE):
    return service.request("GET", path, who)


def promise(service, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = post(service, {"Prefer": "respond-async", **headers})
    assert reply.status == 202, reply.body
    return reply


def job(service, id, who=ALICE):
    return get(service, f"/jobs/{id}", who).json()


def until_status(service, id, status):
    until(lambda: job(service, id)["status"] == status, lambda: f"{id} is {status}; it is {job(service, id)}")
    return job(service, id)


def test_a_202_says_where_to_look_and_the_result_is_there_in_the_end(jobs):
    service = jobs()
    reply = promise(service)
    said = reply.json()
    assert reply.headers["Location"] == f"/jobs/{said['id']}"
    assert reply.headers["Preference-Applied"] == "respond-async"
    assert reply.headers["Penstock-Job-Id"] == said["id"]
    done = until_status(service, said["id"], "completed")
    assert done["result_url"] == f"/jobs/{said['id']}/result"
    assert done["started_at"] and done["finished_at"]
    result = get(service, done["result_url"])
    assert result.status == 200
    assert result.json()["object"] == "text_completion"


def test_a_promise_survives_the_death_of_penstockd(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="300ms")])
    ids = [promise(service).json()["id"] for _ in range(3)]
    service.penstockd.kill()
    service.penstockd.start()
    for id in ids:
        until_status(service, id, "completed")


def test_the_same_key_runs_once(jobs):
    service = jobs()
    first = promise(service, Idempotency_Key='"a"').json()["id"]
    until_status(service, first, "completed")
    again = promise(service, Idempotency_Key='"a"')
    assert again.headers["Penstock-Duplicate"] == "true"
    assert again.json()["id"] == first
    waited = post(service, {"Idempotency-Key": '"a"'})
    assert waited.status == 200 and waited.headers["Penstock-Duplicate"] == "true"
    other = post(service, {"Idempotency-Key": '"a"'}, {**BODY, "prompt": "else"})
    assert other.status == 422


def test_concurrency_is_held_until_the_job_is_over(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="30s")])
    ids = [promise(service).json()["id"] for _ in range(3)]
    refused = post(service, {"Prefer": "respond-async"})
    assert refused.status == 429
    assert refused.json()["error"]["code"] == "concurrency_exceeded"
    for id in ids:
        assert service.request("DELETE", f"/jobs/{id}", headers=ALICE).status == 200
    until(lambda: get(service, "/quota").json()["concurrency"]["in_use"] == 0, "the leases came back")
    promise(service)


def test_nobody_sees_anothers_job(jobs):
    service = jobs()
    id = promise(service).json()["id"]
    bob = {"Authorization": "Bearer bob"}
    for part in ("", "/events", "/result"):
        assert get(service, f"/jobs/{id}{part}", bob).status == 404
    assert service.request("DELETE", f"/jobs/{id}", headers=bob).status == 404
    assert get(service, "/jobs", bob).json()["data"] == []
    assert [each["id"] for each in get(service, "/jobs").json()["data"]] == [id]


def test_events_come_as_they_happen(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="300ms")])
    id = promise(service).json()["id"]
    stream = get(service, f"/jobs/{id}/events")
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    names = [line[7:] for line in stream.text().splitlines() if line.startswith("event: ")]
    assert names[0] in ("queued", "processing") and names[-1] == "completed", names
    assert "processing" in names


def test_a_stop_leaves_promises_for_the_next_start(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="500ms")], yaml="drain_timeout: 0s\n")
    ids = [promise(service).json()["id"] for _ in range(3)]
    assert service.penstockd.stop() == 0
    service.penstockd.start()
    for id in ids:
        until_status(service, id, "completed")


def test_without_a_worker_promises_are_made_and_kept(jobs):
    service = jobs()
    for worker in service.penstockd.workers():
        os.kill(worker, signal.SIGSTOP)
    id = promise(service).json()["id"]
    for worker in service.penstockd.workers():
        os.kill(worker, signal.SIGCONT)
    until_status(service, id, "completed")
