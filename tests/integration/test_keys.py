"""penstock_keys: keys that are issued and revoked in a file, whose they are, and signing in with one."""
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import simulate
from processes import BUILD, environment
from waiting import until

KEYS = """
    penstock_keys {file};
    map $penstock_key_owner $owner {{ default $penstock_key_owner; "" $penstock_session; }}
    map $penstock_key_tier  $plan  {{ default $penstock_key_tier;  "" free; }}
    map $penstock_key_owner $caller {{ default $penstock_key_owner; "" $penstock_net; }}
    penstock_zone edge 1m;
    penstock_tier free {{ rate 2r/h; }}
    penstock_tier pro  {{ rate 100r/h; }}
    penstock_owner $owner;"""
SERVER = """
    location /who { add_header Who "$penstock_key_status|$penstock_key_owner|$penstock_key_tier|$penstock_key_id" always; return 204; }
    location = /session { penstock_sign_in zone=edge for=1h; }
    location /closed/ { penstock_require_key on; penstock_pass gpu; }
    location /v1/ { penstock_limit zone=edge key=$caller tier=$plan; penstock_pass gpu; }
    location /jobs { penstock_jobs gpu; }"""


class Keys:
    """penstockctl keys, with a file of the test's own."""

    def __init__(self, path):
        self.path = path

    def run(self, *words, stdin=None):
        return subprocess.run([BUILD / "penstockctl", "keys", *map(str, words), "-f", self.path], capture_output=True, text=True,
                              input=stdin, timeout=30)

    def json(self, *words, **more):
        done = self.run(*words, "--json", **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def add(self, owner, *options):
        return self.json("add", owner, *options)["key"]


@pytest.fixture
def keys(folder):
    return Keys(folder / "keys")


@pytest.fixture
def service(penstock, keys):
    keys.add("team-a", "--tier", "pro", "--name", "the first")
    return penstock(workers=[simulate()], yaml="state: state\n", http=KEYS.format(file=keys.path), server=SERVER)


def who(service, key=None, **headers):
    """[status, owner, tier, id] as variables say."""
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return service.get("/who", **headers).headers["Who"].split("|")


def test_a_key_is_known_from_the_next_request_on_and_no_more_once_it_is_revoked(service, keys):
    key = keys.add("team-b", "--tier", "free")
    shown = keys.json("list", "team-b")["data"][0]
    assert who(service, key) == ["known", "team-b", "free", shown["id"]]
    assert keys.run("move", shown["id"], "--tier", "pro").stdout == "changed 1 key\n"
    assert who(service, key)[2] == "pro"
    assert keys.run("move", shown["id"], "--owner", "team-c", "--tier", "-").returncode == 0
    assert who(service, key)[:3] == ["known", "team-c", ""]
    assert keys.run("revoke", shown["id"]).stdout == "revoked 1 key\n"
    assert who(service, key) == ["unknown", "", "", ""]
    assert who(service) == ["none", "", "", ""]


def test_a_key_comes_by_any_of_three_headers(service, keys):
    key = keys.add("team-b")
    for headers in ({"Authorization": f"bearer  {key}"}, {"X-Api-Key": key}, {"Api-Key": key},
                    {"Authorization": "Basic YTpi", "X-Api-Key": key}):
        assert service.request("GET", "/who", headers).headers["Who"].startswith("known|team-b"), headers
    for headers in ({"Authorization": key}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"Cookie": f"penstock-key={key}"}):
        assert service.request("GET", "/who", headers).headers["Who"].startswith("none|"), headers
    for bad in (key[:-1], key + "0", key.upper(), "x" * 600, key + " "  + key):
        assert service.request("GET", "/who", {"Authorization": f"Bearer {bad}"}).headers["Who"].startswith("unknown||"), bad


