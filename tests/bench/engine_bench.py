#!/usr/bin/python3
"""E7 of the bench: what Nginx, queue and engine http add to a server's answer, beside proxy_pass and a gateway from npm.

One mock, an Nginx that returns a constant answer, stands behind all of them. The cases alternate, medians over the rounds. The
time that is added is ours less that of the mock alone, at the same number of clients.

Usage: engine_bench.py BUILD_DIR [--seconds 2] [--rounds 3] [--no-gateway]
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from edge_bench import HERE, Bench, free_port, row, wait_for  # noqa: E402
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
PENSTOCKD = """
socket: {dir}/q.sock
queues:
  default: {{ max_length: 10000 }}
workers:
  - {{ name: mock, engine: http, url: "http://127.0.0.1:{mock}", model: mock, slots: 64 }}
"""


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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-gateway", action="store_true")
    arguments = parser.parse_args()
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
                "of proxy_pass's rate >= 0.95: " + f"{ratio:.2f}" if clients == 64 else f"p99 added <= {goal} ms" if goal else "none", met)
    finally:
        bench.down()


if __name__ == "__main__":
    main()
