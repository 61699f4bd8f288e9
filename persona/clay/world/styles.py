"""Styles: from the ray caster's samples to a picture as a painter, a printer or a camera would have it.

Dabs: Kuwahara filter (Kuwahara et al. 1976); strokes: line integral convolution (Cabral and Leedom 1993).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from persona.clay.world.compiled import compiled

Picture = NDArray[np.float32]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Shot:
    """What a style works on: colours (S, S, 3) in [0, 1], and outlines (S, S), 1 where things end."""

    colours: Picture
    outlines: Picture
    rng: Generator

    @property
    def luma(self) -> Picture:
        """Brightness (S, S) in [0, 1], by ITU-R BT.601."""
        return self.colours @ _LUMA


def apply(
    style: str, image: Picture, owner: NDArray[np.int16], depth: NDArray[np.float64], rng: Generator
) -> NDArray[np.uint8]:
    """Return samples of a scene in a style, as pixels (S, S, 3) uint8.

    Args:
        style: one of ``STYLES``.
        image: colours (2S, 2S, 3).
        owner: what each sample (2S, 2S) shows: 0 scenery, -1 clothing, entities from 1.
        depth: distance of each sample (2S, 2S) from the eye.
        rng: decides strokes and grain.
    """
    colours = halved(np.clip(image, 0, 1))
    outlines = _outlines(image, owner, depth) if style in _DRAWN else np.zeros_like(colours[..., 0])
    return (np.clip(STYLES[style](Shot(colours, outlines, rng)), 0, 1) * 255 + 0.5).astype(np.uint8)


def halved(a: NDArray[np.float32]) -> Picture:
    """Return the mean of each four samples of (2S, 2S) or (2S, 2S, 3) as (S, S) or (S, S, 3)."""
    # numpy's own mean over two axes takes five times as long.
    corners = a[::2, ::2] + a[::2, 1::2] + a[1::2, ::2] + a[1::2, 1::2]
    return corners * np.float32(0.25)


def _outlines(image: Picture, owner: NDArray[np.int16], depth: NDArray[np.float64]) -> Picture:
    """Borders between things, steps in depth, and steps in colour."""
    far = np.log(np.minimum(depth, 60.0))
    luma = image @ _LUMA
    lines = np.zeros(owner.shape, np.float32)
    for axis in (0, 1):
        step = (np.diff(owner, axis=axis) != 0) | (np.abs(np.diff(far, axis=axis)) > 0.05)
        edge = np.maximum(step, np.clip(np.abs(np.diff(luma, axis=axis)) * 5 - 0.35, 0, 1)).astype(np.float32)
        for shift in (slice(1, None), slice(None, -1)):
            where = (shift, slice(None)) if axis == 0 else (slice(None), shift)
            lines[where] = np.maximum(lines[where], edge)
    return np.minimum(halved(lines) * 1.25, 1.0)


@compiled
def _blur(a, sigma):
    """Gaussian blur of a plane."""
    reach = int(math.ceil(2.5 * sigma))
    weights = np.empty(2 * reach + 1, np.float32)
    for i in range(2 * reach + 1):
        weights[i] = math.exp(-0.5 * ((i - reach) / sigma) ** 2)
    weights /= weights.sum()
    h, w = a.shape
    rows, out = np.zeros_like(a), np.zeros_like(a)
    for y in range(h):
        for x in range(w):
            for i in range(-reach, reach + 1):
                rows[y, x] += weights[i + reach] * a[y, min(max(x + i, 0), w - 1)]
    for y in range(h):
        for x in range(w):
            for i in range(-reach, reach + 1):
                out[y, x] += weights[i + reach] * rows[min(max(y + i, 0), h - 1), x]
    return out


@compiled
def _kuwahara(p, r):
    """Mean of the calmest of the four (r+1)^2 quadrants around each pixel: flat dabs with sharp borders."""
    h, w, _ = p.shape
    out = np.empty_like(p)
    for y in range(h):
        for x in range(w):
            best = 1e9
            for q in range(4):
                y0, x0 = (y - r if q < 2 else y), (x - r if q % 2 == 0 else x)
                n, s0, s1, s2, ss = 0, 0.0, 0.0, 0.0, 0.0
                for j in range(max(y0, 0), min(y0 + r + 1, h)):
                    for i in range(max(x0, 0), min(x0 + r + 1, w)):
                        c0, c1, c2 = p[j, i, 0], p[j, i, 1], p[j, i, 2]
                        s0, s1, s2, n = s0 + c0, s1 + c1, s2 + c2, n + 1
                        ss += c0 * c0 + c1 * c1 + c2 * c2
                variance = ss / n - (s0 * s0 + s1 * s1 + s2 * s2) / (n * n)
                if variance < best:
                    best = variance
                    out[y, x, 0], out[y, x, 1], out[y, x, 2] = s0 / n, s1 / n, s2 / n
    return out


@compiled
def _smear(p, angle, reach):
    """Each pixel the mean along its stroke: line integral convolution over a field of angles."""
    h, w, _ = p.shape
    out = np.zeros_like(p)
    for y in range(h):
        for x in range(w):
            n = 0
            for sign in (-1.0, 1.0):
                fx, fy = x + 0.5, y + 0.5
                for _ in range(reach):
                    i, j = int(fx), int(fy)
                    if i < 0 or j < 0 or i >= w or j >= h:
                        break
                    for c in range(3):
                        out[y, x, c] += p[j, i, c]
                    n += 1
                    fx += sign * math.cos(angle[j, i])
                    fy += sign * math.sin(angle[j, i])
            for c in range(3):
                out[y, x, c] /= n
    return out


def _noise(rng: Generator, side: int, sigma: float) -> Picture:
    """Smooth noise of unit spread."""
    plane = _blur(rng.standard_normal((side, side), np.float32), sigma)
    return plane / (plane.std() + 1e-6)


def _saturated(p: Picture, amount: float) -> Picture:
    grey = (p @ _LUMA)[..., None]
    return np.clip(grey + (p - grey) * amount, 0, 1)


def _ink(p: Picture, lines: Picture, colour: tuple[float, float, float], strength: float = 1.0) -> Picture:
    share = (lines * strength)[..., None]
    return p * (1 - share) + share * np.array(colour, np.float32)


def _photo(shot: Shot) -> Picture:
    return shot.colours


def _van_gogh(shot: Shot) -> Picture:
    side = len(shot.colours)
    swirl = 2.2 * _noise(shot.rng, side, 11.0)
    luma = _blur(shot.luma, 1.5)
    gy, gx = np.gradient(luma)
    tangent = np.arctan2(gx, -gy)
    along = np.clip(np.hypot(gx, gy) * 25, 0, 1)
    sine = (1 - along) * np.sin(swirl) + along * np.sin(tangent)
    cosine = (1 - along) * np.cos(swirl) + along * np.cos(tangent)
    angle = np.arctan2(sine, cosine)
    grain = 0.32 * shot.rng.standard_normal((side, side, 1), np.float32)
    tint = np.array([0.05, 0.02, -0.08], np.float32) * _noise(shot.rng, side, 6.0)[..., None]
    return _saturated(_smear(shot.colours + grain + tint, angle.astype(np.float32), 7), 1.55)


def _oil(shot: Shot) -> Picture:
    dabs = _kuwahara(shot.colours, 4)
    threads = np.sin(np.arange(len(dabs)) * 2.1)
    canvas = 1 + 0.045 * threads[:, None, None] * threads[None, :, None]
    return (_saturated(dabs, 1.3) * 0.93 * canvas).astype(np.float32)


def _watercolor(shot: Shot) -> Picture:
    side = len(shot.colours)
    wash = _kuwahara(shot.colours, 2)
    rim = np.hypot(*np.gradient(_blur(wash @ _LUMA, 1.0)))[..., None]
    pale = 1 - (1 - wash) * (0.72 + 0.10 * _noise(shot.rng, side, 9.0)[..., None])
    pale = pale - 1.2 * rim
    edge = np.minimum(np.arange(side), np.arange(side)[::-1])
    inside = np.minimum(edge[:, None], edge[None]) + 3.5 * _noise(shot.rng, side, 4.0)
    paper = np.clip((9 - inside) / 3, 0, 1)[..., None]
    return pale * (1 - paper) + paper * np.array([0.98, 0.97, 0.94], np.float32)


def _pop_art(shot: Shot) -> Picture:
    flat = np.round(_saturated(_kuwahara(shot.colours, 2), 2.2) * 2.4) / 2.4
    y, x = np.mgrid[: len(flat), : len(flat)]
    dots = ((x + y) % 6 - 2.5) ** 2 + ((x - y) % 6 - 2.5) ** 2 < 3.2
    light = (flat @ _LUMA > 0.45) & dots
    flat = np.where(light[..., None], np.clip(flat * np.array([1.0, 0.72, 0.85], np.float32) + 0.1, 0, 1), flat)
    return _ink(flat.astype(np.float32), shot.outlines, (0.02, 0.02, 0.05))


def _pencil(shot: Shot) -> Picture:
    luma = shot.luma
    side = len(luma)
    dodge = np.clip(luma / (_blur(luma, 3.0) + 0.04), 0, 1)
    y, x = np.mgrid[:side, :side]
    hatch = 0.5 + 0.5 * np.sin((x + y) * 1.5 + 1.2 * _noise(shot.rng, side, 3.0))
    tone = dodge * (1 - 0.55 * np.clip(0.75 - luma, 0, 1) * (0.4 + 0.6 * hatch)) * (1 - 0.55 * shot.outlines)
    return (0.10 + 0.86 * tone)[..., None] * np.array([0.98, 0.975, 0.96], np.float32)


def _line_drawing(shot: Shot) -> Picture:
    return _ink(np.full_like(shot.colours, 0.985), shot.outlines, (0.04, 0.04, 0.05))


def _pixel_art(shot: Shot) -> Picture:
    side = len(shot.colours)
    blocks = shot.colours.reshape(side // 4, 4, side // 4, 4, 3).mean((1, 3))
    return np.repeat(np.repeat(np.round(_saturated(blocks, 1.25) * 6) / 6, 4, 0), 4, 1).astype(np.float32)


def _sepia(shot: Shot) -> Picture:
    side = len(shot.colours)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    vignette = 1 - 0.25 * (x * x + y * y)
    tone = (0.12 + 0.83 * shot.luma) * vignette + 0.015 * shot.rng.standard_normal((side, side), np.float32)
    return (tone[..., None] * np.array([1.06, 0.87, 0.62])).astype(np.float32)


def _blueprint(shot: Shot) -> Picture:
    side = len(shot.colours)
    paper = np.empty((side, side, 3), np.float32)
    paper[:] = (0.07, 0.22, 0.52)
    paper += 0.05 * (shot.luma[..., None] - 0.5)
    grid = np.zeros((side, side), np.float32)
    grid[::16], grid[:, ::16] = 0.22, 0.22
    return _ink(paper, np.maximum(grid, shot.outlines), (0.90, 0.95, 1.0))


def _mosaic(shot: Shot) -> Picture:
    side, tile = len(shot.colours), 8
    n = side // tile
    mean = shot.colours.reshape(n, tile, n, tile, 3).mean((1, 3))
    mean = _saturated(mean * (1 + 0.13 * shot.rng.standard_normal((n, n, 1))), 1.35)
    fine = _kuwahara(shot.colours, 2)
    tiles = 0.5 * np.repeat(np.repeat(mean, tile, 0), tile, 1) + 0.5 * fine
    rows, columns = np.mgrid[:side, :side]
    grout = (rows % tile < 1) | ((columns + (rows // tile % 2) * (tile // 2)) % tile < 1)
    return np.where(grout[..., None], 0.22, tiles).astype(np.float32)


def _ukiyo_e(shot: Shot) -> Picture:
    flat = _kuwahara(shot.colours, 3)
    flat = np.round(flat * 5) / 5
    muted = _saturated(flat, 0.72) * np.array([0.95, 0.90, 0.76], np.float32) + np.array([0.05, 0.05, 0.06], np.float32)
    y = np.arange(len(flat))[:, None, None]
    grain = 1 + 0.02 * np.sin(y * 1.9 + 2 * _noise(shot.rng, len(flat), 5.0)[..., None])
    return _ink((muted * grain).astype(np.float32), shot.outlines, (0.09, 0.12, 0.27), 0.9)


STYLES: dict[str, Callable[[Shot], Picture]] = {
    "photo": _photo, "van gogh": _van_gogh, "watercolor": _watercolor, "oil painting": _oil, "pop art": _pop_art,
    "pencil sketch": _pencil, "line drawing": _line_drawing, "pixel art": _pixel_art, "sepia": _sepia,
    "blueprint": _blueprint, "mosaic": _mosaic, "ukiyo-e": _ukiyo_e,
}  # fmt: skip
_DRAWN = ("pop art", "pencil sketch", "line drawing", "blueprint", "ukiyo-e")
COLOURLESS = ("pencil sketch", "line drawing", "sepia", "blueprint")
"""Styles in which a subject's own colours cannot be seen."""
