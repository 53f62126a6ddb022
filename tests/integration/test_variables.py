"""The $penstock_ variables, as an access log shows them."""

import re

import pytest

from conftest import simulate
from scripted import answer
from waiting import until

HTTP = """
    penstock_zone edge 1m;
    penstock_tier free { rate 2r/m; }
    log_format v '$status tier=$penstock_tier status=$penstock_status limit=$penstock_limit_name '
                 'retry=$penstock_retry_after model=$penstock_model job=$penstock_job_id wait=$penstock_wait '
                 'cost=$penstock_cost';
"""


def lines(service, count):
    path = service.folder / "access.log"
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= count, f"the access log has {count} lines")
    return path.read_text().splitlines()


def test_variables_tell_what_became_of_a_request(penstock):
    service = penstock(start=False, workers=[simulate()])
    service.nginx.write_config(service.configuration(HTTP, f"""
        access_log {service.folder}/access.log v;
        location / {{ penstock_limit zone=edge key=$arg_key tier=free; penstock_pass gpu; }}"""))
    service.start()
    for _ in range(3):
        service.complete("/v1/completions?key=k")
    first, second, third = lines(service, 3)
    assert re.match(r"200 tier=free status=PASSED limit=- retry=- model=sim job=job_\w+ wait=[\d.]+ ", first), first
    assert re.match(r"429 tier=free status=REJECTED limit=free-rate retry=30 model=\S+ job=- wait=- ", third), third
    assert re.search(r"job=(\S+)", first).group(1) != re.search(r"job=(\S+)", second).group(1)


def test_an_access_log_can_bill(penstock):
    service = penstock(start=False, workers=[simulate(service_time="50ms")], yaml="state: state\n")
    service.nginx.write_config(service.configuration("""
        log_format bill '$status $penstock_queue $penstock_prompt_tokens $penstock_completion_tokens $penstock_gpu_ms $penstock_queue_ms';
        penstock_zone edge 1m;""", f"""
        access_log {service.folder}/access.log bill;
        location / {{ penstock_limit zone=edge key=$arg_key rate=2r/h name=key; penstock_pass gpu; }}"""))
    service.start()
    used = service.complete("/v1/completions?key=k").json()["usage"]
    promised = service.request("POST", "/v1/completions?key=k", {"Prefer": "respond-async"}, {"model": "sim", "prompt": "a"})
    assert promised.status == 202
    assert service.complete("/v1/completions?key=k").status == 429
    waited, later, refused = lines(service, 3)
    status, queue, prompt, completion, gpu_ms, queue_ms = waited.split()
    assert (status, queue) == ("200", "default")
    assert (int(prompt), int(completion)) == (used["prompt_tokens"], used["completion_tokens"]) and int(completion) > 0
    assert int(gpu_ms) >= 50 and int(queue_ms) < 5000
    assert (later, refused) == ("202 default - - - -", "429 - - - - -")


def test_a_limit_may_be_keyed_by_the_model_in_the_body(penstock):
    service = penstock(workers=[simulate(), simulate("other")], http="penstock_zone edge 1m;", server="""
        location / { penstock_limit zone=edge key=$penstock_model rate=1r/h name=model; penstock_pass gpu; }""")
    assert [service.complete(model=model).status for model in ("sim", "sim", "other", "other")] == [200, 429, 200, 429]
    assert service.complete("/v1/chat/completions", model="sim", messages=[{"role": "user", "content": "hi"}]).status == 429


