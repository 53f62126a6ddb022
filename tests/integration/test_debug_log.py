"""What `error_log ... debug` tells of a request: which limits judged it and what they said, where it went, and what came of it."""

import re
import subprocess

import pytest

from client import Client
from conftest import simulate
from processes import NGINX
from waiting import until

KEY = "Bearer sk-live-0123456789abcdef"
PROMPT = "My dear diary, today I met a tall dark stranger"
HTTP = """
    penstock_zone edge 1m;
    penstock_tier free { rate 3r/h; quota 100r/d; }
"""
SERVER = """
    location /v1/ {
        penstock_limit zone=edge key=$http_authorization tier=free;
        penstock_limit zone=edge key=$remote_addr rate=1r/h dry_run=on name=tried;
        penstock_pass gpu;
    }
"""
pytestmark = pytest.mark.skipif("--with-debug" not in subprocess.run([NGINX, "-V"], capture_output=True, text=True).stderr,
                                reason="this Nginx is built without --with-debug")


@pytest.fixture
def service(penstock):
    service = penstock(start=False, http=HTTP, server=SERVER, workers=[simulate(slots=1, service_time="10ms")], queue={"max_length": 1})
    config = service.nginx.config.read_text().replace("error.log info", "error.log debug")
    service.nginx.write_config(config)
    yield service.start()
    service.nginx.stop()
    service.nginx.process = None
    # Nginx's own lines show every header: only ours are looked through for what was planted (planted.py).
    log = service.nginx.error_log
    log.write_text("".join(line for line in log.read_text().splitlines(True) if " penstock " in line))


def ask(service, who=KEY):
    return service.request("POST", "/v1/completions", {"Authorization": who}, {"model": "sim", "prompt": PROMPT, "max_tokens": 2})


def lines(service):
    """Ours, without what each line of Nginx's begins with."""
    return re.findall(r"\[debug\] .*?: \*\d+ (penstock .*)", service.nginx.log())


def test_the_way_of_a_request_is_told(service):
    assert ask(service).status == 200
    until(lambda: any("settles" in line for line in lines(service)), "it is over")
    told = lines(service)
    expected = (r'penstock judged 3 counters of plan "free" at stage 0: admitted',
                r'penstock limit "free-rate", key [0-9a-f]{16}: has room for 1 units, 2 left, again in 0 ms',
                r'penstock limit "free-quota-d", key [0-9a-f]{16}: has room for 1 units, 99 left, again in 0 ms',
                r'penstock limit "tried" \(dry run\), key [0-9a-f]{16}: has room for 1 units, 0 left, again in 0 ms',
                r"penstock charged 3 counters, to be delayed by 0 ns",
                r'penstock hands over \d+ bytes to queue "default", \d+ tokens reserved',
                rf"penstock got an answer from unix:{service.penstockd.socket}: status 200, job ",
                r"penstock settles, rc 0: done 1, \d+ tokens, \d+ ms")
    at = 0
    for line in expected:
        found = [i for i in range(at, len(told)) if re.match(line, told[i])]
        assert found, (line, told)
        at = found[0] + 1


def test_which_limit_refused_is_told(service):
    assert [ask(service).status for _ in range(4)] == [200, 200, 200, 429]
    refused = lines(service)[-5:]
    assert any(re.match(r'penstock judged 3 counters of plan "free" at stage 0: refused', line) for line in refused), refused
    assert any(re.match(r'penstock limit "free-rate", key [0-9a-f]{16}: refuses 1 units, 0 left, again in (11|12)\d{5} ms', line) for line in refused), refused
    assert any('"tried" (dry run)' in line and "refuses" in line for line in refused), refused


def test_a_queue_that_takes_nobody_and_a_penstockd_that_refuses_are_told(service):
    assert ask(service).status == 200
    assert service.request("POST", "/v1/completions", {"Authorization": KEY}, {"model": "none", "prompt": PROMPT}).status == 404
    assert any(re.match(rf"penstock was refused by unix:{service.penstockd.socket}: status 404, code not_found", line) for line in lines(service)), lines(service)
    config = service.penstockd.config
    config.write_text(config.read_text().replace("service_time: 10ms", "service_time: 60s"))
    service.penstockd.process.signal(1)
    until(lambda: "reloaded" in service.penstockd.process.text(), "jobs are long")
    service.penstockd.wait_for(slots=1)
    held = [service.stream(headers={"Authorization": f"Bearer sk-live-of-another-{i}"}, prompt=PROMPT) for i in range(2)]
    service.penstockd.wait_for(running=1, length=1)
    until(lambda: ask(service, "Bearer sk-live-of-somebody").status == 503 and any("takes nobody" in line for line in lines(service)), "it is full")
    (line, *_) = [line for line in lines(service) if "takes nobody" in line]
    assert re.match(r'penstock queue "default" takes nobody: .+, again in \d+ s', line), line
    for each in held:
        each.close()


def test_ours_hold_neither_key_nor_prompt(service):
    assert [ask(service).status for _ in range(4)] == [200, 200, 200, 429]
    ours = "\n".join(lines(service))
    assert ours and KEY[7:23] not in ours and PROMPT[:16] not in ours
    assert KEY in service.nginx.log(), "Nginx's own do: docs/LOGS.md says so"
