"""Engine http against what servers really send: each of tests/engine_cases through a real worker, judged by what its penstockd
would hear, by what reached the server, and by the worker's log. The fixtures' format is told in tests/engine_cases/README.md."""

import json
import sys
import time
from pathlib import Path

import pytest

CASES = Path(__file__).parents[1] / "engine_cases"
sys.path.insert(0, str(CASES))

from processes import ASAN, BUILD  # noqa: E402
from upstream import Upstream, blocks, body_of  # noqa: E402
from waiting import until  # noqa: E402
from wire import FAILED  # noqa: E402
from worker import Worker  # noqa: E402

FIXTURES = sorted(CASES.glob("*.json"), key=lambda path: int(path.name.split("_")[0]))
LARGE = 32 << 20  # bytes of an answer that the test does not hold
ROUNDING_MS = 60


def case(path):
    return json.loads(path.read_text())


def http_cases():
    return [path for path in FIXTURES if case(path)["kind"] == "http"]


def options_of(config, port):
    """The section of penstock.yaml as the worker's command line has it."""
    options = {"url": f"http://127.0.0.1:{port}"}
    for key, value in config.items():
        if key in ("timeouts", "backoff"):
            prefix = "backoff_" if key == "backoff" else ""
            options |= {f"{prefix}{name}_ns": ms * 1_000_000 for name, ms in value.items()}
        elif key in ("linger", "max_hold"):
            options[f"{key}_ns"] = value * 1_000_000
        elif key != "attempts":
            options[key] = value
    return options


def decoded(pieces):
    """The body of an answer in HTTP/1, gunzipped."""
    data = b"".join(block for _, piece in pieces if piece not in ("close", "reset", "hold") for block in blocks(piece))
    while True:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        if int(lines[0].split()[1]) >= 200:
            break
    headers = dict(line.split(b":", 1) for line in lines[1:])
    if b"transfer-encoding" in headers:
        body = b""
        while data:
            size, _, data = data.partition(b"\r\n")
            size = int(size.split(b";")[0], 16)
            body, data = body + data[:size], data[size + 2:] if size else b""
        return body
    return data[:int(headers.get(b"content-length", len(data)))]


def wanted_body(caller, upstream):
    body = upstream if caller["body"] == "=upstream" else caller["body"].encode()
    for without in caller.get("without", []):
        at = body.rfind(without.encode())
        assert at >= 0
        body = body[:at] + body[at + len(without.encode()):]
    return body + caller.get("append", "").encode()


def within(value, wanted):
    least, most = wanted if isinstance(wanted, list) else (wanted, wanted)
    return least <= value <= most


class Run:
    """One fixture, run."""

    def __init__(self, fixture, folder):
        self.fixture, self.expect = fixture, fixture["expect"]
        self.request, self.body = fixture["request"], body_of(fixture["request"])
        first = {"when": fixture.get("when", "request"), "pieces": fixture["pieces"]}
        # What a worker holds is judged of a second job: of the first, half is what it has not touched before.
        self.warm = 1 if "peak_rss_growth_max" in self.expect else 0
        self.runs = [first] * self.warm + [first, *fixture.get("then", [])]
        self.upstream = Upstream(self.runs)
        self.worker = Worker(folder, BUILD / "penstock-worker", "http",
                             options_of(fixture.get("config", {}), self.upstream.port))
        self.returns, self.number = [], 0

    def close(self):
        self.worker.close()
        self.upstream.close()

    def submit(self):
        self.number += 1
        return self.worker.submit(self.number, self.request, self.body)

    def over(self, job, seconds=20):
        until(lambda: job.end, lambda: f"the job is over: {self.worker.log()}", seconds)
        return job

    def run(self):
        for _ in range(self.expect.get("jobs", 1) - 1 + self.warm):
            self.over(self.submit())
        resident = self.worker.forget_peak()
        job = self.submit()
        if "caller" in self.fixture:
            self.leave(job)
        else:
            self.over(job)
        while job.outcome() == "returned" and self.expect["outcome"] != "returned":
            self.returns.append(job.ended)
            until(lambda: self.worker.slots[-1][1]["slots"] > 0, "the url takes jobs again")
            self.held(job)
            job = self.over(self.submit())
        self.grown = self.worker.resident("VmHWM") - resident
        return job

    def leave(self, job):
        """The caller goes."""
        leaves = self.fixture["caller"]
        if "leaves_after_bytes" in leaves:
            until(lambda: len(job.body) >= leaves["leaves_after_bytes"], "enough came")
        else:
            until(lambda: self.upstream.exchanges, "the server has the request")
            time.sleep(leaves["leaves_after_ms"] / 1000)
        self.worker.leave(job)

    def held(self, job):
        """The url took no job for as long as it should, from when this one was given back."""
        closed, opened = None, None
        for at, slots in self.worker.slots:
            if slots["slots"] == 0 and at <= job.ended:
                closed = (at, slots)
            elif slots["slots"] > 0 and at > job.ended and opened is None:
                opened = at
        assert closed, "the slots were closed before the job came back"
        least, most = self.expect["hold_ms"]
        assert least - ROUNDING_MS <= closed[1]["retry_ms"] <= most, closed
        if opened:
            assert least - ROUNDING_MS <= (opened - closed[0]) * 1000 <= most
        return closed[1]


