"""Alerts of what is not as it was told: keys that cannot be read, devices that nobody looks at, waits and promises that did not hold."""

import contextlib
import sqlite3

import pytest

from conftest import simulate
from monitoring import Monitoring
from test_alerts import SECRET
from test_devices import GPU, gpus  # noqa: F401 (a fixture)
from test_keys import Keys
from test_operator import ctl, said  # noqa: F401 (fixtures)
from waiting import until

HTTP = "penstock_keys {keys};\npenstock_owner $http_authorization;\n"
SERVER = """\
location /v1/ { penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
location = /metrics { penstock_metrics gpu; }
"""


@pytest.fixture
def keys(folder):
    return Keys(folder / "keys")


@pytest.fixture
def service(penstock, gpus, keys):  # noqa: F811
    keys.add("team-a")
    service = penstock(start=False, workers=[simulate(slots=1, service_time="30ms")], http=HTTP.format(keys=keys.path), server=SERVER,
                       yaml="state: state\n")
    return service.start()


@pytest.fixture
def watch(service):
    monitoring = Monitoring(service.folder, service.port)
    yield monitoring
    monitoring.close()


def promise(service):
    reply = service.complete(headers={"Authorization": "a", "Prefer": "respond-async"})
    assert reply.status == 202, reply.body
    return reply.json()["id"]


# ---- alerts, end to end


def test_a_secret_that_cannot_be_read_is_told_of_until_it_can(penstock):
    service = penstock(start=False, workers=[simulate()], server=SERVER, yaml="state: state\nwebhooks: { secret_file: webhook.secret }\n")
    secret = service.folder / "webhook.secret"

    def put_there():
        secret.write_text(SECRET)
        secret.chmod(0o600)
    put_there()
    service.start()
    with contextlib.closing(Monitoring(service.folder, service.port)) as watch:
        until(lambda: watch.query("penstock_unreadable_files"), "the stack is seen")
        secret.unlink()
        watch.until_fire("PenstockSecretUnreadable")
        put_there()
        watch.until_over("PenstockSecretUnreadable")
    told = [line.partition("] ")[2] for line in service.penstockd.process.text().splitlines() if str(secret) in line]
    assert told == [f"webhooks.secret_file: {secret} cannot be read: No such file or directory; a reload or start would fail",
                    f"{secret} can be read again, or is named no more"], "once each"


def test_keys_that_cannot_be_read_are_told_of_until_they_can(service, keys, watch):
    until(lambda: watch.query("penstock_keys_unreadable"), "the stack is seen")
    good = keys.path.read_bytes()
    keys.path.write_text("no key\n")
    watch.until_fire("PenstockKeysUnreadable")
    keys.path.write_bytes(good)
    watch.until_over("PenstockKeysUnreadable")


def test_a_driver_that_tells_nothing_any_more_is_told_of(service, gpus, watch):  # noqa: F811
    until(lambda: any(value == 1 for _, value in watch.query("penstock_devices_watched")), "the device is looked at")
    gpus.answer(GPU, crash="nvmlDeviceGetTemperature")
    watch.until_fire("PenstockDevicesUnwatched")
    gpus.answer(GPU)
    watch.until_over("PenstockDevicesUnwatched")


def test_waits_and_promises_that_do_not_hold_are_told_of(service, said, watch):  # noqa: F811
    def longest():
        return max((value for _, value in watch.query("penstock_queue_oldest_wait_seconds")), default=0)
    for _ in range(250):  # each is told when it will start
        promise(service)
    said(service, "pause", "default")
    until(lambda: longest() > 6, "they wait for longer than that")
    said(service, "resume", "default")
    watch.until_fire("PenstockPredictionsOff")
    watch.until_over("PenstockPredictionsOff")

    daemon = service.penstockd
    said(service, "pause", "default")
    id = promise(service)
    daemon.kill()
    with contextlib.closing(sqlite3.connect(service.folder / "state" / "jobs.db", isolation_level=None)) as db:
        assert db.execute("UPDATE jobs SET digest=x'00' WHERE seq=(SELECT max(seq) FROM jobs)").rowcount == 1
    daemon.start()
    watch.until_fire("PenstockPromisesLost")
    assert service.get(f"/jobs/{id}", Authorization="a").json()["status"] == "failed"
    daemon.expect_death = False
    assert daemon.stop() == 0
    daemon.start()
    watch.until_over("PenstockPromisesLost")
