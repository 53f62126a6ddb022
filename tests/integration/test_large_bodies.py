"""Bodies on the way: each process holds a large one once, and it arrives as it was sent."""

import json
from pathlib import Path

import pytest

from processes import ASAN
from server import completion
from test_http_engine import behind, server, together  # noqa: F401 (server is a fixture)
from test_process import program

SIZE = 24 << 20
SERVER = "client_max_body_size 64m; location / { penstock_pass gpu; }"
LIMITS = {"max_body": "48MiB"}


def resident(pid, which):
    return int(Path(f"/proc/{pid}/status").read_text().split(which + ":")[1].split()[0]) * 1024


class Peaks:
    """How much penstockd and its worker grow."""

    def __init__(self, service):
        self.pids = {"penstockd": service.penstockd.process.pid, "worker": service.penstockd.workers()[0]}
        for pid in self.pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = {name: resident(pid, "VmRSS") for name, pid in self.pids.items()}

    def grown(self):
        return {name: resident(pid, "VmHWM") - self.before[name] for name, pid in self.pids.items()}


def held_once(grown, times=1):
    return all(SIZE * times * 0.9 < bytes < SIZE * (times + 0.6) for bytes in grown.values())


def ask(service, text, path="/v1/completions"):
    return service.request("POST", path, {"Content-Type": "application/json"}, json.dumps({"model": "m", "prompt": text}))


@pytest.mark.skipif(ASAN, reason="the sanitizer keeps what was freed")
def test_on_its_way_to_a_server(penstock, server):  # noqa: F811
    upstream = server(lambda asked, reply: reply(completion()))
    service = penstock(server=SERVER, limits=LIMITS, workers=[behind(upstream.url, slots=2, upstream_model="theirs")])
    ask(service, "small")
    peaks = Peaks(service)
    assert ask(service, "x" * SIZE).status == 200
    assert held_once(peaks.grown()), peaks.grown()
    assert upstream.asked[-1].json() == {"model": "theirs", "prompt": "x" * SIZE}


@pytest.mark.skipif(ASAN, reason="the sanitizer keeps what was freed")
def test_on_its_way_to_a_program(penstock, folder):
    worker = program(folder, """\
        for job in jobs:
            size = os.path.getsize(job["body_file"]) if "body_file" in job else 0
            say(result={"body": {"size": size}})
        """) | {"model": "m"}
    service = penstock(server=SERVER, limits=LIMITS, workers=[worker])
    ask(service, "small")
    peaks = Peaks(service)
    assert ask(service, "x" * SIZE).json()["size"] > SIZE
    assert held_once(peaks.grown()), peaks.grown()


def test_several_at_once_are_not_mixed(penstock, server):  # noqa: F811
    upstream = server(lambda asked, reply: reply(completion(asked.json()["prompt"][:1])))
    service = penstock(server=SERVER, limits=LIMITS, workers=[behind(upstream.url, slots=4)])
    names = iter("abcdefgh")

    def one():
        name = next(names)
        return name, ask(service, name * (3 << 20)).json()["choices"][0]["message"]["content"]

    assert all(sent == heard for sent, heard in together(8, one))
    assert sorted(len(set(asked.json()["prompt"])) for asked in upstream.asked) == [1] * 8
