"""Stage 4: the segmenter, trained on the world's own masks of all scenes, in all styles."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.random import default_rng
from torch import Tensor
from torch.nn.functional import cross_entropy

from persona.clay.segmenter import Segmenter
from persona.clay.world import CLASSES, Scene, render
from persona.pretrain.clay.data import mask_of, pixels_of, scenes_of, shards_of
from persona.pretrain.clay.looking import roughened, train

BATCH = 32


class Scenes:
    """Pictures of scenes, and what each pixel shows."""

    def __init__(self, data: Path, masks: Path, seed: int) -> None:
        self.data, self.masks, self.seed = data, masks, seed
        # A cross of two classes, or a dog that is a cube, counts as what the scene calls it.
        self.nouns = {
            shard: [[CLASSES.index(entity.subject.class_noun) for entity in scene.entities] for scene in scenes]
            for shard in shards_of(masks)
            if (scenes := scenes_of(data, shard))
        }

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return pictures (B, 3, 128, 128) and what each pixel shows (B, 128, 128): scenery is 0, classes follow."""
        rng = default_rng((self.seed, 10, step))
        pixels, shown = [], []
        for shard in rng.choice(list(self.nouns), BATCH):
            number = int(rng.integers(len(self.nouns[shard])))
            label = np.zeros(pixels_of(self.data, shard).shape[1:3], np.int64)
            for entity, noun in enumerate(self.nouns[shard][number]):
                label[mask_of(self.masks, shard, number, entity)] = 1 + noun
            side = slice(None, None, -1 if rng.random() < 0.5 else 1)  # mirrored
            pixels.append(pixels_of(self.data, shard)[number][:, side])
            shown.append(label[:, side])
        pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return roughened(pictures, step), torch.from_numpy(np.stack(shown))


def train_segmenter(
    data: Path, masks: Path, folder: Path, steps: int, seed: int = 0, save_every: int = 250
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train to `steps`, from the state in `folder` if there is one; yields (step, losses) now and then.

    The averaged weights are saved in `folder`, ready to look.
    """
    torch.manual_seed(seed)
    segmenter = Segmenter(CLASSES)

    def losses(logits: Tensor, _: Tensor, shown: Tensor) -> dict[str, Tensor]:
        return {"pixels": cross_entropy(logits.float(), shown)}

    yield from train(folder, {"segmenter": segmenter}, Scenes(data, masks, seed).batch, losses, steps, save_every)
    segmenter.save(folder)


def agreement(segmenter: Segmenter, scenes: list[Scene]) -> float:
    """Return the mean intersection over union of what it finds in renders and what is true of all their subjects."""
    shares = []
    for rendered in map(render, scenes):
        (found,) = segmenter.masks([rendered.image])
        true = np.logical_or.reduce(rendered.masks)
        shares.append((found & true).sum() / max(1, (found | true).sum()))
    return float(np.mean(shares))
