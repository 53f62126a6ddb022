"""`make install`'s script: all that is needed lies where it belongs, works there, and goes again."""

import base64
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import simulate
from processes import ASAN, BUILD
from test_operator import Terminal
from waiting import until

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/penstock"
WANTED = """
bin/penstockctl
lib/nginx/modules/ngx_http_penstock_module.so
lib/systemd/system/penstockd.service
lib/systemd/system/penstockd.socket
lib/sysusers.d/penstock.conf
lib/tmpfiles.d/penstock.conf
sbin/penstock-worker
sbin/penstockd
share/bash-completion/completions/penstockctl
share/doc/penstock/nginx.conf
share/man/man1/penstockctl.1.gz
share/man/man8/penstock-worker.8.gz
share/man/man8/penstockd.8.gz
share/penstock/engines/digits/digits.py
share/penstock/models/demo/model.safetensors
share/penstock/www/index.html
share/zsh/vendor-completions/_penstockctl
""".split()
pytestmark = pytest.mark.skipif(ASAN or shutil.which("help2man") is None, reason="needs help2man, and programs that start anywhere")


def script(*arguments):
    return subprocess.run([ROOT / "scripts" / "install", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def installed(folder):
    """The folder that stands for / there."""
    said = script(BUILD, PREFIX, folder)
    assert said.returncode == 0, said.stderr
    return folder


def files(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_everything_lies_where_it_belongs_and_goes_again(installed):
    below = installed / PREFIX[1:]
    assert set(WANTED) <= files(below)
    config = installed / "etc/penstock/penstock.yaml"
    config.write_text("# mine\n")
    assert script(BUILD, PREFIX, installed).returncode == 0
    assert config.read_text() == "# mine\n", "what an operator wrote is kept"
    assert script("--remove", PREFIX, installed).returncode == 0
    assert files(installed) == {"etc/penstock/penstock.yaml"}
    again = script("--remove", PREFIX, installed)
    assert again.returncode == 1 and "nothing is installed under /opt/penstock" in again.stderr


def test_the_configuration_names_what_was_installed(installed):
    config = installed / "etc/penstock/penstock.yaml"
    named = set(re.findall(rf"{PREFIX}/[\w/.]+", config.read_text()))
    assert {f"{PREFIX}/share/penstock/models/demo", f"{PREFIX}/share/penstock/engines/digits/digits.py"} <= named
    assert all((installed / path[1:]).exists() for path in named)
    secret = installed / "etc/penstock/webhook.secret"
    secret.write_text("whsec_" + base64.b64encode(b"0" * 32).decode())
    secret.chmod(0o640)
    config.write_text(config.read_text().replace(PREFIX, f"{installed}{PREFIX}").replace("/etc/penstock/webhook", f"{installed}/etc/penstock/webhook"))
    said = subprocess.run([installed / f"{PREFIX[1:]}/sbin/penstockd", "-t", "-c", config], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    nginx = (installed / f"{PREFIX[1:]}/share/doc/penstock/nginx.conf").read_text()
    assert f"load_module {PREFIX}/lib/nginx/modules/ngx_http_penstock_module.so;" in nginx
    assert all(f"penstock_{page} gpu root={PREFIX}/share/penstock/www;" in nginx for page in ("ui", "console"))


def test_the_units_start_what_was_installed(installed):
    units = installed / f"{PREFIX[1:]}/lib/systemd/system"
    service = units / "penstockd.service"
    assert f"ExecStart={PREFIX}/sbin/penstockd -c /etc/penstock/penstock.yaml" in service.read_text()
    service.write_text(service.read_text().replace(PREFIX, f"{installed}{PREFIX}"))
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", service], capture_output=True, text=True,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"})
    assert said.returncode == 0 and "penstockd" not in said.stderr, said.stderr


def test_manuals_tell_what_help_tells(installed):
    for program, section, words in (("penstockctl", 1, "offenders"), ("penstockd", 8, "/var/lib/penstock"), ("penstock-worker", 8, "--slots")):
        page = installed / f"{PREFIX[1:]}/share/man/man{section}/{program}.{section}.gz"
        text = subprocess.run(["gunzip", "-c", page], capture_output=True, text=True).stdout.replace("\\-", "-")
        assert words in text and ".SH SYNOPSIS" in text and "/tmp" not in text


@pytest.fixture
def completed(installed):
    """What bash offers behind these words."""
    completion = installed / f"{PREFIX[1:]}/share/bash-completion/completions/penstockctl"

    def ask(*words, **variables):
        line = " ".join(f"'{word}'" for word in ("penstockctl", *words))
        said = subprocess.run(["bash", "-c", f"source {completion}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _penstockctl; echo ${{COMPREPLY[@]}}"],
                              capture_output=True, text=True, env={**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}", **variables})
        assert not said.stderr, said.stderr
        return said.stdout.split()
    return ask


def test_commands_and_options_are_completed(completed):
    assert completed("of") == ["offenders"]
    assert "status" in completed("") and "--version" in completed("")
    assert completed("status", "--js") == ["--json"]
    assert completed("dead", "re") == ["requeue"]
    assert completed("doc") == ["doctor"] and completed("purge", "--own") == ["--owner", "--owner-hash"]


def test_names_are_completed_by_asking_what_runs(completed, penstock, folder):
    service = penstock(workers=[simulate("draws", slots=1, failure_rate=1), simulate("writes", slots=1)], queue={"attempts": 1},
                       server="location /v1/ { penstock_pass gpu; }", yaml="state: state\n")
    here = {"PENSTOCK_SOCKET": str(service.penstockd.socket)}
    assert completed("pause", "", **here)[-1:] == ["default"] and completed("resume", "def", **here) == ["default"]
    assert completed("scale", "d", **here) == ["draws"] and {"draws", "writes"} <= set(completed("drain", "", **here))
    id = service.complete(model="draws", headers={"Prefer": "respond-async"}).json()["id"]
    until(lambda: completed("dead", "show", "job_", **here) == [id], "it is a dead letter, and offered")
    keys = {"PENSTOCK_KEYS": str(folder / "keys")}
    for owner in ("team-a", "team-b"):
        subprocess.run([BUILD / "penstockctl", "keys", "add", owner], check=True, capture_output=True, env={**os.environ, **keys})
    assert completed("keys", "revoke", "team", **keys) == ["team-a", "team-b"] and completed("keys", "re", **keys) == ["revoke"]
    assert completed("pause", "", PENSTOCK_SOCKET="/nowhere") == completed("pause", "--", PENSTOCK_SOCKET="/nowhere"), "nobody to ask"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes_as_bash_does(installed, folder):
    share = installed / f"{PREFIX[1:]}/share"
    environ = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}", "HOME": str(folder), "PS1": "> ",
               "PENSTOCK_COMPLETION": str(share / "bash-completion/completions/penstockctl")}
    shell = Terminal([shutil.which("zsh"), "-f", "-i"], environ)
    shell.type(f"unsetopt beep list_beep; fpath=({share}/zsh/vendor-completions $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy\n".encode())
    shell.read_until(b"ready")
    for typed, whole in ((b"penstockctl doc\t", b"penstockctl doctor"), (b"penstockctl status --js\t", b"penstockctl status --json"),
                         (b"penstockctl dead re\t", b"penstockctl dead requeue")):
        shell.output = b""
        shell.type(typed + b" x")
        shell.read_until(b"x")
        shown = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]|.\x08", b"", shell.output)
        assert whole in shown, shell.output
        shell.type(b"\x15")
    shell.type(b"exit\n")
    os.waitpid(shell.pid, 0)