def test_any_field_of_the_body_may_be_a_key(peer, edge):
    service = edge(peer("a", answer(b"hi")), server="""
        location / { penstock_limit zone=edge key=$penstock_body_user rate=2r/d name=user; penstock_pass a; }""")

    def ask(body):
        return service.request("POST", "/", None, body).status
    assert [ask({"user": "ann"}) for _ in range(3)] == [200, 200, 429]
    assert [ask({"nested": {"user": "ann"}, "user": "bob"}) for _ in range(3)] == [200, 200, 429]
    assert [ask('{"us\\u0065r": "ann"}'), ask('{"user": "\\u0061nn"}')] == [429, 429]
    assert [ask({"user": 7}), ask({"user": "7"}), ask({"user": 7})] == [200, 200, 429]
    # Where there is none, the limit does not apply.
    assert [ask({"nested": {"user": "ann"}}) for _ in range(3)] == [200] * 3
    assert [ask("no json") for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("model", ['"%s"' % ("m" * 129), '"\\ud83d\\ude00"'])
def test_a_model_whose_name_is_not_kept_is_not_taken_for_none(penstock, model):
    service = penstock(workers=[simulate()], http="penstock_zone edge 1m;", server="""
        location / { penstock_limit zone=edge key=$penstock_model rate=1r/h name=model; penstock_pass gpu; }""")
    body = '{"model":%s,"prompt":"a"}' % model
    answers = [service.request("POST", "/v1/completions", None, body) for _ in range(2)]
    assert [came.status for came in answers] == [404, 429]


def test_no_field_of_the_body_breaks_out_of_a_header_or_a_line(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server="""
        location / {
            penstock_limit zone=edge key=$penstock_body_user rate=1r/d name=user;
            add_header X-Model $penstock_model always;
            add_header X-User $penstock_body_user always;
            penstock_pass a;
        }""")
    for end, status in (("\r\n", 200), ("\n", 200), ("\x7f", 200), ("\r\n", 429)):
        came = service.request("POST", "/", None, {"model": f"m{end}Forged: 1", "user": f"u{end}Forged: 2"})
        assert came.status == status and "Forged" not in came.headers
        assert all(re.fullmatch("~[0-9a-f]{16}", came.headers[name]) for name in ("X-Model", "X-User"))


def test_dimensions_may_be_combined(peer, edge):
    service = edge(peer("a", answer(b"hi")), server="""
        location / {
            client_body_buffer_size 1k;
            penstock_limit zone=edge key=$arg_key:$penstock_model:$penstock_body_user rate=1r/d name=all;
            penstock_limit zone=edge key=$penstock_model rate=3r/d name=model;
            penstock_pass a;
        }""")

    def ask(key, model, user):
        return service.request("POST", f"/?key={key}", None, {"padding": "x" * 5000, "model": model, "user": user}).status
    assert [ask("k", "m1", "u"), ask("k", "m1", "u"), ask("l", "m1", "u"), ask("k", "m2", "u"), ask("k", "m1", "v")] == [200, 429, 200, 200, 200]
    assert [ask("z", "m1", "z"), ask("z", "m2", "z")] == [429, 200]


def test_a_field_may_name_the_plan(peer, edge):
    service = edge(peer("a", answer(b"hi")), http="penstock_tier small { rate 1r/d; } penstock_tier large { rate 2r/d; }", server="""
        location / { penstock_limit zone=edge key=all tier=$penstock_body_size; penstock_pass a; }""")
    statuses = [service.request("POST", "/", None, {"size": size}).status for size in ("small", "small", "large", "large", "large", "huge")]
    assert statuses == [200, 429, 200, 200, 429, 403]


def test_fields_of_the_body_are_told_to_the_log(penstock):
    service = penstock(start=False, workers=[simulate()])
    service.nginx.write_config(service.configuration("""
        penstock_zone edge 1m;
        log_format v '$penstock_cost user=$penstock_body_user';""", f"""
        access_log {service.folder}/access.log v;
        location / {{ penstock_limit zone=edge key=$arg_key rate=1000t/M name=tokens; penstock_pass gpu; }}"""))
    service.start()
    assert service.complete("/v1/completions?key=k", prompt="x" * 38, max_tokens=5, user="ann").status == 200
    service.get("/v1/models?key=k")
    first, second = lines(service, 2)
    assert first == "15 user=ann" and second.endswith(" user=-")
