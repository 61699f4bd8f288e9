"""What measures pictures, and what all that measure share: numbers by picture, under the names of their columns."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from persona import metrics
from persona.evaluate.pictures import Drawn
from persona.evaluate.subjects import Subject
from persona.metrics import COPY, Mask
from persona.report import Column

COPIES = (
    Column("memorisation", "Correlation of the layout with the nearest photo's, mirrored or cut; 1 is a copy.", -1),
    Column("background", "The same of what lies around the subject, where masks are known.", -1),
    Column("copies", f"Share of images whose background, or else whole layout, comes to {COPY} of that.", -1),
)
"""What :func:`copies` measures."""

Scores = dict[str, float]
Values = Tensor | NDArray[np.float64] | Sequence[float]
"""One number a picture; those that are not finite are left out."""
Pictures = Sequence[Image.Image]
Groups = Mapping[str, Sequence[Drawn]]
"""Pictures by the kinds of their prompts."""


class Evaluator(Protocol):
    """Measures the pictures of an entrant.

    Attributes:
        name: of what it measures with.
        columns: all that it can measure here.
        fidelity: the column that says how well pictures show the subject.
        prompt: the column that says how well they follow their prompts.
        notes: what is left out, and how to have it.
        mark: tells the weights that it measures with from others.
    """

    name: str
    columns: Sequence[Column]
    fidelity: str
    prompt: str
    notes: Sequence[str]
    mark: str

    def score(self, subject: Subject, drawn: Sequence[Drawn], before: Sequence[Drawn]) -> list[Scores]:
        """Return the scores of each picture.

        Args:
            subject: who should be on those that are about it.
            drawn: pictures of all kinds of prompts.
            before: what the base itself made of the prompts that are not about the subject, with the same seeds.
        """

    def score_photos(self, photos: Pictures, class_noun: str, strangers: Pictures | None = None) -> list[Scores]:
        """Return the fidelity of photos as if they had been drawn.

        Args:
            photos: of a subject, at least two.
            class_noun: what it is.
            strangers: of another, to be compared with them; without, each of them is compared with the others.
        """

    def total(self, means: Mapping[str, float]) -> float:
        """Return the trade-off that mean scores come to; not a number where one of them is missing."""


# What both share


def by_kind(
    subject: Subject,
    drawn: Sequence[Drawn],
    before: Sequence[Drawn],
    measures: Mapping[str, Callable[[Subject, Groups, Groups], dict[str, Values]]],
) -> list[Scores]:
    """Measure the pictures of each kind of prompt by what is for it, and return the scores in the pictures' order."""
    groups, bases = (
        {kind: [p for p in some if p.prompt.kind == kind] for kind in measures} for some in (drawn, before)
    )
    scores = {
        kind: iter(rows(measure(subject, groups, bases), len(groups[kind])) if groups[kind] else [])
        for kind, measure in measures.items()
    }
    return [next(scores[one.prompt.kind]) for one in drawn]


def rows(values: Mapping[str, Values], number: int) -> list[Scores]:
    """Turn columns into rows, rounded to what does not depend on the batch that a network saw a picture in."""
    columns = {name: [round(float(value), 5) for value in column] for name, column in values.items()}
    return [
        {name: column[place] for name, column in columns.items() if math.isfinite(column[place])}
        for place in range(number)
    ]


def opened(drawn: Sequence[Drawn]) -> list[Image.Image]:
    """Read pictures from their files."""
    pictures = []
    for one in drawn:
        with Image.open(one.path) as image:
            pictures.append(image.convert("RGB"))
    return pictures


def drift(drawn: Groups, before: Groups, embed: Callable[[Pictures], Tensor]) -> dict[str, Values]:
    """Return how far each picture that is not about the subject is from the base's own of the same prompt and seed."""
    return {"drift": metrics.drift(embed(counterparts(drawn, before, "other")), embed(opened(drawn["other"])))}


def counterparts(drawn: Groups, before: Groups, kind: str) -> list[Image.Image]:
    """Read the base's own pictures of the same prompts and seeds as those of a kind, in their order."""
    known = {(one.prompt.template, one.seed): one for one in before[kind]}
    return opened([known[one.prompt.template, one.seed] for one in drawn[kind]])


def diversity(drawn: Sequence[Drawn], pictures: Pictures, distances: Callable[[Pictures], Tensor]) -> Values:
    """Return how far each picture is from the others of its prompt; not a number where there are none."""
    found = [math.nan] * len(drawn)
    for template in dict.fromkeys(one.prompt.template for one in drawn):
        places = [place for place, one in enumerate(drawn) if one.prompt.template == template]
        if len(places) > 1:
            apart = metrics.diversity(distances([pictures[place] for place in places]))
            for place, value in zip(places, apart.tolist(), strict=True):
                found[place] = value
    return found


def copies(
    pictures: Pictures, photos: Pictures, masks: Sequence[Mask | None], photographed: Sequence[Mask | None]
) -> dict[str, Values]:
    """Return how much of each picture is a photo's, given where the subject is in both as far as that is known."""
    whole = metrics.memorisation(pictures, photos)
    if all(mask is None for mask in (*masks, *photographed)):
        return {"memorisation": whole, "copies": (whole >= COPY).astype(float)}
    background = metrics.background_memorisation(pictures, photos, masks, photographed)
    near = np.where(np.isfinite(background), background, whole) >= COPY
    return {"memorisation": whole, "background": background, "copies": near.astype(float)}
