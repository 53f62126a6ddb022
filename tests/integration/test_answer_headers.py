"""What answers carry besides themselves: guards against what their bytes may be, words to proxies, methods."""

import re
import threading
import zlib

import pytest

from conftest import simulate
from scripted import accepted, answer, chunk, done, failed, goodbye, head
from test_jobs import ALICE, BODY, get, jobs, large, post, promise, until_status  # noqa: F401
from waiting import until

GUARDS = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
          "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
BOTH = "location /v1/ { penstock_pass a; } location /jobs { penstock_jobs a; }"
ID = "job_01JABCDEFGHJKMNPQRSTVWXYZ0"


def guards(reply):
    return {name: reply.headers[name] for name in GUARDS}


def answer_of(content_type, text=b"<script>alert(1)</script>"):
    return head(content_type=content_type, length=len(text)) + chunk(text) + done()


def wait_for(event):
    return lambda _: until(event.is_set, "what was sent has arrived", 5)


# --- A result is hostile content

@pytest.mark.parametrize("path", ["/v1/completions", f"/jobs/{ID}/result"])
@pytest.mark.parametrize("content_type, shown", [
    ("text/plain", True), ("text/plain; charset=utf-8", True), ("application/json", True), ("IMAGE/PNG", True), ("video/mp4", True),
    ("audio/mpeg", True), ("application/pdf", True),
    ("text/html", False), ("text/html; charset=utf-8", False), ("image/svg+xml", False), ("text/xml", False), ("application/xhtml+xml", False),
    ("text/javascript", False), ("application/octet-stream", False), ("", False), ("text/event-stream", False),
    ("text/plain, text/html", False), ("text/plain;, text/html", False), ('text/plain; a="', True)])
def test_only_what_is_inert_is_shown_in_a_browser(peer, edge, path, content_type, shown):
    service = edge(peer("a", answer_of(content_type)), server=BOTH)
    came = service.request("POST" if path.startswith("/v1") else "GET", path)
    assert came.status == 200 and guards(came) == GUARDS
    name = ID if path.startswith("/jobs") else "result"
    assert came.headers["Content-Disposition"] == (None if shown else f'attachment; filename="{name}.bin"')


@pytest.mark.parametrize("content_type", ["text/html\r\nX-Bad: 1", "text/html\nX-Bad: 1", "text/\0html", "text/h\x80tml"])
def test_no_header_hides_in_a_content_type(peer, edge, content_type):
    service = edge(peer("a", answer_of(content_type)), server=BOTH)
    came = service.request("POST", "/v1/completions")
    assert came.status == 502 and "X-Bad" not in came.headers


def test_accepted_may_come_twice_and_the_later_one_counts(peer, edge):
    service = edge(peer("a", accepted("job_1", position=4) + accepted(ID, position=0) + answer_of("text/html")), server=BOTH)
    came = service.request("POST", "/v1/completions")
    assert came.status == 200 and came.headers["Penstock-Job-Id"] == ID


def test_the_name_of_what_is_saved_is_the_jobs(peer, edge):
    service = edge(peer("a", accepted(ID) + answer_of("text/html")), server=BOTH)
    came = service.request("POST", "/v1/completions")
    assert came.headers["Content-Disposition"] == f'attachment; filename="{ID}.bin"'
    hostile = edge(peer("b", accepted('a"; x="/../b') + answer_of("text/html")), server="location / { penstock_pass b; }")
    assert hostile.request("POST", "/").headers["Content-Disposition"] == 'attachment; filename="result.bin"'


@pytest.mark.parametrize("tokens", [8, 20000])
def test_every_way_a_result_goes_out_is_guarded(jobs, tokens):
    service = jobs(workers=[simulate(slots=1, service_time="1ms", output_tokens=20000)])
    body = {**BODY, "max_tokens": tokens, "stream": True}
    id = promise(service, body=body, Idempotency_Key='"a"').json()["id"]
    until_status(service, id, "completed")
    ways = {"result": get(service, f"/jobs/{id}/result"),
            "head": service.request("HEAD", f"/jobs/{id}/result", ALICE),
            "part": get(service, f"/jobs/{id}/result", {**ALICE, "Range": "bytes=0-9"}),
            "again": post(service, {"Idempotency-Key": '"a"'}, body),
            "waited": post(service, {"Prefer": "respond-async, wait=60"}, body)}
    for way, came in ways.items():
        assert came.status in (200, 206) and came.headers["Content-Type"].startswith("text/event-stream"), (way, came)
        assert guards(came) == GUARDS, (way, came)
        assert re.fullmatch(r'attachment; filename="job_\w{26}\.bin"', came.headers["Content-Disposition"]), (way, came)
    live = post(service, body=body)
    assert guards(live) == GUARDS and "Content-Disposition" not in live.headers


def test_what_was_said_of_a_result_is_not_said_of_its_absence(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="1ms", output_tokens=20000)])
    id, _ = large(service)
    (service.folder / "state" / "results" / id).unlink()
    gone = get(service, f"/jobs/{id}/result")
    assert gone.status == 404 and "Content-Disposition" not in gone.headers and "Content-Security-Policy" not in gone.headers


