"""DreamBooth (Ruiz et al., 2208.12242): a rare word learns to mean the subject, and the class stays what it was.

The loss is the paper's equation 2 with its halves side by side,

    mean_i w_t ||predict(z_t, t, c) - target||^2  +  lambda * mean_j w_t' ||predict(z'_t', t', c') - target'||^2,

where each example has its own time and noise. What differs between the kinds of prior preservation is only where the
second half comes from: pictures of the class with the usual target, or the photos themselves, called by the bare class
noun, with what the untouched base says of them as their target.

Of a photo that was cut out, the mean goes over the places where its subject is: what is transparent is not learnt.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor
from torch.nn.functional import adaptive_avg_pool2d

from persona import adapter
from persona.events import Listener, Progress, silent
from persona.families import Family
from persona.identity import bare, mentions
from persona.noise import squared_error
from persona.photos import Photo, buckets, crops, masks
from persona.placing import plain


@dataclass(frozen=True)
class Example:
    """A picture to learn from.

    Attributes:
        latents: of its crops and their mirror images, (variants, C, h, w), float32, on the base's device.
        prompt: what it shows.
        emphasis: how much each place counts, (variants, h, w), 1 in the mean; ``None`` if all count alike.
    """

    latents: Tensor
    prompt: str
    emphasis: Tensor | None = None


@dataclass(frozen=True)
class Half:
    """One of the sums of the loss.

    Attributes:
        examples: drawn in turn, in an order that is shuffled anew for each round.
        weight: how much the sum counts.
        taught: whether the target is what the base says without its adapter.
    """

    examples: Sequence[Example]
    weight: float = 1.0
    taught: bool = False


@dataclass(frozen=True)
class Draw:
    """An example at a time and with noise of its own: one term of the loss.

    Attributes:
        x: clean latents (C, h, w).
        eps: noise of the same shape.
        time: (1,), as the denoiser expects it.
        prompt: what the picture shows.
        half: that it is drawn from.
        emphasis: how much each place counts, (h, w); ``None`` if all count alike.
    """

    x: Tensor
    eps: Tensor
    time: Tensor
    prompt: str
    half: Half
    emphasis: Tensor | None = None


class DreamBooth:
    """The loss of a run."""

    def __init__(self, base: Family, halves: Sequence[Half], *, gamma: float = 0.0, seed: int = 0) -> None:
        """Take what is learnt from.

        Args:
            base: with its adapter attached by the time that a loss is asked for.
            halves: the subject, and what preserves its class.
            gamma: of the min-SNR weighting; 0 weighs all times alike.
            seed: of everything that is drawn.
        """
        self.base, self.halves, self.gamma, self.seed = base, halves, gamma, seed

    @property
    def prompts(self) -> list[str]:
        """Every prompt that will be needed, each once."""
        return list(dict.fromkeys(example.prompt for half in self.halves for example in half.examples))

    def loss(self, slots: Sequence[int], total: int) -> Tensor:
        """Return what these slots contribute to the loss of a step; see :class:`persona.methods.Method`."""
        drawn = self.draws(slots)
        shapes = dict.fromkeys(draw.x.shape for draw in drawn)  # pictures of one shape go through the network at once
        parts = [self._weighted([draw for draw in drawn if draw.x.shape == shape]) for shape in shapes]
        return torch.stack(parts).sum() / total

    def draws(self, slots: Sequence[int]) -> list[Draw]:
        """Return what these slots draw: all of the first half, then all of the second."""
        return [self._draw(half, number, slot) for number, half in enumerate(self.halves) for slot in slots]

    def _draw(self, half: Half, number: int, slot: int) -> Draw:
        rounds, place = divmod(slot, len(half.examples))
        example = half.examples[_shuffled(len(half.examples), _seed(self.seed, number, "round", rounds))[place]]
        random = Generator().manual_seed(_seed(self.seed, number, "slot", slot))
        variant = int(torch.randint(len(example.latents), (), generator=random))
        time = self.base.noise.times(1, random)
        return Draw(
            example.latents[variant],
            torch.randn(example.latents.shape[1:], generator=random),
            time,
            example.prompt,
            half,
            None if example.emphasis is None else example.emphasis[variant],
        )

    def _weighted(self, drawn: Sequence[Draw]) -> Tensor:
        """Return the sum of the weighted errors of examples of one shape."""
        device = self.base.device
        x = torch.stack([draw.x for draw in drawn])
        eps = torch.stack([draw.eps for draw in drawn]).to(device)
        times = torch.cat([draw.time for draw in drawn]).to(device)
        share = torch.tensor([draw.half.weight for draw in drawn]).to(device)
        noisy, target = self.base.noise.corrupt(x, eps, times)
        prompts = [draw.prompt for draw in drawn]
        taught = [row for row, draw in enumerate(drawn) if draw.half.taught]
        if taught:
            rows = slice(taught[0], taught[-1] + 1)  # a half's examples lie together
            target = target.clone()
            target[rows] = self._teach(noisy[rows], times[rows], prompts[rows])
        said = self.base.predict(noisy, times, self.base.conditioning(prompts))
        errors = squared_error(said, target, _emphasis(drawn))
        return (errors * self.base.noise.weights(times, self.gamma) * share).sum()

    @torch.no_grad()
    def _teach(self, noisy: Tensor, times: Tensor, prompts: Sequence[str]) -> Tensor:
        with adapter.off(self.base):
            return self.base.predict(noisy, times, self.base.conditioning(prompts))


def _emphasis(drawn: Sequence[Draw]) -> Tensor | None:
    """Return how much each place of these counts, (rows, h, w); ``None`` if all count alike."""
    if all(draw.emphasis is None for draw in drawn):
        return None
    alike = torch.ones_like(drawn[0].x[0])
    return torch.stack([alike if draw.emphasis is None else draw.emphasis for draw in drawn])


def _seed(*parts: object) -> int:
    """Return a seed that no other parts share, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())


