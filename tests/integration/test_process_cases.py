"""Engine process against what programs really do: each of tests/engine_cases through a real worker, judged by what its penstockd
would hear, by what becomes of the program, and by the worker's log. The fixtures' format is told in tests/engine_cases/README.md."""

import copy
import json
import socket
import struct
import sys
import time
from pathlib import Path

import pytest

CASES = Path(__file__).parents[1] / "engine_cases"
sys.path.insert(0, str(CASES))

from processes import ASAN, BUILD, children, state_of  # noqa: E402
from upstream import body_of  # noqa: E402
from waiting import until  # noqa: E402
from wire import FAILED, PROGRESS  # noqa: E402
from worker import Worker, fields_of  # noqa: E402

PREVIEW = 27  # shared/wire/messages.h
SLOW = 10 if ASAN else 1


def variants():
    """Each fixture, and what its `same_for` says should end alike."""
    for path in sorted(CASES.glob("1??_*.json")):
        fixture = json.loads(path.read_text())
        yield pytest.param(fixture, id=path.stem)
        same = fixture["expect"].get("same_for", {})
        if "exit" in same:
            other = copy.deepcopy(fixture)
            other["lines"][-1][1] = {"exit": same["exit"]}
            yield pytest.param(other, id=f"{path.stem}-exit-{same['exit']}")
        for name in same.get("paths", []):
            yield pytest.param(with_result_file(fixture, name), id=f"{path.stem}-{name!r}")
        if "paths" in same:
            yield pytest.param(with_result_file(fixture, "hard.png", {"hard_link": "hard.png", "to": "{victim}"}),
                               id=f"{path.stem}-hard-link")


def with_result_file(fixture, name, *actions):
    """The same with another file as its result, in a folder where traps lie."""
    other = copy.deepcopy(fixture)
    hello, job, _, (wait, line) = other["lines"]
    result = json.loads(line)
    result["result"]["file"] = name
    traps = [{"folder": "a"}, {"symlink": "link-dir", "to": "{outside}"}, {"fifo": "fifo"}, {"folder": "folder"}, *actions]
    other["lines"] = [hello, job, *([0, trap] for trap in traps), [wait, json.dumps(result) + "\n"]]
    return other


class Listening(Worker):
    """Hears progress and previews, too."""

    def __init__(self, *args, **more):
        self.progress, self.previews = [], 0
        super().__init__(*args, **more)

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)  # its reader holds it, too
        super().close()

    def _take(self, kind, id, payload):
        if kind == PROGRESS:
            at = 0
            while at < len(payload):
                tag, size = struct.unpack_from("<II", payload, at)
                if tag == 21:  # millionths
                    self.progress.append(struct.unpack_from("<Q", payload, at + 8)[0] / 1e6)
                at += 8 + size
        elif kind == PREVIEW:
            self.previews += 1
        else:
            super()._take(kind, id, payload)


def options_of(config):
    """The section of penstock.yaml as the worker's command line has it."""
    return {f"{key}_ns" if key in ("timeout", "grace", "ready_timeout") else key: value * (1_000_000 if key in ("timeout", "grace") else 1)
            for key, value in config.items()}


def family(pid):
    """All descendants that live."""
    found = []
    for child in children(pid):
        found += [child, *family(child)]
    return found


class Run:
    """One fixture, run."""

    def __init__(self, fixture, folder):
        outside = folder / "outside"
        outside.mkdir()
        (outside / "x.png").write_bytes(b"x")
        self.victim = outside / "x.png"
        text = json.dumps(fixture).replace("{outside}", str(outside)).replace("{victim}", str(self.victim))
        script = folder / "fixture.json"
        script.write_text(text)
        self.fixture, self.expect = fixture, fixture["expect"]
        self.body = body_of(fixture["request"])
        self.seen = set()  # all processes that there have been
        command = ["/usr/bin/python3", "-B", str(CASES / "play.py"), str(script)]
        options = {f"command.{i}": word for i, word in enumerate(command)}
        scratch = folder / "scratch"
        scratch.mkdir()
        self.worker = Listening(folder, BUILD / "penstock-worker", "process",
                                options | {"folder": scratch} | options_of(fixture.get("config", {})))
        self.number = 0

    def close(self):
        self.worker.close()

    def look(self):
        for guard in self.first:
            self.seen.update([guard, *family(guard)])

    def ready(self):
        until(lambda: self.worker.slots and self.worker.slots[-1][1]["slots"] == 1,
              lambda: f"a program is ready: {self.worker.log()}")

    def submit(self):
        self.number += 1
        return self.worker.submit(self.number, self.fixture["request"], self.body)

    def over(self, job):
        def ended():
            self.look()
            return job.end
        until(ended, lambda: f"the job is over: {self.worker.log()}", 20)
        return job

    def run(self):
        if self.expect["outcome"] != "returned":
            self.ready()
        self.first = children(self.worker.process.pid)
        self.look()
        resident = self.worker.resident()
        job = self.submit()
        if self.expect["outcome"] == "cancelled":
            self.leave(job)
        else:
            self.over(job)
        self.grown = self.worker.resident("VmHWM") - resident
        return job

    def leave(self, job):
        until(lambda: self.worker.progress, "the program works")
        self.look()
        self.worker.leave(job)


