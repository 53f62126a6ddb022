#!/usr/bin/python3
"""E1 to E4 and D1 of the bench: what the edge costs, beside limit_req and proxy_pass, in one run; of E4, beside our own limits of one host.

The Nginx worker has one core for itself; wrk and all that stands behind Nginx, ours or the peer's, share the other. Cases
alternate A B A B, medians over the rounds. CPU is read from /proc/PID/schedstat of the Nginx worker, in nanoseconds,
and divided by the requests that wrk counted.

E4's peer is a hand-written script called by EVALSHA for each request, by ngx_http_lua_module and Debian's lua-nginx-redis, where they
are installed, or unpacked below PENSTOCK_LUA.

Usage: edge_bench.py BUILD_DIR [--seconds 3] [--rounds 5] [--only E1,E2,E3,E4,D1] [--counted 0]
"""
import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

from table import row

EDGE_CORE, OTHER_CORE = "0", "1"
HERE = pathlib.Path(__file__).resolve().parent

COMMON = """
{load}
user root; daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/{name}.err crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 16k;
  client_body_temp_path {dir}/{name}-b; proxy_temp_path {dir}/{name}-p; fastcgi_temp_path {dir}/{name}-f;
  uwsgi_temp_path {dir}/{name}-u; scgi_temp_path {dir}/{name}-s; {extra_temp}
  {body}
}}
"""

EDGE = """
  limit_req_log_level info; limit_req_status 429;
  limit_req_zone $http_x_api_key zone=rej:32m rate=1r/m;
  limit_req_zone $http_x_api_key zone=ok1:32m rate=10000000r/s;
  limit_req_zone $binary_remote_addr zone=ok2:32m rate=10000000r/s;
  limit_req_zone $server_name zone=ok3:1m rate=10000000r/s;
  penstock_zone edge_rej 4m; penstock_zone edge 16m;  # by the rule of 32000 keys a megabyte; limit_req's nodes fill 13m of its 32m

  penstock_zone shared 16m redis=unix:DIR/redis.sock timeout=500ms;

  penstock_tier plan { rate 1000r/s; rate 50000r/m; rate 1000000r/h; }
  upstream direct { server unix:DIR/up.sock; keepalive 64; }
  upstream gpu { server unix:DIR/q.sock; keepalive 64; }
  proxy_http_version 1.1; proxy_set_header Connection "";
  server {
    listen 127.0.0.1:PORT backlog=4096; server_name bench;
    location = /none { empty_gif; }
    location = /return429 { return 429; }
    location = /same_bytes {
      default_type application/problem+json;
      SAME
    }
    location = /reject_peer { limit_req zone=rej; empty_gif; }
    location = /reject_ours { penstock_limit zone=edge_rej key=$http_x_api_key rate=1r/m burst=1 name=rej; empty_gif; }
    location = /three_peer { limit_req zone=ok1 burst=1000000 nodelay; limit_req zone=ok2 burst=1000000 nodelay; limit_req zone=ok3 burst=1000000 nodelay; empty_gif; }
    location = /six_ours {
      penstock_limit zone=edge key=$http_x_api_key tier=plan;
      penstock_limit zone=edge key=$binary_remote_addr rate=10000000r/s name=ip;
      penstock_limit zone=edge key=$http_x_model rate=10000000r/s name=model;
      penstock_limit zone=edge key=all rate=10000000r/s name=site;
      empty_gif; }
    location = /six_silent {                       # as limit_req, which tells who passes nothing
      penstock_headers refused;
      penstock_limit zone=edge key=$http_x_api_key tier=plan;
      penstock_limit zone=edge key=$binary_remote_addr rate=10000000r/s name=ip;
      penstock_limit zone=edge key=$http_x_model rate=10000000r/s name=model;
      penstock_limit zone=edge key=all rate=10000000r/s name=site;
      empty_gif; }
    location = /one_local { penstock_limit zone=edge key=all rate=1000000r/s name=one; empty_gif; }
    location = /one_shared { penstock_limit zone=shared key=all rate=1000000r/s name=one; empty_gif; }
    location = /shared_1000 { penstock_limit zone=shared key=all rate=1000r/s name=some; empty_gif; }
    location = /shared_10000 { penstock_limit zone=shared key=all rate=10000r/s name=more; empty_gif; }
    LUA_LOCATIONS
    location = /metrics { penstock_metrics; }
    location = /serve_peer { limit_req zone=ok1 burst=1000000 nodelay; proxy_pass http://direct; }
    location = /serve_ours { penstock_limit zone=edge key=$http_x_api_key rate=10000000r/s name=serve; penstock_pass gpu; }
  }
"""

