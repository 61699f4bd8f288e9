"""Collages cut into their panels: along gutters where there are any, else along seams, again and again (XY-cut)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEAST = 0.2
"""Share of a collage's shorter side that each side of a panel has at least."""
WIDEST = 2.0
"""Longer side of a panel over its shorter one, at most."""

_GUTTER = 0.06  # share of the shorter side that a gutter is wide at most; a wider even strip is a sky or a wall
_FLAT = 0.03  # deviation of a gutter's colour along it, of 1
_SEAM, _RATIO = 0.08, 4.0  # change across a seam: of 1, and over that of an ordinary line

Box = tuple[int, int, int, int]
Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class _Cut:
    """Columns from ``start`` to before ``end`` that lie between two parts."""

    strength: float
    start: int
    end: int


def panels(collage: Image.Image) -> list[Image.Image]:
    """Return the panels of a collage, from the left to the right or from above to below; itself where it has none."""
    pixels: Pixels = np.asarray(collage.convert("RGB"), np.float32) / np.float32(255)
    boxes = _parts(pixels, (0, 0, *collage.size), min(collage.size))
    return [collage.crop(box) for box in boxes if _is_panel(box, min(collage.size))]


def _is_panel(box: Box, side: int) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    return min(width, height) >= LEAST * side and max(width, height) <= WIDEST * min(width, height)


def _parts(pixels: Pixels, box: Box, side: int) -> Iterator[Box]:
    """Yield the parts of a box that nothing cuts any more, in a collage with so many pixels on its shorter side."""
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right]
    across, down = _cut(part, side), _cut(part.swapaxes(0, 1), side)
    if across and (down is None or across.strength >= down.strength):
        yield from _parts(pixels, (left, top, left + across.start, bottom), side)
        yield from _parts(pixels, (left + across.end, top, right, bottom), side)
    elif down:
        yield from _parts(pixels, (left, top, right, top + down.start), side)
        yield from _parts(pixels, (left, top + down.end, right, bottom), side)
    else:
        yield _trimmed(pixels, box, round(_GUTTER * side))


def _cut(part: Pixels, side: int) -> _Cut | None:
    """Return where a part (H, W, 3) falls into a left one and a right one, if it does."""
    least, width = round(LEAST * side), part.shape[1]
    if width < 2 * least:
        return None
    return _gutter(part, least, round(_GUTTER * side)) or _seam(part, least, max(1, side // 128))


def _gutter(part: Pixels, least: int, widest: int) -> _Cut | None:
    """Return the widest strip of one colour that goes all the way."""
    edges = np.diff(_flat(part).astype(np.int8), prepend=0, append=0)
    strips = zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    inside = [(end - start, start, end) for start, end in strips if start >= least and part.shape[1] - end >= least]
    width, start, end = max((strip for strip in inside if strip[0] <= widest), default=(0, 0, 0))
    return _Cut(1.0, start, end) if width > 1 else None


def _flat(part: Pixels) -> NDArray[np.bool_]:
    """Return which columns (W,) are of one colour."""
    flat: NDArray[np.bool_] = part.std(0).max(1) < _FLAT
    return flat


def _seam(part: Pixels, least: int, gap: int) -> _Cut | None:
    """Return where more than half of the rows change at once, if they do so much more than elsewhere."""
    change = np.median(np.abs(part[:, gap:] - part[:, :-gap]).mean(2), axis=0)  # from each column to one further on
    inside = change[least - gap : part.shape[1] - least]
    strength = float(inside.max())
    if strength < max(_SEAM, _RATIO * float(np.median(change))):
        return None
    at = least - gap + int(inside.argmax())
    near = range(max(0, at - gap), min(len(change), at + gap + 1))
    place = round(float(np.mean([x for x in near if change[x] > 0.7 * strength])) + (gap + 1) / 2)
    return _Cut(strength, place - gap // 2, place + gap // 2)  # what blends into each other at the seam is left out


def _trimmed(pixels: Pixels, box: Box, most: int) -> Box:
    """Take strips of one colour off the four sides of a box, of so many pixels at most."""
    left, top, right, bottom = box
    columns, rows = _flat(pixels[top:bottom, left:right]), _flat(pixels[top:bottom, left:right].swapaxes(0, 1))
    before, after = (_leading(lines, most) for lines in (columns, columns[::-1]))
    above, below = (_leading(lines, most) for lines in (rows, rows[::-1]))
    return left + before, top + above, right - after, bottom - below


def _leading(flat: NDArray[np.bool_], most: int) -> int:
    return int(np.argmin([*flat[:most], False]))