def test_limits_and_jobs_go_by_the_key_s_owner(service, keys):
    a, b = keys.add("team-a", "--tier", "free"), keys.add("team-b", "--tier", "free")
    ask = lambda key: service.complete(headers={"Authorization": f"Bearer {key}"}, prompt="x").status
    assert [ask(b), ask(b), ask(b)] == [200, 200, 429]
    assert ask(a) == 200
    keys.run("move", "team-b", "--tier", "pro")
    assert ask(b) == 200
    job = service.complete(headers={"Authorization": f"Bearer {a}", "Prefer": "respond-async"}, prompt="x").headers["Location"]
    assert service.get(job, Authorization=f"Bearer {a}").status == 200
    assert service.get(job, Authorization=f"Bearer {b}").status == 404


def test_an_expired_key_is_told_from_an_unknown_one(service, keys):
    key = keys.add("team-b", "--for", "30d")
    assert who(service, key)[0] == "known"
    text = keys.path.read_text()
    keys.path.write_text(re.sub(r"(team-b \S+ \S+ )\S+", r"\g<1>2020-01-01T00:00:00Z", text))
    status, owner, tier, ident = who(service, key)
    assert (status, owner, tier) == ("expired", "", "") and len(ident) == 12
    assert "(over)" in keys.run("list").stdout
    keys.run("move", "team-b", "--for", "0")
    assert who(service, key)[0] == "known" and keys.json("list", "team-b")["data"][0]["ends"] is None


def test_where_a_key_is_required_others_get_401(service, keys):
    key = keys.add("team-b")
    body = {"prompt": "x"}
    refused = service.complete("/closed/v1/completions", **body)
    assert refused.status == 401 and refused.headers["WWW-Authenticate"] == "Bearer"
    error = refused.json()["error"]
    assert error["code"] == "invalid_api_key" and "Authorization: Bearer" in error["message"]
    unknown = service.complete("/closed/v1/completions", headers={"Authorization": "Bearer nobody-s"}, **body)
    assert unknown.status == 401 and "revoked" in unknown.json()["error"]["message"]
    assert "nobody-s" not in service.nginx.log()
    assert service.complete("/closed/v1/completions", headers={"Authorization": f"Bearer {key}"}, **body).status == 200


def test_where_one_signs_in_is_told_by_its_own_server_alone(penstock, keys):
    keys.add("team-b")
    other = penstock(http=KEYS.format(file=keys.path) + "server { listen 127.0.0.1:0; location = /session { penstock_sign_in zone=edge; } }",
                     server="location = /quota { penstock_quota; }", start=False)
    other.nginx.write_config(other.nginx.config.read_text().replace("127.0.0.1:0;", f"127.0.0.1:{other.free_port()};"))
    other.start()
    assert "signed_in" not in other.get("/quota").json()


def test_signing_in_works_in_blocks_of_its_location(penstock, keys):
    key = keys.add("team-b")
    service = penstock(http=KEYS.format(file=keys.path), server="""
        location = /session { if ($arg_a) { set $a 1; } limit_except GET { allow all; } penstock_sign_in zone=edge; }""")
    for path in ("/session", "/session?a=1"):
        answer = service.request("POST", path, {"Authorization": f"Bearer {key}", "Sec-Fetch-Site": "same-origin"})
        assert answer.status == 200 and "; Max-Age=43200; " in answer.headers["Set-Cookie"], path


def test_401_says_what_it_is_where_nothing_is_handed_over(penstock, keys):
    service = penstock(http=KEYS.format(file=keys.path), server="location / { penstock_require_key on; empty_gif; }")
    assert service.get("/").json()["error"]["code"] == "invalid_api_key"


def test_satisfy_any_lets_in_by_a_key_or_by_address(penstock, keys):
    key = keys.add("team-b")
    service = penstock(workers=[simulate()], http=KEYS.format(file=keys.path), server="""
        location /v1/ { satisfy any; deny all; penstock_require_key on; penstock_pass gpu; }
        location /near/ { satisfy any; allow 127.0.0.1; deny all; penstock_require_key on; penstock_pass gpu; }""")
    assert service.complete(prompt="x").status == 401
    answer = service.complete(headers={"Authorization": f"Bearer {key}"}, prompt="x")
    assert answer.status == 200 and "WWW-Authenticate" not in answer.headers
    assert service.complete("/near/v1/completions", prompt="x").status == 200


