"""The console that penstock_console gpu is: who may look, whose orders it takes, and one story of them in a real browser."""

import base64
import os
import re

import pytest

from client import exchange
from conftest import simulate
from scripted import goodbye
from test_page import SOURCE, WWW, play
from waiting import until

HTTP = """
    penstock_zone edge 1m;
    penstock_tier free { rate 60r/m burst=5; quota 100r/d; }
"""
SERVER = f"""
    penstock_owner $http_authorization;
    location /v1/ {{ penstock_limit zone=edge key=$http_authorization tier=free; penstock_pass gpu; }}
    location /jobs {{ penstock_jobs gpu; }}
    location /console/ {{ penstock_console gpu root={WWW}; allow 127.0.0.1; deny all; }}
    location /readonly {{ penstock_console gpu root={WWW} read_only; }}
"""


@pytest.fixture
def service(penstock):
    return penstock(http=HTTP, server=SERVER, workers=[simulate(slots=2)], yaml="state: state\n")


def own(service):
    return {"Origin": f"http://127.0.0.1:{service.port}"}


def order(service, path, method="POST", prefix="/console", **more):
    """An order as the page gives it."""
    token = service.get(f"{prefix}/session").json()["token"]
    return service.request(method, prefix + path, {**own(service), "Penstock-Order": token, **more})


def is_paused(service):
    (queue,) = service.get("/console/status").json()["queues"]
    return queue["paused"]


def test_what_penstockd_tells_operators_is_told_here(service):
    job = service.complete(headers={"Prefer": "respond-async"}).json()["id"]
    status = service.get("/console/status")
    assert status.json()["status"] == "serving" and status.headers["Cache-Control"] == "no-store"
    assert status.headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in status.headers
    (row,) = service.get("/console/history").json()["rows"]
    (queue,) = row["queues"]
    assert queue["name"] == "default" and queue["in"] == 1 and queue["promised_ms"] == 0
    until(lambda: service.get(f"/console/jobs/{job}").json()["status"] == "completed", "it is done")
    assert [each["id"] for each in service.get("/console/jobs?status=completed").json()["data"]] == [job]
    assert service.get(f"/console/jobs/{job}/result").json()["object"] == "text_completion"
    assert service.get("/console/dead").json()["data"] == []
    until(lambda: "penstock_wait_seconds_bucket" in service.get("/console/metrics").text(), "it is on the page of figures")
    assert service.get("/console/nothing").status == 404


def test_how_many_were_turned_away_of_late_is_told_to_whoever_asks_first(service):
    def requests():
        return service.get("/console/offenders").json()["requests"]
    assert requests() == {"seconds": 0, "all": 0, "rejected": 0, "busy": 0}
    who = {"Authorization": "Bearer a"}
    statuses = [service.request("GET", "/v1/models", who).status for _ in range(8)]
    told = requests()
    seconds = told.pop("seconds")
    assert told == {"all": 8, "rejected": statuses.count(429), "busy": 0} and told["rejected"] > 0
    assert 0 <= seconds < 120
    service.nginx.reload()
    assert service.request("GET", "/v1/models", {"Authorization": "Bearer b"}).status == 200
    assert requests()["all"] == 9, "a reload keeps them"


def test_the_page_and_its_files_come_with_a_policy(service):
    page = service.get("/console/", Accept="text/html")
    assert page.status == 200 and "Penstock console" in page.text() and page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "require-trusted-types-for 'script'" in page.headers["Content-Security-Policy"] and "Set-Cookie" not in page.headers
    for path, kind in (("ui/el.js", "text/javascript"), ("console/console.js", "text/javascript"), ("console/words.zh.json", "application/json")):
        file = service.get(f"/console/{path}")
        assert file.status == 200 and file.headers["Content-Type"].startswith(kind) and len(file.headers.get_all("X-Content-Type-Options")) == 1
    assert service.get("/console/").json()["endpoints"], "a program is told what there is"
    for path in ("ui/../index.html", "index.html", "console/none.js", "ui/", "console/../../nginx.conf", "%2e%2e/nginx.conf"):
        assert service.get(f"/console/{path}").status in (403, 404), path
    elsewhere = service.get("/readonly", Accept="text/html")
    assert elsewhere.status == 301 and elsewhere.headers["Location"].endswith("/readonly/")
    assert "Penstock console" in service.get("/readonly/", Accept="text/html").text()
    assert service.get("/readonly/console/style.css").status == 200


