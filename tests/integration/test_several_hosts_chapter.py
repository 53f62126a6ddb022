"""docs/SEVERAL_HOSTS.md: what it says to paste does what it says."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from processes import ASAN, BUILD
from waiting import Port

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / "docs" / "SEVERAL_HOSTS.md").read_text()


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```", CHAPTER, re.M | re.S)[1]


@pytest.mark.skipif(ASAN, reason="the chapter starts a plain Nginx")
def test_two_hosts_and_a_redis_let_four_of_six_pass(folder):
    ports = [Port() for _ in range(3)]
    script, conf = block("sh several hosts"), (ROOT / "config" / "host.conf").read_text()
    for written, port in zip(("8081", "8082", "6390"), ports):
        assert written in script
        script, conf = (text.replace(written, str(port.number)) for text in (script, conf))
    (folder / "config").mkdir()
    (folder / "config" / "host.conf").write_text(conf if os.getuid() else "user root;\n" + conf)
    (folder / "build").symlink_to(BUILD)
    shell = subprocess.Popen(["sh", "-e"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, start_new_session=True)
    try:
        shell.stdin.write(script + "echo done\n")
        shell.stdin.flush()
        said = []
        while not said or said[-1] != "done":
            line = shell.stdout.readline()
            assert line, said
            said.append(line.strip())
        assert [line for line in said if re.fullmatch(r"\d{3}", line)] == ["200"] * 4 + ["429"] * 2, said
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.communicate(timeout=20)
        for port in ports:
            port.release()
        shutil.rmtree(folder / "run", ignore_errors=True)


def test_its_zone_is_accepted(penstock):
    service = penstock(start=False, http=block("nginx http"), server="location / { empty_gif; }")
    accepted, said = service.nginx.check()
    assert accepted and "[warn]" not in said, said


def test_it_names_every_metric():
    named = set(re.findall(r"penstock_lease_\w+", CHAPTER))
    source = (ROOT / "ngx_module" / "pages" / "lease_metrics.cc").read_text()
    assert named == set(re.findall(r'"(penstock_lease_\w+)"', source))
