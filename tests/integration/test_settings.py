"""Every setting of a request, with the real worker and the demo model: honoured, refused by name, or known to change nothing."""

from pathlib import Path

import pytest

from conftest import simulate

PASS = "location / { penstock_pass gpu; }"
MODEL = Path(__file__).parents[2] / "config" / "models" / "demo"
BODY = {"model": "demo", "prompt": "The hacker", "temperature": 1.5, "seed": 4, "max_tokens": 40}


def llama(**options):
    return dict(name="demo", engine="llama", model=MODEL, device="cpu", slots=2, memory="64MiB", threads=2, **options)


@pytest.fixture
def demo(penstock):
    service = penstock(server=PASS, workers=[llama()])

    def ask(**more):
        answer = service.complete(**{**BODY, **more})
        if answer.status != 200:
            return answer.status, answer.json()["error"]["param"]
        return 200, answer.json()["choices"][0]
    return ask


def text(answer):
    assert answer[0] == 200, answer
    return answer[1]["text"]


def test_each_setting_of_the_draw_has_its_effect(demo):
    plain, greedy = text(demo()), text(demo(temperature=0))
    assert plain != greedy
    assert text(demo(top_k=1)) == greedy
    assert text(demo(top_k=-1)) == text(demo(top_k=0)) == plain
    assert text(demo(min_p=1)) == greedy
    assert text(demo(repetition_penalty=1)) == plain
    assert text(demo(repetition_penalty=1.9)) != plain
    assert text(demo(stop_token_ids=list(range(1, 1500)))) == ""
    longer = demo(min_tokens=40, stop_token_ids=list(range(1, 700)))
    assert longer[1]["finish_reason"] == "length" and text(longer)


def test_what_cannot_be_honoured_is_refused_by_name(demo):
    for name, value in [("n", 2), ("echo", True), ("frequency_penalty", 1), ("presence_penalty", -1), ("logit_bias", {"5": -100}),
                        ("guided_json", {"type": "object"}), ("structured_outputs", {"regex": "[0-9]+"}), ("guided_choice", ["yes", "no"]),
                        ("bad_words", ["the"]), ("allowed_token_ids", [50]), ("logprobs", 2), ("stop_token_ids", [1536]),
                        ("max_token", 3), ("logprob", 3), ("maxTokens", 3)]:
        assert demo(**{name: value}) == (400, name)


def test_what_changes_nothing_passes(demo):
    plain = text(demo())
    for name, value in [("frequency_penalty", 0), ("presence_penalty", 0.0), ("logit_bias", {}), ("n", 1), ("best_of", 1), ("user", "me"),
                        ("suffix", None), ("logprobs", None), ("min_tokens", 0), ("metadata", {"a": "b"}), ("service_tier", "auto"),
                        ("max_token", None), ("guided_json", None), ("stop_token_ids", [])]:
        assert text(demo(**{name: value})) == plain, name


def test_logprobs_are_those_of_the_chosen_tokens(demo):
    choice = demo(temperature=0, logprobs=0)[1]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert all(logprob < 0 for logprob in logprobs["token_logprobs"])
    assert all(choice["text"][offset:].startswith(token) for offset, token in zip(logprobs["text_offset"], logprobs["tokens"]))
    assert demo(temperature=0)[1]["logprobs"] is None


def test_an_operator_may_allow_more(penstock):
    service = penstock(server=PASS, workers=[llama(lenient="true", steering="true")])
    plain = service.complete(**BODY).json()["choices"][0]["text"]
    assert service.complete(**BODY, max_token=3).json()["choices"][0]["text"] == plain
    assert service.complete(**BODY, guided_json={"type": "object"}).status == 400, "what is known to matter is not passed over"
    for steered in [dict(logit_bias={"5": 100}), dict(frequency_penalty=2, presence_penalty=2)]:
        assert service.complete(**BODY, **steered).json()["choices"][0]["text"] != plain


def test_simulate_reads_as_the_others_do(penstock):
    service = penstock(server=PASS, workers=[simulate(), simulate("easy", lenient="true")])
    problem = service.complete(max_token=3)
    assert problem.status == 400 and problem.json()["error"]["param"] == "max_token"
    assert "max_tokens" in problem.json()["error"]["message"]
    assert service.complete(model="easy", max_token=3).status == 200
    assert service.complete(top_k=5, min_p=0.1, stop_token_ids=[1]).status == 200
    assert service.complete(logprobs=0).json()["choices"][0]["logprobs"]["token_logprobs"] == [0, 0, 0, 0]


def test_what_is_wrong_by_itself_is_not_promised(penstock):
    service = penstock(http="penstock_zone edge 1m; penstock_tier free { rate 1000r/s; }", workers=[llama()], yaml="state: state\n", server="""
        penstock_owner $http_authorization;
        location /v1/ { penstock_limit zone=edge key=$http_authorization tier=free; penstock_pass gpu; }
        location /jobs { penstock_jobs gpu; }""")
    alice = {"Authorization": "Bearer alice", "Prefer": "respond-async"}
    for more in [{"n": 2}, {"max_token": 3}, {"prompt": "x" * 100_000}]:
        for headers in [{}, {"Idempotency-Key": '"k"'}, {"Penstock-Delay": "3600"}]:
            answer = service.complete(headers={**alice, **headers}, **{**BODY, **more})
            assert answer.status == 400, answer.body
    assert service.request("GET", "/jobs", alice).json()["data"] == []
    assert service.complete(headers=alice, **BODY).status == 202
