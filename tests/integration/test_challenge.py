"""action=challenge: who is over a limit solves a challenge, and goes on under a pass."""

import re
import subprocess
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest

from proof_of_work import Keys, payload, solved
from client import Client, exchange
from conftest import simulate
from processes import ASAN
from test_actions import logged, with_log
from test_large_bodies import resident

SECRET = bytes(range(32))
LIMIT = "penstock_limit zone=edge key=$arg_key rate=1r/h name=a action=challenge verified=3r/h"


def zone(folder, more=""):
    file = folder / "secret"
    file.write_bytes(SECRET)
    file.chmod(0o600)
    return f"penstock_zone edge 1m secret_file={file}; {more}\n"


def server(challenge="", limit=LIMIT, more=""):
    return f"""
        {f"penstock_challenge pow {challenge};" if challenge else ""}
        location = /challenge {{ penstock_verify; }}
        location = /metrics {{ penstock_metrics; }}
        {more}
        location / {{ {limit}; empty_gif; }}"""


@pytest.fixture(params=["sha-256", "pbkdf2"])
def service(penstock, folder, request):
    return penstock(http=zone(folder), server=server(f"algorithm={request.param}"))


def asked(service, path="/?key=k", **headers):
    """The challenge of a request that is over its limit."""
    while (came := service.get(path, **headers)).status == 200:
        pass
    assert came.status == 403, came
    return came.json()["challenge"]


def solve(service, path="/?key=k", **headers):
    return payload(solved(asked(service, path, **headers)))


def passed(service, path="/?key=k"):
    """A pass."""
    answer = service.get(path, Penstock_Solution=solve(service, path))
    assert answer.status == 200, answer
    return answer.headers["Penstock-Pass"]


def events(service, limit="a"):
    text = service.get("/metrics").text()
    return {event: int(re.search(rf'penstock_challenges_total{{zone="edge",limit="{limit}",event="{event}"}} (\d+)', text)[1])
            for event in ("issued", "passed", "failed")}


# --- A program's way

def test_a_program_solves_the_challenge_and_goes_on(service):
    assert service.get("/?key=k").status == 200
    refused = service.get("/?key=k")
    assert refused.status == 403 and refused.headers["Content-Type"] == "application/problem+json"
    problem = refused.json()
    assert problem["error"]["code"] == "challenge_required" and problem["violated-policies"] == ["a"]
    assert int(refused.headers["Retry-After"]) == problem["retry_after"] > 3500
    assert refused.headers["Cache-Control"] == "no-store" and refused.headers["Vary"] == "Accept, Cookie"
    assert "Set-Cookie" not in refused.headers and "no-store" not in str(service.get("/?key=other").headers)
    went_on = service.get("/?key=k", Penstock_Solution=payload(solved(problem["challenge"])))
    assert went_on.status == 200
    carried = went_on.headers["Penstock-Pass"]
    assert went_on.headers["Cache-Control"] == "no-store"
    assert re.fullmatch(r"p1\.\d{4}\.[\w-]{38}\.[\w-]{22}", carried)
    assert re.fullmatch(re.escape(f"penstock-pass={carried}; Path=/; Max-Age=") + r"3(600|59\d); HttpOnly; SameSite=Lax",
                        went_on.headers["Set-Cookie"])
    # The second limit is 3r/h: two are left of it, by header or by cookie.
    assert service.get("/?key=k", Penstock_Pass=carried).status == 200
    assert service.get("/?key=k", Cookie=f"a=b; penstock-pass={carried}").status == 200
    over = service.get("/?key=k", Penstock_Pass=carried)
    assert over.status == 429 and over.json()["violated-policies"] == ["a-verified"]
    assert events(service) == {"issued": 1, "passed": 1, "failed": 0}


def test_whoever_has_room_is_asked_for_nothing(service):
    assert service.get("/?key=k", Penstock_Solution="nonsense", Penstock_Pass="nonsense").status == 200
    assert events(service) == {"issued": 0, "passed": 0, "failed": 0}


def test_many_passes_of_one_caller_share_its_second_limit(service):
    assert [service.get("/?key=k", Penstock_Solution=solve(service)).status for _ in range(4)] == [200, 200, 200, 429]


