"""Results that many hosts share, in a real server of S3's protocol (s3rver, from npm), as worker/queue/results puts and gets them."""

import hashlib
import hmac
import http.server
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request

import pytest

from npm import installed
from processes import BUILD
from waiting import Port, until

BUCKET = "results-bucket"


class Server:
    """s3rver, with one bucket, in a folder."""

    def __init__(self, folder):
        self.folder = folder / "s3"
        self._free = Port()
        self.port = self._free.number
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        home = installed("s3rver")
        self._process = subprocess.Popen(
            ["node", home / "node_modules/s3rver/bin/s3rver.js", "-d", self.folder, "-a", "127.0.0.1", "-p", str(self.port), "--silent",
             "--configure-bucket", BUCKET], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: socket.socket().connect_ex(("127.0.0.1", self.port)) == 0, "s3rver to listen")

    def stop(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def file(self, name):
        return self.folder / BUCKET / "results" / f"{name}._S3rver_object"


class Front:
    """Stands before a server and checks signatures, by its own reckoning, as S3 does and s3rver does not. The first requests by `method`, with
    `where` in their address, it answers itself."""

    def __init__(self, server, times=0, method="PUT", where="", status=503, body=b""):
        front, self.asked, self.refused, self.file = self, [], 0, server.file
        self.gates = {}  # by method: what it waits for before it is answered

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self):
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                front.asked.append((self.command, self.path))
                if self.command in front.gates:
                    front.gates[self.command].wait(30)
                if self.command == method and where in self.path and front.refused < times:
                    front.refused += 1
                    return self._say(status, {}, body)
                if hashlib.sha256(sent).hexdigest() != self.headers["x-amz-content-sha256"]:
                    return self._say(400, {}, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>")
                if not signed_by("S3RVER", self.command, self.path, self.headers):
                    return self._say(403, {}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
                ask = urllib.request.Request(server.url + self.path, sent, dict(self.headers), method=self.command)
                try:
                    with urllib.request.urlopen(ask) as answer:
                        self._say(answer.status, answer.headers, answer.read())
                except urllib.error.HTTPError as error:
                    self._say(error.code, error.headers, error.read())

            def _say(self, code, headers, content):
                self.send_response(code)
                for name in ("ETag", "Content-Range"):
                    if name in headers:
                        self.send_header(name, headers[name])
                if code != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_PUT = do_GET = do_POST = do_DELETE = _answer

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def signed_by(secret, method, target, headers):
    """Whether the request is signed so (AWS Signature Version 4)."""
    found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=[^/]+/((\d{8})/([^/]+)/s3/aws4_request),\s*SignedHeaders=([^,]+),\s*Signature=(\w+)",
                         headers["Authorization"])
    scope, day, region, names, signature = found.groups()
    assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names.split(";")) and names == ";".join(sorted(names.split(";")))
    path, _, query = target.partition("?")
    canonical = "\n".join([method, path, "&".join(sorted(query.split("&"))), *(f"{name}:{headers[name]}" for name in names.split(";")), "",
                           names, headers["x-amz-content-sha256"]])
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for step in (day, region, "s3", "aws4_request", text):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(key.hex(), signature)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def server(s3):
    with Front(s3) as front:
        yield front


def client(url, *words, secret="S3RVER"):
    """(whether it was done, what it said)"""
    done = subprocess.run([BUILD / "results_client", url, BUCKET, *map(str, words)], capture_output=True, timeout=60,
                          env={**os.environ, "AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": secret})
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0, done.stdout


def put(server, folder, name, content, *more):
    (folder / "from").write_bytes(content)
    good, said = client(server.url, "put", name, folder / "from", *more)
    assert good, said
    assert said.decode().split() == [str(len(content)), hashlib.sha256(content).hexdigest()]
    return said.decode().split()


def get(server, folder, name, size, digest):
    return client(server.url, "get", name, size, digest, folder / "into")


def test_what_is_put_is_there_for_all(server, tmp_path):
    content = os.urandom(300_000)
    size, digest = put(server, tmp_path, "job_01.7", content)
    assert get(server, tmp_path, "job_01.7", size, digest) == (True, b"")
    assert (tmp_path / "into").read_bytes() == content


