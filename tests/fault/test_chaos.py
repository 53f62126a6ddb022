"""The chaos cells that public comparisons of job queues try (hardbyte/postgresql-job-queue-benchmarking): who puts jobs in, who runs them,
and what keeps them is killed, once and again; its connections are cut, or run out; more comes in than can be done, for long. Each on one
host, and on two hosts that share a queue in Redis. docs/MEASURED.md has the table.

In all of them: what was promised is done, by a run that was logged, and a result is one result.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
import planted  # noqa: E402
from line import Line, Refused  # noqa: E402
from processes import BUILD, children, environment, sanitizer_reports  # noqa: E402
from redis_server import RedisError, RedisServer  # noqa: E402
from storm import left_over  # noqa: E402

SLOTS = 8
OWNER = "Bearer sk-of-a-chaos"  # which no log may show
CONFIG = """\
socket: {folder}/p.sock
state: {folder}/state
worker_binary: {build}/penstock-worker
limits: {{ max_connections: {connections} }}
{redis}
queues:
  default: {{ max_length: 100, attempts: 50, backoff: 10ms{shared} }}
workers: [{worker}]
"""
WORKER = "{{ name: w{n}, engine: simulate, service_time: 5ms, slots: 4, run_log: {runs} }}"
PRODUCER = """\
import asyncio, itertools, sys
sys.path[:0] = {path!r}
from line import Line, Refused
async def main():
    line = await Line.open(sys.argv[1])
    for number in itertools.count():
        key, id = sys.argv[2] + "-" + str(number), None
        while id is None:
            try:
                id = await line.promise("producer", key)
            except Refused:
                await asyncio.sleep(0.05)
        print(key, id, flush=True)
asyncio.run(main())
"""


class Daemon:
    def __init__(self, folder, **config):
        folder.mkdir()
        folder.chmod(0o755)
        self.folder, self.socket = folder, folder / "p.sock"
        (folder / "p.yaml").write_text(CONFIG.format(folder=folder, build=BUILD, **config))
        self.start()

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([BUILD / "penstockd", "-c", self.folder / "p.yaml"], stdout=log, stderr=log,
                                            env=environment(self.folder))

    def workers(self):
        return children(self.process.pid)

    def rss(self):
        return int((Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])) * os.sysconf("SC_PAGE_SIZE")

    def crash(self):
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(40) == 0


class Place:
    """`front` takes jobs in, `back` runs them; on one host that is one penstockd."""

    def __init__(self, folder, shared, connections):
        self.folder, self.runs_file, self.redis = folder, folder / "runs", None
        self.refused = 0
        workers = ", ".join(WORKER.format(n=n, runs=self.runs_file) for n in range(2))
        if shared:
            self.redis = RedisServer("--appendonly", "yes", "--appendfsync", "always")
            more = {"redis": f'redis: {{ url: "unix:{self.redis.socket}" }}', "shared": ", shared: true"}
            self.front = Daemon(folder / "front", worker="", connections=connections, **more)
            self.back = Daemon(folder / "back", worker=workers, connections=connections, **more)
        else:
            self.front = self.back = Daemon(folder / "one", worker=workers, connections=connections, redis="", shared="")
        self.daemons = [self.front] if self.front is self.back else [self.front, self.back]

    async def line(self):
        while True:
            with contextlib.suppress(OSError):
                return await Line.open(self.front.socket)
            await asyncio.sleep(0.02)

    async def promise(self, line, key):
        """(the line it came over in the end, the job's id), however often it takes."""
        while True:
            try:
                return line, await line.promise(OWNER, key)
            except (OSError, EOFError):
                line.close()
                line = await self.line()
            except Refused as refused:
                assert refused.status == 503 and refused.retry_after_s >= 1, refused
                self.refused += 1
                await asyncio.sleep(0.05)

    async def promise_all(self, keys, clients=8):
        """{key: id}"""
        keys, ids = iter(keys), {}

        async def client():
            line = await self.line()
            for key in keys:
                line, ids[key] = await self.promise(line, key)
            line.close()
        await asyncio.gather(*(client() for _ in range(clients)))
        return ids

    async def check(self, ids, owner=OWNER, seconds=60):
        """All of them complete, each with the result of a run of its own."""
        line, end = await self.line(), time.monotonic() + seconds
        for key, id in ids.items():
            while True:
                try:
                    status, job = await line.ask(owner, f"/{id}")
                except (OSError, EOFError):
                    line = await self.line()
                    continue
                if status == 200 and json.loads(job)["status"] == "completed":
                    break
                assert status in (200, 503) and time.monotonic() < end, f"{key} {id}: {status} {job}"
                await asyncio.sleep(0.05)
            status, result = await line.ask(owner, f"/{id}/result")
            assert status == 200 and json.loads(result)["run"] in self.runs()[key], (key, result)
        line.close()

    def runs(self):
        found = {}
        for line in self.runs_file.read_text().splitlines():
            run, key = line.split(" ", 1)
            found.setdefault(key, set()).add(run)
        return found

    def stop(self):
        try:
            for daemon in self.daemons:
                daemon.stop()
        finally:
            if self.redis:
                self.redis.close()


@pytest.fixture(params=["one host", "shared"])
def place(request):
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    folder.chmod(0o755)
    made = []

    def build(connections=200):
        made.append(Place(folder, request.param == "shared", connections))
        return made[-1]

    yield build
    for one in made:
        one.stop()
    assert not left_over(folder)
    reports = [report for one in made for daemon in one.daemons for report in sanitizer_reports(daemon.folder)] + planted.shown_in(folder)
    planted.forget()
    assert not reports, "\n".join(reports)
    shutil.rmtree(folder)


OVER_HOSTS = pytest.mark.parametrize("place", ["shared"], indirect=True)


def keys(count, name="job"):
    return [f"{name}-{number}" for number in range(count)]


def until_turned_away(connection):
    connection.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1 << 16):
            pass


