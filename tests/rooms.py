#!/usr/bin/env python3
"""Holds the arrows: which folder may include which (docs/ARCHITECTURE.md draws them), that no files include each other in a
circle, and that no file grows beyond what one reads at a sitting.

Usage: rooms.py [ROOT]. Names each file and line that breaks a rule, and exits with 1.
"""

import pathlib
import re
import sys

# A part may include itself and these.
PARTS = {
    "shared": [],
    "ngx_module": ["shared"],
    "worker/ctl": ["shared", "worker/queue"],
    "worker/nvml": ["shared"],
    "worker/queue": ["shared"],
    "worker/pool": ["shared", "worker/nvml"],
    "worker/engines": ["shared", "worker/pool", "worker/engines/simulate", "worker/engines/llama", "worker/engines/process", "worker/engines/http"],
    "worker/engines/simulate": ["shared", "worker/pool"],
    "worker/engines/llama": ["shared", "worker/pool"],
    "worker/engines/process": ["shared", "worker/pool"],
    "worker/engines/http": ["shared", "worker/pool"],
}
# Within a part, a room may include itself and those after it. "": what lies in no room.
ROOMS = {
    "shared": ["keys", "metrics", "redis", "challenge", "limit", "wire", "http", "base"],
    "ngx_module": ["", "directives", "pages", "hand_over", "admit", "keys", "challenge", "lease", "reply", "request", "zone", "conf"],
    "worker/queue": ["", "care", "publish", "api", "workers", "jobs", "shared_jobs", "challenges", "traces", "webhooks", "devices", "process", "store", "config", "link",
                     "results", "shared_answers", "shared_order", "bound", "order", "clock", "handover", "text"],
}
# Included by everybody, or including everything.
BOTTOM = {"ngx_module/nginx.h"}
TOP = {"worker/pool/main.cc"}

MOST_LINES = 450

INCLUDE = re.compile(r'^#include "(.+)"')


def part_of(file):
    return max((part for part in PARTS if file.startswith(part + "/")), key=len, default=None)


def room_of(file, part):
    room, _, rest = file[len(part) + 1:].partition("/")
    return room if rest else ""


def broken_rule(file, included):
    """What is wrong with this include, or None."""
    part, other = part_of(file), part_of(included)
    if other is None or included in BOTTOM or file in TOP:
        return None
    if part != other:
        return None if other in PARTS[part] else f"{part} may include {' and '.join(PARTS[part]) or 'itself only'}"
    if part not in ROOMS:
        return None
    rooms = ROOMS[part]
    here, there = room_of(file, part), room_of(included, part)
    for room in (here, there):
        if room not in rooms:
            return f"{part}/{room} is no room that this test knows"
    if rooms.index(there) < rooms.index(here):
        return f"{part}/{there or '(root)'} is above {part}/{here}"
    return None


def stem(file):
    return re.sub(r"(-[a-z]+)*\.(h|cc|cuh|cu)$", "", file)


def circle(arrows):
    """The files of one circle, or []."""
    state, path = {}, []

    def visit(node):
        state[node] = "open"
        path.append(node)
        for following in sorted(arrows.get(node, ())):
            if state.get(following) == "open":
                return path[path.index(following):] + [following]
            if following not in state and (found := visit(following)):
                return found
        path.pop()
        state[node] = "done"
        return []

    for node in sorted(arrows):
        if node not in state and (found := visit(node)):
            return found
    return []


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    files = [path for part in ("ngx_module", "shared", "worker") for path in (root / part).rglob("*")
             if path.suffix in (".h", ".cc", ".cu", ".cuh")]
    faults, arrows = [], []
    for path in sorted(files):
        file = str(path.relative_to(root))
        if part_of(file) is None:
            faults.append(f"{file}: in no part that this test knows")
            continue
        lines = path.read_text().splitlines()
        if len(lines) > MOST_LINES:
            faults.append(f"{file}: {len(lines)} lines; the most is {MOST_LINES}")
        for number, line in enumerate(lines, 1):
            if not (match := INCLUDE.match(line)):
                continue
            included = match.group(1)
            if fault := broken_rule(file, included):
                faults.append(f"{file}:{number}: includes {included}, but {fault}")
            if stem(included) != stem(file):
                arrows.append((file, included))
    of_headers = {included for file, included in arrows if file.endswith((".h", ".cuh"))}
    stems = {}
    for file, included in arrows:
        # What no header includes is a part of the file that it serves, cut off, and may include its header.
        if included in of_headers:
            stems.setdefault(stem(file), set()).add(stem(included))
    while found := circle(stems):
        faults.append("a circle: " + " → ".join(found))
        stems[found[-2]].discard(found[-1])
    print("\n".join(faults) or f"{len(files)} files keep to their rooms")
    sys.exit(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
