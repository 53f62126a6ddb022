"""Traces: from the caller through Nginx and penstockd to engines, webhooks and the job's record; and spans at a collector, whose requests are
read by OpenTelemetry's own package (otlp/decode.mjs)."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from conftest import simulate
from npm import installed
from processes import BUILD
from server import ModelServer, completion
from test_operator import ctl, said  # noqa: F401 (fixtures)
from test_webhooks import SECRET, receiver  # noqa: F401 (a fixture)
from waiting import until

SERVER = """
penstock_owner $http_authorization;
location /v1/ { penstock_limit zone=edge key=$remote_addr rate=1000r/s burst=1000 name=a; penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
"""
HTTP = "penstock_zone edge 1m;"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
PROMPT = "My dear diary, today I met a tall dark stranger"
PROGRAM = """\
import json, sys
print(json.dumps({"penstock": 1}), flush=True)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if "job" in job:
        told = json.dumps({name: job.get(name) for name in ("traceparent", "tracestate")})
        print(json.dumps({"job": job["job"], "result": {"content_type": "application/json", "body": told}}), flush=True)
"""


class Collector:
    """Takes what is POSTed to /v1/traces; `statuses`: of the first answers, in place of 200."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.bodies = []
        self.server = ModelServer(self._answer)
        self.url = self.server.url + "/v1/traces"

    def _answer(self, asked, reply):
        assert asked.method == "POST" and asked.path == "/v1/traces" and asked.headers["Content-Type"] == "application/json"
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.bodies.append(asked.body.decode())
        reply("{}", status=status)

    def spans(self):
        done = subprocess.run(["node", installed("otlp") / "decode.mjs"], input=json.dumps(self.bodies), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def until(self, count):
        """So many spans, by their names."""
        until(lambda: len(re.findall('"spanId"', "".join(self.bodies))) >= count, lambda: f"{count} spans come: {self.bodies}")
        spans = self.spans()
        assert len(spans) == count
        return {span["name"]: span for span in spans}


@pytest.fixture
def collector():
    made = []

    def make(*statuses):
        made.append(Collector(*statuses))
        return made[-1]
    yield make
    for each in made:
        each.server.close()


@pytest.fixture
def upstream():
    server = ModelServer(lambda asked, reply: reply(completion()) if asked.method == "POST" else reply({"data": [{"id": "chat"}]}))
    yield server
    server.close()


def chat(upstream):
    return dict(name="chat", engine="http", url=f'"{upstream.url}"', model="chat", slots=4)


def ask(service, model="chat", path="/v1/chat/completions", **headers):
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]} if "chat" in path else {"model": model, "prompt": PROMPT, "max_tokens": 4}
    return service.request("POST", path, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def posts(upstream):
    return [asked.headers for asked in upstream.asked if asked.method == "POST"]


def traces(collector, sample="parent"):
    return f'traces: {{ url: "{collector.url}", sample: {sample} }}\n'


def test_a_callers_trace_comes_to_the_engine_the_record_and_the_log_with_or_without_a_collector(penstock, upstream):
    service = penstock(http=HTTP, server=SERVER, workers=[chat(upstream)], yaml="state: state\n")
    id = ask(service, traceparent=SAMPLED, tracestate=" a=1,, b@x=2 ", Prefer="respond-async").json()["id"]
    until(lambda: service.get(f"/jobs/{id}").json()["status"] == "completed", "it is done")
    assert service.get(f"/jobs/{id}").json()["trace_id"] == TRACE
    (asked,) = posts(upstream)
    assert asked["traceparent"] == SAMPLED and asked["tracestate"] == "a=1,b@x=2", "as it came: nobody stands between"
    assert f" trace={TRACE} " in service.penstockd.process.text()
    service.penstockd.stop()
    service.penstockd.start()
    assert service.get(f"/jobs/{id}").json()["trace_id"] == TRACE, "it is on disk"


@pytest.mark.parametrize("bad", [f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{SPAN}-01",
                                 SAMPLED + "-more", SAMPLED[:-1], "nonsense", f"00-{TRACE}-{SPAN}-0g"])
def test_a_traceparent_that_breaks_a_rule_goes_no_further(penstock, upstream, collector, bad):
    service = penstock(http=HTTP, server=SERVER, workers=[chat(upstream)], yaml="state: state\n")
    assert ask(service, traceparent=bad, tracestate="a=1").status == 200
    (asked,) = posts(upstream)
    assert asked["traceparent"] is None and asked["tracestate"] is None, "nor does its tracestate"


def test_with_a_collector_a_new_trace_begins_where_there_is_none(penstock, upstream, collector):
    sink = collector()
    service = penstock(http=HTTP, server=SERVER, workers=[chat(upstream)], yaml=traces(sink, 1))
    assert ask(service, traceparent="00-bad-bad-01", tracestate="a=1").status == 200
    (asked,) = posts(upstream)
    version, trace, parent, flags = asked["traceparent"].split("-")
    assert (version, len(trace), len(parent), flags) == ("00", 32, 16, "01") and asked["tracestate"] is None
    spans = sink.until(4)
    assert {span["trace"] for span in spans.values()} == {trace} and spans["job"]["parent"] == ""
    assert spans["run"]["id"] == parent


def test_spans_tell_of_limit_queue_and_run_within_the_callers(penstock, upstream, collector):
    sink = collector()
    service = penstock(http=HTTP, server=SERVER, workers=[chat(upstream)], yaml="state: state\n" + traces(sink))
    answer = ask(service, traceparent=SAMPLED, tracestate="a=1", Authorization="Bearer alice")
    assert answer.status == 200
    spans = sink.until(4)
    job, limit, queue, run = (spans[name] for name in ("job", "limit", "queue", "run"))
    assert {span["trace"] for span in spans.values()} == {TRACE} and {span["scope"] for span in spans.values()} == {"penstock"}
    assert job["parent"] == SPAN and {span["parent"] for span in (limit, queue, run)} == {job["id"]}
    assert len({span["id"] for span in spans.values()}) == 4
    assert (job["kind"], limit["kind"], queue["kind"], run["kind"]) == (2, 1, 5, 3)
    assert job["begin"] <= limit["begin"] <= limit["end"] <= queue["end"] <= run["end"] <= job["end"]
    assert run["attributes"] == {"gen_ai.system": "penstock", "gen_ai.operation.name": "chat", "gen_ai.request.model": "chat",
                                 "gen_ai.usage.input_tokens": 6, "gen_ai.usage.output_tokens": 2, "penstock.device_ms": run["attributes"]["penstock.device_ms"]}
    assert queue["attributes"]["messaging.system"] == "penstock" and queue["attributes"]["messaging.destination.name"] == "default"
    assert job["attributes"]["penstock.outcome"] == "completed" and job["attributes"]["messaging.message.id"].startswith("job_")
    assert job["resource"]["service.name"] == "penstock" and str(service.penstockd.socket) in job["resource"]["service.instance.id"]
    (asked,) = posts(upstream)
    assert asked["traceparent"] == f"00-{TRACE}-{run['id']}-01" and asked["tracestate"] == "a=1", "the engine's spans are within the run"
    assert PROMPT not in "".join(sink.bodies) and "alice" not in "".join(sink.bodies)


def test_only_what_the_parent_samples_is_told(penstock, collector):
    sink = collector()
    service = penstock(http=HTTP, server=SERVER, workers=[simulate()], yaml=traces(sink))
    for parent in (UNSAMPLED, None, UNSAMPLED, SAMPLED):
        assert ask(service, "sim", "/v1/completions", **({"traceparent": parent} if parent else {})).status == 200
    assert sink.until(4)["job"]["parent"] == SPAN
    config = service.penstockd.config
    config.write_text(config.read_text().replace("sample: parent", "sample: 1"))
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "changed: traces.sample: 1" in service.penstockd.process.text(), "it is reloaded")
    assert ask(service, "sim", "/v1/completions", traceparent=UNSAMPLED).status == 200
    assert ask(service, "sim", "/v1/completions").status == 200
    until(lambda: len(re.findall('"spanId"', "".join(sink.bodies))) == 8, "those of the one without a parent come, and no others")