def sign_in(service, key, **headers):
    return service.request("POST", "/session", {"Authorization": f"Bearer {key}", "Sec-Fetch-Site": "same-origin", **headers})


def test_who_signs_in_is_known_by_a_cookie_that_is_no_key(service, keys):
    key = keys.add("team-b", "--tier", "pro")
    answer = sign_in(service, key)
    assert answer.status == 200 and answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {"owner": "team-b", "tier": "pro", "key": keys.json("list", "team-b")["data"][0]["id"]}
    cookie = answer.headers["Set-Cookie"]
    value = re.fullmatch(r"penstock-key=(p1\.[\w.-]+); Path=/; Max-Age=3600; HttpOnly; SameSite=Strict", cookie)[1]
    assert key not in cookie and key[12:] not in cookie
    here = {"Cookie": f"penstock-key={value}", "Sec-Fetch-Site": "same-origin"}
    assert service.request("GET", "/who", here).headers["Who"].startswith("known|team-b|pro")
    assert service.request("GET", "/session", here).json()["owner"] == "team-b"
    # Not for another site's page, not as another cookie or header, and not once a bit is another.
    assert service.request("GET", "/who", {**here, "Sec-Fetch-Site": "cross-site"}).headers["Who"].startswith("none|")
    assert service.request("POST", "/session", {**here, "Origin": "http://evil.example"}).status in (401, 403)
    for name, text in (("Cookie", f"penstock-pass={value}"), ("Penstock-Pass", value), ("Authorization", f"Bearer {value}"),
                       ("Cookie", f"penstock-key={value[:-1]}{'A' if value[-1] != 'A' else 'B'}"), ("Cookie", f"penstock-key={value[:40]}")):
        assert not service.request("GET", "/who", {name: text, "Sec-Fetch-Site": "same-origin"}).headers["Who"].startswith("known"), text
    # A key counts before the cookie; a wrong one, too.
    assert service.request("GET", "/who", {**here, "X-Api-Key": "wrong"}).headers["Who"].startswith("unknown")
    out = service.request("DELETE", "/session", here)
    assert out.status == 200 and out.headers["Set-Cookie"].startswith("penstock-key=; ") and out.headers["Set-Cookie"].endswith("; Max-Age=0; HttpOnly; SameSite=Strict")
    keys.run("revoke", "team-b")
    assert service.request("GET", "/who", here).headers["Who"] == "unknown|||"
    assert service.request("GET", "/session", here).json() == {"owner": None, "tier": None, "key": None}


def test_quota_tells_pages_where_one_signs_in_and_who_has(penstock, keys):
    key = keys.add("team-b", "--tier", "pro")
    service = penstock(http=KEYS.format(file=keys.path), server="""
        location = /session { penstock_sign_in zone=edge; }
        location = /quota { penstock_limit zone=edge key=$caller tier=$plan; penstock_quota; }""")
    assert service.get("/quota").json()["signed_in"] == {"at": "/session", "owner": None}
    told = service.get("/quota", Authorization=f"Bearer {key}").json()
    assert told["signed_in"]["owner"] == "team-b" and told["tier"] == "pro"


def test_signing_in_takes_a_key_and_a_page_of_this_host(service, keys):
    key = keys.add("team-b", "--for", "5m")
    assert sign_in(service, "wrong").status == 401
    cookie = sign_in(service, key).headers["Set-Cookie"]
    assert 290 <= int(re.search("; Max-Age=([0-9]+);", cookie)[1]) <= 300  # no longer than the key
    value = cookie.split(";")[0]
    assert service.request("POST", "/session", {"Cookie": value, "Sec-Fetch-Site": "same-origin"}).status == 401  # a cookie makes no cookie
    for site in ("cross-site", "same-site"):
        assert sign_in(service, key, **{"Sec-Fetch-Site": site}).status == 403
    assert service.request("PUT", "/session", {"Authorization": f"Bearer {key}"}).status == 405


