"""The official `openai` package from npm, unmodified (openai/test.mjs), one test for each of its cases."""

import fcntl
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import simulate
from processes import BUILD

SOURCE = Path(__file__).parent / "openai"
MODEL = Path(__file__).parents[2] / "config" / "models" / "demo"
CASES = re.findall(r"^  async (\w+)\(", (SOURCE / "test.mjs").read_text(), re.M)


@pytest.fixture(scope="session")
def package():
    """The package, installed once for each lock file."""
    lock_file = SOURCE / "package-lock.json"
    home = BUILD / ("openai-" + hashlib.sha256(lock_file.read_bytes()).hexdigest()[:12])
    home.mkdir(exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "installed").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCE / name, home)
            done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=home, capture_output=True,
                                  text=True)
            assert done.returncode == 0, f"npm could not install the openai package: {done.stderr[-2000:]}"
            (home / "installed").touch()
    return home


@pytest.mark.parametrize("case", CASES)
def test_openai_package(penstock, package, case):
    service = penstock(
        workers=[dict(name="demo", engine="llama", model=MODEL, device="cpu", slots=2, memory="256MiB"),
                 simulate("slow", slots=1, tokens_per_second=30)],
        http="""
            penstock_zone edge 1m;
            map $http_authorization $plan {
                default free;
                "~^Bearer sk-pro-" pro;
                "~^Bearer sk-second-" second;
            }
            penstock_tier free { rate 2r/h; }
            penstock_tier second { rate 1r/s burst=2; }
            penstock_tier pro { rate 100r/s; }
        """,
        server="location /v1/ { penstock_limit zone=edge key=$http_authorization tier=$plan; penstock_pass gpu; }")
    script = package / "test.mjs"
    shutil.copy(SOURCE / "test.mjs", script)
    done = subprocess.run(["node", script, case, f"http://127.0.0.1:{service.port}/v1"], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
