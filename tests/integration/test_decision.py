"""Limits for services that stand behind something else: penstock_decide, penstock_settle, and the clients in config/clients."""

import json
import re
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from waiting import until

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "config" / "clients"
DECIDES, ASKS = re.findall(r"^```nginx[^\n]*\n(.*?)^```", (ROOT / "docs" / "DECISIONS.md").read_text(), re.M | re.S)
sys.path.insert(0, str(CLIENTS))
from penstock_limits import Charge, Refused  # noqa: E402

HTTP = """\
penstock_zone edge 1m;
penstock_tier free { rate 5r/m; rate 1000t/m name=tokens; rate 10gs/m name=gpu; concurrency 2; }
penstock_tier large { rate 1000r/s; rate 100000t/s; concurrency 2; }
"""
SERVER = re.sub("listen .*", "", DECIDES) + """\
location = /rate { penstock_limit zone=edge key=$http_penstock_caller rate=3r/m name=plain; penstock_decide; }
location = /quota { penstock_limit zone=edge key=$http_penstock_caller tier=$http_penstock_plan; penstock_quota; }
"""


@pytest.fixture
def edge(penstock):
    return penstock(http=HTTP, server=SERVER, processes=2)


def decide(edge, caller="a", plan="free", path="/decide", **more):
    return edge.request("GET", path, {"Penstock-Caller": caller, "Penstock-Plan": plan,
                                      **{f"Penstock-{name.replace('_', '-')}": str(value) for name, value in more.items()}})


def settle(edge, receipt, method="POST", **used):
    return edge.request(method, "/settle", {"Penstock-Receipt": receipt,
                                            **{f"Penstock-{name.replace('_', '-')}": str(value) for name, value in used.items()}})


def left(edge, name, caller="a", plan="free"):
    told = edge.request("GET", "/quota", {"Penstock-Caller": caller, "Penstock-Plan": plan}).json()
    return next(limit["remaining"] for limit in told["limits"] if limit["name"].endswith(name))


def in_use(edge, caller="a", plan="free"):
    return edge.request("GET", "/quota", {"Penstock-Caller": caller, "Penstock-Plan": plan}).json()["concurrency"]["in_use"]


def test_a_decision_has_all_the_headers_of_an_answer(edge):
    good = decide(edge, tokens=100)
    assert good.status == 200 and good.json() == {"allowed": True}
    assert good.headers["RateLimit"] and good.headers["Penstock-Receipt"] and good.headers["Cache-Control"] == "no-store"
    settle(edge, good.headers["Penstock-Receipt"])
    over = decide(edge, tokens=950)
    assert over.status == 429 and int(over.headers["Retry-After"]) >= 1
    assert over.json()["error"]["code"] == "rate_limit_exceeded" and "Penstock-Receipt" not in over.headers
    assert decide(edge, tokens=1001).status == 400  # never, whenever it comes
    assert decide(edge, tokens="many").status == 400
    assert decide(edge, tokens=-1).status == 400
    assert decide(edge, plan="none").status == 403


def test_where_nothing_is_to_be_settled_there_is_no_receipt(edge):
    assert [decide(edge, path="/rate").status for _ in range(4)] == [200, 200, 200, 429]
    assert "Penstock-Receipt" not in decide(edge, "b", path="/rate").headers


def test_what_was_used_takes_the_place_of_what_was_asked_for_once(edge):
    receipt = decide(edge, tokens=600, gpu_seconds=4).headers["Penstock-Receipt"]
    assert (left(edge, "tokens"), in_use(edge)) == (400, 1)
    for _ in range(2):
        assert settle(edge, receipt, tokens=100, gpu_ms=1500).status == 200
        assert left(edge, "tokens") in (900, 901) and in_use(edge) == 0
    assert 8 <= left(edge, "gpu") < 9
    # Said nothing, it was as asked for; and more than that may have been used.
    settle(edge, decide(edge, "b", tokens=600).headers["Penstock-Receipt"])
    assert left(edge, "tokens", "b") in (400, 401, 402)
    settle(edge, decide(edge, "c", tokens=100).headers["Penstock-Receipt"], tokens=700)
    assert left(edge, "tokens", "c") in (300, 301, 302)


def test_what_came_to_nothing_is_given_back_once(edge):
    first = decide(edge, tokens=600).headers["Penstock-Receipt"]
    second = decide(edge, tokens=300).headers["Penstock-Receipt"]
    assert decide(edge).status == 429  # two at once
    for _ in range(3):
        assert settle(edge, first, "DELETE").status == 200
        assert left(edge, "tokens") in (700, 701, 702) and in_use(edge) == 1
    settle(edge, second, tokens=0)
    assert in_use(edge) == 0


