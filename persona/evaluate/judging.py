"""Measuring by the judge that a base ships with."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from persona import metrics
from persona.clay.judge import Judge, as_tensor
from persona.evaluate.evaluator import (
    COPIES,
    Groups,
    Pictures,
    Scores,
    Values,
    by_kind,
    copies,
    counterparts,
    diversity,
    drift,
    opened,
    rows,
)
from persona.evaluate.pictures import Drawn
from persona.evaluate.subjects import Subject
from persona.report import Column


class JudgeEvaluator:
    """Measures by the judge that a base ships with."""

    name = "the base's own judge"
    fidelity, prompt = "identity", "prompt"
    notes: Sequence[str] = ()
    columns: Sequence[Column] = (
        Column("identity", "Share of the subject's identity recovered: 0 is any of its class, 1 a photo."),
        Column("prompt", "Share of what was asked for that the judge reads."),
        Column("leak", "Identity recovered in images of the bare class, beyond the base's own.", -1),
        Column("PRES (judge)", "Likeness, to the judge, of images of the bare class to the photos.", -1),
        Column("DIV (judge)", "Distance, to the judge, of images of one prompt."),
        Column("class kept", "Share of images of the bare class that the judge reads as such."),
        Column("drift", "(1 - cos) / 2, to the judge, between unrelated images before and after.", -1),
        *COPIES,
    )

    def __init__(self, judge: Judge) -> None:
        """Take the judge."""
        self._judge = judge
        self.mark = _mark(judge)

    def score(self, subject: Subject, drawn: Sequence[Drawn], before: Sequence[Drawn]) -> list[Scores]:
        """See :class:`Evaluator`."""
        return by_kind(subject, drawn, before, {"subject": self._subject, "class": self._bare, "other": self._others})

    def score_photos(self, photos: Pictures, class_noun: str, strangers: Pictures | None = None) -> list[Scores]:
        """See :class:`Evaluator`."""
        known = self._embed(photos)
        if strangers is not None:
            identity = self._judge.recovered(self._embed(strangers), known, class_noun)
        else:
            rest = [torch.cat([known[:place], known[place + 1 :]]) for place in range(len(known))]
            pairs = zip(known[:, None], rest, strict=True)
            identity = torch.cat([self._judge.recovered(one, others, class_noun) for one, others in pairs])
        return rows({"identity": identity}, len(identity))

    def total(self, means: Mapping[str, float]) -> float:
        """See :class:`Evaluator`."""
        return metrics.trade_off_of_judge(
            *(means.get(name, math.nan) for name in ("identity", "prompt", "leak", "copies"))
        )

    def _subject(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        pictures, photos = opened(drawn["subject"]), [photo.image for photo in subject.photos]
        labels, shown = self._judge.read(pictures)
        values = {
            "prompt": _right(drawn["subject"], labels),
            "DIV (judge)": diversity(drawn["subject"], pictures, self._distances),
        }
        if photos:
            values["identity"] = self._judge.recovered(shown, self._embed(photos), subject.class_noun)
            values |= copies(pictures, photos, [None] * len(pictures), subject.masks)
        return values

    def _bare(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        labels, shown = self._judge.read(opened(drawn["class"]))
        values: dict[str, Values] = {"class kept": _right(drawn["class"], labels)}
        if subject.photos:
            photos = self._embed([photo.image for photo in subject.photos])
            both = (self._embed(counterparts(drawn, before, "class")), shown)
            values["leak"] = metrics.leak(*(self._judge.recovered(seen, photos, subject.class_noun) for seen in both))
            values["PRES (judge)"] = metrics.likeness(shown, photos)
        return values

    def _others(self, subject: Subject, drawn: Groups, before: Groups) -> dict[str, Values]:
        return drift(drawn, before, self._embed)

    def _embed(self, pictures: Pictures) -> Tensor:
        return self._judge.read(pictures)[1]

    @torch.no_grad()
    def _distances(self, pictures: Pictures) -> Tensor:
        features = normalize(self._judge.features(as_tensor(pictures)), dim=1)
        return 1 - features @ features.T


def _mark(judge: Judge) -> str:
    """Return a hash (hex) of a judge."""
    whole = hashlib.sha256(str(judge.ceiling).encode())
    for _, tensor in sorted((judge.state_dict() | judge.others).items()):
        whole.update(tensor.numpy().tobytes())
    return whole.hexdigest()


def _right(drawn: Sequence[Drawn], labels: Mapping[str, Sequence[str]]) -> Values:
    """Return the share of what each prompt asked for that was read in its picture; not a number where none can tell."""
    shares = []
    for place, one in enumerate(drawn):
        hits = [labels[head][place] == wanted for head, wanted in one.prompt.expected.items()]
        shares.append(sum(hits) / len(hits) if hits else math.nan)
    return shares
