"""Limits that a reload changes: what was counted stays, in requests, as limit_req keeps its excess."""

import re
import signal
import socket
import time

import pytest

from client import exchange
from test_zone_file import Upgrade, durable, path, start, stop  # noqa: F401 (fixtures)
from waiting import until

TERMS = "rate=10r/m burst=5"


def server(terms, more=""):
    return f"location / {{ penstock_limit zone=edge key=$arg_key {terms} name=a; {more} empty_gif; }}"


def limited(penstock, terms, http="penstock_zone edge 1m;"):
    service = penstock(http=http, server=server(terms), master=True)
    service.http = http
    return service


def reload(service, terms):
    service.nginx.write_config(service.configuration(service.http, server(terms)))
    service.nginx.reload()


def admitted(service, most=30):
    """How many come at once before one is refused, and that one."""
    client = service.client()
    for count in range(most):
        answer = client.request("GET", "/?key=k")
        if answer.status != 200:
            return count, answer
    return most, answer


@pytest.mark.parametrize("before, after, told", [("rate=10r/m burst=5", "rate=20r/m burst=5", 3), ("rate=6r/m burst=5", "rate=60r/m burst=5", 1),
                                                 ("rate=10r/m burst=1 algorithm=leaky_bucket", "rate=20r/m burst=1 algorithm=leaky_bucket", 3)])
def test_a_raised_rate_makes_nobody_wait_longer(penstock, before, after, told):
    service = limited(penstock, before)
    count, refused = admitted(service)
    assert refused.status == 429
    reload(service, after)
    count, refused = admitted(service)
    # Some may have flowed back meanwhile: then those came at once.
    assert int(refused.headers["Retry-After"]) <= told and count <= 5


@pytest.mark.parametrize("before, after", [("rate=90r/m burst=5", "rate=9r/m burst=5"), ("rate=30r/m burst=5", "rate=30r/h burst=5"),
                                           ("rate=10r/h algorithm=fixed_window", "rate=10r/d algorithm=fixed_window"),
                                           ("rate=10r/m algorithm=sliding_window", "rate=10r/h algorithm=sliding_window"),
                                           ("rate=10r/m algorithm=sliding_log", "rate=10r/h algorithm=sliding_log"),
                                           ("quota=10r/d", "quota=10r/M"), ("rate=10r/h", "rate=10r/d algorithm=sliding_window")])
def test_a_lowered_rate_gives_nobody_more_at_once_than_was_left(penstock, before, after):
    service = limited(penstock, before)
    since = time.monotonic()
    _, refused = admitted(service)
    assert refused.status == 429
    reload(service, after)
    amount, period = re.match(r"\w+=(\d+)r/(\w)", before).groups()
    flowed = (time.monotonic() - since) * int(amount) / {"m": 60, "h": 3600, "d": 86400}[period]
    count, refused = admitted(service)
    assert refused.status == 429 and count <= int(flowed) + 1
    assert admitted(service)[0] == 0


def test_a_raised_quota_gives_the_difference_and_a_lowered_one_nothing(penstock):
    service = limited(penstock, "quota=3r/d")
    assert admitted(service)[0] == 3
    reload(service, "quota=5r/d")
    assert admitted(service)[0] == 2
    reload(service, "quota=4r/d")
    assert admitted(service)[0] == 0


def test_what_was_counted_is_carried_over_several_reloads(penstock):
    service = limited(penstock, "rate=10r/h burst=8")
    assert [service.get("/?key=k").status for _ in range(3)] == [200] * 3
    for terms in ("rate=100r/h burst=8", "rate=2r/d burst=8", "rate=20r/h burst=8", "rate=7r/h burst=8"):
        reload(service, terms)
    assert admitted(service)[0] == 5


def test_another_unit_under_the_same_name_counts_anew(penstock):
    service = limited(penstock, "rate=3r/h")
    assert admitted(service)[0] == 3
    reload(service, "rate=3t/h")
    assert service.get("/?key=k").status != 429


def test_a_rate_that_changes_while_nginx_is_down_keeps_what_was_counted(durable, path):  # noqa: F811
    service = durable()
    http = f"penstock_zone edge 1m file={path};"
    stop(service)
    service.nginx.write_config(service.configuration(http, server("rate=60r/h burst=5")))
    start(service)
    assert admitted(service)[0] == 5
    stop(service)
    service.nginx.write_config(service.configuration(http, server("rate=5r/d")))
    start(service)
    assert admitted(service)[0] == 0


@pytest.mark.parametrize("before, after, most, told", [("rate=6r/h burst=5", "rate=5r/d burst=5", 0, 86400), ("rate=6r/h burst=5", "rate=60r/m burst=5", 5, 1)],
                         ids=["lowered", "raised"])
def test_a_rate_that_changes_with_a_binary_upgrade_keeps_what_was_counted(penstock, path, before, after, most, told):  # noqa: F811
    http = f"penstock_zone edge 1m file={path};"
    service = penstock(http=http, server=server(before), start=False)
    with Upgrade(service) as nginx:
        assert admitted(service)[0] == 5
        service.nginx.write_config(service.configuration(http, server(after)))
        nginx.begin()
        assert admitted(service)[0] <= most  # by whichever of both
        nginx.end(nginx.masters[0])
        count, refused = admitted(service)
        assert count <= most and int(refused.headers["Retry-After"]) <= told


def test_an_old_worker_charges_by_the_new_rate(penstock):
    """A request whose body is still to come is judged by a worker that a reload has left behind."""
    http = "penstock_zone edge 1m;"
    rule = "location / {{ penstock_limit zone=edge key=$penstock_body_user rate={} burst=3 name=a; empty_gif; }}"
    service = penstock(http=http, server=rule.format("60r/m"), master=True)
    body = b'{"user":"k"}'
    head = b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", service.port)) as late:
        late.sendall(head + body[:5])
        assert service.get("/").status == 200  # by the same worker, which has read that head before
        old = set(service.nginx.workers())
        service.nginx.write_config(service.configuration(http, rule.format("1r/h")))
        service.nginx.process.signal(signal.SIGHUP)
        until(lambda: set(service.nginx.workers()) - old, "there is a new worker")
        late.sendall(body[5:])
        assert late.recv(4096).startswith(b"HTTP/1.1 200 ")
    said = exchange(service.port, head + body)
    told = re.search(rb'(?im)^RateLimit: "a";r=(\d+);t=(\d+)', said)
    assert (int(told[1]), int(told[2])) >= (1, 7100) and int(told[1]) == 1, said
