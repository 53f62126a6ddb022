#!/usr/bin/python3
"""Draws a handwritten digit step by step, behind Penstock's engine process: {"prompt": "a seven"} draws a seven."""

import base64, json, re, struct, sys, time, zlib
from pathlib import Path

import numpy as np

import model

NAMES = "zero|one|two|three|four|five|six|seven|eight|nine"
SIZE = 256
# [SIDE, SIZE]: straight lines between the middles of the pixels.
ENLARGE = np.array([np.interp((np.arange(SIZE) + 0.5) * model.SIDE / SIZE - 0.5, range(model.SIDE), one) for one in np.eye(model.SIDE)])


def say(**line):
    print(json.dumps(line), flush=True)


def png(picture):
    """The file of a grey picture [SIDE, SIDE] of 0 to 1, enlarged."""
    large = ENLARGE.T @ picture @ ENLARGE
    lines = np.pad((large * 255).astype(np.uint8), ((0, 0), (1, 0)))  # each after a 0: no filter
    parts = (b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(lines.tobytes(), 1)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                                           for kind, data in parts)


def answer(job):
    request = {"steps": 30, "n": 1, **json.loads(job["body"]), **job.get("override", {})}
    steps, count, rng = request["steps"], request["n"], np.random.default_rng(request.get("seed"))
    named = re.search(rf"\b({NAMES})s?\b|\d", str(request.get("prompt")).lower())
    if not named or steps not in range(1, 1001) or count not in range(1, 11):
        raise ValueError("The prompt must name a digit, zero to nine; steps are 1 to 1000, n is 1 to 10.")
    digit = NAMES.split("|").index(named[1]) if named[1] else int(named[0])
    images = []
    for i in range(count):
        for step, picture in enumerate(model.draw(LAYERS, digit, rng, steps), i * steps + 1):
            say(progress=step / (steps * count), step=step, steps=steps * count)
            if step % 5 == 0:
                say(preview={"type": "image/png", "base64": base64.b64encode(png(picture)).decode()})
        images.append(png(picture))
    usage = {"prompt_tokens": len(request["prompt"].split()), "completion_tokens": steps * count}
    if job["path"].endswith("/images/generations"):
        data = [{"b64_json": base64.b64encode(image).decode()} for image in images]
        return say(result={"type": "application/json", "body": {"created": int(time.time()), "data": data}}, usage=usage)
    Path("digit.png").write_bytes(images[0])
    say(result={"type": "image/png", "file": "digit.png"}, usage=usage)


say(penstock=1)
LAYERS = model.load(Path(__file__).with_name("digits.npz"))
say(ready=True)
for line in sys.stdin:
    job = json.loads(line)
    if "job" in job:  # else it is a cancel that came too late
        try:
            answer(job)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            say(error={"code": "invalid_request", "message": str(error)})
