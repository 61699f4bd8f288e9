"""Subject-Diffusion's own pretraining: pictures of one or two subjects, each known by one reference."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.random import Generator as Random
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from persona import encoder
from persona.config import SubjectDiffusionConfig
from persona.errors import BadOption
from persona.events import Listener, silent
from persona.families import Family
from persona.methods.casting import Cast, Portrait
from persona.methods.subject_diffusion import Scenes, SubjectDiffusion
from persona.methods.telling import STORE
from persona.photos.cutouts import squared
from persona.placing import MOST, named
from persona.pretrain.clay.data import render_records
from persona.pretrain.clay.records import open_records
from persona.pretrain.latents import Latents, Shard
from persona.pretrain.learning import Learnt, Objective, emphasis, lot, pretrain, times
from persona.pretrain.records import MARKS, Record, Records
from persona.sheet import Row, sheet
from persona.train.processes import agree

CLAY_SETS, CLAY_PAIRS = 20_000, 20_000
"""Sets of one subject and of two that are rendered where clay learns and no data are named."""
SHARD = 1000
"""Records whose latents are in one file."""
TURNED = 10.0
"""Degrees that references are turned by at most."""
SLANT = 0.25
"""Share of its sides that a corner of a reference is moved inwards by at most."""
DROPPED = 0.05
"""Share of the pictures that are told no prompt; of those told nothing at all; of those not told where subjects are."""
SHOWN = 6
"""Records at the end, or a few more, whose subjects are never learnt from: for the sample sheets."""


def pretrain_subject_diffusion(config: SubjectDiffusionConfig, listener: Listener = silent) -> Learnt:
    """Teach a base to draw subjects of one reference each, or go on where an earlier call was stopped.

    Args:
        config: what to learn from, and how long.
        listener: told how far each stage is.

    Raises:
        BadOption: there are no data or no image encoder.
        BadBase: the base is no U-Net.
        PersonaError: as :func:`persona.pretrain.learning.pretrain` does.
    """
    if config.data is None and config.base != "clay":
        raise BadOption(f"Say what {config.base} is to learn from: --data SHARDS, as persona gen-sdd makes them.")
    records = open_records(config.data) if config.data else None  # before anything is begun
    told = {"encoder": config.encoder, "attention_control": config.attention_control}
    return pretrain(config, told, STORE.file, partial(_join, config, records), listener)


def _join(
    config: SubjectDiffusionConfig, records: Records | None, base: Family, listener: Listener
) -> Callable[[Accelerator, Listener], Objective]:
    seen_by = config.encoder or ("" if encoder.shipped(base.folder) else encoder.CLIP)
    method = SubjectDiffusion(base, seen_by, config.targets, listener)
    if config.start_from:
        STORE.start(base, config.start_from, method)
    return partial(_prepare, config, records, method)


def _prepare(
    config: SubjectDiffusionConfig,
    records: Records | None,
    method: SubjectDiffusion,
    accelerator: Accelerator,
    listener: Listener,
) -> Objective:
    known = _rendered(config, accelerator, listener) if records is None else records
    # Not in "latents": there may be some of an earlier version's, whose records had another order.
    latents = encoded(config.out / "encoded", known)
    latents.encode(method.base, accelerator, listener)
    return Depiction(method, known, latents, config.seed, config.attention_control)


def _rendered(config: SubjectDiffusionConfig, accelerator: Accelerator, listener: Listener) -> Records:
    data = config.out / "data"
    agree(accelerator, lambda: render_records(data, CLAY_SETS, CLAY_PAIRS, config.seed, listener))
    return open_records(data)


def encoded(folder: Path, records: Records) -> Latents:
    """Return the latents of records, in files of so many in a folder."""

    def pictures(first: int) -> Iterator[Image.Image]:
        return (records.record(number).picture for number in range(first, min(first + SHARD, len(records))))

    firsts = range(0, len(records), SHARD)
    return Latents(folder, {_file(first): Shard(first // SHARD, partial(pictures, first)) for first in firsts})


def _file(number: int) -> str:
    """Return the name of the file that a record's latents are in."""
    return f"{number // SHARD:05}"


@dataclass(frozen=True)
class _Example:
    """What one slot of a step learns from."""

    latents: Tensor
    noise: Tensor
    time: Tensor
    prompt: str
    nouns: list[str]
    boxes: Tensor
    present: Tensor
    placed: bool
    masks: Tensor
    references: list[Image.Image]


