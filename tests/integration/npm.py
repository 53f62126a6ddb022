"""Packages from npm, unmodified, installed once for each lock file."""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from processes import BUILD


def installed(name):
    """The folder where the packages of tests/integration/NAME are, or of a folder elsewhere; its scripts are copied there."""
    source = Path(__file__).parent / name
    lock_file = source / "package-lock.json"
    home = BUILD / (f"{source.name}-" + hashlib.sha256(lock_file.read_bytes()).hexdigest()[:12])
    home.mkdir(exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "installed").exists():
            for file in (*source.glob("package*.json"), *source.glob(".npmrc")):
                shutil.copy(file, home)
            done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=home, capture_output=True,
                                  text=True)
            assert done.returncode == 0, f"npm could not install what {name} needs: {done.stderr[-2000:]}"
            (home / "installed").touch()
        for script in source.glob("*.mjs"):
            shutil.copy(script, home)
    return home
