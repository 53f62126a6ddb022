#!/usr/bin/python3
"""The storm (storm.py) over hosts that share one queue: two edges, three hosts with workers, and Redis.

Besides what is killed on one host, Redis is:

  --redis kept        one redis-server that flushes each write, and is started again at once
  --redis replicated  a master, a replica and three Sentinels (`promise: replicas:1`); who is killed is started again once the
                      Sentinels have made the other one the master, and may be made one itself once it has all that the other has:
                      so of what two memories have, one is always left

The counts, and what must be 0, are those of storm.py. Each answer is asked for on either edge; a host that has jobs and is gone
is missed after its lease, so jobs run twice here where they would be kept on one host. With `--engine process` the programs of
each worker of each host count how many jobs they have at once, and a tenth of the results lies in a folder that all hosts have.

Usage: storm_hosts.py BUILD_DIR [--redis kept|replicated] and as storm.py
"""
import argparse
import asyncio
import contextlib
import json
import sys
import time

from storm import KILLS, Fault, Storm, main
from redis_groups import Watched
from redis_server import RedisError, RedisServer

EDGES, GPUS = 2, 3
OVER = ("completed", "failed", "cancelled", "expired")
PROMISED_MS = 120_000  # what is kept for less was nobody's promise

PENSTOCKD = """\
socket: {{folder}}/p.sock
state: {{folder}}/state
worker_binary: {{build}}/penstock-worker
redis: {{{{ url: "{url}", {more} }}}}
results: {{{{ folder: {results} }}}}
queues:
  default: {{{{ shared: true, max_length: 100000, deadline: 1h, attempts: 100, backoff: 10ms }}}}
workers:
"""


class Kept:
    """One redis-server."""
    KILLS = {"redis": 2}
    more = "promise: fsync"
    may_lose = False  # what was not promised

    def __init__(self):
        self.server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
        self.url = f"unix:{self.server.socket}"

    @property
    def master(self):
        return self.server

    async def kill(self, _):
        self.server.kill()
        self.server.start()
        return True

    def close(self):
        self.server.close()


class Replicated(Watched):
    KILLS = {"redis": 2, "redis replica": 1, "sentinel": 1}
    more = "sentinel: main, promise: replicas:1"
    may_lose = True

    def __init__(self):
        super().__init__()
        self.options = list(self.servers[0].options)

    @property
    def url(self):
        return "redis://" + ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    async def kill(self, what):
        if not self.whole():
            return False
        master = self.master
        if what == "sentinel":
            one = self.sentinels[-1]
            one.process.kill()
            one.process.wait()
            one.start_again()
            return True
        server = master if what == "redis" else next(one for one in self.servers if one is not master)
        server.kill()
        await self.true("the Sentinels have named no new master", lambda: server is not master or self.replaced(master))
        # On a busy machine Sentinels may miss a master that lives: who has not got all yet is not to take its place.
        server.options = [*self.options, "--replica-priority", "0", "--replicaof", "127.0.0.1", str(self.master.port)]
        server.start()
        await self.true("the replica has not got all", lambda: b"master_link_status:up" in server.ask("INFO", "replication"))
        server.ask("CONFIG", "SET", "replica-priority", 100)
        return True

    async def true(self, trouble, what):
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, RedisError):
                if what():
                    return
            if time.monotonic() > end:
                raise Fault(f"{trouble} in 30 s")
            await asyncio.sleep(0.05)

    def replaced(self, old):
        return all(int(sentinel("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1]) != old.port for sentinel in self.sentinels)

    def whole(self):
        """Whether everybody is there, and the replica has what its master has."""
        try:
            master = self.master
            replica = next(server for server in self.servers if server is not master)
            return all(sentinel.is_fit() for sentinel in self.sentinels) and \
                f"slave0:ip=127.0.0.1,port={replica.port},state=online".encode() in master.ask("INFO", "replication") and \
                b"master_link_status:up" in replica.ask("INFO", "replication")
        except (OSError, RedisError, StopIteration):
            return False


REDIS = {"kept": Kept, "replicated": Replicated}


class HostsStorm(Storm):
    def __init__(self, args, folder):
        super().__init__(args, folder)
        self.redis = REDIS[args.redis]()
        self.KILLS = {**KILLS, **self.redis.KILLS}
        self.failing_over = None

    async def start(self):
        results = self.folder / "results"
        results.mkdir()
        config = PENSTOCKD.format(url=self.redis.url, more=self.redis.more, results=results)
        for number in range(EDGES + GPUS):
            edge = number < EDGES
            folder = self.folder / (f"edge{number}" if edge else f"gpu{number - EDGES}")
            folder.mkdir()
            folder.chmod(0o755)
            self.hosts.append(self.host(folder, config, edge, not edge))
        self.edges = self.hosts[:EDGES]
        await self.start_hosts()

    async def kill(self, what):
        if what not in self.redis.KILLS:
            return await super().kill(what)
        if self.failing_over and not self.failing_over.done():
            return False
        if self.failing_over:
            self.failing_over.result()
        self.failing_over = asyncio.ensure_future(self.redis.kill(what))  # the storm goes on meanwhile
        return True

    async def drain(self):
        """Until all that was acknowledged is over, whatever came of it."""
        if self.failing_over:
            await self.failing_over
        end, line = time.monotonic() + self.limit, await self.line()
        for id, owner in self.acknowledged.values():
            while True:
                status, job = await line.ask(owner, f"/{id}")
                if status == 404 or (status == 200 and json.loads(job)["status"] in OVER):
                    break
                if time.monotonic() > end:
                    raise Fault(f"after {self.limit} s {id} is not over: {status} {job[:300]}")
                await asyncio.sleep(0.05)
        line.close()

    def count_stored(self):
        """What Redis has of promised jobs, and of their keys. Nothing, of those hosts, is left in the database of one."""
        redis, at, jobs, keys, others = self.redis.master.connect(), 0, 0, 0, 0
        acknowledged = {id.encode() for id, _ in self.acknowledged.values()}
        while True:
            at, names = redis("SCAN", at, "MATCH", "penstock:q1:{default}:*", "COUNT", 10_000)
            of_jobs = [name for name in names if b":j|" in name]
            redis.send([("PTTL", name) for name in of_jobs])
            promised = [name.rpartition(b"|")[2] for name in of_jobs if not 0 <= redis.answer() <= PROMISED_MS]
            jobs += sum(id in acknowledged for id in promised)
            others += sum(id not in acknowledged for id in promised)
            keys += sum(b":k|" in name for name in names)
            if int(at) == 0:
                break
        waiting = int(redis("HGET", "penstock:q1:{default}:s", "w") or 0)
        redis.close()
        if self.redis.may_lose and others:
            print(f"storm: {others} jobs beside them, whose promise was refused and whose key has another one: their ends were said again")
            others = 0
        return {"jobs": jobs + others, "keys": keys, "unfinished": waiting}

    def to_be_stored(self):
        return {"jobs": self.jobs, "keys": self.jobs, "unfinished": 0}

    def close(self):
        self.redis.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--redis", choices=REDIS, default="kept")
    sys.exit(main(HostsStorm, arguments))
