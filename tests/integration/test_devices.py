"""GPUs as an operator sees them, with a library in the place of the driver's (tests/fixtures/fake_nvml.cc)."""

import json
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import simulate
from processes import BUILD, children, environment
from test_metrics import WATCH, page_of
from test_operator import Terminal
from waiting import until

GIB = 1 << 30
GPU = {"uuid": "GPU-aa", "name": "Fake H100", "util": 50, "used": 20 * GIB, "total": 80 * GIB, "temp": 61,
       "power": 350500, "pending": 0}
DEMO = Path(__file__).parents[2] / "config" / "models" / "demo"


class Gpus:
    """What the library answers; changed by the test at any time."""

    def __init__(self, path):
        self.path, self.hung = path, Path(f"{path}.hung")

    def answer(self, *gpus, **more):
        """gpu 0, gpu 1 ...: {key: value}; a key of None is left out."""
        lines = [f"gpus {len(gpus)}"] + [f"{i}.{key} {value}" for i, gpu in enumerate(gpus) for key, value in gpu.items()
                                         if value is not None]
        lines += [f"{key} {value}" for key, value in more.items()]
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes("\n".join(lines + [""]).encode("latin-1"))
        fresh.rename(self.path)  # never half of it


@pytest.fixture
def gpus(folder, monkeypatch):
    answers = Gpus(folder / "gpus")
    monkeypatch.setenv("PENSTOCK_NVML", str(BUILD / "libfake_nvml.so"))
    monkeypatch.setenv("FAKE_NVML", str(answers.path))
    answers.answer(GPU)
    return answers


@pytest.fixture
def watched(penstock, gpus):
    """A service that looks at the GPUs; silence of two seconds is too long."""
    return penstock(workers=[simulate(slots=2, service_time="10ms")], limits={"heartbeat_timeout": "2s"},
                    server=WATCH + "location /v1/ { penstock_pass gpu; }")


def figure(service, what, device="0"):
    """The one sample of that device, or None."""
    found = [value for (name, labels), value in page_of(service).samples.items()
             if name == f"penstock_device_{what}" and dict(labels)["device"] == device]
    return found[0] if found else None


def until_figure(service, what, expected, device="0", seconds=20):
    until(lambda: figure(service, what, device) == expected,
          lambda: f"{what} of {device} is {expected}; it is {figure(service, what, device)}", seconds)


def status(service):
    return json.loads(service.penstockd.status())


def the_watch(service):
    """The process that looks at the devices."""
    for pid in children(service.penstockd.process.pid):
        if b"--watch-devices" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


def log_lines(service, words):
    return [line for line in service.penstockd.process.text().splitlines() if words in line]


def test_every_figure_of_a_device_is_shown(watched, gpus, folder):
    until_figure(watched, "temperature_celsius", 61)
    labels = {"socket": str(watched.penstockd.socket), "device": "0", "uuid": "GPU-aa", "name": "Fake H100"}
    page = page_of(watched)
    shown = {what: page.get(f"penstock_device_{what}", **labels) for what in (
        "healthy", "utilization_ratio", "memory_used_bytes", "memory_total_bytes", "power_watts")}
    assert shown == {"healthy": 1, "utilization_ratio": 0.5, "memory_used_bytes": 20 * GIB, "memory_total_bytes": 80 * GIB,
                     "power_watts": 350.5}
    assert page.get("penstock_devices_watched", socket=labels["socket"]) == 1
    assert status(watched)["devices"] == [{
        "device": "0", "uuid": "GPU-aa", "name": "Fake H100", "parent": None, "healthy": True, "health": "good",
        "message": None, "utilization_percent": 50, "memory_used_bytes": 20 * GIB, "memory_total_bytes": 80 * GIB,
        "temperature_celsius": 61, "power_mw": 350500}]
    gpus.answer({**GPU, "temp": 75, "power": None})
    until_figure(watched, "temperature_celsius", 75)
    assert figure(watched, "power_watts") is None, "what is not known is not shown as 0"


