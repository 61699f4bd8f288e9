"""What measures pictures: the networks of the papers for real bases, a base's own judge where it has one.

Both give numbers by picture, under the names of their columns; what a missing network is needed for is left out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from persona import metrics
from persona.clay.judge import Judge, as_tensor
from persona.evaluate.pictures import Drawn
from persona.evaluate.subjects import Subject
from persona.metrics import Mask
from persona.networks import Networks
from persona.report import Column

COPY = 0.9
"""Likeness of layouts from which a picture counts as a copy of a photo."""
OF_PHOTOS = 0.774
"""Mean likeness (DINO) of photos of one subject (2208.12242, table 1), for where there is only one."""

Scores = dict[str, float]
Values = Tensor | NDArray[np.float64] | Sequence[float]
"""One number a picture; those that are not finite are left out."""
Pictures = Sequence[Image.Image]
Groups = Mapping[str, Sequence[Drawn]]
"""Pictures by the kinds of their prompts."""

_GREY = (127, 127, 127)
_COPIES = (
    Column("memorisation", "Correlation of the layout with that of the nearest photo; 1 is a copy.", -1),
    Column("background", "The same of what lies around the subject, where masks are known.", -1),
    Column("copies", f"Share of pictures whose background, or else whole layout, comes to {COPY} of that.", -1),
)


class Evaluator(Protocol):
    """Measures the pictures of an entrant.

    Attributes:
        name: of what it measures with.
        columns: all that it can measure here.
        fidelity: the column that says how well pictures show the subject.
        prompt: the column that says how well they follow their prompts.
        notes: what is left out, and how to have it.
    """

    name: str
    columns: Sequence[Column]
    fidelity: str
    prompt: str
    notes: Sequence[str]

    def score(self, subject: Subject, drawn: Sequence[Drawn], before: Sequence[Drawn]) -> list[Scores]:
        """Return the scores of each picture.

        Args:
            subject: who should be on those that are about it.
            drawn: pictures of all kinds of prompts.
            before: what the base itself made of the prompts that are not about the subject, with the same seeds.
        """

    def score_photos(self, shown: Pictures, photos: Pictures, class_noun: str) -> list[Scores]:
        """Return the fidelity of photos, as if they had been drawn, to others of a subject of a class."""

    def total(self, means: Mapping[str, float]) -> float:
        """Return the trade-off that mean scores come to; not a number where one of them is missing."""


class NetworkEvaluator:
    """Measures as the papers do, with what can be had of their networks."""

    name = "DINO ViT-S/16, CLIP ViT-B/32"
    prompt = "CLIP-T"

    def __init__(self, networks: Networks) -> None:
        """Take the networks that can be had."""
        self._net = networks
        self.notes: Sequence[str] = networks.missing
        dino, clip, masks = networks.dino is not None, networks.clip is not None, networks.segmenter is not None
        measured = (
            (dino, Column("DINO", "Mean likeness (DINO ViT-S/16) to the photos.")),
            (dino and masks, Column("MDINO", "The same of the subject alone, on grey.")),
            (dino, Column("identity", "Share of the identity recovered, by DINO: 0 is any of the class, 1 a photo.")),
            (clip, Column("CLIP-I", "Mean likeness (CLIP ViT-B/32) to the photos.")),
            (clip and masks, Column("MCLIP-I", "The same of the subject alone, on grey.")),
            (clip, Column("CLIP-T", "Likeness (CLIP ViT-B/32) of a picture to its prompt.")),
            (dino, Column("PRES", "Likeness (DINO) of pictures of the bare class to the photos: what leaked.", -1)),
            (networks.lpips is not None, Column("DIV", "Distance (LPIPS, AlexNet) of pictures of one prompt.")),
            (dino, Column("drift", "(1 - cos) / 2 (DINO) between unrelated pictures before and after.", -1)),
        )
        self.columns: Sequence[Column] = [*(column for there, column in measured if there), *_COPIES]
        self.fidelity = "DINO" if dino or not clip else "CLIP-I"

    def score(self, subject: Subject, drawn: Sequence[Drawn], before: Sequence[Drawn]) -> list[Scores]:
        """See :class:`Evaluator`."""
        return _by_kind(subject, drawn, before, {"subject": self._subject, "class": self._bare, "other": self._others})

    def score_photos(self, shown: Pictures, photos: Pictures, class_noun: str) -> list[Scores]:
        """See :class:`Evaluator`."""
        return _rows(self._likeness(shown, photos), len(shown))

    def total(self, means: Mapping[str, float]) -> float:
        """See :class:`Evaluator`."""
        return metrics.trade_off_of_photos(*(means.get(name, math.nan) for name in ("DINO", "CLIP-T", "drift")))

    def _subject(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        pictures = _open(drawn["subject"])
        values = self._known(subject, pictures, before) if subject.photos else {}
        if self._net.clip:
            texts = self._net.clip.texts([one.prompt.bare(subject.class_noun) for one in drawn["subject"]])
            values["CLIP-T"] = metrics.agreement(self._net.clip.embed(pictures), texts)
        if self._net.lpips:
            values["DIV"] = _diversity(drawn["subject"], pictures, self._net.lpips.distances)
        return values

    def _known(self, subject: Subject, pictures: Pictures, before: Groups) -> dict[str, Values]:
        """Return what only photos of the subject can tell."""
        photos = [photo.image for photo in subject.photos]
        masks, photographed = self._masks(pictures, photos, subject)
        values = self._likeness(pictures, photos)
        if self._net.dino and before["class"]:
            shown, known, others = map(self._net.dino.embed, (pictures, photos, _open(before["class"])))
            values["identity"] = metrics.recovered(shown, known, others, OF_PHOTOS)
        if self._net.segmenter:
            alone = self._likeness(_alone(pictures, masks), _alone(photos, photographed))
            values |= {f"M{name}": value for name, value in alone.items()}
        return values | _copies(pictures, photos, masks, photographed)

    def _bare(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        if not (self._net.dino and subject.photos):
            return {}
        photos = self._net.dino.embed([photo.image for photo in subject.photos])
        return {"PRES": metrics.likeness(self._net.dino.embed(_open(drawn["class"])), photos)}

    def _others(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        return _drift(drawn, before, self._net.dino.embed) if self._net.dino else {}

    def _likeness(self, pictures: Pictures, photos: Pictures) -> dict[str, Values]:
        nets = {"DINO": self._net.dino, "CLIP-I": self._net.clip}
        return {name: metrics.likeness(net.embed(pictures), net.embed(photos)) for name, net in nets.items() if net}

    def _masks(
        self, pictures: Pictures, photos: Pictures, subject: Subject
    ) -> tuple[Sequence[Mask | None], Sequence[Mask | None]]:
        """Return where the subject is in pictures and photos, as far as that can be known."""
        if not self._net.segmenter:
            return [None] * len(pictures), subject.masks
        found = self._net.segmenter.masks([*pictures, *photos], subject.class_noun)
        return found[: len(pictures)], found[len(pictures) :]


class JudgeEvaluator:
    """Measures by the judge that a base ships with."""

    name = "the base's own judge"
    fidelity, prompt = "identity", "prompt"
    notes: Sequence[str] = ()
    columns: Sequence[Column] = (
        Column("identity", "Share of the subject's identity recovered: 0 is any of its class, 1 a photo."),
        Column("prompt", "Share of what was asked for that the judge reads."),
        Column("leak", "Identity recovered in pictures of the bare class.", -1),
        Column("PRES (judge)", "Likeness, to the judge, of pictures of the bare class to the photos.", -1),
        Column("DIV (judge)", "Distance, to the judge, of pictures of one prompt."),
        Column("class kept", "Share of pictures of the bare class that the judge reads as such."),
        Column("drift", "(1 - cos) / 2, to the judge, between unrelated pictures before and after.", -1),
        *_COPIES,
    )

    def __init__(self, judge: Judge) -> None:
        """Take the judge."""
        self._judge = judge

    def score(self, subject: Subject, drawn: Sequence[Drawn], before: Sequence[Drawn]) -> list[Scores]:
        """See :class:`Evaluator`."""
        return _by_kind(subject, drawn, before, {"subject": self._subject, "class": self._bare, "other": self._others})

    def score_photos(self, shown: Pictures, photos: Pictures, class_noun: str) -> list[Scores]:
        """See :class:`Evaluator`."""
        identity = self._judge.recovered(self._embed(shown), self._embed(photos), class_noun)
        return _rows({"identity": identity}, len(shown))

    def total(self, means: Mapping[str, float]) -> float:
        """See :class:`Evaluator`."""
        return metrics.trade_off_of_judge(*(means.get(name, math.nan) for name in ("identity", "prompt", "leak")))

    def _subject(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        pictures, photos = _open(drawn["subject"]), [photo.image for photo in subject.photos]
        labels, shown = self._judge.read(pictures)
        values = {
            "prompt": _right(drawn["subject"], labels),
            "DIV (judge)": _diversity(drawn["subject"], pictures, self._distances),
        }
        if photos:
            values["identity"] = self._judge.recovered(shown, self._embed(photos), subject.class_noun)
            values |= _copies(pictures, photos, [None] * len(pictures), subject.masks)
        return values

    def _bare(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        labels, shown = self._judge.read(_open(drawn["class"]))
        values: dict[str, Values] = {"class kept": _right(drawn["class"], labels)}
        if subject.photos:
            photos = self._embed([photo.image for photo in subject.photos])
            values["leak"] = self._judge.recovered(shown, photos, subject.class_noun)
            values["PRES (judge)"] = metrics.likeness(shown, photos)
        return values

    def _others(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        return _drift(drawn, before, self._embed)

    def _embed(self, pictures: Pictures) -> Tensor:
        return self._judge.read(pictures)[1]

    @torch.no_grad()
    def _distances(self, pictures: Pictures) -> Tensor:
        features = normalize(self._judge.features(as_tensor(pictures)), dim=1)
        return 1 - features @ features.T


# What both share


def _by_kind(
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
        kind: iter(_rows(measure(subject, groups, bases), len(groups[kind])) if groups[kind] else [])
        for kind, measure in measures.items()
    }
    return [next(scores[one.prompt.kind]) for one in drawn]


def _rows(values: Mapping[str, Values], number: int) -> list[Scores]:
    """Turn columns into rows, rounded to what does not depend on the batch that a network saw a picture in."""
    columns = {name: [round(float(value), 5) for value in column] for name, column in values.items()}
    return [
        {name: column[place] for name, column in columns.items() if math.isfinite(column[place])}
        for place in range(number)
    ]


def _open(drawn: Sequence[Drawn]) -> list[Image.Image]:
    pictures = []
    for one in drawn:
        with Image.open(one.path) as image:
            pictures.append(image.convert("RGB"))
    return pictures


def _alone(pictures: Pictures, masks: Sequence[Mask | None]) -> list[Image.Image]:
    """Show the subject alone, on grey."""
    grey = (Image.new("RGB", picture.size, _GREY) for picture in pictures)
    return [
        picture if mask is None else Image.composite(picture, around, Image.fromarray(mask))
        for picture, mask, around in zip(pictures, masks, grey, strict=True)
    ]


def _drift(drawn: Groups, before: Groups, embed: Callable[[Pictures], Tensor]) -> dict[str, Values]:
    known = {(one.prompt.template, one.seed): one for one in before["other"]}
    pairs = [known[one.prompt.template, one.seed] for one in drawn["other"]]
    return {"drift": metrics.drift(embed(_open(pairs)), embed(_open(drawn["other"])))}


def _diversity(drawn: Sequence[Drawn], pictures: Pictures, distances: Callable[[Pictures], Tensor]) -> Values:
    """Return how far each picture is from the others of its prompt; not a number where there are none."""
    found = [math.nan] * len(drawn)
    for template in dict.fromkeys(one.prompt.template for one in drawn):
        places = [place for place, one in enumerate(drawn) if one.prompt.template == template]
        if len(places) > 1:
            apart = metrics.diversity(distances([pictures[place] for place in places]))
            for place, value in zip(places, apart.tolist(), strict=True):
                found[place] = value
    return found


def _copies(
    pictures: Pictures, photos: Pictures, masks: Sequence[Mask | None], photographed: Sequence[Mask | None]
) -> dict[str, Values]:
    whole = metrics.memorisation(pictures, photos)
    if all(mask is None for mask in (*masks, *photographed)):
        return {"memorisation": whole, "copies": (whole >= COPY).astype(float)}
    background = metrics.background_memorisation(pictures, photos, masks, photographed)
    near = np.where(np.isfinite(background), background, whole) >= COPY
    return {"memorisation": whole, "background": background, "copies": near.astype(float)}


def _right(drawn: Sequence[Drawn], labels: Mapping[str, Sequence[str]]) -> Values:
    """Return the share of what each prompt asked for that was read in its picture; not a number where none can tell."""
    shares = []
    for place, one in enumerate(drawn):
        hits = [labels[head][place] == wanted for head, wanted in one.prompt.expected.items()]
        shares.append(sum(hits) / len(hits) if hits else math.nan)
    return shares
