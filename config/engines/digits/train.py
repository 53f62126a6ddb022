#!/usr/bin/python3
"""Trains the model in digits.npz on the 1,797 digits that python3-sklearn ships.

    apt-get install --no-install-recommends python3-numpy python3-sklearn libopenblas0-pthread
    train.py            # 90 seconds of one core; writes digits.npz
    train.py --check    # the loss of digits.npz, and of a few steps of training, are what they were; writes nothing
"""

import os
import sys
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from sklearn.datasets import load_digits

import model

FILE = Path(__file__).with_name("digits.npz")
STEPS = 12000
BATCH = 256
EXPECTED = 0.2700, 0.3864
HELD_OUT = 10  # every tenth picture is


def data():
    """((pictures, digits) to learn from, and those held out); pixels from -1 to 1."""
    bunch = load_digits()
    pictures, digits = (bunch.data / 8 - 1).astype(np.float32), bunch.target
    held = np.arange(len(digits)) % HELD_OUT == 0
    return (pictures[~held], digits[~held]), (pictures[held], digits[held])


def fresh(rng):
    sizes = [model.PIXELS, *model.HIDDEN]
    layers = []
    for into, out in zip(sizes, [*model.HIDDEN, model.PIXELS]):
        scale = np.sqrt(1 / (into + model.CONDITION))
        layers += [rng.standard_normal((into + model.CONDITION, out), dtype=np.float32) * scale, np.zeros(out, np.float32)]
    return layers


def noisy(pictures, rng):
    """(noisy pictures, their times, what the network should answer)."""
    times = rng.random(len(pictures), dtype=np.float32)
    noise = rng.standard_normal(pictures.shape, dtype=np.float32)
    a, s = (each[:, None].astype(np.float32) for each in model.mix(times))
    return a * pictures + s * noise, times, a * noise - s * pictures


def pairs(layers):
    return list(zip(layers[::2], layers[1::2]))


def gradients(layers, x, c, target):
    """(mean squared error, its gradient for each of layers), by hand."""
    inputs, sums = [], []
    for weight, bias in pairs(layers):
        inputs.append(np.concatenate([model.silu(sums[-1]) if sums else x, c], axis=1))
        sums.append(inputs[-1] @ weight + bias)
    error = sums.pop() - target
    slope = error * (2 / error.size)
    found = []
    for weight, input_ in zip(layers[-2::-2], inputs[::-1]):
        found += [slope.sum(axis=0), input_.T @ slope]
        if sums:
            z = sums.pop()
            gate = 1 / (1 + np.exp(-z))
            slope = (slope @ weight.T)[:, :z.shape[1]] * gate * (1 + z * (1 - gate))
    return float((error ** 2).mean()), found[::-1]


def loss(layers, pictures, digits, rounds=20):
    """Mean squared error on these pictures, each at several times; the same at every call."""
    rng, total = np.random.default_rng(0), 0.0
    for _ in range(rounds):
        x, times, target = noisy(pictures, rng)
        total += ((model.velocity(pairs(layers), x, model.condition(digits, times)) - target) ** 2).mean()
    return float(total / rounds)


def train(steps, rate=2e-3, seed=1):
    """(the moving average of the layers, their losses on what was learnt and on what was held out); Adam, a cosine."""
    rng = np.random.default_rng(seed)
    learnt, held_out = data()
    layers = fresh(rng)
    average = [layer.copy() for layer in layers]
    first, second = [np.zeros_like(each) for each in layers], [np.zeros_like(each) for each in layers]
    started = time.monotonic()
    for step in range(1, steps + 1):
        chosen = rng.integers(len(learnt[0]), size=BATCH)
        x, times, target = noisy(learnt[0][chosen], rng)
        _, found = gradients(layers, x, model.condition(learnt[1][chosen], times), target)
        now = rate * min(1, step / 200) * (1 + np.cos(np.pi * step / steps)) / 2
        keep = min(0.999, step / (step + 10))
        for i, gradient in enumerate(found):
            first[i] += 0.1 * (gradient - first[i])
            second[i] += 0.001 * (gradient ** 2 - second[i])
            layers[i] -= now * (first[i] / (1 - 0.9 ** step)) / (np.sqrt(second[i] / (1 - 0.999 ** step)) + 1e-8)
            average[i] += (1 - keep) * (layers[i] - average[i])
        if step % 2000 == 0 or step == steps:
            losses = loss(average, *learnt, rounds=4), loss(average, *held_out)
            print(f"step {step}  {time.monotonic() - started:.0f} s  loss {losses[0]:.4f}  held out {losses[1]:.4f}", flush=True)
    return average, losses


def check():
    """Whether losses (held out) are those of the README and of the run that made digits.npz."""
    kept = loss([each for layer in model.load(FILE) for each in layer], *data()[1])
    _, (_, begun) = train(300)
    print(f"digits.npz: {kept:.4f}, expected {EXPECTED[0]}; after 300 steps: {begun:.4f}, expected {EXPECTED[1]}")
    return abs(kept - EXPECTED[0]) < 0.001 and abs(begun - EXPECTED[1]) < 0.01


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(not check())
    layers, _ = train(STEPS)
    np.savez(FILE, **{f"{'bias' if i % 2 else 'weight'}{i // 2}": layer.astype(np.float16) for i, layer in enumerate(layers)})