def test_an_operator_may_hide_a_header_and_say_it_otherwise(peer, edge):
    service = edge(peer("a", accepted(ID) + answer_of("text/html")), server="""
        penstock_hide_header Content-Security-Policy;
        location /v1/ { add_header Content-Security-Policy "default-src 'self'"; penstock_pass a; }
        location /own { penstock_hide_header PENSTOCK-Job-Id; penstock_pass a; }""")
    came = service.request("POST", "/v1/completions")
    assert came.headers.get_all("Content-Security-Policy") == ["default-src 'self'"] and came.headers["Penstock-Job-Id"] == ID
    own = service.request("POST", "/own")
    assert "Penstock-Job-Id" not in own.headers and own.headers["Content-Security-Policy"] == GUARDS["Content-Security-Policy"]


# --- Streams, and the proxies on their way

def test_streams_say_that_nobody_is_to_hold_them_back_or_keep_them(jobs):
    service = jobs(workers=[simulate(slots=1, service_time="50ms")])
    id = promise(service).json()["id"]
    for came in (post(service, body={**BODY, "stream": True}), get(service, f"/jobs/{id}/events")):
        assert came.headers["Content-Type"].startswith("text/event-stream")
        assert came.headers.get_all("X-Accel-Buffering") == ["no"] and came.headers.get_all("Cache-Control") == ["no-store"]
    until_status(service, id, "completed")
    whole = get(service, f"/jobs/{id}/result")
    assert "X-Accel-Buffering" not in whole.headers


def test_a_stream_comes_through_another_nginx_as_it_is_made(peer, edge):
    gates = [threading.Event() for _ in range(3)]
    steps = [step for i, gate in enumerate(gates) for step in (chunk(b"data: %d\n\n" % i), wait_for(gate))]
    engine = peer("a", head(content_type="text/event-stream; charset=utf-8"), *steps, done())
    service = edge(engine, http="server { listen unix:@/in.sock; location / { penstock_pass a; } }".replace("@", str(engine.path.parent)),
                   server=f"location / {{ proxy_pass http://unix:{engine.path.parent}/in.sock; }}")
    stream = service.stream("/")
    for i, gate in enumerate(gates):
        assert stream.next_event() == str(i)  # the next is still to be made
        gate.set()


def inflated(service, path):
    """What of a compressed answer can be read, as it comes."""
    response = service.client().send("POST", path, {"Accept-Encoding": "gzip"}, {"prompt": "a"})
    assert response.headers["Content-Encoding"] == "gzip", dict(response.headers)
    reader = zlib.decompressobj(31)
    while more := response.read1():
        yield reader.decompress(more)


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/event-stream; charset=utf-8"])
def test_each_event_of_a_compressed_stream_can_be_read_when_it_is_made(peer, edge, content_type):
    gate = threading.Event()
    engine = peer("a", head(content_type=content_type) + chunk(b"data: 1\n\n"), wait_for(gate), chunk(b"data: 2\n\n") + done())
    service = edge(engine, http="gzip on; gzip_min_length 0; gzip_types text/event-stream;", server="location / { penstock_pass a; }")
    pieces, text = inflated(service, "/"), b""
    while b"data: 1\n\n" not in text:
        text += next(pieces)
    gate.set()
    assert text + b"".join(pieces) == b"data: 1\n\ndata: 2\n\n"


# --- 405

@pytest.mark.parametrize("method, path, allow", [
    ("GET", "/v1/completions", "POST"), ("DELETE", "/v1/completions", "POST"), ("DELETE", "/v1/models", "GET, HEAD"),
    ("POST", "/jobs", "GET, HEAD"), ("DELETE", "/jobs", "GET, HEAD"), ("PUT", "/jobs/ID", "GET, HEAD, DELETE"),
    ("POST", "/jobs/ID/result", "GET, HEAD"), ("DELETE", "/jobs/ID/events", "GET, HEAD"), ("POST", "/quota", "GET, HEAD")])
def test_a_method_that_is_not_allowed_is_told_which_ones_are(jobs, method, path, allow):
    service = jobs()
    came = service.request(method, path.replace("ID", promise(service).json()["id"]), ALICE, {} if method in ("POST", "PUT") else None)
    assert (came.status, came.headers.get_all("Allow"), came.json()["error"]["code"]) == (405, [allow], "method_not_allowed")


def test_of_the_headers_of_a_refusal_few_reach_the_client(peer, edge):
    service = edge(peer("a", failed(405, headers="Allow: POST\nSet-Cookie: a=b\nAccept-Encoding: identity\n")), server=BOTH)
    came = service.request("POST", "/v1/completions")
    assert (came.status, came.headers["Allow"], came.headers["Accept-Encoding"]) == (405, "POST", "identity")
    assert "Set-Cookie" not in came.headers
    broken = edge(peer("b", failed(405, headers="Allow: POST\r\nSet-Cookie: a=b\n")), server="location / { penstock_pass b; }")
    assert broken.request("POST", "/").status == 502


# --- What others say is one line of the log

@pytest.mark.parametrize("step", [head() + failed(500, code="a\n2026/01/01 00:00:00 [alert] forged\x1b[2J"),
                                  goodbye("a\n2026/01/01 00:00:00 [alert] forged\x1b[2J")])
def test_no_message_forges_a_line_of_the_log(peer, edge, step):
    service = edge(peer("a", step), server="location / { penstock_pass a; }")
    try:
        service.request("POST", "/")
    except Exception:  # the answer is cut short
        pass
    line = until(lambda: [line for line in service.nginx.log().splitlines() if "forged" in line], "it is in the log")
    assert "a?2026/01/01 00:00:00 [alert] forged?[2J" in line[0], line
    service.expected_alert = "forged"