@lru_cache(maxsize=4)
def _shuffled(n: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(n, generator=Generator().manual_seed(seed)).tolist()
    return order


@dataclass(frozen=True)
class Cut:
    """How pictures are brought to the sizes that a base learns from.

    Attributes:
        resolution: side in pixels of the square that has their area.
        crops: of each picture.
        flip: whether each crop is mirrored too.
        seed: of the crops.
    """

    resolution: int
    crops: int = 1
    flip: bool = False
    seed: int = 0


def encode(
    base: Family,
    pictures: Sequence[Photo],
    name: Callable[[Photo], str],
    cut: Cut,
    *,
    stage: str,
    listener: Listener = silent,
) -> list[Example]:
    """Encode pictures once for all.

    Args:
        base: encodes them.
        pictures: each becomes one example, whatever its shape.
        name: gives each its prompt.
        cut: how they are cropped.
        stage: what to call it.
        listener: told how far it is, and which pictures are too small.
    """
    examples: list[Example] = []
    # A bucket's longer side is that of the square times the root of its aspect.
    widest = max(1.0, min(base.recipe.max_aspect_ratio, (base.largest / cut.resolution) ** 2))
    for size, alike in buckets(pictures, cut.resolution, base.granularity, widest, listener).items():
        for picture in alike:
            listener(Progress(stage, len(examples), len(pictures)))
            how = (size, cut.crops, cut.flip, cut.seed)
            pixels, shown = crops(picture, *how), masks(picture, *how)
            random = Generator().manual_seed(_seed(picture.sha256))
            # One large picture's worth at a time: encoding must not need more memory than training.
            parts = torch.split(pixels, base.batch_of(size))
            latents = torch.cat([base.encode_images(part, random) for part in parts])
            examples.append(Example(latents, name(picture), None if shown is None else _counted(shown, latents)))
    listener(Progress(stage, len(pictures), len(pictures)))
    return examples


def _counted(shown: Tensor, latents: Tensor) -> Tensor:
    """Return how much each place of latents (variants, C, h, w) counts, from masks (variants, H, W) of the pictures."""
    small = adaptive_avg_pool2d(shown[:, None], (latents.shape[-2], latents.shape[-1]))[:, 0].to(latents.device)
    share = small.mean((-2, -1), keepdim=True)
    return torch.where(share > 0, small / share.clamp(min=torch.finfo(share.dtype).tiny), 1.0)  # an empty crop is whole


def without(token: str, class_noun: str, examples: Sequence[Example]) -> list[Example]:
    """Return the same pictures called by their class noun alone, with the article that it needs.

    A prompt that did without the noun gets it in the place of the token, which else would leave no class to hold.
    """
    own = rf"(?={re.escape(class_noun)})" if token in class_noun.split() else ""  # the noun keeps its own words
    word = re.compile(rf"(?<!\w){re.escape(token)}(?!\w)\s*{own}")

    def called(prompt: str) -> str:
        slotted = word.sub("[V] ", prompt)
        return plain(slotted) if mentions(slotted, class_noun) else bare(slotted, class_noun)

    return [Example(example.latents, called(example.prompt)) for example in examples]
