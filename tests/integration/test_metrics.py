"""What penstock_metrics shows: true counts of all Nginx workers, in a form that Prometheus takes."""

import re
import shutil
import subprocess
import threading

from conftest import simulate
from scripted import Scripted, failed
from waiting import until

PAGE = "location = /metrics { penstock_metrics; }\n"
WATCH = "location = /metrics { penstock_metrics gpu; }\n"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
VALUE = r'"((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{NAME}={VALUE})(?:,{NAME}={VALUE})*)\}})? (\S+)")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count"), "counter": ("",), "gauge": ("",)}


class Page:
    """The page, read strictly: by name and labels."""

    def __init__(self, text):
        assert text.endswith("\n")
        self.types, self.samples = {}, {}
        family = None
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                family, words = line[7:].split(" ", 1)
                assert words and "\\" not in words and family not in self.types
            elif line.startswith("# TYPE "):
                name, kind = line[7:].split(" ")
                assert name == family and kind in SUFFIXES
                self.types[name] = kind
            else:
                self._add(family, line)

    def _add(self, family, line):
        found = SAMPLE.fullmatch(line)
        assert found, line
        name, labels = found[1], tuple(sorted(re.findall(rf"({NAME})={VALUE}", found[2] or "")))
        assert name in [family + suffix for suffix in SUFFIXES[self.types[family]]], line
        assert len(dict(labels)) == len(labels) and (name, labels) not in self.samples, line
        self.samples[name, labels] = float(found[found.lastindex])

    def get(self, metric, **labels):
        return self.samples.get((metric, tuple(sorted(labels.items()))))

    def all(self, metric, *labels, **fixed):
        """{values of `labels`: value} of the samples that are not 0; `fixed` are values that others have."""
        wanted = {}
        for (name, given), value in self.samples.items():
            given = dict(given)
            if name == metric and value and all(given[key] == word for key, word in fixed.items()):
                key = tuple(given[label] for label in labels)
                wanted[key if len(key) > 1 else key[0]] = value
        return wanted


def page_of(service):
    response = service.get("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Page(response.text())


def requests_of(service):
    return page_of(service).all("penstock_requests_total", "tier", "outcome")


def limits_of(service, *labels):
    return page_of(service).all("penstock_limit_requests_total", *(labels or ("limit", "outcome")))


def wait_for_requests(service, expected):
    """A request is counted at its end, which its caller may see a moment earlier."""
    until(lambda: requests_of(service) == expected, lambda: f"{expected} are counted; it is {requests_of(service)}")


TIERS = """
    penstock_zone edge 1m;
    penstock_tier free { rate 2r/h; quota 50r/d; variant cheap_b-1.2; }
    penstock_tier pro { rate 100r/h; }
"""
TIERED = PAGE + "location / { penstock_limit zone=edge key=$arg_key tier=$arg_tier; empty_gif; }\n"


def ask(service, path, count):
    """Each on a connection of its own, so that every worker has some."""
    return [service.get(path).status for _ in range(count)]


def test_requests_are_counted_by_tier_limit_and_outcome_over_all_workers(penstock):
    service = penstock(processes=2, http=TIERS, server=TIERED + """
        location /ip { penstock_limit zone=edge key=$remote_addr rate=3r/h name=ip; empty_gif; }
    """)
    assert ask(service, "/?key=a&tier=free", 5) == [200] * 2 + [429] * 3
    assert ask(service, "/?key=a&tier=pro", 7) == [200] * 7
    assert ask(service, "/ip", 8) == [200] * 3 + [429] * 5
    assert ask(service, "/?key=a&tier=none", 2) == [403] * 2
    expected = {("free", "passed"): 2, ("free", "rejected"): 3, ("pro", "passed"): 7,
                ("", "passed"): 3, ("", "rejected"): 5 + 2}
    wait_for_requests(service, expected)
    assert limits_of(service, "zone", "tier", "limit", "outcome") == {
        ("edge", "free", "free-rate", "passed"): 2, ("edge", "free", "free-rate", "rejected"): 3,
        ("edge", "free", "free-quota-d", "passed"): 2,  # when one limit refuses, the others say nothing
        ("edge", "pro", "pro-rate", "passed"): 7,
        ("edge", "", "ip", "passed"): 3, ("edge", "", "ip", "rejected"): 5}
    for _ in range(4):  # whichever worker is asked
        assert requests_of(service) == expected


def test_the_variant_is_a_label(penstock):
    service = penstock(http=TIERS, server=TIERED)
    service.get("/?key=a&tier=free")
    labels = {"tier": "free", "variant": "cheap_b-1.2", "outcome": "passed"}
    until(lambda: page_of(service).get("penstock_requests_total", **labels) == 1, "it is counted")
    assert page_of(service).get("penstock_limit_requests_total", zone="edge", limit="free-rate", **labels) == 1
    assert page_of(service).get("penstock_requests_total", **{**labels, "outcome": "rejected"}) == 0


def test_a_dry_run_counts_what_it_would_have_done(penstock):
    service = penstock(processes=2, http="penstock_zone edge 1m;", server=PAGE + """
        location / { penstock_limit zone=edge key=a rate=2r/h name=dry dry_run=on; empty_gif; }
    """)
    assert ask(service, "/", 5) == [200] * 5
    wait_for_requests(service, {("", "passed"): 2, ("", "rejected_dry_run"): 3})
    assert limits_of(service) == {("dry", "passed"): 2, ("dry", "rejected_dry_run"): 3}


def test_what_is_held_back_is_counted_as_delayed(penstock):
    service = penstock(processes=2, http="penstock_zone edge 1m;", server=PAGE + """
        location / { penstock_limit zone=edge key=a rate=1r/s name=slow action=delay max_delay=1s; empty_gif; }
    """)
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(service.get("/").status)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 429]
    wait_for_requests(service, {("", "passed"): 1, ("", "delayed"): 1, ("", "rejected"): 1})
    assert limits_of(service) == {("slow", "passed"): 1, ("slow", "delayed"): 1, ("slow", "rejected"): 1}