# --- Attacks

def test_an_answer_is_good_once(service):
    answer = solve(service)
    assert service.get("/?key=k", Penstock_Solution=answer).status == 200
    again = service.get("/?key=k", Penstock_Solution=answer)
    assert again.status == 403 and "Penstock-Pass" not in again.headers
    assert again.json()["challenge"]  # a new one
    assert events(service)["failed"] == 1


def live(service):
    """How many keys the zone holds."""
    return int(re.search(r'penstock_zone_slots{zone="edge",state="live"} (\d+)', service.get("/metrics").text())[1])


def test_wrong_answers_take_no_place_in_the_zone(forged):
    keys, service, client = forged.keys, forged.service, forged.service.client()
    before = live(service)
    for i in range(300):
        salt = f"{i:024x}?expires={forged.now + 200}&l={forged.holder[0].hex()}&s={forged.holder[1].hex()}&"
        wrong = {**solved(keys.challenge(forged.holder, 0, salt=salt)), "number": 78}
        assert client.request("GET", "/?key=k", {"Penstock-Solution": payload(wrong)}).status == 403
    by_prefix = solved(keys.one_of_keys(forged.holder, forged.now + 200, prefix="00"))
    by_prefix["solution"]["counter"] += 1
    assert service.get("/?key=k", Penstock_Solution=payload(by_prefix)).status == 403
    assert live(service) == before


def test_a_caller_solves_sixty_and_no_more_at_once(forged):
    def answer(i, who):
        holder = forged.keys.holder(b"a", who)
        salt = f"{i:024x}?expires={forged.now + 200}&l={holder[0].hex()}&s={holder[1].hex()}&"
        return payload(solved(forged.keys.challenge(holder, 0, salt=salt)))
    client = forged.service.client()
    gave = ["Penstock-Pass" in client.request("GET", "/?key=k", {"Penstock-Solution": answer(i, b"k")}).headers for i in range(62)]
    assert gave == [True] * 60 + [False] * 2
    asked(forged.service, "/?key=other")
    assert forged.service.get("/?key=other", Penstock_Solution=answer(0, b"other")).status == 200


def test_a_wrong_answer_may_be_mended(penstock, folder):
    service = penstock(http=zone(folder), server=server("algorithm=sha-256"))
    right = solved(asked(service))
    wrong = {**right, "number": right["number"] + 1}
    assert [service.get("/?key=k", Penstock_Solution=payload(answer)).status for answer in (wrong, right, right)] == [403, 200, 403]
    assert events(service)["failed"] == 2


def test_an_answer_is_its_callers_and_its_limits(penstock, folder):
    limits = "".join(f"location /{name} {{ {LIMIT.replace('name=a', f'name={name}')}; empty_gif; }}" for name in "bc")
    service = penstock(http=zone(folder), server=server("algorithm=sha-256", more=limits))
    for other in ("/b?key=other", "/c?key=k"):
        answer = solve(service, "/b?key=k")
        asked(service, other)
        assert service.get(other, Penstock_Solution=answer).status == 403
        # It is not spent by that.
        assert service.get("/b?key=k", Penstock_Solution=answer).status == 200


def test_a_pass_is_its_callers_and_its_limits(penstock, folder):
    limits = "".join(f"location /{name} {{ {LIMIT.replace('name=a', f'name={name}')}; empty_gif; }}" for name in "bc")
    service = penstock(http=zone(folder), server=server("algorithm=sha-256", more=limits))
    first = passed(service, "/b?key=k")
    for other in ("/b?key=other", "/c?key=k"):
        asked(service, other)
        assert service.get(other, Penstock_Pass=first).status == 403
    # A browser's cookie keeps both, and those of another caller, which it may be again.
    other = service.get("/b?key=other", Cookie=f"penstock-pass={first}", Penstock_Solution=solve(service, "/b?key=other"))
    assert other.headers["Penstock-Pass"].split("~")[1] == first
    answer = service.get("/c?key=k", Penstock_Pass=first, Cookie=f"penstock-pass={first}", Penstock_Solution=solve(service, "/c?key=k"))
    both = answer.headers["Penstock-Pass"]
    assert both.split("~")[1:] == [first]
    assert [service.get(f"/{name}?key=k", Cookie=f"penstock-pass={both}").status for name in "bc"] == [200, 200]


