"""What `nginx -t` says of zones that hosts share: what is wrong, where, and what would be right."""

import re

import pytest

LIMIT = "location / { penstock_limit zone=edge key=$arg_key rate=10r/m name=a; empty_gif; }"
SHARED = "penstock_zone edge 1m redis=127.0.0.1:6379;"


def limit(arguments):
    return f"location / {{ penstock_limit zone=edge key=$arg_key name=a {arguments}; empty_gif; }}"


# (what is wrong, http block, server block, what the message must have)
MISTAKES = [
    ("no port that is one", "penstock_zone edge 1m redis=127.0.0.1:none;", "", r'"redis=127\.0\.0\.1:none".*HOST:PORT'),
    ("a path without unix:", "penstock_zone edge 1m redis=/run/redis.sock;", "", r'"redis=/run/redis\.sock".*unix:PATH'),
    ("an empty address", "penstock_zone edge 1m redis=;", "", r'"redis=".*no value'),
    ("one of several twice", "penstock_zone edge 1m redis=127.0.0.1:1 redis=127.0.0.1:1;", "", r'"redis=127\.0\.0\.1:1".*twice'),
    ("a database of a cluster", "penstock_zone edge 1m redis=127.0.0.1:1 redis=127.0.0.1:2 db=2;", "", r"db=2.*database 0.*sentinel=NAME"),
    ("a node of a cluster by its socket", "penstock_zone edge 1m redis=127.0.0.1:1 redis=unix:/run/b.sock;", "", r"unix:/run/b\.sock.*HOST:PORT"),
    ("a Sentinel by its socket", "penstock_zone edge 1m redis=unix:/run/b.sock sentinel=main;", "", r"unix:/run/b\.sock.*HOST:PORT"),
    ("a Sentinel's master without a name", "penstock_zone edge 1m redis=127.0.0.1:1 sentinel=;", "", r'"sentinel=".*no value'),
    ("Sentinels that nobody can ask", "penstock_zone edge 1m sentinel=main;", "", r'"sentinel=main".*redis=HOST:PORT'),
    ("TLS", "penstock_zone edge 1m redis=127.0.0.1:1 tls=on;", "", r'"tls=on".*stunnel'),
    ("a password without Redis", "penstock_zone edge 1m db=1;", "", r'"db=1".*redis=HOST:PORT'),
    ("a user without a password", "penstock_zone edge 1m redis=127.0.0.1:1 user=a;", "", r"user=a.*password_file=PATH"),
    ("a password file that is not there", "penstock_zone edge 1m redis=127.0.0.1:1 password_file=/none/such;", "", r"/none/such"),
    ("a database that is no number", "penstock_zone edge 1m redis=127.0.0.1:1 db=one;", "", r'"db=one".*number'),
    ("a prefix with a colon", "penstock_zone edge 1m redis=127.0.0.1:1 prefix=a:b;", "", r'"prefix=a:b".*a-z'),
    ("no patience", "penstock_zone edge 1m redis=127.0.0.1:1 timeout=0;", "", r'"timeout=0".*5ms'),
    ("too much patience", "penstock_zone edge 1m redis=127.0.0.1:1 timeout=1s;", "", r'"timeout=1s".*500ms'),
    ("another word for what to do without", "penstock_zone edge 1m redis=127.0.0.1:1 on_error=open;", "",
     r'"on_error=open".*local.*allow.*deny'),
    ("two of one", "penstock_zone edge 1m redis=127.0.0.1:1 db=1 db=2;", "", r'"db=2".*twice'),
    ("a rate too high to be counted together", SHARED, limit("rate=9999999r/s burst=10"), r'"a".*half a percent.*shared=off'),
    ("shared where nobody shares", "penstock_zone edge 1m;", limit("rate=1r/s shared=on"), r"shared=on.*redis=HOST:PORT"),
    ("neither on nor off", SHARED, limit("rate=1r/s shared=maybe"), r"shared is on or off"),
    ("one name, shared and not", SHARED, limit("rate=1r/s") +
     "location /b { penstock_limit zone=edge key=b name=a rate=1r/s shared=off; empty_gif; }", r'"a" is shared.*name='),
]


@pytest.mark.parametrize("http,server,says", [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_is_told_with_its_place_and_its_remedy(penstock, http, server, says):
    service = penstock(start=False, http=http, server=server or "location / { empty_gif; }")
    accepted, said = service.nginx.check()
    assert not accepted
    assert re.search(r"\[emerg\].*" + says + r".*nginx\.conf:\d+", said), said


@pytest.mark.parametrize("options", ["", "db=3 prefix=shop timeout=2ms on_error=deny", "file=edge.zone on_error=allow",
                                     "redis=127.0.0.1:2 redis=[::1]:3", "redis=127.0.0.1:2 sentinel=main db=1"])
def test_what_is_right_is_accepted_without_a_redis(penstock, options):
    service = penstock(start=False, http=f"penstock_zone edge 1m redis=127.0.0.1:1 {options};", server=LIMIT)
    accepted, said = service.nginx.check()
    assert accepted and "[emerg]" not in said, said


def test_limits_of_both_kinds_stand_together(penstock):
    service = penstock(start=False, http=SHARED, server="location / { penstock_limit zone=edge key=$arg_key rate=10r/m name=a;"
                       "penstock_limit zone=edge key=$arg_key concurrency=4 name=c shared=off; empty_gif; }")
    accepted, said = service.nginx.check()
    assert accepted, said


def test_a_password_that_others_can_read_is_not_taken(penstock, folder):
    path = folder / "password"
    path.write_text("secret\n")
    path.chmod(0o644)
    service = penstock(start=False, http=f"penstock_zone edge 1m redis=127.0.0.1:1 password_file={path};", server=LIMIT)
    accepted, said = service.nginx.check()
    assert not accepted and re.search(r"chmod 640", said)
    path.chmod(0o600)
    assert service.nginx.check()[0]
