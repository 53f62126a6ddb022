"""penstock.yaml in several files, with what the environment says; what -t finds missing; what a reload would change."""

import json
import os
import pwd
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import simulate
from processes import BUILD, environment
from waiting import until


def penstockd(folder, *arguments, **variables):
    done = subprocess.run([BUILD / "penstockd", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          env={**environment(folder), **variables})
    return done.returncode, done.stdout + done.stderr


def ctl(folder, *arguments, cwd=None, **variables):
    return subprocess.run([BUILD / "penstockctl", *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=cwd,
                          env={**environment(folder), **variables})


def test_a_reload_reads_included_files_and_the_environment(penstock, folder):
    service = penstock(workers=[simulate()])
    daemon = service.penstockd
    (daemon.folder / "conf.d").mkdir()
    daemon.config.write_text(daemon.config.read_text() + "\ninclude: conf.d/*.yaml\n")
    (daemon.folder / "conf.d" / "more.yaml").write_text("queues: { extra: { attempts: 4 } }\n")
    shown = penstockd(folder, "-T", "-c", daemon.config)[1]
    assert f"# {daemon.folder}/conf.d/more.yaml\n" in shown and "queues.extra.attempts: 4\n" in shown
    changes = ctl(folder, "diff", "-s", daemon.socket)
    assert changes.returncode == 0 and "queues.extra.attempts: 4 (new)\n" in changes.stdout, changes
    assert f"a reload (HUP) brings {daemon.config} into force" in changes.stdout
    daemon.process.signal(signal.SIGHUP)
    until(lambda: "reloaded" in daemon.process.text(), "it has reloaded")
    assert "changed: queues.extra.attempts: 4 (new)" in daemon.process.text()
    assert ctl(folder, "diff", "-s", daemon.socket).stdout == f"{daemon.config} is what runs\n"
    (daemon.folder / "conf.d" / "more.yaml").write_text("\nqueues: { extra: { atempts: 4 } }\n")
    wrong = ctl(folder, "diff", "-s", daemon.socket)
    assert wrong.returncode == 1 and "a reload would be refused" in wrong.stderr and "conf.d/more.yaml:2: key 'queues.extra.atempts'" in wrong.stderr


def test_the_environment_is_put_in_and_shown(folder):
    (folder / "p.yaml").write_text("socket: ${RUNTIME}/s\nstate: ${STATE:-jobs}\n")
    code, shown = penstockd(folder, "-T", "-c", folder / "p.yaml", RUNTIME=str(folder))
    assert code == 0 and f"socket: {folder}/s  # ${{RUNTIME}}/s\n" in shown and "state: jobs  # ${STATE:-jobs}\n" in shown
    code, said = penstockd(folder, "-t", "-c", folder / "p.yaml")
    assert code == 1 and "p.yaml:1: key 'socket': the environment has no RUNTIME" in said


def test_a_secrets_path_may_be_of_the_environment(folder):
    """As with systemd's LoadCredential=; whatever names a file."""
    (folder / "credentials").mkdir()
    for name, text in (("hook", "whsec_" + "A" * 40), ("redis", "password"), ("chat", "key"), ("turnstile", "secret"), ("api", "key"), ("s3", "a:b")):
        (folder / "credentials" / name).write_text(text + "\n")
        (folder / "credentials" / name).chmod(0o600)
    keys = {"webhooks.secret_file": "hook", "redis.password_file": "redis", "notify[0].key_file": "chat",
            "challenges.turnstile.secret_file": "turnstile", "workers.api.key_file": "api", "results.key_file": "s3"}
    path = {key: f"${{CREDENTIALS_DIRECTORY}}/{name}" for key, name in keys.items()}
    (folder / "p.yaml").write_text(f"""socket: {folder}/s
state: {folder}/state
webhooks: {{ secret_file: "{path['webhooks.secret_file']}" }}
redis: {{ url: "redis://127.0.0.1:1/0", password_file: "{path['redis.password_file']}" }}
results: {{ s3: "https://s3.example", bucket: b, region: r, key_file: "{path['results.key_file']}" }}
notify: [ {{ name: chat, on: [dead], url: "https://chat.example/", key_file: "{path['notify[0].key_file']}" }} ]
challenges: {{ turnstile: {{ secret_file: "{path['challenges.turnstile.secret_file']}", hostnames: [example.com] }} }}
workers: [ {{ name: api, engine: http, url: "https://api.example", model: m, key_file: "{path['workers.api.key_file']}" }} ]
""")
    code, shown = penstockd(folder, "-T", "-c", folder / "p.yaml", CREDENTIALS_DIRECTORY=f"{folder}/credentials")
    assert code == 0, shown
    for key, written in path.items():
        assert re.search(rf"^{re.escape(key)}: .*{keys[key]}  # {re.escape(written)}$", shown, re.M), (key, shown)
    code, said = penstockd(folder, "-t", "-c", folder / "p.yaml", CREDENTIALS_DIRECTORY=f"{folder}/nowhere")
    assert code == 1 and f"{folder}/nowhere/hook cannot be read" in said
    code, said = penstockd(folder, "-t", "-c", folder / "p.yaml")
    assert code == 1 and "the environment has no CREDENTIALS_DIRECTORY" in said


def test_the_secret_of_an_external_worker_is_its_users_own(folder):
    def said(more):
        (folder / "p.yaml").write_text(f"""socket: {folder}/s
workers: [ {{ name: api, engine: http, url: "https://api.example", model: m, key_file: "{folder}/none"{more} }} ]
""")
        return penstockd(folder, "-t", "-c", folder / "p.yaml")[1]
    assert "workers.api.key_file" in said("")
    assert "workers.api.key_file" not in said(", external: true")


def test_the_shipped_file_takes_what_lies_in_conf_d(penstock, folder):
    """Its line for includes, without the #; and a file there, changed while it runs."""
    shipped = (Path(__file__).parents[2] / "config" / "penstock.yaml").read_text()
    assert "\n# include: conf.d/*.yaml\n" in shipped
    service = penstock(start=False, workers=[])
    here = service.penstockd.folder
    (here / "hook").write_text("whsec_" + "A" * 40 + "\n")
    (here / "hook").chmod(0o600)
    for old, new in (("# include: ", "include: "), ("socket: /run/penstock/penstock.sock", f"socket: {service.penstockd.socket}"),
                     ("socket_group: www-data", ""), ("state: /var/lib/penstock", "state: state"), ("secret_file: /etc/penstock/webhook.secret", "secret_file: hook")):
        assert old in shipped
        shipped = shipped.replace(old, new)
    before, workers = shipped.split("\nworkers:\n")
    service.penstockd.config.write_text(before + f"\nworker_binary: {BUILD}/penstock-worker\n" + workers[workers.index("\nlimits:"):])
    (here / "conf.d").mkdir()
    (here / "conf.d" / "10-sim.yaml").write_text("workers: [ { name: sim, engine: simulate, slots: 3 } ]\n")
    service.penstockd.start()
    service.penstockd.wait_for(slots=3)
    (here / "conf.d" / "20-more.yaml").write_text("queues: { night: { keep_results: 7d } }\n")
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "changed: queues.night.keep_results: 7d (new)" in service.penstockd.process.text(), "it is in force")


def test_two_files_are_compared(folder):
    (folder / "a.yaml").write_text("socket: /s\n")
    (folder / "b.yaml").write_text("socket: /s\nlimits: { max_body: 1MiB }\n")
    compared = ctl(folder, "diff", folder / "a.yaml", folder / "b.yaml")
    assert (compared.returncode, compared.stdout) == (0, "limits.max_body: 1MiB (was 32MiB)\n")
    assert ctl(folder, "diff", folder / "a.yaml").returncode == 2


def needs(folder, text, starts=True):
    """What -t finds besides mistakes."""
    (folder / "p.yaml").write_text(text)
    code, said = penstockd(folder, "-t", "-c", folder / "p.yaml")
    assert code == (0 if starts else 1) and "configuration is good" in said, said
    assert ("but penstockd would not start" in said) != starts, said
    return said


def test_a_check_says_what_is_missing_what_it_is_and_what_would_be_right(folder):
    run, models = folder / "run", folder / "models"
    text = f"""socket: {run}/s
state: {folder}/state
webhooks: {{ secret_file: {folder}/hook }}
workers:
  - {{ name: a, engine: llama, model: {models}/a }}
limits: {{ max_connections: 1000000 }}
"""
    (folder / "hook").write_text("whsec_" + "A" * 40 + "\n")
    (folder / "hook").chmod(0o644)
    said = needs(folder, text)
    assert f"bad: socket: {run} is not there; systemd-tmpfiles --create makes it; else: mkdir -m 0755 {run}" in said
    assert f"bad: workers.a: {models}/a is not there; put the model's folder there" in said
    assert f"warn: webhooks.secret_file: {folder}/hook has mode 0644" in said and f"chmod 0640 {folder}/hook" in said
    assert re.search(r"warn: limits.max_connections: 1000000 connections need 1000512 descriptors, .*LimitNOFILE=1000512", said)
    assert "state" not in re.sub(r"^p.yaml.*", "", said, flags=re.M), "it is made at the first start"
    run.mkdir(mode=0o755)
    (models / "a").mkdir(parents=True)
    (folder / "hook").chmod(0o640)
    (models / "a" / "config.json").write_text("{}")
    state = folder / "state"
    state.mkdir()
    state.chmod(0o755)
    (state / "secret").touch()
    (state / "secret").chmod(0o644)
    said = needs(folder, text)
    assert "socket" not in said.splitlines()[0] and "hook" not in said
    assert f"bad: workers.a: {models}/a/tokenizer.json is not there" in said and "has no weights" in said
    assert f"warn: state: {state} has mode 0755: everybody may look into it; chmod 0750 {state}" in said
    assert f"bad: state: {state}/secret has mode 0644: others may open it; chmod 0600 {state}/secret" in said
    run.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    assert f"bad: socket: {run} may be written by everybody" in needs(folder, text)
    (run / "s").write_text("")
    assert f"bad: socket: {run}/s is there and is no socket" in needs(folder, text, starts=False)


def test_a_check_finds_no_fault_where_there_is_none(folder):
    text = f"socket: {folder}/s\nworkers: [ {{ name: a, engine: simulate }} ]\nlimits: {{ max_connections: 10 }}\n"
    assert needs(folder, text) == f"{folder}/p.yaml: configuration is good\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write where it may not")
