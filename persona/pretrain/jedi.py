"""JeDi's own pretraining: sets of pictures of one subject, of which some are known and the others are to be drawn."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.random import default_rng
from PIL import Image
from torch import Tensor, nn

from persona.config import JediConfig
from persona.errors import BadOption
from persona.events import Listener, silent
from persona.families import Family
from persona.methods.jedi import STORE, JeDi, References
from persona.methods.jedi import Sets as Drawn
from persona.placing import any_of
from persona.pretrain.clay.data import SETS, render_records, shards_of
from persona.pretrain.clay.sets import ClaySets
from persona.pretrain.learning import Learnt, Objective, emphasis, lot, pretrain, times
from persona.pretrain.records import shards
from persona.pretrain.sets import Sets, WebSets
from persona.sheet import Row, sheet
from persona.train.processes import agree

CLAY_SETS = 20_000
"""Sets that are rendered where clay learns and no data are named."""
TEXT_DROPPED = 0.1
"""Share of the sets whose missing pictures are told no prompt, for guidance."""
PLAIN = 0.5
"""Share of the references that are told no more than what they are, as photos without a caption are."""
TOGETHER, WITH_REFERENCES = 0.5, 0.25
"""Share of the steps in which several missing pictures see each other: without references, and beside them."""
SAME = 0.95
"""Correlation of two latents from which they are of the same picture."""
SHOWN = 6
"""Sets at the end that are never learnt from, for the sample sheets."""


def pretrain_jedi(config: JediConfig, listener: Listener = silent) -> Learnt:
    """Teach a base to complete sets of pictures of one subject, or go on where an earlier call was stopped.

    Args:
        config: what to learn from, and how long.
        listener: told how far each stage is.

    Raises:
        BadOption: there are no data.
        BadBase: the base is no U-Net.
        PersonaError: as :func:`persona.pretrain.learning.pretrain` does.
    """
    if config.data is None and config.base != "clay":
        raise BadOption(f"Say what {config.base} is to learn from: --data SHARDS, as persona gen-sets makes them.")
    sets = _open(config.data, config.out / "latents") if config.data else None  # before anything is begun
    return pretrain(config, {"renoised": config.renoised}, STORE.file, partial(_join, config, sets), listener)


def _join(
    config: JediConfig, sets: Sets | None, base: Family, _: Listener
) -> Callable[[Accelerator, Listener], Objective]:
    jedi = JeDi(base, config.targets, renoised=config.renoised)
    if config.start_from:
        STORE.start(base, config.start_from, jedi)
    return partial(_prepare, config, sets, jedi)


def _prepare(
    config: JediConfig, sets: Sets | None, jedi: JeDi, accelerator: Accelerator, listener: Listener
) -> Objective:
    if sets is None:
        agree(accelerator, lambda: render_records(config.out / "data", CLAY_SETS, 0, config.seed, listener))
        sets = _open(config.out / "data", config.out / "latents")
    sets.encoded.encode(jedi.base, accelerator, listener)
    return Completion(jedi, sets, config.seed)


def _open(data: Path, latents: Path) -> Sets:
    """Return the sets of a folder, whatever its shards.

    Raises:
        BadOption: it has none.
    """
    if shards(data):
        return WebSets(data, latents)
    if shards_of(data / SETS):
        return ClaySets(data, latents)
    raise BadOption(f"{data} holds no shards of sets (*.tar). Make some: persona gen-sets")


class Completion:
    """The objective: the size of sets and how many of them are known are drawn for each step, all else for each set.

    Larger sets are also learnt as smaller ones, of some of their pictures.
    The missing pictures mostly see those that are known and not each other, so that each is drawn as it will be; in the
    other steps they see each other too. Without any known they are alone, which keeps the base what it is, or together.
    A picture that its set holds twice is not learnt: it would teach to copy.
    """

    def __init__(self, jedi: JeDi, sets: Sets, seed: int) -> None:
        """Take what learns, and what it learns from; its latents must be there."""
        self.jedi, self.sets, self.seed = jedi, sets, seed
        self._learning = len(sets) - min(SHOWN, len(sets) // 2)
        self._sizes = np.array(sets.sizes[: self._learning])
        self._of = {size: np.flatnonzero(self._sizes >= size) for size in set(self._sizes.tolist())}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See :class:`persona.pretrain.learning.Objective`."""
        return self.jedi.modules

    def save(self) -> bytes:
        """See :class:`persona.pretrain.learning.Objective`."""
        return self.jedi.save()

    def loss(self, slots: Sequence[int], total: int) -> Tensor:
        """See :class:`persona.methods.Method`."""
        step = slots[0] // total
        pictures = int(default_rng((self.seed, 5, step)).choice(self._sizes))
        random = default_rng((self.seed, 1, step))
        known = int(random.integers(pictures))
        several = known < pictures - 1
        together = several and bool(random.random() < (WITH_REFERENCES if known else TOGETHER))
        drawn = [self._draw(slot, pictures, known, together) for slot in slots]
        latents, noise, when, prompts, places = zip(*drawn, strict=True)
        told = [prompt for one in prompts for prompt in one]
        shown = Drawn(
            torch.stack(latents), torch.stack(noise), torch.stack(when), told, known, together, torch.stack(places)
        )
        new = ~_repeated(shown.latents)[:, known:]
        weights = (new / new.sum(1, keepdim=True).clamp(min=1)).to(self.jedi.base.device)
        return (self.jedi.loss(shown) * weights).sum() / total

    def _draw(
        self, slot: int, pictures: int, known: int, together: bool
    ) -> tuple[Tensor, Tensor, Tensor, list[str], Tensor]:
        """Return a set's latents and noise (pictures, C, h, w), times (pictures,), prompts and emphasis."""
        large = self._of[pictures]
        place, random, generator = lot(slot, len(large), self.seed)
        number = int(large[place])
        latents, captions = self.sets.latents(number), self.sets.captions(number, random)
        order = random.permutation(len(latents))[:pictures]
        prompts = [captions[one] for one in order]
        for one in range(known):
            if random.random() < PLAIN:
                prompts[one] = f"a photo of {any_of(self.sets.noun(number))}"
        if random.random() < TEXT_DROPPED:
            prompts[known:] = [""] * (len(order) - known)
        alike = together or self.jedi.renoised
        when = times(self.jedi.base.noise, 1 if alike else len(order), generator).expand(len(order))
        chosen, grid = torch.from_numpy(order), (latents.shape[-2], latents.shape[-1])
        noise = torch.randn(latents[chosen].shape, generator=generator)
        return latents[chosen], noise, when, prompts, emphasis(self.sets.masks(number, grid)[chosen])

    def show(self) -> Image.Image:
        """Draw the last picture of some sets from one of the others, from all of them, and one set from nothing."""
        jedi, sets = self.jedi, self.sets
        rows = []
        for number in range(self._learning, len(sets)):
            *prompts, prompt = sets.captions(number, default_rng((self.seed, 4, number)))
            latents = sets.latents(number)
            pictures = [(picture, "reference") for picture in jedi.base.decode_latents(latents[:-1])]
            pictures.append((jedi.base.decode_latents(latents[-1:])[0], "asked for"))
            for known in sorted({1, len(prompts)}):
                references = References(latents[:known], prompts[:known])
                pictures.append((jedi.draw([prompt], [number], references=references)[0], f"of {known}"))
            rows.append(Row(prompt, pictures))
        prompts = [f"a photo of {any_of(sets.noun(0))}"] * max(sets.sizes)
        together = jedi.draw(prompts, range(len(prompts)), together=True)
        return sheet([*rows, Row(f"{prompts[0]}, together", [(picture, "") for picture in together])])


def _repeated(latents: Tensor) -> Tensor:
    """Return which pictures (sets, pictures) are in their set (sets, pictures, C, h, w) more than once."""
    spread = (latents - latents.mean((-2, -1), keepdim=True)).flatten(2)
    unit = torch.nn.functional.normalize(spread, dim=2)
    alike = unit @ unit.mT
    return (alike - 2 * torch.eye(latents.shape[1])).amax(2) > SAME
