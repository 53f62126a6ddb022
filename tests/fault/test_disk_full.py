"""A disk without room: promises are refused, loudly, and nothing else ends; with room again, they are made again.

The kernel's limit on the size of files (RLIMIT_FSIZE) makes writes fail as a full disk does, for this one process, and can be lifted
while it runs. It leaves room for penstockd's log.
"""

import asyncio
import contextlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
import planted  # noqa: E402
from line import Line, Refused  # noqa: E402
from processes import BUILD, environment, sanitizer_reports  # noqa: E402

FEW_BYTES = 96 << 10
OWNER = "Bearer sk-of-a-full-disk"  # which no log may show
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

CONFIG = """\
socket: {folder}/p.sock
state: {folder}/state
worker_binary: {build}/penstock-worker
limits: {{ max_state: {max_state}, max_state_per_owner: {max_state}, reserve: 1MiB }}
queues:
  default: {{ max_length: 100000 }}
  held: {{ max_length: 100000 }}
workers:
  - {{ name: sim, engine: simulate, service_time: 0ms, slots: 4 }}
  - {{ name: held, engine: simulate, service_time: 1h, slots: 1, queue: held }}
"""


class Daemon:
    def __init__(self, folder, max_state="1GiB"):
        self.folder = Path(folder)
        self.configure(max_state)
        self.log = self.folder / "log"
        self.start()

    def configure(self, max_state):
        (self.folder / "p.yaml").write_text(CONFIG.format(folder=self.folder, build=BUILD, max_state=max_state))

    def start(self):
        with open(self.log, "ab") as log:
            # A full disk sends no signal: SIGXFSZ, which Python ignores, stays so.
            self.process = subprocess.Popen([BUILD / "penstockd", "-c", self.folder / "p.yaml"], stdout=log, stderr=log,
                                            restore_signals=False, env=environment(self.folder))

    def limit(self, bytes_):
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, bytes_)

    async def line(self):
        return await eventually(lambda: Line.open(self.folder / "p.sock"))

    def kill(self):
        self.process.kill()
        self.process.wait()


async def eventually(attempt, seconds=30):
    """What `attempt` returns, once it neither raises nor returns None."""
    end = time.monotonic() + seconds
    while True:
        try:
            if (value := await attempt()) is not None:
                return value
        except (OSError, Refused):
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.05)


@pytest.fixture
def daemon():
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="penstock-", dir="/tmp")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)

        def start(**options):
            started = Daemon(folder, **options)
            stack.callback(started.kill)
            return started
        yield start
        faults = sanitizer_reports(Path(folder)) + planted.shown_in(Path(folder))
        planted.forget()
        assert not faults, "\n".join(faults)


async def promise_until_refused(line, most, **options):
    """(ids that were promised, the refusal)."""
    promised = []
    for number in range(most):
        try:
            promised.append(await line.promise(OWNER, f"job {number}", **options))
        except Refused as refused:
            return promised, refused
    raise AssertionError(f"{most} promises were given where there was no room for them")


async def all_completed(line, ids):
    async def completed():
        answers = [await line.ask(OWNER, f"/{id}") for id in ids]
        return True if all(status == 200 and '"completed"' in job for status, job in answers) else None
    await eventually(completed)


def test_promises_are_refused_while_writes_fail_and_made_again_after(daemon):
    async def story():
        ours = daemon()
        line = await ours.line()
        await eventually(lambda: line.promise(OWNER, "before"))
        ours.limit((FEW_BYTES, resource.RLIM_INFINITY))
        promised, refused = await promise_until_refused(line, 500)
        assert refused.status == 503 and refused.retry_after_s > 0 and "disk" in str(refused)
        assert ours.process.poll() is None, ours.log.read_text()
        assert await eventually(lambda: line.wait_for_answer(OWNER, "waits")) == 200, "who waits for an answer needs no disk"
        assert "[error] no jobs are promised: " in ours.log.read_text()
        ours.limit(NO_LIMIT)
        after = await eventually(lambda: line.promise(OWNER, "after"))
        await all_completed(line, [*promised, after])
        ours.kill()
        ours.start()
        line = await ours.line()
        await all_completed(line, [*promised, after])
        line.close()
    asyncio.run(story())


def test_what_was_promised_before_the_disk_was_full_outlives_a_crash_on_it(daemon):
    async def story():
        ours = daemon()
        line = await ours.line()
        promised = [await eventually(lambda n=n: line.promise(OWNER, f"early {n}")) for n in range(20)]
        ours.limit((FEW_BYTES, resource.RLIM_INFINITY))
        more, _ = await promise_until_refused(line, 500)
        ours.kill()
        ours.start()
        line = await ours.line()
        await all_completed(line, promised + more)
        line.close()
    asyncio.run(story())


def test_past_max_state_promises_are_refused_until_jobs_have_ended(daemon):
    async def story():
        ours = daemon(max_state="2MiB")
        line = await ours.line()
        await eventually(lambda: line.promise(OWNER, "first", queue="held"))
        promised, refused = await promise_until_refused(line, 500, queue="held", body="x" * 60000)
        assert refused.status == 503 and "no room on disk" in str(refused)
        assert await line.wait_for_answer(OWNER, "waits") == 200
        for id in promised:
            assert await line.cancel(OWNER, f"/{id}") == 200
        await eventually(lambda: line.promise(OWNER, "again", queue="held"))
        line.close()
    asyncio.run(story())


def test_a_larger_max_state_counts_from_the_reload(daemon):
    async def story():
        ours = daemon(max_state="2MiB")
        line = await ours.line()
        await eventually(lambda: line.promise(OWNER, "first", queue="held"))
        await promise_until_refused(line, 500, queue="held", body="x" * 60000)
        ours.configure(max_state="4MiB")
        ours.process.send_signal(signal.SIGHUP)
        await eventually(lambda: line.promise(OWNER, "second", queue="held"))
        ours.configure(max_state="2MiB")
        ours.process.send_signal(signal.SIGHUP)
        await promise_until_refused(line, 500, queue="held")
        line.close()
    asyncio.run(story())
