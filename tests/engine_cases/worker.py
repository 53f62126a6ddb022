"""A real penstock-worker, and this end of its socket: what penstockd says to it, said by a test."""

import os
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from waiting import until
from wire import CANCEL, CHUNK, DONE, FAILED, HEAD, SUBMIT, TAKE, TAGS, WINDOW, frame

SLOTS = 26  # shared/wire/messages.h
NAMES = {tag: name for name, tag in TAGS.items()} | {5: "slots", 29: "retryable", 32: "credit", 86: "estimated", 87: "returned",
                                                     88: "out", 89: "retry_ms"}
NUMBERS = {"status", "content_length_plus1", "prompt_tokens", "completion_tokens", "device_ns", "retry_after_s", "slots", "retryable",
           "credit", "estimated", "returned", "out", "retry_ms"}


def fields_of(payload):
    fields, at = {}, 0
    while at < len(payload):
        tag, size = struct.unpack_from("<II", payload, at)
        value, name = payload[at + 8:at + 8 + size], NAMES.get(tag, tag)
        fields[name] = struct.unpack("<Q", value)[0] if name in NUMBERS else value.decode(errors="replace")
        at += 8 + size
    return fields


class Job:
    """What came of one job."""

    def __init__(self, id):
        self.id = id
        self.begun = time.monotonic()
        self.head, self.chunks, self.end, self.end_kind, self.ended = None, [], None, None, None

    @property
    def body(self):
        return b"".join(self.chunks)

    def outcome(self):
        if self.end is None:
            return "cancelled"
        if self.end_kind == FAILED:
            retried = self.end.get("retryable") and self.head is None
            return "returned" if self.end.get("returned") else "retried" if retried else "failed"
        return "done" if self.head["status"] < 400 else "failed"


class Worker:
    def __init__(self, folder, binary, engine, options, slots=1, environment=None, more=()):
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._stderr = open(folder / "worker.log", "wb")
        self.log_file = folder / "worker.log"
        command = [str(binary), "--fd", str(theirs.fileno()), "--name", "w", "--engine", engine, "--slots", str(slots), *more]
        command += ["--log-level", "debug"]
        for key, value in options.items():
            command += ["--option", f"{key}={value}"]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=self._stderr, stdout=self._stderr,
                                        env=dict(os.environ, **(environment or {})), cwd=folder)
        theirs.close()
        self.jobs, self.takes, self.slots = {}, [], []
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: self.takes or self.process.poll() is not None, lambda: f"the worker is ready: {self.log()}")
        assert self.takes, self.log()

    def log(self):
        return self.log_file.read_text(errors="replace")

    def resident(self, which="VmRSS"):
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split(which + ":")[1].split()[0]) * 1024

    def forget_peak(self):
        """VmHWM begins anew; what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.resident()

    def submit(self, id, request, body):
        """The job, which the worker has room for."""
        job = self.jobs[id] = Job(id)
        content_type = request.get("headers", {}).get("content-type", "application/json")
        self._send(frame(SUBMIT, id, method=request["method"], path=request["path"], content_type=content_type, body=body))
        return job

    def cancel(self, id):
        self._send(frame(CANCEL, id))

    def leave(self, job):
        """Its caller goes; when that was, and when its slot was free again, is noted with it."""
        taken = len(self.takes)
        job.left = time.monotonic()
        self.cancel(job.id)
        until(lambda: len(self.takes) > taken, lambda: f"the slot is free: {self.log()}")
        job.freed = self.takes[taken][0]

    def close(self):
        self._socket.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self._stderr.close()

    def _send(self, data):
        with self._lock:
            self._socket.sendall(data)

    def _read(self):
        data = b""
        while True:
            try:
                more = self._socket.recv(1 << 20)
            except OSError:
                return
            if not more:
                return
            data += more
            while len(data) >= 16:
                size, kind, id = struct.unpack_from("<IB3xQ", data)
                if len(data) < 16 + size:
                    break
                self._take(kind, id, data[16:16 + size])
                data = data[16 + size:]

    def _take(self, kind, id, payload):
        now, job = time.monotonic(), self.jobs.get(id)
        if kind == TAKE:
            self.takes.append((now, fields_of(payload).get("credit", 0)))
        elif kind == SLOTS:
            self.slots.append((now, {"slots": 0, "out": 0, "retry_ms": 0, "message": ""} | fields_of(payload)))
        elif kind == HEAD:
            job.head = fields_of(payload)
        elif kind == CHUNK:
            job.chunks.append(payload)
            self._send(frame(WINDOW, id, struct.pack("<IIq", 82, 8, len(payload))))
        elif kind in (DONE, FAILED):
            job.end, job.ended, job.end_kind = fields_of(payload), now, kind
