#!/usr/bin/python3
"""Over- and under-admission of one limit over several hosts: real Nginx, each a host of its own, before one real redis-server.

All hosts are asked for one key at once, for at least twice as much as the limit in all, and what each has admitted is read from its
metrics. Over is what was admitted beyond burst + rate x time since the first request, in units; used is what was admitted of
rate x time, from when the burst was gone on, and the rest is under-admission; alone, of what was admitted, is what went without Redis.

Usage: hosts_bench.py BUILD_DIR [--hosts 1,2,4,8,16] [--rates 1,10,100,1000,10000] [--seconds 5]
"""
import argparse
import http.client
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from edge_bench import COMMON, free_port, wait_for

HERE = pathlib.Path(__file__).resolve().parent
LEAST_UNITS = 20  # for a slow rate it takes as long as so many come


class Host:
    def __init__(self, folder, build, number):
        self.port = free_port()
        body = f"""
  penstock_zone shared 4m redis=unix:{folder}/redis.sock timeout=500ms;
  server {{
    listen 127.0.0.1:{self.port} backlog=1024;
    location = /metrics {{ penstock_metrics; }}
    RATES
  }}"""
        rates = "".join(f"location = /{rate} {{ penstock_limit zone=shared key=$arg_key rate={rate}r/s name=r{rate}; empty_gif; }}\n"
                        for rate in (1, 10, 100, 1000, 10000))
        path = f"{folder}/host{number}.conf"
        with open(path, "w") as f:
            f.write(COMMON.format(dir=folder, name=f"host{number}", load=f"load_module {build}/ngx_http_penstock_module.so;",
                                  body=body.replace("RATES", rates), extra_temp=f"penstock_temp_path {folder}/q{number};"))
        self.process = subprocess.Popen(["nginx", "-c", path], start_new_session=True)
        self._client = None

    def page(self):
        if self._client is None:
            self._client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self._client.request("GET", "/metrics")
        return self._client.getresponse().read().decode()

    def knows(self, hosts):
        try:
            page = self.page()
        except OSError:
            self._client = None
            return False
        return f'penstock_lease_hosts{{zone="shared"}} {hosts}\n' in page and 'penstock_lease_up{zone="shared"} 1\n' in page

    def counts(self, rate):
        """(admitted, trips, alone), and when they were read."""
        page = self.page()

        def count(series):
            return int(re.search(rf"^{series} (\d+)$", page, re.M)[1])
        return (count(f'penstock_limit_requests_total{{zone="shared",.*limit="r{rate}",outcome="passed"}}'),
                count('penstock_lease_trips_total{zone="shared"}'), count('penstock_lease_charges_total{zone="shared",how="alone"}'))


def read(hosts, rate):
    began = time.monotonic()
    sums = [sum(column) for column in zip(*(host.counts(rate) for host in hosts))]
    return (began + time.monotonic()) / 2, sums


def measure(hosts, rate, seconds):
    # Each host has connections that pause between their requests; at the highest rates they hardly do.
    demand = max(3 * rate, 40)
    each = max(2, 64 // len(hosts))
    pause = min(1000, 1000 * each * len(hosts) / demand)
    zero, base = read(hosts, rate)
    spent = 1 + LEAST_UNITS / rate / 10  # until the burst, a second's worth, is gone
    lasts = max(seconds, LEAST_UNITS / rate)
    began = time.monotonic()
    loads = [subprocess.Popen(["wrk", "-t1", f"-c{each}", f"-d{int(spent + lasts) + 3}s", "-s", str(HERE / "paced.lua"),
                               f"http://127.0.0.1:{host.port}/{rate}?key=k{len(hosts)}"],
                              env=dict(os.environ, PAUSE=str(pause), SEED=str(i)), stdout=subprocess.DEVNULL, start_new_session=True)
             for i, host in enumerate(hosts)]
    time.sleep(spent + 0.5)
    first, at_first = read(hosts, rate)
    time.sleep(lasts)
    last, at_last = read(hosts, rate)
    for load in loads:
        load.send_signal(signal.SIGINT)
    for load in loads:
        load.wait()
    time.sleep(0.2)
    end, at_end = read(hosts, rate)
    admitted, trips, alone = (b - a for a, b in zip(base, at_end))
    over = max(0, admitted - rate - rate * (end - began))
    used = (at_last[0] - at_first[0]) / (rate * (last - first))
    return admitted, over, used, trips / max(1, admitted), alone / max(1, admitted)


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--hosts", type=numbers, default=[1, 2, 4, 8, 16])
    parser.add_argument("--rates", type=numbers, default=[1, 10, 100, 1000, 10000])
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="hosts.", dir="/tmp")
    os.chmod(folder, 0o755)
    processes = []
    try:
        processes.append(subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--unixsocketperm", "777",
                                           "--save", ""], stdout=subprocess.DEVNULL, start_new_session=True))
        wait_for("redis-server", lambda: os.path.exists(f"{folder}/redis.sock"))
        print("| hosts | rate a key | admitted | over | used | trips each | alone |\n|---|---|---|---|---|---|---|")
        hosts = []
        for count in args.hosts:
            while len(hosts) < count:
                hosts.append(Host(folder, pathlib.Path(args.build).resolve(), len(hosts)))
                processes.append(hosts[-1].process)
            wait_for(f"{count} hosts", lambda: all(host.knows(count) for host in hosts))
            for rate in args.rates:
                admitted, over, used, trips, alone = measure(hosts, rate, args.seconds)
                print(f"| {count} | {rate} r/s | {admitted} | {over:.0f} | {100 * used:.1f} % | {trips:.3f} | {100 * alone:.1f} % |", flush=True)
    finally:
        for process in reversed(processes):
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
