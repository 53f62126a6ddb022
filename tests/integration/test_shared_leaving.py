"""The last host of a shared queue that serves a model: its workers are drained, or it dies."""

import signal
import subprocess

from processes import BUILD, environment
from shared_hosts import BODY, HTTP, SERVER, ask, get, host, job, post, promise, redis, until_known, until_open, until_status, worker  # noqa: F401 (fixtures)
from test_shared_answers import known, model, promise_stream  # noqa: F401 (model is a fixture)
from waiting import until


def ctl(service, *arguments):
    subprocess.run([BUILD / "penstockctl", *arguments, "-s", service.penstockd.socket], capture_output=True, timeout=30, check=True,
                   env=environment(service.folder))


def test_where_the_last_workers_were_drained_who_waits_is_told_and_what_is_promised_stays(penstock, redis):
    def host(*workers):  # noqa: F811
        return penstock(http=HTTP, server=SERVER, workers=list(workers), queue={"shared": "true"}, limits={"worker_grace": "1s"},
                        yaml=f'redis: {{ url: "unix:{redis.socket}" }}\nstate: state\ndrain_timeout: 1s\n')
    edge, gpu = host(), host(worker())
    until_status(edge, until_known(edge), "completed")
    until_open(edge)
    ctl(gpu, "drain")
    for service in (edge, gpu):
        until(lambda: post(service, body={**BODY, "model": "none"}).status == 503, "nobody may wait")
        refused = post(service)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5"), refused.body
    id = promise(edge).json()["id"]  # until somebody comes
    assert job(gpu, id)["status"] == "queued"
    ctl(gpu, "scale", "sim", "1")
    assert until_status(edge, id, "completed")["attempts"] == 0
    for service in (edge, gpu):
        until_open(service)
        assert post(service).status == 200


def test_a_model_whose_host_was_killed_waits_for_it_until_it_is_back_without(host, redis):
    edge, stays, dies = host(), host(worker()), host(worker(), worker(name="other"))
    other = {**BODY, "model": "other"}
    until_known(edge, "other")
    until_open(edge)
    dies.penstockd.kill()
    until(lambda: get(edge, "/v1/models/other").json().get("eta_reason") == "no_worker", "nobody is there", 9)  # 5 s after what it said last
    refused = post(edge, body=other)
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
    assert {model["id"] for model in get(edge, "/v1/models").json()["data"]} == {"sim", "other"}
    assert job(stays, promise(edge, other).json()["id"])["status"] == "queued"
    assert until_status(stays, promise(edge).json()["id"], "completed")
    host(worker())  # of the same machine
    until(lambda: ask(edge, other).status == 404, "it is served no more")
    until(lambda: post(edge, body=other).status == 404, "nobody waits for it")


def test_a_model_is_known_while_its_last_host_lets_its_jobs_finish_and_after(host, redis):
    edge, _, stops = host(), host(worker(name="stays")), host(worker("3s"), yaml="drain_timeout: 20s\n")
    until_known(edge)
    until_known(edge, "stays")
    until_open(edge)
    until(lambda: stops.penstockd.queue().running == 1, "one runs")
    stops.penstockd.process.signal(signal.SIGTERM)
    until(lambda: get(edge, "/v1/models/sim").json().get("eta_reason") == "no_worker", "nobody takes more")
    assert stops.penstockd.process.alive()
    ids = [promise(edge).json()["id"]]
    assert stops.penstockd.process.wait(20) == 0
    stops.penstockd.expect_death = True
    ids.append(promise(edge).json()["id"])
    refused = post(edge)
    assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
    host(worker())
    for id in ids:
        assert until_status(edge, id, "completed")["attempts"] == 0


def test_what_is_on_its_way_to_a_host_that_stops_is_given_back_before_that_is_gone(host, model, redis):  # noqa: F811
    """Redis answers nobody for a while, and then gives it another job for the one that has ended."""
    edge, stops = host(), host(model.worker(), yaml="drain_timeout: 100ms\n")
    known(edge)
    first = promise_stream(edge, "first")
    until(lambda: model.begun["first"] == 1, "it runs")
    second = promise_stream(edge, "second")
    redis.ask("CLIENT", "PAUSE", 700, "ALL")
    model.let_all("first1")
    until(lambda: stops.penstockd.queue().running == 0, "it has ended")
    assert stops.penstockd.stop() == 0
    stops.penstockd.expect_death = True
    assert model.begun["second"] == 0
    host(model.worker())
    model.let_all("second1")
    for id in (first, second):
        assert until_status(edge, id, "completed")["attempts"] == 0