def test_a_relative_prefix_is_refused(folder):
    said = script(BUILD, "opt", folder)
    assert said.returncode == 1 and "absolute path, not 'opt'" in said.stderr


def commands_of(chapter):
    text = (ROOT / "docs/INSTALL.md").read_text().split(f"## {chapter}")[1]
    return re.search(r"```sh\n(.*?)```", text, re.S)[1].splitlines()


def test_the_commands_of_the_chapter_are_those_that_are_tried():
    made = subprocess.run(["make", "-n", "-C", ROOT, "install", "uninstall", "PREFIX=/opt/a", "DESTDIR=/b"], capture_output=True, text=True).stdout
    assert re.search(r"scripts/install build /opt/a /b\n(.*\n)*scripts/install --remove /opt/a /b\n", made), made
    assert commands_of("From source") == ["make", "make install PREFIX=/usr/local", "make uninstall PREFIX=/usr/local"]
    systemd = re.search(r"```sh systemd\n(.*?)```", (ROOT / "docs/INSTALL.md").read_text(), re.S)[1]
    assert {f"lib/systemd/system/{unit}" for unit in re.findall(r"penstockd\.\w+", systemd)} <= set(WANTED)
    tried = (ROOT / "tests/packages/test_deb").read_text()
    steps = tried.split('step "five commands"')[1].split("\nstep")[0]
    for command in commands_of("From packages"):
        what = command.replace("./build/deb/", "/packages/").replace("apt-get", "apt-get -q -y").removesuffix("/v1/models")
        what = what.replace("curl -s http://127.0.0.1:8080", "curl -sf \"http://127.0.0.1:$port")
        assert what in steps, command


def test_the_commands_of_the_chapter_do_what_they_say(folder):
    """But for what `make` builds, which is there, and below a folder of the test's own."""
    made, *commands = commands_of("From source")
    assert made == "make"
    for command in commands:
        said = subprocess.run(f"{command} -o all BUILD={BUILD} DESTDIR={folder}", shell=True, cwd=ROOT, capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr
        assert ((folder / "usr/local/sbin/penstockd").exists(), (folder / "etc/penstock/penstock.yaml").exists()) == ("uninstall" not in command, True)
