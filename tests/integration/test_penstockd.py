"""penstockd as its operator meets it: checked, reloaded, drained, asked."""

import errno
import json
import os
import re
import signal
import socket
import subprocess

import pytest

from client import Client
from conftest import simulate
from processes import BUILD, Process, environment
from waiting import until
from wire import STATUS, TOOL, Connection, frame

PASS = "location / { penstock_pass gpu; }"


def check(folder, yaml):
    (folder / "p.yaml").write_text(yaml)
    done = subprocess.run([BUILD / "penstockd", "-t", "-c", folder / "p.yaml"], capture_output=True, text=True,
                          env=environment(folder))
    return done.returncode, done.stdout + done.stderr


def test_a_good_file_is_accepted(folder):
    assert check(folder, f"socket: {folder}/s\nworkers: [ {{ name: a, engine: simulate }} ]\n")[0] == 0


@pytest.mark.parametrize("program", ["penstockd", "penstock-worker", "penstockctl"])
@pytest.mark.parametrize("option", ["--version", "-V"])
def test_each_program_says_its_version_and_does_nothing_else(folder, program, option):
    done = subprocess.run([BUILD / program, option], capture_output=True, text=True, timeout=60, env=environment(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(program + r" \d+\.\d+\.\d+\n", done.stdout)


def test_status_says_the_version_too(penstock, folder):
    service = penstock(workers=[simulate()])
    version = subprocess.run([BUILD / "penstockd", "-V"], capture_output=True, text=True, env=environment(folder)).stdout.split()[1]
    shown = {}
    for arguments in ([], ["--json"]):
        shown[len(arguments)] = subprocess.run([BUILD / "penstockctl", "status", "-s", service.penstockd.socket, *arguments],
                                               capture_output=True, text=True, env=environment(folder)).stdout
    assert shown[0].startswith(f"penstockd is serving, version {version}, process ")
    assert json.loads(shown[1])["version"] == version


@pytest.mark.parametrize("secret,mode,message", [
    (None, 0o600, r"cannot be read: No such file"),
    ("\nsecret\n", 0o600, r"hook.secret:2: a secret is whsec_.*openssl rand"),
    ("\n", 0o600, r"has no secret; make one by"),
])
def test_a_check_opens_the_file_of_webhook_secrets(folder, secret, mode, message):
    if secret is not None:
        (folder / "hook.secret").write_text(secret)
        (folder / "hook.secret").chmod(mode)
    status, said = check(folder, f"socket: {folder}/s\nwebhooks:\n  secret_file: hook.secret\n")
    assert status == 1 and re.search(r"p.yaml:3: key 'webhooks.secret_file': .*" + message, said), said
    (folder / "hook.secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    assert check(folder, f"socket: {folder}/s\nwebhooks:\n  secret_file: hook.secret\n")[0] == 0


@pytest.mark.parametrize("yaml,message", [
    ("socket: /tmp/s\nworkers:\n  - { name: a, engine: simulate, slotz: 4 }\n", r"p.yaml:3: .*slotz.*'slots'"),
    ("socket: /tmp/s\nquues: {}\n", r"p.yaml:2: .*quues.*'queues'"),
    ("socket: /tmp/s\nworkers:\n  - { name: a, engine: warp }\n", r"p.yaml:3: .*engine"),
    ("socket: /tmp/s\nqueues:\n  default: { deadline: soon }\n", r"p.yaml:3: .*deadline"),
    ("workers: []\n", r"p.yaml:\d+: .*socket.*missing"),
    ("socket: [\n", r"p.yaml:\d+: .*not YAML"),
    ("socket: /tmp/s\nworkers:\n  - { name: a, engine: simulate, queue: defualt }\n", r"p.yaml:3: .*'default'"),
])
def test_a_mistake_is_told_with_file_line_and_key(folder, yaml, message):
    status, said = check(folder, yaml)
    assert status == 1
    assert re.search(message, said), said


def test_a_file_that_is_not_there_is_told(folder):
    done = subprocess.run([BUILD / "penstockd", "-c", folder / "nothing.yaml"], capture_output=True, text=True,
                          env=environment(folder))
    assert done.returncode == 1 and "nothing.yaml" in done.stderr + done.stdout


def test_hup_with_a_bad_file_keeps_serving_with_the_old_one(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=2)])
    good = service.penstockd.config.read_text()
    workers = service.penstockd.workers()
    service.penstockd.config.write_text(good + "nonsense: 1\n")
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: "nonsense" in service.penstockd.process.text(), "penstockd complains about the key")
    assert service.complete().status == 200
    assert service.penstockd.workers() == workers