def test_who_may_not_be_held_back_is_counted_as_rejected_only(penstock):
    service = penstock(http="penstock_zone edge 1m; penstock_max_delayed 0;", server=PAGE + """
        location / { penstock_limit zone=edge key=a rate=1r/m name=slow action=delay max_delay=1h; empty_gif; }
    """)
    assert ask(service, "/", 2) == [200, 429]
    wait_for_requests(service, {("", "passed"): 1, ("", "rejected"): 1})
    assert limits_of(service) == {("slow", "passed"): 1, ("slow", "rejected"): 1}


def test_what_is_made_less_is_counted_as_degraded(penstock):
    service = penstock(processes=2, workers=[simulate()], http="penstock_zone edge 1m;", server=PAGE + """
        location /v1/ {
            penstock_limit zone=edge key=a rate=1r/h name=full action=degrade degrade_to=max_tokens=2;
            penstock_pass gpu;
        }""")
    assert [service.complete().status for _ in range(3)] == [200] * 3
    wait_for_requests(service, {("", "passed"): 1, ("", "degraded"): 2})
    assert limits_of(service) == {("full", "passed"): 1, ("full", "degraded"): 2}


def test_what_the_queue_refuses_is_counted_as_busy(penstock, folder):
    peer = Scripted(folder / "peer.sock", failed(503, retry_after_s=7))
    service = penstock(http=f"penstock_zone edge 1m;\nupstream peer {{ server {peer.server}; }}", server=PAGE + """
        location /v1/ { penstock_limit zone=edge key=a rate=9r/h name=a; penstock_pass peer; }
    """)
    assert service.complete().status == 503
    wait_for_requests(service, {("", "busy"): 1})
    assert limits_of(service) == {("a", "passed"): 1}
    assert not peer.close()


def test_a_request_that_is_judged_twice_is_counted_once(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=PAGE + """
        location / {
            penstock_limit zone=edge key=a rate=10r/h name=before;
            penstock_limit zone=edge key=$arg_key rate=2r/h name=after stage=access;
            try_files /nothing /gif;
        }
        location = /gif { empty_gif; }
    """)
    assert ask(service, "/?key=b", 3) == [200, 200, 429]
    assert ask(service, "/", 1) == [200]  # of the later ones none applies
    wait_for_requests(service, {("", "passed"): 3, ("", "rejected"): 1})


