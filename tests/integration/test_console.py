"""penstock_console: what an operator sees of a key's counters, and forgets."""

import base64
import subprocess
import threading

import pytest

from gate import Gate
from processes import BUILD, environment
from waiting import until

KEY = "Bearer sk-pro-1234"
HTTP = """
    penstock_zone edge 1m;
    penstock_zone night 1m;
    penstock_tier free { rate 10r/h burst=5; rate 60gs/h; quota 50r/M; concurrency 2; }
"""
API = """
    location /v1/ {
        penstock_cost gs 0.25;
        penstock_limit zone=edge key=$http_authorization tier=free;
        penstock_limit zone=edge key=$binary_remote_addr rate=3r/h name=ip;
        empty_gif;
    }
    location /night/ { penstock_limit zone=night key=$http_authorization rate=7r/h name=late; empty_gif; }
    location /console/ { penstock_console; allow 127.0.0.1; deny all; }
"""


@pytest.fixture
def gate():
    held = Gate()
    yield held
    held.close()


def limits(service, key=KEY, query="", method="GET"):
    answer = service.request(method, f"/console/limits{query}", {"Penstock-Key": key})
    assert answer.status == 200, answer
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Content-Type"] == "application/json"
    return answer.json()


def rows(service, key=KEY, query="", form="text"):
    return {row["name"]: row for row in limits(service, key, query)["limits"] if row["key_form"] == form}


def use(service, count, key=KEY, path="/v1/"):
    return service.statuses(count, path, Authorization=key)


def test_every_counter_of_every_zone_is_shown_for_a_key(penstock):
    service = penstock(http=HTTP, server=API)
    assert use(service, 3) == [200] * 3
    shown = rows(service)
    assert list(shown) == ["ip", "free-rate", "free-rate-gpu-h", "free-quota-M", "free-concurrency", "late"]
    rate = shown["free-rate"]
    assert list(rate) == ["zone", "name", "unit", "algorithm", "limit", "burst", "used", "remaining", "reset_seconds", "live",
                          "hash", "key_form"]
    assert 1000 < rate.pop("reset_seconds") <= 1080
    assert len(rate.pop("hash")) == 16
    assert rate == {"zone": "edge", "name": "free-rate", "unit": "requests", "algorithm": "token_bucket", "limit": 10,
                    "burst": 5, "used": 3, "remaining": 2, "live": True, "key_form": "text"}
    quota = shown["free-quota-M"]
    assert (quota["algorithm"], quota["limit"], quota["used"], quota["remaining"]) == ("fixed_window", 50, 3, 47)
    assert "burst" not in quota
    assert shown["free-rate-gpu-h"]["unit"] == "gpu_seconds"
    assert shown["free-rate-gpu-h"]["used"] == pytest.approx(0.75, abs=0.1)
    late = shown["late"]
    assert (late["zone"], late["used"], late["remaining"], late["reset_seconds"], late["live"]) == ("night", 0, 7, 0, False)


def test_a_zone_narrows_it(penstock):
    service = penstock(http=HTTP, server=API)
    assert set(rows(service, query="?zone=night")) == {"late"}
    answer = service.request("GET", "/console/limits?zone=day", {"Penstock-Key": KEY})
    assert answer.status == 404 and answer.json()["error"]["code"] == "not_found"


def test_looking_counts_nothing(penstock):
    service = penstock(http=HTTP, server=API)
    use(service, 1)
    assert [rows(service)["free-rate"]["used"] for _ in range(10)] == [1] * 10


def test_an_address_is_found_in_its_binary_form(penstock):
    service = penstock(http=HTTP, server=API)
    use(service, 2)
    shown = limits(service, "127.0.0.1")
    found = [(row["key_form"], row["used"], row["live"]) for row in shown["limits"] if row["name"] == "ip"]
    assert found == [("text", 0, False), ("address", 2, True)]
    assert {row["key_form"] for row in limits(service, "2001:db8::1")["limits"]} == {"text", "address"}
    for no_address in (KEY, "127.0.0.1 ", "1" * 64, "127.0.0.256", "127.0.0.1\xff"):
        forms = {row["key_form"] for row in limits(service, no_address)["limits"]}
        assert forms == ({"text", "address"} if no_address.strip() == "127.0.0.1" else {"text"})
    assert limits(service, "127.0.0.1", method="DELETE")["reset"] == ["ip"]
    assert rows(service, "127.0.0.1", form="address")["ip"]["live"] is False


