"""config/penstock.yaml as it is shipped serves another engine once one line of it is uncommented."""

import importlib.util
import re
from pathlib import Path

import pytest

from conftest import simulate
from server import completion
from test_http_engine import PASS, server  # noqa: F401 (server is a fixture)
from waiting import until

ROOT = Path(__file__).parents[2]
NUMPY = importlib.util.find_spec("numpy") is not None


def shipped(penstock, engine, **replaced):
    """A service with the shipped file, in its own folder; the lines of `engine` that are comments are none there."""
    service = penstock(start=False, server=PASS, workers=[simulate()])
    text = (ROOT / "config" / "penstock.yaml").read_text()
    text = re.sub(rf"^  # (- {{ name: \w+, engine: {engine},)", r"  \1", text, flags=re.M)
    for before, after in {"/run/penstock/penstock.sock": str(service.penstockd.socket), "socket_group: www-data": "#",
                          "/var/lib/penstock": "state", "models/demo": str(ROOT / "config/models/demo"),
                          "secret_file:": "# secret_file:", "engines/digits": str(ROOT / "config/engines/digits"),
                          "device: auto ": "device: cpu ", **replaced}.items():
        assert before in text, before
        text = text.replace(before, after)
    if not NUMPY:
        text = re.sub(r"^  - { name: digits.*", "", text, flags=re.M)
    service.penstockd.config.write_text(re.sub(r"(^|\s)#.*", "", text))
    return service.start()


def ask(service, model, path="/v1/completions", **body):
    return service.request("POST", path, None, {"model": model, "prompt": "seven", "max_tokens": 2, **body})


def test_the_demo_model_as_it_is(penstock):
    assert ask(shipped(penstock, "none"), "demo").status == 200


def test_a_server(penstock, server):  # noqa: F811
    upstream = server(lambda asked, reply: reply(completion()))
    service = shipped(penstock, "http", **{"http://127.0.0.1:8000": upstream.url})
    assert ask(service, "chat").json() == completion()
    assert upstream.asked[0].json()["model"] == "chat"


@pytest.mark.skipif(not NUMPY, reason="the program needs numpy")
def test_a_program(penstock):
    service = shipped(penstock, "none")
    until(lambda: ask(service, "digits", "/v1/images/generations").status == 200, "the program is loaded, and draws")
    assert ask(service, "digits", "/v1/images/generations").json()["data"][0]["b64_json"]


def test_a_set_service_time(penstock):
    assert ask(shipped(penstock, "simulate"), "sim").status == 200