def test_who_says_nothing_more_holds_a_place_for_ten_seconds_and_who_does_for_as_long(edge):
    kept, lost = (decide(edge, plan="large").headers["Penstock-Receipt"] for _ in range(2))
    assert decide(edge, plan="large").status == 429

    def keep():
        nonlocal kept
        kept = settle(edge, kept, "PUT").headers["Penstock-Receipt"]
        return in_use(edge, plan="large") == 1
    until(keep, "what nobody has renewed has lapsed", 25)
    settle(edge, lost)  # too late, and nothing comes of it
    assert in_use(edge, plan="large") == 1
    settle(edge, kept)
    assert in_use(edge, plan="large") == 0


def test_a_receipt_is_ours_or_is_refused(edge):
    receipt = decide(edge, tokens=600).headers["Penstock-Receipt"]
    changed = ("B" if receipt[30] == "A" else "A").join((receipt[:30], receipt[31:]))
    for wrong in ("", "A", "!" * 40, receipt[:-2], receipt + "AAAA", changed, "A" * 20_000):
        assert settle(edge, wrong, tokens=0).status in (400, 414), wrong
    assert settle(edge, receipt, tokens="few").status == 400
    assert edge.request("GET", "/settle").status == 405
    assert left(edge, "tokens") in (400, 401) and in_use(edge) == 1


def aged(path, seconds):
    """A zone's file as if it had been written so long ago: the table that is made of it goes on by as much."""
    data, at, chain = bytearray(path.read_bytes()), 0, None
    secret = bytes(data[32:48])
    data[56:64] = struct.pack("<q", struct.unpack_from("<q", data, 56)[0] - seconds * 10**9)
    while at < len(data):
        end = at + 8 + struct.unpack_from("<I", data, at)[0]
        chain = siphash24(0 if chain is None else chain, bytes(data[at:end]))
        data[end:end + 8] = struct.pack("<Q", chain)
        if at == 0:
            chain = siphash24(0, secret)
        at = end + 8
    path.write_bytes(data)


def siphash24(k0, data):
    k1, mask = 0x656c626174206b73, 2**64 - 1
    v = [0x736f6d6570736575 ^ k0, 0x646f72616e646f6d ^ k1, 0x6c7967656e657261 ^ k0, 0x7465646279746573 ^ k1]

    def turn(x, bits):
        return (x << bits | x >> 64 - bits) & mask

    def rounds(count):
        for _ in range(count):
            v[0], v[2] = (v[0] + v[1]) & mask, (v[2] + v[3]) & mask
            v[1], v[3] = turn(v[1], 13) ^ v[0], turn(v[3], 16) ^ v[2]
            v[0] = turn(v[0], 32)
            v[2], v[0] = (v[2] + v[1]) & mask, (v[0] + v[3]) & mask
            v[1], v[3] = turn(v[1], 17) ^ v[2], turn(v[3], 21) ^ v[0]
            v[2] = turn(v[2], 32)
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 255
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_a_receipt_holds_for_an_hour(penstock, folder):
    file = folder / "edge.zone"
    edge = penstock(http=HTTP.replace("edge 1m", f"edge 1m file={file}"), server=SERVER, master=True)

    def later(seconds):
        assert edge.nginx.stop() == 0
        aged(file, seconds)
        edge.nginx.start(edge.port)

    settled, kept, late = (decide(edge, caller, tokens=600).headers["Penstock-Receipt"] for caller in "abc")
    assert settle(edge, settled, tokens=500).status == 200
    later(3500)
    kept = settle(edge, kept, "PUT").headers["Penstock-Receipt"]
    assert settle(edge, settled, tokens=900).status == 200 and left(edge, "tokens") == 1000, "it is settled still"
    later(300)
    for old, caller in ((settled, "a"), (late, "c")):
        for method in ("DELETE", "POST", "PUT"):
            answer = settle(edge, old, method, tokens=900)
            assert (answer.status, answer.json()["error"]["code"]) == (410, "receipt_expired")
            assert "Penstock-Receipt" not in answer.headers
        assert left(edge, "tokens", caller) == 1000 and in_use(edge, caller) == 0
    assert settle(edge, kept, tokens=900).status == 200 and left(edge, "tokens", "b") in range(700, 710), "its hour began anew"
    later(3500)
    assert settle(edge, kept, tokens=900).status == 410 and left(edge, "tokens", "b") == 1000


def test_behind_its_settlement_nothing_is_kept(edge):
    receipt = decide(edge, tokens=600).headers["Penstock-Receipt"]
    settle(edge, receipt)
    after = settle(edge, receipt, "PUT")
    assert after.status == 200 and "Penstock-Receipt" not in after.headers and in_use(edge) == 0