def test_a_caller_that_was_refused_is_admitted_at_once_after_a_reset(penstock):
    service = penstock(processes=2, http=HTTP, server="add_header X-Worker $pid always;" + API.replace("rate=3r/h", "rate=99r/h"))
    assert use(service, 6) == [200] * 5 + [429]
    assert use(service, 1, "Bearer other") == [200]
    before = service.nginx.workers()
    done = limits(service, method="DELETE")
    assert done == {"key": limits(service)["key"], "reset": ["free-rate", "free-rate-gpu-h", "free-quota-M"], "kept": []}
    assert rows(service)["free-rate"]["live"] is False
    # By whichever worker: a new connection each.
    answers = [service.get("/v1/", Authorization=KEY) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert service.nginx.workers() == before
    assert rows(service, "Bearer other")["free-rate"]["used"] == 1
    assert limits(service, "Bearer nobody", method="DELETE")["reset"] == []


def test_what_has_flowed_back_by_itself_is_not_there_to_be_reset(penstock):
    service = penstock(http="penstock_zone edge 1m;", server="""
        location / { penstock_limit zone=edge key=$http_authorization rate=50r/s name=a; empty_gif; }
        location /console/ { penstock_console; }""")
    assert use(service, 1, path="/") == [200]
    until(lambda: not rows(service)["a"]["live"], "the bucket is full again")
    assert limits(service, method="DELETE")["reset"] == []


def test_a_reset_may_be_of_one_zone_only(penstock):
    service = penstock(http=HTTP, server=API)
    use(service, 1)
    use(service, 2, path="/night/")
    assert limits(service, query="?zone=night", method="DELETE")["reset"] == ["late"]
    shown = rows(service)
    assert (shown["late"]["used"], shown["free-quota-M"]["used"]) == (0, 1)


@pytest.mark.parametrize("terms", [
    "rate=3r/h", "rate=3r/h algorithm=leaky_bucket", "rate=3r/h algorithm=sliding_window", "rate=3r/h algorithm=sliding_log",
    "rate=3r/M algorithm=fixed_window", "quota=3r/M"])
def test_every_algorithm_is_shown_and_forgotten(penstock, terms):
    service = penstock(http="penstock_zone edge 1m;", server=f"""
        location / {{ penstock_limit zone=edge key=$http_authorization {terms} name=a; empty_gif; }}
        location /console/ {{ penstock_console; }}""")
    limit = use(service, 5, path="/").count(200)
    row = rows(service)["a"]
    assert (row["used"], row["remaining"], row["live"]) == (limit, 0, True)
    assert limits(service, method="DELETE")["reset"] == ["a"]
    assert rows(service)["a"]["used"] == 0
    assert use(service, 5, path="/").count(200) == limit


def test_what_running_requests_hold_is_kept(penstock, gate):
    service = penstock(http=HTTP, server=f"""
        location /v1/ {{
            penstock_limit zone=edge key=$http_authorization tier=free;
            proxy_pass http://127.0.0.1:{gate.port};
        }}
        location /console/ {{ penstock_console; }}""")
    running = threading.Thread(target=service.get, args=("/v1/",), kwargs={"Authorization": KEY})
    running.start()
    until(lambda: len(gate.arrived) == 1, "a request is held")
    held = rows(service)["free-concurrency"]
    assert (held["algorithm"], held["limit"], held["used"], held["remaining"], held["live"]) == ("concurrency", 2, 1, 1, True)
    done = limits(service, method="DELETE")
    assert done["kept"] == ["free-concurrency"] and done["reset"] == ["free-rate", "free-quota-M"]
    assert rows(service)["free-concurrency"]["used"] == 1
    gate.open()
    running.join()
    until(lambda: rows(service)["free-concurrency"]["live"] is False, "it gave its lease back")


def test_a_key_is_neither_said_nor_logged(penstock):
    service = penstock(http=HTTP, server=API)
    use(service, 9)
    shown = service.request("GET", "/console/limits", {"Penstock-Key": KEY})
    done = service.request("DELETE", "/console/limits", {"Penstock-Key": KEY})
    in_url = service.request("GET", "/console/limits?key=xyz")
    assert in_url.status == 400 and "header Penstock-Key" in in_url.json()["detail"]
    assert service.request("DELETE", "/console/limits?zone=edge&key=xyz", {"Penstock-Key": KEY}).status == 400
    for text in (shown.text(), done.text(), in_url.text(), service.nginx.log()):
        assert "sk-pro" not in text and "xyz" not in text


def test_a_reset_is_a_line_of_the_log_and_a_look_is_none(penstock):
    service = penstock(http="penstock_log_level notice;" + HTTP, server=API)
    use(service, 1)
    shown = limits(service)["key"]
    limits(service, query="?zone=edge", method="DELETE")
    client = base64.b64encode(b'ali"ce:x').decode()
    service.request("DELETE", "/console/limits", {"Penstock-Key": KEY, "Authorization": f"Basic {client}"})
    told = [line.partition("] ")[2].partition(", client:")[0] for line in service.nginx.log().splitlines() if "] " in line and " order by=" in line]
    assert [line.partition("order ")[2] for line in told] == [
        f'by="127.0.0.1" deed=reset object="/limits?zone=edge" key={shown} outcome=done status=200',
        f'by="ali\\"ce at 127.0.0.1" deed=reset object="/limits" key={shown} outcome=done status=200']
    assert service.nginx.log().count("[notice]") >= 2 and "sk-pro" not in service.nginx.log()


def test_the_key_has_to_be_said_once(penstock):
    service = penstock(http=HTTP, server=API)
    for headers in ({}, {"Penstock-Key": ""}):
        for method in ("GET", "DELETE"):
            answer = service.request(method, "/console/limits", headers)
            assert answer.status == 400 and "Penstock-Key" in answer.json()["detail"]
            assert answer.headers["Content-Type"] == "application/problem+json"
    from client import exchange
    twice = exchange(service.port, b"GET /console/limits HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                   b"Penstock-Key: a\r\npenstock-key: b\r\n\r\n")
    assert twice.startswith(b"HTTP/1.1 400") and b"more than one" in twice


def test_an_offender_is_known_by_the_hash_of_its_limit(penstock):
    service = penstock(http=HTTP, server=API.replace("rate=3r/h", "rate=99r/h"))
    assert service.get("/console/offenders").json()["offenders"] == []
    assert use(service, 9).count(429) == 4
    (offender,) = service.get("/console/offenders").json()["offenders"]
    assert offender == {"key": rows(service)["free-rate"]["hash"], "limit": "free-rate", "refused": 4}
    # Every limit has places of its own for a key.
    assert len({row["hash"] for row in rows(service).values()} | {limits(service)["key"]}) == 7


def test_the_prefix_tells_what_there_is(penstock):
    service = penstock(http=HTTP, server=API + "location /ops { penstock_console; }")
    for prefix, path in (("/console", "/console/"), ("/ops", "/ops"), ("/ops", "/ops/")):
        endpoints = service.get(path).json()["endpoints"]
        assert [endpoint["path"] for endpoint in endpoints] == [f"{prefix}/limits", f"{prefix}/offenders"]
    assert service.get("/console").status == 301
    assert service.get("/ops/offenders").status == 200
    for path in ("/console/limits/", "/console/jobs", "/console/limit", "/opslimits"):
        answer = service.get(path)
        assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found"), path


def test_other_methods_are_refused(penstock):
    service = penstock(http=HTTP, server=API)
    for method, path, allowed in (("POST", "limits", "GET, HEAD, DELETE"), ("OPTIONS", "limits", "GET, HEAD, DELETE"),
                                  ("DELETE", "offenders", "GET, HEAD"), ("DELETE", "", "GET, HEAD")):
        answer = service.request(method, f"/console/{path}", {"Penstock-Key": KEY}, body="{}")
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)
        assert answer.headers["Cache-Control"] == "no-store" and "Access-Control-Allow-Origin" not in answer.headers
    head = service.request("HEAD", "/console/limits", {"Penstock-Key": KEY})
    assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) > 100


