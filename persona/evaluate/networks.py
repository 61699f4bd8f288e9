"""Measuring as the papers do: DINO, CLIP, CLIPSeg and LPIPS, as far as they can be had."""

import math
from collections.abc import Iterator, Mapping, Sequence

from PIL import Image

from persona import metrics
from persona.evaluate.evaluator import (
    COPIES,
    Groups,
    Pictures,
    Scores,
    Values,
    by_kind,
    copies,
    diversity,
    drift,
    opened,
    rows,
)
from persona.evaluate.pictures import Drawn
from persona.evaluate.subjects import Subject
from persona.metrics import Mask
from persona.networks import Clip, Dino, Networks
from persona.report import Column

OF_PHOTOS = 0.774
"""Mean likeness (DINO) of photos of one subject (2208.12242, table 1), for where there is only one."""

_GREY = (127, 127, 127)


class NetworkEvaluator:
    """Measures as the papers do, with what can be had of their networks."""

    name = "DINO ViT-S/16, CLIP ViT-B/32"
    prompt = "CLIP-T"

    def __init__(self, networks: Networks) -> None:
        """Take the networks that can be had."""
        self._net = networks
        self.notes: Sequence[str] = networks.missing
        self.mark = networks.mark
        dino, clip, masks = networks.dino is not None, networks.clip is not None, networks.segmenter is not None
        measured = (
            (dino, Column("DINO", "Mean likeness (DINO ViT-S/16) to the photos.")),
            (dino and masks, Column("MDINO", "The same of the subject alone, on grey.")),
            (dino, Column("identity", "Share of the identity recovered, by DINO: 0 is any of the class, 1 a photo.")),
            (clip, Column("CLIP-I", "Mean likeness (CLIP ViT-B/32) to the photos.")),
            (clip and masks, Column("MCLIP-I", "The same of the subject alone, on grey.")),
            (clip, Column("CLIP-T", "Likeness (CLIP ViT-B/32) of an image to its prompt.")),
            (dino, Column("PRES", "Likeness (DINO) of images of the bare class to the photos: what leaked.", -1)),
            (networks.lpips is not None, Column("DIV", "Distance (LPIPS, AlexNet) of images of one prompt.")),
            (dino, Column("drift", "(1 - cos) / 2 (DINO) between unrelated images before and after.", -1)),
        )
        self.columns: Sequence[Column] = [*(column for there, column in measured if there), *COPIES]
        self.fidelity = "DINO" if dino or not clip else "CLIP-I"

    def score(self, subject: Subject, drawn: Sequence[Drawn], before: Sequence[Drawn]) -> list[Scores]:
        """See :class:`Evaluator`."""
        return by_kind(subject, drawn, before, {"subject": self._subject, "class": self._bare, "other": self._others})

    def score_photos(self, photos: Pictures, class_noun: str, strangers: Pictures | None = None) -> list[Scores]:
        """See :class:`Evaluator`."""
        if strangers is not None:
            return rows(self._likeness(strangers, photos), len(strangers))
        among: dict[str, Values] = {name: metrics.among(net.embed(photos)) for name, net in self._embedders()}
        return rows(among, len(photos))

    def total(self, means: Mapping[str, float]) -> float:
        """See :class:`Evaluator`."""
        return metrics.trade_off_of_photos(
            *(means.get(name, math.nan) for name in ("DINO", "CLIP-T", "drift", "copies"))
        )

    def _subject(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        pictures = opened(drawn["subject"])
        values = self._known(subject, pictures, before) if subject.photos else {}
        if self._net.clip:
            texts = self._net.clip.texts([one.prompt.bare(subject.class_noun) for one in drawn["subject"]])
            values["CLIP-T"] = metrics.agreement(self._net.clip.embed(pictures), texts)
        if self._net.lpips:
            values["DIV"] = diversity(drawn["subject"], pictures, self._net.lpips.distances)
        return values

    def _known(self, subject: Subject, pictures: Pictures, before: Groups) -> dict[str, Values]:
        """Return what only photos of the subject can tell."""
        photos = [photo.image for photo in subject.photos]
        masks, photographed = self._masks(pictures, photos, subject)
        values = self._likeness(pictures, photos)
        if self._net.dino and before["class"]:
            shown, known, others = map(self._net.dino.embed, (pictures, photos, opened(before["class"])))
            values["identity"] = metrics.recovered(shown, known, others, OF_PHOTOS)
        if self._net.segmenter:
            alone = self._likeness(_alone(pictures, masks), _alone(photos, photographed))
            values |= {f"M{name}": value for name, value in alone.items()}
        return values | copies(pictures, photos, masks, photographed)

    def _bare(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        if not (self._net.dino and subject.photos):
            return {}
        photos = self._net.dino.embed([photo.image for photo in subject.photos])
        return {"PRES": metrics.likeness(self._net.dino.embed(opened(drawn["class"])), photos)}

    def _others(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        return drift(drawn, before, self._net.dino.embed) if self._net.dino else {}

    def _likeness(self, pictures: Pictures, photos: Pictures) -> dict[str, Values]:
        return {name: metrics.likeness(net.embed(pictures), net.embed(photos)) for name, net in self._embedders()}

    def _embedders(self) -> Iterator[tuple[str, Dino | Clip]]:
        if self._net.dino:
            yield "DINO", self._net.dino
        if self._net.clip:
            yield "CLIP-I", self._net.clip

    def _masks(
        self, pictures: Pictures, photos: Pictures, subject: Subject
    ) -> tuple[Sequence[Mask | None], Sequence[Mask | None]]:
        """Return where the subject is in pictures and photos, as far as that can be known."""
        if not self._net.segmenter:
            return [None] * len(pictures), subject.masks
        found = self._net.segmenter.masks([*pictures, *photos], subject.class_noun)
        return found[: len(pictures)], found[len(pictures) :]


def _alone(pictures: Pictures, masks: Sequence[Mask | None]) -> list[Image.Image]:
    """Show the subject alone, on grey."""
    grey = (Image.new("RGB", picture.size, _GREY) for picture in pictures)
    return [
        picture if mask is None else Image.composite(picture, around, Image.fromarray(mask))
        for picture, mask, around in zip(pictures, masks, grey, strict=True)
    ]