def test_a_failure_says_so(penstock, collector):
    sink = collector()
    service = penstock(http=HTTP, server=SERVER, workers=[simulate(name="fails", failure_rate=1)], yaml=traces(sink), queue={"attempts": 1})
    assert ask(service, "fails", "/v1/completions", traceparent=SAMPLED).status == 502
    until(lambda: sink.bodies, "spans come")
    (job,) = [span for span in sink.spans() if span["name"] == "job"]
    assert job["status"] == 2 and job["attributes"]["error.type"] == "engine_failed" and job["attributes"]["penstock.outcome"] == "failed"


def told(sink, count):
    """So many spans, in the order in which they came."""
    until(lambda: len(re.findall('"spanId"', "".join(sink.bodies))) >= count, lambda: f"{count} spans come: {sink.bodies}")
    assert len(sink.spans()) == count
    return sink.spans()


def is_whole(spans):
    """Each has an id of its own, and stands below one of them or the caller's."""
    ids = [span["id"] for span in spans]
    assert len(set(ids)) == len(ids), spans
    assert {span["parent"] for span in spans} <= {SPAN, *ids}, spans


def test_a_dead_letter_has_its_last_run_and_when_it_is_queued_again_spans_of_its_own(penstock, collector, said):  # noqa: F811
    sink, failing = collector(), ModelServer(lambda asked, reply: reply("{}", status=500) if asked.method == "POST" else reply({"data": [{"id": "chat"}]}))
    service = penstock(http=HTTP, server=SERVER, workers=[chat(failing)], yaml="state: state\n" + traces(sink), queue={"attempts": 2, "backoff": "1ms"})
    id = ask(service, traceparent=SAMPLED, Prefer="respond-async").json()["id"]
    first = told(sink, 4)
    assert {span["name"] for span in first} == {"job", "limit", "queue", "run"}
    run = next(span for span in first if span["name"] == "run")
    assert posts(failing)[1]["traceparent"] == f"00-{TRACE}-{run['id']}-01" != posts(failing)[0]["traceparent"]
    assert run["status"] == 2 and run["attributes"]["error.type"] == "engine_failed"
    line = next(line for line in service.penstockd.process.text().splitlines() if "job ended" in line)
    assert "outcome=dead" in line and " run_ms=" in line
    said(service, "dead", "requeue", id)
    spans = told(sink, 4 + 3)  # it is not admitted anew
    is_whole(spans)
    assert [span["parent"] for span in spans if span["name"] == "job"] == [SPAN, SPAN]
    assert posts(failing)[3]["traceparent"].split("-")[2] == [span["id"] for span in spans if span["name"] == "run"][1]
    failing.close()


