"""Waiting for what must come true, and free ports."""

import fcntl
import os
import random
import socket
import tempfile
import time


def until(condition, what, seconds=20):
    """Polls until condition() is true and returns its value; `what`, text or a function, says what did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s it is not so that {what() if callable(what) else what}")
        time.sleep(0.01)


class Port:
    """A TCP port that no other test holds, below those the kernel gives to outgoing connections."""

    def __init__(self, and_above=0):
        """`and_above`: the one that many above is free as well."""
        folder = os.path.join(tempfile.gettempdir(), f"penstock-ports-{os.getuid()}")
        os.makedirs(folder, exist_ok=True)
        while True:
            self.number = random.randrange(15000, 32000 - and_above)
            self._lock = open(os.path.join(folder, str(self.number)), "w")
            if self._taken() and self._free(self.number) and (not and_above or self._free(self.number + and_above)):
                return
            self._lock.close()

    def _taken(self):
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False

    @staticmethod
    def _free(number):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
                return True
            except OSError:
                return False

    def release(self):
        self._lock.close()
