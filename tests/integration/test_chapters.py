"""What chapters that no other test reads say to write and to run: alerts, notices, replay, building."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import simulate
from processes import BUILD
from redis_server import RedisServer
from shared_hosts import ALICE
from waiting import until

ROOT = Path(__file__).parents[2]


def blocks(chapter, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs" / f"{chapter}.md").read_text(), re.M | re.S)


def run(command, **more):
    done = subprocess.run(["bash", "-euc", command], cwd=ROOT, capture_output=True, text=True, timeout=60, **more)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus")
def test_alerts_are_installed_by_the_chapters_lines(folder):
    """But for apt-get, whose packages are here, and systemctl."""
    (block,) = blocks("ALERTS", "sh")
    install, copy, check, restart = block.splitlines()
    assert re.fullmatch(r"apt-get install [\w -]+", install)
    run("dpkg -s " + install.split("install ")[1])
    run(copy.replace("/etc/prometheus", str(folder)))
    assert "SUCCESS" in run(check.replace("/etc/prometheus", str(folder)))
    assert restart == "systemctl restart prometheus" and Path("/lib/systemd/system/prometheus.service").exists()


def test_notices_are_configured_by_the_chapters_block(folder):
    (block,) = blocks("NOTICES", "yaml")
    for path in re.findall(r"/usr/share/penstock/([\w-]+)", block):
        assert os.access(ROOT / "config" / path, os.X_OK)
    (folder / "chat.key").write_text("secret\n")
    (folder / "chat.key").chmod(0o600)
    text = block.replace("/etc/penstock", str(folder)).replace("/usr/share/penstock", str(ROOT / "config"))
    (folder / "p.yaml").write_text(f"socket: {folder}/s\nstate: {folder}/state\n{text}")
    said = subprocess.run([BUILD / "penstockd", "-T", "-c", folder / "p.yaml"], capture_output=True, text=True)
    assert said.returncode == 0 and "notify[1].name: chat" in said.stdout and "notify[2].name: sms" in said.stdout, said


def test_work_runs_again_by_the_chapters_commands(penstock, folder):
    (keeps,) = blocks("REPLAY", "yaml")
    consume, replays = blocks("REPLAY", "sh")
    redis = RedisServer()
    try:
        service = penstock(start=False, workers=[simulate(slots=2, service_time="1ms", model="demo"), simulate("next", slots=2, model="demo-2"), simulate("bad", model="bad", failure_rate=1)],
                           server="penstock_owner $http_authorization;\nlocation /v1/ { penstock_pass gpu; }\nlocation /jobs { penstock_jobs gpu; }\n",
                           yaml=f'state: state\nredis: {{ url: "unix:{redis.socket}", events: 1000 }}\n', queue={"attempts": 1})
        config = service.penstockd.config
        kept = re.search(r"default: {(.*)}", keeps)[1]
        config.write_text(config.read_text().replace("default: {", f"default: {{{kept.rstrip()}, "))
        service.start()
        good, id = (service.complete(headers={**ALICE, "Prefer": "respond-async"}, model=model).json()["id"] for model in ("demo", "bad"))
        for each, status in ((good, "completed"), (id, "failed")):
            until(lambda: service.get(f"/jobs/{each}", **ALICE).json()["status"] == status, "it is over")
        dry, again = replays.splitlines()
        here = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}", "PENSTOCK_SOCKET": str(service.penstockd.socket)}
        assert run(dry, env=here).split()[:2] == [id, "1"]
        again = re.sub(r"--since \S+ --until \S+", "--since 1h", again)
        assert run(again, env=here) == "1 run again: 1 completed, 0 did not\n"
        assert re.fullmatch(r"config/events-consumer -h \S+\n", consume)
        assert {id, good} <= set(re.findall(r'"id": "(\w+)"', run(f"config/events-consumer -s {redis.socket} --once")))
        assert run(f"config/events-consumer -s {redis.socket} --once") == "", "each once"
    finally:
        redis.close()


def test_another_nginx_is_named_as_the_chapter_says(folder):
    """`make test-nginx` does it with the source trees that are at hand."""
    (command,) = [block.strip() for block in blocks("BUILDING", "sh") if "make module" in block]
    tree = re.search(r"NGINX_SRC=(\S+)", command)[1]
    steps = run(f"{command.replace('make', 'make -n', 1)} BUILD={folder}")
    assert f"-DNGINX_SRC={tree}" in steps and "--target ngx_http_penstock_module" in steps
    unnamed = subprocess.run(["make", "-n", "module", f"BUILD={folder}"], cwd=ROOT, capture_output=True, text=True)
    assert "say which Nginx: make module NGINX_SRC=DIR" in unnamed.stdout
