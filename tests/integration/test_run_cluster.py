"""`make run-cluster`'s script: what it prints to try does what it says, and it leaves nothing behind."""

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import chapter
from processes import ASAN, BUILD, state_of
from waiting import Port, until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(ASAN, reason="the script runs the installed Nginx, which cannot load a sanitized module")


@pytest.fixture
def cluster(folder):
    port = Port(and_above=1)
    out = folder / "out"
    with open(out, "wb") as file:
        process = subprocess.Popen([ROOT / "scripts" / "run-cluster", BUILD, str(port.number)], stdout=file, stderr=file,
                                   stdin=subprocess.DEVNULL)
    try:
        until(lambda: "Ctrl-C stops" in out.read_text() or process.poll() is not None, "it is ready", 90)
        assert f"ready http://127.0.0.1:{port.number}\n" in out.read_text(), out.read_text()
        yield out.read_text()
    finally:
        pids = (ROOT / "run" / f"cluster-{port.number}" / "pids").read_text().split()[::2]
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, out.read_text()
        until(lambda: all(state_of(pid) in ("", "Z") for pid in pids), "all are gone")
        shutil.rmtree(ROOT / "run" / f"cluster-{port.number}")
        port.release()


def test_a_job_of_one_edge_is_seen_on_the_other_and_outlives_the_host_that_ran_it(cluster):
    submit, see = re.search(r"^id=.*$", cluster, re.M)[0], re.search(r"^curl .*/jobs/.*$", cluster, re.M)[0]
    kill = re.search(r"^kill .*$", cluster, re.M)[0]

    def shell(script):
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout

    seen = json.loads(shell(f"{submit}\n{see}"))
    assert seen["object"] == "job" and seen["status"] in ("queued", "processing")
    ids = [re.search(r"job_\w+", shell(f"{submit}\necho $id"))[0] for _ in range(4)]  # on both hosts
    shell(kill)
    for id in ids:
        until(lambda: json.loads(shell(f"id={id}\n{see}"))["status"] == "completed", f"{id} has completed", 40)


def test_the_chapters_penstock_yaml_is_accepted(folder):
    blocks = chapter.blocks("docs/MANY_HOSTS.md", "yaml")
    assert len(blocks) == 2
    for name, text in (("redis.password", "secret"), ("s3.key", "ID:SECRET")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o640)
    for text in ("".join(blocks), *chapter.blocks("README.md", "yaml many-hosts")):
        (folder / "penstock.yaml").write_text("socket: s.sock\nstate: state\n" + text)
        done = subprocess.run([BUILD / "penstockd", "-t", "-c", folder / "penstock.yaml"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_readmes_chapter_does_what_it_says(cluster):
    port = int(re.search(r"^ready http://127.0.0.1:(\d+)$", cluster, re.M)[1])
    (commands,) = chapter.blocks("README.md", "sh many-hosts")
    commands = commands.replace("8080", str(port)).replace("8081", str(port + 1))
    done = subprocess.run(["bash", "-ec", commands], capture_output=True, text=True, timeout=90, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^event: completed$", done.stdout, re.M)) == 4, done.stdout
    seen = re.findall(r'"id":"(job_\w+)","object":"job","status":"(?:queued|processing)"', done.stdout)
    assert len(set(seen)) == 4, "all are seen before the host dies"
    assert json.loads(done.stdout.strip().splitlines()[-1])["choices"][0]["text"]
