"""A diffusion model of handwritten digits, 8x8 pixels: a small network that is asked, step by step, what of a picture is noise."""

import numpy as np

SIDE = 8
PIXELS = SIDE * SIDE
HIDDEN = [256, 256, 256]
FREQUENCIES = 2.0 ** np.arange(5) * np.pi / 2
CONDITION = 10 + 2 * len(FREQUENCIES)  # which digit, and how noisy the picture is


def mix(time):
    """How much picture and how much noise there is at a time from 0 (no noise) to 1 (nothing else)."""
    return np.cos(time * np.pi / 2), np.sin(time * np.pi / 2)


def condition(digits, times):
    """[batch, CONDITION]."""
    one_hot = (digits[:, None] == np.arange(10)).astype(np.float32)
    angles = times[:, None] * FREQUENCIES
    return np.concatenate([one_hot, np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def silu(x):
    return x / (1 + np.exp(-x))


def velocity(layers, x, c):
    """What the network makes of noisy pictures x [batch, PIXELS]: picture mixed with noise at a right angle to x."""
    for weight, bias in layers[:-1]:
        x = silu(np.concatenate([x, c], axis=1) @ weight + bias)
    weight, bias = layers[-1]
    return np.concatenate([x, c], axis=1) @ weight + bias


def draw(layers, digit, rng, steps):
    """Yields the picture [SIDE, SIDE] of 0 to 1 as it is thought to be after each step (DDIM, Song et al. 2020)."""
    x = rng.standard_normal((1, PIXELS), dtype=np.float32)
    times = np.linspace(1, 0, steps + 1)
    for now, then in zip(times, times[1:]):
        v = velocity(layers, x, condition(np.array([digit]), np.array([now])))
        a, s = mix(now)
        picture, noise = a * x - s * v, s * x + a * v
        a, s = mix(then)
        x = (a * picture + s * noise).astype(np.float32)
        yield np.clip((picture.reshape(SIDE, SIDE) + 1) / 2, 0, 1)


def load(path):
    """[(weight, bias), …] of the file that train.py writes."""
    with np.load(path) as file:
        arrays = [file[name].astype(np.float32) for name in file.files]
    return list(zip(arrays[::2], arrays[1::2]))