def test_an_order_needs_a_page_of_ours_and_its_token(service):
    token = service.get("/console/session").json()["token"]
    origin, carried = own(service), {"Penstock-Order": token}
    forged = {"Penstock-Order": ("0" if token[0] != "0" else "1") + token[1:]}
    other = {"Penstock-Order": order_token_of(service, "bob")}
    for headers in ({}, origin, carried, {**origin, "Penstock-Order": ""}, {**origin, **forged}, {**origin, **other},
                    {**carried, "Origin": "http://evil.example"}, {**carried, "Origin": "null"},
                    {**carried, **origin, "Sec-Fetch-Site": "cross-site"}, {**carried, **origin, "Sec-Fetch-Site": "same-site"},
                    {**carried, "Sec-Fetch-Site": "none"}, {**origin, "Content-Type": "application/x-www-form-urlencoded"}):
        answer = service.request("POST", "/console/queues/default/pause", headers, "")
        assert answer.status == 403 and answer.json()["error"]["code"] == "forbidden", headers
    assert not is_paused(service)
    assert order(service, "/queues/default/pause").json()["paused"] is True and is_paused(service)
    assert order(service, "/queues/default/resume", **{"Sec-Fetch-Site": "same-origin"}).json()["paused"] is False
    assert order(service, "/queues/none/pause").status == 404
    refused = [line for line in service.nginx.log().splitlines() if 'deed=POST object="/queues/default/pause" outcome=refused status=403' in line]
    assert 5 <= len(refused) < 12 and 'order by="127.0.0.1"' in refused[0], "each is told, but not a flood"
    (resumed, paused) = service.get("/console/orders").json()["orders"][1:]
    assert (paused["order"], resumed["order"]) == ("POST /queues/default/pause", "POST /queues/default/resume")


def order_token_of(service, user):
    name = base64.b64encode(f"{user}:x".encode()).decode()
    return service.get("/console/session", Authorization=f"Basic {name}").json()["token"]


def test_the_log_says_who_gave_an_order(service):
    alice = {"Authorization": "Basic " + base64.b64encode(b"alice:x").decode(), "Penstock-Order": order_token_of(service, "alice")}
    assert service.request("POST", "/console/queues/default/pause", {**own(service), **alice}).status == 200
    (given,) = service.get("/console/orders").json()["orders"]
    assert re.fullmatch(rf"'alice at 127\.0\.0\.1', by uid {os.getuid()}, pid \d+", given["who"])
    told = ' by="alice at 127.0.0.1" deed=pause object=/queues/default outcome=done status=200'
    assert re.search(rf"\[info\] order uid={os.getuid()} pid=\d+{told}\n", service.penstockd.process.text())


