#!/usr/bin/env python3
"""Is the program of a fixture of kind `process`: play.py FIXTURE. Each of its lines is a text to write, or an action."""

import json
import os
import signal
import sys
import time

from upstream import blocks

HELLO = '{"penstock":1}\n{"ready":true}\n'


def write(out, piece):
    for block in blocks(piece):
        while block:
            block = block[os.write(out, block):]


def await_line(wanted):
    """False: there is no more."""
    for line in sys.stdin.buffer:
        if wanted == "job" or b'"cancel"' in line:
            return True
    return False


def fork_sleep(seconds):
    """A child in a session of its own that keeps the pipes."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(seconds)
        os._exit(0)


def write_file(action):
    with open(action["file"], "wb") as file:
        for block in blocks({"repeat": action["repeat"], "times": action["times"]}):
            file.write(block)


def act(action):
    """False: the program is over."""
    name, value = next(iter(action.items()))
    if name == "await":
        return await_line(value)
    if name == "exit":
        os._exit(value)
    if name == "stderr":
        os.write(2, value.encode())
    else:
        {"do": lambda: write(1, HELLO),
         "repeat": lambda: write(1, action),
         "kill": lambda: os.kill(os.getpid(), getattr(signal, "SIG" + value)),
         "close": lambda: os.close(1),
         "ignore": lambda: signal.signal(getattr(signal, "SIG" + value), signal.SIG_IGN),
         "sleep_ms": lambda: time.sleep(value / 1000),
         "fork_sleep_ms": lambda: fork_sleep(value / 1000),
         "symlink": lambda: os.symlink(action["to"], value),
         "hard_link": lambda: os.link(action["to"], value),
         "fifo": lambda: os.mkfifo(value),
         "folder": lambda: os.mkdir(value),
         "file": lambda: write_file(action)}[name]()
    return True


def main():
    for ms, piece in json.load(open(sys.argv[1]))["lines"]:
        time.sleep(ms / 1000)
        if isinstance(piece, str):
            write(1, piece)
        elif not act(piece):
            return
    for _ in sys.stdin.buffer:  # idle until the worker closes our input
        pass


main()
os._exit(0)