def test_a_tree_is_whole_when_the_collector_is_named_or_left_out_meanwhile(penstock, upstream, collector, said):  # noqa: F811
    sink = collector()
    service = penstock(http=HTTP, server=SERVER, workers=[chat(upstream)], yaml="state: state\n" + traces(sink))
    said(service, "pause", "default")
    config = service.penstockd.config
    on = config.read_text()

    def reload(text, words):
        config.write_text(text)
        before = service.penstockd.process.text().count(words)
        service.penstockd.process.signal(signal.SIGHUP)
        until(lambda: service.penstockd.process.text().count(words) > before, "it is reloaded")

    off = on.replace(traces(sink), "")
    reload(off, "changed: traces.url")
    before = ask(service, traceparent=SAMPLED, Prefer="respond-async").json()["id"]
    reload(on, "changed: traces.url")
    within = ask(service, traceparent=SAMPLED, Prefer="respond-async").json()["id"]
    said(service, "resume", "default")
    for id in (before, within):
        until(lambda id=id: service.get(f"/jobs/{id}").json()["status"] == "completed", "it is done")
    is_whole(told(sink, 4))
    assert [each["traceparent"] for each in posts(upstream)].count(SAMPLED) == 1, "nobody stands between who would not be told of"


def test_programs_and_webhooks_are_told_the_trace(penstock, folder, receiver, collector):  # noqa: F811
    (folder / "program.py").write_text(PROGRAM)
    program = dict(name="prog", engine="process", command=f'["/usr/bin/python3", "{folder}/program.py"]', model="sim", slots=1)
    (folder / "webhook.secret").write_text(SECRET + "\n")
    os.chmod(folder / "webhook.secret", 0o600)
    webhooks = f"webhooks: {{ secret_file: {folder}/webhook.secret, allow: [127.0.0.1] }}\n"
    here, sink = receiver(), collector()
    service = penstock(http=HTTP, server=SERVER, workers=[program], yaml="state: state\n" + webhooks + traces(sink))
    reply = ask(service, "sim", "/v1/completions", traceparent=SAMPLED, tracestate="a=1", Prefer="respond-async", Penstock_Callback=here.url)
    id = reply.json()["id"]
    until(lambda: here.posts, "the webhook comes")
    spans = sink.until(4)
    told = service.get(f"/jobs/{id}/result").json()
    assert told == {"traceparent": f"00-{TRACE}-{spans['run']['id']}-01", "tracestate": "a=1"}
    headers, body = here.posts[0]
    assert headers["traceparent"] == f"00-{TRACE}-{spans['job']['id']}-01" and headers["tracestate"] == "a=1"
    assert json.loads(body)["data"]["trace_id"] == TRACE


