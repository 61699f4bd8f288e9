"""What pictures say about a run: identity, prompt, drift, memorisation, and the trade-off between them.

A base that ships a judge of its own is scored by it, on photos of the world that it knows; all else by DINO and CLIP,
where these can be loaded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError

from persona.clay.judge import WEIGHTS, Judge
from persona.clay.layers import opened
from persona.drawing import Size
from persona.events import Listener, Progress, silent
from persona.families import Family
from persona.metrics import (
    COPY,
    agreement,
    among,
    drift,
    leak,
    likeness,
    memorisation,
    trade_off_of_judge,
    trade_off_of_photos,
)
from persona.networks import CLIP, DINO, Clip, Dino, folder_of
from persona.placing import of_class, plain

SEEDS = (0, 1)
"""Seeds of the pictures that are drawn of a prompt, the same each time."""
BARE_SEEDS = tuple(range(8))
"""Those of the bare class for a judge: on clay what it sees in two is .15 off as often as not, in eight .09."""

ODD_TO_JUDGE = 0.5
"""Identity recovered below which a photo seems to show another subject than the others: of 500 renders, each beside
four others of its subject, one has less; of 786 of another subject of the class nine in ten do."""
SURE_OF_PLACE = 0.94
"""How sure the judge is of the place on photos of its world: on all of five renders of a subject .96 and more (of a
hundred subjects two have .92), on photographs of one of DreamBench's twenty .93 and less."""
ODD_TO_DINO = 0.39
"""The same as mean cosine: half of what photos of one subject have (2208.12242, table 1)."""

_EXPECTED = {
    "a photo of a [V] {class} in the snow": {"context": "snow", "style": "photo"},
    "a [V] {class} on the beach, side view": {"context": "beach", "view": "side"},
    "a [V] {class} on a cobblestone street": {"context": "cobblestone street"},
    "an oil painting of a [V] {class} in the jungle": {"style": "oil painting", "context": "jungle"},
}
"""Prompts of the judge, and what it should read in their pictures."""
_PROMPTS = ("a photo of a [V] {class} in the snow", "a [V] {class} on the beach", "a painting of a [V] {class}")
"""Prompts of DINO and CLIP."""
_BARE = "a photo of a {class}"
"""The prompt without the subject, which shows what became of the class."""


@dataclass(frozen=True)
class Scores:
    """What a set of pictures is worth.

    Attributes:
        identity: how much of the subject they show; by a judge 0 is any of its class and 1 a photo, by DINO the cosine.
        prompt: how well they follow their prompts: the judge's share of right answers, or CLIP's cosine.
        drift: (1 - cos) / 2 between what the base and the adapted base draw for the bare class, 0 to 1.
        memorisation: likeness of their layout to the nearest photo, -1 to 1; near 1 is a copy.
        total: the trade-off by which checkpoints are chosen, higher is better.
    """

    identity: float
    prompt: float
    drift: float
    memorisation: float
    total: float


class Scorer(Protocol):
    """Judges the pictures of a base."""

    wanted: Mapping[str, Sequence[int]]
    """Templates with ``{class}``, and ``[V]`` for the subject, whose pictures it wants; and the seeds of these."""

    def score(self, drawn: Mapping[str, Sequence[Image.Image]], photos: Sequence[Image.Image]) -> Scores:
        """Score pictures, those of each template in the order of its seeds, against photos of the subject."""


def has_judge(base: Family) -> bool:
    """Tell whether a base ships with a judge of its own."""
    return (base.folder / "judge" / WEIGHTS).is_file()


def load_judge(base: Family) -> Judge:
    """Return the judge that a base ships with.

    Raises:
        BadBase: it is damaged, or of another version.
    """
    return opened(Judge.load, base.folder / "judge", "judge")


def _judge_of(base: Family, photos: Sequence[Image.Image]) -> Judge | None:
    """Return the judge of a base if there is one and photos show the world that it was taught."""
    judge = load_judge(base) if has_judge(base) else None
    return judge if judge and judge.sure_of_place(photos) >= SURE_OF_PLACE else None


def strange(base: Family, photos: Sequence[Image.Image]) -> bool:
    """Tell whether photos show another world than a base and its judge were taught; never so without a judge."""
    return has_judge(base) and _judge_of(base, photos) is None


def scorer_for(
    base: Family, photos: Sequence[Image.Image], class_noun: str, size: Size, listener: Listener = silent
) -> Scorer | None:
    """Return what can judge pictures of a subject, before an adapter is attached to the base; ``None`` if nothing can.

    The judge of a base only knows its own world. Pictures are drawn of that size, and the listener is told so.
    """
    if judge := _judge_of(base, photos):
        return JudgeScorer(judge, class_noun, _bare_pictures(base, class_noun, BARE_SEEDS, size, listener))
    try:
        # A run does not wait for a gigabyte that nobody has asked for. They are not on the base's device, where they
        # would take 0.7 GB all along: they see eight pictures a look.
        dino, clip = Dino(folder_of(DINO)), Clip(folder_of(CLIP))
    except (OSError, ValueError, ImportError, SafetensorError):  # not whole on this disk
        return None
    return PhotoScorer(dino, clip, class_noun, _bare_pictures(base, class_noun, SEEDS, size, listener))