def test_the_location_guards_it(penstock):
    service = penstock(http=HTTP, server="""
        location /console/ { penstock_console; deny all; }
        location /read/ { penstock_console; limit_except GET { deny all; } }
        location /write/ { penstock_console; limit_except GET { allow all; } }
        location /if/ { penstock_console; if ($arg_zone) { add_header X-Zone $arg_zone; } }
    """)
    key = {"Penstock-Key": KEY}
    assert service.request("DELETE", "/console/limits", key).status == 403
    assert [service.request(method, "/read/limits", key).status for method in ("GET", "DELETE")] == [200, 403]
    assert [service.request(method, "/write/limits", key).status for method in ("GET", "DELETE")] == [200, 200]
    assert service.request("GET", "/if/limits?zone=edge", key).headers["X-Zone"] == "edge"


def test_many_counters_are_told_whole(penstock):
    tiers = "".join(f"penstock_tier t{i} {{ rate {i + 1}r/h; quota {i + 1}r/M; }}\n" for i in range(100))
    service = penstock(http=f"penstock_zone edge 1m;\n{tiers}", server="""
        location / { penstock_limit zone=edge key=$http_authorization tier=$arg_tier; empty_gif; }
        location /console/ { penstock_console; }""")
    assert service.get("/?tier=t7", Authorization=KEY).status == 200
    shown = rows(service)
    assert len(shown) == 200 and [name for name, row in shown.items() if row["live"]] == ["t7-rate", "t7-quota-M"]


