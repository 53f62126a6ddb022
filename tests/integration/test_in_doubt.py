"""A promise whose connection is lost before it was said: whatever became of the job, no charge is given back twice."""

import json
import socket

import pytest

from conftest import simulate
from cut import Cut
from scripted import answer, failed
from test_jobs import ALICE, BODY, get, post, promise
from waiting import until
from wire import ACCEPTED, Closed, frame

SERVER = """\
penstock_owner $http_authorization;
location /v1/ { penstock_limit zone=edge key=$http_authorization tier=free; penstock_pass cut; }
location /jobs { penstock_jobs cut; }
location = /quota { penstock_quota; }
"""
# Windows that do not flow back meanwhile.
HTTP = """\
penstock_zone edge 1m;
penstock_tier free { quota 100000t/M name=tokens; quota 1000r/M name=requests; concurrency 9; }
upstream cut { server unix:%s; keepalive 8; }
"""


@pytest.fixture
def lost(penstock, folder):
    """lost(): a service whose promises may be lost on their way, `service.cut` being the line."""
    lines = []

    def start(**more):
        options = dict(http=HTTP % (folder / "cut.sock"), server=SERVER, workers=[simulate(slots=1, service_time="60s")])
        options.update(more)
        service = penstock(start=False, yaml="state: state\ndrain_timeout: 1ms\n", **options)
        service.cut = Cut(folder / "cut.sock", service.penstockd.socket)
        lines.append(service.cut)
        return service.start()

    yield start
    for line in lines:
        line.close()


def used(service, name):
    return next(each["used"] for each in get(service, "/quota").json()["limits"] if each["name"] == name)


def in_use(service):
    return get(service, "/quota").json()["concurrency"]["in_use"]


def newest(service):
    return get(service, "/jobs?limit=1").json()["data"][0]["id"]


def lose_by_cut(service):
    service.cut.cuts = True
    reply = post(service, {"Prefer": "respond-async"})
    assert reply.status == 502, reply
    service.cut.cuts = False
    assert service.cut.times == 1, "it was not promised a second time, by another try"


def lose_by_leaving(service):
    service.cut.holds = True
    body = json.dumps(BODY)
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(("POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nPrefer: respond-async\r\n"
                        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
        assert service.cut.accepted.wait(20)
    assert service.cut.left.wait(20)
    service.cut.holds = False


@pytest.mark.parametrize("lose", [lose_by_cut, lose_by_leaving])
def test_tokens_of_a_job_that_lives_are_given_back_once(lost, lose):
    service = lost()
    promise(service)
    reserved = used(service, "tokens")
    assert reserved > 0
    lose(service)
    until(lambda: in_use(service) == 2, lambda: f"both are queued; {in_use(service)} are counted")
    assert used(service, "tokens") == 2 * reserved
    service.request("DELETE", f"/jobs/{newest(service)}", ALICE)
    until(lambda: in_use(service) == 1, lambda: f"one is left; {in_use(service)} are counted")
    assert used(service, "tokens") == reserved


def test_a_request_whose_job_fails_is_given_back_once(lost):
    service = lost(queue=dict(deadline="1s"))
    for _ in range(3):
        assert get(service, "/v1/models").status == 200
    assert used(service, "requests") == 3
    lose_by_cut(service)
    assert used(service, "requests") == 4
    until(lambda: used(service, "requests") != 4, "its deadline passes")
    assert used(service, "requests") == 3


def test_what_never_reached_penstockd_costs_nothing(lost):
    service = lost()
    before = used(service, "requests")
    service.cut.close()
    assert post(service, {"Prefer": "respond-async"}).status == 502
    assert used(service, "requests") == before


def test_an_answer_that_was_waited_for_is_given_back_when_it_is_lost(lost):
    service = lost()
    service.cut.cuts = True
    assert post(service, {"Idempotency-Key": '"a"'}).status == 502
    service.cut.cuts = False
    assert used(service, "tokens") == 0
    until(lambda: in_use(service) == 0, "nobody waits, and it runs no more")


# --- Many limits

def test_as_many_charges_as_a_request_may_have_are_settled(penstock):
    zone, names = "z" * 64, [f"{n}" + "n" * 63 for n in range(8)]
    rules = "".join(f"quota 100000t/M name={name}; " for name in names[1:]) + f"concurrency 9 name={names[0]};"
    limits = "".join(f"penstock_limit zone={zone} key=k{n}$http_authorization tier=free; " for n in range(16))
    service = penstock(
        http=f"penstock_zone {zone} 1m;\npenstock_tier free {{ {rules} }}",
        server=f"""
            location /v1/ {{ {limits} penstock_pass gpu; }}
            location /jobs {{ penstock_jobs gpu; }}
            location = /quota {{ penstock_quota; }}""",
        yaml="state: state\ndrain_timeout: 1ms\n", workers=[simulate(slots=1, service_time="60s")])
    promise(service)
    reserved = used(service, names[1])
    assert reserved > 0
    waits = promise(service).json()["id"]
    assert in_use(service) == 2
    service.request("DELETE", f"/jobs/{waits}", ALICE)
    until(lambda: in_use(service) == 1, lambda: f"one is left; {in_use(service)} are counted")
    assert [used(service, name) for name in names[1:]] == [reserved] * 7


# --- Several penstockds

ASYNC = {"Prefer": "respond-async"}


def hang_up(_):
    raise Closed


def test_a_promise_that_was_refused_is_asked_for_elsewhere(peer, edge):
    full, other = peer("a", failed(503)), peer("b", answer(b"promised"))
    assert post(edge(full, other), ASYNC).body == b"promised"
    assert len(full.submits) == len(other.submits) == 1


@pytest.mark.parametrize("said", [b"", frame(ACCEPTED, 1, job_id="job_1", promised=1)])
def test_a_promise_that_may_have_been_made_is_asked_for_once(peer, edge, said):
    lost, other = peer("a", said, hang_up), peer("b", answer(b"promised"))
    service = edge(lost, other)
    assert post(service, ASYNC).status == 502
    assert other.submits == []
    assert post(service).body == b"promised", "an answer is had from whoever gives it"
