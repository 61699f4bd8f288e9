"""Stage 3: the judge, trained on sets of renders: four scenes of one subject, some subjects of a class in a batch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.random import default_rng
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from persona.clay.judge import Judge, as_tensor
from persona.clay.world import ACCESSORIES, CLASSES, COLOURLESS, COLOURS, CONTEXTS, PATTERNS, STYLES, VIEWS, Scene
from persona.pretrain.clay.data import SET, pixels_of, scenes_of, shards_of
from persona.pretrain.clay.looking import contrastive, roughened, train

SUBJECTS = 24  # in a batch, each in two of its scenes
RIVALRIES = 6  # classes that they are of: fewer rivals each than of two, but the head of classes is not dragged about
OTHERS = 32
"""Subjects of each class that tell what any of the class looks like."""
HEADS: dict[str, list[str]] = {
    "class": list(CLASSES), "colour": list(COLOURS), "pattern": list(PATTERNS), "context": list(CONTEXTS),
    "style": list(STYLES), "view": list(VIEWS), "accessory": ["none", *ACCESSORIES],
}  # fmt: skip


def truth(scene: Scene) -> dict[str, str | None]:
    """Return the right answer of every head for a scene of one entity; None where the picture can't tell."""
    entity = scene.entities[0]
    subject = entity.subject
    coloured = scene.style not in COLOURLESS and entity.property in (None, "shiny", "cube shaped")
    return {
        "class": None if subject.cross or entity.property == "cube shaped" else subject.class_noun,
        "colour": subject.colour_names[0] if coloured else None,
        "pattern": subject.pattern if coloured and scene.style != "pixel art" else None,
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
    """Pictures of sets in memory, indexed by class, so that a batch holds subjects that are hard to tell apart."""

    def __init__(self, sets: Path, singles: Path, seed: int) -> None:
        self.seed = seed
        self.set_pixels = [pixels_of(sets, shard) for shard in shards_of(sets)]
        self.set_scenes = [scenes_of(sets, shard) for shard in shards_of(sets)]
        self.by_class: dict[str, list[tuple[int, int]]] = {noun: [] for noun in CLASSES}
        for s, scenes in enumerate(self.set_scenes):
            for first in range(0, len(scenes), SET):
                self.by_class[scenes[first].entities[0].subject.class_noun].append((s, first))
        self.pixels = [pixels_of(singles, shard) for shard in shards_of(singles)]
        self.scenes = [scenes_of(singles, shard) for shard in shards_of(singles)]

    def batch(self, step: int) -> tuple[Tensor, list[Scene], Tensor]:
        """Return pictures (B, 3, 128, 128), their scenes, and subject numbers, -1 for single pictures at the end."""
        rng = default_rng((self.seed, 5, step))
        pixels, scenes, groups = [], [], []
        nouns = rng.permutation([noun for noun, known in self.by_class.items() if known])[:RIVALRIES]
        for g in range(SUBJECTS):
            known = self.by_class[str(nouns[g % len(nouns)])]
            shard, first = known[rng.integers(len(known))]
            for i in rng.choice(SET, 2, replace=False):
                pixels.append(self.set_pixels[shard][first + i])
                scenes.append(self.set_scenes[shard][first + i])
                groups.append(g)
        while len(pixels) < 4 * SUBJECTS:
            s = int(rng.integers(len(self.scenes)))
            i = int(rng.integers(len(self.scenes[s])))
            if len(self.scenes[s][i].entities) == 1:
                pixels.append(self.pixels[s][i])
                scenes.append(self.scenes[s][i])
                groups.append(-1)
        pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
        if rng.random() < 0.5:  # all of them, or a pattern that is mirrored would be another subject's
            pictures = pictures.flip(-1)
        return roughened(pictures, step), scenes, torch.tensor(groups)

    def pictures(self, chosen: list[tuple[int, int]], place: int) -> list[Image.Image]:
        """Return the picture at a place, 0 to SET - 1, of each of some sets."""
        return [Image.fromarray(np.asarray(self.set_pixels[shard][first + place])) for shard, first in chosen]


def train_judge(
    sets: Path, singles: Path, folder: Path, steps: int, seed: int = 0, save_every: int = 250
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train to `steps`, from the state in `folder` if there is one; yields (step, losses) now and then.

    The averaged weights are saved in `folder`, ready to judge.
    """
    torch.manual_seed(seed)
    judge = Judge(HEADS)
    examples = Sets(sets, singles, seed)

    def losses(
        seen: tuple[dict[str, Tensor], Tensor], _: Tensor, scenes: list[Scene], groups: Tensor
    ) -> dict[str, Tensor]:
        heads, embeddings = seen
        found = {name: cross_entropy(heads[name].float(), right) for name, right in labels(scenes).items()}
        paired = groups >= 0
        return found | {"identity": contrastive(embeddings[paired].float(), groups[paired])}

    yield from train(folder, {"judge": judge}, examples.batch, losses, steps, save_every)
    calibrate(judge, examples)
    judge.save(folder)


@torch.no_grad()
def calibrate(judge: Judge, examples: Sets) -> None:
    """Give a judge the subjects that it compares with, and the likeness of two renders of one subject."""
    likeness: list[Tensor] = []
    for noun, known in examples.by_class.items():
        if known:
            one, other = (
                torch.cat([judge(as_tensor([picture]))[1] for picture in examples.pictures(known[:OTHERS], i)])
                for i in range(2)
            )
            judge.others[noun] = one
            likeness.append((one * other).sum(1))
    judge.ceiling = torch.cat(likeness).mean().item()


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
