#!/usr/bin/python3
"""A storm: promised jobs under load, while penstockd, its workers and Nginx, its workers or all of it, and now and then
everything at once, are killed at random (kill -9).

Callers, half of them through Nginx, ask for promises (Prefer: respond-async) with an Idempotency-Key each, and ask again with
the same key whenever the connection breaks before the 202, as the contract lets them. A job that was promised when Nginx died
before it had said so is not acknowledged: the caller's next try joins it, and is told that it does (Penstock-Duplicate). Others
wait for answers through Nginx meanwhile; each that comes is that of one run of their own job. What nobody else restarts, we
restart: penstockd, and Nginx's master. Jobs run on engine simulate, or on others (storm_engines.py): programs, or a server,
which are killed, too, and count how many jobs they have at once. At the end every key is asked about once more, the way it
came, and what has come of it is counted:

  acknowledged  keys whose 202 was heard
  completed     of those, jobs that completed, their result read
  lost          of those, jobs that are unknown, did not complete, or have no result of a run that was logged
  run twice     of those, jobs that were started more than once: allowed, and counted
  stored twice  of those, jobs of whom there are two, or whose result was one thing when first read and another at the end

lost and stored twice must be 0, no engine may have seen more jobs at once than its slots, and neither a process nor a file may
be left. The seed is printed; the moments of the kills depend on the machine all the same.

Usage: storm.py BUILD_DIR [--engine simulate|process|http] [--kills N] [--jobs N] [--seed N] [--seconds 150]
"""
import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
import planted  # noqa: E402
from line import Line, Refused  # noqa: E402
from processes import NGINX as NGINX_PROGRAM  # noqa: E402
from processes import children, environment, sanitizer_reports  # noqa: E402
from storm_engines import ENGINES, left_over  # noqa: E402
from waiting import Port  # noqa: E402
from web import Web  # noqa: E402

CALLERS, WAITING = 32, 4
# What is killed, and how often beside the others.
KILLS = {"penstockd": 4, "worker": 4, "nginx worker": 2, "nginx": 2, "everything": 1}

PENSTOCKD = """\
socket: {folder}/p.sock
state: {folder}/state
worker_binary: {build}/penstock-worker
queues:
  default: {{ max_length: 100000, deadline: 1h, attempts: 100, backoff: 10ms }}
workers:
"""

NGINX = """\
load_module {build}/ngx_http_penstock_module.so;
{user}
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; penstock_temp_path {folder}/t;
  penstock_zone edge 1m;
  upstream gpu {{ server unix:{folder}/p.sock; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port} reuseport; penstock_owner $http_authorization;
    location / {{ penstock_pass gpu; }}
    location /jobs {{ penstock_jobs gpu; }}
  }}
}}
"""


class Fault(Exception):
    """What must not happen."""


