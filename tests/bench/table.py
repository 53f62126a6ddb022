"""A row of the bench's table, printed as it is measured, and kept as a line of JSON for whoever compares runs.

A row's peer that moved by more than MOVED between its rounds is marked: then the machine did, and ours may have, too.
"""
import json
import os
import statistics

MOVED = 0.15
LINES = "PENSTOCK_BENCH_LINES"  # names the file that the lines of JSON go to; none: they go nowhere


def spread(runs):
    """How far the figures of several rounds are from each other, as a part of their median."""
    return (max(runs) - min(runs)) / statistics.median(runs)


def row(name, work, ours, peer="", goal="", met=None, peer_runs=()):
    """met: whether the goal is reached; None: there is none. peer_runs: the peer's figure in each round."""
    moved = spread(peer_runs) if len(peer_runs) > 1 else None
    told = f"{peer} (**moved by {100 * moved:.0f} %** meanwhile)" if moved is not None and moved > MOVED else peer
    print(f"| {name} | {work} | {ours} | {told} | {goal} | {'' if met is None else 'yes' if met else 'NO'} |", flush=True)
    if LINES in os.environ:
        with open(os.environ[LINES], "a") as lines:
            lines.write(json.dumps({"row": name, "work": work, "ours": ours, "peer": peer, "goal": goal,
                                    "met": None if met is None else bool(met), "peer_moved": moved}) + "\n")
