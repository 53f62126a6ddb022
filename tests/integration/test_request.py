"""What is read of a request: forms, encodings, pictures, chunks; as it comes, however it comes."""

import base64
import re
import socket
import subprocess
from pathlib import Path

import pytest

from conftest import simulate
from scripted import answer
from structured import parse_list
from waiting import Port

TOKENS = "penstock_limit zone=edge key=$arg_key rate=100000t/M name=tokens;"
PICTURE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 4096).decode()


def post(service, body, path="/?key=k", **headers):
    return service.request("POST", path, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def left(response):
    return {name: values["r"] for name, values in parse_list(response.headers["RateLimit"])}


# --- As it comes

def bytes_read(service):
    """By read() and its kin, which is how Nginx reads files; what comes from sockets is not counted."""
    files = [Path(f"/proc/{pid}/io").read_text() for pid in service.nginx.workers()]
    return sum(int(re.search(r"rchar: (\d+)", text).group(1)) for text in files)


@pytest.mark.parametrize("how", [["--http1.1"], ["--http1.1", "-H", "Transfer-Encoding: chunked"], ["--http2-prior-knowledge"],
                                 ["--http2-prior-knowledge", "-H", "Content-Length:"]],
                         ids=["length", "chunked", "http2", "http2 without a length"])
def test_a_body_that_was_spooled_is_not_read_back_for_its_fields(penstock, folder, how):
    h2 = Port()
    listen = f"listen 127.0.0.1:{h2.number} http2;" if "--http2-prior-knowledge" in how else ""
    service = penstock(http="penstock_zone edge 1m;", server=listen + """
        client_max_body_size 40m;
        client_body_buffer_size 1k;
        location / {
            penstock_limit zone=edge key=$penstock_body_user rate=10r/d name=user;
            add_header X-Found "$penstock_model $penstock_body_user $penstock_cost" always;
            """ + TOKENS.replace("$arg_key", "all") + """
            penstock_image_cost 30t;
            error_page 405 = @got;
        }
        location @got { return 200 got; }""")
    body = '{"x":[' + "{}," * 11_000_000 + '0],"model":"m","messages":[{"image_url":{"url":"%s"}}],"user":"ann","max_tokens":5}' % PICTURE
    (folder / "body").write_text(body)
    before = bytes_read(service)
    port = h2.number if listen else service.port
    said = subprocess.run(["curl", "-si", "--max-time", "60", *how, "-H", "Expect:", "-H", "Content-Type: application/json", "--data-binary",
                           f"@{folder}/body", f"http://127.0.0.1:{port}/"], capture_output=True, text=True).stdout
    h2.release()
    found = re.search(r"x-found: m ann (\d+)", said, re.I)
    assert found and 35 < int(found.group(1)) < 60, said
    assert bytes_read(service) - before < 1 << 20


def test_fields_are_found_where_a_redirect_leads_to(peer, edge):
    """The body was read where nobody asked for them."""
    service = edge(peer("a", answer(b"hi")), server="""
        client_body_buffer_size 1k;
        location / { proxy_pass http://127.0.0.1:1; error_page 502 = @late; }
        location @late { penstock_limit zone=edge key=$penstock_model rate=1r/h name=model; penstock_pass a; }""")
    body = {"pad": "x" * 100_000, "model": "m"}
    assert [post(service, body).status for _ in range(2)] == [200, 429]


# --- Forms

def form(model, size=3000, boundary="----form7d1", end="\r\n"):
    head = f'Content-Disposition: form-data; name="model"{end}{end}{model}'
    file = f'Content-Disposition: form-data; name="file"; filename="a.wav"{end}Content-Type: audio/wav{end}{end}'
    body = f"--{boundary}{end}{file}".encode() + b"RIFF\r\n--" * (size // 8) + f"{end}--{boundary}{end}{head}{end}--{boundary}--{end}".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@pytest.mark.parametrize("size", [3000, 300_000])
def test_the_model_of_a_form_is_limited_and_routed_by(penstock, size):
    service = penstock(http="penstock_zone edge 1m;", workers=[simulate(slots=4)], server="""
        client_max_body_size 1m;
        location / { penstock_limit zone=edge key=$penstock_model rate=1r/h name=model; penstock_pass gpu; }""")
    for model, first in (("whisper-1", 404), ("sim", 200)):
        body, headers = form(model, size)
        answers = [service.request("POST", "/v1/audio/transcriptions", headers, body) for _ in range(2)]
        assert answers[0].status == first, answers[0]
        assert answers[1].status == 429
    body, headers = form("sim", size, end="\n")
    assert service.request("POST", "/v1/audio/transcriptions", headers, body).status == 429


def test_a_file_of_a_form_costs_flat(peer, edge):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server="location / { %s penstock_image_cost 200t; penstock_pass a; }" % TOKENS)
    body, headers = form("m", 500_000)
    answered = service.request("POST", "/?key=k", headers, body)
    assert 100_000 - left(answered)["tokens"] == 200 + (100_000 - left(post(service, {"model": "m"}, "/?key=l"))["tokens"])
    assert engine.submits[0]["model"] == b"m"


# --- Encodings

@pytest.mark.parametrize("encoding", ["gzip", "zstd", "GZIP, br"])
@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}], ids=["waiting", "promised"])
def test_an_encoded_body_is_refused_for_that_and_costs_nothing(peer, edge, encoding, headers):
    engine = peer("a", answer(b"hi"))
    service = edge(engine, server="""
        location / { penstock_limit zone=edge key=$arg_key rate=2r/h name=calls; %s penstock_pass a; }
        location /proxied { penstock_limit zone=edge key=$penstock_model rate=1r/h name=model; empty_gif; }""" % TOKENS)
    for path in ("/?key=k", "/?key=k", "/?key=k", "/proxied"):
        refused = service.request("POST", path, {"Content-Encoding": encoding, **headers}, b"\x1f\x8b\x08 not text")
        assert refused.status == 415, refused
        assert refused.headers["Accept-Encoding"] == "identity"
        assert refused.json()["error"]["code"] == "unsupported_encoding" and "Content-Encoding" in refused.json()["detail"]
    assert not engine.submits
    assert left(post(service, {}, Content_Encoding="identity"))["calls"] == 1
    assert service.request("GET", "/?key=g", {"Content-Encoding": "gzip"}).status == 200  # there is none


