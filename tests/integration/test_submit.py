"""penstockctl submit: a file of requests goes through the whole service, or a server of the test's own that is difficult."""

import http.server
import json
import signal
import subprocess
import threading
import time
from collections import Counter

import pytest

from conftest import simulate
from processes import BUILD, environment, sanitizer_reports
from test_jobs import jobs  # noqa: F401 (jobs is a fixture)
from test_operator import Terminal
from waiting import until

KEY = "sk-alice"


def write_batch(folder, count, body=None, url="/v1/completions"):
    path = folder / "batch.jsonl"
    path.write_text("".join(json.dumps({"custom_id": f"line-{i}", "method": "POST", "url": url,
                                        "body": body or {"model": "sim", "prompt": f"Tell me {i}", "max_tokens": 4}}) + "\n"
                            for i in range(count)))
    return path


def results_of(batch):
    text = batch.with_suffix(".results.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def start(folder):
    """start(url, BATCH, ...): penstockctl submit as it runs."""
    running = []

    def run(url, *arguments, **variables):
        running.append(subprocess.Popen([BUILD / "penstockctl", "submit", *map(str, arguments), "--url", url],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**environment(folder), "PENSTOCK_KEY": KEY, **variables}))
        return running[-1]
    yield run
    for process in running:
        process.kill()
        process.communicate()
    assert not sanitizer_reports(folder)


