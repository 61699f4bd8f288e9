"""Drawing with references: the base's own sampler, led by the references and by the prompt apart."""

import inspect
from collections.abc import Callable, Sequence

import torch
from PIL.Image import Image
from torch import Generator, Tensor

from persona.families import Conditioning, Family

IMAGE_GUIDANCE, IMAGE_GUIDANCE_OF_TWO = 3.0, 5.0
"""Towards the references of one subject, and of two. The papers name none; on clay identity is higher at 3 than at 1.5,
and two subjects, each of which is small, are known again more often at 5 and more. At 7.5 shapes fall apart."""
Say = Callable[[Tensor, Tensor, float], Tensor]
"""Returns the guided prediction for noisy latents (B, C, h, w) at times (B,), the prompt followed so strongly."""


def guide(
    nothing: Tensor, shown: Tensor, asked: Tensor, *, image: float | Tensor, text: float, balanced: bool
) -> Tensor:
    """Lead a prediction towards the references and towards the prompt, each with its own strength.

    ``e(0, 0) + image (e(0, refs) - e(0, 0)) + text (e(prompt, refs) - e(0, refs))`` (Brooks et al., 2211.09800, eq. 3,
    its order turned). Balanced, what leads on from ``e(0, refs)``, by ``image - 1`` and ``text``, are these differences
    with the longer one cut to the length of the shorter, so that neither drowns the other (SynCD; Kumari et al.,
    2502.01720).

    Args:
        nothing: what the denoiser says without references and prompt, (B, C, h, w).
        shown: with references.
        asked: with both.
        image: 1 leads no further than the references themselves do; one for all, or for each picture (B, 1, 1, 1).
        text: likewise, of the prompt.
        balanced: whether the lengths are balanced.
    """
    seen, read = shown - nothing, asked - shown
    if balanced:
        lengths = [difference.flatten(1).norm(dim=1) for difference in (seen, read)]
        least = torch.minimum(*lengths)
        tiny = torch.finfo(least.dtype).tiny
        seen, read = (
            difference * (least / length.clamp_min(tiny)).view(-1, 1, 1, 1)
            for difference, length in zip((seen, read), lengths, strict=True)
        )
    return shown + (image - 1) * seen + text * read


def towards_prompt(base: Family, guidance: float | None) -> float:
    """Return how strongly a prompt is followed: the recipe's when left out, and never less than by the prompt alone.

    Diffusers guides from 1 on, so that less is as much as that wherever the base itself draws.
    """
    return max(1.0, base.recipe.guidance if guidance is None else guidance)


def unless_empty(
    prompts: Sequence[str], read: Conditioning, unwanted: Callable[[str, Conditioning], Conditioning]
) -> Conditioning:
    """Return how prompts were read, and for the empty ones what guidance will lead away from."""
    if all(prompts):
        return read
    nothing = unwanted("", read)
    full = torch.tensor([bool(prompt) for prompt in prompts], device=next(iter(read.values())).device)
    return {key: torch.where(full.view(-1, *[1] * (part.dim() - 1)), part, nothing[key]) for key, part in read.items()}


def at_a_time(size: tuple[int, int]) -> int:
    """Return how many pictures of that width and height, in pixels, are drawn at a time: each is two or three rows."""
    return max(1, Family.batch_of(size) // 2)


def denoise(
    base: Family,
    noise: Tensor,
    generators: Sequence[Generator],
    steps: int,
    say: Say,
    *,
    guidance: float | None,
    then: Say | None = None,
    switch: float = 1.0,
) -> Tensor:
    """Run the base's sampler from noise to latents.

    Args:
        base: whose sampler it is.
        noise: standard normal, (B, C, h, w), float32.
        generators: one a row, for samplers that add noise on the way.
        steps: of the sampler.
        say: tells at each of them where to go.
        guidance: towards the prompt, from where the recipe starts it; the recipe's when left out.
        then: tells it after the switch.
        switch: share of the steps after which that is, from 0 to 1: at these ends only the one or the other is heard.

    Returns:
        Latents (B, C, h, w), float32, on the base's device.
    """
    sampler = base.sampler()
    sampler.set_timesteps(steps, device=base.device)
    own = {"generator": list(generators)} if "generator" in inspect.signature(sampler.step).parameters else {}
    latents: Tensor = noise.to(base.device) * sampler.init_noise_sigma
    strength = towards_prompt(base, guidance)
    for number, time in enumerate(sampler.timesteps):
        share = 1.0 if then is None else heard(switch, number, len(sampler.timesteps))
        text = strength if base.guided(number, len(sampler.timesteps)) else 1.0
        rows = sampler.scale_model_input(latents, time), time.expand(len(latents)), text
        said = say(*rows) if share else torch.zeros_like(latents)
        if then is not None and share < 1:
            said = share * said + (1 - share) * then(*rows)
        latents = sampler.step(said, time, latents, **own).prev_sample
    return latents


def heard(switch: float, number: int, steps: int) -> float:
    """Return the share, from 0 to 1, that the first of two is heard with in a step, as it gives way to the second.

    The paper switches from one step to the next. Here it takes as many steps as there are, a crossover that moves with
    the switch from beyond the one end to beyond the other: the shorter it is, the farther a series leaps on clay.
    """
    return min(1.0, max(0.0, (switch * (2 * steps - 1) - number) / steps))


def draw(
    base: Family,
    seeds: Sequence[int],
    *,
    size: tuple[int, int],
    steps: int | None,
    guidance: float | None,
    batch: int | None,
    told: Callable[[slice], Say],
) -> list[Image]:
    """Draw a picture for each seed, so many at a time.

    Args:
        base: whose sampler it is.
        seeds: of the pictures.
        size: width and height in pixels.
        steps: of the sampler; the recipe's when left out.
        guidance: towards the prompt, as for :func:`denoise`.
        batch: pictures at a time; by their size when left out.
        told: returns what says where to go, for some of the pictures.

    Raises:
        BadBase: a picture is not finite.
    """
    drawn: list[Image] = []
    batch = batch or at_a_time(size)
    for first in range(0, len(seeds), batch):
        part = slice(first, first + batch)
        generators = [Generator().manual_seed(seed) for seed in seeds[part]]
        noise = base.initial_noise(generators, size)
        latents = denoise(base, noise, generators, steps or base.recipe.sample_steps, told(part), guidance=guidance)
        drawn += base.decode_latents(latents)
    return drawn