def test_a_file_that_is_wrong_or_gone_changes_nothing_and_is_told_once(service, keys):
    key = keys.add("team-b")
    assert who(service, key)[0] == "known"
    good = keys.path.read_text()
    for bad, says in ((good + "nonsense\n", "line 6: nothing comes after"), ("penstock-keys 9\n", "line 1: a file of keys begins"),
                      ("", "is empty: remove it")):
        keys.path.write_text(bad)
        assert [who(service, key)[0] for _ in range(5)] == ["known"] * 5
        assert service.nginx.log().count(says) == 1
    keys.path.unlink()
    os.mkfifo(keys.path)
    assert who(service, key)[0] == "known"
    keys.path.unlink()
    assert [who(service, key)[0] for _ in range(5)] == ["known"] * 5
    assert service.nginx.log().count("No such file") == 1
    keys.add("team-c")  # a new file, without the others
    assert who(service, key)[0] == "unknown"


def test_a_file_that_could_not_be_read_is_read_as_soon_as_it_can_be(penstock, keys):
    """As where a worker is out of descriptors for a moment: what it missed is not lost."""
    key = keys.add("team-b")
    service = penstock(workers=[simulate()], http=KEYS.format(file=keys.path), server=SERVER)
    assert who(service, key)[0] == "known"
    client, bearer = service.client(), {"Authorization": f"Bearer {key}"}
    assert client.request("GET", "/who", bearer).status == 204  # its connection is there before there is no descriptor left
    worker = service.nginx.workers()[0]
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (0, limits[1]))
    keys.run("revoke", "team-b")
    assert client.request("GET", "/who", bearer).headers["Who"].startswith("known")
    assert service.nginx.log().count("Too many open files; the keys read before stay in force") == 1
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    until(lambda: client.request("GET", "/who", bearer).headers["Who"].startswith("unknown"), "what was missed is read")  # it looks once a millisecond


def test_each_worker_looks_though_nobody_asks(penstock, keys):
    service = penstock(workers=[simulate()], http=KEYS.format(file=keys.path), server=SERVER)
    keys.path.write_text("nonsense\n")
    until(lambda: "line 1: a file of keys begins" in service.nginx.log(), "Nginx tells of a file that is wrong")


def test_a_reload_and_a_restart_keep_what_is_in_the_file(service, keys):
    key = keys.add("team-b")
    service.nginx.reload()
    assert who(service, key)[0] == "known"


def test_the_configuration_is_told_what_is_wrong(penstock, keys):
    keys.path.write_text("penstock-keys 1\nnot a key\nend 1\n")
    broken = penstock(start=False, http=KEYS.format(file=keys.path))
    assert "line 2: begins with the SHA-256 of a key" in broken.nginx.check()[1]
    keys.path.unlink()
    assert "no key is known until penstockctl keys add makes it" in penstock(start=False, http=KEYS.format(file=keys.path)).nginx.check()[1]
    for server, says in (("location = /s { penstock_sign_in zone=none; }", "penstock_sign_in needs zone=NAME"),
                         ("location = /s { penstock_sign_in zone=edge for=30d; }", "1m to 7d"),
                         ("location ~ s { penstock_sign_in zone=edge; }", "stands in a location such as"),
                         ("location = /s { penstock_sign_in zone=edge fro=1h; }", 'unknown parameter "fro=1h"')):
        assert says in penstock(start=False, http=KEYS.format(file=keys.path), server=server).nginx.check()[1]
    assert "penstock_require_key needs penstock_keys" in penstock(start=False, server="penstock_require_key on;").nginx.check()[1]


CHAPTER = (Path(__file__).parents[2] / "docs" / "KEYS.md").read_text()


