"""Limits across internal redirects, and other ways that might lead round them."""

import json

import pytest

from conftest import simulate
from scripted import accepted, answer, failed
from waiting import until

ZONE = "penstock_zone edge 1m;"


def body(**more):
    return {"model": "sim", "prompt": "a", "max_tokens": 4, **more}


def post(service, path="/", **headers):
    return service.request("POST", path, headers, body())


def test_an_error_page_that_serves_is_limited_by_its_own_limits(peer, edge):
    service = edge(peer("a", answer(b"hello")), server="""
        location / {
            error_page 429 = @slow;
            penstock_limit zone=edge key=$server_port rate=1r/d name=fast;
            penstock_pass a;
        }
        location @slow { penstock_limit zone=edge key=$server_port rate=2r/d name=slow; penstock_pass a; }""")
    came = [post(service) for _ in range(5)]
    assert [answer.status for answer in came] == [200, 200, 200, 429, 429]
    assert "Retry-After" not in came[1].headers
    assert came[1].headers["RateLimit-Policy"].startswith('"slow"')


def test_behind_a_filter_that_failed_each_place_tells_of_its_own_limits_alone(penstock, folder):
    (folder / "page").write_text("page")
    service = penstock(http=ZONE, server=f"""
        root {folder}; recursive_error_pages on;
        location = /page {{ error_page 412 = /first; penstock_limit zone=edge key=$server_port rate=9r/d name=page; }}
        location = /first {{ error_page 404 = /second; penstock_limit zone=edge key=$server_port rate=9r/d name=first; }}
        location = /second {{ penstock_limit zone=edge key=$server_port rate=9r/d name=second; }}""")
    came = service.get("/page", If_Match='"another"')
    assert came.status == 404
    assert [told.split(";")[0] for told in came.headers.get_all("RateLimit-Policy")] == ['"second"']


def test_a_fallback_after_a_failure_is_charged_once(peer, edge):
    service = edge(peer("a", failed(502, code="engine_failed")), peer("b", answer(b"hello")), server="""
        penstock_limit zone=edge key=$server_port rate=3r/d name=all;
        location / { error_page 502 503 = @fallback; penstock_intercept_errors on; penstock_pass a; }
        location @fallback { penstock_pass b; }""")
    assert [post(service).status for _ in range(5)] == [200, 200, 200, 429, 429]


def test_try_files_does_not_lead_round_the_limits_of_where_it_leads(penstock, folder):
    service = penstock(http=ZONE, server=f"""
        root {folder};
        penstock_limit zone=edge key=$server_port rate=100r/d name=outer;
        location / {{ try_files $uri @app; }}
        location @app {{ penstock_limit zone=edge key=$server_port rate=1r/d name=app; penstock_pass gpu; }}""",
                       workers=[simulate(slots=1)])
    assert [post(service, "/v1/completions").status for _ in range(3)] == [200, 429, 429]


def test_a_refusal_where_try_files_leads_costs_nothing_where_it_came_from(penstock, folder):
    outer = "penstock_limit zone=edge key=$server_port rate=9r/d name=outer;"
    service = penstock(http=ZONE, server=f"""
        root {folder}/nowhere;
        location /look {{ {outer} penstock_quota; }}
        location / {{ {outer} try_files $uri @app; }}
        location @app {{ penstock_limit zone=edge key=$server_port rate=1r/d name=app; empty_gif; }}""")
    assert service.statuses(4, "/") == [200, 429, 429, 429]
    assert service.get("/look").json()["limits"][0]["used"] == 1