def test_a_reload_keeps_what_was_counted(penstock):
    service = penstock(processes=2, http=TIERS, server=TIERED)
    ask(service, "/?key=a&tier=free", 3)
    wait_for_requests(service, {("free", "passed"): 2, ("free", "rejected"): 1})
    before = page_of(service).samples
    service.nginx.reload()
    assert page_of(service).samples == before
    ask(service, "/?key=a&tier=free", 1)
    wait_for_requests(service, {("free", "passed"): 2, ("free", "rejected"): 2})


def test_an_old_worker_and_a_new_one_count_beside_each_other(penstock):
    service = penstock(master=True, http="penstock_zone edge 1m;", server=PAGE + """
        location / { penstock_limit zone=edge key=a rate=1r/s burst=1 name=slow action=delay max_delay=9s; empty_gif; }
        location /other { penstock_limit zone=edge key=a rate=100r/h name=other; empty_gif; }
    """)
    assert ask(service, "/", 1) == [200]
    statuses = []
    held_back = [threading.Thread(target=lambda: statuses.append(service.get("/").status)) for _ in range(3)]
    for thread in held_back:
        thread.start()
    until(lambda: limits_of(service).get(("slow", "delayed")) == 3, lambda: f"they wait; it is {limits_of(service)}")
    service.nginx.reload()
    assert ask(service, "/other", 20) == [200] * 20
    for thread in held_back:
        thread.join()
    assert statuses == [200] * 3
    wait_for_requests(service, {("", "passed"): 21, ("", "delayed"): 3})
    assert limits_of(service) == {("slow", "passed"): 1, ("slow", "delayed"): 3, ("other", "passed"): 20}


def test_a_reload_to_other_tiers_goes_on_with_those_that_stay(penstock):
    service = penstock(processes=2, http=TIERS, server=TIERED)
    ask(service, "/?key=a&tier=free", 3)
    ask(service, "/?key=a&tier=pro", 1)
    wait_for_requests(service, {("free", "passed"): 2, ("free", "rejected"): 1, ("pro", "passed"): 1})
    other = "penstock_tier {} {{ rate 5r/h name={}; }}\n"
    service.nginx.write_config(service.configuration(
        "penstock_zone edge 1m;\n" + other.format("first", "f") + other.format("pro", "pro-rate"), TIERED))
    assert service.nginx.check()[0]
    assert page_of(service).get("penstock_requests_total", tier="first", variant="", outcome="passed") is None
    service.nginx.reload()
    assert page_of(service).get("penstock_requests_total", tier="first", variant="", outcome="passed") == 0
    ask(service, "/?key=a&tier=first", 1)
    ask(service, "/?key=a&tier=pro", 1)
    wait_for_requests(service, {("free", "passed"): 2, ("free", "rejected"): 1,  # shown for one more reload
                                ("first", "passed"): 1, ("pro", "passed"): 2})
    service.nginx.reload()
    assert requests_of(service) == {("first", "passed"): 1, ("pro", "passed"): 2}


def test_the_decision_time_is_a_histogram_of_about_all_requests(penstock):
    service = penstock(http="penstock_zone edge 1m;", server=PAGE + """
        location / { penstock_limit zone=edge key=a rate=1000r/s name=a; empty_gif; }
    """)
    service.statuses(64, "/")
    page = page_of(service)
    buckets = [value for (name, _), value in page.samples.items() if name == "penstock_decision_seconds_bucket"]
    assert buckets == sorted(buckets) and buckets[-1] == page.get("penstock_decision_seconds_count") == 64
    assert 64 * 20e-9 < page.get("penstock_decision_seconds_sum") < 64 * 10e-3


