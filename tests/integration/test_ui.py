"""penstock_ui: the page's files, what a browser is told beside them, and whose the jobs of a browser are."""
import http.client
import json
import re
import ssl
import subprocess

import pytest

from conftest import simulate
from waiting import Port, until

OWNER = """
    map $http_authorization $owner { default $http_authorization; "" $penstock_session; }
    penstock_owner $owner;"""
COOKIE = re.compile(r"penstock-session=([A-Za-z0-9_-]{22}); Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax")


@pytest.fixture
def service(penstock, tmp_path):
    """A server with a page in a folder of the test's own, and a worker."""
    www = tmp_path / "www"
    (www / "ui").mkdir(parents=True)
    (www / "index.html").write_text("<!DOCTYPE html><title>page</title>")
    (www / "ui/app.js").write_text("export {}")
    (www / "ui/words.zh.json").write_text("{}")
    return penstock(workers=[simulate()], yaml="state: state\n", http=OWNER, server=f"""
        location / {{ penstock_ui gpu root={www}; }}
        location /v1/ {{ penstock_pass gpu; }}
        location /jobs {{ penstock_jobs gpu; }}""")


def cookie_of(service, **headers):
    answer = service.request("GET", "/", headers)
    found = COOKIE.fullmatch(answer.headers["Set-Cookie"])
    assert found, answer.headers["Set-Cookie"]
    return found[1]


def test_files_come_with_their_types_and_a_policy(service):
    for path, kind in (("/", "text/html; charset=utf-8"), ("/ui/app.js", "text/javascript; charset=utf-8"),
                       ("/ui/words.zh.json", "application/json")):
        answer = service.request("GET", path)
        assert answer.status == 200 and answer.headers["Content-Type"] == kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["ETag"]
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert policy[0] == "default-src 'none'" and "require-trusted-types-for 'script'" in policy
        for name in ("Content-Security-Policy", "Referrer-Policy"):
            assert len(answer.headers.get_all(name)) == 1
        assert ("Set-Cookie" in answer.headers) == (path == "/")
    assert service.request("GET", "/ui/none.js").status == 404
    assert service.request("GET", "/../../etc/passwd").status == 400
    assert service.request("POST", "/", None, {}).status == 405


def test_each_browser_has_a_session_of_its_own_and_keeps_it(service):
    first, second = cookie_of(service), cookie_of(service)
    assert first != second
    assert cookie_of(service, Cookie=f"a=b; penstock-session={first}; c=d") == first
    for bad in ("", "x" * 21, "x" * 23, "x" * 21 + "!", "x" * 22 + "\x01"):
        assert cookie_of(service, Cookie=f"penstock-session={bad}") != bad


def test_over_tls_no_other_host_can_set_the_cookie(penstock, folder):
    key, certificate, port = folder / "key.pem", folder / "cert.pem", Port()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                    "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (folder / "index.html").write_text("page")
    penstock(workers=[simulate()], yaml="state: state\n", http=OWNER + f"""
        server {{
            listen 127.0.0.1:{port.number} ssl;
            ssl_certificate {certificate}; ssl_certificate_key {key};
            location / {{ penstock_ui gpu root={folder}; }}
        }}""", server="")

    def cookie(**headers):
        connection = http.client.HTTPSConnection("127.0.0.1", port.number, timeout=20, context=ssl._create_unverified_context())
        connection.request("GET", "/", headers=headers)
        told = connection.getresponse().headers["Set-Cookie"]
        connection.close()
        found = re.fullmatch("__Host-" + COOKIE.pattern + "; Secure", told)
        assert found, told
        return found[1]
    mine = cookie()
    assert cookie(Cookie=f"__Host-penstock-session={mine}") == mine
    assert cookie(Cookie=f"penstock-session={mine}") != mine


def test_a_job_is_its_browsers(service):
    mine, other = (f"penstock-session={cookie_of(service)}" for _ in range(2))
    own = {"Cookie": mine, "Origin": f"http://127.0.0.1:{service.port}"}
    job = service.request("POST", "/v1/x", {**own, "Prefer": "respond-async"}, {"prompt": "a"})
    assert job.status == 202
    path = job.headers["Location"]
    until(lambda: service.request("GET", path, {"Cookie": mine}).json()["status"] == "completed", "it is done")
    assert [each["id"] for each in service.request("GET", "/jobs", {"Cookie": mine}).json()["data"]] == [job.json()["id"]]

    def seen(**headers):
        return service.request("GET", path, {name.replace("_", "-"): value for name, value in headers.items()}).status == 200
    assert seen(Cookie=mine, Sec_Fetch_Site="same-origin") and seen(Cookie=mine, Sec_Fetch_Site="none")
    assert not seen() and not seen(Cookie=other) and not seen(Cookie=mine.replace("=", "=x")[:-1])
    # Another site's page that makes the browser ask has no session here.
    assert not seen(Cookie=mine, Sec_Fetch_Site="cross-site") and not seen(Cookie=mine, Origin="http://evil.example")
    for foreign in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"},
                    {"Sec-Fetch-Site": "none"}):
        assert service.request("DELETE", path, {"Cookie": mine, **foreign}).status == 404


def test_all_of_a_browsers_jobs_come_in_one_stream(service):
    own = {"Cookie": f"penstock-session={cookie_of(service)}", "Sec-Fetch-Site": "same-origin"}
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request("GET", "/jobs/events", headers=own)
    stream = connection.getresponse()
    assert stream.status == 200 and stream.getheader("Content-Type") == "text/event-stream"
    assert stream.getheader("X-Accel-Buffering") == "no" and stream.getheader("Cache-Control") == "no-store"

    def event():
        lines = []
        while not lines or lines[-1]:
            lines.append(stream.readline().decode().rstrip("\n"))
        return lines
    assert event() == ["retry: 2000", ""]
    name, data, _ = event()
    assert name == "event: snapshot" and json.loads(data.removeprefix("data: "))["jobs"] == []
    asked = {**own, "Prefer": "respond-async", "Penstock-Label": "a%20caf%C3%A9"}
    job = service.request("POST", "/v1/x", asked, {"model": "sim"}).json()
    status = None
    while status != "completed":
        name, data, _ = event()
        told = json.loads(data.removeprefix("data: "))
        assert name == "event: job" and told["id"] == job["id"] and told["label"] == "a café" and told["model"] == "sim"
        status = told["status"]
    connection.close()


@pytest.mark.parametrize("line, says", [
    ("penstock_ui gpu rot=/x;", 'unknown parameter "rot=/x" of penstock_ui; it takes root=PATH, without variables'),
    ("penstock_ui gpu root=/$arg_x;", "it takes root=PATH, without variables"),
    ("penstock_ui root=/x;", 'penstock_ui needs its upstream before "root=/x": penstock_ui UPSTREAM [root=PATH]'),
    ("root /x; penstock_ui gpu;", "takes its folder as root=PATH; no root or alias stands beside"),
    ("penstock_quota; penstock_ui gpu;", "stands where another directive answers already"),
])
def test_what_is_wrong_is_said(penstock, line, says):
    service = penstock(start=False, server=f"location / {{ {line} }}")
    assert says in service.nginx.check()[1]
