"""Versions of penstockd that keep a shared queue in different ways, and Redis behind TLS."""

import json
import re
import subprocess

from chapter import block_with
from processes import BUILD, Process, environment
from redis_server import RedisServer
from shared_hosts import HTTP, SERVER, get, host, job, post, promise, redis, until_known, until_status, worker  # noqa: F401 (fixtures)
from waiting import Port, until

CLEAN = block_with("docs/MANY_HOSTS.md", "UNLINK")


def cluster(service, *more):
    return subprocess.run([BUILD / "penstockctl", "status", "--cluster", *more, "-s", service.penstockd.socket], check=True, capture_output=True,
                          text=True, timeout=30, env=environment(service.folder)).stdout


def test_who_finds_another_layout_says_so_and_leaves_it_alone(host, redis):
    redis.ask("SADD", "penstock:layouts:{default}", "q0")
    redis.ask("SET", "penstock:q0:{default}:j|x", "what another version has put there")
    service = host(worker())
    until_known(service)
    until(lambda: "by layout q0; this one keeps it by q1" in service.penstockd.process.text(), "it is said")
    assert "queue default: another version has kept it by layout q0 here" in cluster(service)
    assert json.loads(cluster(service, "--json"))["queues"][0]["other_layouts"] == ["q0"]
    assert redis.ask("GET", "penstock:q0:{default}:j|x") == b"what another version has put there"
    assert sorted(redis.ask("SMEMBERS", "penstock:layouts:{default}")) == [b"q0", b"q1"]
    # Once its hosts are gone, what they have left is removed so; what is ours stays.
    id = promise(service).json()["id"]
    until_status(service, id, "completed")
    subprocess.run(CLEAN.replace("SOCKET", str(redis.socket)), shell=True, check=True, stdout=subprocess.DEVNULL)
    assert redis.ask("KEYS", "penstock:q0:*") == []
    assert job(service, id)["status"] == "completed"


def test_hosts_of_two_layouts_share_a_redis_and_the_old_ones_end_what_they_have(penstock, redis):
    """As an upgrade to another layout goes, here by the prefix that layouts are a part of: first some of the workers, then the edges."""
    def start(prefix, *workers):
        return penstock(http=HTTP, server=SERVER, workers=list(workers), queue={"shared": "true"},
                        yaml=f'redis: {{ url: "unix:{redis.socket}", prefix: {prefix} }}\nstate: state\ndrain_timeout: 1s\n')
    old_edge, old_gpu, new_gpu = start("old", ), start("old", worker("200ms")), start("new", worker())
    until_known(old_edge)
    ids = [promise(old_edge).json()["id"] for _ in range(5)]
    new_edge = start("new")  # takes the callers over
    until_known(new_edge)
    assert post(new_edge).status == 200
    for id in ids:
        until_status(old_gpu, id, "completed")
    assert get(new_edge, f"/jobs/{ids[0]}").status == 404  # results are told by hosts of their own layout


def stunnel(**keys):
    """The chapter's configuration with other values, in the foreground."""
    text = block_with("docs/MANY_HOSTS.md", "client = yes")
    for name, value in keys.items():
        text, found = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.M)
        assert found == 1, name
    return "foreground = yes\npid =\n" + text


def test_a_redis_that_speaks_tls_alone_is_reached_by_stunnel(penstock, tmp_path):
    tmp_path.chmod(0o755)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, stderr=subprocess.DEVNULL)
    port = Port()
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always", "--tls-port", port.number, "--tls-cert-file", tmp_path / "cert",
                         "--tls-key-file", tmp_path / "key", "--tls-ca-cert-file", tmp_path / "cert", "--tls-auth-clients", "no")
    (tmp_path / "stunnel.conf").write_text(
        stunnel(accept=tmp_path / "redis.sock", connect=f"127.0.0.1:{port.number}", CAfile=tmp_path / "cert", checkHost="localhost"))
    tunnel = Process(tmp_path, "stunnel", ["stunnel", tmp_path / "stunnel.conf"])
    try:
        until((tmp_path / "redis.sock").exists, lambda: "stunnel listens: " + tunnel.text())
        (tmp_path / "redis.sock").chmod(0o666)
        service = penstock(http=HTTP, server=SERVER, workers=[worker()], queue={"shared": "true"},
                           yaml=f'redis: {{ url: "unix:{tmp_path}/redis.sock" }}\nstate: state\n')
        until_known(service)
        assert post(service).status == 200
        secure = [line for line in server.ask("CLIENT", "LIST").split(b"\n") if b"evalsha" in line]
        assert secure and all(b"laddr=127.0.0.1:%d" % port.number in line for line in secure), secure
    finally:
        tunnel.kill()
        server.close()
        port.release()