class Host:
    """A penstockd and an Nginx, each restarted by whoever kills it."""

    def __init__(self, build, folder, config, engine=None, port=None):
        self.build, self.folder, self.config, self.engine, self.port = build, folder, config, engine, port
        self.socket = folder / "p.sock"
        self.penstockd = self.nginx = None

    def start(self):
        (self.folder / "p.yaml").write_text(self.config)
        self.start_penstockd()
        if self.port:
            (self.folder / "nginx.conf").write_text(NGINX.format(
                folder=self.folder, build=self.build, port=self.port.number, user="user root;" if os.getuid() == 0 else ""))
            self.start_nginx()

    def start_penstockd(self):
        with open(self.folder / "penstockd.log", "ab") as log:
            self.penstockd = subprocess.Popen([self.build / "penstockd", "-c", self.folder / "p.yaml"], stdout=log, stderr=log,
                                              env=environment(self.folder))

    def start_nginx(self):
        nginx = [NGINX_PROGRAM, "-p", self.folder, "-c", self.folder / "nginx.conf", "-e", self.folder / "error.log"]
        self.nginx = subprocess.Popen([str(part) for part in nginx], env=environment(self.folder))

    def processes(self):
        return [process for process in (self.nginx, self.penstockd) if process]

    def workers(self):
        return children(self.penstockd.pid)

    def nginx_workers(self):
        return children(self.nginx.pid) if self.nginx else []

    def kill(self, pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.penstockd.pid in pids:
            self.penstockd.wait()
            self.start_penstockd()
        if self.nginx and self.nginx.pid in pids:
            self.nginx.wait()
            self.start_nginx()

    def stop(self):
        for process in self.processes():
            if process.poll() is None:
                process.terminate()
        for process in self.processes():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
        self.penstockd = self.nginx = None
        if self.port:
            self.port.release()

    def log(self):
        return "".join((self.folder / name).read_text(errors="replace")[-3000:] for name in ("penstockd.log", "error.log")
                       if (self.folder / name).exists())


class Storm:
    KILLS = KILLS

    def __init__(self, args, folder):
        self.build, self.folder = Path(args.build).resolve(), Path(folder)
        self.make_engine = ENGINES[args.engine]
        self.kills, self.jobs, self.limit = args.kills, args.jobs, args.seconds
        self.random = random.Random(args.seed)
        self.killed = collections.Counter()
        self.next_job = self.released = 0
        self.acknowledged = {}   # key -> (job id, owner)
        self.through_nginx = set()  # of those keys
        self.unheard = 0         # had been promised before, as their callers did not hear
        self.two_ids = {}        # key -> the other id it was told
        self.first_results = {}  # key -> what its result was when first read
        self.answers = collections.Counter()  # of the waiting callers
        self.heard = []          # what some of them were answered: (what they had asked, the answer)
        self.broken = 0          # connections, before a promise
        self.refused = 0         # with 503, to be asked again
        self.hosts, self.engines = [], []
        self.edges = []          # of the hosts, those with an Nginx
        self.over = False

    # ---- what runs ----

    async def start(self):
        self.hosts = self.edges = [self.host(self.folder, PENSTOCKD, edge=True)]
        await self.start_hosts()

    def host(self, folder, config, edge=False, gpu=True):
        """With an Nginx if it is an edge, with workers if it is to have GPUs."""
        engine = self.make_engine(self.build, folder) if gpu else None
        config = config.format(folder=folder, build=self.build) + (engine.workers() if gpu else "  []\n")
        self.engines += [engine] * gpu
        return Host(self.build, folder, config, engine, Port() if edge else None)

    async def start_hosts(self):
        for host in self.hosts:
            if host.engine:
                await host.engine.start()
            host.start()

    @property
    def engine(self):
        return self.engines[0]

    def stop(self):
        for host in self.hosts:
            host.stop()
        for engine in self.engines:
            engine.stop()

    def close(self):
        """What the hosts had in common ends."""

    # ---- load ----

    async def line(self, web=False):
        """A connection to penstockd, or to Nginx, that answers, whenever there is one again."""
        while True:
            host = self.random.choice(self.edges)
            try:
                return await (Web.open(host.port.number) if web else Line.open(host.socket))
            except OSError:
                self.broken += 1
                await asyncio.sleep(0.02)

    async def caller(self, number):
        web = number % 2 == 0
        line = await self.line(web)
        owner = f"Bearer sk-of-a-storm {number % 5}"
        while self.next_job < self.jobs:
            if self.next_job >= self.released:
                await asyncio.sleep(0.005)
                continue
            key = f"job-{self.next_job}"
            self.next_job += 1
            if web:
                self.through_nginx.add(key)
            line = await self.promise(line, owner, key)
            line = await self.look(line, owner, key)
        line.close()

    def request(self, key):
        return {"body": self.engine.body(key), "path": self.engine.path, "content_type": self.engine.content_type}

    async def promise(self, line, owner, key):
        while key not in self.acknowledged:
            try:
                self.acknowledged[key] = await line.promise(owner, key, **self.request(key)), owner
                self.unheard += line.duplicate
            except (OSError, EOFError):
                line.close()
                self.broken += 1
                line = await self.line(key in self.through_nginx)
            except Refused as refused:
                assert refused.status == 503, f"{key}: {refused}"
                self.refused += 1
                await asyncio.sleep(0.05)
        return line

    async def look(self, line, owner, key):
        """Its result, if it is there already; now and then somebody asks again for what was promised."""
        try:
            status, body = await line.ask(owner, f"/{self.acknowledged[key][0]}/result")
            if status == 200:
                self.first_results[key] = body
            if self.random.random() < 0.2:
                again = await line.promise(owner, key, **self.request(key))
                if again != self.acknowledged[key][0]:
                    self.two_ids[key] = again
        except (OSError, EOFError, Refused):
            line.close()
            line = await self.line(key in self.through_nginx)
        return line

    async def waiting_caller(self, caller):
        """Waits for answers through Nginx; each ends with an answer, or with the connection that a kill broke."""
        for number in itertools.count():
            if self.over:
                return
            key = f"waiting-{caller}-{number}"
            try:
                web = await Web.open(self.random.choice(self.edges).port.number)
                status, answer = await asyncio.wait_for(web.wait_for_answer("", **self.request(key)), 60)
                self.answers[str(status)] += 1
                if status == 200:
                    self.heard.append((key, answer))
                web.close()
            except TimeoutError:
                self.answers["never"] += 1
            except (OSError, EOFError):
                self.answers["broken"] += 1
            await asyncio.sleep(0.02)

    # ---- kills ----

    async def kill_at_random(self):
        """Each kill comes while some jobs are being promised and others run."""
        while (done := sum(self.killed.values())) < self.kills:
            await asyncio.sleep(self.random.uniform(0.05, 0.5))
            self.released = self.jobs * (done + 1) // self.kills
            await asyncio.sleep(self.random.uniform(0, 0.04))
            kills = {**self.KILLS, **self.engine.KILLS}
            what = self.random.choices(list(kills), list(kills.values()))[0]
            self.killed[what] += bool(await self.kill(what))

    async def kill(self, what):
        """False: there is none now."""
        host = self.random.choice(self.edges if what.startswith("nginx") else self.hosts)
        workers, nginx_workers = host.workers(), host.nginx_workers()
        if what in self.engine.KILLS:
            return host.engine and host.engine.kill(what, workers)
        nginx = [host.nginx.pid] + nginx_workers if host.nginx else []
        pids = {"penstockd": [host.penstockd.pid], "worker": self.one_of(workers), "nginx worker": self.one_of(nginx_workers),
                "nginx": nginx, "everything": [host.penstockd.pid] + workers + nginx}[what]
        host.kill(pids)
        return pids

    def one_of(self, pids):
        return [self.random.choice(pids)] if pids else []

    async def watch(self):
        """penstockd and Nginx must not end but by our hand."""
        while not self.over:
            for process in (process for host in self.hosts for process in host.processes()):
                status = process.poll()
                if status is not None and status != -signal.SIGKILL:
                    raise Fault(f"{process.args[0]} ended by itself, with {status}: {self.log()}")
            await asyncio.sleep(0.1)

    def log(self):
        return "\n".join(host.log() for host in self.hosts)

    async def run(self):
        await self.start()
        others = [asyncio.ensure_future(self.waiting_caller(number)) for number in range(WAITING)] + [asyncio.ensure_future(self.watch())]
        work = [self.caller(number) for number in range(CALLERS)] + [self.kill_at_random()]
        work = [asyncio.ensure_future(one) for one in work]
        try:
            first, _ = await asyncio.wait([asyncio.gather(*work), others[-1]], timeout=self.limit, return_when=asyncio.FIRST_COMPLETED)
            if not first:
                raise Fault(f"after {self.limit} s {len(self.acknowledged)} of {self.jobs} promises were given, {sum(self.killed.values())} kills done")
            first.pop().result()
        except BaseException:
            for task in others + work:
                task.cancel()
            await asyncio.gather(*others, *work, return_exceptions=True)
            raise
        self.over = True
        await asyncio.gather(*others)
        await self.drain()
        return await self.count()

    async def drain(self):
        """Until nothing is queued or running."""
        end = time.monotonic() + self.limit
        line = await self.line()
        while time.monotonic() < end:
            queue = (await line.status())["queues"][0]
            if queue["waiting"] == 0 and queue["running"] == 0:
                return line.close()
            await asyncio.sleep(0.1)
        raise Fault(f"after {self.limit} s jobs are still queued: {queue}")

    # ---- the count ----

    def runs(self):
        """Of each job, the runs that any engine knows of."""
        runs = collections.defaultdict(set)
        for engine in self.engines:
            for key, some in engine.runs().items():
                runs[key] |= some
        return runs

    async def count(self):
        runs, lines = self.runs(), [await self.line(web) for web in (False, True)]
        for key, answer in self.heard:
            if self.engine.run_of(answer) not in runs[key]:
                raise Fault(f"{key} was answered what none of its runs has said: {answer[:200]}; it ran as {runs[key]}")
        counts = collections.Counter(acknowledged=len(self.acknowledged))
        for key, (id, owner) in self.acknowledged.items():
            line = lines[key in self.through_nginx]
            status, job = await line.ask(owner, f"/{id}")
            complete = status == 200 and json.loads(job)["status"] == "completed"
            status, result = await line.ask(owner, f"/{id}/result")
            good = complete and status == 200 and self.engine.run_of(result) in runs[key]
            counts["completed"] += good
            if not good:
                counts["lost"] += 1
                print(f"storm: lost: {key} {id}: {job[:300]} {status} {result[:200]} runs {runs[key]}")
            counts["run twice"] += len(runs[key]) > 1
            if key in self.two_ids or result != self.first_results.get(key, result):
                counts["stored twice"] += 1
                print(f"storm: stored twice: {key} {id}, also {self.two_ids.get(key)}: {self.first_results.get(key)} {result}")
        for line in lines:
            line.close()
        return counts

    def count_stored(self):
        """Once penstockd has ended: what the database itself has of promised jobs, by their keys."""
        database = sqlite3.connect(self.folder / "state" / "jobs.db")
        jobs, keys, results, in_files, unfinished = database.execute(
            "SELECT count(*), count(DISTINCT key), (SELECT count(*) FROM results), sum(result_in_file), sum(status<3) FROM jobs").fetchone()
        database.close()
        files = len(list((self.folder / "state" / "results").glob("*")))
        if files != in_files:
            raise Fault(f"{files} files of results are on disk, of {in_files} jobs")
        return {"jobs": jobs, "keys": keys, "results": results + files, "unfinished": unfinished}

    def to_be_stored(self):
        return {"jobs": self.jobs, "keys": self.jobs, "results": self.jobs, "unfinished": 0}

    def count_left(self):
        """Likewise: processes, and what the engine's judges have seen."""
        if faults := [fault for engine in self.engines for fault in engine.faults()] + left_over(self.folder):
            raise Fault("\n".join(faults))


def main(kind=Storm, parser=None):
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--engine", choices=ENGINES, default="simulate")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--seconds", type=int, default=150)
    args = parser.parse_args()
    usual = ENGINES[args.engine].SIZE
    args.kills, args.jobs = args.kills or usual["kills"], args.jobs or usual["jobs"]
    folder = tempfile.mkdtemp(prefix="storm-", dir="/tmp")
    os.chmod(folder, 0o755)
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("storm: told to end"))  # what it started ends with it
    storm = kind(args, folder)
    good = False
    try:
        counts = asyncio.run(storm.run())
        storm.stop()
        stored = storm.count_stored()
        storm.count_left()
        if reports := sanitizer_reports(storm.folder) + planted.shown_in(Path(folder)):
            raise Fault("\n".join(reports))
        kills = ", ".join(f"{count} {what}" for what, count in sorted(storm.killed.items()))
        print(f"storm: engine {args.engine}, seed {args.seed}, {time.monotonic() - began:.0f} s, kills: {sum(storm.killed.values())} ({kills}); "
              f"connections broken before the promise {storm.broken}, refused for a while {storm.refused}; "
              f"promised through Nginx {len(storm.through_nginx)}; promised before their caller heard of it {storm.unheard}; "
              f"waiting callers through Nginx: {dict(storm.answers)}")
        print(f"storm: stored: {stored}")
        for name in ("acknowledged", "completed", "lost", "run twice", "stored twice"):
            print(f"storm: {name:13} {counts[name]}")
        good = (sum(storm.killed.values()) >= args.kills and counts["acknowledged"] == counts["completed"] == args.jobs
                and counts["lost"] == counts["stored twice"] == 0 and storm.answers["never"] == 0 and storm.answers["200"] > 0
                and stored == storm.to_be_stored())
    except Fault as fault:
        print(f"storm: {fault}")
    finally:
        storm.stop()
        storm.close()
        if good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"storm: failed; {folder} is left to be looked at; penstockd's last words:\n{storm.log()}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
