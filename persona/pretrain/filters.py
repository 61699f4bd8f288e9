"""What makes a picture one to learn from: the filters of SDD, as Subject-Diffusion's code has them (2307.11410).

Some numbers are named in its paper, the others in ``data_process.py`` and ``custom_dataset.py`` of its authors.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from persona.metrics import Mask
from persona.photos.cutouts import pixels_of
from persona.placing import Box, common

LONGEST = 600 / 512
"""Least longer side of a picture, in sides of the pictures that are made."""
NOUNS, THINGS = range(3, 9), range(2, 9)
"""How many nouns a caption has, and how many things are found of them."""
APART = 0.5
"""Intersection over union from which two boxes are of the same thing."""
WHITE, MUCH = 0.9, 0.1
"""What is white of each channel, and the share of such pixels from which a picture is on white."""
AREA, SHAPE = (0.08, 0.7), (0.3, 3.0)
"""Share of the picture that a box covers, and its width over its height."""
SURE, FILLED, COVERED = 0.3, 0.4, 0.8
"""Least score; share of its box that a mask fills; share of the smaller of two boxes that may lie in the other.

The authors ask for 0.6 of whatever shows most in the box, its surroundings too; of the subject alone, 0.6 would drop
every other animal that stands on four legs.
"""
SEGMENTS = 5
"""Things at most that show in a box, its surroundings among them."""
SUBJECTS = 2


@dataclass(frozen=True, eq=False)
class Candidate:
    """A thing in a picture, which may become an entity of a record.

    Attributes:
        noun: what it is called.
        score: how sure that is, from 0 to 1.
        box: where it is.
        mask: its pixels.
    """

    noun: str
    score: float
    box: Box
    mask: Mask


def on_white(picture: Image.Image) -> bool:
    """Whether much of a picture is white, as that of goods for sale is."""
    pixels = np.asarray(picture.convert("RGB"))
    return bool((pixels > 255 * WHITE).all(2).mean() > MUCH)


def choose(
    caption: str, candidates: Sequence[Candidate], dropped: Counter[str], beside: Sequence[Candidate] = ()
) -> list[Candidate]:
    """Choose the subjects of a picture.

    Args:
        caption: of the picture.
        candidates: what was found in it that may be a subject, with masks of its size.
        dropped: counts of what did not pass, by the reason; added to.
        beside: what else was found.

    Returns:
        At most two, the surest first; none where the picture is not one to learn from.
    """
    chosen: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: -one.score):
        flaw = _flaw(candidate, caption, [*candidates, *beside])
        if not flaw and any(overlap(candidate.box, other.box)[1] > COVERED for other in chosen):
            flaw = "over another"
        if not flaw and len(chosen) == SUBJECTS:
            flaw = "a third subject"
        if flaw:
            dropped[flaw] += 1
        else:
            chosen.append(candidate)
    return chosen


def _flaw(candidate: Candidate, caption: str, others: Sequence[Candidate]) -> str:
    """Return why a thing is no subject to learn, or nothing."""
    mask = candidate.mask
    left, top, right, bottom = pixels_of(candidate.box, (mask.shape[1], mask.shape[0]))
    box = (right - left) * (bottom - top)
    inside = (slice(top, bottom), slice(left, right))
    seen = sum(other.mask[inside].any() for other in others) + bool((~mask[inside]).any())
    said = re.search(rf"\b{re.escape(candidate.noun)}\b", caption)  # as a word, not as a part of one
    checks = {
        "not one word of the caption": " " in candidate.noun or not said,
        "unsure": candidate.score <= SURE,
        "too small or too large": not AREA[0] < box / mask.size < AREA[1],
        "too long or too tall": not SHAPE[0] < (right - left) / (bottom - top) < SHAPE[1],
        "not filling its box": mask[inside].sum() < FILLED * box,
        "larger than its box": mask.sum() > box,
        "among too many things": seen > SEGMENTS,
    }
    return next((flaw for flaw, found in checks.items() if found), "")


def overlap(one: Box, other: Box) -> tuple[float, float]:
    """Return what two boxes have in common, as a share of their union and of the smaller of them."""
    both = common(one, other)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both), both / min(areas)