def test_hup_adds_and_removes_workers(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=2)])
    kept = service.penstockd.workers()
    config = service.penstockd.config
    config.write_text(config.read_text().replace("workers:\n", "workers:\n  - { name: more, engine: simulate, slots: 3 }\n"))
    service.penstockd.process.signal(signal.SIGHUP)
    service.penstockd.wait_for(slots=5)
    assert kept[0] in service.penstockd.workers()
    assert service.complete(model="more").status == 200
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "name: sim" not in line) + "\n")
    service.penstockd.process.signal(signal.SIGHUP)
    service.penstockd.wait_for(slots=3)
    until(lambda: kept[0] not in service.penstockd.workers(), "the old worker is gone")
    assert service.complete(model="sim").status == 404


def test_term_lets_running_jobs_end_and_takes_no_more(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=1, service_time="1500ms")])
    client = Client(service.port)
    client._connection.request("POST", "/v1/completions", '{"model":"sim","prompt":"a"}')
    service.penstockd.wait_for(running=1)
    service.penstockd.process.signal(signal.SIGTERM)
    until(lambda: service.complete().status == 503, "new requests are refused", seconds=1.2)
    answer = client._connection.getresponse()
    assert answer.status == 200 and answer.read()
    client.close()
    assert service.penstockd.process.wait() == 0
    assert not service.penstockd.socket.exists()


def test_whoever_reads_its_log_may_go(folder):
    (folder / "p.yaml").write_text(f"socket: {folder}/s\nworkers: []\n")
    reader, writer = os.pipe()
    process = subprocess.Popen([BUILD / "penstockd", "-c", folder / "p.yaml"], stderr=writer, env=environment(folder))
    os.close(writer)
    with os.fdopen(reader) as log:
        assert any("ready on" in line for line in log)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_nobody_is_heard_before_what_was_promised_is_read(penstock, folder):
    service = penstock(workers=[simulate()], yaml="state: state\n")
    daemon, secret = service.penstockd, service.folder / "state" / "secret"
    assert daemon.stop() == 0
    kept = secret.read_bytes()
    secret.unlink()
    os.mkfifo(secret)
    daemon.process = Process(folder, "again", [BUILD / "penstockd", "-c", daemon.config])

    def reader():
        assert daemon.process.alive(), daemon.process.text()
        try:
            return os.open(secret, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody has it open
            return None

    with os.fdopen(until(reader, "penstockd reads its secret"), "wb") as secret_file:
        with socket.socket(socket.AF_UNIX) as caller:
            assert caller.connect_ex(str(daemon.socket)) in (errno.ENOENT, errno.ECONNREFUSED)
        secret_file.write(kept)
    daemon.wait_for(slots=1)
    Connection(daemon.socket, role=TOOL).close()


def test_a_second_penstockd_on_the_same_socket_is_refused(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    done = subprocess.run([BUILD / "penstockd", "-c", service.penstockd.config], capture_output=True, text=True,
                          env=environment(service.folder), timeout=20)
    assert done.returncode == 1 and str(service.penstockd.socket) in done.stderr + done.stdout
    assert service.complete().status == 200


def test_status_is_told_as_json_over_the_wire_and_by_penstockctl(penstock):
    service = penstock(server=PASS, workers=[simulate(slots=2)])
    service.complete()
    status = json.loads(service.penstockd.status())
    assert any(queue["name"] == "default" for queue in status["queues"])
    assert any(worker["name"] == "sim" for worker in status["workers"])
    tool = subprocess.run([BUILD / "penstockctl", "status", "--json", "-s", service.penstockd.socket],
                          capture_output=True, text=True, env=environment(service.folder))
    assert tool.returncode == 0, tool.stderr
    assert json.loads(tool.stdout).keys() == status.keys()
    table = subprocess.run([BUILD / "penstockctl", "status", "-c", service.penstockd.config], capture_output=True,
                           text=True, env=environment(service.folder))
    assert table.returncode == 0 and "default" in table.stdout and "sim" in table.stdout


def test_penstockctl_fails_with_1_and_is_misused_with_2(folder):
    def status_of(*arguments):
        return subprocess.run([BUILD / "penstockctl", *arguments], capture_output=True, env=environment(folder)).returncode
    assert status_of("status", "-s", folder / "nobody") == 1
    assert status_of("--no-such-option") == 2


def test_many_idle_connections_are_kept_while_others_are_served(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    idle = [Connection(service.penstockd.socket, role=TOOL) for _ in range(200)]
    assert service.complete().status == 200
    idle[-1].send(frame(STATUS))
    assert idle[-1].receive()[0] == STATUS
    for connection in idle:
        connection.close()


def test_nobody_else_may_open_the_socket(penstock):
    service = penstock(server=PASS, workers=[simulate()])
    assert os.stat(service.penstockd.socket).st_mode & 0o777 == 0o660
