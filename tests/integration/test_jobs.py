"""The whole way of a job that outlives its request: promised, queued, seen, finished, fetched, cancelled; across restarts."""

import contextlib
import json
import os
import signal
import socket
import struct

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


def promise(service, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = post(service, {"Prefer": "respond-async", **headers}, body)
    assert reply.status == 202, reply.body
    return reply


def job(service, id, who=ALICE):
    return get(service, f"/jobs/{id}", who).json()


def until_status(service, id, status):
    until(lambda: job(service, id)["status"] == status, lambda: f"{id} is {status}; it is {job(service, id)}")
    return job(service, id)


@contextlib.contextmanager
def standing_still(service):
    """Meanwhile no worker does anything."""
    workers = service.penstockd.workers()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)


def all_events(service):
    """A promised job, and the lines of its stream of events, which was opened before the job could end."""
    with standing_still(service):
        id = promise(service).json()["id"]
        stream = service.client().send("GET", f"/jobs/{id}/events", ALICE)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    return id, stream.read().decode().splitlines()


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
    _, lines = all_events(jobs())
    names = [line[7:] for line in lines if line.startswith("event: ")]
    assert names[0] in ("queued", "processing") and names[-1] == "completed", names
    assert "processing" in names


def test_who_has_seen_the_last_event_is_told_not_to_come_back(jobs):
    service = jobs()
    id, lines = all_events(service)
    last = [line[4:] for line in lines if line.startswith("id: ")][-1]
    again = get(service, f"/jobs/{id}/events", {**ALICE, "Last-Event-ID": last})
    assert (again.status, again.body) == (204, b""), again  # a browser comes back by itself until then
    before = [line[4:] for line in lines if line.startswith("id: ")][-2]
    assert "event: completed" in get(service, f"/jobs/{id}/events", {**ALICE, "Last-Event-ID": before}).text()
    assert get(service, f"/jobs/{id}/events", {"Authorization": "Bearer bob", "Last-Event-ID": last}).status == 404


def test_a_stop_leaves_promises_for_the_next_start(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="500ms")], yaml="drain_timeout: 0s\n")
    ids = [promise(service).json()["id"] for _ in range(3)]
    assert service.penstockd.stop() == 0
    service.penstockd.start()
    for id in ids:
        until_status(service, id, "completed")


def test_without_a_worker_promises_are_made_and_kept(jobs):
    service = jobs()
    with standing_still(service):
        id = promise(service).json()["id"]
    until_status(service, id, "completed")


def large(service):
    """The id of a completed job whose result is a file, and that result."""
    id = promise(service, body={**BODY, "max_tokens": 20000}).json()["id"]
    until_status(service, id, "completed")
    whole = get(service, f"/jobs/{id}/result")
    assert whole.status == 200 and len(whole.body) > 64 * 1024
    assert (service.folder / "state" / "results" / id).stat().st_size == len(whole.body)
    return id, whole


def test_a_large_result_comes_from_disk_with_ranges(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="1ms", output_tokens=20000)])
    id, whole = large(service)
    path = f"/jobs/{id}/result"
    assert whole.headers["Content-Type"] == "application/json" and whole.headers["Accept-Ranges"] == "bytes"
    part = get(service, path, {**ALICE, "Range": "bytes=100-199"})
    assert part.status == 206 and part.body == whole.body[100:200]
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole.body)}"
    past = get(service, path, {**ALICE, "Range": f"bytes={len(whole.body)}-"})
    assert past.status == 416 and past.headers["Content-Range"] == f"bytes */{len(whole.body)}"
    head = service.request("HEAD", path, ALICE)
    assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) == len(whole.body)
    same = get(service, path, {**ALICE, "If-None-Match": whole.headers["ETag"]})
    assert same.status == 304
    assert get(service, path, {"Authorization": "Bearer bob"}).status == 404


def test_a_result_whose_file_is_gone_is_told_so(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="1ms", output_tokens=20000)])
    id, _ = large(service)
    (service.folder / "state" / "results" / id).unlink()
    assert get(service, f"/jobs/{id}/result").status == 404


def test_small_results_have_ranges_and_heads_too(jobs):
    service = jobs()
    id = promise(service).json()["id"]
    until_status(service, id, "completed")
    whole = get(service, f"/jobs/{id}/result")
    part = get(service, f"/jobs/{id}/result", {**ALICE, "Range": "bytes=0-9"})
    assert part.status == 206 and part.body == whole.body[:10]
    assert service.request("HEAD", f"/jobs/{id}/result", ALICE).status == 200


def test_with_wait_the_answer_comes_if_it_is_there_in_time(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="20ms")])
    reply = post(service, {"Prefer": "respond-async, wait=20"})
    assert reply.status == 200 and reply.json()["object"] == "text_completion"
    assert reply.headers["Penstock-Job-Id"].startswith("job_")
    until(lambda: get(service, "/quota").json()["concurrency"]["in_use"] == 0, "its lease came back")


def test_what_would_wait_too_long_is_refused_at_once(jobs):
    service = jobs(server=SERVER.replace("penstock_pass gpu;", "penstock_max_wait 50ms; penstock_pass gpu;"),
                   http=HTTP.replace("concurrency 3", "concurrency 100"), workers=[simulate(slots=1, service_time="200ms")])
    assert post(service).status == 200  # what a job takes is known now
    for _ in range(5):
        promise(service)
    refused = post(service)
    assert refused.status == 503 and refused.json()["error"]["code"] == "busy" and int(refused.headers["Retry-After"]) >= 1


