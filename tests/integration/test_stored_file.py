"""Answers that lie in files of penstockd's: served by Nginx as it serves files, where the request was, and as it was."""

import pytest

from conftest import simulate
from test_jobs import ALICE, BODY, HTTP, SERVER, get, jobs, large, post, until_status  # noqa: F401
from waiting import until

LONG = {**BODY, "max_tokens": 20000}
MANY_TOKENS = dict(workers=[simulate(slots=1, service_time="1ms", output_tokens=20000)])
WAIT = {**ALICE, "Prefer": "respond-async, wait=60"}


def served(service, path="/v1/completions", headers=WAIT):
    """The long answer of a promised job, for which the request has waited."""
    reply = service.request("POST", path, headers, LONG)
    assert reply.status == 200 and len(reply.body) > 65536, reply
    return reply


def with_pass(location):
    return SERVER.replace(SERVER.splitlines()[1], location)


# --- Nothing is asked a second time, or as another request

@pytest.mark.parametrize("location, path", [
    ("location /v1/ { limit_except POST { deny all; } penstock_pass gpu; }", "/v1/completions"),
    ("location /api/ { rewrite ^/api/(.*) /v1/$1 break; penstock_pass gpu; }", "/api/completions?a=b%20c"),
    ("location /v1/ { if ($request_method = POST) { penstock_pass gpu; } }", "/v1/completions"),
    ("if ($request_method = GET) { return 403; } location /v1/ { penstock_pass gpu; }", "/v1/completions"),
    ("location /v1/ { error_page 418 = @pass; return 418; } location @pass { penstock_pass gpu; }", "/v1/completions"),
])
def test_a_long_answer_comes_wherever_the_request_was(jobs, location, path):
    server = with_pass(location)
    service = jobs(server=server, **MANY_TOKENS)
    whole = served(service, path)
    key = {**ALICE, "Idempotency-Key": '"a"'}
    first = service.request("POST", path, {**key, "Prefer": "respond-async"}, LONG)
    assert first.status == 202, first
    until(lambda: service.request("POST", path, {**key, "Prefer": "respond-async"}, LONG).json().get("status") == "completed",
          "it is done")
    again = served(service, path, key)
    assert again.headers["Penstock-Duplicate"] == "true" and len(again.body) == len(whole.body)


def test_permission_is_asked_for_once_and_the_log_has_the_request_as_it_came(jobs, folder):
    service = jobs(http=HTTP + f"""
        log_format asked '$request_method $request_uri $uri?$args $status';""", server=f"""
        access_log {folder}/asked.log asked;
        penstock_owner $http_authorization;
        log_subrequest on;
        location /v1/ {{ auth_request /may; mirror /shadow; penstock_pass gpu; }}
        location /jobs {{ auth_request /may; mirror /shadow; penstock_jobs gpu; }}
        location = /may {{ internal; access_log {folder}/may.log asked; return 204; }}
        location = /shadow {{ internal; access_log {folder}/shadow.log asked; return 204; }}""", **MANY_TOKENS)
    id = served(service, "/v1/completions?x=1").headers["Penstock-Job-Id"]
    assert service.request("GET", f"/jobs/{id}/result?y=2", ALICE).status == 200

    def log(name, count):
        lines = until(lambda: (folder / name).read_text().splitlines()[count - 1:] and (folder / name).read_text().splitlines(), name)
        assert len(lines) == count, lines
        return lines

    log("may.log", 2)
    log("shadow.log", 2)
    assert log("asked.log", 2) == ["POST /v1/completions?x=1 /v1/completions?x=1 200",
                                   f"GET /jobs/{id}/result?y=2 /jobs/{id}/result?y=2 200"]


def test_a_file_that_is_gone_is_told_where_it_was_asked_for(jobs):
    service = jobs(server=SERVER.replace("penstock_jobs gpu;", "penstock_jobs gpu; error_page 404 = @gone;") +
                   "location @gone { return 410; }", **MANY_TOKENS)
    id, _ = large(service)
    (service.folder / "state" / "results" / id).unlink()
    assert get(service, f"/jobs/{id}/result").status == 410


# --- As Nginx serves files

@pytest.mark.parametrize("how", ["sendfile on; tcp_nopush on;", "sendfile off;", "sendfile on; aio threads;", "aio threads; directio 512;",
                                 "open_file_cache max=10; open_file_cache_errors on;", "limit_rate 1m; limit_rate_after 64k;"])
def test_the_server_says_how_files_are_read(jobs, how):
    service = jobs(server=how + SERVER, **MANY_TOKENS)
    id, whole = large(service)
    assert whole.body == (service.folder / "state" / "results" / id).read_bytes()
    part = get(service, f"/jobs/{id}/result", {**ALICE, "Range": "bytes=1000-70000"})
    assert part.status == 206 and part.body == whole.body[1000:70001]


def test_conditions_and_ranges_are_of_get(jobs):
    service = jobs(**MANY_TOKENS)
    id, whole = large(service)
    path, tag = f"/jobs/{id}/result", {"If-None-Match": whole.headers["ETag"]}

    def ask(**headers):
        return get(service, path, {**ALICE, **{name.replace("_", "-"): value for name, value in headers.items()}})

    assert ask(If_None_Match=whole.headers["ETag"]).status == 304
    assert ask(If_Modified_Since=whole.headers["Last-Modified"]).status == 304
    assert ask(If_Match='"other"').status == 412
    assert ask(If_Range=whole.headers["ETag"], Range="bytes=0-9").body == whole.body[:10]
    assert ask(If_Range='"other"', Range="bytes=0-9").status == 200
    several = ask(Range="bytes=0-9,100-109")
    assert several.status == 206 and several.headers["Content-Type"].startswith("multipart/byteranges")
    assert whole.body[:10] in several.body and whole.body[100:110] in several.body
    head = service.request("HEAD", path, ALICE)
    assert (head.status, head.body, int(head.headers["Content-Length"])) == (200, b"", len(whole.body))

    key = {**ALICE, "Idempotency-Key": '"a"'}
    until_status(service, post(service, {**key, "Prefer": "respond-async"}, LONG).json()["id"], "completed")
    posted = post(service, {**key, **tag, "Range": "bytes=0-9", "If-Match": '"other"'}, LONG)
    assert posted.status == 200 and len(posted.body) == len(whole.body)
    assert "ETag" not in posted.headers and "Accept-Ranges" not in posted.headers
