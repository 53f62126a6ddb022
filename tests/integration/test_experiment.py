"""config/nginx-ab.conf: two policies on two halves of the callers, told apart by the metrics."""

import re
from pathlib import Path

from conftest import simulate

ROOT = Path(__file__).parents[2]


def keys_of(service):
    return service.nginx.folder / "keys"


def example(service, name="nginx-ab.conf"):
    """The file, with this test's paths in it."""
    text = (ROOT / "config" / name).read_text()
    own = service.nginx.config.read_text()
    take = lambda pattern: re.search(pattern, own, re.M).group()
    for pattern in (r"^load_module .*$", r"^user .*$", r"^pid .*$", r"^error_log .*$"):
        text = re.sub(pattern, take(pattern) if re.search(pattern, own, re.M) else "", text, flags=re.M)
    temp = "\n".join(re.findall(r"^ *\w+_temp_path .*$", own, re.M))
    return (text.replace("worker_processes auto", "worker_processes 1").replace("http {", f"http {{\naccess_log off;\n{temp}", 1)
            .replace("/run/penstock/penstock.sock", str(service.penstockd.socket)).replace("/etc/penstock/keys", str(keys_of(service)))
            .replace("127.0.0.1:8080", f"127.0.0.1:{service.port}"))


def test_the_example_splits_the_callers_and_the_metrics_tell_the_variants_apart(penstock):
    service = penstock(start=False, master=True, workers=[simulate(slots=4)])
    service.nginx.write_config(example(service))
    service.start()
    admitted = {}
    for caller in range(12):
        client = service.client(address=f"127.0.0.{caller + 2}")
        statuses = [client.request("GET", "/v1/models").status for _ in range(11)]
        assert statuses == sorted(statuses)
        admitted[caller] = statuses.count(200)
    assert set(admitted.values()) == {5, 10}
    page = service.get("/metrics").body.decode()
    counted = {variant: sum(int(value) for value in re.findall(
        rf'^penstock_limit_requests_total{{[^}}]*variant="{variant}"[^}}]*outcome="passed"[^}}]*}} (\d+)$', page, re.M))
        for variant in ("control", "large-burst")}
    assert counted == {"control": 5 * list(admitted.values()).count(5), "large-burst": 10 * list(admitted.values()).count(10)}
    dry = re.search(r'^penstock_limit_requests_total{[^}]*limit="ip"[^}]*outcome="rejected_dry_run"[^}]*} (\d+)$', page, re.M)
    assert int(dry.group(1)) > 0