def test_a_device_that_is_lost_is_said_to_be_and_so_is_its_return(watched, gpus):
    gpus.answer(GPU, {**GPU, "uuid": "GPU-bb"})
    until_figure(watched, "healthy", 1, "1")
    gpus.answer(GPU, {**GPU, "uuid": "GPU-bb", "error": 15})
    until_figure(watched, "healthy", 0, "1")
    assert figure(watched, "healthy") == 1 and figure(watched, "temperature_celsius", "1") is None
    lost = status(watched)["devices"][1]
    assert (lost["uuid"], lost["health"], lost["message"]) == ("GPU-bb", "lost", "GPU is lost")
    assert len(log_lines(watched, "[warn] device 1, Fake H100 (GPU-bb): lost: GPU is lost")) == 1
    gpus.answer(GPU, {**GPU, "uuid": "GPU-bb"})
    until_figure(watched, "healthy", 1, "1")
    assert log_lines(watched, "device 1, Fake H100 (GPU-bb): good")[-1].find("[info]") > 0


def test_slices_are_devices_of_their_own(watched, gpus):
    gpus.answer({**GPU, "util": None, "slices": 2, "0.uuid": "MIG-1", "0.name": "MIG 1g.10gb", "0.total": 10 * GIB, "0.used": GIB,
                 "1.uuid": "MIG-2", "1.name": "MIG 1g.10gb", "1.total": 10 * GIB, "1.used": 2 * GIB})
    until_figure(watched, "memory_used_bytes", 2 * GIB, "0:1")
    assert figure(watched, "memory_used_bytes", "0:0") == GIB
    assert [(each["device"], each["parent"]) for each in status(watched)["devices"]] == [("0", None), ("0:0", "0"), ("0:1", "0")]
    assert figure(watched, "utilization_ratio", "0:1") is None


def test_a_driver_that_hangs_is_given_up_and_asked_anew_while_the_queue_serves(watched, gpus):
    until_figure(watched, "temperature_celsius", 61)
    first = the_watch(watched)
    gpus.answer({**GPU, "temp": 62}, hang="nvmlDeviceGetPowerUsage")
    until(gpus.hung.exists, "a call hangs")
    while the_watch(watched) == first:
        assert watched.complete().status == 200
    until_figure(watched, "temperature_celsius", 62)
    assert len(log_lines(watched, "the driver has not answered for 2s; killing process")) == 1
    assert watched.complete().status == 200


def test_a_driver_that_crashes_takes_only_the_watch_along(watched, gpus):
    until_figure(watched, "temperature_celsius", 61)
    gpus.answer(GPU, crash="nvmlDeviceGetTemperature")
    socket = str(watched.penstockd.socket)
    until(lambda: page_of(watched).get("penstock_devices_watched", socket=socket) == 0, "nobody looks")
    assert figure(watched, "temperature_celsius") is None and figure(watched, "healthy") == 1
    assert watched.complete().status == 200
    state = status(watched)["device_watch"]
    assert state["state"] == "none" and "ended the watch by signal 6" in state["message"]
    gpus.answer(GPU)
    until_figure(watched, "temperature_celsius", 61)
    assert log_lines(watched, "devices: watched again")


def test_without_a_driver_one_line_says_so(penstock, monkeypatch):
    monkeypatch.setenv("PENSTOCK_NVML", "libnvidia-ml-of-nobody.so.1")
    service = penstock(workers=[simulate()], server=WATCH + "location /v1/ { penstock_pass gpu; }")
    why = "no NVIDIA driver: libnvidia-ml-of-nobody.so.1 is not there"
    until(lambda: log_lines(service, why), "the log says why")
    until(lambda: the_watch(service) is None, "its process has ended")
    assert [line.split(" ", 1)[1] for line in log_lines(service, "driver")] == [f"[info] devices: {why}"]
    assert status(service)["devices"] == [] and status(service)["device_watch"] == {"state": "none", "message": why}
    assert service.complete().status == 200
    assert page_of(service).get("penstock_devices_watched", socket=str(service.penstockd.socket)) == 0


def test_where_no_worker_uses_a_gpu_nobody_looks(penstock):
    service = penstock(workers=[dict(name="demo", engine="llama", model=DEMO, device="cpu", slots=1, memory="16MiB")],
                       server=WATCH + "location /v1/ { penstock_pass gpu; }")
    assert the_watch(service) is None
    assert status(service)["device_watch"] == {"state": "off", "message": None}
    config = service.penstockd.config
    config.write_text(config.read_text().replace("device: cpu", "device: auto"))
    service.penstockd.process.signal(signal.SIGHUP)
    until(lambda: status(service)["device_watch"]["state"] != "off", "a reload to one that may is seen")


