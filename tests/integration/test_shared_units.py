"""Leaky buckets, tokens and GPU time that two hosts share: never more than the limit, what was reserved and not used comes back to
all, and what was used beyond is owed by all."""

import json
import threading

import pytest

from client import Client
from hosts import PATIENT, Load, counted_by_all, until_they_know_each_other
from scripted import Gate, accepted, answer, chunk, done, head
from structured import parse_list
from waiting import until

PROMPT = "x" * 98  # with its quotes 100 bytes, of which 25 tokens are reckoned: with 50 for the answer 75


@pytest.fixture
def hosts(penstock, redis):
    """hosts("rate=300t/M", peer): two Nginx that share the limit, before one penstockd."""

    def build(limit, engine=None, more=""):
        upstream = "" if engine is None else f"upstream engine {{ server {engine.server}; keepalive 8; }}"
        answers = "empty_gif;" if engine is None else "penstock_pass engine;"
        services = [penstock(http=f"penstock_zone edge 1m redis={redis.address} {PATIENT};\n{upstream}", server=f"""
            location / {{ {more} penstock_limit zone=edge key=$arg_key {limit} name=a; {answers} }}
            location = /metrics {{ penstock_metrics; }}""") for _ in range(2)]
        until_they_know_each_other(services)
        return services
    return build


def ask(service, **body):
    return service.request("POST", "/?key=k", None, {"prompt": PROMPT, "max_tokens": 50, **body})


def left(response):
    return parse_list(response.headers["RateLimit"])[0][1]["r"]


# ---- leaky buckets


def test_a_leaky_bucket_lets_one_pass_on_one_of_two_hosts(hosts):
    first, second = hosts("rate=4r/m algorithm=leaky_bucket")
    assert first.get("/?key=a").status == 200
    refused = second.get("/?key=a")
    assert refused.status == 429 and 14 <= int(refused.headers["Retry-After"]) <= 15


@pytest.mark.parametrize("burst", [1, 4])
def test_two_hosts_let_a_leaky_bucket_leak_no_faster_than_one(hosts, burst):
    services = hosts(f"rate=50r/s algorithm=leaky_bucket burst={burst}")
    load = Load([service.port for service in services], seconds=2, threads=2).join()
    assert not load.others and load.most_over(50, burst) <= 0
    assert len(load.admitted) >= 50  # half of what there is: other load on this machine may take some
    assert counted_by_all(services, "penstock_lease_charges_total", how="alone") == 0


# ---- tokens

TOKENS = pytest.mark.parametrize("limit", ["rate=300t/M", "quota=300t/M", "rate=300t/M algorithm=sliding_window"])


@TOKENS
def test_tokens_that_were_not_used_come_back_to_all_hosts(peer, hosts, limit):
    services = hosts(limit, peer("a", answer(b"hi", completion_tokens=30)))
    for number in range(8):  # each needs 75 of what is left, and uses 30
        until(lambda: ask(services[number % 2]).status == 200, f"after {number} requests {300 - 30 * number} are left")
    assert [ask(service).status for service in services] == [429, 429]  # 60 are


@TOKENS
def test_tokens_that_were_used_beyond_a_reservation_are_owed_by_all_hosts(peer, hosts, limit):
    first, second = hosts(limit, peer("a", answer(b"hi", completion_tokens=400)))
    assert ask(second, max_tokens=5).status == 200  # both know the key
    until(lambda: ask(first).status == 429 and ask(second).status == 429, "400 of 300 are used")
    wait = int(ask(second).headers["Retry-After"])
    if limit == "rate=300t/M":
        token = 30 * 86_400 / 300
        assert (100 + 75) * token - 60 <= wait <= (100 + 75) * token * 1.02  # each who is refused is told a time of its own
    else:
        assert wait > 0


@TOKENS
def test_two_hosts_give_out_no_more_tokens_than_there_are(peer, hosts, limit):
    """By many callers at once: each request is reckoned at 75 tokens, and uses 40."""
    services = hosts(limit, peer("a", answer(b"hi", completion_tokens=40)))
    statuses = []

    def caller(service):
        for _ in range(6):
            statuses.append(ask(service).status)
    callers = [threading.Thread(target=caller, args=(service,)) for service in services * 2]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert set(statuses) <= {200, 429}
    admitted = statuses.count(200)
    assert 4 <= admitted <= 6  # of 300 tokens, 100 are left after five; with five under way at once there is room for four
    while admitted < 6:
        until(lambda: ask(services[admitted % 2]).status == 200, f"of 300 tokens {300 - 40 * admitted} are left")
        admitted += 1
    assert [ask(service).status for service in services] == [429, 429]


# ---- GPU time

GPU = pytest.mark.parametrize("limit", ["rate=10gs/M", "quota=10gs/M"])


@GPU
def test_gpu_time_is_reserved_and_settled_for_all_hosts(peer, hosts, limit):
    services = hosts(limit, peer("a", answer(b"hi", device_ns=1_500_000_000)), more='penstock_cost gs "n";')
    for number in range(5):  # each needs 4 of the 10 s that are left, and uses 1.5
        until(lambda: ask(services[number % 2], n=4).status == 200, f"after {number} requests {10 - 1.5 * number} s are left")
    assert [ask(service, n=4).status for service in services] == [429, 429]  # 2.5 s are
    assert ask(services[0], n=2).status == 200


@GPU
def test_gpu_time_that_was_used_beyond_is_owed_by_all_hosts(peer, hosts, limit):
    first, second = hosts(limit, peer("a", answer(b"hi", device_ns=14_000_000_000)), more='penstock_cost gs "n";')
    assert ask(first, n=1).status == 200
    until(lambda: ask(second, n=1).status == 429, "14 of 10 s are used")
    wait = int(ask(second, n=1).headers["Retry-After"])
    second_of_gpu = 30 * 86_400 / 10
    assert wait > 0 if limit.startswith("quota") else 5 * second_of_gpu - 60 <= wait <= 5 * second_of_gpu * 1.02


@pytest.mark.parametrize("limit", ["rate=100t/M", "quota=100t/M", "rate=100t/M algorithm=sliding_window"])
def test_a_host_that_was_told_there_is_too_little_hears_of_what_another_gives_back(peer, hosts, limit):
    gate = Gate()
    first, second = hosts(limit, peer("a", accepted("job_1"), gate, head(length=2) + chunk(b"hi") + done(completion_tokens=5)))
    client = Client(first.port)
    client._connection.request("POST", "/?key=k", json.dumps({"prompt": PROMPT, "max_tokens": 50}))
    until(gate.reached.is_set, "75 of 100 tokens are reserved on the first host")
    assert ask(second).status == 429
    gate.open()
    assert client._connection.getresponse().read() == b"hi"
    until(lambda: ask(second).status == 200, "95 are there again", 5)
    client.close()