def test_a_zone_that_fills_up_shows_it(penstock):
    service = penstock(http="penstock_zone edge 32k;\npenstock_zone other 32k;", server=PAGE + """
        location /live { penstock_limit zone=edge key=$arg_key rate=1r/h name=hour; empty_gif; }
        location /idle { penstock_limit zone=other key=$arg_key rate=100000r/s burst=1 name=moment; empty_gif; }
    """)

    def slots(zone):
        return page_of(service).all("penstock_zone_slots", "state", zone=zone)

    empty = slots("edge")
    assert set(empty) == {"empty"} and empty["empty"] % 16 == 0
    client = service.client()
    statuses = [client.request("GET", f"/live?key={i}").status for i in range(int(empty["empty"]) + 500)]
    refused = statuses.count(503)
    assert refused >= 500 and set(statuses) == {200, 503}
    page = page_of(service)
    assert slots("edge").get("live") == statuses.count(200)
    assert sum(slots("edge").values()) == empty["empty"]
    assert page.get("penstock_zone_full_total", zone="edge") == refused
    assert page.get("penstock_zone_full_total", zone="other") == 0
    assert page.get("penstock_zone_bytes", zone="edge") == 32768
    wait_for_requests(service, {("", "passed"): statuses.count(200), ("", "busy"): refused})

    assert {client.request("GET", f"/idle?key={i}").status for i in range(len(statuses))} == {200}
    page = page_of(service)
    assert page.get("penstock_zone_evictions_total", zone="other") >= 500
    assert page.get("penstock_zone_evictions_total", zone="edge") == 0
    assert slots("other")["idle"] > 0


def test_a_large_zone_is_read_in_part_and_told_in_full(penstock):
    service = penstock(http="penstock_zone edge 16m;", server=PAGE + """
        location / { penstock_limit zone=edge key=$arg_key rate=1r/h name=a; empty_gif; }
    """)
    slots = page_of(service).all("penstock_zone_slots", "state")
    assert set(slots) == {"empty"} and 15 << 16 < slots["empty"] <= 16 << 16
    client = service.client()
    for i in range(3000):
        client.request("GET", f"/?key={i}")
    filled = page_of(service).all("penstock_zone_slots", "state")
    assert sum(filled.values()) == slots["empty"]
    assert 1500 < filled["live"] < 4500  # one in 16 of them was seen


def test_the_queue_of_a_penstockd_is_shown_while_it_lives(penstock):
    service = penstock(processes=2, workers=[simulate(slots=2, service_time="100ms")],
                       server=WATCH + "location /v1/ { penstock_pass gpu; }")
    socket = str(service.penstockd.socket)
    queue = {"socket": socket, "queue": "default"}

    def until_shown(**expected):
        def shown():
            page = page_of(service)
            return {name: page.get(f"penstock_queue_{name}", **queue) for name in expected} == expected
        until(shown, f"{expected} are shown")

    until_shown(length=0, running=0, slots=2)
    streams = [service.stream(max_tokens=200) for _ in range(3)]
    until_shown(length=1, running=2, slots=2)
    page = page_of(service)
    assert page.get("penstock_up", socket=socket) == 1
    assert page.get("penstock_queue_predicted_wait_seconds", **queue) >= 0
    for stream in streams:
        stream.close()
    until_shown(length=0, running=0)
    service.penstockd.kill()
    until(lambda: page_of(service).get("penstock_up", socket=socket) == 0, "its death is shown")
    assert page_of(service).get("penstock_queue_length", **queue) is None


def test_a_penstockd_that_never_was_is_down(penstock):
    service = penstock(server=WATCH)
    assert page_of(service).all("penstock_up", "socket") == {}
    assert page_of(service).get("penstock_up", socket=f"{service.folder}/nobody.sock") == 0


def test_a_sockets_path_is_escaped(penstock):
    service = penstock(http=r'upstream odd { server "unix:/tmp/a\"b\\c"; }',
                       server="location = /metrics { penstock_metrics odd; }")
    assert page_of(service).get("penstock_up", socket=r'/tmp/a\"b\\c') == 0


def test_costs_are_counted_once_however_many_limits_they_are_under(penstock):
    service = penstock(processes=2, workers=[simulate(slots=2, service_time="20ms")],
                       http="penstock_zone edge 1m;\npenstock_tier free { rate 9000t/d; rate 90gs/d name=gpu; }",
                       server=PAGE + """
        location /v1/ {
            penstock_limit zone=edge key=a tier=free;
            penstock_limit zone=edge key=all rate=90000t/d name=site;
            penstock_pass gpu;
        }""")

    def cost(unit):
        return page_of(service).all("penstock_cost_total", "event", unit=unit)

    usage = service.complete(prompt="a b c", max_tokens=100).json()["usage"]["total_tokens"]
    until(lambda: "settled" in cost("tokens"), "what was used is counted")
    tokens = cost("tokens")
    assert tokens["settled"] == usage
    assert tokens["reserved"] == tokens["settled"] + tokens.get("refunded", 0)
    gpu = cost("gpu_seconds")
    assert gpu["reserved"] == 1  # of a model that nothing is known of
    assert 0.99 < gpu.get("settled", 0) + gpu["refunded"] < 1.01

    # What it took is what the next one is reckoned at.
    service.complete(prompt="a b c", max_tokens=100)
    until(lambda: cost("tokens").get("settled") == 2 * usage, "the second is settled too")
    assert cost("gpu_seconds")["reserved"] < 1.9