def test_who_is_led_to_a_full_queue_is_charged_by_nobody(penstock, folder):
    limits = """penstock_limit zone=edge key=$server_port rate=9r/d name=outer;
                penstock_limit zone=edge key=$server_port concurrency=9 name=place;"""
    service = penstock(http=ZONE, server=f"""
        root {folder}/nowhere;
        location /look {{ {limits} penstock_quota; }}
        location / {{ {limits} try_files $uri @app; }}
        location @app {{ penstock_pass gpu; }}""", workers=[simulate(slots=1, service_time="60s")], queue={"max_length": 1})
    clients = [service.client() for _ in range(2)]
    for waiting, client in enumerate(clients):
        client._connection.request("POST", "/v1/completions", json.dumps(body()), {"Content-Type": "application/json"})
        service.penstockd.wait_for(running=1, length=waiting)
    until(lambda: "RateLimit" not in post(service, "/v1/completions").headers, "Nginx refuses by itself, and tells of no charge", 5)
    used = service.get("/look").json()["limits"][0]["used"]
    assert post(service, "/v1/completions").status == 503
    assert service.get("/look").json()["limits"][0]["used"] == used


def test_a_static_error_page_is_shown_for_a_refusal_of_limits_it_inherits(penstock, folder):
    (folder / "busy.html").write_text("come back later")
    service = penstock(http=ZONE, server=f"""
        root {folder};
        penstock_limit zone=edge key=$server_port rate=1r/d name=all;
        error_page 429 /busy.html;
        location /x {{ empty_gif; }}""")
    assert service.get("/x").status == 200
    refused = service.get("/x")
    assert (refused.status, refused.text()) == (429, "come back later")
    assert int(refused.headers["Retry-After"]) > 80000


def test_a_delay_in_one_place_is_no_reset_in_another(penstock):
    service = penstock(http=ZONE, server="""
        location /waits { penstock_limit zone=edge key=$server_port rate=1r/m burst=1 name=a action=delay max_delay=1h; empty_gif; }
        location /refuses { penstock_limit zone=edge key=$server_port rate=1r/m burst=1 name=a; empty_gif; }""")
    assert service.get("/waits").status == 200
    waiting = [service.client() for _ in range(20)]
    for client in waiting:
        client._connection.request("GET", "/waits")
    until(lambda: int(service.get("/refuses").headers["Retry-After"]) > 60 * 19, "twenty wait for a minute each")


def test_what_is_over_a_plan_is_refused_before_its_body_is_read(penstock):
    service = penstock(http=ZONE + "penstock_tier free { rate 1r/d; rate 1000000t/d; }", server="""
        location / { penstock_limit zone=edge key=$server_port tier=free; penstock_pass gpu; }""", workers=[simulate(slots=1)])
    assert post(service, "/v1/completions").status == 200
    client = service.client()
    client._connection.putrequest("POST", "/v1/completions")
    client._connection.putheader("Content-Length", "900000")
    client._connection.endheaders()
    assert client._connection.getresponse().status == 429


def test_degrading_needs_something_to_degrade(penstock):
    limit = "penstock_limit zone=edge key=$server_port rate=1r/d name=a action=degrade degrade_to=model=small;"
    service = penstock(http=ZONE, server=f"location / {{ {limit} empty_gif; }}")
    assert service.statuses(3) == [200, 429, 429]


def test_a_dry_run_of_another_plan_is_not_the_callers_plan(penstock):
    service = penstock(http=ZONE + "penstock_tier old { rate 5r/d; } penstock_tier new { rate 1r/d; }", server="""
        location / {
            add_header X-Tier $penstock_tier always;
            penstock_limit zone=edge key=$server_port tier=new dry_run=on;
            penstock_limit zone=edge key=$server_port tier=old;
            empty_gif;
        }""")
    for _ in range(2):
        came = service.get("/")
        assert (came.status, came.headers["X-Tier"]) == (200, "old")
        assert came.headers["RateLimit-Policy"] == '"old-rate";q=5;w=86400'


def test_a_tier_that_is_no_name_forges_no_line_in_the_log(penstock):
    service = penstock(http=ZONE + "penstock_tier free { rate 1r/d; }", server="""
        location / { penstock_limit zone=edge key=$server_port tier=$penstock_body_plan; penstock_pass gpu; }""",
                       workers=[simulate(slots=1)])
    for _ in range(5):
        assert service.request("POST", "/", {}, body(plan="x\n2026/01/01 00:00:00 [warn] forged")).status == 403
    assert "forged" not in service.nginx.log() and service.nginx.log().count("unknown penstock tier") == 1