# The peer of E4: a token bucket as such scripts are written, and a counter by INCREX (redis-server 8.8).
LUA = """
  lua_package_path "ROOT/usr/share/lua/5.1/?.lua;;";
  init_by_lua_block {
    local redis = require "nginx.redis"
    local BUCKET = [[
      local t = redis.call('HMGET', KEYS[1], 'v', 't')
      local now, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
      local v = math.min(burst, (tonumber(t[1]) or burst) + (now - (tonumber(t[2]) or now)) * rate)
      local ok = 0
      if v >= 1 then v = v - 1 ok = 1 end
      redis.call('HSET', KEYS[1], 'v', v, 't', now)
      redis.call('EXPIRE', KEYS[1], 120)
      return ok]]
    local COUNTER = [[
      return redis.call('INCREX', KEYS[1], 'BYINT', 1, 'UBOUND', ARGV[3], 'SATURATE', 'EX', 1, 'ENX')[2] ]]
    local shas = {}
    local function limit(text, key, rate, burst)
      local c = redis:new()
      c:set_timeout(1000)
      if not c:connect("unix:DIR/redis.sock") then return ngx.exit(500) end
      shas[text] = shas[text] or c:script("load", text)
      local ok = c:evalsha(shas[text], 1, key, ngx.now(), rate, burst)
      c:set_keepalive(60000, 256)
      if ok == 0 then return ngx.exit(429) elseif ok ~= 1 then return ngx.exit(500) end
    end
    function by_bucket() limit(BUCKET, "bucket", 1000000, 1000000) end
    function by_increx() limit(COUNTER, "counter", 1000000, 1000000) end
  }
"""
LUA_LOCATIONS = """
    location = /one_lua { access_by_lua_block { by_bucket() } empty_gif; }
    location = /one_increx { access_by_lua_block { by_increx() } empty_gif; }
"""

# What a refusal says, as constants: the least that Nginx itself takes to send it, nothing judged.
SAME_HEADERS = {"RateLimit-Policy": '"rej";q=1;w=60', "RateLimit": '"rej";r=0;t=60', "x-ratelimit-limit-requests": "1",
                "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0s", "Retry-After": "60", "retry-after-ms": "60000"}
SAME_BODY = (
    '{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,'
    '"detail":"Limit rej allows 1 request a minute. Try again in 60 s.","violated-policies":["rej"],"retry_after":60,'
    '"error":{"message":"Limit rej allows 1 request a minute. Try again in 60 s.","type":"rate_limit_error","param":null,'
    '"code":"rate_limit_exceeded"}}')
SAME = " ".join(f"add_header {key} '{value}' always;" for key, value in SAME_HEADERS.items()) + f" return 429 '{SAME_BODY}';"

# One request a second: of those that come at once, all but the first wait.
DELAY = {
    "peer": "limit_req_zone $server_name zone=wait:1m rate=1r/s;",
    "ours": "penstock_zone wait 1m; penstock_max_delayed 100000;",
}
DELAY_LOCATION = {
    "peer": "limit_req zone=wait burst=100000;",
    "ours": "penstock_limit zone=wait key=all rate=1r/s burst=1 name=wait action=delay max_delay=24h;",
}