def test_a_place_is_one_place_however_often_and_by_whichever_receipt_it_is_kept(edge):
    first = decide(edge, plan="large").headers["Penstock-Receipt"]
    receipts, began = [first], time.monotonic()

    def passed_by_two_windows():
        for receipt in (first, receipts[-1], first):
            receipts.append(settle(edge, receipt, "PUT").headers["Penstock-Receipt"])
            assert in_use(edge, plan="large") == 1
        return time.monotonic() - began > 12
    until(passed_by_two_windows, "two windows are over", 30)
    settle(edge, receipts[-1])
    assert in_use(edge, plan="large") == 0


def test_a_receipt_that_was_renewed_settles_once_also_where_two_zones_charged_it(penstock):
    edge = penstock(http="penstock_zone other 1m;\n" + HTTP, server=SERVER + """\
        location /both {
            penstock_limit zone=other key=$http_penstock_caller rate=1000t/m name=other;
            penstock_cost t $http_penstock_tokens;
            try_files /none /decide;
        }""")
    first = decide(edge, tokens=600, path="/both").headers["Penstock-Receipt"]
    second = settle(edge, first, "PUT").headers["Penstock-Receipt"]
    for receipt in (first, second):
        assert settle(edge, receipt, tokens=900).status == 200
        assert left(edge, "tokens") in range(100, 110)


def test_where_it_cannot_be_noted_nothing_is_settled(penstock):
    edge = penstock(http="penstock_zone first 32k;\n" + HTTP, server=SERVER + """\
        location /fill { penstock_limit zone=first key=$arg_key rate=1r/h burst=5 name=hour; empty_gif; }""")
    client = edge.client()
    statuses = [client.request("GET", f"/fill?key={key}").status for key in range(4000)]
    assert set(statuses[-500:]) == {503}, "there is room for none"
    receipt = decide(edge, tokens=600).headers["Penstock-Receipt"]
    for method in ("DELETE", "POST"):
        answer = settle(edge, receipt, method, tokens=900)
        assert (answer.status, answer.json()["error"]["code"]) == (503, "busy") and int(answer.headers["Retry-After"]) >= 1
    assert left(edge, "tokens") in range(400, 410)


def test_many_at_once_are_never_more_than_the_limit(edge):
    most, running, lock = 0, 0, threading.Lock()

    def one(_):
        nonlocal most, running
        reply = decide(edge, "crowd", "large", tokens=1)
        if reply.status != 200:
            return 0
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return settle(edge, reply.headers["Penstock-Receipt"]).status == 200
    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(one, range(200)))
    assert done > 0 and most <= 2
    assert in_use(edge, "crowd", "large") == 0


def test_the_client_for_python(edge):
    url = f"http://127.0.0.1:{edge.port}"
    with Charge(url, caller="a", plan="free", tokens=600) as charge:
        charge.keep()
        with pytest.raises(Refused) as refused:
            Charge(url, caller="a", plan="free", tokens=600)
        assert refused.value.status == 429 and refused.value.retry_after >= 1
        charge.settle(tokens=100)
    with pytest.raises(ZeroDivisionError):
        with Charge(url, caller="a", plan="free", tokens=800):
            1 / 0
    assert left(edge, "tokens") >= 900 and in_use(edge) == 0
    with Charge(url, caller="a", plan="free", tokens=300):
        pass
    assert 600 <= left(edge, "tokens") < 700 and in_use(edge) == 0


def test_the_client_for_node(edge):
    script = f"""
        import {{ charged, Refused }} from '{CLIENTS}/penstock_limits.mjs';
        const url = 'http://127.0.0.1:{edge.port}', who = {{ caller: 'a', plan: 'free' }};
        const said = await charged(url, {{ ...who, tokens: 600 }}, async (charge) => {{
          const over = await charged(url, {{ ...who, tokens: 600 }}, async () => 0).catch((error) => error);
          charge.used = {{ tokens: 100 }};
          return [over instanceof Refused, over.status, over.retryAfter >= 1];
        }});
        await charged(url, {{ ...who, tokens: 800 }}, async () => {{ throw new Error('no'); }}).catch(() => 0);
        console.log(JSON.stringify(said));"""
    done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [True, 429, True], done.stderr
    assert left(edge, "tokens") >= 900 and in_use(edge) == 0


def test_another_nginx_asks_before_it_serves(penstock):
    """auth_request knows 401 and 403 alone: an error_page makes a 403 of what is over, with its Retry-After."""
    edge = penstock(http=HTTP, server="""\
        location = /decide {
            penstock_limit zone=edge key=$http_penstock_caller rate=3r/m name=plain;
            penstock_decide;
            error_page 429 =403 @over;
        }
        location @over { return 403; }""")
    other = penstock(server=ASKS.replace("10.0.0.2:8081", f"127.0.0.1:{edge.port}").replace("proxy_pass       http://service", "empty_gif"))
    replies = [other.request("GET", "/") for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
    assert int(replies[3].headers["Retry-After"]) >= 1
