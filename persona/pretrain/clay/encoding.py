"""Stage 5: the encoder, trained on subjects cut out of the sets: what two pictures of one have in common is it.

The token of the whole learns to know a subject again from any side, in any pose and place (supervised contrastive),
and to tell its class, colours and pattern. Each patch learns to tell how the subject looks there, for redrawing it.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator, default_rng
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, normalize, pixel_unshuffle

from persona.clay.encoder import Encoder, as_subjects
from persona.clay.world import CLASSES, COLOURS, PATTERNS, Subject, random_scene, random_subject, render
from persona.photos.cutouts import cut
from persona.pretrain.clay.data import SET, mask_of, masks_of, pixels_of, scenes_of, shards_of
from persona.pretrain.clay.looking import contrastive, roughened, train

SUBJECTS = 32  # in a batch at most, each in two of its scenes
RIVALRIES = 6  # classes that they are of
LEAST = 0.03  # share of a picture that a subject covers at least
DETAIL = 2  # pixels of what is looked at, to a pixel that a patch has to tell
PATCHES = 10.0  # weight of that
HEADS = {
    "class": CLASSES, "main": tuple(COLOURS), "second": tuple(COLOURS), "accent": tuple(COLOURS),
    "pattern": tuple(PATTERNS),
}  # fmt: skip


class Readers(nn.Module):
    """What is read from the tokens while the encoder learns; nothing of it is kept."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.known = nn.ModuleDict({name: nn.Linear(encoder.width, len(words)) for name, words in HEADS.items()})
        self.identity = nn.Sequential(nn.Linear(encoder.width, encoder.width), nn.GELU(), nn.Linear(encoder.width, 128))
        side = round(encoder.tokens**0.5)
        self.cells = 128 // side // DETAIL
        self.patches = nn.Linear(encoder.width, 3 * self.cells**2)

    def forward(self, tokens: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return logits of the heads, unit embeddings (B, 128), and the colours that the patches tell."""
        whole, patches = tokens[:, 0], tokens[:, 1:]
        logits = {name: reader(whole) for name, reader in self.known.items()}
        return logits, normalize(self.identity(whole), dim=1), self.patches(patches)


def labels(subjects: list[Subject]) -> dict[str, Tensor]:
    """Return the right answer (B,) of every head."""
    truths = [dict(zip(HEADS, (who.class_noun, *who.colour_names, who.pattern), strict=True)) for who in subjects]
    return {name: torch.tensor([known.index(truth[name]) for truth in truths]) for name, known in HEADS.items()}


def as_patches(shown: Tensor, tokens: int, cells: int) -> tuple[Tensor, Tensor]:
    """Return the colours that patches should tell of (B, 4, 128, 128), and where they count.

    Both are (B, tokens, 3 * cells^2), in [-1, 1] and in [0, 1].
    """
    small = avg_pool2d(shown, DETAIL)
    rows = pixel_unshuffle(small, cells).flatten(2).mT.reshape(len(shown), tokens, 4, cells**2)
    return rows[:, :, :3].flatten(2), rows[:, :, 3:].expand(-1, -1, 3, -1).flatten(2)


class Subjects:
    """Subjects of the sets, cut out, by class, so that a batch holds some that are hard to tell apart."""

    def __init__(self, sets: Path, masks: Path, seed: int) -> None:
        self.sets, self.masks, self.seed = sets, masks, seed
        self.by_class: dict[str, list[tuple[Subject, int, list[int]]]] = {noun: [] for noun in CLASSES}
        for shard in shards_of(masks):
            scenes, large = scenes_of(sets, shard), masks_of(masks, shard)[:, 0].mean((1, 2)) > LEAST
            for first in range(0, len(scenes), SET):
                seen = [first + one for one in range(SET) if large[first + one]]
                if len(seen) > 1:
                    who = scenes[first].entities[0].subject
                    self.by_class[who.class_noun].append((who, shard, seen))

    def batch(self, step: int) -> tuple[Tensor, list[Subject]]:
        """Return what is looked at (B, 4, 128, 128), and whom it shows, each twice in a row."""
        rng = default_rng((self.seed, 11, step))
        nouns = rng.permutation([noun for noun, known in self.by_class.items() if known])[:RIVALRIES]
        classes = [self.by_class[str(noun)] for noun in nouns]
        orders = [[known[one] for one in rng.permutation(len(known))] for known in classes]
        chosen = [one for rank in zip_longest(*orders) for one in rank if one][:SUBJECTS]  # or fewer, but nobody twice
        cutouts, people = [], []
        for who, shard, seen in chosen:
            for picture in rng.choice(seen, 2, replace=False):
                cutouts.append(self._cutout(shard, int(picture), rng))
                people.append(who)
        shown = as_subjects(cutouts)
        return torch.cat([roughened(shown[:, :3], step) * shown[:, 3:], shown[:, 3:]], 1), people

    def _cutout(self, shard: int, picture: int, rng: Generator) -> Image.Image:
        """Cut a subject out, a little too wide or too narrow as segmenters do, and mirror half of them."""
        mask = Image.fromarray(mask_of(self.masks, shard, picture, 0).astype(np.uint8) * 255)
        edge = rng.random()
        if edge < 2 / 3:
            worn = mask.filter(ImageFilter.MaxFilter(3) if edge < 1 / 3 else ImageFilter.MinFilter(3))
            mask = worn if worn.getbbox() else mask
        whole = Image.fromarray(np.asarray(pixels_of(self.sets, shard)[picture]))
        cutout = cut(whole, np.asarray(mask) > 0)
        return cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cutout


def train_encoder(
    sets: Path, masks: Path, folder: Path, steps: int, seed: int = 0, save_every: int = 250
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train to `steps`, from the state in `folder` if there is one; yields (step, losses) now and then.

    The averaged weights are saved in `folder`, ready to look.
    """
    torch.manual_seed(seed)
    encoder = Encoder()
    readers = Readers(encoder)
    examples = Subjects(sets, masks, seed)

    def losses(tokens: Tensor, shown: Tensor, people: list[Subject]) -> dict[str, Tensor]:
        known, embeddings, told = readers(tokens.float())
        colours, where = as_patches(shown, encoder.tokens, readers.cells)
        found = {name: cross_entropy(known[name], right) for name, right in labels(people).items()}
        found["identity"] = contrastive(embeddings, torch.arange(len(people)) // 2)
        found["patches"] = PATCHES * ((told - colours).abs() * where).sum() / where.sum().clamp(min=1)
        return found

    yield from train(folder, {"encoder": encoder, "readers": readers}, examples.batch, losses, steps, save_every)
    encoder.save(folder)


def recognised(encoder: Encoder, subjects: int, seed: int) -> float:
    """Return the share of subjects of one class that are found among as many, by another picture of each."""
    rng = default_rng(seed)
    people = [random_subject(rng, CLASSES[0]) for _ in range(subjects)]
    gallery, query = (normalize(encoder.encode([_shown(who, rng) for who in people])[:, 0], dim=1) for _ in range(2))
    return float(((query @ gallery.T).argmax(1) == torch.arange(subjects)).float().mean())


def _shown(who: Subject, rng: Generator) -> Image.Image:
    while True:
        rendered = render(random_scene(rng, (who,), style="photo", property=None))
        if rendered.masks[0].mean() > LEAST:
            return cut(rendered.image, rendered.masks[0])
