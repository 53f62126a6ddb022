"""The same over HTTP/2 and HTTP/3: curl as the client, and frames of our own where a client does what curl does not."""

import json
import os
import socket
import struct
import subprocess
import threading

import pytest

from conftest import simulate
from processes import NGINX, environment
from scripted import answer, chunk, done, head
from test_jobs import ALICE, BODY, HTTP, SERVER, jobs, until_status  # noqa: F401
from waiting import Port, until

CURL = os.environ.get("PENSTOCK_CURL", "curl")  # make test-http3 brings one that speaks HTTP/3
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


class Http2:
    """`listen` is a line for a server block; curl(path ...) asks there; connect() is a bare connection."""

    def __init__(self, folder):
        self.path = folder / "h2.sock"
        self.listen = f"listen unix:{self.path} http2;\n"
        self.options = ["--http2-prior-knowledge", "--unix-socket", self.path]
        self.place, self.version = "http://localhost", "HTTP/2"

    def curl(self, path, *options, body=None, headers=None):
        """(status, headers, body) of one request."""
        command = [*self._command(headers, body), "--max-time", "60", "-i", *options, self.place + path]
        run = subprocess.run(command, input=b"" if body is None else json.dumps(body).encode(), capture_output=True, timeout=90)
        assert run.returncode == 0, run.stderr.decode()
        said, _, text = run.stdout.partition(b"\r\n\r\n")
        lines = said.decode().split("\r\n")
        assert lines[0].startswith(self.version + " "), lines
        return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), text

    def _command(self, headers, body):
        command = [CURL, "-sS", *self.options]
        for name, value in (headers or {}).items():
            command += ["-H", f"{name}: {value}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        return command

    def connect(self):
        return Frames(self.path)


class Http3(Http2):
    """The same over QUIC."""

    def __init__(self, folder, port):
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                        "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        self.listen = f"listen 127.0.0.1:{port} quic; ssl_certificate {certificate}; ssl_certificate_key {key};\n"
        self.options = ["--http3-only", "--insecure"]
        self.place, self.version = f"https://127.0.0.1:{port}", "HTTP/3"

    def streams(self, path, count, *, body, headers=None):
        """Asks the same so many times over one connection: (curl, the answers as they come). Who closes one resets its stream."""
        pipes = [os.pipe() for _ in range(count)]
        outputs = [part for _, end in pipes for part in ("-o", f"/dev/fd/{end}", self.place + path)]
        curl = subprocess.Popen([*self._command(headers, body), "-N", "-Z", *outputs], stdin=subprocess.PIPE,
                                pass_fds=[end for _, end in pipes])
        curl.stdin.write(json.dumps(body).encode())
        curl.stdin.close()
        for _, end in pipes:
            os.close(end)
        return curl, [os.fdopen(end, "rb") for end, _ in pipes]


def can_http3(folder):
    """Why this machine cannot; None: it can."""
    if "http_v3_module" not in subprocess.run([NGINX, "-V"], capture_output=True, text=True, env=environment(folder)).stderr:
        return "this Nginx has no HTTP/3: 1.25 or later, --with-http_v3_module, as PENSTOCK_NGINX, the module for it in PENSTOCK_BUILD"
    if "HTTP3" not in subprocess.run([CURL, "-V"], capture_output=True, text=True).stdout:
        return "this curl speaks no HTTP/3"
    return None


@pytest.fixture
def h2(folder):
    return Http2(folder)


@pytest.fixture
def h3(folder):
    if reason := can_http3(folder):
        assert "PENSTOCK_CURL" not in os.environ, reason
        pytest.skip(reason)
    port = Port()
    yield Http3(folder, port.number)
    port.release()


@pytest.fixture(params=["h2", "h3"])
def over(request):
    """The newer versions of HTTP."""
    return request.getfixturevalue(request.param)


class Frames:
    """An HTTP/2 connection by its frames (RFC 9113). What the server says in headers is not decoded."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        until(lambda: self._socket.connect_ex(str(path)) == 0, "Nginx listens there, too")
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._stream = self._socket.makefile("rb")
        self.send(SETTINGS, 0, 0)

    def send(self, kind, flags, stream, payload=b""):
        self._socket.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def ask(self, stream, path, *, method="POST", headers=(), ends=False):
        """The head of a request: literal fields that are not indexed (RFC 7541, section 6.2.2)."""
        fields = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path), *headers]
        block = b"".join(b"\0" + bytes([len(text)]) + text.encode() if i % 2 == 0 else bytes([len(text)]) + text.encode()
                         for field in fields for i, text in enumerate(field))
        self.send(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, block)

    def receive(self):
        """(kind, flags, stream, payload) of the next frame that is about a stream, or a PING's or GOAWAY."""
        while True:
            header = self._stream.read(9)
            assert len(header) == 9, "the connection was closed"
            length, (kind, flags, stream) = int.from_bytes(header[:3], "big"), struct.unpack(">BBI", header[3:])
            payload = self._stream.read(length)
            if kind == SETTINGS and not flags & ACK:
                self.send(SETTINGS, ACK, 0)
            elif kind not in (SETTINGS, WINDOW_UPDATE):
                return kind, flags, stream, payload

    def body(self, stream):
        """All of its answer's body. Other streams may not be answered meanwhile."""
        text = b""
        while True:
            kind, flags, of, payload = self.receive()
            assert of == stream and kind in (HEADERS, DATA), (kind, of, payload)
            text += payload if kind == DATA else b""
            if flags & END_STREAM:
                return text

    def close(self):
        self._stream.close()
        self._socket.close()


def test_a_refusal_says_all_that_it_says_over_http_1(penstock, over):
    service = penstock(http="penstock_zone edge 1m;",
                       server=over.listen + "location / { penstock_limit zone=edge key=all rate=1r/h name=a; penstock_pass gpu; }",
                       workers=[simulate(slots=1, service_time="1ms")])
    assert over.curl("/v1/completions", body=BODY)[0] == 200
    # Without a body: curl 7.88 fails of itself where an answer is there before it has sent one, Nginx's own answers too.
    status, headers, text = over.curl("/v1/models")
    assert status == 429 and json.loads(text)["error"]["code"] == "rate_limit_exceeded"
    assert int(headers["retry-after"]) > 3000 and headers["content-type"] == "application/problem+json"
    assert headers["ratelimit-policy"].startswith('"a"') and headers["x-ratelimit-remaining-requests"] == "0"
    over_1 = service.get("/v1/models")
    assert {name.lower() for name, _ in over_1.headers.items()} - {"connection"} == set(headers)


@pytest.mark.parametrize("bytes_of_prompt", [10, 200_000, 3_000_000])
def test_a_body_of_any_size_arrives(peer, edge, over, bytes_of_prompt):
    engine = peer("a", answer(b"hello"))
    edge(engine, server=over.listen + "client_max_body_size 8m; location / { penstock_pass a; }")
    body = {"model": "sim", "prompt": "x" * bytes_of_prompt}
    assert over.curl("/", body=body)[::2] == (200, b"hello")
    assert json.loads(engine.submits[0]["json"]) == body


def test_a_stream_comes_piece_by_piece(peer, edge, h2):
    gates = [threading.Event() for _ in range(3)]
    steps = [step for i, gate in enumerate(gates)
             for step in (chunk(b"data: %d\n\n" % i), lambda _, gate=gate: until(gate.is_set, "the event has arrived", 5))]
    edge(peer("a", head(content_type="text/event-stream"), *steps, done()), server=h2.listen + "location / { penstock_pass a; }")
    connection = h2.connect()
    connection.ask(1, "/", ends=True)
    assert connection.receive()[0] == HEADERS
    for i, gate in enumerate(gates):
        kind, flags, stream, payload = connection.receive()
        assert (kind, stream, payload) == (DATA, 1, b"data: %d\n\n" % i)
        gate.set()
    assert connection.body(1) == b""
    connection.close()


def test_methods_results_ranges_and_heads_are_as_over_http_1(jobs, over):
    service = jobs(server=over.listen + SERVER, workers=[simulate(slots=1, service_time="1ms", output_tokens=20000)])
    assert over.curl("/v1/completions", headers=ALICE)[1]["allow"] == "POST"
    status, headers, text = over.curl("/v1/completions", body={**BODY, "max_tokens": 20000}, headers={**ALICE, "Prefer": "respond-async"})
    assert status == 202
    id = json.loads(text)["id"]
    assert headers["location"] == f"/jobs/{id}"
    status, headers, _ = over.curl(f"/jobs/{id}", "-X", "PUT", headers=ALICE)
    assert (status, headers["allow"]) == (405, "GET, HEAD, DELETE")
    until_status(service, id, "completed")
    status, headers, whole = over.curl(f"/jobs/{id}/result", headers=ALICE)
    assert status == 200 and len(whole) > 65536 and headers["x-content-type-options"] == "nosniff"
    assert over.curl(f"/jobs/{id}/result", headers={**ALICE, "Range": "bytes=5-70004"})[::2] == (206, whole[5:70005])
    status, headers, text = over.curl(f"/jobs/{id}/result", "-I", headers=ALICE)
    assert (status, int(headers["content-length"]), text) == (200, len(whole), b"")
    status, headers, events = over.curl(f"/jobs/{id}/events", headers=ALICE)
    assert status == 200 and b"event: completed" in events and headers["x-accel-buffering"] == "no"


def test_a_stream_that_is_reset_cancels_its_job_and_no_other(jobs, h2):
    service = jobs(server=h2.listen + SERVER, http=HTTP, workers=[simulate(slots=2, service_time="60s")])
    connection = h2.connect()
    for stream in (1, 3):
        connection.ask(stream, "/v1/completions", headers=[("authorization", "a"), ("content-type", "application/json")])
        connection.send(DATA, END_STREAM, stream, json.dumps(BODY).encode())
    service.penstockd.wait_for(running=2)
    connection.send(RST_STREAM, 0, 1, struct.pack(">I", 8))  # CANCEL
    service.penstockd.wait_for(running=1)
    until(lambda: service.get("/quota", Authorization="a").json()["concurrency"]["in_use"] == 1, "its lease came back")
    connection.send(RST_STREAM, 0, 3, struct.pack(">I", 8))
    service.penstockd.wait_for(running=0)
    connection.ask(5, "/quota", method="GET", headers=[("authorization", "a")], ends=True)
    assert json.loads(connection.body(5))["concurrency"]["in_use"] == 0
    connection.close()


@pytest.mark.parametrize("limit, size, code", [("", 5_000_000, "too_large"),
                                               ("penstock_limit zone=edge key=all rate=1r/h name=a;", 10, "rate_limit_exceeded")])
def test_who_is_refused_is_told_before_the_body_has_come_and_may_ask_again(penstock, h2, limit, size, code):
    service = penstock(http="penstock_zone edge 1m;", workers=[simulate(slots=1, service_time="1ms")],
                       server=h2.listen + f"location / {{ {limit} penstock_pass gpu; }} location = /quota {{ penstock_quota; }}")
    assert service.complete().status == 200
    connection = h2.connect()
    connection.ask(1, "/v1/completions", headers=[("content-length", str(size)), ("content-type", "application/json")])
    text = b""
    while not text.endswith(b"}}\n"):
        kind, _, stream, payload = connection.receive()
        assert stream == 1 and kind in (HEADERS, DATA), (kind, payload)
        text += payload if kind == DATA else b""
    assert json.loads(text)["error"]["code"] == code
    connection.send(RST_STREAM, 0, 1, struct.pack(">I", 8))
    connection.ask(3, "/nowhere", method="PUT", ends=True)
    while True:
        kind, flags, stream, payload = connection.receive()
        if stream == 3 and flags & END_STREAM:
            break
        assert kind != GOAWAY, payload
    connection.close()


@pytest.mark.parametrize("limit, size, status", [("", 5_000_000, 413), ("penstock_limit zone=edge key=all rate=1r/h name=a;", 10, 429),
                                                 ("penstock_limit zone=edge key=all rate=1r/h name=a;", 900_000, 429)])
def test_over_http_3_too_a_refusal_reaches_who_sends_a_body(penstock, h3, limit, size, status):
    service = penstock(http="penstock_zone edge 1m;", workers=[simulate(slots=1, service_time="1ms")],
                       server=h3.listen + f"location / {{ {limit} penstock_pass gpu; }}")
    assert service.complete().status == 200
    assert h3.curl("/v1/completions", body={**BODY, "prompt": "x" * size})[0] == status


def test_a_stream_over_quic_waits_is_cancelled_alone_and_ends_with_its_connection(jobs, h3):
    service = jobs(server=h3.listen + "keepalive_timeout 1s;" + SERVER, workers=[simulate(slots=2, tokens_per_second=30)])
    ask = dict(path="/v1/completions", body={**BODY, "stream": True, "max_tokens": 2000}, headers=ALICE)
    curl, (first, second) = h3.streams(**ask, count=2)
    assert first.readline().startswith(b"data: ") and second.readline().startswith(b"data: ")
    late_curl, (late,) = h3.streams(**ask, count=1)
    service.penstockd.wait_for(running=2, length=1)
    first.close()
    assert any(line.startswith(b"data: ") for line in late)
    service.penstockd.wait_for(running=2, length=0)
    until(lambda: service.get("/quota", **ALICE).json()["concurrency"]["in_use"] == 2, "its lease came back")
    assert second.readline() == b"\n" and second.readline().startswith(b"data: ")
    for one in (curl, late_curl):  # they say nothing: QUIC's idle timeout, here keepalive_timeout, ends what they asked for
        one.kill()
        one.wait()
    service.penstockd.wait_for(running=0)
    second.close()
    late.close()
