"""A program of engine process for the storm: storm_program.py RUN_LOG SEATS COUNT.

It logs each run, as engine simulate does, and leaves its result in a file. Of the COUNT files SEATS.N it holds one, locked, while
it has a job: the kernel lets it go with its process. Who finds none has seen more jobs at once than there are slots."""
import contextlib
import fcntl
import itertools
import json
import os
import random
import sys
import time

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
seats = [os.open(f"{sys.argv[2]}.{n}", os.O_WRONLY | os.O_CREAT, 0o666) for n in range(int(sys.argv[3]))]


def say(**line):
    print(json.dumps(line), flush=True)


def sit_down():
    for seat in seats:
        with contextlib.suppress(OSError):
            fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return seat
    os.write(log, b"over the-slots\n")
    return None


say(penstock=1)
say(ready=True)
for number in itertools.count():
    line = sys.stdin.readline()
    if not line:
        break
    job = json.loads(line)
    if "job" not in job:
        continue
    seat = sit_down()
    run = f"{os.getpid()}.{number}.{time.monotonic_ns()}"
    os.write(log, f"{run} {job['body']}\n".encode())
    say(progress=0.5)
    time.sleep(random.expovariate(1 / 0.03))
    with open("result.json", "w") as result:  # one in ten is too large for the database
        json.dump({"run": run, "padding": "x" * (300_000 if number % 10 == 0 else 10)}, result)
    if seat is not None:
        fcntl.flock(seat, fcntl.LOCK_UN)
    say(result={"type": "application/json", "file": "result.json"}, job=job["job"])