def test_a_large_result_goes_up_in_parts(server, tmp_path):
    content = os.urandom(12 << 20)
    size, digest = put(server, tmp_path, "large", content, 5 << 20)
    assert get(server, tmp_path, "large", size, digest) == (True, b"")
    assert (tmp_path / "into").read_bytes() == content
    assert client(server.url, "read", "large", (5 << 20) - 2, 4) == (True, content[(5 << 20) - 2:(5 << 20) + 2])


def test_an_empty_result_is_one(server, tmp_path):
    put(server, tmp_path, "empty", b"")
    assert server.file("empty").read_bytes() == b""


def test_a_part_is_read(server, tmp_path):
    put(server, tmp_path, "digits", b"0123456789")
    assert client(server.url, "read", "digits", 0, 10) == (True, b"0123456789")
    assert client(server.url, "read", "digits", 3, 4) == (True, b"3456")
    for first in (8, 20):
        good, said = client(server.url, "read", "digits", first, 4)
        assert not good and b"gone " in said, "it ends before"


def test_what_is_removed_is_gone(server, tmp_path):
    size, digest = put(server, tmp_path, "short", b"text")
    assert client(server.url, "remove", "short") == (True, b"")
    assert client(server.url, "remove", "short") == (True, b"")
    good, said = get(server, tmp_path, "short", size, digest)
    assert not good and said.startswith(b"gone ") and b"NoSuchKey" in said


def test_what_is_not_what_was_put_is_no_result(server, tmp_path):
    size, digest = put(server, tmp_path, "changed", b"0123456789")
    server.file("changed").write_bytes(b"0123456780")
    good, said = get(server, tmp_path, "changed", size, digest)
    assert not good and said.startswith(b"corrupt ")


def test_a_wrong_key_is_refused(server, tmp_path):
    (tmp_path / "from").write_bytes(b"text")
    good, said = client(server.url, "put", "mine", tmp_path / "from", secret="wrong")
    assert not good and said.startswith(b"refused ") and b"403, SignatureDoesNotMatch" in said and b"look at the key" in said
    assert not server.file("mine").exists()


def test_anybody_may_read_by_a_signed_address(s3, server, tmp_path):
    put(server, tmp_path, "signed", b"text")
    good, said = client(s3.url, "url", "signed", 60)
    address = said.decode().strip()
    assert good and urllib.request.urlopen(address).read() == b"text"


def test_a_server_that_is_away_is_busy(tmp_path):
    server = Server(tmp_path)
    put(server, tmp_path, "a", b"text")
    server.stop()
    good, said = client(server.url, "read", "a", 0, 4)
    assert not good and said.startswith(b"busy ")
    server.start()
    assert client(server.url, "read", "a", 0, 4) == (True, b"text")
    server.stop()


def test_a_request_that_the_server_cannot_do_now_is_made_again(s3, tmp_path):
    with Front(s3, times=2) as front:
        put(front, tmp_path, "again", b"text")
        assert [method for method, _ in front.asked] == ["PUT"] * 3
    assert s3.file("again").read_bytes() == b"text"
    with Front(s3, times=3) as front:
        good, said = client(front.url, "put", "never", tmp_path / "from")
        assert not good and said.startswith(b"busy ")


def test_an_upload_that_fails_leaves_no_parts(s3, tmp_path):
    (tmp_path / "from").write_bytes(os.urandom(6 << 20))
    with Front(s3, times=1, status=403) as front:
        good, said = client(front.url, "put", "failed", tmp_path / "from", 5 << 20)
        assert not good and said.startswith(b"refused ")
        method, path = front.asked[-1]
        assert method == "DELETE" and "uploadId=" in path
    assert not s3.file("failed").exists()


def test_an_upload_that_ends_with_an_error_behind_a_200_has_failed(s3, tmp_path):
    (tmp_path / "from").write_bytes(os.urandom(6 << 20))
    with Front(s3, times=1, method="POST", where="uploadId=", status=200, body=b"<Error><Code>InternalError</Code></Error>") as front:
        good, said = client(front.url, "put", "ended", tmp_path / "from", 5 << 20)
        assert not good and b"InternalError" in said