def test_producers_are_killed(place):
    """What they heard promised is done; what they had not, is whole or is not."""
    it, rng, heard = place(), random.Random(1), {}
    asyncio.run(it.promise_all(keys(1, "first")))  # it is open
    script = PRODUCER.format(path=[str(HERE), str(HERE.parent / "integration")])
    for number in range(8):
        producer = subprocess.Popen([sys.executable, "-c", script, str(it.front.socket), f"p{number}"], stdout=subprocess.PIPE, text=True)
        for _ in range(rng.randrange(1, 40)):
            key, id = producer.stdout.readline().split()
            heard[key] = id
        producer.kill()
        for line in producer.communicate()[0].splitlines():
            with contextlib.suppress(ValueError):
                key, id = line.split()
                heard[key] = id
    asyncio.run(it.check(heard, "producer"))
    whole = {f"p{number}-{count}" for number in range(8) for count in range(1000)}
    assert set(it.runs()) - {"first-0"} <= whole


def test_consumers_are_killed(place):
    it, rng = place(), random.Random(2)

    async def storm():
        work = asyncio.ensure_future(it.promise_all(keys(400)))
        for _ in range(12):
            await asyncio.sleep(0.05)
            if workers := it.back.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
        await it.check(await work)
    asyncio.run(storm())


@pytest.mark.parametrize("side", ["front", "back"])
def test_the_daemon_is_killed(place, side):
    it = place()

    async def storm():
        work = asyncio.ensure_future(it.promise_all(keys(400)))
        for _ in range(6):
            await asyncio.sleep(0.1)
            getattr(it, side).crash()
        await it.check(await work)
    asyncio.run(storm())


@OVER_HOSTS
def test_what_keeps_the_jobs_is_killed(place):
    """On one host that is the daemon, which the test before this one kills."""
    it = place()

    async def storm():
        work = asyncio.ensure_future(it.promise_all(keys(400)))
        for _ in range(4):
            await asyncio.sleep(0.2)
            it.redis.kill()
            it.redis.start()
        await it.check(await work)
    asyncio.run(storm())


@OVER_HOSTS
def test_the_connections_to_what_keeps_the_jobs_are_cut(place):
    it = place()

    async def storm():
        work = asyncio.ensure_future(it.promise_all(keys(400)))
        for _ in range(6):
            await asyncio.sleep(0.1)
            for kind in ("normal", "pubsub"):
                it.redis.ask("CLIENT", "KILL", "TYPE", kind)
        await it.check(await work)
    asyncio.run(storm())


def test_connections_run_out(place):
    """Those who are in go on, who is too many is turned away, and when there is room again they are let in."""
    it = place(connections=12)

    async def crowd():
        line = await it.line()
        line, first = await it.promise(line, "before")
        held = []
        for _ in range(40):
            one = socket.socket(socket.AF_UNIX)
            one.connect(str(it.front.socket))
            held.append(one)
        ids = {"before": first}
        for key in keys(20, "meanwhile"):
            ids[key] = await line.promise(OWNER, key)
        await asyncio.to_thread(until_turned_away, held[-1])
        for one in held:
            one.close()
        ids |= await it.promise_all(keys(50, "after"))
        await it.check(ids)
        line.close()
    asyncio.run(crowd())


@OVER_HOSTS
def test_redis_has_no_connection_left(place):
    it = place()

    async def crowd():
        ids = await it.promise_all(keys(20, "before"))
        it.redis.ask("CONFIG", "SET", "maxclients", 16)
        it.front.process.kill()
        it.front.process.wait()
        held = []
        for _ in range(3):  # what the dead one had is noticed as free in a turn of Redis's loop
            with contextlib.suppress(RedisError, OSError):
                while True:
                    one = it.redis.connect()
                    one("PING")
                    held.append(one)
        it.front.start()  # it must connect anew, and cannot
        line = await it.line()
        with pytest.raises(Refused) as refused:
            await line.promise(OWNER, "meanwhile")
        assert refused.value.status == 503
        for one in held:
            one.close()
        ids |= await it.promise_all(keys(20, "after"))
        await it.check(ids)
    asyncio.run(crowd())


def test_more_comes_than_can_be_done(place):
    """For many times what the queue holds: who is too many hears 503 and when to come back, and nothing grows."""
    it = place()

    async def pressure():
        ids, sizes = {}, []
        for round_ in range(4):
            ids |= await it.promise_all(keys(500, f"round{round_}"), clients=32)
            sizes.append([daemon.rss() for daemon in it.daemons])
        await it.check(ids)
        assert it.refused > 0
        return sizes
    sizes = asyncio.run(pressure())
    for before, after in zip(sizes[0], sizes[-1]):
        assert after <= before + (8 << 20), sizes
