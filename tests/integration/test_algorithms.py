"""Limits by algorithm, and quotas by the calendar: what each admits, and when it says to come back."""

import datetime
import os
import signal
import threading
import time

import pytest

from client import Client
from structured import parse_list
from waiting import until

ZONE = "penstock_zone edge 1m;"
UTC = datetime.timezone.utc
# Three at once, whatever the algorithm.
ALGORITHMS = ["algorithm=token_bucket", "algorithm=leaky_bucket burst=3", "algorithm=sliding_window",
              "algorithm=sliding_log", "algorithm=fixed_window"]


def limited(rule, more="empty_gif;"):
    return f"location / {{ penstock_limit zone=edge key=$arg_key {rule} name=a; {more} }}"


def left(response, name="a"):
    return dict(parse_list(response.headers["RateLimit"]))[name]


def midnight(now):
    return datetime.datetime.combine(now.date() + datetime.timedelta(days=1), datetime.time(), UTC)


def end_of(period, now):
    """When the calendar's present period ends, in UTC."""
    if period == "h":
        return now.replace(minute=0, second=0, microsecond=0) + datetime.timedelta(hours=1)
    if period == "d":
        return midnight(now)
    if period == "w":
        return midnight(now + datetime.timedelta(days=6 - now.weekday()))
    return datetime.datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)


def assert_until_the_end_of(period, seconds, before, after):
    assert -1 <= seconds - (end_of(period, after) - after).total_seconds()
    assert seconds - (end_of(period, before) - before).total_seconds() <= 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("place", ["location", "tier"])
