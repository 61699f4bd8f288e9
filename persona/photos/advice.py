"""What could be better about the photos, and what to do about it.

The thresholds were set on the 20 subjects (107 photos) of the public DreamBooth set: on the sharp photos there, the
blur measure stays under 0.45; of each two subjects with one background everywhere the borders differ by less than
0.17, of the others by more than 0.23; two different photos correlate by at most 0.83.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from persona.events import Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from persona.photos.reading import Photo

BLURRED = 0.5
"""Perceived blur, 0 to 1, from which a photo is called blurred."""
SAME_PLACE = 0.18
"""Mean difference of the borders, 0 to 1, below which two backgrounds are called the same."""
NEAR = 0.9
"""Correlation of two photos from which they are called nearly the same."""
MANY = 50
"""Photos from which more do not help."""

_GRID = 16  # cells a side of the small picture that is compared
_BORDER = 3  # cells of it that are taken for background

Floats = NDArray[np.float64]


def some(names: Iterable[str], shown: int = 5) -> str:
    """Name the first few, and say how many more there are."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def advise(photos: Sequence[Photo]) -> Iterator[Note]:
    """Yield a note for each thing that would make the subject easier to learn."""
    yield from _number(photos)
    yield from _copies(photos)
    if blurred := [photo.name for photo in photos if blur(photo.image) > BLURRED]:
        yield Note(f"{some(blurred)}: blurred, so the subject is learned blurred. Sharp ones are better.", warning=True)
    if empty := [photo.name for photo in photos if photo.mask and not photo.mask.getbbox()]:
        yield Note(f"{some(empty)}: fully transparent, so white is learned. Take it out.", warning=True)
    whole = [_small(photo.image) for photo in photos if photo.mask is None]  # what is cut out has no background
    if len(whole) > 1 and _one_place(whole):
        yield Note(
            "The background is the same everywhere and will be learned with the subject. "
            "Add photos taken elsewhere, or say in a caption file what is behind it.",
            warning=True,
        )


def _number(photos: Sequence[Photo]) -> Iterator[Note]:
    if len(photos) == 1:
        yield Note("One photo works, but pose and light are learned with it: three to six are best.", warning=True)
    if len(photos) > MANY:
        yield Note(f"{len(photos)} photos: a dozen varied ones teach as much, and train sooner.")


def _copies(photos: Sequence[Photo]) -> Iterator[Note]:
    """Yield a note for photos that are there twice, and one for those that nearly are."""
    small: list[Floats] = [_small(photo.image).mean(-1) for photo in photos]
    same, near = [], []
    for (first, a), (second, b) in combinations(zip(photos, small, strict=True), 2):
        if first.sha256 == second.sha256:
            same.append(f"{first.name} = {second.name}")
        elif (first.mask is None or second.mask is None) and _correlation(a, b) > NEAR:  # cut out, both lie on white
            near.append(f"{first.name} ~ {second.name}")
    if same:
        yield Note(f"The same photo twice counts double: {some(same)}. Take one of them out.", warning=True)
    if near:
        yield Note(f"Nearly the same: {some(near)}. Other poses and places would teach more.", warning=True)


def blur(image: Image.Image) -> float:
    """Return how blurred a picture looks, from 0 (sharp) to 1.

    A sharp picture loses much of its contrast between neighbours when it is blurred, a blurred one little.
    Crété et al., "The blur effect: perception and estimation with a new no-reference perceptual blur metric" (2007),
    on the shorter side of 256 pixels, so that the size of the photo does not matter.
    """
    scale = min(1.0, 256 / min(image.size))
    size = (max(16, round(image.width * scale)), max(16, round(image.height * scale)))
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS), np.float64)
    return max(_blur_down(grey), _blur_down(grey.T))


def _blur_down(grey: Floats, width: int = 9) -> float:
    """Equations 1 to 5 of the paper, along the first axis."""
    total = np.cumsum(np.pad(grey, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    smooth = (total[width:] - total[:-width]) / width
    there = np.abs(np.diff(grey[width // 2 : len(grey) - width // 2], axis=0))
    left = np.abs(np.diff(smooth, axis=0))
    lost = np.maximum(0, there - left).sum()
    return float(1 - lost / there.sum()) if there.any() else 0.0


def _small(image: Image.Image) -> Floats:
    """Shrink to (16, 16, 3), values 0 to 1."""
    return np.asarray(image.resize((_GRID, _GRID), Image.Resampling.BOX), np.float64) / 255


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


def _one_place(small: list[Floats]) -> bool:
    border = np.ones((_GRID, _GRID), bool)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    return all(float(np.abs(a[border] - b[border]).mean()) < SAME_PLACE for a, b in combinations(small, 2))