def check_caller(run, job, caller):
    if caller is None:
        assert job.head is None or run.expect["outcome"] == "cancelled"
        return
    if caller.get("content_type") == "application/problem+json":
        assert job.head is None
        assert (job.end["status"], job.end["code"]) == (caller["status"], caller["json"]["error.code"])
        assert all(text not in job.end["message"] for text in caller.get("body_lacks", []))
        return
    assert (job.head["status"], job.head["content_type"]) == (caller["status"], caller["content_type"])
    headers = dict(line.lower().split(": ", 1) for line in job.head.get("headers", "").splitlines())
    assert headers.items() >= caller.get("headers", {}).items()
    if "body" in caller:
        upstream = decoded(run.runs[-1]["pieces"]) if caller["body"] == "=upstream" else b""
        assert job.body == wanted_body(caller, upstream)
        if "content_length_plus1" in job.head:
            assert job.head["content_length_plus1"] - 1 == len(job.body)
    for name, value in caller.get("json", {}).items():
        at = json.loads(job.body)
        for part in name.split("."):
            at = at[part]
        assert at == value
    assert job.body.startswith(caller.get("starts_with", "").encode())
    assert len(job.body) <= caller.get("max_bytes", len(job.body))
    if wanted := caller.get("ends_with_error"):
        assert (job.end_kind, job.end["status"], job.end["code"]) == (FAILED, wanted["status"], wanted["code"])
        assert wanted.get("message_has", "") in job.end["message"]


def check_usage(run, job, usage):
    if run.expect["outcome"] == "cancelled":
        assert within(len(job.chunks), usage["completion_tokens"])
        return
    if job.end_kind == FAILED or usage is None:  # which says nothing of it
        return
    for name in ("prompt_tokens", "completion_tokens"):
        assert within(job.end.get(name, 0), usage[name]), (name, job.end)
    assert job.end.get("estimated", 0) == (usage["from"] == "estimate")


def check_server(run, job):
    wanted = run.fixture.get("upstream", {})
    exchange = run.upstream.exchanges[-1]
    for name, value in wanted.get("headers_have", {}).items():
        assert exchange.headers[name.lower()] == value
    sent = json.loads(exchange.body) if "body_has" in wanted else {}
    assert sent.items() >= wanted.get("body_has", {}).items()
    assert all(text not in exchange.body.decode() for text in wanted.get("body_lacks", []))
    if not wanted.get("body_has") and exchange.body and b'"stream":true' not in run.body:
        assert exchange.body == run.body
    assert len(run.upstream.exchanges) == run.expect.get("exchanges", 1) + run.warm
    assert run.upstream.complaints == []
    caused = getattr(job, "left", job.ended)
    if run.expect["connection"] == "closed":
        seconds = run.expect.get("closed_within_ms", 1000) / 1000
        until(lambda: exchange.connection in run.upstream.closed, "the connection is closed")
        assert run.upstream.closed[exchange.connection] - caused < seconds + (1 if ASAN else 0.05)
    else:
        time.sleep(0.05)
        assert exchange.connection not in run.upstream.closed


def check_log(run, expected):
    lines = run.worker.log().splitlines()
    if expected is None:
        assert [line for line in lines if "[warn]" in line or "[error]" in line] == []
        return
    assert [line for line in lines if f"[{expected['level']}]" in line and all(text in line for text in expected["says"])], lines
    assert all(text not in run.worker.log() for text in run.expect.get("log_lacks", []))


def grown_again(path, folder):
    folder.mkdir()
    run = Run(case(path), folder)
    try:
        run.run()
        return run.grown
    finally:
        run.close()


@pytest.mark.parametrize("path", http_cases(), ids=lambda path: path.stem)
def test_the_answer_is_what_its_fixture_says(path, tmp_path):
    run = Run(case(path), tmp_path)
    try:
        expect, job = run.expect, run.run()
        assert job.outcome() == expect["outcome"], (job.end, run.worker.log())
        check_caller(run, job, expect["caller"])
        check_usage(run, job, expect["usage"])
        check_server(run, job)
        check_log(run, expect["log"])
        if expect["outcome"] == "returned":
            assert expect.get("status_says", "") in run.held(job)["message"]
        if "last_attempt" in expect:
            check_caller(run, job, expect["last_attempt"]["caller"])
        if "within_ms" in expect:
            assert (job.ended - job.begun) * 1000 < expect["within_ms"]
        if "slot_free_ms" in expect:
            assert within((job.freed - job.left) * 1000, expect["slot_free_ms"])
        if "peak_rss_growth_max" in expect and not ASAN:
            # How much is under way at once hangs on the machine's load; what is held whole is there each time.
            most = expect["peak_rss_growth_max"]
            assert run.grown < most or any(grown_again(path, tmp_path / str(again)) < most for again in (1, 2)), run.grown
    finally:
        run.close()
