"""Lists of jobs that hosts share: owners', operators' and of dead letters, on each host the same; and who asks the same."""

import json
import subprocess
import threading

from processes import BUILD
from shared_hosts import ALICE, BOB, BODY, SLOW, ask, get, host, in_line, job, post, promise, redis, until_known, until_one_runs, until_open, until_status, waiting_caller, worker  # noqa: F401
from waiting import until


def ids(service, query="", who=ALICE):
    return [each["id"] for each in get(service, "/jobs" + query, who).json()["data"]]


def ctl(service, *words):
    done = subprocess.run([BUILD / "penstockctl", *words, "-s", service.penstockd.socket], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def test_an_owner_sees_its_jobs_on_each_host(host):  # noqa: F811
    edge, gpu = host(state=False), host(worker())
    done = [until_known(edge)] + [promise(service).json()["id"] for service in (edge, gpu, edge)]
    bobs = promise(edge, **BOB).json()["id"]
    later = promise(gpu, Penstock_Delay="60").json()["id"]
    for id in done:
        until_status(edge, id, "completed")
    for service in (edge, gpu):
        assert ids(service) == sorted([*done, later], reverse=True)
        assert ids(service, who=BOB) == [bobs] and ids(service, who={"Authorization": "nobody"}) == []
        assert ids(service, "?status=scheduled") == [later] and ids(service, "?status=completed") == sorted(done, reverse=True)
        assert get(service, "/jobs", {}).json()["data"] == []
        pages, after = [], ""
        while True:
            page = get(service, f"/jobs?limit=2{after}").json()
            pages += [each["id"] for each in page["data"]]
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert pages == ids(service)


def test_lists_say_where_jobs_stand(host):  # noqa: F811
    edge, gpu = host(), host(worker(SLOW))
    until_known(edge)
    until_one_runs(gpu)
    waiting = [promise(service).json()["id"] for service in (edge, gpu, edge)]
    for service in (edge, gpu):
        listed = {each["id"]: each for each in get(service, "/jobs").json()["data"]}
        assert [listed[id]["position"] for id in waiting] == [1, 2, 3]
        assert sorted(each["status"] for each in listed.values()) == ["processing", "queued", "queued", "queued"]


def test_what_is_not_kept_any_more_leaves_the_lists(host, redis):  # noqa: F811
    edge, gpu = host(), host(worker())
    first = until_known(edge)
    second = promise(edge).json()["id"]
    until_status(edge, second, "completed")
    redis.ask("DEL", f"penstock:q1:{{default}}:j|{first}")
    assert ids(gpu) == [second]
    redis.ask("DEL", f"penstock:q1:{{default}}:j|{second}")
    until(lambda: not redis.ask("KEYS", "penstock:q1:{default}:u*"), "nothing is left of the lists", 20)


def test_one_stream_tells_of_all_of_an_owners_jobs(host):  # noqa: F811
    edge, gpu = host(state=False), host(worker("300ms"))
    first = until_known(edge)
    until_status(edge, first, "completed")
    told, ready = [], threading.Event()
    stream = gpu.client().stream("GET", "/jobs/events", ALICE)

    def listen():
        for data in map(json.loads, stream.events()):
            told.append(data)
            ready.set()
            if data.get("status") == "completed":
                return

    listener = threading.Thread(target=listen)
    listener.start()
    assert ready.wait(10) and [each["id"] for each in told[0]["jobs"]] == [first]
    promise(edge, **BOB)
    second = promise(edge).json()["id"]
    listener.join(20)
    assert not listener.is_alive()
    assert {data["id"] for data in told[1:] if "id" in data} == {second} and told[-1]["status"] == "completed"


def test_operators_see_everybodys_jobs_and_the_dead_on_each_host(host):  # noqa: F811
    edge = host(attempts=1)
    gpu = host(worker(), worker(name="bad", failure_rate=1), attempts=1)
    good = until_known(edge)
    bad = promise(edge, {**BODY, "model": "bad"}).json()["id"]
    bobs = promise(gpu, **BOB).json()["id"]
    for id, status in ((good, "completed"), (bad, "failed")):
        until_status(edge, id, status)
    until(lambda: job(gpu, bobs, BOB)["status"] == "completed", "bob's is done")
    for service in (edge, gpu):
        assert {each["id"] for each in json.loads(ctl(service, "jobs", "--json"))["data"]} == {good, bad, bobs}
        assert [each["id"] for each in json.loads(ctl(service, "jobs", "--json", "--owner", "Bearer bob"))["data"]] == [bobs]
        assert [each["id"] for each in json.loads(ctl(service, "dead", "--json"))["data"]] == [bad]
        shown = json.loads(ctl(service, "dead", "show", bad, "--json"))
        assert json.loads(shown["request"]["body"])["model"] == "bad" and shown["attempts"] == 1


def test_a_dead_letter_is_queued_again_or_dropped_on_any_host(host):  # noqa: F811
    edge, gpu = host(attempts=1), host(worker(), worker(name="bad", failure_rate=1), attempts=1)
    until_known(edge, "bad")
    first, second = (promise(edge, {**BODY, "model": "bad"}).json()["id"] for _ in range(2))
    for id in (first, second):
        until_status(edge, id, "failed")
    gpu.penstockd.stop()
    assert "queued again" in ctl(edge, "dead", "requeue", first)
    assert job(edge, first)["status"] == "queued" and ids(edge, "?status=queued") == [first]
    assert "is dropped" in ctl(edge, "dead", "drop", second)
    assert get(edge, f"/jobs/{second}").status == 404
    other = host(worker(name="bad"), attempts=1)
    assert until_status(other, first, "completed")["attempts"] == 0
    assert first not in ctl(edge, "dead") and "no dead letter" in ctl(edge, "dead", "requeue", first)


def test_what_hosts_that_died_ran_too_often_is_dead_and_queued_again(host):  # noqa: F811
    edge, gpu = host(attempts=1), host(worker(SLOW), attempts=1)
    id = until_known(edge)
    until_one_runs(gpu)
    gpu.penstockd.kill()
    until_status(edge, id, "failed", 25)
    assert "queued again" in ctl(edge, "dead", "requeue", id)
    other = host(worker(), attempts=1)
    assert until_status(other, id, "completed")


# ---- who asks the same

DEDUPE = """\
penstock_owner $http_authorization;
location /v1/ { penstock_dedupe on; penstock_pass gpu; }
location /reject/v1/ { penstock_dedupe on on_duplicate=reject; rewrite ^/reject(.*)$ $1 break; penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
"""


def test_who_asks_the_same_on_another_host_joins_the_job_that_is_there(host, redis):  # noqa: F811
    edge, gpu = host(server=DEDUPE), host(worker("2s"), server=DEDUPE)
    until_known(edge)
    until_known(gpu)
    first = promise(edge, {**BODY, "prompt": "the same"})
    again = promise(gpu, {**BODY, "prompt": "the same"})
    assert (again.json()["id"], again.headers["Penstock-Duplicate"]) == (first.json()["id"], "true")
    assert promise(gpu, {**BODY, "prompt": "another"}).json()["id"] != first.json()["id"]
    assert promise(gpu, {**BODY, "prompt": "the same"}, **BOB).json()["id"] != first.json()["id"]
    until_status(gpu, first.json()["id"], "completed")
    fresh = promise(gpu, {**BODY, "prompt": "the same"})
    assert fresh.json()["id"] != first.json()["id"] and fresh.headers["Penstock-Duplicate"] is None


def test_who_may_not_ask_the_same_twice_is_refused_on_another_host(host):  # noqa: F811
    edge, gpu = host(server=DEDUPE), host(worker(SLOW), server=DEDUPE)
    until_known(edge)
    until_known(gpu)
    promise(edge, {**BODY, "prompt": "the same"})
    refused = gpu.request("POST", "/reject/v1/completions", {**ALICE, "Prefer": "respond-async"}, {**BODY, "prompt": "the same"})
    assert (refused.status, refused.json()["error"]["code"]) == (409, "duplicate")


def test_an_earlier_answer_is_had_on_each_host(host):  # noqa: F811
    server = """\
penstock_owner $http_authorization;
location /v1/ { penstock_limit zone=edge key=$http_held rate=1r/h burst=1 name=one action=degrade degrade_to=earlier; penstock_pass gpu; }
location /jobs { penstock_jobs gpu; }
"""
    edge, gpu = host(server=server), host(worker(), server=server)
    until_known(gpu)
    until_open(edge)
    until_open(gpu)
    asked = {**BODY, "prompt": "the same"}
    first = post(edge, {"Held": "a"}, asked)
    assert first.status == 200 and first.headers["Age"] is None
    for service in (edge, gpu):
        post(service, {"Held": "b" + str(service.port)}, {**BODY, "prompt": "else"})
        again = until(lambda: (reply := post(service, {"Held": "b" + str(service.port)}, asked)).status == 200 and reply, "it is known")
        assert again.headers["Penstock-Degraded"] == "earlier" and again.body == first.body
        refused = post(service, {"Held": "b" + str(service.port), **BOB}, asked)
        assert refused.status == 429