def test_a_pass_of_another_zone_stays(penstock, folder):
    other = f"location /b {{ {LIMIT.replace('edge', 'other').replace('name=a', 'name=b')}; empty_gif; }}"
    service = penstock(http=zone(folder, "penstock_zone other 1m;"), server=server("algorithm=sha-256", more=other))
    first = passed(service, "/b?key=k")
    both = service.get("/?key=k", Cookie=f"penstock-pass={first}", Penstock_Solution=solve(service)).headers["Penstock-Pass"]
    assert both.split("~")[1] == first
    assert [service.get(path, Cookie=f"penstock-pass={both}").status for path in ("/?key=k", "/b?key=k")] == [200, 200]


def test_a_pass_may_come_in_any_of_several_lines(forged):
    carried = forged.keys.passed(forged.holder, forged.now, 600)
    for lines in (("Cookie: a=b", f"Cookie: penstock-pass={carried}"), ("Penstock-Pass: x", f"Penstock-Pass: {carried}")):
        head = "\r\n".join(("GET /?key=k HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""))
        assert exchange(forged.service.port, head.encode()).startswith(b"HTTP/1.1 200 ")


def test_no_more_passes_are_looked_at_than_an_answer_gives(forged):
    carried = forged.keys.passed(forged.holder, forged.now, 600)
    for others, status in ((3, b"200"), (4, b"403")):
        for lines in (["Penstock-Pass: x"] * others + [f"Penstock-Pass: {carried}"],
                      ["Cookie: penstock-pass=x~x"] * (others // 2) + ["Penstock-Pass: x"] * (others % 2) + [f"Cookie: penstock-pass={carried}"]):
            head = "\r\n".join(("GET /?key=k HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""))
            assert exchange(forged.service.port, head.encode()).split()[1] == status


def test_a_pass_is_good_for_as_long_as_its_place_says(penstock, folder):
    short = f"location /short {{ penstock_challenge pow algorithm=sha-256 pass=10m; {LIMIT}; empty_gif; }}"
    service = penstock(http=zone(folder), server=server("algorithm=sha-256 pass=1h", more=short))
    keys = Keys(SECRET)
    old = keys.passed(keys.holder(b"a", b"k"), time.time() - 700, 3600)
    asked(service)
    assert service.get("/?key=k", Penstock_Pass=old).status == 200
    assert service.get("/short?key=k", Penstock_Pass=old).status == 403


def test_an_operators_page_does_not_hide_a_challenge(penstock, folder):
    pages = "error_page 403 /sorry; location = /sorry { return 200 sorry; } location = /closed { deny all; }"
    service = penstock(http=zone(folder), server=server("algorithm=sha-256", more=pages))
    assert service.get("/?key=k", Penstock_Solution=solve(service)).status == 200
    assert 'id="challenge"' in page_of(service).text()
    assert service.get("/closed").text() == "sorry"


def test_an_address_is_a_caller(penstock, folder):
    limit = LIMIT.replace("$arg_key", "$penstock_net")
    service = penstock(http=zone(folder), server=server("algorithm=sha-256", limit=limit))
    answer = solve(service, "/")
    other = service.client(address="127.0.0.2")
    assert other.request("GET", "/").status == 200
    assert other.request("GET", "/", {"Penstock-Solution": answer}).status == 403
    assert service.get("/", Penstock_Solution=answer).status == 200


@pytest.fixture
def forged(penstock, folder):
    """A service over its limit, and what its secret makes."""
    service = penstock(http=zone(folder), server=server("algorithm=sha-256"))
    asked(service)
    keys = Keys(SECRET)

    class Forged:
        now = int(time.time())
        holder = keys.holder(b"a", b"k")

        def status(self, challenge, change=lambda answer: answer):
            return service.get("/?key=k", Penstock_Solution=payload(change(solved(challenge)))).status
    Forged.keys, Forged.service = keys, service
    return Forged()


def test_the_format_is_as_it_is_written_down(forged):
    assert forged.status(forged.keys.challenge(forged.holder, forged.now + 200)) == 200
    assert forged.status(forged.keys.one_of_keys(forged.holder, forged.now + 200)) == 200
    carried = forged.keys.passed(forged.holder, forged.now, 600)
    assert forged.service.get("/?key=k", Penstock_Pass=carried).status == 200


def test_an_end_is_an_end_and_a_clock_may_be_a_minute_off(forged):
    keys, holder, now = forged.keys, forged.holder, forged.now
    assert forged.status(keys.challenge(holder, now - 1)) == 403
    assert forged.status(keys.one_of_keys(holder, now - 1)) == 403
    assert forged.status(keys.challenge(holder, now + 300 + 120)) == 403
    assert forged.status(keys.challenge(holder, now + 300 + 50)) == 200

    def by_pass(*args, **more):
        return forged.service.get("/?key=k", Penstock_Pass=keys.passed(holder, *args, **more)).status
    assert by_pass(now - 600, 599) == 403
    assert by_pass(now + 120, 600) == 403
    assert by_pass(now + 50, 600) == 200
    assert by_pass(now - 15 * 86400, 30 * 86400) == 403  # by a key of two weeks ago
    assert by_pass(now, 600, epoch=now // (7 * 86400) - 2) in (200, 403)  # whoever has the secret


def test_another_secret_signs_nothing(forged):
    other = Keys(SECRET[::-1])
    assert forged.status(other.challenge(other.holder(b"a", b"k"), forged.now + 200)) == 403
    assert forged.status(other.challenge(forged.holder, forged.now + 200)) == 403
    assert forged.status(other.one_of_keys(forged.holder, forged.now + 200)) == 403
    other.master = forged.keys.master  # the signature alone is another's
    other.signature = Keys(b"x").signature
    assert forged.status(other.challenge(forged.holder, forged.now + 200)) == 403


def test_digits_cannot_move_into_the_time(forged):
    # CVE-2025-68113: what is hashed is the salt and the number in one piece.
    old = forged.keys.challenge(forged.holder, forged.now - 10, n=54321, numbers=60000)

    def spliced(answer):
        return {**answer, "salt": answer["salt"] + "54", "number": 321}
    cut = old["salt"][:-1]
    for change in (spliced, lambda answer: {**answer, "salt": cut}, lambda answer: {**answer, "salt": answer["salt"] + "&"},
                   lambda answer: {**answer, "salt": answer["salt"].replace("&l=", "0&l=")}):
        assert forged.status(old, change) == 403
    # And none that is good is taken in another spelling.
    good = forged.keys.challenge(forged.holder, forged.now + 200)
    for change in (lambda answer: {**answer, "salt": answer["salt"][:-1]}, lambda answer: {**answer, "algorithm": "SHA-1"},
                   lambda answer: {**answer, "more": 1}, lambda answer: [answer], lambda answer: "",
                   lambda answer: {**answer, "number": str(answer["number"])}):
        assert forged.status(good, change) == 403
    assert forged.status(good) == 200


@pytest.mark.parametrize("value", ["", "x", "====", "e30=", "A" * 4096, "A" * 5000, "e30" + chr(0xff)])
def test_any_answer_is_taken_for_what_it_is(service, value):
    asked(service)
    for name in ("Penstock-Solution", "Penstock-Pass"):
        came = service.request("GET", "/?key=k", {name: value.encode("latin-1")})
        assert came.status in (403, 400)
    assert service.get("/?key=k", Cookie="penstock-pass=" + "~" * 3000).status == 403


@pytest.mark.skipif(ASAN, reason="what was given back is kept by the sanitizer")
def test_challenges_that_nobody_solves_cost_no_memory(penstock, folder):
    service = penstock(http=zone(folder), server=server("algorithm=sha-256"), master=True)
    assert service.get("/?key=k").status == 200
    client = service.client()

    def ask(count):
        for _ in range(count):
            assert client.request("GET", "/?key=k").status == 403
    ask(200)
    before = [resident(pid, "VmRSS") for pid in service.nginx.workers()]
    ask(5000)
    after = [resident(pid, "VmRSS") for pid in service.nginx.workers()]
    assert all(b <= a + (256 << 10) for a, b in zip(before, after)), (before, after)


# --- A browser's way

FROM_HERE = {"Sec-Fetch-Site": "same-origin"}


def post(service, form, headers=FROM_HERE):
    return service.request("POST", "/challenge", {"Content-Type": "application/x-www-form-urlencoded", **headers},
                           form if isinstance(form, str) else urlencode(form))


def page_of(service, path="/?key=k"):
    asked(service, path)
    return service.get(path, Accept="text/html,application/xhtml+xml,*/*;q=0.8")


def test_a_browser_gets_a_page(service):
    page = page_of(service)
    assert page.status == 403 and page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store" and page.headers["Vary"] == "Accept, Cookie"
    assert "Set-Cookie" not in page.headers and page.headers["Retry-After"]
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    # No script stands in it: what is between the tags is data.
    assert re.findall(r"<script([^>]*)>[^<]", page.text()) == [' id="challenge" type="application/json"']
    assert f'try again in {page.headers["Retry-After"]} seconds' in page.text()
    problem = service.get("/?key=k", Accept="*/*")
    assert problem.headers["Content-Type"] == "application/problem+json" and "Content-Security-Policy" not in problem.headers


def test_a_form_is_for_whom_the_challenge_names(penstock, folder):
    # One name, by two keys; neither has the same value where the answer is brought.
    limits = "".join(f"location /{name} {{ {LIMIT.replace('$arg_key', key)}; empty_gif; }}" for name, key in (("b", "$uri"), ("c", "$arg_who")))
    service = penstock(http=zone(folder), server=server("algorithm=sha-256", limit=LIMIT, more=limits))
    for path in ("/b", "/c?who=me", "/?key=k"):
        went_on = post(service, {"altcha": solve(service, path), "to": path})
        assert went_on.status == 303, path
        assert service.get(path, Cookie=went_on.headers["Set-Cookie"].split(";")[0]).status == 200


def test_the_answer_of_a_form_leads_on_with_a_cookie(service):
    answer = solve(service)
    went_on = post(service, {"altcha": answer, "to": "/?key=k"})
    assert went_on.status == 303 and went_on.headers["Location"] == f"http://127.0.0.1:{service.port}/?key=k"
    assert went_on.headers["Cache-Control"] == "no-store"
    cookie = went_on.headers["Set-Cookie"].split(";")[0]
    assert service.get("/?key=k", Cookie=cookie).status == 200
    again = post(service, {"altcha": answer, "to": "/?key=k"})
    assert again.status == 403 and "Set-Cookie" not in again.headers
    assert again.json()["error"]["code"] == "challenge_required"


def test_a_form_leads_to_no_other_host(service):
    for to in ("//evil.example/", "/\\evil.example/", "https://evil.example/", "x", "", "/a\r\nSet-Cookie: a=b", "/\t/x", "/\x7f"):
        answer = post(service, {"altcha": "x", "to": to})
        assert answer.status == 400, to
        assert "Location" not in answer.headers


def test_only_a_page_of_this_host_may_answer(service):
    form = {"altcha": solve(service), "to": "/"}
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
                    {"Origin": "https://evil.example"}, {"Origin": "null"}):
        answer = post(service, form, headers)
        assert answer.status == 403 and answer.json()["error"]["code"] == "forbidden"
    assert post(service, form, {"Origin": f"http://127.0.0.1:{service.port}"}).status == 303


def test_a_form_that_is_none_is_refused(service):
    assert service.get("/challenge").status == 405
    assert post(service, "").status == 403
    assert post(service, "altcha=%zz").status == 400
    assert post(service, "altcha=x&altcha=y").status == 400
    assert post(service, "altcha=" + "A" * 4000).status == 403
    assert post(service, "altcha=" + "A" * 5000).status == 413
    body = b"altcha=" + b"A" * 5000
    client = Client(service.port)
    came = client.request("POST", "/challenge", {**FROM_HERE, "Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    client.close()
    assert came.status == 413


# --- How it is set

def test_what_became_of_it_is_told(penstock, folder):
    service = with_log(penstock, zone(folder), server("algorithm=sha-256"))
    answer = solve(service)
    assert service.get("/?key=k", Penstock_Solution=answer).status == 200
    lines = [line.split()[1:4] for line in logged(service, 3)]
    assert lines == [["200", "PASSED", "limit=-"], ["403", "CHALLENGED", "limit=a"], ["200", "PASSED", "limit=-"]]
    text = service.get("/metrics").text()
    assert 'limit="a",outcome="challenged"} 1' in text and 'limit="a-verified",outcome="passed"} 1' in text
    assert 'penstock_requests_total{tier="",variant="",outcome="challenged"} 1' in text


def test_a_dry_run_asks_for_nothing(penstock, folder):
    service = with_log(penstock, zone(folder), server("algorithm=sha-256", limit=LIMIT + " dry_run=on"))
    assert service.statuses(2, "/?key=k") == [200, 200]
    assert logged(service, 2)[1].split()[2] == "CHALLENGED_DRY_RUN"
    assert events(service) == {"issued": 0, "passed": 0, "failed": 0}


def test_beside_a_limit_that_refuses_no_challenge_is_offered(penstock, folder):
    service = penstock(http=zone(folder), server=server("algorithm=sha-256", limit=LIMIT + "; penstock_limit zone=edge key=all rate=2r/h name=all"))
    assert service.get("/?key=k", Penstock_Solution=solve(service)).status == 200
    refused = service.get("/?key=k")
    assert refused.status == 429 and set(refused.json()["violated-policies"]) == {"a", "all"}


def test_a_pass_opens_the_way_for_bodies_that_limits_read(penstock, folder):
    limit = LIMIT + "; penstock_limit zone=edge key=$penstock_model rate=100r/s name=model"
    service = penstock(http=zone(folder), workers=[simulate()], server=f"""
        penstock_challenge pow algorithm=sha-256;
        location /v1/ {{ {limit}; penstock_pass gpu; }}""")
    assert service.complete("/v1/completions?key=k").status == 200
    refused = service.complete("/v1/completions?key=k")
    assert refused.status == 403
    went_on = service.complete("/v1/completions?key=k", headers={"Penstock-Solution": payload(solved(refused.json()["challenge"]))})
    assert went_on.status == 200 and went_on.headers["Penstock-Pass"] and went_on.json()["choices"]


def test_the_more_are_solved_the_harder_it_gets(penstock, folder):
    service = penstock(http=zone(folder), server=server("algorithm=sha-256"))
    keys = Keys(SECRET)
    client = service.client()
    until_s = time.time() + 200
    assert asked(service)["maxnumber"] == 25_000
    for i in range(120):
        who = f"c{i}"
        client.request("GET", f"/?key={who}")
        answer = payload(solved(keys.challenge(keys.holder(b"a", who.encode()), until_s)))
        assert client.request("GET", f"/?key={who}", {"Penstock-Solution": answer}).status == 200
    assert asked(service)["maxnumber"] == 50_000


def test_a_flood_of_asks_derives_no_keys(penstock, folder):
    service = penstock(http=zone(folder), server=server("algorithm=pbkdf2"))
    challenges = [asked(service)["parameters"] for _ in range(150)]
    kinds = ["keySignature" in parameters for parameters in challenges]
    assert kinds[0]
    if False in kinds:  # all came within a second or two
        short = challenges[kinds.index(False)]
        assert len(short["keyPrefix"]) == 3 and short["cost"] == 61
        assert service.get("/?key=k", Penstock_Solution=solve(service)).status == 200


def test_a_secret_survives_a_restart_and_is_shared(penstock, folder):
    one, two = (penstock(http=zone(folder), server=server("algorithm=sha-256")) for _ in range(2))
    carried = passed(one)
    asked(two)
    assert two.get("/?key=k", Penstock_Pass=carried).status == 200


def test_without_a_file_the_zone_has_a_secret_of_its_own(penstock):
    one, two = (penstock(http="penstock_zone edge 1m;", server=server("algorithm=sha-256"), master=True) for _ in range(2))
    carried = passed(one)
    assert one.get("/?key=k", Penstock_Pass=carried).status == 200
    asked(two)
    assert two.get("/?key=k", Penstock_Pass=carried).status == 403
    one.nginx.reload()
    assert one.get("/?key=k", Penstock_Pass=carried).status == 200


@pytest.mark.parametrize("http, limit, challenge, what", [
    ("", LIMIT.replace(" verified=3r/h", ""), "", "action=challenge needs verified=RATE"),
    ("", LIMIT.replace("verified=3r/h", "verified=often"), "", "often"),
    ("", LIMIT.replace("challenge", "reject"), "", "verified= belongs to action=challenge"),
    ("", LIMIT.replace("rate=1r/h", "concurrency=2"), "", "action=challenge needs a rate= or a quota="),
    ("", LIMIT.replace("$arg_key", "$penstock_model"), "", "by a key that tells who asks"),
    ("", LIMIT + " pages=on", "", "pages=on does not go with action=challenge"),
    ("", LIMIT, "difficulty=5", "difficulty=5"),
    ("", LIMIT, "difficulty=0", "difficulty=0"),
    ("", LIMIT, "algorithm=md5", "sha-256 or pbkdf2"),
    ("", LIMIT, "pass=1m", "more than 5m and at most 7d"),
    ("", LIMIT, "pass=8d", "more than 5m and at most 7d"),
    ("", LIMIT, "color=red", "difficulty=1 to 4"),
    ("", LIMIT, "", None),
])
def test_what_is_wrong_is_refused(penstock, folder, http, limit, challenge, what):
    service = penstock(start=False, http=zone(folder, http), server=server(challenge, limit=limit))
    accepted, said = service.nginx.check()
    assert accepted == (what is None) and (what or "") in said, said


def test_a_secret_that_is_none_is_refused(penstock, folder):
    http = zone(folder)
    file = folder / "secret"
    for bytes_, mode, what in ((SECRET[:31], 0o600, "32 random bytes"), (SECRET, 0o644, "chmod 600"), (b"x" * 5000, 0o600, "32 random bytes")):
        file.write_bytes(bytes_)
        file.chmod(mode)
        assert what in penstock(start=False, http=http, server=server()).nginx.check()[1]
    file.unlink()
    assert "cannot be read" in penstock(start=False, http=http, server=server()).nginx.check()[1]


CHAPTER = (Path(__file__).parents[2] / "docs/CHALLENGE.md").read_text()


def run_program(folder, service, path):
    """What the chapter's program prints."""
    program = folder / "program.py"
    program.write_text(re.search(r"```python\n(.*?)```", CHAPTER, re.S)[1])
    done = subprocess.run(["/usr/bin/python3", program, f"http://127.0.0.1:{service.port}{path}"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_chapters_configuration_and_program_work(penstock, folder):
    (folder / "secret").write_bytes(SECRET)
    (folder / "secret").chmod(0o600)
    http, rest = re.search(r"```nginx\nhttp {\n(.*?)\n\n    server {\n(.*)\n    }\n}\n```", CHAPTER, re.S).groups()
    service = penstock(http=http.replace("secret_file=/etc/penstock/challenge", f"secret_file={folder}/secret"), workers=[simulate()],
                       server=rest.replace("penstock_ui gpu;", f"penstock_ui gpu root={folder};").replace("rate=10r/h", "rate=1r/h"))
    assert run_program(folder, service, "/v1/models") == ["200", "None"]
    status, carried = run_program(folder, service, "/v1/models")
    assert status == "200" and carried.startswith("p1.")


def test_the_chapters_program_solves_the_challenges_of_several_limits(penstock, folder):
    limits = "; ".join(LIMIT.replace("name=a", f"name={name}") for name in "abc")
    service = penstock(http=zone(folder), server=server("algorithm=sha-256", limit=limits))
    assert service.get("/?key=k").status == 200
    status, carried = run_program(folder, service, "/?key=k")
    assert status == "200" and len(carried.split("~")) == 3