def test_a_check_as_another_user_says_what_that_user_may_not(folder):
    folder.chmod(0o755)
    for above in folder.parents:
        if above.stat().st_mode & 0o001 == 0:
            pytest.skip(f"{above} is closed to others")
    (folder / "p.yaml").write_text(f"socket: {folder}/s\nlimits: {{ max_connections: 10 }}\n")
    done = subprocess.run([BUILD / "penstockd", "-t", "-c", folder / "p.yaml"], capture_output=True, text=True, user="nobody", env=environment(folder))
    assert f"warn: socket: {folder} may not be written to by nobody; chown it to penstockd's user" in done.stderr
    assert done.returncode == 0, "another one's start may be fine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write where it may not")
@pytest.mark.parametrize("shut, says", [("state", "state may not be written to by nobody; chmod u+rwx"), ("lock", "state/lock may not be written to by nobody"),
                                        ("run", "run may not be written to by nobody; chmod u+rwx"), ("file", "state is no folder")])
def test_what_ends_a_start_for_sure_ends_the_check_with_1(folder, shut, says):
    """The folders are nobody's, so nobody is penstockd's user; root, whom nothing stops, is told of what is no folder alone."""
    folder.chmod(0o755)
    if any(above.stat().st_mode & 0o001 == 0 for above in folder.parents):
        pytest.skip("a folder above is closed to others")
    nobody = pwd.getpwnam("nobody")
    run, state = folder / "run", folder / "state"
    for each in run, state:
        each.mkdir(mode=0o750)
        os.chown(each, nobody.pw_uid, nobody.pw_gid)
    (folder / "p.yaml").write_text(f"socket: {run}/s\nstate: {state}\nlimits: {{ max_connections: 10 }}\n")

    def called(user, *words):
        return subprocess.run([BUILD / "penstockd", *words, "-c", folder / "p.yaml"], capture_output=True, text=True, timeout=30, user=user,
                              group=nobody.pw_gid if user else None, extra_groups=[] if user else None, env=environment(folder))
    fine = called("nobody", "-t")
    assert fine.returncode == 0 and "bad:" not in fine.stderr, fine
    if shut == "lock":
        (state / "lock").touch(mode=0o600)  # as root started it once
    elif shut == "file":
        state.rmdir()
        state.touch()
    else:
        (folder / shut).chmod(0o550)
    done = called("nobody", "-t")
    assert done.returncode == 1 and "bad: " in done.stderr and f"{folder}/{says}" in done.stderr and "would not start" in done.stderr, done
    assert called(None, "-t").returncode == (1 if shut == "file" else 0)
    if shut == "state":
        assert called("daemon", "-t").returncode == 0, "whose folder it is not, and who is not named so"
    assert called("nobody").returncode == 1, "it does not start, as was said"


