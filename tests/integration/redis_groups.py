"""Several redis-servers of a test's own: a master and its replica under three Sentinels, and a cluster of three masters."""

import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from redis_server import Connection, RedisError, RedisServer
from waiting import Port, until


class Sentinel:
    def __init__(self, password=None, asks_for_it=True):
        self._password, self._own = password, password if asks_for_it else None
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-sentinel-"))
        self._port = Port()
        self.port = self._port.number
        self.name = secrets.token_hex(20)
        self.process = None

    def start(self, master, replicas, others):
        """It knows all from the start, so that nobody waits for them to meet."""
        conf = self.folder / "sentinel.conf"
        conf.write_text("\n".join([
            f"port {self.port}", f"dir {self.folder}", f"logfile {self.folder}/log", "protected-mode no", f"sentinel myid {self.name}",
            f"sentinel monitor main 127.0.0.1 {master} 2", "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 4000", *(f"sentinel known-replica main 127.0.0.1 {port}" for port in replicas),
            *(f"sentinel known-sentinel main 127.0.0.1 {other.port} {other.name}" for other in others),
            *([f"requirepass {self._own}"] if self._own else []),
            *([f"sentinel auth-pass main {self._password}"] if self._password else []), ""]))
        self.start_again()

    def start_again(self):
        """With what it had learned."""
        self.process = subprocess.Popen(["redis-server", self.folder / "sentinel.conf", "--sentinel"])
        until(self._answers, "a Sentinel answers")

    def _answers(self):
        try:
            return self("PING") == "PONG"
        except (OSError, RedisError):
            return False

    def __call__(self, *words):
        connection = Connection(("127.0.0.1", self.port))
        try:
            if self._own:
                connection("AUTH", self._own)
            return connection(*words)
        finally:
            connection.close()

    def is_fit(self):
        """Whether it may fail over."""
        return self("SENTINEL", "CKQUORUM", "main").startswith("OK 3") and \
            all(b"disconnected" not in flags for flags in self("SENTINEL", "REPLICAS", "main")[0])

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._port.release()
        shutil.rmtree(self.folder, ignore_errors=True)


class Watched:
    """A master, its replicas, and three Sentinels that call it `main`; all with one password, or none. Sentinels may have none."""

    def __init__(self, password=None, of_sentinels=True, replicas=1):
        options = ["--repl-diskless-sync-delay", "0"]
        if password:
            options += ["--requirepass", password, "--masterauth", password]
        first = RedisServer(*options, tcp=True)
        self.servers = [first]
        for _ in range(replicas):
            self.servers.append(RedisServer(*options, "--replicaof", "127.0.0.1", first.port, tcp=True))
            until(lambda: b"master_link_status:up" in self._info(self.servers[-1], password), "the replica follows")
        self.sentinels = [Sentinel(password, of_sentinels) for _ in range(3)]
        for sentinel in self.sentinels:
            sentinel.start(first.port, [each.port for each in self.servers[1:]], [other for other in self.sentinels if other is not sentinel])
        until(lambda: all(sentinel.is_fit() for sentinel in self.sentinels), "the Sentinels know all")

    @staticmethod
    def _info(server, password):
        connection = server.connect()
        try:
            if password:
                connection("AUTH", password)
            return connection("INFO", "replication")
        finally:
            connection.close()

    @property
    def address(self):
        """What penstock_zone takes."""
        return "sentinel=main " + " ".join(f"redis=127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def master(self):
        _, port = self.sentinels[0]("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return next(server for server in self.servers if server.port == int(port))

    @staticmethod
    def is_replica(server):
        try:
            return server.ask("ROLE")[0] == b"slave"
        except (OSError, RedisError):
            return False  # Sentinel has closed its connections

    def close(self):
        for one in (*self.sentinels, *self.servers):
            one.close()


class Cluster:
    """Three masters; each has a third of the slots."""

    def __init__(self, *options, count=3):
        self.servers = [RedisServer("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no",
                                    *options, tcp=True, cluster=True) for _ in range(count)]
        for number, server in enumerate(self.servers):
            first, last = (16384 * part // 3 for part in (number, number + 1))
            if number < 3:
                server.ask("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number > 0:
                server.ask("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        until(lambda: all(self._knows_all(server) for server in self.servers), "the cluster is one")

    def add_replicas(self):
        """Of six servers each of the last three follows one of the first, and has all of it."""
        for master, replica in zip(self.servers[:3], self.servers[3:]):
            replica.ask("CONFIG", "SET", "repl-diskless-sync-delay", 0)
            master.ask("CONFIG", "SET", "repl-diskless-sync-delay", 0)
            until(lambda: replica.ask("CLUSTER", "REPLICATE", master.ask("CLUSTER", "MYID")) == "OK", "it is a replica")
        for replica in self.servers[3:]:
            until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"), "the replica follows")

    def replica_of(self, master):
        return self.servers[3 + self.servers.index(master)]

    def _knows_all(self, server):
        info = server.ask("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_slots_assigned:16384" in info and \
            f"cluster_known_nodes:{len(self.servers)}".encode() in info

    @property
    def address(self):
        return " ".join(f"redis=127.0.0.1:{server.port}" for server in self.servers[:3])

    def owner(self, slot):
        for first, last, master, *_ in self.servers[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == master[1])

    def slot(self, key):
        return self.servers[0].ask("CLUSTER", "KEYSLOT", key)

    def move(self, slot, to):
        """As redis-cli moves one: both sides are told, keys go one by one, then the slot is the other's."""
        source = self.owner(slot)
        names = {server: server.ask("CLUSTER", "MYID") for server in (source, to)}
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[to])
        yield "begun"
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 1000, "KEYS", *keys)
        yield "keys are moved"
        for server in (to, source, *self.servers):
            if server.process.poll() is None and server.ask("ROLE")[0] == b"master":
                server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[to])

    def close(self):
        for server in self.servers:
            server.close()