class Depiction:
    """The objective: a picture out of its caption, of references of its subjects, and of where they are."""

    def __init__(self, method: SubjectDiffusion, records: Records, latents: Latents, seed: int, control: float) -> None:
        """Take what learns, what it learns from, and the weight of attention control."""
        self.method, self.records, self.latents, self.seed, self.control = method, records, latents, seed, control
        shown = max(1, min(SHOWN, len(records) // 2))
        self._learning = max(1, records.first(len(records) - shown))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See :class:`persona.pretrain.learning.Objective`."""
        return self.method.modules

    def save(self) -> bytes:
        """See :class:`persona.pretrain.learning.Objective`."""
        return self.method.save()

    def loss(self, slots: Sequence[int], total: int) -> Tensor:
        """See :class:`persona.methods.Method`."""
        drawn = [self._draw(slot) for slot in slots]
        seen = self.method.encoder.encode([reference for one in drawn for reference in one.references])
        features = torch.zeros(len(drawn), MOST, *seen.shape[1:], device=seen.device)
        full = torch.tensor([[place < len(one.references) for place in range(MOST)] for one in drawn])
        features[full.to(seen.device)] = seen
        scenes = Scenes(
            latents=torch.stack([one.latents for one in drawn]),
            noise=torch.stack([one.noise for one in drawn]),
            times=torch.cat([one.time for one in drawn]),
            prompts=[one.prompt for one in drawn],
            nouns=[one.nouns for one in drawn],
            cast=Cast(
                features, torch.stack([one.boxes for one in drawn]), torch.stack([one.present for one in drawn])
            ).to(self.method.base.device),
            masks=torch.stack([one.masks for one in drawn]),
            placed=torch.tensor([one.placed for one in drawn]),
            emphasis=emphasis(torch.stack([one.masks for one in drawn]).amax(1)),
        )
        return self.method.loss(scenes, self.control).sum() / total

    def _encoded(self, number: int) -> Tensor:
        """Return the latents of a record, (1, C, h, w)."""
        return self.latents.rows(_file(number), slice(number % SHARD, number % SHARD + 1))

    def _draw(self, slot: int) -> _Example:
        number, random, generator = lot(slot, self._learning, self.seed)
        record, latents = self.records.record(number), self._encoded(number)[0]
        prompt = record.captions[int(random.integers(len(record.captions)))]
        order = _order(prompt, record)
        boxes, masks = torch.zeros(MOST, 4), torch.zeros(MOST, *latents.shape[-2:])
        for number, one in enumerate(order):
            boxes[number] = torch.tensor(record.entities[one].box)
            mask = torch.from_numpy(record.masks[one].astype(np.float32))
            masks[number] = adaptive_avg_pool2d(mask[None], (latents.shape[-2], latents.shape[-1]))[0]
        dropped = int(random.random() / DROPPED)  # 0: the prompt, 1: everything, 2: where the subjects are
        return _Example(
            latents,
            torch.randn(latents.shape, generator=generator),
            times(self.method.base.noise, 1, generator),
            "" if dropped in (0, 1) else prompt,
            [record.entities[one].noun for one in order],
            boxes,
            torch.tensor([place < len(order) and dropped != 1 for place in range(MOST)]),
            dropped not in (1, 2),
            masks,
            [_varied(record.references[one], random, aslant=self.records.of_the_same) for one in order],
        )

    def show(self) -> Image.Image:
        """Draw some pictures again from their captions, references and boxes."""
        method, rows = self.method, []
        for number in range(min(self._learning, len(self.records) - 1), len(self.records)):  # one at least
            record = self.records.record(number)
            prompt = next((caption for caption in record.captions if named(caption)), None)
            cutouts = [squared(reference, method.base.resolution) for reference in record.references]
            shown = [(cutout.convert("RGB"), "reference") for cutout in cutouts]
            shown.append((method.base.decode_latents(self._encoded(number))[0], "asked for"))
            if prompt:
                seen = zip(MARKS, method.encoder.encode(record.references), record.entities, strict=False)
                portraits = {mark.strip("[]"): Portrait(features, entity.box) for mark, features, entity in seen}
                shown.append((method.draw([prompt], [number], portraits=portraits)[0], "drawn"))
            rows.append(Row(prompt or record.captions[0], shown))
        return sheet(rows)


def _order(prompt: str, record: Record) -> list[int]:
    """Return the entities of a record as its prompt names them, and then the others."""
    said = [MARKS.index(f"[{name}]") for name in named(prompt)]
    return said + [one for one in range(len(record.entities)) if one not in said]


def _varied(reference: Image.Image, random: Random, *, aslant: bool) -> Image.Image:
    """Mirror and turn a reference at random, and show it aslant if asked, so that it is not learnt to be pasted."""
    if random.random() < 0.5:
        reference = reference.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    reference = reference.rotate(random.uniform(-TURNED, TURNED), Image.Resampling.BICUBIC, expand=True)
    return _aslant(reference, random) if aslant and random.random() < 0.5 else reference


def _aslant(reference: Image.Image, random: Random) -> Image.Image:
    """Move each corner of a reference inwards at random, in perspective."""
    far = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    corners = far * reference.size
    moved = corners + (1 - 2 * far) * random.uniform(0, SLANT, (4, 2)) * reference.size
    equations = list[tuple[float, ...]]()
    for (x, y), (u, v) in zip(moved, corners, strict=True):
        equations += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    back = np.linalg.solve(equations, corners.flatten()).tolist()
    return reference.transform(reference.size, Image.Transform.PERSPECTIVE, back, Image.Resampling.BICUBIC)
