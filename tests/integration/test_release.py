"""What a release is: one version everywhere, a changelog by version, and a tarball that builds."""

import os
import re
import shutil
import subprocess
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from processes import BUILD

ROOT = Path(__file__).parents[2]
VERSION = re.search(r"^project\(penstock VERSION (\d+\.\d+\.\d+) ", (ROOT / "CMakeLists.txt").read_text(), re.M)[1]


def test_the_changelog_goes_by_version_and_its_newest_is_the_one_that_is_built():
    headings = re.findall(r"^#+ (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings.pop(0) == "Changelog"
    releases = headings[1:] if headings[0] == "Unreleased" else headings
    found = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \((\d{4}-\d\d-\d\d)\)", each) for each in releases]
    assert found and all(found), releases
    assert sorted(found, key=lambda each: [int(part) for part in each.groups()[:3]], reverse=True) == found
    assert sorted(found, key=lambda each: each[4], reverse=True) == found
    assert ".".join(found[0].groups()[:3]) == VERSION


def test_debians_changelog_has_the_same_version_and_day():
    newest = re.search(r"^## (\d\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    text = (ROOT / "debian/changelog").read_text()
    version = re.match(r"penstock \(([^)]+)\)", text)[1]
    day = parsedate_to_datetime(re.search(r"^ -- .*>  (.*)$", text, re.M)[1]).date().isoformat()
    assert (version, day) == newest.groups()


@pytest.mark.parametrize("program", ["penstockd", "penstock-worker", "penstockctl"])
def test_programs_say_that_version(program):
    said = subprocess.run([BUILD / program, "-V"], capture_output=True, text=True, check=True).stdout
    assert said.split()[:2] == [program, VERSION]


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="a tarball is made of a checkout")
def test_a_tarball_is_what_is_committed_and_can_be_configured(folder):
    git = ["git", "-c", "safe.directory=*", "-c", "protocol.file.allow=always"]
    checkout = folder / "checkout"
    subprocess.run([*git, "clone", "-q", "--depth", "1", f"file://{ROOT}", checkout], check=True)
    (checkout / "not-committed").touch()
    env = dict(os.environ, GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
    subprocess.run(["make", "-s", "-C", checkout, "dist", f"BUILD={folder}/out"], check=True, env=env)
    subprocess.run(["tar", "-xf", folder / f"out/penstock-{VERSION}.tar.gz", "-C", folder], check=True)
    sources = folder / f"penstock-{VERSION}"
    listed = subprocess.run([*git, "-C", checkout, "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    assert {str(file.relative_to(sources)) for file in sources.rglob("*") if not file.is_dir()} == set(listed)
    done = subprocess.run(["cmake", "-S", sources, "-B", folder / "build", "-G", "Ninja"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]  # CMake looks for each source
    planned = subprocess.run(["ninja", "-C", folder / "build", "-t", "commands", "penstockd"], capture_output=True, text=True, check=True).stdout
    assert f"{sources}/worker/queue/main.cc" in planned
