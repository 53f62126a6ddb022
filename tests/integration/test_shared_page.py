"""Nginx's pages on an edge whose queue other hosts share, and where nothing runs: the page for people, the console, and the status
page that limits and waits are told by."""

import pytest

import test_operator_console
import test_page
from shared_hosts import SLOW, promise, redis, until_known, until_one_runs, worker  # noqa: F401 (redis is a fixture)
from test_page import SOURCE, play
from waiting import until


@pytest.fixture
def host(penstock, redis):  # noqa: F811
    def build(page, *workers, more="", **queue):
        return penstock(http=page.HTTP, server=page.SERVER + more, workers=list(workers), queue={"shared": "true", "backoff": "10ms", **queue},
                        yaml=f'redis: {{ url: "unix:{redis.socket}" }}\nstate: state\ndrain_timeout: 1s\n')
    return build


@pytest.fixture
def stage(folder):
    """Where a browser's script plays the models of hosts."""
    class Stage:
        socket = folder / "stage.sock"

        def model(self, name):
            command = f"[/usr/bin/python3, {SOURCE / 'relay.py'}, {self.socket}]"
            return dict(name=name, model=name, engine="process", command=command, device="cpu", slots=1)
    return Stage()


def until_served(service, *models):
    until(lambda: {each["id"] for each in service.get("/v1/models").json()["data"]} >= set(models), "other hosts' models are known")


def test_the_life_of_tasks_that_run_on_another_host(host, stage):
    edge = host(test_page, max_length=3)
    host(test_page, stage.model("words"), stage.model("pictures"), max_length=3)
    until_served(edge, "words", "pictures")
    play("story.mjs", f"http://127.0.0.1:{edge.port}", stage.socket)


def test_the_console_of_an_edge_shows_and_rules_what_runs_elsewhere(host, stage):
    edge = host(test_operator_console, max_length=5)
    host(test_operator_console, stage.model("words"), max_length=5)
    until_served(edge, "words")
    play("shared.mjs", f"http://127.0.0.1:{edge.port}", stage.socket)


def test_the_status_page_of_an_edge_is_the_queues_on_all_hosts(host):
    page = test_page
    edge, gpu = host(page, max_length=3), host(page, worker(SLOW, slots=1), max_length=3)
    until_known(edge)
    until_one_runs(gpu)
    for _ in range(2):
        promise(edge)
    until(lambda: edge.penstockd.queue().length == 2, lambda: f"what waits there is told here: {vars(edge.penstockd.queue())}")
    assert edge.penstockd.queue().state == edge.penstockd.queue().OPEN
    promise(gpu)
    until(lambda: edge.penstockd.queue().length == 3, "also what came in there")
    refused = edge.request("POST", "/v1/completions", {"Authorization": "Bearer bob"}, {"model": "sim", "prompt": "a"})
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
