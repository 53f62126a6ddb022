"""What a caller asks for: to have started, or to be done, within so many seconds; and what it is told of a wait."""

import re
import threading

import pytest

from conftest import simulate
from structured import parse_list
from test_waiting_stream import occupy
from waiting import until

SERVER = """
    penstock_owner $http_authorization;
    location /v1/ { penstock_limit zone=edge key=$binary_remote_addr rate=1r/h burst=9 name=a; penstock_pass gpu; }
    location /jobs { penstock_jobs gpu; }
"""
ALICE = {"Authorization": "Bearer alice"}


@pytest.fixture
def service(penstock):
    """One slot, whose jobs are known to take a second."""
    service = penstock(http="penstock_zone edge 1m;", server=SERVER, yaml="state: state", workers=[simulate(slots=1, service_time="1s")])
    assert service.complete().status == 200
    return service


def left(reply):
    return parse_list(reply.headers["RateLimit"])[0][1]["r"]


@pytest.mark.parametrize("name", ["Penstock-Finish-Within", "Cancel-After", "X-Stainless-Read-Timeout"])
def test_what_would_be_late_is_refused_at_once_and_costs_nothing(service, name):
    before = left(service.complete())
    refused = service.complete(headers={name: "0.5"})
    assert refused.status == 503
    assert refused.json()["error"]["code"] == "busy"
    assert re.fullmatch(r"Such a job takes \d s once it has started, longer than was asked for\.", refused.json()["detail"])
    assert int(refused.headers["Retry-After"]) >= 1
    assert left(service.complete(headers={name: "30"})) == before - 1


def test_of_several_the_smallest_counts(service):
    assert service.complete(headers={"Penstock-Finish-Within": "30", "Cancel-After": "0.5"}).status == 503


def test_an_sdks_timeout_says_nothing_of_a_stream_or_a_promise(service):
    assert service.stream(headers={"X-Stainless-Read-Timeout": "0.5"}).status == 200
    assert service.complete(headers={"X-Stainless-Read-Timeout": "0.5", "Prefer": "respond-async"}).status == 202
    assert service.complete(headers={"X-Stainless-Read-Timeout": "None"}).status == 200


def test_what_has_not_started_in_time_is_dropped_and_costs_nothing(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=SERVER, workers=[simulate(slots=1, service_time="20s")])
    occupy(service)  # nothing is known of how long a job takes
    for _ in range(12):  # more than the limit lets through
        late = service.complete(headers={"Penstock-Start-Within": "0.2"})
        assert late.status == 504, late
        assert late.json()["error"]["code"] == "deadline_exceeded"
    assert service.penstockd.queue().length == 0


@pytest.mark.parametrize("name", ["Penstock-Finish-Within", "X-Stainless-Read-Timeout"])
def test_what_has_run_until_its_callers_deadline_is_charged(penstock, name):
    service = penstock(http="penstock_zone edge 1m;", server=SERVER + """
        location /look { penstock_limit zone=edge key=$binary_remote_addr quota=1000t/d name=tokens; penstock_quota; }
        location /tokens/ { penstock_limit zone=edge key=$binary_remote_addr quota=1000t/d name=tokens; rewrite ^/tokens(.*) $1 break; penstock_pass gpu; }""",
                       workers=[simulate(slots=4, service_time="20s")])  # one is free at once, and it is known to start

    def late(path="/v1/completions"):
        ended = service.complete(path, headers={name: "0.3"}, max_tokens=500)
        service.penstockd.wait_for(running=0, length=0)
        return ended
    assert [late().status for _ in range(11)] == [504] * 9 + [429] * 2
    assert late("/tokens/v1/completions").json()["error"]["code"] == "deadline_exceeded"
    assert 50 < service.get("/look").json()["limits"][0]["used"] <= 1000


def test_what_the_queues_own_deadline_ends_is_free(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=SERVER, queue={"deadline": "300ms"},
                       workers=[simulate(slots=4, service_time="20s")])
    for _ in range(12):
        assert service.complete(headers={"Penstock-Finish-Within": "30"}).status == 504
        service.penstockd.wait_for(running=0, length=0)


@pytest.mark.parametrize("name", ["Penstock-Start-Within", "Penstock-Finish-Within", "Cancel-After"])
@pytest.mark.parametrize("value", ["0", "-1", "soon", "1e3", "1.", "", "99999999999"])
def test_a_wrong_value_is_refused_in_words(penstock, name, value):
    service = penstock(server="location / { penstock_pass gpu; }", workers=[simulate()])
    reply = service.complete(headers={name: value})
    assert reply.status == 400
    assert reply.json()["error"]["param"] == name
    assert "seconds" in reply.json()["detail"] or "empty" in reply.json()["detail"]


def test_a_wait_is_told_as_a_range(service):
    occupy(service)
    reply = service.complete(headers={**ALICE, "Prefer": "respond-async"})
    job = reply.json()
    soon, late = job["eta_range"]
    assert soon <= job["eta_seconds"] <= late <= 10
    [model] = service.get("/v1/models").json()["data"]
    assert model["kind"] == "text"
    assert model["eta_range"][0] <= model["eta_seconds"] <= model["eta_range"][1]
    path = f"/jobs/{job['id']}"
    done = until(lambda: (seen := service.request("GET", path, ALICE).json())["status"] == "completed" and seen, "it is done")
    assert done["counted"] is True and done["expires_at"] > done["finished_at"]


def test_where_nobody_is_there_the_wait_is_not_known(penstock):
    service = penstock(server=SERVER, http="penstock_zone edge 1m;", yaml="state: state", workers=[])
    assert service.get("/v1/models").json()["data"] == []


def test_the_ratio_of_what_came_true_is_a_metric(penstock):
    service = penstock(server="location / { penstock_pass gpu; } location = /metrics { penstock_metrics gpu; }",
                       workers=[simulate(slots=1, service_time="50ms")])
    threads = [threading.Thread(target=service.complete) for _ in range(20)]
    service.complete()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def told():
        return [line for line in service.get("/metrics").text().splitlines() if line.startswith("penstock_prediction_inside_ratio{")]
    [line] = until(told, "the metric is there")
    assert 0 <= float(line.split()[-1]) <= 1
