"""Engine http through Nginx and penstockd: what callers see of a server behind it, and what the server sees of us."""

import json
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import flow
from processes import QueueStatus
from server import ModelServer, completion, stream, word
from waiting import until

PASS = "location / { penstock_pass gpu; }"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def server():
    """Starts servers, and ends them with the test."""
    servers = []

    def start(answer, **how):
        servers.append(ModelServer(answer, **how))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


def behind(url, **options):
    url = url if isinstance(url, str) else "[" + ", ".join(f'"{each}"' for each in url) + "]"
    return dict(name="w", engine="http", url=url, model="m", **options)


def behind_several(penstock, urls, slots):
    """A service whose worker has these urls, and `slots` at each."""
    service = penstock(start=False, server=PASS, workers=[behind(urls, slots=slots)])
    service.penstockd.start()
    service.penstockd.wait_for(slots=slots * len(urls), state=QueueStatus.OPEN)
    service.nginx.start(service.port)
    return service


def chat(service, path="/v1/chat/completions", headers=None, **more):
    return service.request("POST", path, headers, {**CHAT, **more})


def status_of(service):
    return json.loads(service.penstockd.status())


def together(count, call):
    """So many calls at once; what each returned."""
    results = [None] * count

    def one(i):
        results[i] = call()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_an_answer_comes_back_as_the_server_gave_it(penstock, server):
    upstream = server(lambda asked, reply: reply(completion(), x_request_id="r1", set_cookie="a=b"))
    service = penstock(server=PASS, workers=[behind(upstream.url, slots=2)])
    answer = chat(service)
    assert (answer.status, answer.json()) == (200, completion())
    assert answer.headers["X-Request-Id"] == "r1" and "Set-Cookie" not in answer.headers
    assert upstream.asked[0].path == "/v1/chat/completions" and upstream.asked[0].json() == CHAT


