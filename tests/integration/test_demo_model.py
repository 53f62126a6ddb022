"""The demo model, as `make run` serves it: words come out."""

import json
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "config" / "models" / "demo"
PASS = "location / { penstock_pass gpu; }"


@pytest.fixture
def service(penstock):
    return penstock(server=PASS, workers=[dict(name="demo", engine="llama", model=MODEL, device="cpu", slots=4, memory="256MiB")])


def test_a_completion_streams_words(service):
    stream = service.stream(model="demo", prompt="The ", max_tokens=40, temperature=0)
    events = list(stream.events())
    text = "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])
    assert len(events) > 10 and len(text.split()) >= 5 and text.isprintable() or "\n" in text


def test_greedy_answers_are_the_same_alone_and_in_a_batch(service):
    import threading
    alone = service.complete(model="demo", prompt="A licence", max_tokens=32, temperature=0).json()
    answers = []

    def ask(prompt):
        answers.append((prompt, service.complete(model="demo", prompt=prompt, max_tokens=32, temperature=0).json()))

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in ("A licence", "The", "You may", "A licence")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["choices"][0]["text"] for prompt, answer in answers if prompt == "A licence"] == \
        [alone["choices"][0]["text"]] * 2


def test_a_seed_makes_an_answer_repeatable(service):
    def ask(seed):
        return service.complete(model="demo", prompt="The", max_tokens=24, temperature=1, seed=seed).json()["choices"][0]["text"]
    assert ask(7) == ask(7)
    assert len({ask(seed) for seed in range(5)}) > 1


def test_chat_works_with_the_demo_model(service):
    answer = service.complete("/v1/chat/completions", model="demo", prompt=None, max_tokens=8,
                              messages=[{"role": "user", "content": "Hello"}])
    assert answer.status == 200 and answer.json()["usage"]["completion_tokens"] <= 8


def test_a_prompt_longer_than_the_context_is_refused(service):
    answer = service.complete(model="demo", prompt="word " * 5000, max_tokens=1)
    assert answer.status == 400 and answer.json()["error"]["param"] in ("prompt", "max_tokens")


@pytest.mark.parametrize("body", ["", "\x00\x01", "[1,2]", '{"model":"demo","prompt":"a",}', '{"model":"demo"}'])
def test_a_body_that_is_no_request_is_refused(service, body):
    answer = service.request("POST", "/v1/completions", {"Content-Type": "application/json"}, body)
    assert answer.status == 400 and answer.json()["error"]["code"] == "invalid_request"


def test_another_path_is_not_found(service):
    assert service.request("POST", "/v1/embeddings", {}, {"model": "demo", "input": "a"}).status == 404