def check_caller(job, caller):
    if caller is None:
        assert job.head is None
    elif caller["content_type"] == "application/problem+json":
        assert job.head is None
        assert (job.end["status"], job.end["code"]) == (caller["status"], caller["json"]["error.code"])
    else:
        assert (job.head["status"], job.head["content_type"]) == (caller["status"], caller["content_type"])
        assert job.body == caller["body"].encode()


def check_usage(job, usage):
    if usage is not None and job.end_kind not in (FAILED, None):
        told = (job.end.get("prompt_tokens", 0), job.end.get("completion_tokens", 0))
        assert told == (usage["prompt_tokens"], usage["completion_tokens"])


def check_process(run, job):
    """What became of the program, and that nothing of one that is gone lives on."""
    worker = run.worker.process.pid
    if run.expect["process"] == "kept":
        time.sleep(0.05)
        assert children(worker) == run.first, run.worker.log()
        return
    assert "started again" in run.expect["process"]
    if run.expect["outcome"] != "returned":
        until(lambda: not set(run.first) & set(children(worker)), "the first one's guard is gone")
        gone = time.monotonic()
        assert [pid for pid in run.seen if pid in family(worker)] == []
        assert [pid for pid in run.seen if state_of(pid) not in ("", "Z")] == []
        run.ready()
        if "no back-off" in run.expect["process"]:
            assert "starts again in" not in run.worker.log()
        elif "with back-off" in run.expect["process"]:
            assert "starts again in 100ms" in run.worker.log()
        assert time.monotonic() - gone < 2 * SLOW
    else:
        def delays():
            return [slots["retry_ms"] for _, slots in run.worker.slots if slots["retry_ms"]]
        until(lambda: len(delays()) >= 4, lambda: f"it was started again and again: {run.worker.slots}")
        assert all(least <= delay * 1.01 <= 2 * least for delay, least in zip(delays(), (95, 195, 395, 795))), delays()


def check_log(run, expected):
    def found():
        lines = run.worker.log().splitlines()
        return [line for line in lines if f"[{expected['level']}]" in line and all(text in line for text in expected["says"])]
    if expected is None:
        lines = run.worker.log().splitlines()
        assert [line for line in lines if "[warn]" in line or "[error]" in line] == []
    elif not found():  # of several lines
        text = "\n".join(line for line in run.worker.log().splitlines() if f"[{expected['level']}]" in line)
        assert all(each in text for each in expected["says"]), run.worker.log()
    assert all(text not in run.worker.log() for text in run.expect.get("log_lacks", []))


def grown_again(fixture, folder):
    folder.mkdir()
    run = Run(fixture, folder)
    try:
        run.run()
        return run.grown
    finally:
        run.close()


@pytest.mark.parametrize("fixture", variants())
def test_the_end_is_what_its_fixture_says(fixture, tmp_path):
    run = Run(fixture, tmp_path)
    try:
        expect, job = run.expect, run.run()
        outcome, _, then = expect["outcome"].partition(", then ")
        assert job.outcome() == outcome, (job.end, run.worker.log())
        check_caller(job, expect["caller"])
        check_usage(job, expect["usage"])
        if then:
            following = run.over(run.submit())
            assert following.outcome() == then and following.body == b"next", run.worker.log()
        check_process(run, job)
        check_log(run, expect["log"])
        if outcome == "returned":
            assert any(expect["status_says"] in slots["message"] for _, slots in run.worker.slots), run.worker.slots
        if "within_ms" in expect:
            assert (job.ended - job.begun) * 1000 < expect["within_ms"] * SLOW
        if "slot_free_ms" in expect:
            least, most = expect["slot_free_ms"]
            assert least <= (job.freed - job.left) * 1000 <= most * SLOW
        if "peak_rss_growth_max" in expect and not ASAN:
            # How much is under way at once hangs on the machine's load; what is held whole is there each time.
            most = expect["peak_rss_growth_max"]
            assert run.grown < most or any(grown_again(fixture, tmp_path / str(again)) < most for again in (1, 2)), run.grown
        assert run.worker.previews == expect.get("previews", 0)
        assert run.worker.progress == expect.get("progress", run.worker.progress)
        assert run.victim.read_bytes() == b"x"
    finally:
        run.close()
