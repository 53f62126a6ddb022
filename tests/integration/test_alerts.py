"""Alerts and dashboards. Each rule is tried on made-up figures; then Prometheus and Alertmanager look at a whole stack, in which faults
are made and mended."""

import concurrent.futures
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import simulate
from monitoring import SHIPPED, Monitoring
from processes import BUILD, environment
from test_devices import DEMO, GPU, gpus  # noqa: F401 (a fixture)
from test_external import start as start_external
from test_operator import ctl, said  # noqa: F401 (fixtures)
from waiting import until

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RULES = (SHIPPED / "penstock.rules.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)
CASES = (HERE / "alert_rules.yml").read_text()
CHAPTER = (ROOT / "docs" / "ALERTS.md").read_text()
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "config" / "grafana").glob("*.json"))}

HTTP = """\
penstock_zone edge 1m redis={redis} timeout=500ms;
penstock_zone small 32k;
penstock_tier free {{ rate 1000r/s; rate 900000t/m; }}
penstock_tier tiny {{ rate 1r/h; }}
client_max_body_size 8m;
"""
SERVER = """\
penstock_owner $http_authorization;
location /v1/ { penstock_limit zone=edge key=$http_authorization tier=$arg_tier; penstock_pass gpu; }
location /slow/ { penstock_pass gpu queue=slow; }
location /small { penstock_limit zone=small key=$arg_key rate=1r/h name=small; empty_gif; }
location /jobs { penstock_jobs gpu; }
location = /metrics { penstock_metrics gpu; }
"""
YAML = """\
state: state
webhooks: {{ secret_file: webhook.secret }}
queues:
  default: {{ attempts: 1, backoff: 10ms }}
  slow: {{ attempts: 1 }}
  frail: {{ attempts: 1 }}
  later: {{ attempts: 1 }}
limits: {{ worker_grace: 0s, max_state: {max_state}, max_state_per_owner: {max_state}, reserve: 64KiB }}
workers:
  - {{ name: sim, engine: simulate, model: sim, slots: 2, service_time: 20ms, crash_on: poison, min_workers: 1, max_workers: 2 }}
  - {{ name: demo, engine: llama, model: {demo}, model_name: demo, device: cpu, slots: 2, memory: 16MiB }}
  - {{ name: slow, engine: simulate, model: slow, queue: slow, slots: 1, service_time: 20ms }}
  - {{ name: frail, engine: simulate, model: frail, queue: frail }}
  - {{ name: later, engine: simulate, model: later, queue: later, external: true }}
"""
SECRET = "whsec_" + "QUJD" * 11 + "\n"


