"""Webhooks and notices of jobs that hosts share: told by one host at a time, whichever that is, whatever is killed."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from processes import children
from test_notices import program
from shared_hosts import BODY, SLOW, ALICE, host, job, post, promise, redis, until_known, until_one_runs, until_status, worker  # noqa: F401
from test_webhooks import SECRET, Receiver, outcomes, receiver  # noqa: F401
from waiting import until

SERVER = """\
penstock_owner $http_authorization;
location /v1/ { penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
location = /metrics { penstock_metrics gpu; }
"""


@pytest.fixture
def hooked(host, folder):  # noqa: F811
    """A host that sends webhooks, to this machine too."""
    secret = folder / "webhook.secret"
    secret.write_text(SECRET + "\n")
    os.chmod(secret, 0o600)

    def build(*workers, yaml="", **more):
        return host(*workers, server=SERVER, yaml=f"webhooks: {{ secret_file: {secret}, allow: [127.0.0.1] }}\n" + yaml, **more)
    return build


def with_hook(service, url, **headers):
    return promise(service, Penstock_Callback=url, **headers).json()["id"]


def until_told(service, id, status, seconds=20):
    seen = until(lambda: (seen := job(service, id)).get("webhook", {}).get("status") == status and seen,
                 lambda: f"its webhook is {status}: {job(service, id)}", seconds)
    return seen["webhook"]


def ids_of(posts):
    return [json.loads(body)["data"]["id"] for _, body in posts]


def test_the_url_is_told_once_whichever_host_ran_the_job(hooked, receiver):  # noqa: F811
    edge, gpu, here = hooked(state=False), hooked(worker()), receiver()
    until_known(edge)
    ids = [with_hook(service, here.url) for service in (edge, gpu, edge, gpu)]
    for id in ids:
        for service in (edge, gpu):
            assert until_told(service, id, "delivered") == {"status": "delivered", "tries": 1}
    assert sorted(ids_of(here.posts)) == sorted(ids)
    for headers, body in here.posts:
        told = json.loads(body)
        assert told["type"] == "job.completed" and told["data"]["result_url"] == f"/jobs/{told['data']['id']}/result"
        assert headers["webhook-id"] == "msg_" + told["data"]["id"][4:] and headers["webhook-signature"].startswith("v1,")
    until(lambda: sum(outcomes(service)["delivered"] for service in (edge, gpu)) == len(ids), "they are counted")
    assert "webhook" not in job(edge, until_known(edge)), "of others nothing is said"


def test_a_try_that_fails_is_made_again_and_each_host_sees_it(hooked, receiver):  # noqa: F811
    edge, gpu, here = hooked(), hooked(worker()), receiver(500, 204)
    until_known(edge)
    id = with_hook(edge, here.url)
    until(lambda: here.posts, "it was tried")
    for service in (edge, gpu):
        until(lambda: job(service, id)["webhook"] == {"status": "due", "tries": 1}, "it is due again")
    for service in (edge, gpu):
        assert until_told(service, id, "delivered")["tries"] == 2
    assert ids_of(here.posts) == [id, id] and here.posts[0][0]["webhook-id"] == here.posts[1][0]["webhook-id"]


def test_an_url_that_is_gone_is_asked_by_no_host(hooked, receiver):  # noqa: F811
    gpu, here = hooked(worker()), receiver(410)
    until_known(gpu)
    first = with_hook(gpu, here.url)
    until_told(gpu, first, "gone")
    gpu.penstockd.kill()
    other = hooked(worker())
    until_known(other)
    until_told(other, with_hook(other, here.url), "gone")
    assert ids_of(here.posts) == [first]


def test_ends_that_no_worker_made_are_told_too(hooked, receiver):  # noqa: F811
    edge, gpu, here = hooked(deadline="2s"), hooked(worker(SLOW), deadline="2s"), receiver()
    until_known(edge)
    until_one_runs(gpu)
    late, unwanted = with_hook(edge, here.url), with_hook(edge, here.url)
    assert gpu.request("DELETE", f"/jobs/{unwanted}", ALICE).json()["status"] == "cancelled"
    for id in (late, unwanted):
        until_told(edge, id, "delivered")
    told = {json.loads(body)["data"]["id"]: json.loads(body) for _, body in here.posts}
    assert (told[unwanted]["type"], told[late]["type"]) == ("job.cancelled", "job.expired")
    assert told[late]["data"]["finished_at"] and told[late]["data"]["error"]["code"] == "deadline_exceeded"


def test_what_may_not_be_told_is_refused(hooked, host):  # noqa: F811
    edge, gpu = hooked(worker()), host()
    until_known(edge)
    until_known(gpu)
    assert post(edge, {"Prefer": "respond-async", "Penstock-Callback": "http://10.0.0.1/"}).status == 400
    assert post(gpu, {"Prefer": "respond-async", "Penstock-Callback": "http://127.0.0.1/"}).status == 400


class Hanging(Receiver):
    """Answers no post until it is let go."""

    def __init__(self):
        self.go = threading.Event()
        super().__init__(204)

    def status(self):
        self.go.wait(60)
        return super().status()

    def close(self):
        self.go.set()
        super().close()


@pytest.fixture
def hanging():
    server = Hanging()
    yield server
    server.close()


def test_what_a_host_was_telling_that_was_killed_another_tells(hooked, hanging):
    """At least once, under the same id; and by nobody else while it lives."""
    gpu = hooked(worker())
    until_known(gpu)
    id = with_hook(gpu, hanging.url)
    until(lambda: hanging.posts, "it is being told")
    edge = hooked()
    until_known(edge)
    assert ids_of(hanging.posts) == [id]
    gpu.penstockd.kill()
    hanging.go.set()
    assert until_told(edge, id, "delivered", 30)["status"] == "delivered"
    assert ids_of(hanging.posts) == [id, id] and len({headers["webhook-id"] for headers, _ in hanging.posts}) == 1


APPEND = """
with open(here + "/told", "a") as file:
    file.write(os.environ["PENSTOCK_EVENT"] + " " + os.environ["PENSTOCK_JOB_ID"] + "\\n")
"""


def test_each_hook_hears_of_an_end_from_one_host(hooked, folder):
    hook = f"notify:\n  - {json.dumps({'on': ['completed', 'dead'], 'command': [str(program(folder, APPEND))]})}\n"
    edge = hooked(yaml=hook, attempts=1)
    gpu = hooked(worker(), worker(name="bad", failure_rate=1), yaml=hook, attempts=1)
    until_known(edge)
    good = [promise(service).json()["id"] for service in (edge, gpu, edge)]
    bad = promise(edge, {**BODY, "model": "bad"}).json()["id"]
    unwanted = promise(edge, Penstock_Delay="60").json()["id"]
    assert edge.request("DELETE", f"/jobs/{unwanted}", ALICE).json()["status"] == "cancelled"
    wanted = {f"completed {id}" for id in good} | {f"dead {bad}"}
    told = folder / "told"
    until(lambda: told.exists() and wanted <= set(told.read_text().splitlines()), lambda: told.read_text() if told.exists() else "nothing")
    until(lambda: edge.request("GET", "/metrics").status == 200, "it lives")
    lines = [line for line in told.read_text().splitlines() if unwanted not in line]
    assert len(lines) == len(set(lines)) and unwanted not in told.read_text()


def test_a_hook_that_was_changed_while_it_was_telling_tells_on(hooked, folder):
    """Each of its places had a program that hangs."""
    hangs = f"notify:\n  - {json.dumps({'name': 'tell', 'on': ['completed'], 'at_once': 1, 'command': ['/bin/sleep', '1000']})}\n"
    gpu = hooked(worker(), yaml=hangs)
    until_status(gpu, until_known(gpu), "completed")
    until(lambda: "sleep\n" in [Path(f"/proc/{pid}/comm").read_text() for pid in children(gpu.penstockd.process.pid)], "it hangs")
    config = gpu.penstockd.config
    changed = f"notify:\n  - {json.dumps({'name': 'tell', 'on': ['completed'], 'at_once': 1, 'command': [str(program(folder, APPEND))]})}\n"
    config.write_text(config.read_text().replace(hangs, changed))
    gpu.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in gpu.penstockd.process.text(), "it is read")
    id = promise(gpu).json()["id"]
    told = folder / "told"
    until(lambda: told.exists() and f"completed {id}" in told.read_text(), "it is told")
