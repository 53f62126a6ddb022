"""A redis-server of a test's own at a Unix socket or a port, and a connection that speaks RESP2 to it."""

import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from waiting import Port, until


class RedisError(Exception):
    pass


class Connection:
    def __init__(self, address):
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self._socket = socket.socket(family)
        self._socket.connect(address)
        self._file = self._socket.makefile("rb", 1 << 20)

    def close(self):
        self._file.close()
        self._socket.close()

    def __call__(self, *words):
        self.send([words])
        return self.answer()

    def send(self, commands):
        self._socket.sendall(b"".join(map(self._encoded, commands)))

    @staticmethod
    def _encoded(words):
        texts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)

    def answer(self):
        answer = self._read()
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def _read(self):
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise RedisError(f"the connection ended: {line!r}")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        size = int(rest)
        if size < 0:
            return None
        return self._file.read(size + 2)[:-2] if kind == b"$" else [self._read() for _ in range(size)]


class RedisServer:
    """`options` as on redis-server's command line: ("--maxmemory-policy", "allkeys-lru")."""

    def __init__(self, *options, tcp=False, cluster=False):
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-redis-"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "redis.sock"
        self._port = Port(and_above=10_000 if cluster else 0) if tcp else None  # a cluster's nodes meet above their ports
        self.options = [str(option) for option in options]
        self.process = None
        self.start()

    @property
    def port(self):
        return self._port.number

    @property
    def address(self):
        """As penstock_zone names it."""
        return f"127.0.0.1:{self._port.number}" if self._port else f"unix:{self.socket}"

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self._port.number if self._port else 0), "--unixsocket", str(self.socket),
             "--unixsocketperm", "777", "--dir", str(self.folder), "--save", "", "--appendonly", "no", "--daemonize", "no",
             "--logfile", str(self.folder / "log"), *self.options])
        until(self._answers, lambda: "redis-server answers: " + (self.folder / "log").read_text()[-500:])

    def _answers(self):
        try:
            connection = self.connect()
            connection("COMMAND", "COUNT")
        except RedisError:
            return True  # it wants a password
        except OSError:
            return False
        connection.close()
        return True

    def connect(self):
        return Connection(str(self.socket))

    def ask(self, *words):
        """One command on a connection of its own."""
        connection = self.connect()
        try:
            return connection(*words)
        finally:
            connection.close()

    def stop_answering(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        if self._port:
            self._port.release()
        shutil.rmtree(self.folder, ignore_errors=True)
