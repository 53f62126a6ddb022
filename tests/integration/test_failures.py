"""What breaks, and what callers notice of it."""

import json
import os
import signal
import threading

from conftest import simulate
from processes import QueueStatus
from waiting import until

PASS = "location / { penstock_pass gpu; }"


class Asking:
    """A completion in the background; result() waits for its answer."""

    def __init__(self, service, **body):
        self._answer = None
        self._thread = threading.Thread(target=self._ask, args=(service, body))
        self._thread.start()

    def _ask(self, service, body):
        self._answer = service.complete(**body)

    def result(self):
        self._thread.join()
        return self._answer


def only_worker(service):
    return until(service.penstockd.workers, "penstockd has a worker")[0]


def test_a_job_whose_worker_is_killed_is_run_again(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="1s")])
    asking = Asking(service)
    service.penstockd.wait_for(running=1)
    killed = only_worker(service)
    os.kill(killed, signal.SIGKILL)
    answer = asking.result()
    assert answer.status == 200 and answer.json()["usage"]["completion_tokens"] == 4
    assert killed not in service.penstockd.workers()


def test_jobs_that_wait_survive_the_worker(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="300ms")])
    asking = [Asking(service) for _ in range(4)]
    service.penstockd.wait_for(running=1, length=3)
    os.kill(only_worker(service), signal.SIGKILL)
    assert [job.result().status for job in asking] == [200] * 4


def test_a_job_that_failed_every_attempt_is_told_502(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="30s")], queue={"attempts": 2})
    asking = Asking(service)
    for _ in range(2):
        service.penstockd.wait_for(running=1)
        os.kill(only_worker(service), signal.SIGKILL)
        service.penstockd.wait_for(running=0)
    answer = asking.result()
    assert answer.status == 502 and answer.json()["error"]["code"] == "engine_failed"


def test_an_engine_that_fails_is_tried_again_and_then_told(penstock):
    service = penstock(server=PASS, workers=[simulate(failure_rate=1)], queue={"attempts": 3})
    answer = service.complete()
    assert answer.status == 502 and answer.json()["error"]["code"] == "engine_failed"


def test_an_answer_that_has_begun_is_cut_short_and_not_started_again(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, tokens_per_second=30)])
    stream = service.stream(max_tokens=1000)
    stream.next_event()
    os.kill(only_worker(service), signal.SIGKILL)
    # A stream says so in its own format, which the OpenAI clients raise as an error.
    events = list(stream.events())
    assert json.loads(events[-1])["error"]["code"] == "engine_failed" and "[DONE]" not in events
    service.penstockd.wait_for(slots=1, running=0)
    assert service.complete(max_tokens=1).status == 200


def test_a_worker_that_stops_its_heartbeat_is_replaced(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="500ms")], limits={"heartbeat_timeout": "2s"})
    asking = Asking(service)
    service.penstockd.wait_for(running=1)
    frozen = only_worker(service)
    os.kill(frozen, signal.SIGSTOP)
    assert asking.result().status == 200
    assert frozen not in service.penstockd.workers()


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="1s")], queue={"max_length": 2})
    asking = [Asking(service)]
    service.penstockd.wait_for(running=1)
    asking += [Asking(service), Asking(service)]
    service.penstockd.wait_for(length=2)
    refused = service.complete()
    assert refused.status == 503 and refused.json()["error"]["code"] == "busy"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert [job.result().status for job in asking] == [200] * 3


def test_a_refusal_for_the_queue_charges_no_limit(penstock):
    from structured import parse_list
    service = penstock(
        http="penstock_zone edge 1m;", workers=[simulate(slots=1, service_time="1s")], queue={"max_length": 1},
        server="location / { penstock_limit zone=edge key=$arg_key rate=1r/h burst=10 name=a; penstock_pass gpu; }")
    asking = [Asking(service, path="/v1/completions?key=other")]
    service.penstockd.wait_for(running=1)
    asking.append(Asking(service, path="/v1/completions?key=other"))
    service.penstockd.wait_for(length=1)
    for _ in range(3):
        assert service.complete("/v1/completions?key=k").status == 503
    for job in asking:
        assert job.result().status == 200
    answer = service.complete("/v1/completions?key=k")
    assert parse_list(answer.headers["RateLimit"])[0][1]["r"] == 9


def test_without_a_worker_callers_are_told_503(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1)], limits={"worker_grace": "0s"}, start=False)
    config = service.penstockd.config
    config.write_text(config.read_text().replace("penstock-worker\n", "no-such-worker\n"))
    service.start(ready=False)
    service.penstockd.wait_for(state=QueueStatus.CANNOT_LOAD)
    answer = service.complete()
    assert answer.status == 503 and answer.json()["error"]["code"] == "busy" and int(answer.headers["Retry-After"]) >= 10


def test_without_penstockd_callers_are_told_so(penstock):
    service = penstock(server=PASS, workers=None)
    answer = service.complete()
    assert answer.status in (502, 503) and answer.headers["Content-Type"] == "application/problem+json"


def test_nginx_serves_again_when_penstockd_is_back(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="100ms")])
    assert service.complete().status == 200
    asking = Asking(service, max_tokens=3)
    asking.result()
    service.penstockd.kill()
    assert service.complete().status in (502, 503)
    service.penstockd.start()
    # By default Nginx leaves a server that failed alone for ten seconds, unless it is the only one.
    until(lambda: service.complete().status == 200, "requests are served again")


def test_a_caller_in_flight_is_told_when_penstockd_dies(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="60s")])
    asking = Asking(service)
    service.penstockd.wait_for(running=1)
    service.penstockd.kill()
    answer = asking.result()
    assert answer.status == 502 and answer.headers["Content-Type"] == "application/problem+json"


def test_workers_leave_with_penstockd(penstock):
    from processes import state_of
    service = penstock(server=PASS, workers=[simulate(), simulate("other")])
    workers = service.penstockd.workers()
    assert len(workers) == 2
    service.penstockd.kill()
    until(lambda: all(state_of(worker) in ("", "Z") for worker in workers), "the workers are gone")


def test_a_second_server_takes_over_from_one_that_is_down(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1)], daemons=2)
    service.daemons[0].kill()
    assert [service.complete().status for _ in range(6)] == [200] * 6


def test_a_second_server_takes_over_from_one_that_never_was(penstock):
    service = penstock(start=False, server=PASS, workers=[simulate(slots=1)], daemons=2)
    service.daemons[1].start()
    service.wait_for_workers(service.daemons[1])
    service.nginx.start(service.port)
    assert [service.complete().status for _ in range(6)] == [200] * 6


def test_a_reload_lets_a_stream_end(penstock):
    service = penstock(server=PASS, workers=[simulate(tokens_per_second=30)], master=True)
    stream = service.stream(max_tokens=30)
    stream.next_event()
    service.nginx.process.signal(signal.SIGHUP)
    assert stream.rest().endswith(b"data: [DONE]\n\n")
    assert service.complete().status == 200
