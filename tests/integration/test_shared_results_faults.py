"""Large results of shared jobs where something is wrong: what lies there is not what was put, a store is away, a host dies between two
steps; in parts, and by addresses that hold for a while."""

import hashlib
import hmac
import http.client
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing, suppress

import pytest

from processes import BUILD
from shared_hosts import ALICE, BOB, LEASE, get, redis, until_known, until_status  # noqa: F401 (redis is a fixture)
from test_results_storage import Front
from test_shared_results import HUGE, LARGE, BODY, Line, Stored, content, done, host, model, promise, text  # noqa: F401 (host and model are fixtures)
from waiting import until


@pytest.fixture
def bucket(folder):
    with closing(Stored(folder, "s3")) as stored:
        yield stored


@pytest.fixture
def place(folder):
    return Stored(folder, "folder")


# ---- in parts

def test_a_result_larger_than_a_part_goes_up_in_parts_and_comes_back_whole(host, bucket):  # noqa: F811
    with Front(bucket.s3) as front:  # it looks at each signature
        bucket.yaml = bucket.yaml.replace(bucket.s3.url, front.url)
        edge, gpu = host(bucket), host(bucket, "http")
        until_known(edge)
        id = done(edge, HUGE)
        parts = [path for method, path in front.asked if method == "PUT" and "partNumber=" in path]
        assert len(parts) == 2 and [method for method, path in front.asked if "uploads=" in path or "uploadId=" in path][-1] == "POST"
        assert text(get(edge, f"/jobs/{id}/result")) == content(HUGE)
        part = edge.request("GET", f"/jobs/{id}/result", {**ALICE, "Range": f"bytes={HUGE - 16}-{HUGE - 1}"})
        assert part.status == 206 and len(part.body) == 16


# ---- not what was put

def test_what_is_not_what_was_put_is_told_to_nobody(host, place):  # noqa: F811
    edge, gpu = host(place), host(place, "http")
    until_known(edge)
    id = done(edge, LARGE)
    file = place.folder / place.names()[0]
    good = file.read_bytes()
    file.write_bytes(good[:-20] + b"#" + good[-19:])
    for service in (edge, gpu):
        for headers in (ALICE, {**ALICE, "Range": "bytes=0-9"}):
            reply = service.request("GET", f"/jobs/{id}/result", headers)
            assert (reply.status, reply.json()["error"]["code"]) == (503, "busy") and b"0123456789" not in reply.body
            assert int(reply.headers["Retry-After"]) >= 1
        assert not list(service.penstockd.folder.glob("state/fetched/*"))
        assert "a result cannot be had" in service.penstockd.process.text()
    file.write_bytes(good)  # as from a copy
    assert text(get(edge, f"/jobs/{id}/result")) == content(LARGE)
    file.unlink()
    assert text(get(edge, f"/jobs/{id}/result")) == content(LARGE)  # which it has
    assert get(gpu, f"/jobs/{id}/result").status == 404


# ---- addresses

def test_an_address_gives_ranges_to_who_may_see_the_job_and_holds_for_a_while(host, folder):  # noqa: F811
    with closing(Stored(folder, "redirect")) as stored:
        edge, gpu = host(stored), host(stored, "http")
        until_known(edge)
        id = done(edge, LARGE)
        for service in (edge, gpu):
            refused = get(service, f"/jobs/{id}/result", BOB)
            assert refused.status == 404 and refused.headers["Location"] is None
            sent = get(service, f"/jobs/{id}/result")
            assert sent.status == 302 and sent.headers["Cache-Control"] == "no-store"
            address = sent.headers["Location"]
            assert urllib.parse.parse_qs(urllib.parse.urlsplit(address).query)["X-Amz-Expires"] == ["300"]
            with urllib.request.urlopen(address) as whole:
                body = whole.read()
            with urllib.request.urlopen(urllib.request.Request(address, headers={"Range": "bytes=16-31"})) as part:
                assert (part.status, part.read()) == (206, body[16:32])
            assert is_signed(address) and not is_signed(address.replace("X-Amz-Expires=300", "X-Amz-Expires=3000"))
        said = subprocess.run([BUILD / "results_client", stored.s3.url, "results-bucket", "url", "results/" + stored.names()[0], "1"],
                              capture_output=True, text=True, check=True, env={"AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER"})
        until(lambda: status_of(said.stdout.strip()) == 403, "an address of a second is over")


def is_signed(address):
    """By our own reckoning (AWS Signature Version 4, in a query): s3rver does not look."""
    parts = urllib.parse.urlsplit(address)
    query = sorted(parts.query.split("&"))
    fields = dict(each.split("=", 1) for each in query)
    canonical = "\n".join(["GET", parts.path, "&".join(each for each in query if not each.startswith("X-Amz-Signature=")),
                           f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"])
    scope = urllib.parse.unquote(fields["X-Amz-Credential"]).split("/", 1)[1]
    text = "\n".join(["AWS4-HMAC-SHA256", fields["X-Amz-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4S3RVER"
    for step in (*scope.split("/"), text):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(key.hex(), fields["X-Amz-Signature"])


def status_of(address):
    try:
        with urllib.request.urlopen(address) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


# ---- who dies, or is away

class Held(Line):
    """A line to Redis on which the request that tells of a stored result does not come through."""

    def _pass(self, source, to, up, cut):
        try:
            while data := source.recv(1 << 20):
                self._named += up * len(re.findall(rb"job_\w{26}\.\w+", data))
                if self._named >= 2:
                    self.lost.set()
                    return  # held, and the connection with it
                to.sendall(data)
        except OSError:
            pass


def test_what_a_host_put_that_died_before_it_told_of_it_is_removed(host, place, redis, folder):  # noqa: F811
    edge = host(place)
    line = Held(str(folder / "line.sock"), str(redis.socket))
    try:
        gpu = host(place, "http", at=folder / "line.sock")
        until_known(edge)
        id = promise(edge, {**BODY, "prompt": str(LARGE)}).json()["id"]
        assert line.lost.wait(20)
        orphan, = place.names()
        gpu.penstockd.kill()
    finally:
        line.close()
    host(place, "http")
    until_status(edge, id, "completed", LEASE + 15)
    assert orphan in place.names() and len(place.names()) == 2
    notes = "penstock:q1:{default}:g"
    assert orphan.encode() in redis.ask("ZRANGE", notes, 0, -1)
    redis.ask("ZADD", notes, 1, orphan)  # its time has come
    until(lambda: orphan not in place.names(), "it is removed", 30)
    kept, = place.names()
    assert kept.startswith(f"{id}.") and text(get(edge, f"/jobs/{id}/result")) == content(LARGE)


def test_while_the_store_is_away_jobs_with_more_than_redis_keeps_fail_and_say_so(host, bucket):  # noqa: F811
    edge, gpu = host(bucket, attempts=1), host(bucket, "http", attempts=1)
    until_known(edge)
    bucket.s3.stop()
    id = promise(edge, {**BODY, "prompt": str(HUGE)}).json()["id"]
    seen = until_status(edge, id, "failed", 30)
    assert (seen["error"]["code"], seen["error"]["message"]) == ("engine_failed", "Its result could not be stored.")
    for service in (edge, gpu):
        assert get(service, f"/jobs/{id}/result").status == 502
    with suppress(http.client.IncompleteRead):  # who waits may have had all of it, or the beginning
        assert edge.request("POST", "/v1/completions", ALICE, {**BODY, "prompt": str(HUGE)}).status in (200, 502)
    bucket.s3.start()
    done(edge, HUGE)