def test_whom_nobody_knows_may_not_be_named_and_ends_a_start(folder):
    said = needs(folder, f"socket: {folder}/s\nsocket_group: no-such\nlimits: {{ max_connections: 10 }}\n", starts=False)
    assert "bad: socket: there is no group no-such" in said and "access" not in said
    (folder / "p.yaml").write_text(f"socket: {folder}/s\naccess: {{ viewers: [no-such] }}\n")
    code, said = penstockd(folder, "-t", "-c", folder / "p.yaml")
    assert code == 1 and "p.yaml:2: key 'access.viewers': there is no user and no group 'no-such'" in said


def test_status_says_since_when_a_worker_is_ready_and_no_error_that_is_over(penstock, folder):
    service = penstock(workers=[simulate()])
    worker = lambda: json.loads(service.penstockd.status())["workers"][0]  # noqa: E731
    until(lambda: worker()["state"] == "ready", "it is ready")
    assert worker()["ready_seconds"] is not None and worker()["last_error"] is None
    os.kill(worker()["pid"], signal.SIGKILL)
    until(lambda: worker()["restarts"] == 1 and worker()["state"] == "ready", "it is ready again")
    assert "signal 9" in worker()["last_error"] or "killed" in worker()["last_error"].lower()
    (line,) = [line for line in ctl(folder, "status", "-s", service.penstockd.socket).stdout.splitlines() if line.startswith(worker()["name"] + " ")]
    assert re.search(r"ready for \d+ s", line) and line.rstrip().endswith(" -")


def test_penstockctl_finds_what_make_run_has_started(penstock, folder):
    service = penstock(workers=[simulate()])
    run = folder / "checkout" / "run" / "8080"
    run.mkdir(parents=True)
    (run / "penstock.yaml").write_text(f"socket: {service.penstockd.socket}\n")
    if os.path.exists("/run/penstock/penstock.sock"):
        pytest.skip("a penstockd is installed and runs here")
    for cwd in (folder / "checkout", run.parent):
        assert "penstockd is serving" in ctl(folder, "status", cwd=cwd).stdout


def test_the_chapters_file_is_accepted_with_what_it_includes(folder):
    chapter = (Path(__file__).parents[2] / "docs" / "OPERATING.md").read_text()
    (block,) = re.findall(r"^```yaml include\n(.*?)^```", chapter, re.M | re.S)
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "a.yaml").write_text("queues: { more: {} }\n")
    (folder / "p.yaml").write_text(block)
    code, said = penstockd(folder, "-T", "-c", folder / "p.yaml", RUNTIME_DIRECTORY=str(folder))
    assert code == 0 and f"socket: {folder}/penstock.sock  # " in said and "queues.more.attempts" in said
