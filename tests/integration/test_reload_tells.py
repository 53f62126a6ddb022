"""A reload says what it changed: each key that there is, one by one, or that it takes a restart."""

import json
import re
import signal
import subprocess

import pytest

from processes import BUILD
from redis_server import RedisServer
from waiting import until

SECRET = "whsec_" + "A" * 40 + "\n"
# Every section, so that `penstockd -T` shows every key; what it leaves out has its default.
FULL = {
    "state": "state",
    "access": {"operators": ["root"]},
    "queues": {"default": {}, "other": {}},
    "workers": [{"name": "sim", "engine": "simulate", "slots": 2, "service_time": "1ms", "external": True},
                {"name": "api", "engine": "http", "url": "http://127.0.0.1:9", "model": "api", "external": True}],
    "devices": {"0": {"slots": 4}},
    "limits": {}, "log": {}, "ledger": {},
    "traces": {"url": "http://127.0.0.1:9/v1/traces"},
    "webhooks": {"secret_file": "hook"},
    "notify": [{"name": "mail", "on": ["dead"], "command": ["/bin/true"]},
               {"name": "chat", "on": ["dead"], "url": "http://127.0.0.1:9/hook", "key_file": "key", "headers": {"a": "b"}}],
    "challenges": {"turnstile": {"secret_file": "key", "hostnames": ["example.com"]}},
    "redis": {"url": "unix:REDIS", "password_file": "key"},
    "results": {"folder": "results"},
}
RESTART = re.compile(r"^(socket|state$|redis\.|results\.)|\.shared$")  # the log says that these take one
# What cannot stand beside another, or names what a key belongs to: a change of it is another worker or hook.
LEFT_OUT = re.compile(r"\.name$|\.engine$|^workers\..*\.(external|kind|memory|model|concurrency|limit_key)$|^workers\.api\.|^notify\[1\]\.at_once$"
                      r"|\.on_error$|^results\.(bucket|key_file|region|s3|prefix|serve)$|^redis\.sentinel$")
OTHER = {  # values, where one cannot be made of what stands there
    "socket": "/tmp/another.sock",
    "worker_binary": str(BUILD / "penstockd"), "drain_timeout": "7s", "socket_group": "root", "socket_mode": "0600", "state": "elsewhere",
    "log.level": "debug", "log.format": "json", "traces.sample": "0.5", "traces.url": "http://127.0.0.1:9/other",
    "webhooks.secret_file": "hook2", "webhooks.allow": ["10.0.0.0/8"], "notify[0].on": ["failed"], "notify[1].on": ["failed"],
    "notify[0].command": ["/bin/false"], "notify[1].url": "http://127.0.0.1:9/other", "challenges.turnstile.action": "login",
    "challenges.turnstile.url": "https://127.0.0.1:9/verify", "notify[1].key_file": "key2", "notify[1].headers": {"a": "c"}, "challenges.turnstile.secret_file": "key2",
    "challenges.turnstile.hostnames": ["example.org"], "access.operators": ["daemon"], "access.edges": ["daemon"], "access.viewers": ["daemon"],
    "access.workers": ["daemon"], "workers.sim.queue": "other",
    "workers.sim.model_name": "another", "redis.password_file": "key2", "redis.user": "me", "redis.prefix": "another",
    "redis.promise": "replicas:1", "redis.host": "another", "redis.url": "unix:/another", "results.folder": "elsewhere",
}


def changed(key, value):
    if key in OTHER:
        return OTHER[key]
    if value in ("true", "false"):
        return value == "false"
    number = re.fullmatch(r"(\d+)(ns|us|ms|s|m|h|d|B|KiB|MiB|GiB|TiB)?", value)
    assert number, f"{key}: {value}: write another value into OTHER"
    unit = {"B": "MiB", "GiB": "GiB"}.get(number[2], number[2]) or ""
    more = int(number[1]) + 1
    return f"{more}{unit}" if unit else more


def put(config, key, value):
    """Another value at that place."""
    at, (*way, last) = config, re.findall(r"[^.\[\]]+", key)
    for word in way:
        at = at[int(word)] if word.isdigit() and isinstance(at, list) else \
            next(each for each in at if each["name"] == word) if isinstance(at, list) else at.setdefault(word, {})
    at[last] = value


def in_force(penstockd, config):
    shown = subprocess.run([BUILD / "penstockd", "-T", "-c", config], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return dict(re.findall(r"^([^ #].*?): (.*?)(?:  # .*)?$", shown.stdout, re.M))


@pytest.fixture
def redis():
    server = RedisServer("--requirepass", "secret")
    yield server
    server.close()


def test_each_key_is_told_of_when_it_changes(penstock, redis):
    service = penstock(start=False, workers=[])
    daemon = service.penstockd
    here = daemon.folder
    for name, text in (("hook", SECRET), ("hook2", SECRET.replace("A", "B")), ("key", "secret\n"), ("key2", "another\n")):
        (here / name).write_text(text)
        (here / name).chmod(0o600)
    for name in ("results", "elsewhere"):
        (here / name).mkdir()

    def write(**changes):
        config = json.loads(json.dumps(FULL).replace("REDIS", str(redis.socket)))
        config |= {"socket": str(daemon.socket), "worker_binary": f"{BUILD}/penstock-worker"}
        for key, value in changes.items():
            put(config, key, value)
        daemon.config.write_text(json.dumps(config))

    def reload():
        before = daemon.process.text()
        daemon.process.signal(signal.SIGHUP)
        until(lambda: re.search(r"reloaded|reload refused", daemon.process.text()[len(before):]), "it has read it")
        said = daemon.process.text()[len(before):]
        assert "reload refused" not in said, said
        return said

    write()
    keys = in_force(daemon, daemon.config)
    sections = {key.split(".")[0].split("[")[0] for key in keys}
    assert sections >= set(FULL) and len(keys) > 80, keys
    daemon.start()
    tried = 0
    for key, value in keys.items():
        if LEFT_OUT.search(key):
            continue
        tried += 1
        write(**{key: changed(key, value)})
        said = reload()
        now = in_force(daemon, daemon.config)[key]
        if RESTART.search(key):
            assert "with a restart only" in said and "changed: " not in said, (key, said)
        elif now == value:
            assert f"changed: {key}: changed, in what is not shown" in said, (key, said)
        else:
            assert f"changed: {key}: {now} (was {value})" in said or f"changed: {key}: {now} (new)" in said, (key, said)
        write()
        said = reload()
        assert ("changed: " in said) != bool(RESTART.search(key)), (key, said)
    assert tried > 70
    # A secret is another, and its path the same.
    for name, key in (("hook", "webhooks.secret_file"), ("key", "notify[1].key_file")):
        (here / name).write_text(SECRET.replace("A", "C") if name == "hook" else "third\n")
        assert f"changed: {key}: changed, in what is not shown" in reload()
