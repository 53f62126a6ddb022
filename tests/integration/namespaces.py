"""Networks of a test's own, each joined to this machine's by a cable that can be pulled. Needs root and iproute2."""

import ctypes
import os
import subprocess
from contextlib import ExitStack, closing, contextmanager

import pytest

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*words):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")


class Namespace:
    """`here` is this machine's address as seen from inside, in the range that is for tests of networks (RFC 2544)."""

    def __init__(self, number):
        self._name = f"penstock-{os.getpid()}-{number}"
        self._cable = f"pen{os.getpid() % 100_000}-{number}"
        block = (os.getpid() * 4 + number) % 16384
        net = f"198.{18 + block // 8192}.{block // 32 % 256}"
        self.here, inside = (f"{net}.{block % 32 * 4 + end}" for end in (1, 2))
        ip("netns", "add", self._name)
        try:
            ip("link", "add", self._cable, "type", "veth", "peer", "name", "outside", "netns", self._name)
            ip("addr", "add", f"{self.here}/30", "dev", self._cable)
            ip("link", "set", self._cable, "up")
            ip("-n", self._name, "addr", "add", f"{inside}/30", "dev", "outside")
            ip("-n", self._name, "link", "set", "outside", "up")
            ip("-n", self._name, "link", "set", "lo", "up")
        except OSError:
            self.close()
            raise

    @contextmanager
    def entered(self):
        """What this thread connects, listens at and starts is inside."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self._name}") as inside:
            self._enter(inside)
            try:
                yield
            finally:
                self._enter(before)

    @staticmethod
    def _enter(namespace):
        if LIBC.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def pull(self):
        ip("link", "set", self._cable, "down")

    def plug_in(self):
        ip("link", "set", self._cable, "up")

    def close(self):
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True)
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True)


@contextmanager
def namespaces(count):
    """So many of them. A machine that allows none skips the test."""
    with ExitStack() as made:
        try:
            found = [made.enter_context(closing(Namespace(number))) for number in range(count)]
        except OSError as error:
            pytest.skip(f"this machine allows no network namespaces: {error}")
        yield found
