"""Workers scale by what their callers wait, and an autoscaler outside is told how many there should be."""

import re

from test_jobs import HTTP, SERVER, jobs, promise, until_status  # noqa: F401 (jobs is a fixture)
from test_operator import ctl, said, workers  # noqa: F401 (fixtures)
from conftest import simulate
from waiting import until


def desired(service):
    page = service.get("/metrics").text()
    return int(re.search(r'penstock_desired_workers{[^}]*worker="sim"[^}]*} (\d+)', page).group(1))


def test_a_long_wait_brings_a_second_process_and_a_lull_ends_it(jobs, said):  # noqa: F811
    service = jobs(
        workers=[simulate(slots=1, service_time="300ms", device="[0, 1]", min_workers=1, max_workers=2, target_wait="500ms",
                          scale_down_after="2s")],
        http=HTTP.replace("concurrency 3;", "concurrency 500;"),
        server=SERVER + "location = /metrics { penstock_metrics gpu; }")
    until(lambda: [w["state"] for w in workers(service, said)] == ["ready"], "nothing waits: one is enough")
    ids = [promise(service, X=str(i)).json()["id"] for i in range(40)]
    until(lambda: [w["state"] for w in workers(service, said)] == ["ready"] * 2, "a second process")
    assert "scaled to 2 processes by its load" in service.penstockd.process.text()
    until(lambda: desired(service) == 2, "an autoscaler outside would do the same")
    for id in ids:
        until_status(service, id, "completed")
    until(lambda: [w["state"] for w in workers(service, said)] == ["ready"], "one is enough again")
    until(lambda: desired(service) == 1, "and so it says")
    said(service, "scale", "sim", 2)
    until(lambda: [w["state"] for w in workers(service, said)] == ["ready"] * 2, "an operator's word counts more")
    said(service, "scale", "sim", "auto")
    until(lambda: [w["state"] for w in workers(service, said)] == ["ready"], "until it is taken back")