def test_penstockctl_shows_the_devices(watched, gpus, folder):
    gpus.answer(GPU, {**GPU, "uuid": "GPU-bb"})
    until_figure(watched, "healthy", 1, "1")
    gpus.answer(GPU, {**GPU, "uuid": "GPU-bb", "error": 15})
    until_figure(watched, "healthy", 0, "1")

    def said(*arguments):
        return subprocess.run([BUILD / "penstockctl", *arguments, "-s", watched.penstockd.socket], capture_output=True, text=True,
                              env=environment(folder), check=True).stdout

    lines = said("status").splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("DEVICE"))):][:3]
    assert [line.split() for line in table] == [
        "DEVICE NAME HEALTH USE MEMORY TEMP POWER UUID".split(), "0 Fake H100 good 50 % 20.0 of 80.0 GiB 61 °C 350 W GPU-aa".split(),
        "1 Fake H100 lost: GPU is lost - - - - GPU-bb".split()]
    assert [each["health"] for each in json.loads(said("status", "--json"))["devices"]] == ["good", "lost"]


def test_top_shows_devices_and_tokens_as_they_are(watched, gpus, folder):
    screen = Terminal([str(BUILD / "penstockctl"), "top", "-s", str(watched.penstockd.socket)], environment(folder))
    screen.read_until("61 °C".encode())
    gpus.answer({**GPU, "temp": 75})
    screen.read_until("75 °C".encode())
    watched.complete(max_tokens=50)
    screen.read_until(b" generation tokens/s")
    screen.type(b"q")
    assert screen.status() == 0


def test_tokens_batches_and_the_cache_of_a_model_are_shown(penstock):
    service = penstock(workers=[dict(name="demo", engine="llama", model=DEMO, device="cpu", slots=4, memory="16MiB")],
                       server=WATCH + "location /v1/ { penstock_pass gpu; }")
    labels = {"socket": str(service.penstockd.socket), "worker": "demo", "queue": "default", "model_name": "demo"}
    model = {key: labels[key] for key in ("socket", "queue", "model_name")}

    def shown(name):
        return page_of(service).get(f"penstock_{name}", **labels)

    until(lambda: shown("slots") == 4, "the worker is shown")
    body = {"model": "demo", "prompt": "The water ", "max_tokens": 40, "ignore_eos": True}
    usage = service.complete(**body).json()["usage"]
    until(lambda: shown("generation_tokens_total") == usage["completion_tokens"] == 40, "what was drawn is counted")
    assert shown("prompt_tokens_total") == usage["prompt_tokens"]
    assert shown("batch_size_sum") == shown("batch_size_count") >= 40, "it was alone"
    assert page_of(service).get("penstock_time_to_first_token_seconds_count", **model) == 0, "its answer did not stream"
    assert shown("num_requests_running") == shown("kv_cache_usage_perc") == 0

    service.stream(**body).rest()
    until(lambda: page_of(service).get("penstock_time_per_output_token_seconds_count", **model) == 1, "a streamed one is measured")
    streamed = page_of(service)
    first = streamed.get("penstock_time_to_first_token_seconds_sum", **model)
    each = streamed.get("penstock_time_per_output_token_seconds_sum", **model)
    assert streamed.get("penstock_time_to_first_token_seconds_count", **model) == 1
    assert 0 < first < 20 and 0 < each < 1

    stop = threading.Event()

    def load():
        while not stop.is_set():
            service.complete(**body)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: shown("kv_cache_usage_perc") > 0 and shown("num_requests_running") > 1, "the cache fills")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    until(lambda: shown("kv_cache_usage_perc") == 0, "and is empty again")
    assert shown("batch_size_sum") > shown("batch_size_count"), "some were not alone"


def test_prometheus_takes_the_page_of_devices_and_models(watched, gpus):
    gpus.answer({**GPU, "name": 'a "name" with \\ and \xff', "temp": 75})
    until_figure(watched, "temperature_celsius", 75)
    checked = subprocess.run([shutil.which("promtool"), "check", "metrics"], input=watched.get("/metrics").body, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert status(watched)["devices"][0]["name"] == 'a "name" with \\ and \ufffd', "what is not UTF-8 is replaced"


def test_a_stop_starts_no_worker_again(watched, gpus):
    until_figure(watched, "healthy", 1)
    watched.penstockd.process.signal(15)
    until(lambda: "stopped" in watched.penstockd.process.text(), "it has stopped")
    text = watched.penstockd.process.text()
    assert text.count(": ready, process") == 1 and "killing process" not in text, text
