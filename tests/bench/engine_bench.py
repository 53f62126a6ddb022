#!/usr/bin/python3
"""E7, E8, F1 and Q10 of the bench: what Nginx, queue and engine http add to a server's answers, and what they see to.

E7: beside proxy_pass and a gateway from npm. One mock, an Nginx that returns a constant answer, stands behind all of them. The
time that is added is ours less that of the mock alone, at the same number of clients.
E8: many streams of tokens at once, beside proxy_pass: the CPU of all of our processes, or of Nginx alone, for each token that
came to its reader, and the time from one token of a stream to the next.
F1: a caller who asks now and then beside one who floods, on a backend of 8 slots, beside the same caller alone at the backend.
Q10: streams that are asked for on one host and made on another, through Redis, beside proxy_pass to that host.
The cases alternate, medians over the rounds.

Usage: engine_bench.py BUILD_DIR [--seconds 2] [--rounds 3] [--no-gateway] [--only E7,E8,F1,Q10]
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from edge_bench import HERE, Bench, free_port, medians, runs, wait_for  # noqa: E402
from table import row  # noqa: E402
import npm  # noqa: E402

GATEWAY = HERE / "gateway"

ANSWER = (r'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"mock","choices":[{"index":0,"message":'
          r'{"role":"assistant","content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}')
EVENT = (r'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock","choices":[{"index":0,"delta":'
         r'{"content":"word "},"finish_reason":%s}]%s}' "\n\n")
STREAM = EVENT % ("null", "") * 20 + EVENT % ('"stop"', ',"usage":{"prompt_tokens":9,"completion_tokens":20,"total_tokens":29}') + "data: [DONE]\n\n"

MOCK = """
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    client_max_body_size 1m;
    location = /v1/chat/completions {{ default_type application/json; return 200 '{answer}'; }}
    location = /v1/completions {{ default_type text/event-stream; return 200 '{stream}'; }}
  }}