def test_the_same_request_is_joined_without_a_key_where_that_is_wanted(jobs):
    service = jobs(server=SERVER.replace("penstock_pass gpu;", "penstock_dedupe on; penstock_pass gpu;"),
                   workers=[simulate(slots=1, service_time="500ms")])
    first = promise(service)
    second = promise(service)
    assert second.json()["id"] == first.json()["id"] and second.headers["Penstock-Duplicate"] == "true"


def test_a_duplicate_is_rejected_where_that_is_wanted(jobs):
    service = jobs(server=SERVER.replace("penstock_pass gpu;", "penstock_dedupe on on_duplicate=reject; penstock_pass gpu;"),
                   workers=[simulate(slots=1, service_time="500ms")])
    promise(service)
    assert post(service, {"Prefer": "respond-async"}).status == 409


@pytest.mark.parametrize("name, value", [("Idempotency-Key", "no quotes"), ("Idempotency-Key", '"' + "k" * 300 + '"'),
                                         ("Penstock-Delay", "soon"), ("Penstock-Not-Before", "tomorrow"),
                                         ("Penstock-Callback", "https://example.com/")])
def test_bad_headers_are_named(jobs, name, value):
    reply = post(jobs(), {"Prefer": "respond-async", name: value})
    assert reply.status == 400 and reply.json()["error"]["param"] == name


def test_a_scheduled_job_waits_for_its_time(jobs):
    service = jobs()
    id = promise(service, Penstock_Delay="3600").json()["id"]
    told = job(service, id)
    assert told["status"] == "scheduled" and told["position"] is None and told["not_before"] > told["created_at"] + 3000
    assert [each["id"] for each in get(service, "/jobs?status=scheduled").json()["data"]] == [id]
    gone = service.request("DELETE", f"/jobs/{id}", ALICE).json()
    assert gone["status"] == "cancelled" and gone == service.request("DELETE", f"/jobs/{id}", ALICE).json()


def websocket(service, id, *early, more=""):
    """A WebSocket of a job's events, shaken hands. `more`: lines of the request's head."""
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=20)
    connection.sendall((f"GET /jobs/{id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nUpgrade: websocket\r\n"
                        "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n").encode() + b"".join(early))
    stream = connection.makefile("rb")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        assert line, f"the connection was closed behind {head}"
        head += line
    return connection, stream, head.decode()


def message(stream):
    """(opcode, payload) of the next frame."""
    first, size = stream.read(2)
    if size == 126:
        size = int.from_bytes(stream.read(2), "big")
    elif size == 127:
        size = int.from_bytes(stream.read(8), "big")
    return first & 15, stream.read(size)


def masked(opcode, payload=b""):
    return bytes([0x80 | opcode, 0x80 | len(payload), 1, 2, 3, 4]) + bytes(b ^ (i % 4 + 1) for i, b in enumerate(payload))


def test_the_same_events_come_over_a_websocket(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="300ms")])
    id = promise(service).json()["id"]
    connection, stream, head = websocket(service, id, masked(9, b"early"))
    assert head.startswith("HTTP/1.1 101 ") and "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455's own example
    connection.sendall(masked(9, b"are you there"))
    events, pongs = [], []
    while True:
        opcode, payload = message(stream)
        if opcode == 1:
            events.append(json.loads(payload))
        elif opcode == 10:
            pongs.append(payload)
        elif opcode == 8:
            break
    assert events[-1]["event"] == "completed" and events[-1]["data"]["id"] == id
    assert b"are you there" in pongs
    connection.close()


@pytest.mark.parametrize("frame, code", [(masked(8, b"\x03\xe8"), b"\x03\xe8"), (b"\x81\x01x", b"\x03\xea"), (masked(3), b"\x03\xea"),
                                         (masked(8, b"\x03\xe8") + bytes(4000), b"\x03\xe8")])
def test_a_client_that_closes_or_breaks_a_rule_is_answered(jobs, frame, code):
    service = jobs(workers=[simulate(slots=1, service_time="30s")])
    id = promise(service).json()["id"]
    connection, stream, _ = websocket(service, id)
    message(stream)  # it is up
    connection.sendall(frame)
    opcode, payload = message(stream)
    while opcode == 1:
        opcode, payload = message(stream)
    assert (opcode, payload) == (8, code)
    assert stream.read() == b""  # the connection's end, and no reset
    connection.close()
    service.request("DELETE", f"/jobs/{id}", ALICE)


@pytest.mark.parametrize("allowed, origin, status", [
    ("", "http://x", 101), ("", "https://X", 101), ("", None, 101),  # x is the Host that is asked
    ("", "http://evil", 403), ("", "http://x.evil", 403), ("", "http://x:81", 403), ("", "null", 403), ("", "x", 403), ("", "https://x/", 403),
    ("penstock_origins https://app.example http://b;", "https://app.example", 101),
    ("penstock_origins https://app.example http://b;", "http://app.example", 403),
    ("penstock_origins https://app.example;", "http://x", 101), ("penstock_origins any;", "null", 101)])
def test_a_page_of_another_site_opens_no_websocket(jobs, allowed, origin, status):
    service = jobs(server=allowed + SERVER, workers=[simulate(slots=1, service_time="30s")])
    id = promise(service).json()["id"]
    connection, _, head = websocket(service, id, more=f"Origin: {origin}\r\n" if origin else "")
    assert head.startswith(f"HTTP/1.1 {status} ")
    connection.close()
    service.request("DELETE", f"/jobs/{id}", ALICE)


def test_a_client_that_leaves_its_websocket_leaves_its_job(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="30s")])
    id = promise(service).json()["id"]
    for reset in (False, True):
        connection, stream, _ = websocket(service, id)
        message(stream)  # it is up
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        connection.close()
        assert job(service, id)["status"] == "processing"
    service.request("DELETE", f"/jobs/{id}", ALICE)