# --- Pictures and sounds

@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "input_image", "image_url": PICTURE},
                                  {"type": "input_audio", "input_audio": {"data": PICTURE[22:], "format": "wav"}}],
                         ids=["image_url", "input_image", "input_audio"])
def test_a_picture_costs_flat_and_not_by_its_bytes(peer, edge, part):
    service = edge(peer("a", answer(b"hi")), server="""client_max_body_size 8m;
        location / { %s penstock_pass a; }
        location /dear { %s penstock_image_cost 5000t; penstock_pass a; }""" % (TOKENS, TOKENS))

    def cost(path, *parts):
        key = f"{path}{len(parts)}"
        content = [{"type": "text", "text": "What is this?"}, *parts]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 50}
        return 100_000 - left(post(service, body, f"{path}?key={key}"))["tokens"]
    none, one, two = (cost("/", *[part] * count) for count in range(3))
    assert none < 200
    assert 1000 <= one - none < 1040 and 1000 <= two - one < 1040
    assert 5000 <= cost("/dear", part) - none < 5040


def test_text_that_looks_like_a_picture_is_text(peer, edge):
    service = edge(peer("a", answer(b"hi")), server="location / { %s penstock_pass a; }" % TOKENS)
    body = {"messages": [{"role": "user", "content": PICTURE[:40_000]}], "max_tokens": 1}
    assert 100_000 - left(post(service, body))["tokens"] > 9000


def test_a_cost_of_pictures_that_is_none_is_refused(penstock):
    for value in ("1000", "t", "-1t", "1000r", "99999999999999t"):
        service = penstock(start=False, server=f"penstock_image_cost {value};")
        accepted, said = service.nginx.check()
        assert not accepted and f'invalid cost "{value}"' in said and "1000t" in said


# --- Chunks

def test_an_empty_chunked_body_is_no_body(penstock):
    service = penstock(http="penstock_zone edge 1m;", workers=[simulate(slots=4)], server="""
        location / { penstock_limit zone=edge key=$arg_key rate=20t/d name=few; penstock_pass gpu; }""")

    def chunked():
        with socket.create_connection(("127.0.0.1", service.port), 20) as connection:
            connection.sendall(b"GET /v1/models?key=k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                               b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            return connection.makefile("rb").read()
    assert b" 200 " in chunked()
    post(service, {"model": "sim", "prompt": "x" * 3000, "max_tokens": 20}, "/v1/completions?key=k")  # takes all there is
    assert post(service, {"model": "sim", "prompt": "x", "max_tokens": 1}, "/v1/completions?key=k").status == 429
    assert service.get("/v1/models?key=k").status == 200
    assert b" 200 " in chunked()
