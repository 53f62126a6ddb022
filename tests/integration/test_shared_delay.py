"""What is held back, degraded, judged after access, or comes over HTTP/2, where hosts share limits."""

import threading
import time

import pytest

from hosts import PATIENT, counted, counted_by_all, until_they_know_each_other
from scripted import answer
from test_http2 import HEADERS, Http2
from waiting import until


@pytest.fixture
def hosts(penstock, redis):
    def build(server, http="", options=PATIENT, count=2, **parts):
        services = [penstock(http=f"penstock_zone edge 1m redis={redis.address} {options};\n{http}",
                             server=f"{server}\nlocation = /metrics {{ penstock_metrics; }}", **parts) for _ in range(count)]
        until_they_know_each_other(services)
        return services
    return build


DELAY = "location / { penstock_limit zone=edge key=$arg_key rate=%s name=a action=delay max_delay=%s; empty_gif; }"


def at_once(services, each, path="/?key=a"):
    """(status, when it was answered) of so many requests to each at once, by time."""
    began, answers = time.monotonic(), []

    def ask(service):
        status = service.get(path).status
        answers.append((time.monotonic() - began, status))
    threads = [threading.Thread(target=ask, args=(service,)) for service in services for _ in range(each)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [(status, at) for at, status in sorted(answers)]


@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket"])
def test_hosts_hold_requests_back_in_one_line(hosts, algorithm):
    services = hosts(DELAY % (f"10r/s burst=2 algorithm={algorithm}", "5s"))
    answers = at_once(services, 5)
    assert [status for status, _ in answers] == [200] * 10
    for number, (_, at) in enumerate(answers):
        assert at >= (number - 1) * 0.1 - 0.02  # two at once, then one every 100 ms, wherever they came
    assert answers[-1][1] < 8 * 0.1 + 1.5
    assert counted_by_all(services, "penstock_lease_charges_total", how="alone") == 0


def test_who_would_be_held_back_too_long_is_refused_with_a_true_wait(hosts):
    first, second = hosts(DELAY % ("6r/m burst=1", "11s"))
    assert first.get("/?key=a").status == 200
    waiting = threading.Thread(target=lambda: first.get("/?key=a"))
    waiting.start()
    until(lambda: counted(first, "penstock_lease_charges_total", how="waited") == 2, "one is held back for 10 s")
    refused = second.get("/?key=a")
    assert refused.status == 429 and 8 <= int(refused.headers["Retry-After"]) <= 10
    waiting.join()


def test_a_limit_that_refuses_and_one_that_holds_back_count_together(hosts):
    server = """location / { penstock_limit zone=edge key=$arg_key rate=4r/s burst=1 name=a; empty_gif; }
        location /wait { penstock_limit zone=edge key=$arg_key rate=4r/s burst=1 name=a action=delay max_delay=5s; empty_gif; }"""
    first, second = hosts(server)
    held = []
    threads = [threading.Thread(target=lambda: held.append(first.get("/wait?key=a").status)) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: counted(first, "penstock_lease_charges_total", how="waited") == 4, "they have their turns")
    assert second.get("/?key=a").status == 429
    for thread in threads:
        thread.join()
    assert held == [200] * 4


def test_without_redis_each_host_holds_back_by_its_share(hosts, redis):
    services = hosts(DELAY % ("10r/s burst=2", "5s"), options="timeout=20ms")
    redis.stop_answering()
    until(lambda: not any(counted(service, "penstock_lease_up") for service in services), "all have given Redis up")
    answers = at_once(services[:1], 4)
    redis.go_on()
    assert [status for status, _ in answers] == [200] * 4
    assert answers[-1][1] >= 3 * 0.2 - 0.02  # five a second, one at once


def test_a_degraded_request_asks_and_is_degraded_by_what_all_have_used(peer, hosts):
    engine = peer("a", answer(b"hi"))
    services = hosts("""location / { penstock_limit zone=edge key=$arg_key rate=1r/h name=a action=degrade degrade_to=model=small;
        penstock_pass engine; }""", f"upstream engine {{ server {engine.server}; keepalive 8; }}")
    first, second = [service.request("POST", "/?key=k", None, {"model": "large", "prompt": "x"}) for service in services]
    assert (first.status, second.status) == (200, 200)
    assert "Penstock-Degraded" not in first.headers and "model" in second.headers["Penstock-Degraded"]
    assert engine.submits[1]["model"] == b"small"


def test_what_is_judged_after_access_asks_then(hosts):
    first, second = hosts("""
        location / { auth_request /may; penstock_limit zone=edge key=$arg_key rate=2r/h name=a stage=access; empty_gif; }
        location = /may { internal; if ($http_who != "me") { return 403; } return 204; }""")
    assert [service.get("/?key=a", Who="other").status for service in (first, second)] == [403, 403]
    assert [service.get("/?key=a", Who="me").status for service in (first, second, first)] == [200, 200, 429]


@pytest.mark.parametrize("limit,passed", [("rate=4r/m", 4), ("rate=4r/s action=delay max_delay=5s", 6)])
def test_streams_of_one_http2_connection_wait_and_are_counted_each(hosts, folder, limit, passed):
    h2 = Http2(folder)
    first, = hosts(f"{h2.listen} location / {{ penstock_limit zone=edge key=$arg_key {limit} name=a; empty_gif; }}", count=1)
    connection = h2.connect()
    streams = range(1, 12, 2)
    for stream in streams:
        connection.ask(stream, "/?key=a", method="GET", ends=True)
    begun = {}
    while len(begun) < len(streams):
        kind, _, stream, payload = connection.receive()
        if kind == HEADERS:
            begun[stream] = payload
    connection.close()
    assert sum(b"\x88" in payload[:2] for payload in begun.values()) == passed  # :status 200, as HPACK's table has it
    assert counted(first, "penstock_lease_charges_total", how="waited") == passed
    assert counted(first, "penstock_lease_charges_total", how="alone") == 0
