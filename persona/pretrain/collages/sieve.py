"""What is kept of pictures that should show one subject: those that do, well, and not the same picture twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from persona.metrics import COPY, Mask, among, memorisation

AREA = (0.03, 0.85)
"""Share of a picture that its subject takes up, from and to."""

MISSING, POOR, SAME, OTHER, ALONE = "no subject", "poor", "the same image", "another subject", "none like it"
"""Why a picture is dropped, in the order that is asked."""

_OPPOSITES = ("Good photo.", "Bad photo.")
_SHARPNESS = 100.0  # of CLIP's softmax, as it was trained
_GREY = (127, 127, 127)


class Looks(Protocol):
    """Tells what pictures look like, as :class:`persona.networks.Dino` does."""

    def embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return unit embeddings (B, D) of pictures of any sizes."""


class Reads(Looks, Protocol):
    """Compares pictures with words, as :class:`persona.networks.Clip` does."""

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Return unit embeddings (B, D) of texts."""


class Finds(Protocol):
    """Finds things by their names, as :class:`persona.networks.Segmenter` does."""

    def masks(self, pictures: Sequence[Image.Image], noun: str) -> list[Mask]:
        """Return where each picture shows what the noun names."""


@dataclass(frozen=True)
class Sifted:
    """What became of pictures, by their places.

    Attributes:
        masks: where the subject is on each.
        kept: two or more places, or none.
        dropped: why each of the others was.
    """

    masks: Sequence[Mask]
    kept: Sequence[int]
    dropped: Mapping[int, str]


@dataclass(frozen=True)
class Sieve:
    """The filters, one after the other.

    Attributes:
        dino: tells subjects apart, cut out and on grey, so that places do not count.
        clip: tells good pictures from bad ones, by which of the two words is nearer (Wang et al., 2207.12396).
        segmenter: finds the subject.
        similarity: mean cosine with the others that a picture needs to be of the same subject.
        quality: that a picture needs, from 0 to 1; half is neither good nor bad.
    """

    dino: Looks
    clip: Reads
    segmenter: Finds
    similarity: float
    quality: float

    def sift(self, pictures: Sequence[Image.Image], noun: str) -> Sifted:
        """Return which pictures, at least one, are of one subject that the noun names."""
        masks = self.segmenter.masks(pictures, noun)
        dropped: dict[int, str] = {}
        for place, (mask, good) in enumerate(zip(masks, self._quality(pictures), strict=True)):
            if not AREA[0] <= mask.mean() <= AREA[1]:
                dropped[place] = MISSING
            elif good < self.quality:
                dropped[place] = POOR
        kept = _different(pictures, [place for place in range(len(pictures)) if place not in dropped], dropped)
        if kept:
            shown = self.dino.embed([alone(pictures[place], masks[place]) for place in kept])
            kept = self._alike(kept, shown, dropped)
        return Sifted(masks, kept, dropped)

    def _quality(self, pictures: Sequence[Image.Image]) -> list[float]:
        nearness = self.clip.embed(pictures) @ self.clip.texts(_OPPOSITES).T
        good: list[float] = (_SHARPNESS * nearness).softmax(1)[:, 0].tolist()
        return good

    def _alike(self, kept: list[int], shown: Tensor, dropped: dict[int, str]) -> list[int]:
        """Let go of what is least like the others, until all that are left are alike."""
        places = list(kept)
        while len(places) > 1:
            likeness = among(shown)
            worst = int(likeness.argmin())
            if likeness[worst] >= self.similarity:
                return places
            dropped[places.pop(worst)] = OTHER
            shown = torch.cat([shown[:worst], shown[worst + 1 :]])
        dropped |= dict.fromkeys(places, ALONE)
        return []


def _different(pictures: Sequence[Image.Image], places: Sequence[int], dropped: dict[int, str]) -> list[int]:
    """Let go of what is there already."""
    kept: list[int] = []
    for place in places:
        if kept and memorisation([pictures[place]], [pictures[one] for one in kept])[0] >= COPY:
            dropped[place] = SAME
        else:
            kept.append(place)
    return kept


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what a mask holds, in pixels; it must not be empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def alone(picture: Image.Image, mask: Mask) -> Image.Image:
    """Show a subject alone, in the middle of a grey square."""
    left, top, right, bottom = box_of(mask)
    side = max(right - left, bottom - top)
    page = Image.new("RGB", (side, side), _GREY)
    place = (side - (right - left)) // 2, (side - (bottom - top)) // 2
    page.paste(picture.crop((left, top, right, bottom)), place, Image.fromarray(mask[top:bottom, left:right]))
    return page