def test_the_query_and_a_few_headers_of_the_caller_reach_the_server(penstock, server):
    upstream = server(lambda asked, reply: reply(completion()))
    service = penstock(server=PASS, workers=[behind(upstream.url, headers='{ x-request-id: ours }')])
    chat(service, "/v1/chat/completions?beta=true&a=%20", headers={
        "Authorization": "Bearer secret", "Cookie": "c=1", "X-Api-Key": "k", "OpenAI-Beta": "assistants=v2", "X-Request-Id": "theirs",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    asked = upstream.asked[0]
    assert asked.path == "/v1/chat/completions?beta=true&a=%20"
    assert asked.headers["OpenAI-Beta"] == "assistants=v2" and asked.headers["traceparent"].endswith("-01")
    assert asked.headers.get_all("X-Request-Id") == ["ours"]
    assert not {"Authorization", "Cookie", "X-Api-Key"} & set(asked.headers)


def test_a_form_names_the_model_as_the_server_does(penstock, server):
    upstream = server(lambda asked, reply: reply({"text": "Hello."}))
    service = penstock(server=PASS, workers=[behind(upstream.url, upstream_model="org/whisper")])
    form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n%s\r\n--b--\r\n"
    answer = service.request("POST", "/v1/audio/transcriptions", {"Content-Type": "multipart/form-data; boundary=b"}, form % "m")
    assert answer.json() == {"text": "Hello."}
    assert upstream.asked[0].body.decode() == form % "org/whisper"


def test_a_stream_comes_back_event_by_event_without_the_usage_that_only_we_asked_for(penstock, server):
    upstream = server(lambda asked, reply: reply(stream(), type="text/event-stream"))
    service = penstock(server=PASS, workers=[behind(upstream.url)])
    answer = chat(service, stream=True)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert [event for event in answer.events() if '"usage"' in event] == []
    assert answer.events()[-1] == "[DONE]" and len(answer.events()) == 4
    assert upstream.asked[0].json()["stream_options"] == {"include_usage": True}
    told = chat(service, stream=True, stream_options={"include_usage": True})
    assert json.loads(told.events()[-2])["usage"]["completion_tokens"] == 2


def test_a_refusal_of_the_servers_is_the_callers_answer(penstock, server):
    upstream = server(lambda asked, reply: reply({"error": {"message": "too long", "code": "context"}}, status=400))
    service = penstock(server=PASS, workers=[behind(upstream.url)])
    answer = chat(service)
    assert (answer.status, answer.json()["error"]["message"]) == (400, "too long")
    assert len(upstream.asked) == 1


def test_a_job_that_was_returned_keeps_its_attempts_and_runs_once_there_is_room(penstock, server):
    said = iter([429] * 5)

    def answer(asked, reply):
        status = next(said, 200)
        return reply(completion()) if status == 200 else reply({}, status=status, retry_after_ms="20")

    upstream = server(answer)
    service = penstock(server=PASS, workers=[behind(upstream.url)], queue={"attempts": 1})
    assert chat(service).status == 200
    assert len(upstream.asked) == 6


def test_the_server_never_has_more_jobs_than_slots(penstock, server):
    def answer(asked, reply):
        time.sleep(0.02)
        reply(completion())

    upstream = server(answer)
    service = penstock(server=PASS, workers=[behind(upstream.url, slots=3)])
    answers = together(24, lambda: chat(service).status)
    assert answers == [200] * 24 and len(upstream.asked) == 24
    assert upstream.peak == 3


def test_each_url_has_the_slots_and_jobs_go_where_the_load_is_least(penstock, server):
    released = threading.Event()

    def answer(asked, reply):
        released.wait(20)
        reply(completion())

    upstreams = [server(answer) for _ in range(2)]
    service = behind_several(penstock, [each.url for each in upstreams], slots=2)
    threading.Timer(0, lambda: until(lambda: sum(each.running for each in upstreams) == 4, "all run") and released.set()).start()
    assert together(4, lambda: chat(service).status) == [200] * 4
    assert [each.peak for each in upstreams] == [2, 2]
    assert {worker["device"] for worker in status_of(service)["workers"]} == {each.url for each in upstreams}


def test_a_url_that_is_down_takes_no_job_and_the_others_do(penstock, server):
    upstream = server(lambda asked, reply: reply(completion()))
    closed = server(lambda asked, reply: None)
    closed.close()
    service = behind_several(penstock, [closed.url, upstream.url], slots=1)
    assert together(4, lambda: chat(service).status) == [200] * 4
    assert "no connection" in service.penstockd.status().decode()
    assert len(upstream.asked) == 4


def test_a_server_that_comes_up_late_is_found(penstock, server):
    upstream = server(lambda asked, reply: reply(completion()))
    port = upstream.port
    upstream.close()
    service = penstock(server=PASS, workers=[behind(upstream.url, backoff="{ first: 50ms, most: 50ms }")])
    caller = threading.Thread(target=lambda: setattr(service, "late", chat(service)))
    caller.start()
    until(lambda: "no connection" in service.penstockd.process.text(), "the url was tried")
    server(lambda asked, reply: reply(completion()), port=port)
    caller.join()
    assert service.late.status == 200


def test_a_caller_that_leaves_ends_the_servers_work(penstock, server):
    gone = threading.Event()

    def answer(asked, reply):
        def words():
            for i in range(2000):
                yield word(f"word {i} ")
                time.sleep(0.005)
        try:
            reply(words(), type="text/event-stream")
        finally:
            gone.set()

    upstream = server(answer)
    service = penstock(server=PASS, workers=[behind(upstream.url)])
    leaving = service.client().stream("POST", "/v1/chat/completions", None, {**CHAT, "stream": True})
    leaving.next_event()
    leaving.close()
    assert gone.wait(5)
    service.penstockd.wait_for(running=0)


def test_secrets_reach_the_server_and_nobody_else(penstock, server, folder):
    upstream = server(lambda asked, reply: reply(completion()))
    key = folder / "key"
    key.write_text("secret-1\n")
    key.chmod(0o600)
    service = penstock(server=PASS, workers=[behind(upstream.url, key_file=key, headers=flow({"X-Team": "secret-2"}))])
    chat(service)
    assert upstream.asked[0].headers["Authorization"] == "Bearer secret-1"
    assert upstream.asked[0].headers["X-Team"] == "secret-2"
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in service.penstockd.workers()]
    assert any("url=" + upstream.url in command for command in commands)
    shown = "".join(commands) + service.penstockd.process.text() + service.penstockd.status().decode()
    assert "secret-1" not in shown and "secret-2" not in shown
    key.write_text("secret-3\n")
    until(lambda: chat(service) and upstream.asked[-1].headers["Authorization"] == "Bearer secret-3", "the new key is used")


def test_any_path_goes_to_the_server_below_its_url(penstock, server):
    upstream = server(lambda asked, reply: reply({"path": asked.path, "type": asked.headers["Content-Type"]}))
    service = penstock(server=PASS, workers=[behind(upstream.url + "/v1", protocol="plain")])
    for path in ("/v1/embeddings", "/v1/images/generations", "/other/a%20b"):
        wanted = path if path.startswith("/v1/") else "/v1" + path
        assert service.request("POST", path, None, {"model": "m"}).json()["path"] == wanted
    form = service.request("POST", "/v1/audio/transcriptions", {"Content-Type": "multipart/form-data; boundary=x"},
                           "--x\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nen\r\n--x--\r\n")
    assert form.json()["type"] == "multipart/form-data; boundary=x"
    assert upstream.asked[-1].body.endswith(b"--x--\r\n")


def test_the_server_gets_its_own_name_of_the_model(penstock, server):
    upstream = server(lambda asked, reply: reply(completion()))
    service = penstock(server=PASS, workers=[behind(upstream.url, upstream_model="org/m-8b")])
    chat(service)
    assert upstream.asked[0].json() == {**CHAT, "model": "org/m-8b"}


def test_a_server_that_is_not_well_gets_no_job_until_it_is(penstock, server):
    well = threading.Event()

    def answer(asked, reply):
        if asked.path == "/health":
            return reply("loading", status=200 if well.is_set() else 503)
        if asked.path == "/metrics":
            return reply("vllm:num_requests_waiting{model_name=\"m\"} 0.0\nvllm:kv_cache_usage_perc 0.25\n", type="text/plain")
        reply(completion() if asked.method == "POST" else {"data": []})

    upstream = server(answer)
    service = penstock(server=PASS, workers=[behind(upstream.url, health="/health")], ready=False)
    caller = threading.Thread(target=lambda: setattr(service, "late", chat(service)))
    until(lambda: "GET /health: 503" in service.penstockd.status().decode(), "status says why")
    well.set()
    until(lambda: status_of(service)["workers"][0]["kv_blocks_used"] == 250, "its cache is shown")
    caller.start()
    caller.join()
    assert service.late.status == 200
    assert [asked.path for asked in upstream.asked if asked.method == "POST"] == ["/v1/chat/completions"]


def test_a_slot_is_not_used_again_before_the_server_says_that_its_own_is_free(penstock, server):
    """As llama.cpp's does, it reads a prompt to its end, whoever has gone."""
    busy, entered, leaves = [True], threading.Event(), threading.Event()

    def answer(asked, reply):
        if asked.path == "/slots":
            reply([{"id": 0, "is_processing": busy[0]}])
        elif asked.method == "GET":
            reply({}, Server="llama.cpp")
        elif b"long" in asked.body:
            entered.set()
            leaves.wait(20)
        else:
            reply(completion("free" if not busy[0] else "not free"))

    upstream = server(answer)
    service = penstock(server=PASS, workers=[behind(upstream.url, slots=1, health="/health")])
    with socket.create_connection(("127.0.0.1", service.port)) as asking:
        body = b'{"model":"m","prompt":"long"}'
        asking.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert entered.wait(20)
    # For longer than a slot is held where nothing is said.
    until(lambda: [asked.path for asked in upstream.asked].count("/slots") > 25, "the server is asked again and again")
    results = []
    waiting = threading.Thread(target=lambda: results.append(chat(service)))
    waiting.start()
    until(lambda: status_of(service)["queues"][0]["waiting"] == 1, "the next waits")
    busy[0] = False
    waiting.join()
    leaves.set()
    assert results[0].json() == completion("free")


def test_without_a_health_path_nothing_is_sent_but_jobs(penstock, server):
    upstream = server(lambda asked, reply: reply(completion()))
    service = penstock(server=PASS, workers=[behind(upstream.url)])
    assert chat(service).status == 200
    assert [asked.method for asked in upstream.asked] == ["POST"]


def test_tls_and_http2_are_used_where_they_are_offered_and_certificates_are_judged(penstock, server, folder):
    upstream = server(lambda asked, reply: reply(completion()))
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    front = penstock(start=False)
    port = front.free_port()
    front = penstock(server="", http=f"""
        server {{
            listen 127.0.0.1:{port} ssl http2;
            ssl_certificate {certificate}; ssl_certificate_key {key};
            location / {{ proxy_pass {upstream.url}; proxy_set_header X-Protocol $server_protocol; }}
        }}""")
    url = f"https://localhost:{port}"
    trusted = penstock(server=PASS, workers=[behind(url, ca=certificate)])
    assert chat(trusted).status == 200
    assert upstream.asked[0].headers["X-Protocol"] == "HTTP/2.0"
    doubted = penstock(server=PASS, workers=[behind(url)], queue={"deadline": "2s"})
    assert chat(doubted).status in (503, 504)
    assert len(upstream.asked) == 1 and "certificate" in doubted.penstockd.process.text()


def test_a_unix_socket_is_a_url_too(penstock, server, folder):
    upstream = server(lambda asked, reply: reply(completion()), path=folder / "model.sock")
    service = penstock(server=PASS, workers=[behind(upstream.url)])
    assert chat(service).status == 200


def test_a_slow_reader_holds_up_its_own_job_only(penstock, server):
    def answer(asked, reply):
        def words():
            for _ in range(20_000):
                yield word("x" * 1000)
                sent[0] += 1
        sent = [0]
        if asked.json().get("stream"):
            watched.append(sent)
            reply(words(), type="text/event-stream")
        else:
            reply(completion())

    watched = []
    upstream = server(answer)
    service = penstock(server=PASS, workers=[behind(upstream.url, slots=2)], limits={"max_unsent": "1MiB"})
    slow = service.client().stream("POST", "/v1/chat/completions", None, {**CHAT, "stream": True})

    def stands():
        before = watched[0][0]
        time.sleep(0.2)
        return watched[0][0] == before

    until(stands, "the server is held up")
    assert watched[0][0] < 20_000
    assert chat(service).status == 200
    assert len(slow.rest()) > 20_000_000