"""
EDGE = """
  penstock_zone edge 16m;
  upstream mock {{ server 127.0.0.1:{mock}; keepalive 128; }}
  upstream gpu {{ server unix:{dir}/q.sock; keepalive 128; }}
  client_max_body_size 1m;
  proxy_http_version 1.1; proxy_set_header Connection "";
  server {{ listen 127.0.0.1:{proxy} backlog=4096; client_body_buffer_size 256k; location / {{ proxy_pass http://mock; }} }}
  server {{
    listen 127.0.0.1:{ours} backlog=4096; client_body_buffer_size 256k;
    location / {{ penstock_limit zone=edge key=$http_x_api_key rate=10000000r/s name=e7; penstock_pass gpu; }}
  }}
"""
HOST = """
  upstream gpu {{ server unix:{socket}; keepalive 1024; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ penstock_pass gpu; }} }}
"""
TO_HOST = """
  upstream there {{ server 127.0.0.1:{there}; keepalive 1024; }}
  proxy_http_version 1.1; proxy_set_header Connection "";
  server {{ listen 127.0.0.1:{proxy} backlog=4096; location / {{ proxy_buffering off; proxy_pass http://there; }} }}
"""
PENSTOCKD = """
socket: {dir}/q.sock
queues:
  default: {{ max_length: 10000 }}
workers:
  - {{ name: mock, engine: http, url: "http://127.0.0.1:{mock}", model: mock, slots: 64 }}
"""

STREAMS, TOKENS_A_SECOND = (1000, 400), 50
SLOTS, SERVICE_MS, FLOODERS = 8, 100, 64
BETWEEN_HOSTS = 500


class EngineBench(Bench):
    def up(self, gateway):
        self.ports = {name: free_port() for name in ("mock", "proxy", "ours", "gateway")}
        self.nginx("mock", MOCK.format(port=self.ports["mock"], answer=ANSWER, stream=STREAM))
        with open(f"{self.dir}/penstock.yaml", "w") as f:
            f.write(PENSTOCKD.format(dir=self.dir, **self.ports))
        log = open(f"{self.dir}/log", "w")
        self.start([f"{self.build}/penstockd", "-c", f"{self.dir}/penstock.yaml"], stderr=log, stdout=log)
        wait_for("penstockd", lambda: os.path.exists(f"{self.dir}/q.sock"))
        self.worker = self.nginx("edge", EDGE.format(dir=self.dir, **self.ports), load=f"load_module {self.build}/ngx_http_penstock_module.so;",
                                 extra_temp=f"penstock_temp_path {self.dir}/edge-q;")
        wait_for("the queue", lambda: self.answers("ours"))
        if gateway:
            folder = npm.installed(GATEWAY)
            script = next(pathlib.Path(folder).glob("node_modules/@portkey-ai/gateway/build/start-server.js"))
            self.start(["node", script, f"--port={self.ports['gateway']}", "--headless"], stderr=log, stdout=log)
            wait_for("the gateway", lambda: self.answers("gateway"), 60)

    def headers(self, name):
        if name != "gateway":
            return "X-Api-Key: k"
        return f"x-portkey-provider: openai|x-portkey-custom-host: http://127.0.0.1:{self.ports['mock']}/v1|Authorization: Bearer k"

    def answers(self, name):
        headers = [word for header in self.headers(name).split("|") for word in ("-H", header)]
        said = subprocess.run(["curl", "-s", "-d", '{"model":"mock","messages":[]}', "-H", "Content-Type: application/json", *headers,
                               f"http://127.0.0.1:{self.ports[name]}/v1/chat/completions"], capture_output=True, text=True).stdout
        return "chat.completion" in said

    def measure(self, name, clients, streams, size, seconds):
        path = "/v1/completions" if streams else "/v1/chat/completions"
        env = dict(os.environ, BODY=str(size), STREAM=str(int(streams)), HEADERS=self.headers(name))
        said = subprocess.run(["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(HERE / "posts.lua"),
                               f"http://127.0.0.1:{self.ports[name]}{path}"], env=env, capture_output=True, text=True, check=True).stdout
        scale = {"us": 1e-3, "ms": 1, "s": 1e3}
        found = {p: float(n) * scale[unit] for p, n, unit in re.findall(r"^ +(50|99)% +([\d.]+)(us|ms|s)", said, re.M)}
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        return {"p50": found["50"], "p99": found["99"], "rps": float(re.search(r"Requests/sec: +([\d.]+)", said).group(1)),
                "bad": int(bad.group(1)) if bad else 0}


class StreamBench(Bench):
    """Streams of so many tokens, so many a second each, from a backend with so many slots."""

    def up(self, tokens, rate, slots):
        self.ports = {name: free_port() for name in ("mock", "proxy", "ours")}
        self.start([f"{self.build}/stream_load", "serve", str(self.ports["mock"]), str(tokens), str(rate)])
        config = PENSTOCKD.format(dir=self.dir, **self.ports).replace("slots: 64", f"slots: {slots}")
        with open(f"{self.dir}/penstock.yaml", "w") as f:
            f.write(config)
        log = open(f"{self.dir}/log", "w")
        self.penstockd = self.start([f"{self.build}/penstockd", "-c", f"{self.dir}/penstock.yaml"], stderr=log, stdout=log).pid
        wait_for("penstockd", lambda: os.path.exists(f"{self.dir}/q.sock"))
        edge = EDGE.format(dir=self.dir, **self.ports).replace("penstock_pass", "penstock_share $http_x_api_key; penstock_pass")
        self.worker = self.nginx("edge", edge.replace("proxy_pass", "proxy_buffering off; proxy_pass"),
                                 load=f"load_module {self.build}/ngx_http_penstock_module.so;", extra_temp=f"penstock_temp_path {self.dir}/edge-q;")
        wait_for("the worker", self.workers)
        wait_for("the queue", lambda: self.read("ours", "k", 1, 0))

    def workers(self):
        return [int(pid) for pid in open(f"/proc/{self.penstockd}/task/{self.penstockd}/children").read().split()]

    def cpu_ns(self):
        """Of the Nginx worker and of all that is ours behind it, each with all of its threads."""
        return sum(int(open(f"/proc/{pid}/task/{thread}/schedstat").read().split()[0])
                   for pid in [self.worker, self.penstockd, *self.workers()] for thread in os.listdir(f"/proc/{pid}/task"))

    def begin(self, name, key, callers, seconds, pause_ms=0):
        reader = subprocess.Popen([f"{self.build}/stream_load", "read", str(self.ports[name]), key, str(callers), str(seconds), str(pause_ms)],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        reader.begun = reader.stdout.readline() == "begun\n"
        return reader

    @staticmethod
    def end(reader):
        return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", reader.communicate()[0])}

    def read(self, *arguments):
        reader = self.begin(*arguments)
        before = self.cpu_ns()
        found = self.end(reader)
        if found:
            found["cpu_us"] = (self.cpu_ns() - before) / 1000 / max(1, found["events"])
            found["rate"] = found["events"] / max(found["seconds"], 1e-9)
        return found

    def backend(self):
        said = json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.ports['mock']}/"))
        return said | {"at_ns": time.monotonic_ns()}


class HostsBench(StreamBench):
    """The same through two hosts that share a queue: a worker is on "there", and callers are on "here"."""

    def up(self, tokens, rate, slots):
        self.ports = {name: free_port() for name in ("mock", "there", "proxy", "ours")}
        self.start([f"{self.build}/stream_load", "serve", str(self.ports["mock"]), str(tokens), str(rate)])
        log = open(f"{self.dir}/log", "w")
        self.redis_server = self.start(["redis-server", "--port", "0", "--unixsocket", f"{self.dir}/redis.sock", "--save", "", "--dir", self.dir,
                                        "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"], stdout=log).pid
        wait_for("redis-server", lambda: os.path.exists(f"{self.dir}/redis.sock"))
        worker = f'  - {{ name: mock, engine: http, url: "http://127.0.0.1:{self.ports["mock"]}", model: mock, slots: {slots} }}'
        for name, workers in (("there", f"workers:\n{worker}"), ("here", "workers: []")):
            with open(f"{self.dir}/{name}.yaml", "w") as f:
                f.write(f'socket: {self.dir}/{name}.sock\nredis: {{ url: "unix:{self.dir}/redis.sock" }}\n'
                        f"queues:\n  default: {{ max_length: 10000, shared: true }}\n{workers}\n")
            self.start([f"{self.build}/penstockd", "-c", f"{self.dir}/{name}.yaml"], stderr=log, stdout=log)
            wait_for("penstockd", lambda: os.path.exists(f"{self.dir}/{name}.sock"))
        load = f"load_module {self.build}/ngx_http_penstock_module.so;"
        for name, body in (("there", HOST.format(port=self.ports["there"], socket=f"{self.dir}/there.sock")),
                           ("here", HOST.format(port=self.ports["ours"], socket=f"{self.dir}/here.sock") + TO_HOST.format(**self.ports))):
            self.nginx(name, body, load=load, extra_temp=f"penstock_temp_path {self.dir}/{name}-q;")
            wait_for(f"the queue {name}", lambda: self.hears("there" if name == "there" else "ours"))

    def hears(self, name):
        return self.end(self.begin(name, "k", 1, 0))

    def redis_ns(self):
        return sum(int(open(f"/proc/{self.redis_server}/task/{thread}/schedstat").read().split()[0])
                   for thread in os.listdir(f"/proc/{self.redis_server}/task"))

    def read(self, *arguments):
        reader = self.begin(*arguments)
        before, began_ns = self.redis_ns(), time.monotonic_ns()
        found = self.end(reader)
        found["redis"] = (self.redis_ns() - before) / (time.monotonic_ns() - began_ns)
        found["rate"] = found["events"] / found["seconds"]
        return found


def added_time(arguments):
    bench = EngineBench(arguments.build, arguments.seconds, arguments.rounds)
    names = ["mock", "proxy", "ours"] + ([] if arguments.no_gateway else ["gateway"])
    try:
        bench.up(not arguments.no_gateway)
        for clients, streams, size in [(c, s, 1024) for s in (False, True) for c in (1, 4, 16, 64)] + [(16, False, 10_240), (16, False, 102_400)]:
            seen = {name: [] for name in names}
            for round_ in range(arguments.rounds + 1):
                for name in names:
                    result = bench.measure(name, clients, streams, size, arguments.seconds if round_ else 1)
                    if round_:
                        seen[name].append(result)
            median = {name: {key: statistics.median(r[key] for r in results) for key in results[0]} for name, results in seen.items()}
            assert median["ours"]["bad"] == 0 and median["proxy"]["bad"] == 0, median
            added = {p: statistics.median(a[p] - b[p] for a, b in zip(seen["ours"], seen["mock"])) for p in ("p50", "p99")}
            ratio = statistics.median(a["rps"] / b["rps"] for a, b in zip(seen["ours"], seen["proxy"]))
            if median.get("gateway", {}).get("bad"):
                del median["gateway"]  # it does not answer this one
            told = "; ".join(f"{ {'mock': 'mock alone', 'proxy': 'proxy_pass', 'gateway': 'gateway'}[name] } {each['p50']:.2f} / {each['p99']:.2f} ms, "
                             f"{each['rps']:.0f}/s" for name, each in median.items() if name != "ours")
            goal = {1: 0.15, 16: 0.25}.get(clients)
            met = ratio >= 0.95 if clients == 64 else goal is None or added["p99"] <= goal
            row("E7", f"{'streamed' if streams else 'whole'} answer, {size // 1024} kB prompt, {clients} client(s)",
                f"{median['ours']['p50']:.2f} / {median['ours']['p99']:.2f} ms p50 / p99, {median['ours']['rps']:.0f}/s; "
                f"added {added['p50']:.2f} / {added['p99']:.2f} ms", told,
                "of proxy_pass's rate >= 0.95: " + f"{ratio:.2f}" if clients == 64 else f"p99 added <= {goal} ms" if goal else "none", met,
                runs(seen["proxy"], "rps" if clients == 64 else "p50"))
    finally:
        bench.down()


def streams_in_turn(bench, arguments, streams, is_free):
    """{"proxy", "ours"}: so many streams at once through each, in turn, once the slots are free of those who have just left."""
    seen = {"proxy": [], "ours": []}
    for _ in range(arguments.rounds):
        for name, results in seen.items():
            results.append(bench.read(name, "k", streams, arguments.seconds))
            wait_for("the slots", is_free)
    return seen


def many_streams(arguments, streams):
    bench = StreamBench(arguments.build, arguments.seconds, arguments.rounds)
    try:
        bench.up(1_000_000, TOKENS_A_SECOND, streams + 24)
        seen = streams_in_turn(bench, arguments, streams, lambda: bench.read("ours", "k", 1, 0))
        proxy, ours = medians(seen["proxy"]), medians(seen["ours"])
        ratio = statistics.median(a["cpu_us"] / b["cpu_us"] for a, b in zip(seen["ours"], seen["proxy"]))
        added = statistics.median(a["gap_p99"] - b["gap_p99"] for a, b in zip(seen["ours"], seen["proxy"]))
        told = "{cpu_us:.1f} µs CPU a token; gap {gap_p50:.1f} / {gap_p99:.1f} ms p50 / p99; {rate:.0f} tokens/s"
        row("E8", f"{streams} streams at once, {TOKENS_A_SECOND} tokens a second each", told.format(**ours), "proxy_pass " + told.format(**proxy),
            f"CPU <= 1.5 x: {ratio:.2f}; gap p99 <= + 2 ms: {added:+.1f}", ratio <= 1.5 and added <= 2,
            runs(seen["proxy"], "cpu_us"))
    finally:
        bench.down()


def fairness(arguments):
    bench = StreamBench(arguments.build, arguments.seconds, arguments.rounds)
    tokens = 20
    try:
        bench.up(tokens, tokens * 1000 / SERVICE_MS, SLOTS)
        seen, used, peak = {"mock": [], "ours": []}, [], 0
        for _ in range(arguments.rounds):
            seen["mock"].append(bench.read("mock", "quiet", 1, arguments.seconds, 37))
            flood = bench.begin("ours", "flood", FLOODERS, arguments.seconds + 2)
            before = bench.backend()
            seen["ours"].append(bench.read("ours", "quiet", 1, arguments.seconds, 37))
            after = bench.backend()
            used.append((after["busy_ns"] - before["busy_ns"]) / (after["at_ns"] - before["at_ns"]) / SLOTS)
            peak = max(peak, after["peak"])  # since `before`
            bench.end(flood)
        alone, beside = medians(seen["mock"]), medians(seen["ours"])
        bound = 1.10 * alone["first_p99"] + SERVICE_MS
        slots = statistics.median(used)
        row("F1", f"a quiet caller beside a flooder with {FLOODERS} requests at once, {SLOTS} slots of {SERVICE_MS} ms",
            f"time to first token {beside['first_p50']:.0f} / {beside['first_p99']:.0f} ms p50 / p99; slots {100 * slots:.1f} % used, "
            f"{peak} at once at most",
            f"alone at the backend {alone['first_p50']:.0f} / {alone['first_p99']:.0f} ms",
            # One more: the backend may hear of the next request before it hears that the reader has left.
            f"p99 <= {bound:.0f} ms; slots >= 99 %, {SLOTS + 1} at most as one leaves", beside["first_p99"] <= bound and slots >= 0.99 and peak <= SLOTS + 1,
            runs(seen["mock"], "first_p50"))
    finally:
        bench.down()


def between_hosts(arguments):
    bench = HostsBench(arguments.build, arguments.seconds, arguments.rounds)
    try:
        bench.up(1_000_000, TOKENS_A_SECOND, BETWEEN_HOSTS + 24)
        seen = streams_in_turn(bench, arguments, BETWEEN_HOSTS, lambda: bench.hears("ours"))
        proxy, ours = medians(seen["proxy"]), medians(seen["ours"])
        added = statistics.median(a["gap_p99"] - b["gap_p99"] for a, b in zip(seen["ours"], seen["proxy"]))
        told = "gap {gap_p50:.1f} / {gap_p99:.1f} ms p50 / p99; {rate:.0f} tokens/s"
        row("Q10", f"{BETWEEN_HOSTS} streams through two hosts and Redis, {TOKENS_A_SECOND} tokens a second each",
            told.format(**ours) + f"; Redis {100 * ours['redis']:.0f} % of a core", "proxy_pass to the other host " + told.format(**proxy),
            f"gap p99 <= + 15 ms: {added:+.1f}; Redis <= 60 % of a core", added <= 15 and ours["redis"] <= 0.6,
            runs(seen["proxy"], "gap_p99"))
    finally:
        bench.down()


def main():
    rows = {"E7": added_time, "E8": lambda a: [many_streams(a, streams) for streams in STREAMS], "F1": fairness, "Q10": between_hosts}
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-gateway", action="store_true")
    parser.add_argument("--only", default=",".join(rows))
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        rows[name](arguments)


if __name__ == "__main__":
    main()
