"""Pictures that are nothing like the world, so that the autoencoder learns pictures and not only clay.

Dead leaves (Lee, Mumford and Huang, 2001), fractal noise with power spectrum 1/f^a, gradients, and mixtures of them.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from persona.clay.world import SIDE

Picture = NDArray[np.float32]


def texture(rng: Generator) -> NDArray[np.uint8]:
    """Return one random picture, (128, 128, 3) uint8."""
    kind = rng.integers(4)
    picture = (_dead_leaves, _fractal, _gradient, _mixture)[kind](rng)
    pixels: NDArray[np.uint8] = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return pixels


def _fractal(rng: Generator) -> Picture:
    fy, fx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    spectrum = 1 / np.maximum(np.hypot(fy, fx), 1 / SIDE) ** rng.uniform(0.8, 2.2)
    planes = [np.fft.irfft2(spectrum * np.exp(2j * np.pi * rng.random(spectrum.shape)), (SIDE, SIDE)) for _ in range(3)]
    stack = np.stack([(p - p.mean()) / (p.std() + 1e-9) for p in planes], -1)
    # Channels of natural pictures go together: mostly one shared plane.
    mixing = rng.uniform(0.6, 1.0) * np.eye(1, 3)[0][:, None] + rng.normal(0, 0.35, (3, 3))
    picture: Picture = (0.5 + rng.uniform(0.10, 0.28) * (stack @ mixing) + rng.normal(0, 0.12, 3)).astype(np.float32)
    return picture


def _gradient(rng: Generator) -> Picture:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    share = 0.5 + 0.5 * np.tanh(rng.uniform(0.5, 6) * (x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-0.5, 0.5)))
    first, second = rng.random(3), rng.random(3)
    noise = rng.uniform(0, 0.06) * rng.standard_normal((SIDE, SIDE, 1))
    picture: Picture = (first + share[..., None] * (second - first) + noise).astype(np.float32)
    return picture


def _dead_leaves(rng: Generator) -> Picture:
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = rng.random(3)
    y, x = np.mgrid[:SIDE, :SIDE]
    palette = rng.random((int(rng.integers(3, 12)), 3))
    grain = _fractal(rng)
    for _ in range(int(rng.integers(30, 160))):
        radius = 3.0 / (rng.random() ** 0.5 * 0.9 + 0.05)  # sizes by a power law, as in natural pictures
        cx, cy, angle = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        if rng.random() < 0.6:
            inside = (u / radius) ** 2 + (v / (radius * rng.uniform(0.3, 1))) ** 2 < 1
        else:
            inside = np.maximum(np.abs(u) / radius, np.abs(v) / (radius * rng.uniform(0.2, 1))) < 1
        colour = palette[rng.integers(len(palette))] + rng.normal(0, 0.05, 3)
        colour = colour + 0.15 * np.clip(u / radius, -1, 1)[inside][:, None] * rng.random()
        picture[inside] = colour + rng.uniform(0, 0.8) * (grain[inside] - 0.5)
    return picture


def _mixture(rng: Generator) -> Picture:
    mask = _fractal(rng)[..., :1] > 0.5
    return np.where(mask, _dead_leaves(rng), _fractal(rng) if rng.random() < 0.5 else _gradient(rng))