def test_prometheus_takes_the_page(penstock):
    service = penstock(workers=[simulate()], http=TIERS, server=TIERED.replace(PAGE, WATCH))
    ask(service, "/?key=a&tier=free", 40)
    until(lambda: page_of(service).get("penstock_queue_slots", socket=str(service.penstockd.socket),
                                       queue="default"), "the queue is shown")
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: scripts/setup test installs it"
    checked = subprocess.run([promtool, "check", "metrics"], input=service.get("/metrics").body, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_the_page_is_read_by_get_and_head_only(penstock):
    service = penstock(http=TIERS, server=TIERED)
    whole, head = service.get("/metrics"), service.request("HEAD", "/metrics")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"] == str(len(whole.body))
    refused = service.request("POST", "/metrics", body="a")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_blocks_inside_the_location_show_the_same_page(penstock):
    service = penstock(server="""
        location = /metrics {
            penstock_metrics gpu;
            if ($arg_if) { set $x 1; }
            limit_except GET { deny all; }
        }
        location = /other { penstock_metrics gpu; limit_except POST { allow all; } }
    """)
    pages = [Page(service.get(path).text()) for path in ("/metrics", "/metrics?if=1", "/other")]
    assert [page.get("penstock_up", socket=f"{service.folder}/nobody.sock") for page in pages] == [0, 0, 0]
    assert service.request("POST", "/metrics").status == 403


def test_without_limits_the_page_is_empty_but_there(penstock):
    service = penstock(server=PAGE)
    assert page_of(service).samples == {}


def refused(service, server):
    service.nginx.write_config(service.configuration("", server))
    accepted, said = service.nginx.check()
    assert not accepted
    return said


def test_a_location_answers_one_thing(penstock):
    service = penstock(start=False)
    assert "is duplicate" in refused(service, "location / { penstock_metrics; penstock_metrics; }")
    assert "another directive" in refused(service, "location / { penstock_pass gpu; penstock_metrics; }")
    assert "upstream \"nobody\"" in refused(service, "location / { penstock_metrics nobody; }")


def test_more_series_than_there_is_room_for_are_told_of_and_the_rest_is_counted(penstock):
    tiers = "".join(f"penstock_tier t{i} {{ {' '.join(f'rate {n}r/m name=t{i}-{n};' for n in range(1, 9))} }}\n"
                    for i in range(500))
    service = penstock(master=True, http="penstock_zone edge 16m;\n" + tiers, server=TIERED)
    assert re.search(r"\[warn\] .* series of metrics, and there is room for 8192", service.nginx.log())
    assert ask(service, "/?key=a&tier=t499", 2) == [200, 429]
    wait_for_requests(service, {("t499", "passed"): 1, ("t499", "rejected"): 1})
    assert limits_of(service) == {}  # that was among the last
    assert ask(service, "/?key=a&tier=t0", 2) == [200, 429]
    assert limits_of(service)["t0-1", "rejected"] == 1

    # So much less needs less memory: that is other memory, and all counts start anew in it.
    service.nginx.write_config(service.configuration(TIERS, TIERED))
    service.nginx.reload()
    assert requests_of(service) == {}
    ask(service, "/?key=b&tier=free", 1)
    wait_for_requests(service, {("free", "passed"): 1})


def test_names_too_long_for_a_series_are_told_of(penstock):
    long = "x" * 64
    service = penstock(http=f"penstock_zone {long} 1m;\npenstock_tier {long} {{ rate 1r/h name={long}; }}",
                       server=PAGE + f"location / {{ penstock_limit zone={long} key=a tier={long}; empty_gif; }}")
    assert "is not counted: use shorter names" in service.nginx.log()
    assert ask(service, "/", 2) == [200, 429]
    wait_for_requests(service, {(long, "passed"): 1, (long, "rejected"): 1})