def test_a_collector_that_is_away_holds_up_nobody_and_is_tried_again(penstock, collector):
    sink = collector(503, 429)
    service = penstock(http=HTTP, server=SERVER, workers=[simulate()], yaml=traces(sink))
    assert ask(service, "sim", "/v1/completions", traceparent=SAMPLED).status == 200
    sink.until(4)
    assert "spans were dropped" not in service.penstockd.process.text()


@pytest.mark.parametrize("how", ["hangs", "refuses connections"])
def test_a_collector_that_hangs_or_refuses_connections_holds_up_nobody(penstock, how):
    """Nobody notices: answers are as fast as without it, a stop waits for none, and the log says what was dropped."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if how == "hangs":
            silent.listen(16)  # connections come about, and nothing is ever read
        service = penstock(http=HTTP, server=SERVER, workers=[simulate(slots=4, service_time="1ms")],
                           yaml=f'traces: {{ url: "http://127.0.0.1:{silent.getsockname()[1]}/v1/traces", sample: 1 }}\n')
        began = time.monotonic()
        for _ in range(50):
            assert ask(service, "sim", "/v1/completions", traceparent=SAMPLED).status == 200
        assert time.monotonic() - began < 5, "far from any time that a collector is given"
        assert json.loads(service.penstockd.status())["status"] == "serving"
        if how == "refuses connections":
            until(lambda: "spans were dropped" in service.penstockd.process.text(), "it is said", 60)
        began = time.monotonic()
        assert service.penstockd.stop() == 0 and time.monotonic() - began < 10
        service.penstockd.process = None


def test_what_a_collector_refuses_is_dropped_and_counted(penstock, collector):
    sink = collector(*[400] * 9)
    service = penstock(http=HTTP, server=SERVER, workers=[simulate()], yaml=traces(sink))
    assert ask(service, "sim", "/v1/completions", traceparent=SAMPLED).status == 200
    until(lambda: "traces: spans were dropped: the collector answers 400 dropped=4" in service.penstockd.process.text(), "it is said")
    assert sink.bodies == []


def test_what_is_wrong_with_traces_is_said(folder):
    for text, words in (('{ url: "ftp://x/" }', "must be a collector's URL"), ("{}", "must be a collector's URL"),
                        ('{ url: "http://x/v1/traces", sample: 2 }', "sample"), ('{ url: "http://x/v1/traces", sample: some }', "sample"),
                        ('{ url: "http://x/v1/traces", rate: 1 }', "unknown key")):
        (folder / "p.yaml").write_text(f"socket: {folder}/s\nworkers: []\ntraces: {text}\n")
        done = subprocess.run([BUILD / "penstockd", "-t", "-c", folder / "p.yaml"], capture_output=True, text=True)
        assert done.returncode == 1 and words in done.stderr and "p.yaml:3: key 'traces." in done.stderr, done.stderr


CHAPTER = (Path(__file__).parents[2] / "docs" / "TRACES.md").read_text()


def test_the_chapters_settings_are_taken(folder):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", CHAPTER, re.M | re.S)
    (folder / "p.yaml").write_text(f"socket: {folder}/s\nworkers: []\n{block}")
    shown = subprocess.run([BUILD / "penstockd", "-T", "-c", folder / "p.yaml"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^traces\..*$", shown, re.M) == ["traces.sample: 0.01", "traces.url: http://127.0.0.1:4318/v1/traces"]


def test_the_chapter_names_every_attribute():
    source = (Path(__file__).parents[2] / "worker" / "queue" / "traces" / "attributes.h").read_text()
    for name in re.findall(r'\[\] = "(\w+\.[\w.]+)"', source):
        assert f"`{name}`" in CHAPTER, name