@pytest.mark.parametrize("location, lines, said", [
    ("= /console", "penstock_console;", "penstock_console needs a location by prefix"),
    ("~ /console/", "penstock_console;", "penstock_console needs a location by prefix"),
    ("/console/", "penstock_console; penstock_console;", '"penstock_console" is duplicate'),
    ("/console/", "penstock_console; penstock_quota;", '"penstock_quota" stands where another directive answers already'),
    ("/console/", "penstock_console nobody;", 'there is no upstream "nobody": write upstream nobody {')])
def test_what_makes_no_sense_is_refused(penstock, location, lines, said):
    service = penstock(start=False, server=f"location {location} {{ {lines} }}")
    accepted, words = service.nginx.check()
    assert not accepted and said in words, words


def test_the_upstream_may_be_named(penstock):
    service = penstock(http=HTTP, server="location /console/ { penstock_console gpu; }")
    assert service.get("/console/").status == 200


@pytest.mark.skipif(not (BUILD / "penstockctl").exists(), reason="penstockctl is not built")
def test_penstockctl_shows_and_resets(penstock, folder):
    service = penstock(http=HTTP, server=API.replace("rate=3r/h", "rate=99r/h"))

    def ctl(*words):
        done = subprocess.run([BUILD / "penstockctl", *words, "--url", f"http://127.0.0.1:{service.port}/console"],
                              capture_output=True, text=True, env=environment(folder), timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "nothing is counted for this key" in ctl("limits", KEY)
    assert use(service, 6) == [200] * 5 + [429]
    lines = [line.split() for line in ctl("limits", KEY, "show").splitlines()[3:]]
    assert lines[0][:8] == ["edge", "free-rate", "requests", "token_bucket", "5", "10", "5", "0"]
    assert len(lines) == 3
    assert "late" in ctl("limits", KEY, "--all") and "late" not in ctl("limits", KEY, "--all", "--zone", "edge")
    assert "free-rate" in ctl("offenders")
    assert ctl("limits", KEY, "reset").endswith("reset free-rate, free-rate-gpu-h, free-quota-M\n")
    assert use(service, 1) == [200]
