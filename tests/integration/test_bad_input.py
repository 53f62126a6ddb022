"""Requests that cannot be served: refused in words that say what is wrong and where, and nothing else happens."""

import json
import struct

import pytest

from conftest import simulate
from wire import CALLER, GOODBYE, HEAD, HELLO, SUBMIT, TOOL, Connection, frame

PASS = "location / { penstock_pass gpu; }"


def assert_problem(answer, status, code):
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["error"]["code"] == code, problem
    assert problem["detail"] == problem["error"]["message"]
    return problem


@pytest.fixture
def service(penstock):
    return penstock(server="client_max_body_size 64k;\n" + PASS, workers=[simulate()])


def post(service, body, path="/v1/completions"):
    return service.request("POST", path, {"Content-Type": "application/json"}, body)


@pytest.mark.parametrize("body,offset", [
    ('{"model":"sim","prompt":"a",}', "28"),
    ('{"model":"sim" "prompt":"a"}', "15"),
    ('{"model":"sim","prompt":', "24"),
])
def test_malformed_json_is_refused_with_the_place_of_the_fault(service, body, offset):
    problem = assert_problem(post(service, body), 400, "invalid_request")
    assert f"byte {offset}" in problem["detail"], problem["detail"]


def test_an_unknown_model_is_not_found(service):
    problem = assert_problem(service.complete(model="gpt-9"), 404, "not_found")
    assert "gpt-9" in problem["detail"] and problem["error"]["param"] == "model"


@pytest.mark.parametrize("model", ['"%s"' % ("x" * 200), '"\\ud83d\\ude00"'], ids=["long", "surrogates"])
def test_a_model_whose_name_is_beyond_reading_is_not_found_either(service, model):
    body = '{"model":%s,"prompt":"a","max_tokens":4}' % model
    assert_problem(service.request("POST", "/v1/completions", {"Content-Type": "application/json"}, body), 404, "not_found")


@pytest.mark.parametrize("field,value", [
    ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 1.5), ("max_tokens", "many"), ("temperature", 2.5),
    ("temperature", -0.1), ("top_p", -0.1), ("top_p", 1.1), ("n", 2), ("stop", ["a", "b", "c", "d", "e"]), ("stop", ""),
    ("prompt", 17), ("prompt", ["a", "b"]), ("stream", "yes"), ("seed", "x"), ("stream_options", {"include_usage": True}),
    ("echo", True), ("logprobs", 3),
])
def test_impossible_parameters_are_refused_by_name(service, field, value):
    problem = assert_problem(service.complete(**{field: value}), 400, "invalid_request")
    assert problem["error"]["type"] == "invalid_request_error"
    assert problem["error"]["param"].startswith(field) and field in problem["detail"]


@pytest.mark.parametrize("messages", [[], [{"role": "wizard", "content": "a"}], [{"role": "user"}], "hello", [17]])
def test_impossible_messages_are_refused(service, messages):
    problem = assert_problem(service.complete("/v1/chat/completions", messages=messages, prompt=None), 400, "invalid_request")
    assert problem["error"]["param"].startswith("messages")


def test_a_body_over_the_limit_is_refused_as_json(service):
    assert_problem(service.complete(prompt="x" * 70_000), 413, "too_large")


@pytest.mark.parametrize("size", [70_000, 300_000])
def test_a_body_over_the_queues_limit_is_refused_as_json(penstock, size):
    service = penstock(server="client_max_body_size 8m;\n" + PASS, workers=[simulate()], limits={"max_body": "64KiB"})
    assert_problem(service.complete(prompt="x" * size), 413, "too_large")
    assert service.complete().status == 200


def test_deeply_nested_json_is_refused(service):
    assert_problem(post(service, '{"prompt":' + "[" * 5000 + "]" * 5000 + "}"), 400, "invalid_request")


WRONG_FRAMES = {
    "a first frame other than hello": frame(SUBMIT, 1, body="{}"),
    "another version": frame(HELLO, version=99, role=CALLER),
    "a role that there is not": frame(HELLO, version=1, role=77),
    "an unknown type": frame(HELLO, version=1, role=CALLER) + frame(200, 1),
    "a type for the other direction": frame(HELLO, version=1, role=CALLER) + frame(HEAD, 1, status=200),
    "reserved bytes that are not zero": struct.pack("<IB3sQ", 0, HELLO, b"abc", 0),
    "a payload over its limit": struct.pack("<IB3xQ", 0xFFFFFFFF, SUBMIT, 1),  # before HELLO
    "a field past the end": frame(HELLO, payload=struct.pack("<II", 1, 500)),
    "a field twice": frame(HELLO, payload=2 * struct.pack("<IIq", 1, 8, 1)),
    "a number of three bytes": frame(HELLO, payload=struct.pack("<II", 1, 3) + b"abc"),
    "an id in use": frame(HELLO, version=1, role=CALLER) + 2 * frame(SUBMIT, 1, model="sim", method="POST",
                                                                     path="/v1/completions", body='{"prompt":"a","max_tokens":9}'),
    "noise": b"GET / HTTP/1.1\r\nHost: penstock\r\n\r\n",
    "a worker's role": frame(HELLO, version=1, role=2, model="sim"),
}


@pytest.mark.parametrize("data", WRONG_FRAMES.values(), ids=[name.replace(" ", "-") for name in WRONG_FRAMES])
def test_a_wrong_frame_closes_its_connection_and_nothing_else(penstock, data):
    service = penstock(server=PASS, workers=[simulate(tokens_per_second=20)])
    stream = service.stream(max_tokens=10)
    stream.next_event()
    bystander = Connection(service.penstockd.socket, role=TOOL)
    before = service.penstockd.workers()
    wrong = Connection(service.penstockd.socket, hello=False)
    wrong.send(data)
    frames = wrong.until_closed()
    assert frames and frames[-1][0] == GOODBYE
    wrong.close()
    bystander.send(frame(12))
    assert bystander.receive()[0] == 12
    bystander.close()
    assert stream.rest().endswith(b"data: [DONE]\n\n")
    assert service.penstockd.workers() == before


def test_wrong_frames_are_counted(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    for _ in range(3):
        wrong = Connection(service.penstockd.socket, hello=False)
        wrong.send(b"x" * 64)
        wrong.until_closed()
        wrong.close()
    assert json.loads(service.penstockd.status())["counters"]["protocol_errors"] == 3
