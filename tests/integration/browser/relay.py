#!/usr/bin/python3
"""A program behind engine process that does as it is told: its lines go to a Unix socket, and what comes from there is what it says."""

import json
import os
import select
import socket
import sys
import time

print(json.dumps({"penstock": 1}), flush=True)
print(json.dumps({"ready": True}), flush=True)
line = None
while data := os.read(0, 65536) if line is None else b" ":
    if line is None:
        line = socket.socket(socket.AF_UNIX)
        while line.connect_ex(sys.argv[1]) != 0:
            time.sleep(0.02)
        line.sendall(data)
    for ready in select.select([0, line], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else line.recv(65536)
        if not data:
            sys.exit()
        line.sendall(data) if ready == 0 else os.write(1, data)
