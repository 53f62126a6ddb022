"""The wire as PROTOCOL.md tells it, written again: what the tests say to penstockd without Nginx in between."""

import socket
import struct

HELLO, SUBMIT, ACCEPTED, HEAD, CHUNK, PROGRESS, DONE, FAILED, CANCEL, TAKE, HEARTBEAT, STATUS, DRAIN, GOODBYE, \
    ASK, HOLD, OVER, DEVICE, DEVICES = range(1, 20)
WINDOW, SETTLED, SLOTS, PREVIEW, NOTE, VERIFY, VERIFIED, LOG, SPENT, QUOTA = range(24, 34)
CALLER, TOOL, EDGE, WATCH = 1, 3, 4, 5
TAGS = {
    "version": 1, "role": 2, "queue": 6, "model": 7, "owner": 8, "tier": 9, "priority": 10, "weight": 11, "cost": 12,
    "method": 13, "path": 14, "content_type": 15, "job_id": 16, "position": 17, "eta_ms": 18, "status": 19,
    "content_length_plus1": 20, "prompt_tokens": 22, "completion_tokens": 23, "device_ns": 24, "code": 25,
    "message": 26, "param": 27, "retry_after_s": 28, "body": 31, "json": 31, "override": 35, "prefer": 36, "idempotency_key": 37, "delay": 38,
    "not_before": 39, "callback": 40, "dedupe": 41, "on_duplicate": 42, "max_wait_ms": 43, "jobs_path": 44, "receipt": 45,
    "headers": 46, "file": 47, "promised": 48, "query": 49, "last_event_id": 50, "websocket": 51, "refund": 52, "duplicate": 53,
    "name": 3, "index": 70, "parent_plus1": 71, "uuid": 72, "known": 73, "utilization_percent": 74, "memory_used_bytes": 75,
    "memory_total_bytes": 76, "temperature_celsius": 77, "power_mw": 78, "health": 79, "count": 80,
    "start_within_ms": 95, "finish_within_ms": 96, "news_ms": 97, "news_events": 98, "opens": 99, "queue_us": 100, "run_us": 101,
    "earlier": 102, "earlier_when": 103, "earlier_age_s": 104, "is_earlier": 105, "denied": 106,
    "provider": 107, "sitekey": 108, "token": 109, "caller": 110, "remote_ip": 111, "verdict": 112,
    "settles": 127, "nginx": 128, "sealed": 129,
}
NUMBERS = {"version", "role", "priority", "weight", "cost", "position", "eta_ms", "status", "content_length_plus1",
           "prompt_tokens", "completion_tokens", "device_ns", "retry_after_s", "dedupe", "on_duplicate", "max_wait_ms", "promised",
           "websocket", "refund", "duplicate", "index", "parent_plus1", "known", "utilization_percent", "memory_used_bytes",
           "memory_total_bytes", "temperature_celsius", "power_mw", "health", "count",
           "start_within_ms", "finish_within_ms", "news_ms", "news_events", "opens", "queue_us", "run_us",
           "earlier", "earlier_when", "earlier_age_s", "is_earlier", "denied", "verdict",
           "settles", "nginx", "sealed"}


def frame(kind, id=0, payload=b"", **fields):
    """One encoded frame, of raw payload or of named fields."""
    for name, value in fields.items():
        data = struct.pack("<q", value) if isinstance(value, int) else value if isinstance(value, bytes) else value.encode()
        payload += struct.pack("<II", TAGS[name], len(data)) + data
    return struct.pack("<IB3xQ", len(payload), kind, id) + payload


class Closed(Exception):
    """The other side has closed the connection."""


class Connection:
    """A caller's or a tool's connection to penstockd."""

    def __init__(self, path, role=CALLER, hello=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        if hello:
            self.send(frame(HELLO, version=1, role=role))

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """The next frame: (kind, id, payload). Raises Closed."""
        length, kind, id = struct.unpack("<IB3xQ", self._exactly(16))
        return kind, id, self._exactly(length)

    def receive_fields(self):
        """The next frame with its fields by name: (kind, id, fields)."""
        kind, id, payload = self.receive()
        names = {tag: name for name, tag in TAGS.items()}
        fields, at = {}, 0
        while at < len(payload):
            tag, size = struct.unpack_from("<II", payload, at)
            value = payload[at + 8:at + 8 + size]
            name = names.get(tag, tag)
            fields[name] = struct.unpack("<q", value)[0] if name in NUMBERS else value
            at += 8 + size
        return kind, id, fields

    def until_closed(self):
        """Every frame up to the end of the connection."""
        frames = []
        try:
            while True:
                frames.append(self.receive())
        except Closed:
            return frames

    def close(self):
        self.socket.close()

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed()
            data += more
        return data
