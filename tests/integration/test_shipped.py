"""config/nginx.conf as it is shipped: who is known, whose a job is, and who waits behind whom."""

import re
import subprocess

import pytest

from conftest import simulate
from processes import BUILD
from test_experiment import example, keys_of

KEYS = {"team-a": ("free", "sk-demo-free-0b7c51a98c"), "team-b": ("pro", "sk-demo-pro-91fe20d47b")}
ALICE, BOB = ({"Authorization": f"Bearer {key}"} for _, key in KEYS.values())
BODY = {"model": "sim", "prompt": "Tell me", "max_tokens": 8}
ASYNC = {"Prefer": "respond-async"}


def shipped(penstock, **more):
    options = dict(workers=[simulate(slots=1, service_time="20ms")], yaml="state: state\n", master=True)
    service = penstock(start=False, **{**options, **more})
    service.nginx.write_config(example(service, "nginx.conf"))
    for owner, (tier, key) in KEYS.items():
        subprocess.run([BUILD / "penstockctl", "keys", "add", owner, "--tier", tier, "--key-file", "-", "-f", keys_of(service)], input=key,
                       text=True, check=True, capture_output=True)
    return service.start()


def post(client, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request("POST", "/v1/completions", {**ASYNC, **headers}, BODY)


def listed(client, **who):
    return [job["id"] for job in client.request("GET", "/jobs", who).json()["data"]]


def test_a_made_up_key_is_no_new_caller(penstock):
    service = shipped(penstock)
    client = service.client(address="127.0.0.2")
    statuses = [client.request("GET", "/v1/models/sim", {"Authorization": f"Bearer sk-pro-{i}"}).status for i in range(8)]
    assert statuses == [200] * 5 + [429] * 3  # one free plan for all of them
    assert client.request("GET", "/v1/models/sim", ALICE).status == 200
    assert client.request("GET", "/v1/models/sim", BOB).status == 200
    assert service.client(address="127.0.0.3").request("GET", "/v1/models/sim").status == 200
    assert client.request("GET", "/quota", ALICE).json()["tier"] == "free"
    assert client.request("GET", "/quota", BOB).json()["tier"] == "pro"


def test_to_ask_for_the_models_takes_nothing_of_a_plan(penstock):
    client = shipped(penstock).client(address="127.0.0.2")
    answers = [client.request("GET", "/v1/models", ALICE) for _ in range(20)]
    assert [answer.status for answer in answers] == [200] * 20
    assert "free" not in answers[0].headers["RateLimit-Policy"]
    assert [limit["used"] for limit in client.request("GET", "/quota", ALICE).json()["limits"] if limit["name"].startswith("free-")] == [0, 0, 0]


def test_a_key_is_known_from_the_next_request_on_and_no_more_once_it_is_revoked(penstock):
    service = shipped(penstock)
    client = service.client(address="127.0.0.2")
    key = subprocess.run([BUILD / "penstockctl", "keys", "add", "team-c", "--tier", "pro", "-f", keys_of(service)], text=True, check=True,
                         capture_output=True).stdout.split()[0]
    who = {"Authorization": f"Bearer {key}"}
    assert client.request("GET", "/quota", who).json()["tier"] == "pro"
    subprocess.run([BUILD / "penstockctl", "keys", "revoke", "team-c", "-f", keys_of(service)], check=True, capture_output=True)
    assert client.request("GET", "/quota", who).json()["tier"] == "free"


def test_people_behind_one_address_neither_list_each_others_jobs_nor_lose_their_own(penstock):
    service = shipped(penstock)
    one, other = service.client(address="127.0.0.2"), service.client(address="127.0.0.2")
    job = post(one).json()["id"]
    assert listed(one) == listed(other) == listed(one, **ALICE) == []
    for client, who in ((one, {}), (other, ALICE), (service.client(address="127.0.0.9"), {})):  # whoever knows the id
        assert client.request("GET", f"/jobs/{job}", who).status == 200
    known = post(one, **BOB).json()["id"]
    assert listed(other, **BOB) == [known] and listed(one) == []
    for who in ({}, ALICE):
        assert other.request("GET", f"/jobs/{known}", who).status == 404
        assert other.request("DELETE", f"/jobs/{known}", who).status == 404


def test_callers_without_a_key_share_no_idempotency_key_across_addresses(penstock):
    service = shipped(penstock)
    one, other = service.client(address="127.0.0.2"), service.client(address="127.0.0.3")
    first = post(one, Idempotency_Key='"k"').json()["id"]
    assert post(one, Idempotency_Key='"k"').headers["Penstock-Job-Id"] == first
    assert post(other, Idempotency_Key='"k"').headers["Penstock-Job-Id"] != first
    mine = post(one, Idempotency_Key='"k"', **BOB).headers["Penstock-Job-Id"]
    assert post(other, Idempotency_Key='"k"', **BOB).headers["Penstock-Job-Id"] == mine


def test_a_flood_from_one_address_holds_up_no_other_nor_counts_as_its_jobs(penstock):
    server = """
        penstock_share $penstock_net;
        location /v1/ { penstock_pass gpu; }
        location /jobs { penstock_jobs gpu; }
    """
    service = penstock(server=server, workers=[simulate(slots=1, service_time="30s")], queue={"max_per_owner": 3},
                       yaml="state: state\n")
    flood, other = service.client(address="127.0.0.2"), service.client(address="127.0.0.3")
    ids = [post(flood).json()["id"] for _ in range(4)]
    refused = post(flood)
    assert refused.status == 503 and "as many as one caller may have" in refused.json()["detail"]
    late = post(other)
    assert late.status == 202, late
    assert late.json()["position"] == 1
    assert [other.request("GET", f"/jobs/{id}").json()["position"] for id in ids[1:]] == [2, 3, 4]
    for id in ids + [late.json()["id"]]:
        other.request("DELETE", f"/jobs/{id}")


FLOOD = 3000  # made-up keys; all of a zone's memory would be worth some 700,000


def slots(service, state):
    text = service.get("/metrics").text()
    return int(re.search(rf'penstock_zone_slots{{[^}}]*state="{state}"[^}}]*}} (\d+)', text)[1])


@pytest.mark.parametrize("net", ["one address", "a /64"])
def test_a_flood_of_made_up_keys_locks_nobody_out(penstock, net):
    service = shipped(penstock)
    service.nginx.write_config(service.nginx.config.read_text().replace(
        "client_max_body_size", "set_real_ip_from 127.0.0.0/8; real_ip_header X-Real-IP; client_max_body_size", 1))
    service.nginx.reload()
    known = [service.client().request("GET", "/v1/models/sim", who).status for who in (ALICE, BOB)]
    flood, statuses = service.client(), []
    for i in range(FLOOD):
        address = "203.0.113.7" if net == "one address" else f"2001:db8:1:2::{i:x}"
        statuses.append(flood.request("GET", "/v1/models/sim", {"X-Real-IP": address, "Authorization": f"Bearer sk-free-{i:06x}"}).status)
    assert known == [200, 200] and statuses[:5] == [200] * 5 and 503 not in statuses
    assert statuses.count(200) <= 5 + 2 * len(statuses) / 60  # one free plan for all of them
    assert slots(service, "live") < 40
    for who in (ALICE, BOB):
        assert service.client().request("GET", "/v1/models/sim", who).status == 200
    assert service.client().request("GET", "/v1/models/sim", {"X-Real-IP": "198.51.100.1"}).status == 200
