"""The $penstock_ variables, as an access log shows them."""

import re

from conftest import simulate
from waiting import until

HTTP = """
    penstock_zone edge 1m;
    penstock_tier free { rate 2r/m; }
    log_format v '$status tier=$penstock_tier status=$penstock_status limit=$penstock_limit_name '
                 'retry=$penstock_retry_after model=$penstock_model job=$penstock_job_id wait=$penstock_wait '
                 'cost=$penstock_cost';
"""


def lines(service, count):
    path = service.folder / "access.log"
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= count, f"the access log has {count} lines")
    return path.read_text().splitlines()


def test_variables_tell_what_became_of_a_request(penstock):
    service = penstock(start=False, workers=[simulate()])
    service.nginx.write_config(service.configuration(HTTP, f"""
        access_log {service.folder}/access.log v;
        location / {{ penstock_limit zone=edge key=$arg_key tier=free; penstock_pass gpu; }}"""))
    service.start()
    for _ in range(3):
        service.complete("/v1/completions?key=k")
    first, second, third = lines(service, 3)
    assert re.match(r"200 tier=free status=PASSED limit=- retry=- model=sim job=job_\w+ wait=[\d.]+ ", first), first
    assert re.match(r"429 tier=free status=REJECTED limit=free-rate retry=30 model=\S+ job=- wait=- ", third), third
    assert re.search(r"job=(\S+)", first).group(1) != re.search(r"job=(\S+)", second).group(1)


def test_a_limit_may_be_keyed_by_the_model_in_the_body(penstock):
    service = penstock(workers=[simulate(), simulate("other")], http="penstock_zone edge 1m;", server="""
        location / { penstock_limit zone=edge key=$penstock_model rate=1r/h name=model; penstock_pass gpu; }""")
    assert [service.complete(model=model).status for model in ("sim", "sim", "other", "other")] == [200, 429, 200, 429]
    assert service.complete("/v1/chat/completions", model="sim", messages=[{"role": "user", "content": "hi"}]).status == 429
