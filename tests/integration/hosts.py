"""Several Nginx hosts before one Redis, load on all of them, and how what they admit compares with the limit."""

import http.client
import os
import re
import signal
import threading
import time
from contextlib import nullcontext

from processes import children, state_of
from waiting import until

SERVER = "location / { penstock_limit zone=edge key=$arg_key %s name=a; empty_gif; }\n" \
         "location = /metrics { penstock_metrics; }"

# On a machine that is busy with other things Redis may be slow to answer: here nobody goes without it.
PATIENT = "timeout=500ms"


def counted(service, name, **labels):
    """A metric of the zone's."""
    labels = ",".join(f'{label}="{value}"' for label, value in {"zone": "edge", **labels}.items())
    return int(re.search(rf"^{name}{{{re.escape(labels)}}} (\d+)$", service.get("/metrics").text(), re.M)[1])


def counted_by_all(services, name, **labels):
    return sum(counted(service, name, **labels) for service in services)


def until_they_know_each_other(hosts):
    until(lambda: all(counted(host, "penstock_lease_up") and counted(host, "penstock_lease_hosts") == len(hosts) for host in hosts),
          "all hosts know each other")


def signal_all(service, number):
    """Every process of a host, the master first, so that it starts no others."""
    for pid in pids_of(service):
        os.kill(pid, number)


def pids_of(service):
    master = service.nginx.process.pid
    return [master, *children(master)]


def kill(service):
    """All of its Nginx, as when its power fails."""
    pids = pids_of(service)
    signal_all(service, signal.SIGKILL)
    service.nginx.process.kill()
    until(lambda: all(state_of(pid) in ("", "Z") for pid in pids), "it is gone")


def kill_and_start(service):
    """The whole host, as when its power fails, and a new one in its place."""
    kill(service)
    service.nginx.start(service.port)


class Load:
    """Requests on each port by threads of its own, for some seconds. Of those that were admitted it keeps when they were asked and
    answered. With `may_die` hosts may end meanwhile; `within` gives what each thread is in while it asks."""

    def __init__(self, ports, seconds, threads=2, path="/?key=a", pause=0.0, may_die=False, within=nullcontext):
        self.admitted, self.refused, self.others, self.slowest = [], 0, [], 0.0
        self._begin = time.monotonic()
        self._end = self._begin + seconds
        self._lock = threading.Lock()
        self._may_die = may_die
        self._within = within
        self._threads = [threading.Thread(target=self._run, args=(port, path, pause)) for port in ports for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join()
        self.admitted.sort()
        return self

    def with_(self, other):
        """What both have seen."""
        self.admitted = sorted(self.admitted + other.admitted)
        self.refused += other.refused
        self.others += other.others
        self.slowest = max(self.slowest, other.slowest)
        return self

    def _run(self, port, path, pause):
        with self._within():
            self._ask(port, path, pause)

    def _ask(self, port, path, pause):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        admitted, refused, others, slowest = [], 0, [], 0.0
        while (asked := time.monotonic()) < self._end:
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                if not self._may_die:
                    raise
                connection.close()
                time.sleep(0.01)
                continue
            now = time.monotonic()
            slowest = max(slowest, now - asked)
            if response.status == 200:
                admitted.append((asked, now))
            elif response.status == 429:
                refused += 1
            else:
                others.append(response.status)
            if pause:
                time.sleep(pause)
        connection.close()
        with self._lock:
            self.admitted += admitted
            self.refused += refused
            self.others += others
            self.slowest = max(self.slowest, slowest)

    def most_over(self, rate, burst):
        """By how much some window of time admitted more than burst + rate * its length; at most 0 where the limit was kept. What was
        asked and answered within a window was admitted within it."""
        by_end = sorted(self.admitted, key=lambda times: times[1])
        starts = sorted(asked for asked, _ in self.admitted)
        worst = -float(burst)
        for start in starts[::max(1, len(starts) // 200)]:
            count = 0
            for asked, answered in by_end:
                if asked >= start:
                    count += 1
                    worst = max(worst, count - burst - rate * (answered - start))
        return worst

    def most_in(self, seconds):
        """The most that were asked and answered within any so many seconds."""
        by_end = sorted(self.admitted, key=lambda times: times[1])
        return max(sum(1 for asked, answered in by_end if asked >= start and answered <= start + seconds)
                   for start in sorted(asked for asked, _ in self.admitted)[::max(1, len(by_end) // 200)])

    def used(self, rate, burst):
        """The part of what one bucket would have admitted, from the first request to the last, that was."""
        return len(self.admitted) / (burst + rate * (self._end - self._begin))