PENSTOCKD = """
socket: {dir}/q.sock
state: {dir}/state
queues:
  default: {{ max_length: 10000 }}
workers:
  - {{ name: sim, engine: simulate, service_time: 0ms, slots: 256, output_tokens: 1 }}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"edge_bench: {what} did not come up")
        time.sleep(0.05)


class Bench:
    def __init__(self, build, seconds, rounds):
        self.build, self.seconds, self.rounds = pathlib.Path(build).resolve(), seconds, rounds
        self.dir = tempfile.mkdtemp(prefix="edge.", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.port = free_port()
        self.processes = []

    def start(self, command, **kw):
        process = subprocess.Popen(command, start_new_session=True, **kw)
        self.processes.append(process)
        return process

    def nginx(self, name, body, load="", extra_temp="", pin=None):
        path = f"{self.dir}/{name}.conf"
        with open(path, "w") as f:
            f.write(COMMON.format(dir=self.dir, name=name, body=body, load=load, extra_temp=extra_temp))
        prefix = ["taskset", "-c", pin] if pin else []
        process = self.start(prefix + ["nginx", "-c", path])
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        wait_for(f"nginx {name}", lambda: os.path.exists(children) and open(children).read().split())
        return int(open(children).read().split()[0])

    def up(self):
        body = 'server { listen unix:%s/up.sock; location / { return 200 "ok\\n"; } }' % self.dir
        self.nginx("up", body, pin=OTHER_CORE)
        with open(f"{self.dir}/penstock.yaml", "w") as f:
            f.write(PENSTOCKD.format(dir=self.dir))
        self.log = open(f"{self.dir}/penstockd.log", "w")
        self.start(["taskset", "-c", OTHER_CORE, f"{self.build}/penstockd", "-c", f"{self.dir}/penstock.yaml"], stderr=self.log, stdout=self.log)
        wait_for("penstockd", lambda: os.path.exists(f"{self.dir}/q.sock"))
        self.start(["taskset", "-c", OTHER_CORE, "redis-server", "--port", "0", "--unixsocket", f"{self.dir}/redis.sock", "--unixsocketperm", "777",
                    "--save", ""], stdout=self.log, stderr=self.log)
        wait_for("redis-server", lambda: os.path.exists(f"{self.dir}/redis.sock"))
        load = f"load_module {self.build}/ngx_http_penstock_module.so;"
        root = os.environ.get("PENSTOCK_LUA", "")
        modules = [f"{root}/usr/lib/nginx/modules/{name}.so" for name in ("ndk_http_module", "ngx_http_lua_module")]
        self.lua = all(os.path.exists(path) for path in (*modules, f"{root}/usr/share/lua/5.1/nginx/redis.lua"))
        edge = EDGE.replace("LUA_LOCATIONS", LUA_LOCATIONS if self.lua else "").replace("SAME", SAME)
        if self.lua:
            load += "".join(f" load_module {path};" for path in modules)
            edge = LUA.replace("ROOT", root) + edge
        edge = edge.replace("DIR", self.dir).replace("PORT", str(self.port))
        self.worker = self.nginx("edge", edge, pin=EDGE_CORE, load=load,
                                 extra_temp=f"penstock_temp_path {self.dir}/edge-q;")
        wait_for("the queue", lambda: self.status("/serve_ours") == 200)

    def status(self, path):
        body = '{"model":"sim","prompt":"x"}'
        out = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", body,
                              "-H", "X-Api-Key: warm", "-H", "Content-Type: application/json",
                              f"http://127.0.0.1:{self.port}{path}"], capture_output=True, text=True)
        return int(out.stdout or 0)

    def redis(self, *words):
        """The first bytes of an answer."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(f"{self.dir}/redis.sock")
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words))
            return s.recv(65536).decode()

    def counted(self, series):
        page = subprocess.run(["curl", "-s", f"http://127.0.0.1:{self.port}/metrics"], capture_output=True, text=True, check=True).stdout
        return int(re.search(rf"^{re.escape(series)} (\d+)$", page, re.M)[1])

    def down(self):
        for process in reversed(self.processes):
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)

    def cpu_ns(self):
        return int(open(f"/proc/{self.worker}/schedstat").read().split()[0])

    def load(self, path, seconds, body=0, keys=100000):
        env = dict(os.environ, NKEYS=str(keys), BODY=str(body))
        before = self.cpu_ns()
        out = subprocess.run(["taskset", "-c", OTHER_CORE, "wrk", "-t1", "-c64", f"-d{max(1, round(seconds))}s", "-s", str(HERE / "keys.lua"),
                              f"http://127.0.0.1:{self.port}{path}"], env=env, capture_output=True, text=True, check=True).stdout
        cpu = self.cpu_ns() - before
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        return {"requests": requests, "rps": float(re.search(r"Requests/sec: +([\d.]+)", out).group(1)), "cpu_us": cpu / requests / 1000,
                "errors": int(errors.group(1)) / requests if errors else 0.0}

    def instructions(self, paths):
        """{path: instructions of Nginx a request}, as callgrind counts them: the difference of two runs, so that starting up cancels out."""
        def counted(path, requests):
            port = free_port()
            conf = f"{self.dir}/counted.conf"
            with open(conf, "w") as f:
                f.write("master_process off;" + open(f"{self.dir}/edge.conf").read().replace(f":{self.port} ", f":{port} "))
            said = f"{self.dir}/counted.log"
            with open(said, "w") as f:
                process = self.start(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "nginx", "-c", conf], stderr=f)
            wait_for("nginx under callgrind", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            with socket.create_connection(("127.0.0.1", port)) as client:
                for i in range(requests):
                    client.sendall(b"GET %s HTTP/1.1\r\nHost: bench\r\nX-Api-Key: key-%d\r\n\r\n" % (path.encode(), i % 100))
                    assert client.recv(65536).startswith(b"HTTP/1.1 ")
            process.send_signal(signal.SIGQUIT)
            process.wait()
            self.processes.remove(process)
            return int(re.search(r"Collected : (\d+)", open(said).read()).group(1))

        few, many = 500, 2500
        return {path: (counted(path, many) - counted(path, few)) / (many - few) for path in paths}

    def waiting_bytes(self, side, waiting):
        """Resident memory of a fresh Nginx worker for each request that it holds back."""
        port = free_port()
        body = "%s server { listen 127.0.0.1:%d backlog=8192; server_name bench; location / { %s empty_gif; } }" % (
            DELAY[side], port, DELAY_LOCATION[side])
        worker = self.nginx(f"wait-{side}-{port}", body, load=f"load_module {self.build}/ngx_http_penstock_module.so;")
        rss = lambda: int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{worker}/status").read()).group(1)) * 1024
        wait_for("the server", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        clients = []
        for i in range(waiting + 200):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
            clients.append(client)
            if i == 199:
                wait_for("the first ones", lambda: self.settled(rss))
                before = rss()
        wait_for("all of them", lambda: self.settled(rss))
        after = rss()
        for client in clients:
            client.close()
        return (after - before) / waiting

    @staticmethod
    def settled(rss):
        one = rss()
        time.sleep(0.3)
        return rss() == one

    def alternate(self, cases, rounds=1, **kw):
        """{path: results} of the rounds, the cases taken in turn; round 0 warms up and does not count."""
        seen = {path: [] for path in cases}
        for round_ in range(rounds * self.rounds + 1):
            for path in cases:
                result = self.load(path, self.seconds / rounds if round_ else 2, **kw)
                if round_:
                    seen[path].append(result)
        return seen


def medians(results):
    return {key: statistics.median(r[key] for r in results) for key in results[0]}


def median_ratio(ours, peer, key):
    """Of the ratios round by round: a slow minute slows both sides of one."""
    return statistics.median(a[key] / b[key] for a, b in zip(ours, peer))


def median_difference(ours, base, key):
    return statistics.median(a[key] - b[key] for a, b in zip(ours, base))


def runs(results, key):
    return [result[key] for result in results]


CHARGES = 'penstock_lease_charges_total{zone="shared",how="%s"}'
TRIPS = 'penstock_lease_trips_total{zone="shared"}'


def charged(bench):
    """(charges that were admitted, calls of Redis) so far."""
    return sum(bench.counted(CHARGES % how) for how in ("held", "waited")), bench.counted(TRIPS)


def shared_rows(bench, to_count):
    increx = bench.lua and "increx" in bench.redis("COMMAND", "INFO", "increx")
    peers = ["/one_lua"] * bench.lua + ["/one_increx"] * increx
    r = bench.alternate(["/one_local", "/one_shared", *peers])
    seen = {path: medians(results) for path, results in r.items()}
    assert max(one["errors"] for one in seen.values()) < 0.01, "the limits refused"
    charges, trips = charged(bench)
    waited = bench.counted(CHARGES % "waited")
    assert bench.counted(CHARGES % "alone") == 0, "Redis was away"
    ours, local = seen["/one_shared"], seen["/one_local"]
    ratio = median_ratio(r["/one_shared"], r["/one_local"], "rps")
    cpu = median_ratio(r["/one_local"], r["/one_shared"], "cpu_us")

    def figures(one):
        return f"{one['rps']:.0f} req/s, {one['cpu_us']:.2f} µs"
    row("E4", "a limit shared through Redis, one key", f"{figures(ours)} Nginx CPU",
        f"the same on one host {figures(local)}; {waited} of {charges} waited, {trips / charges:.5f} trips each",
        f"ratio {ratio:.3f}, CPU {cpu:.3f}, to reach >= 0.95", min(ratio, cpu) >= 0.95,
        runs(r["/one_local"], "rps"))
    for path, peer in (("/one_lua", "Lua + EVALSHA a request"), ("/one_increx", "Lua + INCREX a request")):
        if path in seen:
            ratio = median_ratio(r["/one_shared"], r[path], "rps")
            row("E4", "the same", f"{figures(ours)}", f"{peer} {figures(seen[path])}", f"ratio {ratio:.2f}, to reach >= 1.0", ratio >= 1,
                runs(r[path], "rps"))
        else:
            version = re.search(r"redis_version:(\S+)", bench.redis("INFO", "server"))[1]
            why = "ngx_http_lua_module and lua-nginx-redis are not installed" if not bench.lua else f"redis-server {version} < 8.8"
            row("E4", "the same", "", f"{peer}: not to be had: {why}")
    for rate, goal in ((1000, 1.4), (10000, 0.15)):
        bench.load(f"/shared_{rate}", 1)  # the burst is gone
        before = charged(bench)
        bench.load(f"/shared_{rate}", 2 * bench.seconds)
        admitted, trips = (b - a for a, b in zip(before, charged(bench)))
        row("E4", f"trips an admitted request at {rate} r/s a key, more being asked for", f"{trips / admitted:.3f}", "",
            f"to reach <= {goal}", trips / admitted <= goal)
    looked = 0
    while looked < to_count:
        for path in ("/one_shared", "/shared_1000"):
            looked += bench.load(path, 20)["requests"]
    looked += sum(one["requests"] for one in r["/one_shared"])
    needless = bench.counted('penstock_lease_needless_waits_total{zone="shared"}')
    row("E4", "requests that waited on a key that held units or was known to be empty", f"{needless} of {looked}", "", "to reach 0",
        needless == 0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="E1,E2,E3,E4,D1")
    parser.add_argument("--counted", type=int, default=0, help="E4: so many requests are looked at to see whether any waits needlessly")
    args = parser.parse_args()
    bench = Bench(args.build, args.seconds, args.rounds)
    only = args.only.split(",")
    try:
        bench.up()
        if "E1" in only:
            r = bench.alternate(["/reject_peer", "/reject_ours", "/same_bytes", "/return429"])
            ours, peer, same, bare = (medians(r[path]) for path in ("/reject_ours", "/reject_peer", "/same_bytes", "/return429"))
            assert min(ours["errors"], peer["errors"]) > 0.9, "the limits did not refuse"
            ratio = median_ratio(r["/reject_ours"], r["/reject_peer"], "cpu_us")
            more = median_difference(r["/reject_ours"], r["/same_bytes"], "cpu_us")
            row("E1", "refuse, 100k keys: Nginx CPU a request", f"{ours['cpu_us']:.2f} µs",
                f"limit_req {peer['cpu_us']:.2f} µs (bare return 429: {bare['cpu_us']:.2f}; "
                f"our answer as constants of Nginx: {same['cpu_us']:.2f})",
                f"ratio {ratio:.3f}, to reach <= 1.00; {more:+.2f} µs over the constants, to reach <= 0.15", ratio <= 1 and more <= 0.15,
                runs(r["/reject_peer"], "cpu_us"))
        if "E2" in only:
            r = bench.alternate(["/none", "/three_peer", "/six_ours", "/six_silent"], rounds=3)
            six = median_difference(r["/six_ours"], r["/none"], "cpu_us")
            three = median_difference(r["/three_peer"], r["/none"], "cpu_us")
            silent = median_difference(r["/six_silent"], r["/none"], "cpu_us")
            assert max(x["errors"] for results in r.values() for x in results) < 0.01, "the limits refused"
            row("E2", f"admit: six rules over none ({medians(r['/none'])['cpu_us']:.2f} µs)", f"+{six:.2f} µs",
                f"three limit_req +{three:.2f} µs; six of ours that tell as little +{silent:.2f}",
                f"ratio {six / three:.2f}, to reach <= 0.5", six <= 0.5 * three, runs(r["/three_peer"], "cpu_us"))
        if "E1" in only or "E2" in only:
            n = bench.instructions(["/none", "/return429", "/same_bytes", "/reject_peer", "/reject_ours", "/three_peer", "/six_ours",
                                    "/six_silent"])
            ours, peer, same = n["/reject_ours"], n["/reject_peer"], n["/same_bytes"]
            row("E1", "the same in instructions of Nginx", f"{ours:.0f}",
                f"limit_req {peer:.0f} (bare return 429: {n['/return429']:.0f}; our answer as constants: {same:.0f})",
                f"ratio {ours / peer:.3f}, to reach <= 1.00; {ours - same:+.0f} over the constants, to reach <= 300",
                ours <= peer and ours - same <= 300)
            six, three, silent = (n[path] - n["/none"] for path in ("/six_ours", "/three_peer", "/six_silent"))
            row("E2", f"the same in instructions, over none ({n['/none']:.0f})", f"+{six:.0f}",
                f"three limit_req +{three:.0f}; six of ours that tell as little +{silent:.0f}",
                f"ratio {six / three:.2f}, to reach <= 0.5", six <= 0.5 * three)
        if "E3" in only:
            r = bench.alternate(["/serve_peer", "/serve_ours"], body=1024, keys=10000)
            ours, peer = medians(r["/serve_ours"]), medians(r["/serve_peer"])
            assert max(ours["errors"], peer["errors"]) < 0.01, "not every request was served"
            ratio = median_ratio(r["/serve_ours"], r["/serve_peer"], "rps")
            row("E3", "admit and serve, POST 1 KiB, 64 clients", f"{ours['rps']:.0f} req/s, {ours['cpu_us']:.2f} µs Nginx CPU",
                f"limit_req + proxy_pass {peer['rps']:.0f} req/s, {peer['cpu_us']:.2f} µs", f"ratio {ratio:.3f}, to reach >= 1.05", ratio >= 1.05,
                runs(r["/serve_peer"], "rps"))
        if "E4" in only:
            shared_rows(bench, args.counted)
        if "D1" in only:
            sizes = {side: [] for side in ("peer", "ours")}
            for _ in range(3):
                for side, seen in sizes.items():
                    seen.append(bench.waiting_bytes(side, 3000))
            ours, peer = (statistics.median(sizes[side]) for side in ("ours", "peer"))
            row("D1", "memory of a request held back (action=delay), 3000 of them", f"{ours:.0f} B", f"limit_req {peer:.0f} B",
                f"ratio {ours / peer:.3f}, to reach <= 1.0", ours <= peer)
    finally:
        bench.down()


if __name__ == "__main__":
    main()
