"""A caller that leaves: its place is free at once, its slot within one step."""

import json

from client import Client
from conftest import simulate
from wire import CANCEL, CHUNK, HEAD, SUBMIT, Connection, frame

PASS = "location / { penstock_pass gpu; }"
LONG = 2_000  # tokens, a minute and more at the rates below


def test_a_caller_that_leaves_mid_stream_frees_its_slot(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, tokens_per_second=30)])
    stream = service.stream(max_tokens=LONG)
    stream.next_event()
    assert service.penstockd.queue().running == 1
    stream.close()
    service.penstockd.wait_for(seconds=5, running=0)
    assert service.complete(max_tokens=1).status == 200


def test_a_caller_that_leaves_before_the_first_byte_frees_its_slot(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="60s")])
    client = Client(service.port)
    client._connection.request("POST", "/v1/completions", '{"model":"sim","prompt":"a"}')
    service.penstockd.wait_for(running=1)
    client.close()
    service.penstockd.wait_for(seconds=5, running=0)


def test_a_caller_that_leaves_while_waiting_leaves_the_queue(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, tokens_per_second=30)])
    running = service.stream(max_tokens=LONG)
    running.next_event()
    clients = [Client(service.port) for _ in range(3)]
    for client in clients:
        client._connection.request("POST", "/v1/completions", '{"model":"sim","prompt":"a","max_tokens":1}')
    service.penstockd.wait_for(length=3, running=1)
    clients[1].close()
    service.penstockd.wait_for(seconds=5, length=2, running=1)
    running.close()
    for client in (clients[0], clients[2]):
        answer = client._connection.getresponse()
        assert answer.status == 200
        answer.read()
        client.close()


def test_with_ignore_client_abort_the_job_is_finished(penstock):
    service = penstock(server="location / { penstock_pass gpu; penstock_ignore_client_abort on; }",
                       workers=[simulate(slots=1, service_time="700ms")])
    client = Client(service.port)
    client._connection.request("POST", "/v1/completions", '{"model":"sim","prompt":"a"}')
    service.penstockd.wait_for(running=1)
    client.close()
    service.penstockd.wait_for(running=0)
    assert json.loads(service.penstockd.status())["counters"]["completed"] == 1


def test_a_cancel_frame_ends_one_job_and_leaves_its_neighbour(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=2, tokens_per_second=30)])
    caller = Connection(service.penstockd.socket)
    for id in (1, 2):
        caller.send(frame(SUBMIT, id, model="sim", method="POST", path="/v1/completions",
                          body='{"prompt":"a","max_tokens":60,"stream":true}'))
    service.penstockd.wait_for(running=2)
    caller.send(frame(CANCEL, 1))
    service.penstockd.wait_for(seconds=5, running=1)
    text = b""
    while not text.endswith(b"data: [DONE]\n\n"):
        kind, id, payload = caller.receive()
        if id == 2 and kind == CHUNK:
            text += payload
        assert kind != HEAD or id in (1, 2)
    caller.close()
