#!/usr/bin/python3
"""Q1, Q2, Q3, Q5, Q6, Q8, Q9, W1 and T4 of the bench: the queue beside beanstalkd, Redis Streams, RabbitMQ, BullMQ and HAProxy, in one run.

All servers of a row are up together and only one is loaded at a time, in turn (A B A B); figures are medians over the rounds. What
is to be durable lies below the build folder, and the disk's own rate of fdatasync is measured in the same rounds, since it may
move tenfold from one minute to the next.

Usage: queue_bench.py BUILD_DIR [--seconds 2] [--rounds 3] [--only Q1,Q2,Q3,Q5,Q6,Q8,Q9,W1,T4]
"""
import argparse
import asyncio
import collections
import glob
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from table import row

HERE = pathlib.Path(__file__).resolve().parent
MANY = {"max_length": 4_000_000, "deadline": "24h"}
# The queues that are to be as safe as ours: each job flushed before it is acknowledged.
DURABLE = {"penstock": "Penstock", "beanstalk": "beanstalkd -f0", "redis": "Redis Stream always", "rabbitmq": "RabbitMQ quorum, confirms",
           "bullmq": "BullMQ always"}
OF_NODE = ("rabbitmq", "bullmq")  # whose usual client is Node.js


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"queue_bench: {what} did not come about in {seconds} s")
        time.sleep(0.05)


def connects(path):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path) == 0


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def node_load(build):
    """The load of those whose client is Node.js, with their packages; None, and why, where they cannot be had."""
    os.environ["PENSTOCK_BUILD"] = str(build)
    sys.path.insert(0, str(HERE.parent / "integration"))
    from npm import installed
    try:
        return installed(HERE / "node_peers") / "load.mjs"
    except (AssertionError, OSError) as error:
        print(f"queue_bench: {error}", file=sys.stderr)


def rss_bytes(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) * 1024


def flow(mapping):
    return "{ " + ", ".join(f"{key}: {value}" for key, value in mapping.items()) + " }"


