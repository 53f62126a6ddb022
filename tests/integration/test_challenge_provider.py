"""penstock_challenge turnstile|hcaptcha|recaptcha: a provider's widget asks, and penstockd asks the provider, here a server of the
test's own that answers as the providers' documents say."""

import json
import re
import select
import signal
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode

import pytest

import wire
from proof_of_work import payload, solved
from test_challenge import FROM_HERE
from waiting import until

SECRET = "0x4AAAAAAA-secret-of-a-test"
FIELDS = {"turnstile": "cf-turnstile-response", "hcaptcha": "h-captcha-response", "recaptcha": "g-recaptcha-response"}
LIMIT = "penstock_limit zone=edge key=$arg_key rate=1r/h name=a action=challenge verified=50r/h"


def at(seconds_ago=1):
    return (datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def good(**more):
    return {"success": True, "error-codes": [], "challenge_ts": at(), "hostname": "example.com", **more}


def bad(*codes):
    return {"success": False, "error-codes": list(codes), "messages": []}


class Provider:
    """`answer(form)` gives (status, headers, body); a body that is no bytes is JSON. Each token is good once, as the documents say."""

    def __init__(self):
        self.asked, self.tokens = [], set()
        self.hold = threading.Event()
        self.hold.set()
        self.answer = self.usual
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                form = {name: value[0] for name, value in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()}
                provider.asked.append(form)
                provider.hold.wait(30)
                status, headers, body = provider.answer(form)
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # it was given up

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/siteverify"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def usual(self, form):
        if form.get("secret") != SECRET:
            return 200, {}, bad("invalid-input-secret")
        if form["response"] in self.tokens:
            return 200, {}, bad("timeout-or-duplicate")
        self.tokens.add(form["response"])
        return 200, {}, good() if form["response"].startswith("good") else bad("invalid-input-response")

    def says(self, status=200, body=None, **headers):
        self.answer = lambda form: (status, {name.replace("_", "-"): value for name, value in headers.items()}, good() if body is None else body)

    def close(self):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def provider():
    here = Provider()
    yield here
    here.close()


@pytest.fixture
def start(penstock, folder, provider):
    def start(kind="turnstile", more="", secret=SECRET, daemon=True, limit=LIMIT, upstream="gpu", server="", http="", **options):
        file = folder / "secret"
        file.write_text(secret + "\n")
        file.chmod(0o600)
        section = {"secret_file": file, "hostnames": "[example.com, www.example.com]", "url": provider.url, **options}
        yaml = f"challenges:\n  {kind}: {{ {', '.join(f'{name}: {value}' for name, value in section.items())} }}\n"
        return penstock(http="penstock_zone edge 1m;" + http, workers=[] if daemon else None, yaml=yaml, server=f"""
            penstock_challenge {kind} sitekey=10000000-ffff upstream={upstream} {more};
            location = /challenge {{ penstock_verify; }}
            location = /metrics {{ penstock_metrics; }}
            {server}
            location /dry {{ {limit.replace("name=a", "name=dry dry_run=on")}; add_header X-Status $penstock_status always; empty_gif; }}
            location / {{ {limit}; add_header X-Status $penstock_status always; empty_gif; }}""")
    return start


def used_up(service, path="/?key=k"):
    while service.get(path).status == 200:
        pass
    return service


def events(service):
    text = service.get("/metrics").text()
    return {event: int(re.search(rf'penstock_challenges_total{{zone="edge",limit="a",event="{event}"}} (\d+)', text)[1])
            for event in ("issued", "passed", "failed", "provider_error")}


def bring(service, token, path="/?key=k", **headers):
    return service.get(path, Penstock_Solution=token, **headers)


# --- A good token

@pytest.mark.parametrize("kind", FIELDS)
def test_a_good_token_opens_the_way(start, provider, kind):
    service = used_up(start(kind))
    refused = service.get("/?key=k")
    assert refused.status == 403 and refused.headers["X-Status"] == "CHALLENGED"
    assert refused.json()["challenge"] == {"kind": kind, "sitekey": "10000000-ffff"}
    went_on = bring(service, "good.token-1")
    assert went_on.status == 200 and went_on.headers["Cache-Control"] == "no-store"
    carried = went_on.headers["Penstock-Pass"]
    assert carried.startswith("p1.") and service.get("/?key=k", Penstock_Pass=carried).status == 200
    assert service.get("/?key=other").status == 200 and service.get("/?key=other", Penstock_Pass=carried).status == 403
    form = {"secret": SECRET, "response": "good.token-1", **({"sitekey": "10000000-ffff"} if kind == "hcaptcha" else {})}
    assert provider.asked == [form]
    assert SECRET not in service.nginx.log() + service.penstockd.process.text()
    told = events(service)
    assert told["passed"] == 1 and told["failed"] == told["provider_error"] == 0 and told["issued"] >= 2


def test_the_callers_address_is_told_only_where_that_is_wanted(start, provider):
    service = used_up(start(remote_ip="true"))
    assert bring(service, "good1").status == 200
    assert provider.asked[0]["remoteip"] == "127.0.0.1"


def test_a_token_is_good_once_and_asked_about_once(start, provider):
    service = used_up(start())
    assert bring(service, "good1").status == 200
    again = bring(service, "good1")
    assert again.status == 403 and "Penstock-Pass" not in again.headers and len(provider.asked) == 1
    assert events(service)["failed"] == 1


def test_a_token_that_somebody_else_has_used_is_refused(start, provider):
    service = used_up(start())
    provider.tokens.add("good1")
    assert bring(service, "good1").status == 403


def test_requests_that_wait_hold_up_nobody(start, provider):
    service = used_up(start())
    provider.hold.clear()
    answers = []
    threads = [threading.Thread(target=lambda token=f"good{i}": answers.append(bring(service, token))) for i in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(provider.asked) == 3, "all are asked about")
    assert service.get("/?key=other").status == 200 and not answers
    provider.hold.set()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 3


def test_a_caller_that_leaves_is_not_waited_for(start, provider):
    service = used_up(start())
    provider.hold.clear()
    gone = socket.create_connection(("127.0.0.1", service.port))
    gone.sendall(b"GET /?key=k HTTP/1.1\r\nHost: a\r\nPenstock-Solution: good1\r\n\r\n")
    until(lambda: provider.asked, "it is asked about")
    gone.close()
    until(lambda: "prematurely closed" in service.nginx.log(), "it has left")
    provider.hold.set()
    assert bring(service, "good2").status == 200


# --- Tokens that are not good

@pytest.mark.parametrize("body, why", [
    (bad("timeout-or-duplicate"), "timeout-or-duplicate"),
    (bad("invalid-input-response"), "invalid-input-response"),
    (bad("invalid-or-already-seen-response"), "already-seen"),
    (bad("bad-request"), "bad-request"),
    (bad("something-new"), "for no reason that is known here"),
    ({"success": False}, "for no reason"),
    (good(hostname="evil.example"), "a page of 'evil.example'"),
    (good(hostname="example.com.evil.example"), "none of `hostnames`"),
    ({name: value for name, value in good().items() if name != "hostname"}, "a page of ''"),
    (good(challenge_ts=at(400)), "too long ago"),
    (good(challenge_ts=at(-400)), "or is to be"),
    # What a page chooses for itself does not pass for a fault of the provider's.
    ({**bad("invalid-input-response"), "action": "invalid-input-secret"}, "invalid-input-response"),
])
def test_a_token_that_is_not_good_is_refused_whatever_is_allowed(start, provider, body, why):
    service = used_up(start(more="on_error=allow"))
    provider.says(body=body)
    refused = bring(service, "token")
    assert refused.status == 403 and refused.json()["challenge"]["kind"] == "turnstile"
    assert events(service)["failed"] == 1 and events(service)["provider_error"] == 0
    until(lambda: why in service.penstockd.process.text(), lambda: service.penstockd.process.text()[-2000:])


@pytest.mark.parametrize("token", ["a" * 2049, "with space", "tok\"en", "t\xc3\xa9"])
def test_what_is_no_token_is_asked_about_nowhere(start, provider, token):
    service = used_up(start())
    assert bring(service, token).status == 403
    assert provider.asked == [] and events(service)["failed"] == 1


def test_no_caller_asks_without_bound(start, provider):
    service = used_up(start())
    answers = [bring(service, f"token{i}").status for i in range(62)]
    assert set(answers) == {403} and len(provider.asked) in (60, 61)
    used_up(service, "/?key=other")
    assert bring(service, "good1", "/?key=other").status == 200


def test_an_action_and_a_score_are_asked_for_where_they_are_set(start, provider):
    service = used_up(start("recaptcha", "version=3 action=enter", action="enter", score="0.5"))
    assert service.get("/?key=k").json()["challenge"] == {"kind": "recaptcha", "sitekey": "10000000-ffff", "action": "enter"}
    for body, status in ((good(score=0.9, action="enter"), 200), (good(score=0.5, action="enter"), 200), (good(score=0.4, action="enter"), 403),
                         (good(action="enter"), 403), (good(score=0.9, action="other"), 403), (good(score="much", action="enter"), 403)):
        provider.says(body=body)
        assert bring(service, f"token{json.dumps(body).__hash__()}").status == status, body


def test_recaptcha_3_is_to_say_half_at_least_where_no_score_is_set(start, provider):
    service = used_up(start("recaptcha", "version=3"))
    for score, status in ((0.5, 200), (0.1, 403)):
        provider.says(body=good(score=score))
        assert bring(service, f"token{score}").status == status


@pytest.mark.parametrize("time", [lambda: at().replace("Z", "+00:00"), lambda: at()[:19] + "Z", lambda: at()[:19] + "+0000",
                                  lambda: (datetime.now(timezone.utc) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00")])
def test_times_are_read_in_each_spelling(start, provider, time):
    service = used_up(start())
    provider.says(body=good(challenge_ts=time()))
    assert bring(service, "token").status == 200


# --- A provider that is away

AWAY = {
    "wrong secret": dict(body=bad("invalid-input-secret")),
    "its own fault": dict(body=bad("internal-error")),
    "500": dict(status=500, body=b"oops"),
    "503 with JSON": dict(status=503, body=good()),
    "429": dict(status=429, body=bad("too-many-requests")),
    "HTML": dict(body=b"<!DOCTYPE html><title>success</title>", Content_Type="text/html"),
    "cut": dict(body=b'{"success": true, "hostname": "example.com"'),
    "success is a text": dict(body=good(success="true")),
    "no time": dict(body=good(challenge_ts="yesterday")),
    "huge": dict(body=b'{"a":"' + b"x" * (1 << 20) + b'","success":true}'),
    "redirect": dict(status=302, body=b"", Location="/elsewhere"),
    "nothing": dict(body=b""),
}


@pytest.mark.parametrize("what", AWAY)
def test_who_is_away_asks_for_a_proof_of_work_instead(start, provider, what):
    service = used_up(start(more="algorithm=sha-256"))
    provider.says(**AWAY[what])
    refused = bring(service, "good1")
    assert refused.status == 403 and refused.headers["X-Status"] == "CHALLENGED"
    challenge = refused.json()["challenge"]
    assert challenge["algorithm"] == "SHA-256", challenge
    assert events(service)["provider_error"] == 1 and events(service)["failed"] == 0
    assert SECRET not in service.penstockd.process.text() and len(provider.asked) == 1
    went_on = bring(service, payload(solved(challenge)))
    assert went_on.status == 200 and went_on.headers["Penstock-Pass"]
    assert service.get("/?key=k").json()["challenge"]["kind"] == "turnstile"  # who brings nothing is asked by the provider


@pytest.mark.parametrize("on_error", ["allow", "deny", "pow"])
def test_each_on_error(start, provider, on_error):
    service = used_up(start(more=f"on_error={on_error} algorithm=sha-256"))
    provider.says(status=500)
    answer = bring(service, "good1")
    assert answer.status == (200 if on_error == "allow" else 403) and "Penstock-Pass" not in answer.headers
    if on_error != "allow":
        assert ("algorithm" in answer.json()["challenge"]) == (on_error == "pow")
    assert events(service)["provider_error"] == 1


def test_whoever_goes_on_without_is_bounded_still(start, provider):
    service = used_up(start(more="on_error=allow", limit=LIMIT.replace("50r/h", "2r/h")))
    provider.says(status=500)
    answers = [bring(service, f"good{i}") for i in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]


def test_a_proof_of_work_is_not_taken_where_it_is_not_offered(start, provider):
    service = used_up(start(more="on_error=deny"))
    assert bring(service, payload({"algorithm": "SHA-256", "challenge": "a", "number": 1, "salt": "", "signature": ""})).status == 403
    assert events(service)["failed"] == 1


def test_a_slow_provider_is_away_after_the_timeout(start, provider):
    service = used_up(start(timeout="200ms"))
    provider.hold.clear()
    began = time.monotonic()
    assert "algorithm" in json.dumps(bring(service, "good1").json()["challenge"])
    assert time.monotonic() - began < 5


def test_a_provider_that_does_not_listen_is_away(start, provider):
    service = used_up(start(url="http://127.0.0.1:1/siteverify"))
    assert "algorithm" in json.dumps(bring(service, "good1").json()["challenge"])


def test_a_provider_that_is_away_again_and_again_is_left_alone_for_a_while(start, provider):
    service = start()
    provider.says(status=500)
    for i in range(8):
        used_up(service, f"/?key={i}")
        assert bring(service, f"good{i}", f"/?key={i}").status == 403
    assert len(provider.asked) == 5 and events(service)["provider_error"] == 8


def test_one_caller_has_four_under_way_and_no_more(start, provider):
    service = used_up(start(more="on_error=allow"))
    provider.hold.clear()
    answers = []
    threads = [threading.Thread(target=lambda token=f"good{i}": answers.append(bring(service, token).status)) for i in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(provider.asked) == 4 and len(answers) == 2, "four are under way")
    assert answers == [403, 403]  # its own doing: nothing is allowed for that
    provider.hold.set()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 4 + [403] * 2


@pytest.mark.parametrize("code", ["sitekey-secret-mismatch", "not-using-dummy-passcode", "invalid-keys"])
def test_tokens_of_another_site_never_make_the_provider_seem_away(start, provider, code):
    service = start(more="on_error=allow")
    provider.says(body=bad(code))
    for i in range(7):
        used_up(service, f"/?key={i}")
        assert bring(service, f"token{i}", f"/?key={i}").status == 403
    assert len(provider.asked) == 7 and events(service)["failed"] == 7 and events(service)["provider_error"] == 0
    assert f"[warn] turnstile refuses a token: {code}" in service.penstockd.process.text()
    provider.answer = provider.usual
    assert bring(service, "good1", "/?key=1").headers["Penstock-Pass"]


@pytest.mark.parametrize("on_error", ["allow", "deny", "pow"])
def test_what_is_too_much_at_once_lets_nobody_in(start, provider, on_error):
    service = start(more=f"on_error={on_error}")
    paths = [f"/?key={i}" for i in range(9)]
    for path in paths:
        used_up(service, path)
    page = page_of(service, paths[8])
    provider.hold.clear()
    threads = [threading.Thread(target=lambda i=i: bring(service, f"good{i}", paths[i % 8])) for i in range(32)]
    for thread in threads:
        thread.start()
    until(lambda: len(provider.asked) == 32, "as many as may be are under way")
    refused = bring(service, "good32", paths[8])
    assert refused.status == 503 and refused.headers["Retry-After"] in ("1", "2") and "Penstock-Pass" not in refused.headers
    form = post(service, ticket=ticket_of(page), to=paths[8], **{FIELDS["turnstile"]: "good33"})
    assert form.status == 503 and form.headers["Retry-After"] in ("1", "2") and "Set-Cookie" not in form.headers
    assert events(service)["provider_error"] == 2 and len(provider.asked) == 32
    provider.hold.set()
    for thread in threads:
        thread.join()
    assert bring(service, "good34", paths[8]).status == 200  # that was no failure of the provider's


def test_a_penstockd_that_is_not_there_is_a_provider_that_is_away(start):
    service = start()
    used_up(service)
    service.penstockd.kill()
    assert "algorithm" in json.dumps(bring(service, "good1").json()["challenge"])
    assert "cannot be asked about challenges" in service.nginx.log()


def bring_in_the_background(service, provider):
    """A token that the provider is asked about, and has not answered: the thread, and the answers that it will have heard."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(bring(service, "good1")))
    thread.start()
    until(lambda: provider.asked, "it is asked about")
    return thread, answers


def test_a_penstockd_that_goes_meanwhile_is_away(start, provider):
    service = used_up(start())
    provider.hold.clear()
    thread, answers = bring_in_the_background(service, provider)
    service.penstockd.kill()
    thread.join()
    assert answers[0].status == 403 and "kind" not in answers[0].json()["challenge"]


@pytest.fixture
def pretend(folder):
    """pretend(serve): a penstockd at old.sock that does serve(connection) with each."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "old.sock"))
    listener.listen(8)
    (folder / "old.sock").chmod(0o777)

    peers = []

    def accept(serve):
        while True:
            try:
                peers.append(listener.accept()[0])
                serve(peers[-1])
            except OSError:
                return
    yield lambda serve: threading.Thread(target=accept, args=[serve], daemon=True).start()
    for each in (listener, *peers):
        each.close()


def of_version_1(peer):
    """It says GOODBYE to a HELLO of version 2."""
    peer.recv(4096)
    peer.sendall(wire.frame(wire.GOODBYE, message="another version of the protocol; this is version 1"))
    peer.close()


def without_the_provider(peer):
    said = b""
    while b"good1" not in said:
        said += peer.recv(4096)
    peer.sendall(wire.frame(wire.VERIFIED, id=1))


@pytest.mark.parametrize("first", [of_version_1, without_the_provider])
def test_a_penstockd_that_cannot_tell_is_not_asked_where_another_can(start, provider, folder, pretend, first):
    pretend(first)
    service = used_up(start(upstream="two", more="algorithm=sha-256",
                            http=f"upstream two {{ server unix:{folder}/old.sock; server unix:{folder}/0/penstockd.sock; }}"))
    assert "algorithm" in bring(service, "good1").json()["challenge"]
    assert [bring(service, f"good{i}").status for i in (2, 3)] == [200, 200]
    assert len(provider.asked) == 2


def test_a_backlog_of_our_own_lets_nobody_in(start, folder, pretend):
    """A penstockd that reads nothing: what waits for it is 64 KiB at most, and the rest is busy."""
    pretend(lambda peer: None)
    service = used_up(start("hcaptcha", upstream="old", more="on_error=allow", http=f"upstream old {{ server unix:{folder}/old.sock; }}"))
    callers = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(50)]
    for i, caller in enumerate(callers):
        caller.sendall(f"GET /?key=k HTTP/1.1\r\nHost: a\r\nPenstock-Solution: good{i}-{'x' * 7500}\r\n\r\n".encode())
    answered = until(lambda: select.select(callers, [], [], 0)[0], "some are answered")
    assert answered[0].recv(4096).startswith(b"HTTP/1.1 503 ")
    for caller in callers:
        caller.close()
    assert events(service)["passed"] == 0


def test_a_line_that_is_busy_at_a_reload_is_closed_behind_it(start, provider):
    service = used_up(start())
    provider.hold.clear()
    thread, answers = bring_in_the_background(service, provider)
    old = set(service.nginx.workers())
    service.nginx.process.signal(signal.SIGHUP)
    until(lambda: "gracefully shutting down" in service.nginx.log(), "the old worker is to exit")
    provider.hold.set()
    thread.join()
    until(lambda: not old & set(service.nginx.workers()), "the old worker is gone")
    assert answers[0].status == 200 and "open socket" not in service.nginx.log()


def test_a_good_token_gives_a_pass_though_the_limit_has_room_again(start, provider):
    service = used_up(start(limit=LIMIT.replace("1r/h", "2r/s")))
    provider.hold.clear()
    thread, answers = bring_in_the_background(service, provider)
    then = time.monotonic() + 0.6
    until(lambda: time.monotonic() > then, "the limit has room again")
    provider.hold.set()
    thread.join()
    assert answers[0].status == 200 and answers[0].headers["Penstock-Pass"] and events(service)["passed"] == 1


def test_an_older_penstockd_is_told_apart(penstock, folder, pretend):
    pretend(of_version_1)
    service = penstock(http="penstock_zone edge 1m;", server=f"""
        penstock_challenge turnstile sitekey=a upstream=unix:{folder}/old.sock algorithm=sha-256;
        location / {{ {LIMIT}; empty_gif; }}""")
    used_up(service)
    assert "algorithm" in bring(service, "good1").json()["challenge"]
    assert "this is version 1" in service.nginx.log()


def test_a_provider_that_is_not_configured_is_away(start):
    service = used_up(start("hcaptcha"))
    service.penstockd.config.write_text(re.sub(r"(?m)^challenges:\n.*\n", "", service.penstockd.config.read_text()))
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in service.penstockd.process.text(), "it was reloaded")
    assert "kind" not in bring(service, "good1").json()["challenge"]
    assert "has no such provider" in service.penstockd.process.text()


# --- A browser's way

def page_of(service, path="/?key=k", **headers):
    return service.get(path, Accept="text/html", **headers)


def post(service, headers=FROM_HERE, **form):
    return service.request("POST", "/challenge", {"Content-Type": "application/x-www-form-urlencoded", **headers}, urlencode(form).encode())


HOSTS = {
    "turnstile": {"script-src": "'self' https://challenges.cloudflare.com", "frame-src": "https://challenges.cloudflare.com",
                  "style-src": "'self'", "connect-src": "'self'"},
    "hcaptcha": {"script-src": "'self' https://hcaptcha.com https://*.hcaptcha.com", "frame-src": "https://hcaptcha.com https://*.hcaptcha.com",
                 "style-src": "'self' https://hcaptcha.com https://*.hcaptcha.com", "connect-src": "'self' https://hcaptcha.com https://*.hcaptcha.com"},
    "recaptcha": {"script-src": "'self' https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/",
                  "frame-src": "https://www.google.com/recaptcha/ https://recaptcha.google.com/recaptcha/", "style-src": "'self'",
                  "connect-src": "'self'"},
}
REST = {"default-src": "'none'", "img-src": "'self'", "form-action": "'self'", "base-uri": "'none'", "frame-ancestors": "'none'"}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_browser_gets_a_page_with_the_widget_and_its_hosts_alone(start, kind):
    service = used_up(start(kind, "action=enter"))
    page = page_of(service)
    assert page.status == 403 and page.headers["Content-Type"].startswith("text/html")
    said = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert said == {**HOSTS[kind], **REST}
    widget = FIELDS[kind].removesuffix("-response")
    assert f'<div class="{widget}" data-sitekey="10000000-ffff" data-action="enter" data-callback="penstockSolved"></div>' in page.text()
    scripts = re.findall(r'<script src="(https:[^"]+)"', page.text())
    assert len(scripts) == 1 and scripts[0].endswith("/api.js")
    assert "Set-Cookie" not in page.headers


def test_recaptcha_3_has_a_button(start):
    page = page_of(used_up(start("recaptcha", "version=3 action=enter"))).text()
    assert 'class="main g-recaptcha" data-sitekey="10000000-ffff" data-action="enter" data-callback="penstockSolved" data-word="check.go">Go on' in page


def ticket_of(page):
    return re.search(r'name="ticket" value="(t1\.[\w.-]+)"', page.text())[1]


@pytest.mark.parametrize("kind", FIELDS)
def test_the_form_leads_on_with_a_pass(start, provider, kind):
    service = used_up(start(kind))
    ticket = ticket_of(page_of(service))
    token = "good" + "x" * (2000 if kind == "turnstile" else 6000)
    both = {"g-recaptcha-response": token} if kind == "hcaptcha" else {}  # its widget sends it under both names
    if kind == "hcaptcha":
        token = "good" + "x" * 3000
        both = {"g-recaptcha-response": token}
    led = post(service, ticket=ticket, to="/?key=k", **{FIELDS[kind]: token}, **both)
    assert led.status == 303 and led.headers["Location"].endswith("/?key=k")
    cookie = led.headers["Set-Cookie"].split(";")[0]
    assert service.get("/?key=k", Cookie=cookie).status == 200
    assert service.get("/?key=other").status == 200 and service.get("/?key=other", Cookie=cookie).status == 403


def test_a_form_that_nginx_has_put_into_a_file_is_read(start, provider):
    service = used_up(start(server="client_body_in_file_only clean;"))
    led = post(service, ticket=ticket_of(page_of(service)), to="/?key=k", **{FIELDS["turnstile"]: "good1"})
    assert led.status == 303 and "Set-Cookie" in led.headers
    assert post(service, to="/?key=k", more="x" * (20 << 10)).status == 413


def test_a_form_needs_a_ticket_of_ours(start, provider):
    service = used_up(start())
    page = page_of(service)
    carried = bring(service, "good1").headers["Penstock-Pass"]
    for ticket in ("", "nonsense", carried, "t1" + carried[2:], ticket_of(page)[:-1] + "A" * 2):
        assert post(service, ticket=ticket, to="/", **{FIELDS["turnstile"]: "good2"}).status == 403
    assert len(provider.asked) == 1
    assert service.get("/?key=k", Penstock_Pass=ticket_of(page)).status == 403  # which is no pass


def test_a_form_with_a_bad_token_gets_nothing(start, provider):
    service = used_up(start())
    ticket = ticket_of(page_of(service))
    refused = post(service, ticket=ticket, to="/", **{FIELDS["turnstile"]: "wrong"})
    assert refused.status == 403 and "Set-Cookie" not in refused.headers


@pytest.mark.parametrize("on_error", ["allow", "deny", "pow"])
def test_a_form_while_the_provider_is_away(start, provider, on_error):
    service = used_up(start(more=f"on_error={on_error}"))
    provider.says(status=500)
    led = post(service, ticket=ticket_of(page_of(service)), to="/?key=k", **{FIELDS["turnstile"]: "good1"})
    if on_error == "deny":
        assert led.status == 403 and "Set-Cookie" not in led.headers
        return
    assert led.status == 303
    cookie = led.headers["Set-Cookie"].split(";")[0]
    assert cookie.startswith("penstock-away=a1.")
    then = page_of(service, Cookie=cookie)
    if on_error == "allow":
        assert then.status == 200
    else:
        assert then.status == 403 and "/ui/challenge.js" in then.text() and "cloudflare" not in then.headers["Content-Security-Policy"]
    assert service.get("/?key=other").status == 200
    assert "/ui/provider.js" in page_of(service, "/?key=other", Cookie=cookie).text()  # it is nobody else's
    assert service.get("/?key=k", Penstock_Pass=cookie.split("=")[1]).status == 403


def test_a_form_whose_browser_leaves_is_not_waited_for(start, provider):
    service = used_up(start())
    provider.hold.clear()
    body = urlencode({"ticket": ticket_of(page_of(service)), "to": "/", FIELDS["turnstile"]: "good1"})
    gone = socket.create_connection(("127.0.0.1", service.port))
    gone.sendall(f"POST /challenge HTTP/1.1\r\nHost: a\r\nSec-Fetch-Site: same-origin\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    until(lambda: provider.asked, "it is asked about")
    gone.close()
    until(lambda: "prematurely closed" in service.nginx.log(), "it has left")
    provider.hold.set()
    assert service.get("/?key=other").status == 200


# --- Configuration

def test_a_dry_run_asks_for_nothing(start, provider):
    service = start()
    answers = [service.get("/dry?key=d", Penstock_Solution="good1") for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3 and answers[2].headers["X-Status"] == "CHALLENGED_DRY_RUN"
    assert provider.asked == []


@pytest.mark.parametrize("line, what", [
    ("turnstile upstream=gpu", "needs sitekey=KEY"),
    ("turnstile sitekey=a", "needs upstream=NAME"),
    ("turnstile sitekey=a\"b upstream=gpu", "the key that the provider gives"),
    ("friendly sitekey=a upstream=gpu", "turnstile, hcaptcha or recaptcha"),
    ("turnstile sitekey=a upstream=gpu on_error=cry", "a proof of work does (pow)"),
    ("turnstile sitekey=a upstream=gpu version=3", "unknown parameter"),
    ("recaptcha sitekey=a upstream=gpu version=4", "versions 2 and 3"),
    ("turnstile sitekey=a upstream=tcp", "has no penstockd on this machine"),
    ("pow sitekey=a", "unknown parameter"),
])
def test_what_is_wrong_in_nginx_conf_is_refused(penstock, line, what):
    line = line.replace('"', '\\"')
    service = penstock(start=False, http="penstock_zone edge 1m; upstream tcp { server 127.0.0.1:9; }",
                       server=f"penstock_challenge {line}; location / {{ {LIMIT}; empty_gif; }}")
    accepted, said = service.nginx.check()
    assert not accepted and what in said, said