def test_pages_of_other_sites_neither_read_nor_frame_it(service):
    for site in ("cross-site", "same-site"):
        for path in ("session", "status", "jobs", "metrics"):
            assert service.get(f"/console/{path}", Sec_Fetch_Site=site).status == 403
    assert service.get("/console/", Accept="text/html", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200  # by a link
    assert "frame-ancestors 'none'" in service.get("/console/", Accept="text/html").headers["Content-Security-Policy"]


def test_a_name_that_was_pointed_here_is_refused(penstock):
    service = penstock(http=HTTP, server="server_name ops.example *.wild.example;" + SERVER, workers=[simulate()])
    for host, status in ((f"evil.example:{service.port}", 403), ("wild.example", 403), (f"127.0.0.1:{service.port}", 200), ("[::1]:80", 200),
                         ("localhost", 200), ("ops.example", 200), ("OPS.example", 200), ("a.wild.example", 200), ("127.0.0.1.evil.example", 403)):
        got = exchange(service.port, f"GET /console/session HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert got.split()[1] == str(status).encode(), host
    page = exchange(service.port, b"GET /console/ HTTP/1.1\r\nHost: evil.example\r\nSec-Fetch-Site: none\r\nConnection: close\r\n\r\n")
    assert page.split()[1] == b"403"


def test_programs_too_ask_it_by_its_name(service):
    for path in ("limits", "offenders", ""):
        for host, status in (("evil.example", b"403"), ("localhost", b"200")):
            got = exchange(service.port, f"GET /console/{path} HTTP/1.1\r\nHost: {host}\r\nPenstock-Key: a\r\nConnection: close\r\n\r\n".encode())
            assert got.split()[1] == status, (path, host)


@pytest.mark.parametrize("path", ["status", "history", "orders", "predictions", "jobs", "dead", "session", "limits", "offenders", "metrics", ""])
def test_its_answers_have_heads_without_a_body(service, path):
    key = {"Penstock-Key": "a"}
    head, whole = (service.request(method, f"/console/{path}", key) for method in ("HEAD", "GET"))
    assert head.status == whole.status == 200 and head.body == b"" and head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert "Content-Length" in head.headers, head


def test_a_penstockd_that_stops_or_is_full_is_away_and_forbids_nothing(edge, peer):
    stops = peer("a", goodbye("penstockd is being stopped"))
    service = edge(stops, server=f"location /console/ {{ penstock_console a root={WWW}; }}")
    answer = service.get("/console/status")
    assert answer.status == 503 and answer.headers["Retry-After"] == "1" and "being stopped" in answer.json()["detail"]
    denies = peer("b", goodbye("uid 33 is no operator", denied=1))
    service = edge(denies, server=f"location /console/ {{ penstock_console b root={WWW}; }}")
    assert service.get("/console/status").status == 403


def test_a_console_that_is_read_only_takes_no_orders(service):
    assert service.get("/readonly/session").json()["read_only"] is True
    assert order(service, "/queues/default/pause", prefix="/readonly").status == 403
    assert service.request("DELETE", "/readonly/limits", {"Penstock-Key": "a"}).status == 403
    assert not is_paused(service)
    assert service.get("/readonly/jobs").status == 200


def test_counters_are_forgotten_for_a_page_by_a_token_and_for_a_program_without(service):
    key = {"Penstock-Key": "Bearer a"}
    service.request("GET", "/v1/models", {"Authorization": "Bearer a"})
    assert service.request("DELETE", "/console/limits", {**key, **own(service)}).status == 403
    assert service.request("DELETE", "/console/limits", {**key, "Sec-Fetch-Site": "cross-site"}).status == 403
    assert order(service, "/limits", "DELETE", **key).json()["reset"] == ["free-rate", "free-quota-d"]
    assert service.request("DELETE", "/console/limits", key).json()["reset"] == []


def test_kept_connections_serve_callers_and_the_console_in_turn(service):
    for i in range(10):
        who = {"Authorization": f"Bearer {i}"}
        assert service.get("/console/status").status == 200
        assert service.complete(headers=who).status == 200
        assert service.get("/console/jobs").status == 200
        assert service.complete(headers={**who, "Prefer": "respond-async"}).status == 202
        assert order(service, "/queues/default/resume").status == 200
        assert service.get("/jobs").status == 200
        assert service.stream(headers=who).rest().endswith(b"data: [DONE]\n\n")
    assert "repeated with another role" not in service.penstockd.process.text()
    assert service.get("/console/status").json()["connections"] < 6, "they were kept"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("access, status, orders", [("edges: [daemon]", 403, 403), ("edges: [daemon], viewers: [daemon]", 200, 403),
                                                  ("operators: [daemon]", 200, 200)])
def test_what_nginx_may_ask_is_penstockds_to_say(penstock, access, status, orders):
    service = penstock(start=False, http=HTTP, server=SERVER, workers=[simulate()], yaml=f"socket_mode: 0666\naccess: {{ {access} }}\nstate: state\n",
                       master=True)
    service.folder.chmod(0o755)
    service.nginx.write_config(service.nginx.config.read_text().replace("user root;", "user daemon;"))
    service.start()
    for path, expected in (("status", status), ("history", status), ("jobs", status), ("orders", orders), ("predictions", orders)):
        answer = service.get(f"/console/{path}")
        assert answer.status == expected, path
        assert expected == 200 or "access.operators" in answer.json()["detail"]
    assert order(service, "/queues/default/pause").status == orders
    assert service.get("/v1/models").status == 200, "its callers are served all the same"


@pytest.mark.parametrize("location, lines, said", [
    ("/console/", "penstock_console gpu root=;", "takes root=PATH"),
    ("/console/", "penstock_console gpu root=/a/$b;", "takes root=PATH"),
    ("/console/", "penstock_console root=/a;", "penstock_console has no page without an upstream, and so no root="),
    ("/console/", "penstock_console gpu rot=/a;", 'unknown parameter "rot=/a" of penstock_console'),
    ("/console/", "penstock_console gpu other;", 'unknown parameter "other" of penstock_console'),
    ("/console/", "root /a; penstock_console gpu;", "no root or alias stands beside"),
    ("/console/", "penstock_console gpu; penstock_pass gpu;", "stands beside another"),
    ("/console/", "penstock_jobs gpu; penstock_console gpu;", "stands where another directive answers already")])
def test_what_makes_no_sense_is_refused(penstock, location, lines, said):
    service = penstock(start=False, server=f"location {location} {{ {lines} }}")
    accepted, words = service.nginx.check()
    assert not accepted and said in words, words


def test_an_operators_night(penstock, folder):
    stage = folder / "stage.sock"
    worker = dict(name="words", model="words", engine="process", command=f"[/usr/bin/python3, {SOURCE / 'relay.py'}, {stage}]", device="cpu", slots=1)
    service = penstock(http=HTTP, server=SERVER, workers=[worker], queue={"max_length": 5, "attempts": 1}, yaml="state: state\n")
    play("console.mjs", f"http://127.0.0.1:{service.port}", stage)


def test_every_state_of_the_console_as_it_looks(penstock):
    play("console_states.mjs", f"http://127.0.0.1:{penstock(http=HTTP, server=SERVER).port}")