def test_the_chapter_s_configuration_and_commands_do_what_they_say(penstock, keys):
    block = re.search(r"^```nginx\nhttp {\n(.*)^}\n```", CHAPTER, re.M | re.S)[1].replace("/etc/penstock/keys", str(keys.path))
    http, server = re.match(r"(.*)    server {\n(.*)    }\n", block, re.S).groups()
    www = Path(__file__).parents[2] / "config" / "www"
    service = penstock(workers=[simulate()], yaml="state: state\n", http=http, server=server.replace("penstock_ui gpu;", f"penstock_ui gpu root={www};"))
    first, *rest = re.search(r"^```sh\n(.*?)^```", CHAPTER, re.M | re.S)[1].splitlines()
    run = lambda line: subprocess.run(line.replace("penstockctl", str(BUILD / "penstockctl"), 1), shell=True, check=True, capture_output=True, text=True,
                                      env={**os.environ, "PENSTOCK_KEYS": str(keys.path)}).stdout
    key = run(first).split()[0]
    ask = lambda: service.complete(headers={"Authorization": f"Bearer {key}"}, prompt="x")
    assert ask().status == 200 and service.complete(prompt="x").status == 401
    listed, moved, revoked = map(run, rest)
    assert "laptop of Ann" in listed and "pro" in listed and moved == "changed 1 key\n" and revoked == "revoked 1 key\n"
    assert ask().status == 401
    assert service.get("/quota").json()["signed_in"] == {"at": "/session", "owner": None}


# -- penstockctl keys

def test_the_file_holds_no_key_and_is_replaced_as_a_whole(keys):
    key = keys.add("team-a", "--name", "laptop of Ann")
    mode = keys.path.stat()
    assert key not in keys.path.read_text() and key[12:] not in keys.path.read_text() and mode.st_mode & 0o777 == 0o640
    os.chmod(keys.path, 0o600)
    second = keys.add("team-b")
    assert keys.path.stat().st_mode & 0o777 == 0o600 and keys.path.stat().st_ino != mode.st_ino
    assert key != second and len(keys.json("list")["data"]) == 2
    assert [file.name for file in keys.path.parent.glob("keys.*")] == ["keys.lock"]


