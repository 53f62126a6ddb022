"""`make install` as root into /, and the units' commands there as their users: over this machine's files, in a root of its own
whose changes are in memory alone."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from processes import ASAN, BUILD, children
from test_access import ASK
from test_install import PREFIX, ROOT
from test_systemd import setting
from waiting import until
from wire import CALLER, GOODBYE

CHAPTER = (ROOT / "docs/INSTALL.md").read_text()
OWN = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
# It holds the mounts and processes for as long as it lives.
HOLD = """
set -e
mount -t tmpfs none "$1"
mkdir "$1"/upper "$1"/work "$1"/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1"/root
mount -t proc proc "$1"/root/proc
mount --rbind /dev "$1"/root/dev
mount -t tmpfs none "$1"/root/run
shift
for folder in "$@"; do mkdir -p "$root$folder"; mount --rbind "$folder" "$root$folder"; done
touch "$root"/run/made
exec sleep infinity
"""
WITHOUT = """
for user in penstock penstock-worker; do
    ! getent passwd $user >/dev/null || userdel $user
    ! getent group $user >/dev/null || groupdel $user
done
rm -rf /etc/penstock /var/lib/penstock
"""


class Root:
    """A root of its own; what runs there ends with it."""

    def __init__(self, folder):
        self.path = folder / "system"
        self.path.mkdir()
        elsewhere = [str(path) for path in (ROOT, BUILD) if path.stat().st_dev != os.stat("/").st_dev]
        self._holder = subprocess.Popen([*OWN, "sh", "-c", HOLD, "sh", str(self.path), *elsewhere], stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "root": str(self.path / "root")})
        until(lambda: self._holder.poll() is not None or self._first() and Path(f"/proc/{self._first()}/root{self.path}/root/run/made").exists(),
              "the root is there")
        if self._holder.poll() is not None:
            pytest.skip(f"no root of its own here: {self._holder.stderr.read()}")

    def _first(self):
        """The first process in there."""
        return Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().strip()

    def command(self, *words):
        return ["nsenter", "-t", self._first(), "-m", "-p", "-n", "chroot", self.path / "root", "env", "-i",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", *map(str, words)]

    def run(self, *words, ok=True):
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not ok, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done

    def read(self, path):
        return self.run("cat", path).stdout

    def start_unit(self, unit, instance=""):
        """Its ExecStart, as its User=, with its groups and the folders that it asks for."""
        text = self.read(f"{PREFIX}/lib/systemd/system/{unit}").replace("%i", instance)
        setting = {name: value for name, value in re.findall(r"^(\w+)=(.*)$", text, re.M)}
        command = setting["ExecStart"].split()
        if "EnvironmentFile" in setting:
            variables = dict(line.split("=", 1) for line in self.read(setting["EnvironmentFile"]).splitlines())
            command = [word for each in command for word in (variables[each[1:]].split() if each.startswith("$") else [each])]
        if "CacheDirectory" in setting:
            self.run("install", "-d", "-m", setting["CacheDirectoryMode"], "-o", setting["User"], f"/var/cache/{setting['CacheDirectory']}")
        log = open(self.path.parent / f"{unit}.log", "wb")
        return subprocess.Popen(
            self.command("setpriv", "--reuid", setting["User"], "--regid", setting["Group"], "--groups", setting["SupplementaryGroups"],
                         "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", *command), stdout=log, stderr=log)

    def close(self):
        self._holder.kill()
        self._holder.wait()


@pytest.fixture
def installed(folder):
    if os.getuid() != 0 or ASAN or shutil.which("help2man") is None:
        pytest.skip("needs root, help2man, and programs that start anywhere")
    root = Root(folder)
    try:
        root.run("sh", "-ec", WITHOUT)
        root.run("make", "-s", "-o", "all", "-C", ROOT, "install", f"BUILD={BUILD}", f"PREFIX={PREFIX}")
        yield root
    finally:
        root.close()


def test_users_folders_and_the_secret_are_made_once(installed):
    user = installed.run("id", "penstock").stdout
    assert "(penstock)" in user and "(www-data)" in user
    assert "www-data" not in installed.run("id", "penstock-worker").stdout
    made = installed.run("stat", "-c", "%n %a %U %G", "/run/penstock", "/var/lib/penstock", "/etc/penstock/webhook.secret").stdout
    assert made.splitlines() == ["/run/penstock 755 penstock www-data", "/var/lib/penstock 750 penstock www-data",
                                 "/etc/penstock/webhook.secret 640 root penstock"]
    secret = installed.read("/etc/penstock/webhook.secret")
    assert re.fullmatch(r"whsec_[\w+/=]{44}\n", secret)
    installed.run("make", "-s", "-o", "all", "-C", ROOT, "install", f"BUILD={BUILD}", f"PREFIX={PREFIX}")
    assert installed.read("/etc/penstock/webhook.secret") == secret
    installed.run("make", "-s", "-C", ROOT, "uninstall", f"PREFIX={PREFIX}")
    left = installed.run("find", PREFIX, "/etc/penstock", "/var/lib/penstock", "-type", "f").stdout.split()
    assert sorted(left) == ["/etc/penstock/penstock.yaml", "/etc/penstock/webhook.secret"]


def test_systemds_own_tools_make_the_same_users_and_folders(installed):
    made = installed.run("id", "penstock").stdout, installed.run("stat", "-c", "%a %U %G", "/run/penstock", "/var/lib/penstock").stdout
    homes = [installed.run("getent", "passwd", user).stdout.split(":")[5] for user in ("penstock", "penstock-worker")]
    installed.run("sh", "-ec", WITHOUT + "rm -r /run/penstock")
    installed.run("systemd-sysusers", f"{PREFIX}/lib/sysusers.d/penstock.conf")
    installed.run("systemd-tmpfiles", "--create", f"{PREFIX}/lib/tmpfiles.d/penstock.conf")
    names = re.compile(r"\d+")
    assert names.sub("", installed.run("id", "penstock").stdout) == names.sub("", made[0])
    assert installed.run("stat", "-c", "%a %U %G", "/run/penstock", "/var/lib/penstock").stdout == made[1]
    assert [installed.run("getent", "passwd", user).stdout.split(":")[5] for user in ("penstock", "penstock-worker")] == homes


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", CHAPTER, re.M | re.S)
    return found.replace("/usr/share/penstock", f"{PREFIX}/share/penstock")


def test_both_units_serve_as_their_users(installed):
    """With the chapter's own worker."""
    said = installed.run("setpriv", "--reuid", "penstock", "--regid", "penstock", "--groups", "www-data",
                         f"{PREFIX}/sbin/penstockd", "-t", "-c", "/etc/penstock/penstock.yaml").stderr
    assert "configuration is good" in said and not re.search("bad: |may not|is not there", said), said
    installed.run("mkdir", "/etc/penstock/conf.d")
    for path, more in (("/etc/penstock/conf.d/worker.yaml", block("yaml worker")), ("/etc/penstock/penstock.yaml", "\ninclude: conf.d/*.yaml\n")):
        installed.run("sh", "-ec", 'printf %s "$2" >>"$1"', "sh", path, more)
    commands = block("sh worker").splitlines()
    installed.run("sh", "-ec", "\n".join(line for line in commands if not line.startswith("systemctl ")))
    (instance,) = re.findall(r"^systemctl enable --now penstock-worker@(\w+)$", "\n".join(commands), re.M)
    daemon = installed.start_unit("penstockd.service")
    status = until(lambda: installed.run(f"{PREFIX}/bin/penstockctl", "status", ok=False).stdout, "penstockd answers")
    assert re.search(rf"^{instance} .*waiting", status, re.M), status
    worker = installed.start_unit("penstock-worker@.service", instance)
    until(lambda: re.search(rf"^{instance} .*ready", installed.run(f"{PREFIX}/bin/penstockctl", "status").stdout, re.M),
          lambda: f"the worker serves: {(installed.path.parent / 'penstock-worker@.service.log').read_text()}")
    users = installed.run("ps", "-C", "penstockd,penstock-worker", "-o", "user:20=,args=").stdout.splitlines()
    assert len(users) >= 3
    for line in users:
        assert line.split()[0] == ("penstock-worker" if "--connect" in line else "penstock"), users
    # The group by which it comes to the socket makes it no edge.
    kind, why = installed.run("setpriv", "--reuid", "penstock-worker", "--regid", "penstock-worker", "--groups", "www-data", "/usr/bin/python3",
                              "-c", ASK, "/run/penstock/penstock.sock", ROOT / "tests/integration", CALLER).stdout.split(" ", 1)
    assert int(kind) == GOODBYE and "access.edges" in why, why
    installed.run(f"{PREFIX}/bin/penstockctl", "drain", instance)
    assert worker.wait(20) == int(setting("penstock-worker@.service", "RestartPreventExitStatus"))
    os.kill(*children(daemon.pid), signal.SIGTERM)
    assert daemon.wait(20) == 0