@pytest.fixture
def submit(start):
    """The same, to its end: (exit status, stdout, stderr)."""
    def run(url, *arguments, **variables):
        process = start(url, *arguments, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err
    return run


def url_of(service):
    return f"http://127.0.0.1:{service.port}"


def counters(service):
    return json.loads(service.penstockd.status())["counters"]


class Server:
    """Answers each POST by the next of `answers`, or as that says of its body, for its Idempotency-Key, the last again and again."""

    def __init__(self, *answers, hold=0):
        self.answers, self.hold = answers, hold
        self.requests = []  # (when, method, path, headers, body)
        self.most, self._now, self._lock = 0, 0, threading.Lock()
        self._seen = Counter()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with server._lock:
                    server.requests.append((time.monotonic(), self.command, self.path, self.headers, body))
                    server._now += 1
                    server.most = max(server.most, server._now)
                    key = self.headers.get("Idempotency-Key", self.path)
                    answer = server.answers[min(server._seen[key], len(server.answers) - 1)]
                    status, headers, text = answer(body) if callable(answer) else answer
                    server._seen[key] += 1
                time.sleep(server.hold)
                with server._lock:
                    server._now -= 1
                self.send_response(status)
                for name, value in {"Content-Length": len(text), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = handle_any

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server():
    servers = []

    def build(*answers, **more):
        servers.append(Server(*answers, **more))
        return servers[-1]
    yield build
    for one in servers:
        one.close()


OK = (200, {}, '{"ok":true}')


def test_each_line_gets_its_result(jobs, folder, submit):  # noqa: F811
    service = jobs(workers=[simulate(slots=4, service_time="10ms")])
    batch = write_batch(folder, 20)
    status, out, err = submit(url_of(service), batch, "--concurrency", 3)
    assert (status, err) == (0, "")
    assert out == f"20 requests: 20 answered, 0 failed; results in {batch.with_suffix('.results.jsonl')}\n"
    results = results_of(batch)
    assert sorted(each["custom_id"] for each in results) == sorted(f"line-{i}" for i in range(20))
    for each in results:
        assert each["error"] is None and each["id"].startswith("batch_req_")
        assert each["response"]["status_code"] == 200 and each["response"]["request_id"].startswith("job_")
        assert each["response"]["body"]["object"] == "text_completion"
    assert counters(service)["completed"] == 20
    assert json.loads(submit(url_of(service), batch, "--json")[1])["completed"] == 20
    assert counters(service)["accepted"] == 20, "what has its result is not asked for again"


def test_after_a_kill_it_goes_on_and_nothing_runs_twice(jobs, folder, start, submit):  # noqa: F811
    service = jobs(workers=[simulate(slots=2, service_time="150ms")])
    batch = write_batch(folder, 12)
    results = batch.with_suffix(".results.jsonl")
    for done in (2, 5, 8):
        process = start(url_of(service), batch, "--concurrency", 3)
        until(lambda: results.exists() and results.read_text().count("\n") >= done, f"{done} are done")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open(results, "a") as file:
            file.write('{"id":"batch_req_')  # as if it had been cut off in the middle of a line
    status, out, err = submit(url_of(service), batch, "--concurrency", 3)
    assert status == 0, err
    assert sorted(each["custom_id"] for each in results_of(batch)) == sorted(f"line-{i}" for i in range(12))
    assert all(each["response"]["status_code"] == 200 for each in results_of(batch))
    counts = counters(service)
    assert counts["completed"] == 12 and counts["cancelled"] == 0, counts


def test_a_job_that_takes_long_is_promised_and_asked_for(jobs, folder, submit):  # noqa: F811
    service = jobs(workers=[simulate(slots=2, service_time="6s")])
    batch = write_batch(folder, 2)
    assert submit(url_of(service), batch)[0] == 0
    assert all(each["response"]["body"]["object"] == "text_completion" for each in results_of(batch))
    assert counters(service)["completed"] == 2 and counters(service)["duplicates"] == 0


def test_it_outlives_penstockd(jobs, folder, start):  # noqa: F811
    service = jobs(workers=[simulate(slots=2, service_time="100ms")])
    batch = write_batch(folder, 12)
    process = start(url_of(service), batch, "--concurrency", 3)
    results = batch.with_suffix(".results.jsonl")
    until(lambda: results.exists() and results.read_text().count("\n") >= 2, "two are done")
    service.penstockd.kill()
    service.penstockd.start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert Counter(each["response"]["status_code"] for each in results_of(batch)) == {200: 12}


def test_what_the_limits_refuse_comes_in_when_they_say(jobs, folder, submit):  # noqa: F811
    service = jobs(http="penstock_zone edge 1m;\npenstock_tier free { rate 2r/s burst=1; concurrency 2; }\n")
    batch = write_batch(folder, 4)
    begun = time.monotonic()
    status, _, err = submit(url_of(service), batch, "--concurrency", 4)
    assert status == 0, err
    assert time.monotonic() - begun >= 1.5
    assert len(results_of(batch)) == 4


def test_retry_after_holds_every_request_back(folder, server, submit):
    refused = (429, {"Retry-After": "2"}, '{"error":{"code":"rate_limit_exceeded"}}')
    one = server(refused, OK)
    batch = write_batch(folder, 3)
    assert submit(one.url, batch, "--concurrency", 1)[0] == 0
    times = [request[0] for request in one.requests]
    assert len(times) == 6
    assert all(2 <= times[i + 1] - times[i] < 4 for i in (0, 2, 4)), "none is sent before, and it is not long after"


@pytest.mark.parametrize("status", [401, 403])
def test_a_caller_who_is_refused_stops_soon_and_the_right_key_goes_on(folder, server, submit, status):
    refused = (status, {}, '{"detail":"This key is not known."}')
    one = server(refused)
    batch = write_batch(folder, 50)
    exit_status, out, err = submit(one.url, batch, "--concurrency", 1)
    assert (exit_status, out) == (1, "") and len(one.requests) == 3
    assert f"refuses this caller: {status} This key is not known." in err and "PENSTOCK_KEY" in err and "50 not done" in err
    assert results_of(batch) == [], "nothing is final"
    right = server(OK)
    assert submit(right.url, batch)[0] == 0 and len(right.requests) == 50


def test_a_request_that_is_refused_to_this_caller_alone_is_left_for_another_run(folder, server, submit):
    batch = write_batch(folder, 4)
    one = server(lambda body: OK if json.loads(body)["prompt"] in ("Tell me 1", "Tell me 3") else (403, {}, "{}"))
    status, _, err = submit(one.url, batch, "--concurrency", 1)
    assert status == 1 and "2 answered, 0 failed, 2 not done" in err
    assert [each["custom_id"] for each in results_of(batch)] == ["line-1", "line-3"]
    one.answers = (OK,)
    assert submit(one.url, batch)[0] == 0 and len(results_of(batch)) == 4


def test_a_batch_comes_by_a_pipe(folder, server):
    one = server(OK)
    batch, out = write_batch(folder, 5), folder / "out.jsonl"
    for command in ("cat {batch} | {submit} - --output {out}1", "{submit} <(cat {batch}) --output {out}2", "{submit} /dev/stdin --output {out}3 < {batch}"):
        done = subprocess.run(["bash", "-c", command.format(batch=batch, out=out, submit=f"{BUILD}/penstockctl submit --url {one.url}")],
                              capture_output=True, text=True, timeout=60, env=environment(folder))
        assert done.returncode == 0, done.stderr
    assert [len((folder / f"out.jsonl{i}").read_text().splitlines()) for i in (1, 2, 3)] == [5, 5, 5]
    nowhere = subprocess.run([BUILD / "penstockctl", "submit", "-", "--url", one.url], input=batch.read_text(), capture_output=True, text=True, timeout=60,
                             env=environment(folder))
    assert nowhere.returncode == 2 and "--output" in nowhere.stderr and len(one.requests) == 15


def test_failures_are_results_too_and_the_exit_status_is_1(folder, server, submit):
    one = server((400, {}, '{"error":{"code":"invalid_request"}}'))
    batch = write_batch(folder, 2)
    status, out, err = submit(one.url, batch)
    assert status == 1 and out == "" and "0 answered, 2 failed" in err
    assert [each["response"]["status_code"] for each in results_of(batch)] == [400, 400]
    assert submit(one.url, batch)[0] == 1
    assert len(one.requests) == 2, "they are not sent again"
    (folder / "odd").write_text("not a batch\n")
    assert submit(one.url, folder / "odd")[0] == 1 and len(one.requests) == 2


def test_a_job_that_failed_is_final_and_nginx_that_reached_nobody_is_not(jobs, folder, server, submit):  # noqa: F811
    service = jobs(workers=[simulate(slots=2, service_time="1ms", failure_rate=1)], queue={"attempts": 2})
    batch = write_batch(folder, 2)
    assert submit(url_of(service), batch)[0] == 1
    assert [each["response"]["status_code"] for each in results_of(batch)] == [502, 502]
    assert counters(service)["accepted"] == 2
    nginx = server((502, {}, '{"error":{"code":"engine_failed"}}'), OK)
    assert submit(nginx.url, batch, "--output", folder / "other.jsonl")[0] == 0 and len(nginx.requests) == 4


def test_a_promise_that_leads_elsewhere_is_not_followed(folder, server, submit):
    elsewhere = server(OK)
    one = server((202, {"Location": elsewhere.url + "/jobs/1"}, "{}"))
    batch = write_batch(folder, 1)
    assert submit(one.url, batch)[0] == 1
    assert results_of(batch)[0]["error"]["code"] == "no_location" and elsewhere.requests == []


def test_no_faster_than_told_and_no_more_at_once(folder, server, submit):
    slow = server(OK, hold=0.05)
    assert submit(slow.url, write_batch(folder, 12), "--concurrency", 3)[0] == 0
    assert slow.most == 3
    paced = server(OK)
    assert submit(paced.url, write_batch(folder, 4), "--rate", "2/500ms", "--output", folder / "paced.jsonl")[0] == 0
    times = [request[0] for request in paced.requests]
    assert all(b - a >= 0.2 for a, b in zip(times, times[1:])), times  # as they arrive: the first may be late


def test_the_key_goes_in_a_header_and_nowhere_else(folder, server, submit):
    one = server((401, {}, "{}"))
    (folder / "key").write_text("sk-from-a-file\nrest\n")
    batch = write_batch(folder, 1)
    said = submit(one.url, batch) + submit(one.url, batch, "--key-file", folder / "key", "--output", folder / "b.jsonl")
    assert [request[3]["Authorization"] for request in one.requests] == ["Bearer sk-alice", "Bearer sk-from-a-file"]
    assert not any("sk-" in str(part) for part in said)
    assert len({request[3]["Idempotency-Key"] for request in one.requests}) == 1
    assert one.requests[0][3]["Prefer"].startswith("respond-async")


def test_two_cannot_write_the_same_results(folder, server, start, submit):
    one = server(OK, hold=3)
    batch = write_batch(folder, 1)
    first = start(one.url, batch)
    until(lambda: one.requests, "the first is at work")
    status, _, err = submit(one.url, batch)
    assert status == 1 and "another submit" in err
    assert first.wait(30) == 0


def test_a_terminal_sees_how_far_it_is(folder, server):
    one = server(OK, hold=0.2)
    command = [str(BUILD / "penstockctl"), "submit", str(write_batch(folder, 4)), "--url", one.url, "--concurrency", "1"]
    screen = Terminal(command, environment(folder))
    screen.read_until(b"2/4, 1 at work, about 1 s left")
    screen.read_until(b"4 requests: 4 answered")


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--rate", "fast"], ["a", "--concurrency", "0"], ["a", "--concurrency", "x"],
                                       ["a", "--url", "ftp://a"], ["a", "--url", "http://k:s@a"]], ids=str)
def test_misuse_is_2(folder, arguments):
    done = subprocess.run([BUILD / "penstockctl", "submit", *arguments], capture_output=True, text=True, env=environment(folder),
                          timeout=30)
    assert done.returncode == 2 and "usage: penstockctl submit" in done.stderr