def test_many_at_once_lose_none(keys):
    threads = [threading.Thread(target=lambda i=i: [keys.add(f"o{i}") for _ in range(5)]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys.json("list")["data"]) == 20


def test_a_link_stays_one_and_what_it_leads_to_is_changed(keys, folder):
    keys.add("team-a")
    link = folder / "link"
    link.symlink_to(keys.path)
    assert Keys(link).run("revoke", "team-a").returncode == 0
    assert link.is_symlink() and keys.json("list")["data"] == []
    keys.path.unlink()
    done = Keys(link).run("add", "team-b")
    assert done.returncode == 1 and "is a link to a file that is not there" in done.stderr and not keys.path.exists()


def test_what_is_typed_holds_nobody_up(keys):
    typing = subprocess.Popen([BUILD / "penstockctl", "keys", "add", "team-a", "--key-file", "-", "-f", keys.path], stdin=subprocess.PIPE)
    assert keys.add("team-b")
    typing.communicate(b"a-key-of-our-own-0123456789\n", timeout=30)
    assert len(keys.json("list")["data"]) == 2


def test_killed_at_any_time_the_file_is_whole(keys):
    for _ in range(3):
        keys.add("many")
    for i in range(40):
        command = subprocess.Popen([BUILD / "penstockctl", "keys", "add", "killed", "-f", keys.path], stdout=subprocess.PIPE)
        try:
            command.wait(timeout=i / 4000)
        except subprocess.TimeoutExpired:
            command.send_signal(signal.SIGKILL)
            command.wait()
        command.stdout.close()
        assert len(keys.json("list", "many")["data"]) == 3


def test_a_key_of_one_s_own_is_taken_if_it_is_long_enough(keys):
    assert keys.json("add", "team-a", "--key-file", "-", stdin="a-key-of-our-own-0123456789\n")["key"] == "a-key-of-our-own-0123456789"
    for bad, says in (("short\n", "20 to 512 characters"), ("with a space in it 0123456789\n", "without spaces"), ("", "no key"),
                      ("a-key-of-our-own-0123456789\n", "this key is team-a's already")):
        done = keys.run("add", "team-b", "--key-file", "-", stdin=bad)
        assert done.returncode == 1 and says in done.stderr, done.stderr


def test_what_is_typed_wrong_is_said(keys):
    keys.add("team-a"), keys.add("team-a")
    for words, says in ((["add", "session:x"], "is no owner"), (["add", "10.0.0.1"], "is no owner"), (["add"], "keys takes add OWNER"),
                        (["add", "a", "--tier", "b/c"], "a plan's name"), (["add", "a", "--for", "soon"], "such as 90d"),
                        (["revoke", "team-a"], "has 2 keys: name one by its id, or say --all"), (["move", "team-a", "--all"], "says where to"),
                        (["forget", "x"], "keys takes add OWNER")):
        done = keys.run(*words)
        assert done.returncode == 2 and says in done.stderr, (words, done.stderr)
    done = keys.run("revoke", "nobody")
    assert done.returncode == 1 and "penstockctl keys list shows them" in done.stderr
    assert keys.run("revoke", "team-a", "--all").stdout == "revoked 2 keys\n" and keys.json("list")["data"] == []


def test_a_file_that_is_not_there_is_named_and_made_by_add_alone(keys, folder):
    says = f'penstockctl: {keys.path} is not there: "penstockctl keys add OWNER" makes it, -f FILE names another\n'
    for words in (["list"], ["list", "team-a"], ["list", "--json"], ["revoke", "team-a"], ["move", "team-a", "--tier", "pro"]):
        done = keys.run(*words)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", says), (words, done)
    assert not list(folder.glob("keys*")), "nor is a lock left"
    far = Keys(folder / "none" / "keys").run("add", "team-a")
    assert far.returncode == 1 and "none/keys.lock cannot be made: No such file" in far.stderr and "-f FILE names another" in far.stderr
    keys.add("team-a")
    keys.run("revoke", "team-a")
    assert keys.run("list").returncode == 0, "a file without keys is one"
    keys.path.write_bytes(b"")
    for words in (["list"], ["add", "team-a"]):
        done = keys.run(*words)
        assert done.returncode == 1 and f'{keys.path}: is empty: remove it, and "penstockctl keys add OWNER"' in done.stderr, done


@pytest.mark.skipif(os.geteuid() != 0, reason="the system's log is at /dev/log, which only root can put another in the place of")
def test_the_systems_log_is_told_of_each_order_and_never_of_a_key(keys, folder):
    """/dev is a folder of the test's own, in a mount namespace."""
    (folder / "dev").mkdir()
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    journal.bind(str(folder / "dev" / "log"))

    def run(*words, **variables):
        command = ["unshare", "-m", "sh", "-c", f'mount --bind {folder}/dev /dev && exec "$@"', "sh", BUILD / "penstockctl", "keys", *words, "-f", keys.path]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env={**environment(folder), **variables})

    def told():
        lines = []
        with contextlib.suppress(BlockingIOError):
            while True:
                lines.append(journal.recv(4096).decode())
        return [re.fullmatch(r"<(\d+)>.* penstockctl\[\d+\]: order (.*)", line.rstrip("\0")).groups() for line in lines]

    added = run("add", "team-a", "--tier", "pro", SUDO_USER="alice")
    if "unshare" in added.stderr or "mount" in added.stderr:
        pytest.skip(added.stderr)
    key, id = re.match(r"(\S+)\n\nKey (\w+) ", added.stdout).groups()
    NOTICE, WARNING = str(10 << 3 | 5), str(10 << 3 | 4)  # of authpriv
    who = f"uid={os.getuid()}"
    assert told() == [(NOTICE, f"{who} by=alice deed=add object=/keys/team-a keys={id} tier=pro file={keys.path} outcome=done")]
    run("move", id, "--owner", "team-b", "--for", "3d")
    run("revoke", "team-b")
    run("revoke", "team-b")
    run("revoke")  # is no order
    run("list")
    assert told() == [(NOTICE, f"{who} deed=move object=/keys/{id} keys={id} owner=team-b for=3d file={keys.path} outcome=done"),
                      (NOTICE, f"{who} deed=revoke object=/keys/team-b keys={id} file={keys.path} outcome=done"),
                      (WARNING, f"{who} deed=revoke object=/keys file={keys.path} outcome=failed")]
    journal.close()
    assert run("add", "team-c").returncode == 0, "where nobody listens nothing is told, and nothing fails"
