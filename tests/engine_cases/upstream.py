"""A server that answers as a fixture says, byte for byte, each piece by one send(); and what it saw of its clients."""

import base64
import email.utils
import json
import re
import socket
import struct
import threading
import time

MARKERS = ("close", "reset", "hold")
LONGEST_HOLD_S = 15


def body_of(request):
    """The bytes of a fixture's request body."""
    body = request.get("body", "")
    if isinstance(body, dict) and set(body) == {"text"}:
        return b"".join(unit.encode() * times for unit, times in body["text"])
    return body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def date_in(match):
    return email.utils.formatdate(time.time() + int(match.group(1)), usegmt=True)


def blocks(piece, size=65536):
    """A piece's bytes, cut where it is large."""
    if isinstance(piece, dict):
        unit = piece["repeat"].encode()
        for at in range(0, piece["times"], step := max(1, size // len(unit))):
            yield unit * min(step, piece["times"] - at)
    elif piece.startswith("base64:"):
        yield base64.b64decode(piece[7:], validate=True)
    else:
        yield re.sub(r"\{\{http_date:([+-]\d+)\}\}", date_in, piece).encode()


class Exchange:
    """One request that came, and what became of its connection."""

    def __init__(self, head, connection, use):
        self.line, _, lines = head.partition(b"\r\n")
        self.headers = {name.strip().lower(): value.strip()
                        for name, _, value in (line.partition(":") for line in lines.decode("latin-1").split("\r\n"))}
        self.body = b""
        self.connection, self.use = connection, use
        self.begun = time.monotonic()
        self.answered = None  # when the last piece was sent


class Upstream:
    """`runs`: for each request, in their order, what it gets: {"connection", "when", "pieces"}."""

    def __init__(self, runs):
        self.runs, self.exchanges, self.complaints = runs, [], []
        self.closed = {}  # connection: when the peer, or the script, closed it
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._socket.close()

    def _accept(self):
        number = 0
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            number += 1
            threading.Thread(target=self._serve, args=(peer, number), daemon=True).start()

    def _serve(self, peer, number):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._exchange_until_closed(peer, number)
        except OSError:
            pass
        self.closed[number] = time.monotonic()
        peer.close()

    def _exchange_until_closed(self, peer, number):
        data, use = b"", 0
        while True:
            while b"\r\n\r\n" not in data:
                more = peer.recv(65536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            use += 1
            exchange = Exchange(head, number, use)
            with self._lock:
                at = len(self.exchanges)
                self.exchanges.append(exchange)
            if at >= len(self.runs):
                self.complaints.append(f"a request more than there are answers: {exchange.line}")
                return
            run = self.runs[at]
            if run.get("when", "request") == "request":
                wanted = int(exchange.headers.get("content-length", 0))
                while len(data) < wanted:
                    more = peer.recv(262144)
                    if not more:
                        return
                    data += more
                exchange.body, data = data[:wanted], data[wanted:]
            if (run.get("connection") == "same") != (use > 1) and run.get("connection") in ("same", "new"):
                self.complaints.append(f"request {at + 1} should have come on the {run['connection']} connection")
            if not self._play(peer, exchange, run["pieces"]):
                return

    def _play(self, peer, exchange, pieces):
        """False: the connection is over."""
        for wait_ms, piece in pieces:
            time.sleep(wait_ms / 1000)
            if piece == "close":
                peer.shutdown(socket.SHUT_RDWR)
            elif piece == "reset":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif piece == "hold":
                peer.settimeout(LONGEST_HOLD_S)
                while peer.recv(65536):
                    pass
            if isinstance(piece, str) and piece in MARKERS:
                return False
            for block in blocks(piece):
                peer.sendall(block)
            exchange.answered = time.monotonic()
        return True