def test_each_algorithm_admits_its_limit_and_no_more(penstock, algorithm, place):
    if place == "location":
        service = penstock(http=ZONE, server=limited(f"rate=3r/d {algorithm}"))
    else:
        service = penstock(http=ZONE + f"penstock_tier a {{ rate 3r/d {algorithm} name=a; }}",
                           server="location / { penstock_limit zone=edge key=$arg_key tier=a; empty_gif; }")
    answers = [service.get("/?key=k") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [left(answer)["r"] for answer in answers] == [2, 1, 0, 0, 0]
    assert parse_list(answers[0].headers["RateLimit-Policy"]) == [("a", {"q": 3, "w": 86400})]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    assert answers[3].json()["error"]["code"] == "rate_limit_exceeded"
    assert service.get("/?key=other").status == 200


def test_a_leaky_bucket_lets_nothing_come_early_unless_told(penstock):
    service = penstock(http=ZONE, server=limited("rate=4r/m algorithm=leaky_bucket"))
    assert service.statuses(2, "/?key=k") == [200, 429]
    assert service.get("/?key=k").headers["Retry-After"] == "15"


def moments(service, seconds):
    """When each admitted request was sent, and answered, of as many as can be sent in that time."""
    client, admitted = service.client(), []
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        sent = time.monotonic()
        if client.request("GET", "/?key=k").status == 200:
            admitted.append((sent, time.monotonic()))
    return admitted


def test_a_sliding_log_admits_its_limit_in_no_window_wherever_it_begins(penstock):
    service = penstock(http=ZONE, server=limited("rate=5r/s algorithm=sliding_log"))
    admitted = moments(service, 2.3)
    assert len(admitted) >= 10
    for first, sixth in zip(admitted, admitted[5:]):
        assert sixth[1] - first[0] >= 1


def test_a_sliding_window_never_admits_twice_its_limit_at_its_border(penstock):
    service = penstock(http=ZONE, server=limited("rate=10r/s algorithm=sliding_window"))
    admitted = moments(service, 2.5)
    assert 15 <= len(admitted) <= 10 + 25
    for first, later in zip(admitted, admitted[15:]):
        assert later[1] - first[0] >= 0.5


def test_a_fixed_window_begins_with_the_second_of_the_clock(penstock):
    service = penstock(http=ZONE, server=limited("rate=2r/s algorithm=fixed_window"))
    admitted = moments(service, 2.5)
    assert 4 <= len(admitted) <= 8
    for first, third in zip(admitted, admitted[2:]):
        # Of three, two are in different seconds.
        offset = time.time() - time.monotonic()
        assert int(third[1] + offset + 0.05) > int(first[0] + offset - 0.05)


@pytest.mark.parametrize("algorithm", ["sliding_window", "sliding_log", "fixed_window"])
def test_retry_after_is_true_of_a_window(penstock, algorithm):
    service = penstock(http=ZONE, server=limited(f"rate=3r/s algorithm={algorithm}"))
    client = service.client()
    while client.request("GET", "/?key=k").status == 200:
        pass
    refused = client.request("GET", "/?key=k")
    told = time.monotonic()
    if refused.status == 200:  # the second ended just then
        return
    wait = int(refused.headers["Retry-After"])
    assert 1 <= wait <= (2 if algorithm == "sliding_window" else 1)  # a window's part that still counts may reach into the next
    # This test is about the clock: it sends at the very moment that is promised.
    time.sleep(max(0, told + wait - time.monotonic()))
    assert client.request("GET", "/?key=k").status == 200


@pytest.mark.parametrize("period", ["h", "d", "w", "M"])
def test_a_quota_ends_with_the_calendar_s_period(penstock, period):
    service = penstock(http=ZONE + f"penstock_tier free {{ quota 2r/{period}; }}",
                       server="location / { penstock_limit zone=edge key=$arg_key tier=free; empty_gif; }")
    assert service.statuses(2, "/?key=k") == [200, 200]
    before = datetime.datetime.now(UTC)
    refused = service.get("/?key=k")
    after = datetime.datetime.now(UTC)
    assert refused.status == 429
    assert_until_the_end_of(period, int(refused.headers["Retry-After"]), before, after)
    name = f"free-quota-{period}"
    assert_until_the_end_of(period, left(refused, name)["t"], before, after)
    whose = {"h": "This hour's", "d": "Today's", "w": "This week's", "M": "This month's"}[period]
    each = {"h": "an hour", "d": "a day", "w": "a week", "M": "a month"}[period]
    body = refused.json()
    assert body["detail"] == f"Plan free allows 2 requests {each}. {whose} quota is used up. Try again in {body['retry_after']} s."
    assert body["error"]["code"] == "quota_exceeded" and body["violated-policies"] == [name]


def test_an_admitted_request_is_told_when_its_quota_begins_anew(penstock):
    service = penstock(http=ZONE, server=limited("quota=2r/d"))
    before = datetime.datetime.now(UTC)
    came = service.get("/?key=k")
    assert left(came)["r"] == 1
    assert_until_the_end_of("d", left(came)["t"], before, datetime.datetime.now(UTC))


def test_limits_of_a_plan_are_named_by_what_they_are(penstock):
    service = penstock(http=ZONE + """
        penstock_tier free {
            rate 10r/s; rate 1000t/d; rate 100gs/h; rate 500r/m; rate 600r/h algorithm=sliding_log; quota 900r/d; quota 9000t/M;
            concurrency 3;
        }""", server="location / { penstock_limit zone=edge key=$arg_key tier=free; empty_gif; }")
    came = service.get("/?key=k")
    names = [name for name, _ in parse_list(came.headers["RateLimit-Policy"])]
    assert names == ["free-rate", "free-rate-tokens-d", "free-rate-gpu-h", "free-rate-m", "free-rate-h", "free-quota-d",
                     "free-quota-tokens-M", "free-concurrency"]
    assert [name for name, _ in parse_list(came.headers["RateLimit"])] == names


# --- Reload

CHANGES = [
    ("rate=3r/d", "rate=3r/d algorithm=sliding_log", [200, 200, 200, 429]),  # only a log counts anew
    ("rate=3r/d algorithm=sliding_log", "rate=3r/d", [200, 200, 200, 429]),
    ("rate=3r/d", "rate=2r/d", [429]),
    ("rate=3r/d", "rate=3r/h", [429]),
    ("rate=3r/d algorithm=sliding_log", "rate=2r/d algorithm=sliding_log", [429]),
    ("rate=3r/d algorithm=sliding_log", "rate=5r/d algorithm=sliding_log", [200, 200, 429]),
    ("quota=3r/d", "quota=2r/d", [429]),
    ("quota=3r/d", "quota=5r/d", [200, 200, 429]),
    ("quota=3r/d", "quota=3r/M", [429]),
    ("rate=3r/d", "quota=4r/d", [200, 429]),
    ("rate=3r/d algorithm=fixed_window", "quota=4r/d", [200, 429]),
]


@pytest.mark.parametrize("before, after, statuses", CHANGES, ids=[f"{b} to {a}" for b, a, _ in CHANGES])
def test_a_limit_may_change_under_its_name(penstock, before, after, statuses):
    service = penstock(master=True, http=ZONE, server=limited(before))
    assert service.statuses(4, "/?key=k") == [200, 200, 200, 429]
    service.nginx.write_config(service.configuration(ZONE, limited(after)))
    service.nginx.reload()
    assert service.statuses(len(statuses), "/?key=k") == statuses
    refused = service.get("/?key=k")
    assert refused.status == 429 and 0 < int(refused.headers["Retry-After"]) <= 31 * 86400
    # And back.
    service.nginx.write_config(service.configuration(ZONE, limited(before)))
    service.nginx.reload()
    assert service.get("/?key=k").status in (200, 429)


# --- Under load

def hammer(service, path, threads=8, each=50):
    """`threads` clients at once; returns every answer's (status, who served it)."""
    answers, gate = [], threading.Barrier(threads)

    def client():
        gate.wait()
        for _ in range(each):
            connection = Client(service.port)
            answer = connection.request("GET", path)
            answers.append((answer.status, answer.headers["X-Worker"]))
            connection.close()

    running = [threading.Thread(target=client) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return answers


@pytest.mark.parametrize("rule", ["quota=100r/M", "rate=100r/d algorithm=sliding_log", "rate=100r/M algorithm=sliding_window",
                                  "rate=100r/M algorithm=fixed_window", "quota=300t/M", "rate=300t/M", "rate=300gs/M"])
def test_two_workers_admit_exactly_the_limit_under_concurrent_load(penstock, rule):
    service = penstock(processes=2, http="penstock_zone edge 4m;", server=f"""
        add_header X-Worker $pid always;
        penstock_cost t 3;
        penstock_cost gs 3;
        location / {{
            penstock_limit zone=edge key=$arg_key {rule} name=a;
            penstock_limit zone=edge key=all quota=150r/M name=b;
            empty_gif;
        }}""")
    for key, admitted in (("x", 100), ("y", 50)):
        answers = hammer(service, f"/?key={key}", each=25)
        assert [status for status, _ in answers].count(200) == admitted
        assert len({worker for _, worker in answers}) == 2


def test_a_sliding_log_counts_on_when_a_worker_dies(penstock):
    service = penstock(master=True, http=ZONE, server=limited("rate=3r/d algorithm=sliding_log"))
    service.expected_alert = "exited on signal 9"
    assert service.statuses(2, "/?key=k") == [200, 200]
    old = service.nginx.workers()
    os.kill(old[0], signal.SIGKILL)
    until(lambda: service.nginx.workers() not in ([], old), "Nginx has started another worker")
    assert service.statuses(2, "/?key=k") == [200, 429]
