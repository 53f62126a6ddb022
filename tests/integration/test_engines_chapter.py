"""Each block of docs/ENGINES.md is good as it stands there."""

import re
import subprocess
from pathlib import Path

import pytest

from processes import BUILD

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / "docs" / "ENGINES.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", CHAPTER, re.M | re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.search(r"name: (\w+)", block).group(1))
def test_a_block_is_good_as_it_stands(tmp_path, block):
    (tmp_path / "render.py").write_text("")
    (tmp_path / "paid.key").write_text("secret\n")
    (tmp_path / "paid.key").chmod(0o600)
    (tmp_path / "models").symlink_to(ROOT / "config" / "models")
    config = tmp_path / "penstock.yaml"
    config.write_text(f"socket: {tmp_path}/s\nworkers:\n" + "".join("  " + line + "\n" for line in block.splitlines()))
    checked = subprocess.run([BUILD / "penstockd", "-t", "-c", config], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr


def test_there_are_blocks():
    assert len(BLOCKS) >= 10
