"""The last host of a shared queue that serves a model: its workers are drained, or it dies."""

import subprocess

from processes import BUILD, environment
from shared_hosts import BODY, HTTP, SERVER, ask, host, job, post, promise, redis, until_known, until_open, until_status, worker  # noqa: F401 (fixtures)
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


def test_models_of_a_host_that_was_killed_are_unknown_once_it_has_said_nothing_for_a_while(host, redis):
    edge, stays, dies = host(), host(worker()), host(worker(), worker(name="other"))
    until_known(edge, "other")
    dies.penstockd.kill()
    until(lambda: ask(edge, {**BODY, "model": "other"}).status == 404, "it is forgotten", 9)  # 5 s after what it said last
    until_open(edge)
    assert post(edge, body={**BODY, "model": "other"}).status == 404
    assert until_status(stays, promise(edge).json()["id"], "completed")
