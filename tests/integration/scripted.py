"""A penstockd that plays a script: hostile, or merely unlucky, as the real one never is."""

import fcntl
import socket
import struct
import termios
import threading
import time

from wire import (ACCEPTED, ASK, CHUNK, DONE, EDGE, FAILED, GOODBYE, HEAD, HELLO, PROGRESS, SETTLED, SUBMIT, Closed, Connection,
                  frame)

JOB = 1  # the module has one job at a time on a connection


def accepted(job_id, position=1):
    return frame(ACCEPTED, JOB, job_id=job_id, position=position)


def progress():
    return frame(PROGRESS, JOB, position=1)


def head(status=200, content_type="text/plain", length=None):
    """`length`: how many bytes are promised; None: the answer streams."""
    promise = {} if length is None else {"content_length_plus1": length + 1}
    return frame(HEAD, JOB, status=status, content_type=content_type, **promise)


def chunk(data):
    return frame(CHUNK, JOB, data)


def done(**used):
    """`used`: prompt_tokens, completion_tokens, device_ns."""
    return frame(DONE, JOB, **used)


def failed(status, message="It failed.", code="busy", retry_after_s=0, **more):
    return frame(FAILED, JOB, status=status, code=code, message=message, retry_after_s=retry_after_s, **more)


def goodbye(message="Enough.", **more):
    return frame(GOODBYE, 0, message=message, **more)


def answer(text, job_id="job_1", **used):
    """A whole answer of these bytes."""
    return accepted(job_id) + head(length=len(text)) + chunk(text) + done(**used)


class Gate:
    """A step of a script that waits until it is opened."""

    def __init__(self):
        self._open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, caller):
        self.reached.set()
        assert self._open.wait(20)

    def open(self):
        self._open.set()


class Caller(Connection):
    """penstockd's side of a caller's connection."""

    def __init__(self, connected):
        self.socket = connected

    def send_byte_by_byte(self, data):
        """Each byte once Nginx has read the one before."""
        for i in range(len(data)):
            self.send(data[i:i + 1])
            self.wait_until_read()

    def wait_until_read(self):
        deadline = time.monotonic() + 20
        while struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4))[0] > 0:
            assert time.monotonic() < deadline, "Nginx has not read what was sent"
            time.sleep(0.0002)


class Scripted:
    """Listens on `path` and answers each job, and each question about jobs, with the steps: bytes are sent, functions called with the caller.

    `tell_edge`: bytes that each of Nginx's own lines is sent when it says hello."""

    def __init__(self, path, *steps, tell_edge=b""):
        self.path, self.steps, self.tell_edge = path, steps, tell_edge
        self.edges = []  # the process behind each of Nginx's own lines that have come
        self.lines = []  # these lines
        self.hellos = []  # what they said first
        self.settled = []  # the ids of SETTLED that came over them
        self.submits = []  # the fields of each job that came; the body is named json
        self.faults = []
        self._callers = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def server(self):
        """The parameters of Nginx's `server`: one that is never taken for dead."""
        return f"unix:{self.path} max_fails=0"

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for caller in self._callers:
            try:
                caller.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()
        return self.faults

    def _accept(self):
        while True:
            try:
                caller = Caller(self._listener.accept()[0])
            except OSError:
                return
            self._callers.append(caller)
            self._threads.append(threading.Thread(target=self._serve, args=(caller,)))
            self._threads[-1].start()

    def _serve(self, caller):
        try:
            while True:
                kind, id, fields = caller.receive_fields()
                if kind == HELLO and fields["role"] == EDGE:
                    self.edges.append(struct.unpack("3i", caller.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
                    self.hellos.append(fields)
                    self.lines.append(caller)
                    caller.send(self.tell_edge)
                if kind == SETTLED:
                    self.settled.append(id)
                if kind == SUBMIT:
                    self.submits.append(fields)
                    self._play(caller)
                if kind == ASK:
                    self._play(caller)
        except (Closed, ConnectionError):
            pass
        except Exception as error:
            self.faults.append(f"{self.path.stem}: {error!r}")
        finally:
            caller.close()

    def _play(self, caller):
        for step in self.steps:
            if callable(step):
                step(caller)
            else:
                caller.send(step)
