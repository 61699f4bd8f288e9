"""Stage 3: the judge, trained on sets of renders: four scenes of one subject, some subjects of a class in a batch."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import (
    affine_grid,
    avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    grid_sample,
)

from persona.clay.judge import SIDE, Judge
from persona.clay.world import (
    ACCESSORIES,
    CLASSES,
    COLOURLESS,
    COLOURS,
    CONTEXTS,
    LIVE,
    PATTERNS,
    POSES,
    STYLES,
    VIEWS,
    Scene,
    Subject,
    random_scene,
    random_subject,
    render,
)
from persona.pretrain.clay.data import SET, mask_of, pixels_of, scenes_of, shards_of
from persona.pretrain.clay.looking import contrastive, roughened, train

SUBJECTS = 24  # in a batch, each in two of its scenes
RIVALRIES = 4  # classes that they are of: fewer rivals each than of two, but the head of classes is not dragged about
SHIFT, ZOOM = 0.1, 0.15  # of a picture's side, and of its scale: how much pictures are moved about
WEIGHTS = {"class": 2.0, "pattern": 2.0, "accessory": 2.0}
"""What counts more than once, as it is learnt late or what the judge is for."""
OTHERS = 32
"""Subjects of each class that tell what any of the class looks like."""
HEADS: dict[str, list[str]] = {
    "class": list(CLASSES), "colour": list(COLOURS), "pattern": list(PATTERNS), "context": list(CONTEXTS),
    "style": list(STYLES), "view": list(VIEWS), "accessory": ["none", *ACCESSORIES],
}  # fmt: skip


class Readers(nn.Module):
    """What else is read of a subject while the judge learns, so that it sees what tells individuals apart."""

    HEADS: Mapping[str, Sequence[str]] = {"second": tuple(COLOURS), "accent": tuple(COLOURS), "pose": POSES}

    def __init__(self, width: int, build: int) -> None:
        super().__init__()
        self.known = nn.ModuleDict({name: nn.Linear(width, len(words)) for name, words in self.HEADS.items()})
        self.colours, self.build = nn.Linear(width, 9), nn.Linear(width, build)

    def forward(self, subject: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return logits of the heads, three colours (B, 9), and the build (B, shifts)."""
        return {name: read(subject) for name, read in self.known.items()}, self.colours(subject), self.build(subject)

    @staticmethod
    def truth(scenes: list[Scene]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return the same as it should be: labels (B,), -100 where there is nothing to tell, and not-a-numbers."""
        found: dict[str, list[int]] = {name: [] for name in Readers.HEADS}
        colours, builds = [], []
        for scene in scenes:
            entity = scene.entities[0]
            who, shown = entity.subject, coloured(scene)
            for name, word in zip(("second", "accent"), who.colour_names[1:], strict=True):
                found[name].append(list(COLOURS).index(word) if shown else -100)
            found["pose"].append(POSES.index(entity.pose) if who.class_noun in LIVE else -100)
            colours.append([value for colour in who.colours for value in colour] if shown else [math.nan] * 9)
            vague = who.cross or entity.property == "cube shaped"
            shows = [] if vague else who.proportions().values()  # a shift of nothing cannot be seen
            builds.append([shift if value else math.nan for shift, value in zip_longest(who.build, shows)])
        return {name: torch.tensor(one) for name, one in found.items()}, torch.tensor(colours), torch.tensor(builds)


class Learner(nn.Module):
    """The judge, and what is read beside it while it learns; nothing of that is kept."""

    def __init__(self, judge: Judge, build: int) -> None:
        super().__init__()
        self.judge, self.readers = judge, Readers(2 * judge.sizes["widths"][-1], build)

    def forward(self, pictures: Tensor) -> tuple[Any, ...]:
        """Return all that is told of pictures (B, 3, 128, 128)."""
        whole, subject, place = self.judge.look(pictures)
        return *self.judge.tell(whole, subject), place, *self.readers(subject)


def coloured(scene: Scene) -> bool:
    """Whether the colours of a scene's first subject are those that it has."""
    return scene.style not in COLOURLESS and scene.entities[0].property in (None, "shiny", "cube shaped")


def distance(told: Tensor, right: Tensor) -> Tensor:
    """Return the mean square of the error where there is something to tell."""
    known = right.isfinite()
    return (told.float()[known] - right[known]).square().sum() / known.sum().clamp(min=1)


def truth(scene: Scene) -> dict[str, str | None]:
    """Return the right answer of every head for a scene of one entity; None where the picture can't tell."""
    entity = scene.entities[0]
    subject = entity.subject
    shown = coloured(scene)
    return {
        "class": None if subject.cross or entity.property == "cube shaped" else subject.class_noun,
        "colour": subject.colour_names[0] if shown else None,
        "pattern": subject.pattern if shown and scene.style != "pixel art" else None,
        "context": scene.context, "style": scene.style, "view": scene.view, "accessory": entity.accessory or "none",
    }  # fmt: skip


def labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """Return label numbers (B,) of every head, -100 where there is nothing to tell."""
    truths = [truth(scene) for scene in scenes]
    return {
        name: torch.tensor([-100 if t[name] is None else known.index(str(t[name])) for t in truths])
        for name, known in HEADS.items()
    }


class Sets:
    """Pictures of sets and single ones; sets by class, so that a batch holds subjects that are hard to tell apart.

    They stay on disk, in files that are open for a moment: some systems let a process open no more than 256.
    """

    def __init__(self, sets: Path, singles: Path, set_masks: Path, masks: Path, seed: int) -> None:
        self.seed = seed
        self.sets, self.singles, self.set_masks, self.masks = sets, singles, set_masks, masks
        self.set_scenes = [scenes_of(sets, shard) for shard in shards_of(sets)]
        self.by_class: dict[str, list[tuple[int, int]]] = {noun: [] for noun in CLASSES}
        for s, scenes in enumerate(self.set_scenes):
            for first in range(0, len(scenes), SET):
                self.by_class[scenes[first].entities[0].subject.class_noun].append((s, first))
        self.scenes = [scenes_of(singles, shard) for shard in shards_of(singles)]
        self.alone = [
            (s, i) for s, scenes in enumerate(self.scenes) for i, one in enumerate(scenes) if len(one.entities) == 1
        ]
        kinds = [self._kind(self.scenes[s][i]) for s, i in self.alone]
        often = Counter(kind[:2] for kind in kinds)
        chances = np.array([often[kind[:2]] ** -0.5 * (2 if kind[2] else 1) for kind in kinds])
        self.chances = np.cumsum(chances / chances.sum())

    @staticmethod
    def _kind(scene: Scene) -> tuple[str, str, bool]:
        """Return what is rare of a scene: drawings from below are few, and hard to read."""
        return scene.style, scene.view, scene.entities[0].accessory is not None

    def batch(self, step: int) -> tuple[Tensor, list[Scene], Tensor, Tensor]:
        """Return pictures (B, 3, 128, 128), their scenes, and subject numbers, -1 for single pictures at the end.

        Last comes where the subjects are, shares of 8x8 places, (B, 8, 8).
        """
        rng = default_rng((self.seed, 5, step))
        pixels, scenes, groups, masks = [], [], [], []
        nouns = rng.permutation([noun for noun, known in self.by_class.items() if known])[:RIVALRIES]
        orders = [rng.permutation(self.by_class[str(noun)]).tolist() for noun in nouns]
        chosen = [who for rank in zip_longest(*orders) for who in rank if who][:SUBJECTS]
        for g, (shard, first) in enumerate(chosen):
            for i in rng.choice(SET, 2, replace=False):
                pixels.append(np.array(pixels_of(self.sets, shard)[first + i]))
                scenes.append(self.set_scenes[shard][first + i])
                groups.append(g)
                masks.append(mask_of(self.set_masks, shard, first + i, 0))
        for place in np.searchsorted(self.chances, rng.random(2 * SUBJECTS)):
            s, i = self.alone[min(place, len(self.alone) - 1)]
            pixels.append(np.array(pixels_of(self.singles, s)[i]))
            scenes.append(self.scenes[s][i])
            groups.append(-1)
            masks.append(mask_of(self.masks, s, i, 0))
        pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
        shown = torch.from_numpy(np.stack([np.asarray(mask, np.float32) for mask in masks])).float()[:, None]
        pairs = np.repeat(rng.random(len(chosen)) < 0.5, 2)  # both, or a pattern would be another subject's
        mirrored = np.concatenate([pairs, rng.random(2 * SUBJECTS) < 0.5])
        moved = _moved(torch.cat([roughened(pictures, step), shown], 1), mirrored, rng)
        return moved[:, :3], scenes, torch.tensor(groups), avg_pool2d(moved[:, 3], SIDE // 8)


def _moved(pictures: Tensor, mirrored: NDArray[np.bool_], rng: Generator) -> Tensor:
    """Return pictures (B, C, H, W) moved and scaled a little, and some of them mirrored; edges are reflected."""
    n = len(pictures)
    scales = torch.from_numpy(rng.uniform(1 - ZOOM, 1 + ZOOM, n)).float()
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0] = torch.where(torch.from_numpy(mirrored), -scales, scales)
    affine[:, 1, 1] = scales
    affine[:, :, 2] = torch.from_numpy(rng.uniform(-2 * SHIFT, 2 * SHIFT, (n, 2))).float()
    grid = affine_grid(affine, list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def train_judge(
    sets: Path,
    singles: Path,
    set_masks: Path,
    masks: Path,
    folder: Path,
    steps: int,
    seed: int = 0,
    save_every: int = 250,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train to `steps`, from the state in `folder` if there is one; yields (step, losses) now and then.

    The averaged weights are saved in `folder`, ready to judge.
    """
    torch.manual_seed(seed)
    judge = Judge(HEADS)
    examples = Sets(sets, singles, set_masks, masks, seed)

    def losses(
        seen: tuple[Any, ...], _: Tensor, scenes: list[Scene], groups: Tensor, places: Tensor
    ) -> dict[str, Tensor]:
        heads, embeddings, place, others, colours, build = seen
        found = {name: cross_entropy(heads[name].float(), right) for name, right in labels(scenes).items()}
        found = {name: WEIGHTS.get(name, 1.0) * loss for name, loss in found.items()}
        known, right_colours, right_build = Readers.truth(scenes)
        found |= {name: 0.5 * cross_entropy(others[name].float(), right) for name, right in known.items()}
        paired = groups >= 0
        return found | {
            "colours": 5 * distance(colours, right_colours),
            "build": distance(build, right_build),
            "place": binary_cross_entropy_with_logits(place.float(), places),
            "identity": contrastive(embeddings[paired].float(), groups[paired]),
        }

    learner = Learner(judge, len(examples.scenes[0][0].entities[0].subject.build))
    yield from train(folder, {"judge": learner}, examples.batch, losses, steps, save_every)
    calibrate(judge, seed)
    judge.save(folder)


def calibrate(judge: Judge, seed: int) -> None:
    """Give a judge photos of others to compare with, and the likeness of two photos of one subject.

    They are of subjects that it never saw: of those that it learnt it is too sure.
    """
    likeness: list[Tensor] = []
    for number, noun in enumerate(CLASSES):
        rng = default_rng((seed, 12, number))
        people = [random_subject(rng, noun) for _ in range(OTHERS)]
        one, other = (judge.read([_photo(rng, who) for who in people])[1] for _ in range(2))
        judge.others[noun] = one
        likeness.append((one * other).sum(1))
    judge.ceiling = torch.cat(likeness).mean().item()


def _photo(rng: Generator, who: Subject) -> Image.Image:
    return render(random_scene(rng, (who,), style="photo", accessory=None, property=None)).image


@torch.no_grad()
def accuracy(judge: Judge, scenes: list[Scene], pictures: Tensor) -> dict[str, float]:
    """Return the share of right answers of each head, over the pictures (B, 3, 128, 128) that can tell."""
    right = dict.fromkeys(HEADS, 0)
    asked = dict.fromkeys(HEADS, 0)
    for start in range(0, len(scenes), 64):
        heads, _ = judge(pictures[start : start + 64])
        for name, known in labels(scenes[start : start + 64]).items():
            told = known >= 0
            right[name] += int((heads[name].argmax(1) == known)[told].sum())
            asked[name] += int(told.sum())
    return {name: right[name] / max(asked[name], 1) for name in HEADS}