class Stage:
    """The servers of one row, in folders of their own that are gone with it."""

    def __init__(self, build):
        self.build = pathlib.Path(build).resolve()
        self.disk = tempfile.mkdtemp(prefix="queue-bench.", dir=self.build)  # what is durable
        self.dir = tempfile.mkdtemp(prefix="qb.", dir="/tmp")                # sockets: their paths must be short
        os.chmod(self.dir, 0o755)
        os.chmod(self.disk, 0o755)
        self.processes = {}
        self.addresses = {}  # of those that have no socket of their name
        self.last_acts = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        for command in self.last_acts:
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.disk, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def socket(self, name):
        return f"{self.dir}/{name}.sock"

    def start(self, name, command, **env):
        with open(f"{self.dir}/{name}.log", "w") as log:
            self.processes[name] = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, start_new_session=True,
                                                    env={**os.environ, **env})
        return self.processes[name]

    def up(self, name, command):
        self.start(name, command)
        wait_for(f"{name}: " + " ".join(map(str, command)), lambda: connects(self.socket(name)))

    def penstockd(self, workers, queues=None, name="penstock", state=True, redis=None):
        """`redis`: the name of the one in which its queues are, which it shares with others."""
        lines = [f"socket: {self.socket(name)}"] + ([f"state: {self.disk}/{name}"] if state else [])
        lines += [f'redis: {{ url: "unix:{self.socket(redis)}" }}'] if redis else []
        lines += ["limits: { max_held: 8GiB }", "queues:"]
        shared = {"shared": "true"} if redis else {}
        lines += [f"  {queue}: {flow({**options, **shared})}" for queue, options in (queues or {"default": MANY}).items()]
        lines += ["workers:"] + [f"  - {flow({'engine': 'simulate', **worker})}" for worker in workers]
        path = f"{self.dir}/{name}.yaml"
        pathlib.Path(path).write_text("\n".join(lines) + "\n")
        self.up(name, [self.build / "penstockd", "-c", path])
        log = pathlib.Path(f"{self.dir}/{name}.log")
        wait_for("all workers", lambda: log.read_text().count(": ready, process") == len(workers))

    def beanstalkd(self, name="beanstalk", durable=True, flush="-f0"):
        os.mkdir(f"{self.disk}/{name}")
        self.up(name, ["beanstalkd", "-l", f"unix:{self.socket(name)}"] + (["-b", f"{self.disk}/{name}", flush] if durable else []))

    def redis(self, name="redis", flush="always"):
        os.mkdir(f"{self.disk}/{name}")
        self.up(name, ["redis-server", "--port", "0", "--unixsocket", self.socket(name), "--save", "", "--dir", f"{self.disk}/{name}",
                       "--appendonly", "yes", "--appendfsync", flush])
        subprocess.run(["redis-cli", "-s", self.socket(name), "XGROUP", "CREATE", "jobs", "workers", "0", "MKSTREAM"],
                       check=True, stdout=subprocess.DEVNULL)

    def rabbitmq(self, name="rabbitmq"):
        """A node of its own; False where it is not installed."""
        programs = sorted(glob.glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"))
        if not programs:
            return False
        home = pathlib.Path(f"{self.disk}/{name}")
        home.mkdir()
        port, nodes, names = free_port(), free_port(), free_port()
        (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
        (home / "plugins").write_text("[].\n")
        self.last_acts.append(["epmd", "-port", str(names), "-kill"])  # Erlang's name server, which leaves those that start it
        self.start(name, [programs[-1]], HOME=str(home), RABBITMQ_NODENAME="bench@localhost", RABBITMQ_DIST_PORT=str(nodes),
                   ERL_EPMD_PORT=str(names), ERL_EPMD_ADDRESS="127.0.0.1", RABBITMQ_MNESIA_BASE=str(home), RABBITMQ_LOG_BASE=str(home),
                   RABBITMQ_CONFIG_FILE=str(home / "rabbitmq.conf"), RABBITMQ_ENABLED_PLUGINS_FILE=str(home / "plugins"),
                   RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}")
        wait_for("RabbitMQ", lambda: listens(port), 60)
        self.addresses[name] = port
        return True

    def durable_peers(self):
        """Starts all that can be had, and names them."""
        self.beanstalkd()
        self.redis()
        self.node = node_load(self.build)
        if self.node is None:
            return ["beanstalk", "redis"]
        self.redis("bullmq")
        return ["beanstalk", "redis", "bullmq"] + (["rabbitmq"] if self.rabbitmq() else [])

    def nginx(self, name, http, load=False):
        path = f"{self.dir}/{name}.conf"
        temp = "".join(f"{kind}_temp_path {self.dir}/{name}-{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        temp += f"penstock_temp_path {self.dir}/{name}-penstock; " if load else ""
        load = f"load_module {self.build}/ngx_http_penstock_module.so;" if load else ""
        user = "user root;" if os.getuid() == 0 else ""
        pathlib.Path(path).write_text(
            f"{load} {user} daemon off; worker_processes 1; pid {self.dir}/{name}.pid; error_log {self.dir}/{name}.err crit;\n"
            f"worker_rlimit_nofile 40000; events {{ worker_connections 39000; }}\nhttp {{ access_log off; {temp}\n{http}\n}}\n")
        process = self.start(name, ["nginx", "-c", path])
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(f"nginx {name}", lambda: children.exists() and children.read_text().split())
        return int(children.read_text().split()[0])

    def begin(self, peer, mode, name=None, **options):
        more = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        address = self.addresses.get(name or peer, self.socket(name or peer))
        program = ["node", self.node] if peer in OF_NODE else [self.build / "queue_load"]
        return subprocess.Popen([*program, peer, str(address), mode, *more], stdout=subprocess.PIPE, text=True)

    def load(self, peer, mode, name=None, **options):
        return result_of(self.begin(peer, mode, name, **options))

    def serves(self, name):
        return subprocess.run([self.build / "queue_load", "penstock", self.socket(name), "sync", "--jobs", "1"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def flushes(self, seconds=0.4):
        """What the disk does by itself: appends of 4 KiB, each with fdatasync, a second."""
        fd = os.open(f"{self.disk}/flush", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        data, count, began = os.urandom(4096), 0, time.monotonic()
        while time.monotonic() - began < seconds:
            os.write(fd, data)
            os.fdatasync(fd)
            count += 1
        os.close(fd)
        return count / (time.monotonic() - began)

    def filesystem(self):
        return subprocess.run(["stat", "-f", "-c", "%T", self.disk], capture_output=True, text=True).stdout.strip()


def result_of(process):
    out, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit("queue_bench: queue_load failed, see above")
    return {key: float(value) for key, value in re.findall(r"(\w+)=([\d.]+)", out)}


def median(results, key):
    return statistics.median(result[key] for result in results)


def runs(results, key):
    return [result[key] for result in results]


def in_turn(rounds, **cases):
    """{name: results} of the cases, taken in turn."""
    seen = collections.defaultdict(list)
    for _ in range(rounds):
        for name, case in cases.items():
            seen[name].append(case())
    return seen


def beside(peers, figures, unit):
    """What each of the durable peers did; who is missing is named."""
    said = [f"{DURABLE[peer]} {figures[peer]:.0f}{unit}" for peer in peers]
    return ", ".join(said + [f"{what}: not installed" for peer, what in DURABLE.items() if peer not in ("penstock", *peers)])


def enqueue(build, args):
    with Stage(build) as stage:
        stage.penstockd([dict(name="held", service_time="24h", slots=1)])
        peers = stage.durable_peers()
        seen = in_turn(args.rounds, disk=lambda: {"per_s": stage.flushes()}, **{
            f"{peer} {clients}": lambda peer=peer, clients=clients: stage.load(peer, "enqueue", clients=clients, seconds=args.seconds)
            for clients in (1, 16) for peer in ("penstock", *peers)})
        disk = f"the disk: {median(seen['disk'], 'per_s'):.0f} fdatasync/s on {stage.filesystem()}"
        p50 = {peer: median(seen[f"{peer} 1"], "p50_us") for peer in ("penstock", *peers)}
        row("Q1", f"durable enqueue, 1 KiB, 1 client, p50; {disk}", f"{p50['penstock']:.0f} µs",
            beside(peers, p50, " µs"),
            f"ratio {p50['penstock'] / p50['beanstalk']:.2f} to beanstalkd's, to reach <= 1.05 (or <= 115 µs)",
            p50["penstock"] <= max(115, 1.05 * p50["beanstalk"]), runs(seen["beanstalk 1"], "p50_us"))
        rate = {peer: median(seen[f"{peer} 16"], "jobs_s") for peer in ("penstock", *peers)}
        ratio = rate["penstock"] / rate["redis"]
        row("Q1", f"the same, 16 clients; {disk}", f"{rate['penstock']:.0f}/s",
            beside(peers, rate, "/s"), f"ratio {ratio:.2f} to Redis', to reach >= 2", ratio >= 2,
            runs(seen["redis 16"], "jobs_s"))


def whole(build, args):
    with Stage(build) as stage:
        stage.penstockd([dict(name="sim", service_time="0ms", slots=256)])
        peers = stage.durable_peers()
        options = dict(clients=16, outstanding=1000, seconds=args.seconds)
        seen = in_turn(args.rounds, disk=lambda: {"per_s": stage.flushes()}, deep=lambda: stage.load("penstock", "whole", depth=62, **options), **{
            peer: lambda peer=peer: stage.load(peer, "whole", **options) for peer in ("penstock", *peers)})
        rate = {name: median(seen[name], "jobs_s") for name in ("penstock", "deep", *peers)}
        best = max(peers, key=rate.get)
        row("Q2", f"durable enqueue, run, result on disk; 16 clients (peers: + 16 that take and acknowledge), at most 1000 between; "
            f"the disk: {median(seen['disk'], 'per_s'):.0f} fdatasync/s on {stage.filesystem()}",
            f"{rate['penstock']:.0f}/s ({rate['deep']:.0f}/s with 62 requests under way a client)",
            beside(peers, rate, "/s"),
            f"ratio {rate['penstock'] / rate[best]:.2f} to the best, to reach >= 3", rate["penstock"] >= 3 * rate[best],
            runs(seen[best], "jobs_s"))


def over_hosts(build, args):
    """Two hosts that share a queue: an edge, and one with workers. Peers have a redis-server of their own, flushed as ours is."""
    with Stage(build) as stage:
        stage.redis("shared")
        stage.penstockd([dict(name="sim", service_time="0ms", slots=256)], name="gpu", state=False, redis="shared")
        stage.penstockd([], name="edge", state=False, redis="shared")
        peers = [peer for peer in stage.durable_peers() if peer in ("redis", "bullmq")]
        wait_for("the edge knows the other host", lambda: stage.serves("edge"))
        options = dict(clients=16, seconds=args.seconds, outstanding=1000)
        seen = in_turn(args.rounds, disk=lambda: {"per_s": stage.flushes()},
                       penstock=lambda: stage.load("penstock", "whole", name="edge", counter=stage.socket("gpu"), **options),
                       deep=lambda: stage.load("penstock", "whole", name="edge", counter=stage.socket("gpu"), depth=62, **options),
                       **{peer: lambda peer=peer: stage.load(peer, "whole", **options) for peer in peers})
        rate = {name: median(seen[name], "jobs_s") for name in ("penstock", "deep", *peers)}
        goal, met = "BullMQ: not installed", None
        if "bullmq" in peers:
            one, deep, bare = rate["penstock"] / rate["bullmq"], rate["deep"] / rate["bullmq"], rate["penstock"] / rate["redis"]
            goal = (f"ratio {one:.2f} to BullMQ ({deep:.2f} with 62 a client), {bare:.2f} to the bare stream; "
                    "to reach >= 2, 3 and 0.5")
            met = one >= 2 and deep >= 3 and bare >= 0.5
        row("Q8", "promised enqueue, take, finish through Redis (appendfsync always), accepted on one host and run on another; 16 clients "
            f"(peers: + 16 that take and acknowledge); the disk: {median(seen['disk'], 'per_s'):.0f} fdatasync/s",
            f"{rate['penstock']:.0f}/s ({rate['deep']:.0f}/s with 62 requests under way a client)",
            beside(peers, rate, "/s"), goal, met, runs(seen["bullmq"], "jobs_s") if "bullmq" in peers else ())


def host_to_host(build, args):
    """The way of one waiting caller's job to another host and back, beside one that stays. Its three steps each wait for the disk
    where Redis is told to (always)."""
    with Stage(build) as stage:
        worker = dict(name="sim", service_time="0ms", slots=4)
        for flush in ("everysec", "always"):
            stage.redis(flush, flush)
            stage.penstockd([worker], name=f"gpu {flush}", state=False, redis=flush)
            stage.penstockd([], name=f"edge {flush}", state=False, redis=flush)
            wait_for("the edge knows the other host", lambda flush=flush: stage.serves(f"edge {flush}"))
        stage.penstockd([worker], name="alone", state=False)
        seen = in_turn(args.rounds, **{name: lambda name=name: stage.load("penstock", "sync", name=name, seconds=args.seconds)
                                       for name in ("edge everysec", "alone", "edge always")})
        p50, p99 = ({name: median(seen[name], key) / 1000 for name in seen} for key in ("p50_us", "p99_us"))
        more50, more99 = p50["edge everysec"] - p50["alone"], p99["edge everysec"] - p99["alone"]
        row("Q9", "idle: submitted on one host, run on another, answered on the first: p50 (p99)",
            f"{p50['edge everysec']:.2f} ms ({p99['edge everysec']:.2f}); appendfsync always: {p50['edge always']:.2f} ({p99['edge always']:.2f})",
            f"all on one host, not shared: {p50['alone']:.2f} ms ({p99['alone']:.2f})",
            f"+ {more50:.2f} ms (+ {more99:.2f}), to reach <= + 0.6 (+ 2)", more50 <= 0.6 and more99 <= 2, runs(seen["alone"], "p50_us"))


def in_memory(build, args):
    with Stage(build) as stage:
        stage.penstockd([dict(name="sim", service_time="0ms", slots=256)], state=False)
        stage.beanstalkd(durable=False)
        seen = in_turn(args.rounds, ours=lambda: stage.load("penstock", "sync", clients=16, depth=62, seconds=args.seconds),
                       peer=lambda: stage.load("beanstalk", "whole", clients=16, outstanding=1000, seconds=args.seconds),
                       few=lambda: stage.load("penstock", "sync", clients=16, seconds=args.seconds))
        ours, peer, few = (median(seen[name], "jobs_s") for name in ("ours", "peer", "few"))
        row("Q3", "the same in memory: waiting callers, 16 connections, about 1000 jobs between the ends (16: one each)",
            f"{ours:.0f}/s ({few:.0f}/s)", f"beanstalkd, no binlog {peer:.0f}/s",
            f"ratio {ours / peer:.2f} ({few / peer:.2f}), to reach >= 1.0", ours >= peer and few >= peer, runs(seen["peer"], "jobs_s"))


def queued_memory(build, args):
    with Stage(build) as stage:
        stage.penstockd([dict(name="held", service_time="24h", slots=1)])
        stage.beanstalkd(flush="-f1000")  # the memory is the same, and flushing for each would take long
        stage.redis(flush="everysec")
        grown = {}
        for peer in ("penstock", "beanstalk", "redis"):
            before = rss_bytes(stage.processes[peer].pid)
            done = stage.load(peer, "enqueue", clients=16, depth=16, jobs=100000, seconds=120)
            assert done["answered"] == 100000, done
            grown[peer] = (rss_bytes(stage.processes[peer].pid) - before) / 1e6
        row("Q5", "memory (RSS) of 100,000 queued durable jobs of 1 KiB", f"{grown['penstock']:.0f} MB",
            f"beanstalkd with binlog {grown['beanstalk']:.0f} MB, Redis Stream, append-only file {grown['redis']:.0f} MB", "to reach <= 30 MB", grown["penstock"] <= 30)


class Slots:
    """An HTTP server for the peer's queue: each request takes 20 ms, any number at once."""

    def __init__(self, port, seconds):
        self.port, self.seconds = port, seconds

    async def serve(self, reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(self.seconds)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run(self):
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
        await server.serve_forever()


def hold_silently(path):
    """Takes every connection, and never says a word."""
    server, held = socket.socket(socket.AF_UNIX), []
    server.bind(path)
    server.listen(4096)
    while True:
        held.append(server.accept())


HAPROXY = """
global
  maxconn 4000
defaults
  mode http
  timeout client 120s
  timeout server 120s
  timeout connect 5s
  timeout queue 120s
frontend q
  bind 127.0.0.1:{port}
  http-request set-priority-class int(-10) if {{ req.hdr(x-class) high }}
  http-request set-priority-class int(10) unless {{ req.hdr(x-class) high }}
  default_backend slots
backend slots
  server s 127.0.0.1:{upstream} maxconn 4
"""


def wrk(port, clients, seconds, *more):
    return subprocess.Popen(["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "120s", "--latency", *more,
                             f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE, text=True)


def wrk_result(process):
    out, _ = process.communicate()
    times = {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}
    def latency(percent):
        found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)", out)
        return float(found.group(1)) * times[found.group(2)] if found else float("nan")
    return {"jobs_s": float(re.search(r"Requests/sec: +([\d.]+)", out).group(1)), "p50_us": latency(50), "p99_us": latency(99)}


def two_classes(build, args):
    """20 clients of the high class, who alone would fill the slots, and 180 of the low one."""
    seconds, slots, service_ms = max(8, 2 * args.seconds), 4, 20
    with Stage(build) as stage:
        stage.penstockd([dict(name="sim", service_time=f"{service_ms}ms", slots=slots)], state=False)
        port, upstream = free_port(), free_port()
        pathlib.Path(f"{stage.dir}/haproxy.cfg").write_text(HAPROXY.format(port=port, upstream=upstream))
        stage.start("upstream", ["/usr/bin/python3", HERE / "queue_bench.py", "--serve", upstream, service_ms / 1000])
        stage.start("haproxy", ["haproxy", "-db", "-f", f"{stage.dir}/haproxy.cfg"])
        wait_for("HAProxy and its upstream", lambda: all(
            socket.socket().connect_ex(("127.0.0.1", each)) == 0 for each in (port, upstream)))

        def ours():
            low = stage.begin("penstock", "sync", clients=180, seconds=seconds)
            high = stage.begin("penstock", "sync", clients=20, priority=10, seconds=seconds)
            return {"high": result_of(high), "low": result_of(low)}

        def peer():
            low = wrk(port, 180, seconds)
            high = wrk(port, 20, seconds, "-H", "x-class: high")
            return {"high": wrk_result(high), "low": wrk_result(low)}

        seen = in_turn(args.rounds, ours=ours, peer=peer)
        # Of the slots' last jobs only those count that are done: the longer, the less that is.
        alone = in_turn(args.rounds, ours=lambda: stage.load("penstock", "sync", clients=200, seconds=3 * seconds),
                        peer=lambda: wrk_result(wrk(port, 200, 3 * seconds)))
    ideal = slots * 1000 / service_ms
    share = {side: median(alone[side], "jobs_s") / ideal for side in ("ours", "peer")}
    row("Q6", f"4 slots of 20 ms, 200 clients, one class: share of the ideal {ideal:.0f}/s", f"{100 * share['ours']:.1f} %",
        f"HAProxy maxconn 4: {100 * share['peer']:.1f} %", "to reach >= 99.3 %", share["ours"] >= 0.993,
        runs(alone["peer"], "jobs_s"))
    def of(side, tier, key):
        return statistics.median(result[tier][key] for result in seen[side])
    waits = {side: of(side, "high", "p50_us") / 1000 for side in ("ours", "peer")}
    row("Q6", "20 clients of the high class beside 180 of the low: the high class's time, median (p99)",
        f"{waits['ours']:.0f} ms ({of('ours', 'high', 'p99_us') / 1000:.0f})", f"strict priority: {waits['peer']:.0f} ms ({of('peer', 'high', 'p99_us') / 1000:.0f})",
        f"to reach <= the peer's + {service_ms} ms", waits["ours"] <= waits["peer"] + service_ms)
    low = {side: of(side, "low", "jobs_s") for side in ("ours", "peer")}
    row("Q6", "the low class meanwhile (aging: 1 s)", f"{low['ours']:.2f}/s", f"{low['peer']:.2f}/s",
        "never stops: to reach >= 0.9/s, one job for each second of aging", low["ours"] >= 0.9)


def waiting_memory(build, args):
    clients = 9500
    sides = {"ours": [], "daemon": [], "peer": []}
    for _ in range(args.rounds):
        for side in ("ours", "peer"):
            with Stage(build) as stage:
                port = free_port()
                if side == "ours":
                    stage.penstockd([dict(name="sim", service_time="1h", slots=1)], state=False)
                    watched = {"daemon": stage.processes["penstock"].pid}
                    upstream, location = stage.socket("penstock"), "penstock_pass up;"
                else:
                    stage.up("silent", ["/usr/bin/python3", HERE / "queue_bench.py", "--silent", stage.socket("silent")])
                    watched, upstream, location = {}, stage.socket("silent"), "proxy_pass http://up; proxy_read_timeout 600s;"
                watched[side] = stage.nginx(side, f"""
                    upstream up {{ server unix:{upstream}; }}
                    server {{ listen 127.0.0.1:{port} backlog=16384; location / {{ {location} }} }}""", load=side == "ours")
                for name, bytes_ in wait_in(port, clients, watched).items():
                    sides[name].append(bytes_)
    ours, daemon, peer = (statistics.median(sides[name]) for name in ("ours", "daemon", "peer"))
    row("W1", f"{clients} waiting callers through Nginx: RSS of its worker for each", f"{ours / 1000:.2f} kB", f"proxy_pass {peer / 1000:.2f} kB",
        f"ratio {ours / peer:.2f}, to reach <= 1.0", ours <= peer, sides["peer"])
    row("W1", "the same: RSS of penstockd for each", f"{daemon / 1000:.2f} kB", "", "to reach <= 1 kB", daemon <= 1024)


def wait_in(port, clients, watched):
    """How many bytes each of `watched` has grown by for each of so many requests that wait."""
    held, before = [], {}
    for i in range(clients + 200):
        if i == 200:  # the first ones pay for what is made once
            before = {name: settled(pid) for name, pid in watched.items()}
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"POST /work HTTP/1.1\r\nHost: bench\r\nContent-Length: 16\r\n\r\n0123456789abcdef")
        held.append(client)
    grown = {name: (settled(pid) - before[name]) / clients for name, pid in watched.items()}
    answered = sum(1 for client in held if readable(client))
    for client in held:
        client.close()
    assert answered == 0, f"{answered} were answered that should have waited"
    return grown


def readable(client):
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False


def settled(pid):
    last = -1
    while last != (last := rss_bytes(pid)):
        time.sleep(0.5)
    return last


def crowd(build, args):
    """Clients who are refused, each coming back exactly when it was told to, until it is let in."""
    rate = 40
    with Stage(build) as stage:
        lengths = {"long": 1000, "short": 40}
        stage.penstockd([dict(name=name, queue=name, service_time="100ms", slots=4) for name in lengths],
                        {name: {"max_length": length} for name, length in lengths.items()}, state=False)
        port = free_port()
        stage.nginx("edge", f"""
            penstock_zone edge 1m;
            upstream up {{ server unix:{stage.socket("penstock")}; keepalive 64; }}
            server {{ listen 127.0.0.1:{port} backlog=4096; penstock_owner $http_authorization;
              location = /rate {{ penstock_limit zone=edge key=all rate={rate}r/s name=crowd; empty_gif; }}
              location = /long {{ penstock_pass up queue=long; }}
              location = /short {{ penstock_pass up queue=short; }} }}""", load=True)
        for name, path, clients, goal in (
                (f"one rate limit of {rate}r/s", "/rate", 1000, True), (f"a full queue of 1000 at {rate}/s", "/long", 2000, True),
                # Nobody is told later than when all that wait will have run: if none of the crowd came, no slot would stand empty.
                (f"a full queue of 40 at {rate}/s, that is gone in a second", "/short", 1000, False)):
            if path != "/rate":
                asyncio.run(crowd_at(port, path, 8))  # what a job takes is known
            tries, times, said = asyncio.run(crowd_at(port, path, clients))
            # While anybody is still refused, the limit could have let one in each 1/rate.
            span = sorted(times)[-1] - sorted(times)[0]
            used = (len(times) - 1) / span / rate
            told = ", ".join(f"{count}× {seconds} s" for seconds, count in sorted(said.items())[:3])
            again = [each - 1 for each in tries if each > 1]  # of those that were refused
            mean = sum(again) / max(1, len(again))
            row("T4", f"{clients} clients at once against {name}: {len(again)} are refused, each comes back when Retry-After says: tries each until "
                "it is let in, use of the limit meanwhile", f"{mean:.2f} tries, {100 * used:.1f} %, over {span:.0f} s (told in the first second: {told}{', …' if len(said) > 3 else ''})", "",
                "to reach <= 1.1 and >= 99 %" if goal else "", mean <= 1.1 and used >= 0.99 if goal else None)


async def crowd_at(port, path, clients):
    tries, times, said, began = [], [], collections.Counter(), time.monotonic()

    async def client(name):
        for attempt in range(1, 1000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {name}\r\nConnection: close\r\n\r\n".encode() if path == "/rate" else
                         f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {name}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            answer = (await reader.read()).decode(errors="replace")
            writer.close()
            status = int(answer[9:12])
            if status == 200:
                tries.append(attempt)
                return times.append(time.monotonic())
            assert status in (429, 503), answer
            seconds = int(re.search(r"(?i)^retry-after: (\d+)", answer, re.M).group(1))
            if time.monotonic() - began < 1:
                said[seconds] += 1
            await asyncio.sleep(seconds)

    await asyncio.gather(*(client(f"client-{i}") for i in range(clients)))
    return tries, times, said


ROWS = {"Q1": enqueue, "Q2": whole, "Q3": in_memory, "Q5": queued_memory, "Q6": two_classes, "W1": waiting_memory, "T4": crowd, "Q8": over_hosts, "Q9": host_to_host}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(ROWS))
    args = parser.parse_args()
    for name in args.only.split(","):
        ROWS[name](args.build, args)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(Slots(int(sys.argv[2]), float(sys.argv[3])).run())
    elif sys.argv[1:2] == ["--silent"]:
        hold_silently(sys.argv[2])
    else:
        main()