def odd_ones(base: Family, photos: Sequence[Image.Image], class_noun: str) -> list[int]:
    """Return the places of photos that seem not to show the same subject as the others; none where nothing can tell."""
    if len(photos) < 2:
        return []
    if judge := _judge_of(base, photos):
        shown = judge.read(photos)[1]
        rests = [torch.cat([shown[:place], shown[place + 1 :]]) for place in range(len(photos))]
        same = [judge.recovered(one[None], rest, class_noun) for one, rest in zip(shown, rests, strict=True)]
        return [place for place, alike in enumerate(same) if alike < ODD_TO_JUDGE]
    try:
        dino = Dino(folder_of(DINO), base.device)
    except (OSError, ValueError, ImportError, SafetensorError):  # not whole on this disk
        return []
    return [place for place, alike in enumerate(among(dino.embed(photos))) if alike < ODD_TO_DINO]


class JudgeScorer:
    """Scores by the judge that a base ships with."""

    wanted: Mapping[str, Sequence[int]] = {**dict.fromkeys(_EXPECTED, SEEDS), _BARE: BARE_SEEDS}

    def __init__(self, judge: Judge, class_noun: str, bare: Sequence[Image.Image]) -> None:
        """Take a judge that knows the class, and what the base without an adapter draws of it."""
        self.judge, self.class_noun = judge, class_noun
        self.before = judge.read(bare)[1]

    def score(self, drawn: Mapping[str, Sequence[Image.Image]], photos: Sequence[Image.Image]) -> Scores:
        """See :class:`Scorer`."""
        _, subject = self.judge.read(photos)
        read = {template: self.judge.read(drawn[template]) for template in self.wanted}
        right = [
            label == expected
            for template, wanted in _EXPECTED.items()
            for head, expected in wanted.items()
            for label in read[template][0][head]
        ]
        shown = torch.cat([read[template][1] for template in _EXPECTED])
        identity = self.judge.recovered(shown, subject, self.class_noun).mean().item()
        after = read[_BARE][1]
        bare = (self.judge.recovered(seen, subject, self.class_noun) for seen in (self.before, after))
        prompt = sum(right) / len(right)
        nearest = _nearest(drawn, _EXPECTED, photos)
        return Scores(
            identity,
            prompt,
            drift(self.before, after).mean().item(),
            float(nearest.mean()),
            trade_off_of_judge(identity, prompt, leak(*bare).mean().item(), _copies(nearest)),
        )


class PhotoScorer:
    """Scores by DINO ViT-S/16 and CLIP ViT-B/32, as the DreamBooth paper does."""

    wanted: Mapping[str, Sequence[int]] = dict.fromkeys((*_PROMPTS, _BARE), SEEDS)

    def __init__(self, dino: Dino, clip: Clip, class_noun: str, bare: Sequence[Image.Image]) -> None:
        """Take both networks, and what the base without an adapter draws of the class."""
        self.dino, self.clip, self.class_noun = dino, clip, class_noun
        self.before = dino.embed(bare)

    def score(self, drawn: Mapping[str, Sequence[Image.Image]], photos: Sequence[Image.Image]) -> Scores:
        """See :class:`Scorer`."""
        asked = [(template, picture) for template in _PROMPTS for picture in drawn[template]]
        pictures = [picture for _, picture in asked]
        # The identifier is left out: CLIP has never seen it.
        texts = [plain(of_class(template, self.class_noun)) for template, _ in asked]
        identity = likeness(self.dino.embed(pictures), self.dino.embed(photos)).mean().item()
        prompt = agreement(self.clip.embed(pictures), self.clip.texts(texts)).mean().item()
        moved = drift(self.before, self.dino.embed(drawn[_BARE])).mean().item()
        nearest = _nearest(drawn, _PROMPTS, photos)
        total = trade_off_of_photos(identity, prompt, moved, _copies(nearest))
        return Scores(identity, prompt, moved, float(nearest.mean()), total)


def _nearest(
    drawn: Mapping[str, Sequence[Image.Image]], templates: Iterable[str], photos: Sequence[Image.Image]
) -> NDArray[np.float64]:
    return memorisation([picture for template in templates for picture in drawn[template]], photos)


def _copies(nearest: NDArray[np.float64]) -> float:
    return float((nearest >= COPY).mean())


def _bare_pictures(
    base: Family, class_noun: str, seeds: Sequence[int], size: Size, listener: Listener
) -> list[Image.Image]:
    listener(Progress("Drawing previews", 0, 1))
    drawn = base.draw([of_class(_BARE, class_noun)] * len(seeds), seeds, size=size)
    listener(Progress("Drawing previews", 1, 1))
    return drawn
