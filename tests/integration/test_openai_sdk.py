"""The official `openai` package from npm, unmodified (openai/test.mjs), one test for each of its cases."""

import re
import subprocess
from pathlib import Path

import pytest

from conftest import simulate
from npm import installed

SOURCE = Path(__file__).parent / "openai"
MODEL = Path(__file__).parents[2] / "config" / "models" / "demo"
CASES = re.findall(r"^  async (\w+)\(", (SOURCE / "test.mjs").read_text(), re.M)


@pytest.fixture(scope="session")
def package():
    return installed("openai")


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
        server="location /v1/ { penstock_limit zone=edge key=$http_authorization tier=$plan; penstock_waiting_events 100ms; penstock_pass gpu; }")
    done = subprocess.run(["node", package / "test.mjs", case, f"http://127.0.0.1:{service.port}/v1"], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