class Stack:
    """Everything that the alerts and dashboards tell of, in one service; with a GPU that is not there and a Redis."""

    def __init__(self, penstock, redis, said):
        self.redis, self._said = redis, said
        self.service = penstock(start=False, workers=[simulate()], http=HTTP.format(redis=redis.address), server=SERVER)
        self.daemon = self.service.penstockd
        self.secret = self.service.folder / "webhook.secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        self.configure()
        self.start()
        self.service.nginx.start(self.service.port)

    def configure(self, max_state="1GiB"):
        self.daemon.write_config(YAML.format(demo=DEMO, max_state=max_state))

    def start(self):
        # A disk that is full sends no signal, as too large a file would.
        self.daemon.start_by(["env", "--ignore-signal=XFSZ", BUILD / "penstockd", "-c", self.daemon.config])
        self.daemon.wait_for(slots=4)

    def reload(self, outcome):
        """HUP, and until the log says that."""
        before = self.daemon.process.text().count(outcome)
        self.daemon.process.signal(signal.SIGHUP)
        until(lambda: self.daemon.process.text().count(outcome) > before, outcome)

    def order(self, *words):
        return self._said(self.service, *words)

    def limit_files(self, most):
        resource.prlimit(self.daemon.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def ask(self, model="sim", tier="free", who="a", **body):
        return self.service.complete(f"/v1/completions?tier={tier}", {"Authorization": who}, model=model, **body).status

    def promise(self, path="/v1/completions?tier=free", model="sim", prompt="a"):
        return self.service.complete(path, {"Authorization": "a", "Prefer": "respond-async"}, model=model, prompt=prompt).status

    def kill_a_worker(self, name):
        words = f"--name\0{name}\0".encode()
        for pid in self.daemon.workers():
            try:
                if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it has just ended


@pytest.fixture
def stack(penstock, redis, gpus, said):  # noqa: F811
    return Stack(penstock, redis, said)


@pytest.fixture
def watch(stack):
    monitoring = Monitoring(stack.service.folder, stack.service.port)
    yield monitoring
    monitoring.close()


# ---- the files


def test_each_rule_fires_when_it_should_alone_and_is_over_again():
    tried = subprocess.run(["promtool", "test", "rules", HERE / "alert_rules.yml"], capture_output=True, text=True)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert set(re.findall(r'alertname="(\w+)"', CASES)) == set(ALERTS), "each has a case"


def test_prometheus_takes_the_shipped_files():
    checked = subprocess.run(["promtool", "check", "config", SHIPPED / "prometheus.yml"], capture_output=True, text=True)
    assert checked.returncode == 0 and f"{len(ALERTS)} rules found" in checked.stdout, checked.stdout + checked.stderr


def test_each_is_seen_to_fire_and_to_resolve_end_to_end():
    """Here, or in a file beside this one."""
    seen = "".join(path.read_text().partition("# ---- alerts, end to end")[2] for path in HERE.glob("test_alerts*.py"))
    assert [name for name in ALERTS if f'"{name}"' not in seen] == []


def test_each_alert_has_its_paragraph():
    links = re.findall(r"runbook: docs/ALERTS.md#(\w+)", RULES)
    assert links == [name.lower() for name in ALERTS]
    paragraphs = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", CHAPTER, re.M | re.S))
    assert set(paragraphs) == set(ALERTS)
    assert [name for name, text in paragraphs.items() if "**Look at**" not in text or "**Do**" not in text] == []


def test_a_dashboard_is_whole():
    assert len(DASHBOARDS) == 5
    for name, board in DASHBOARDS.items():
        assert board["uid"] == name and board["schemaVersion"] >= 38
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        taken = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
            taken |= cells
            assert all(each["datasource"]["uid"] == "${datasource}" for each in [panel, *panel["targets"]])


# ---- dashboards on figures


def unanswered(watch):
    """Panels whose query has no figure; test_alerts_shared.py asks those of shared queues."""
    return [each for name, board in DASHBOARDS.items() if name != "penstock-shared" for each in watch.unanswered(board)]


def test_every_query_of_every_dashboard_has_an_answer(stack, watch):
    def traffic(callers):
        stack.promise()
        list(callers.map(lambda i: stack.ask(("sim", "demo")[i % 2], who=f"caller {i % 8}", stream=True), range(40)))

    with concurrent.futures.ThreadPoolExecutor(8) as callers:
        until(lambda: traffic(callers) or not unanswered(watch), lambda: f"all are answered, not {unanswered(watch)}", 60)
    for name, board in DASHBOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query" and name != "penstock-shared":
                metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                assert watch.label_values(label, metric), variable["query"]


# ---- alerts, end to end


@contextlib.contextmanager
def outside(stack, name):
    """A worker that others start."""
    worker = start_external(stack.service, name)
    yield
    worker.kill()
    worker.communicate()


def fill_the_small_zone(stack):
    client = stack.service.client()
    for i in range(1500):
        client.request("GET", f"/small?key={i}")


def test_faults_are_seen_in_alertmanager_and_so_is_their_end(stack, watch, gpus):  # noqa: F811
    def trouble():
        stack.kill_a_worker("frail")
        stack.ask(tier="tiny")
        stack.ask(who="shared")

    until(lambda: watch.query("penstock_queue_slots"), "the stack is seen")
    watch.until_fire("PenstockNoWorkerReady")
    stack.order("pause", "slow")
    assert [stack.promise("/slow/completions", "slow", "x" * 100_000) for _ in range(11)] == [202] * 11
    stack.configure(max_state="1250KiB")
    stack.reload("reloaded")
    stack.secret.unlink()
    stack.reload("webhooks go on as before")
    gpus.answer({**GPU, "error": 15})
    assert stack.ask(who="shared") == 200
    assert stack.promise(prompt="poison") == 202
    for key in stack.redis.ask("KEYS", "penstock:1:[lgw]:*"):  # another program writes there
        stack.redis.ask("SET", key, "x")
    fill_the_small_zone(stack)
    at_once = ["PenstockNoWorkerReady", "PenstockWorkerFlapping", "PenstockQueueLong", "PenstockWaitsOverTarget", "PenstockRefusals",
               "PenstockBusy", "PenstockDeadLetters", "PenstockStoreNearlyFull", "PenstockDeviceOut", "PenstockConfigRefused",
               "PenstockZoneFull", "PenstockRedisErrors"]
    watch.until_fire(*at_once, meanwhile=trouble)
    words = [text for each in watch.alerts().values() for text in each.values()]
    assert words and not [text for text in words if "no value" in text]

    stack.redis.ask("FLUSHALL")
    gpus.answer(GPU)
    stack.secret.write_text(SECRET)
    stack.configure()
    stack.reload("reloaded")
    stack.order("dead", "drop", "--all")
    stack.order("resume", "slow")
    with outside(stack, "later"):
        watch.until_over(*at_once)

        stack.redis.kill()
        stack.limit_files(1 << 20)
        assert stack.promise(prompt="x" * (3 << 20)) == 503
        watch.until_fire("PenstockRedisAway", "PenstockStoreFailing", meanwhile=lambda: stack.ask(who="shared"))
        stack.redis.start()
        stack.limit_files(resource.RLIM_INFINITY)
        watch.until_over("PenstockRedisAway", "PenstockStoreFailing")

    stack.daemon.kill()
    watch.until_fire("PenstockDown")
    stack.start()
    watch.until_over("PenstockDown")
    stack.service.nginx.stop()
    watch.until_fire("PenstockEdgeDown")
    stack.service.nginx.start(stack.service.port)
    watch.until_over("PenstockEdgeDown")