def test_everyones_total_is_nobodys_header(penstock):
    service = penstock(http=ZONE, server="location / { penstock_limit zone=edge key=all rate=5r/d name=site; empty_gif; }")
    assert "RateLimit" not in service.get("/").headers


def test_a_limit_that_would_charge_twice_is_refused(penstock):
    limit = "penstock_limit zone=edge key=$server_port rate=1r/d name=a"
    service = penstock(start=False, http=ZONE, server=f"location / {{ {limit}; {limit} dry_run=on; empty_gif; }}")
    accepted_, said = service.nginx.check()
    assert not accepted_ and "charged twice" in said


def test_what_a_caller_that_left_has_used_is_not_given_back(peer, edge):
    """The job started at once, so the time until the caller left was the device's."""
    engine = peer("a", accepted("job_1", position=0))
    service = edge(engine, server="""
        location = /quota { penstock_limit zone=edge key=$server_port rate=100gs/d name=gpu; penstock_quota; }
        location / {
            penstock_cost gs "10";
            penstock_limit zone=edge key=$server_port rate=100gs/d name=gpu;
            penstock_pass a;
        }""")
    used = lambda: service.get("/quota").json()["limits"][0]["used"]
    client = service.client()
    client._connection.request("POST", "/", b"{}", {"Content-Type": "application/json"})
    until(lambda: used() == 10 and engine.submits, "it is reserved, and handed over")
    assert [used() for _ in range(30)] == [10] * 30  # the one worker has seen to the queue's answer meanwhile
    client.close()
    until(lambda: used() < 10, "it is settled")
    assert used() > 0


@pytest.mark.parametrize("stage", ["preaccess", "access"])
def test_a_refused_request_does_not_come_in_by_an_error_page_that_leads_back(peer, edge, stage):
    engine = peer("a", answer(b"hello"))
    service = edge(engine, server=f"""
        location /v1/ {{
            error_page 429 = /v1/small;
            penstock_limit zone=edge key=$server_port rate=9r/d name=all;
            penstock_limit zone=edge key=$server_port rate=2r/d name=few stage={stage};
            penstock_pass a;
        }}""")
    assert [post(service, "/v1/large").status for _ in range(4)] == [200, 200, 429, 429]
    assert len(engine.submits) == 2


def test_a_cost_is_reckoned_by_the_formulas_of_where_the_request_is(peer, edge):
    service = edge(peer("a", failed(502, code="engine_failed")), peer("b", answer(b"hello")), server="""
        penstock_limit zone=edge key=$server_port rate=100gs/d name=gpu;
        location / { error_page 502 503 = @b; penstock_intercept_errors on; penstock_cost gs "1"; penstock_pass a; }
        location @b { penstock_cost gs "40"; penstock_pass b; }""")
    came = post(service)
    assert came.status == 200 and came.headers["RateLimit"].startswith('"gpu";r=60;')


def test_a_lesser_request_that_fails_may_lead_to_where_no_limit_is(peer, edge):
    service = edge(peer("a", failed(502, code="engine_failed")), peer("b", answer(b"hello")), server="""
        location = /use { penstock_limit zone=edge key=$server_port rate=1r/d name=big; empty_gif; }
        location / {
            error_page 502 = @fallback; penstock_intercept_errors on;
            penstock_limit zone=edge key=$server_port rate=1r/d name=big action=degrade degrade_to=model=small;
            penstock_pass a;
        }
        location @fallback { penstock_pass b; }""")
    assert service.get("/use").status == 200
    assert (post(service).status, post(service).body) == (200, b"hello")


def test_who_was_to_get_an_earlier_answer_is_judged_again_where_a_failure_leads(peer, edge):
    service = edge(peer("b", answer(b"hello")), server="""
        penstock_owner $server_port;
        penstock_limit zone=edge key=$server_port rate=1r/d name=one action=degrade degrade_to=earlier;
        location = /use { empty_gif; }
        location / { error_page 502 = @fallback; penstock_intercept_errors on; penstock_pass 127.0.0.1:1; }
        location @fallback { penstock_earlier off; penstock_pass b; }""")
    assert service.get("/use").status == 200
    assert post(service).status == 429
