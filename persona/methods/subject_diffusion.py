"""Subject-Diffusion (Ma et al., 2307.11410): subjects of one reference each, where you want them, without training.

A U-Net is told of one or two subjects in three ways: what a reference shows as a whole stands in the prompt, in the
place of a word (:mod:`persona.methods.fusion`); its details are seen by every transformer block, with the box where
they belong (:mod:`persona.methods.gated`); and an input channel is one inside the boxes. Attention control keeps the
subjects apart while it learns (:mod:`persona.methods.attention_control`).

The paper trains the text encoder too. Here its linear layers have changed weights for prompts that speak of subjects,
and their own for all others, such as the empty one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Generator, Tensor

from persona.methods.attention_control import control
from persona.methods.casting import Cast, Portrait, cast
from persona.methods.fusion import words_of
from persona.methods.guidance import (
    IMAGE_GUIDANCE,
    IMAGE_GUIDANCE_OF_TWO,
    Say,
    at_a_time,
    denoise,
    draw,
    guide,
    unless_empty,
)
from persona.methods.telling import Telling
from persona.noise import squared_error
from persona.placing import named


@dataclass(frozen=True)
class Scenes:
    """Pictures to learn from.

    Attributes:
        latents: clean, (rows, C, h, w), float32.
        noise: of the same shape.
        times: (rows,), as the denoiser expects them.
        prompts: with the names of their subjects, in the order of the slots; empty where the text was dropped.
        nouns: what the subjects of each are, in the same order.
        cast: who they are, by their references.
        masks: (rows, slots, h, w) in [0, 1], one where each subject is.
        placed: (rows,), false where nothing is said of where they are but by the references themselves.
        emphasis: how much each place counts, (rows, h, w); ``None`` if all count alike.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    prompts: Sequence[str]
    nouns: Sequence[Sequence[str]]
    cast: Cast
    masks: Tensor
    placed: Tensor
    emphasis: Tensor | None = None


class SubjectDiffusion(Telling):
    """Learns from pictures of subjects, and draws them."""

    def loss(self, scenes: Scenes, attention: float) -> Tensor:
        """Return the mean squared error of each picture, (rows,), and that of its attention by its weight.

        They have a gradient.
        """
        base = self.base
        latents, noise, times = (part.to(base.device) for part in (scenes.latents, scenes.noise, scenes.times))
        who, placed = scenes.cast.to(base.device), scenes.placed.to(base.device)
        read = self.read(scenes.prompts, who)
        conditioning = unless_empty(scenes.prompts, read, self.unwanted)
        noisy, target = base.noise.corrupt(latents, noise, times)
        grid = latents.shape[-2], latents.shape[-1]
        with self.told(who, placed, grid), self.maps.keeping() as maps:
            said = base.predict(noisy, times, conditioning)
        wrong = squared_error(said, target, None if scenes.emphasis is None else scenes.emphasis.to(base.device))
        words = self._words(scenes, maps[0].shape[-1]).to(base.device)
        return wrong + attention * control(maps, words, scenes.masks.to(base.device))

    def _words(self, scenes: Scenes, length: int) -> Tensor:
        prompts = [self.spoken(prompt) for prompt in scenes.prompts]
        return words_of(self.base.tokenizers[0], prompts, self.fusion.words, scenes.nouns, length)

    # Drawing

    batch_of = staticmethod(at_a_time)

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        portraits: Mapping[str, Portrait],
        steps: int | None = None,
        guidance: float | None = None,
        image_guidance: float | None = None,
        negative: str = "",
        size: tuple[int, int] | None = None,
        batch: int | None = None,
    ) -> list[Image]:
        """Draw one picture for each pair of prompt and seed; these and the portraits alone make the picture.

        Args:
            prompts: with the names of their subjects, ``[V]``; one or two in each.
            seeds: one a prompt.
            portraits: of the subjects, by their names.
            steps: of the sampler; the recipe's when left out.
            guidance: towards the prompt; the recipe's when left out.
            image_guidance: towards the references; 1 is none, and takes a third less time. Left out, it is what suits
                so many subjects as a picture shows.
            negative: what guidance leads away from.
            size: width and height in pixels; the base's own resolution when left out.
            batch: pictures at a time; by their size when left out.

        Raises:
            BadBase: a picture is not finite.
        """
        size = size or (self.base.resolution, self.base.resolution)
        return draw(
            self.base,
            seeds,
            size=size,
            steps=steps,
            guidance=guidance,
            batch=batch,
            told=lambda part: self._guided(prompts[part], portraits, image_guidance, negative),
        )

    @torch.no_grad()
    def between(
        self,
        ends: tuple[str, str],
        seed: int,
        place: float,
        *,
        portraits: Mapping[str, Portrait],
        image_guidance: float | None = None,
        **how: Any,
    ) -> Image:
        """Draw a picture between those of two prompts: its first steps are the one's, which gives way to the other.

        What a prompt without a subject shows is drawn by the base as it was, so that a subject fades into what the
        text alone shows.

        Args:
            ends: the two prompts.
            seed: of both.
            place: where it lies, from 0 to 1; there it is what :meth:`draw`, or the base, draws.
            portraits: of the subjects, by their names.
            image_guidance: towards the references, as for :meth:`draw`.
            how: as for :meth:`persona.families.Family.draw`.

        Raises:
            BadBase: a picture is not finite.
        """
        if place in (0, 1):
            prompts = [ends[int(place)]]
            if named(prompts[0]):
                return self.draw(prompts, [seed], portraits=portraits, image_guidance=image_guidance, **how)[0]
            with self.plainly():
                return self.base.draw(prompts, [seed], **how)[0]
        return self._mixed(ends, seed, place, portraits, image_guidance, **how)

    def _mixed(
        self,
        ends: tuple[str, str],
        seed: int,
        place: float,
        portraits: Mapping[str, Portrait],
        image_guidance: float | None,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        size: tuple[int, int] | None = None,
    ) -> Image:
        base, generators = self.base, [Generator().manual_seed(seed)]
        first, then = (
            self._guided([end], portraits, image_guidance, negative) if named(end) else self._plain(end, negative)
            for end in ends
        )
        noise = base.initial_noise(generators, size or (base.resolution, base.resolution))
        steps = steps or base.recipe.sample_steps
        latents = denoise(base, noise, generators, steps, first, guidance=guidance, then=then, switch=1 - place)
        return base.decode_latents(latents)[0]

    def _guided(
        self, prompts: Sequence[str], portraits: Mapping[str, Portrait], image_guidance: float | None, negative: str
    ) -> Say:
        """Return what says, for noisy latents and times, where to go: in one pass of two or three rows a picture.

        They are told nothing, the subjects, and the subjects and the prompt; the first is left out where it does not
        count.
        """
        known = cast(prompts, portraits).to(self.base.device)
        wanted = self.read(prompts, known)
        image = _strengths(image_guidance, known)
        branches = 2 + bool((image != 1).any())
        told = [self.unwanted(negative, wanted)] * (branches - 1) + [wanted]
        conditioning = {key: torch.cat([one[key] for one in told]) for key in wanted}
        seen = torch.tensor([False, True, True][-branches:], device=self.base.device).repeat_interleave(len(prompts))
        rows = Cast(
            known.features.repeat(branches, 1, 1, 1),
            known.boxes.repeat(branches, 1, 1),
            known.present.repeat(branches, 1) & seen[:, None],
        )

        def tell(noisy: Tensor, times: Tensor, text: float) -> Tensor:
            with self.told(rows, seen, (noisy.shape[-2], noisy.shape[-1])):
                said = self.base.predict(noisy.repeat(branches, 1, 1, 1), times.repeat(branches), conditioning)
            parts = said.chunk(branches)
            return guide(parts[0], parts[-2], parts[-1], image=image, text=text, balanced=False)

        return tell

    def _plain(self, prompt: str, negative: str) -> Say:
        """Return what says where the base as it was would go."""
        with self.plainly():
            wanted = self.base.conditioning([prompt])
        told = self.unwanted(negative, wanted)
        conditioning = {key: torch.cat([told[key], wanted[key]]) for key in wanted}

        def tell(noisy: Tensor, times: Tensor, text: float) -> Tensor:
            with self.plainly():
                nothing, asked = self.base.predict(noisy.repeat(2, 1, 1, 1), times.repeat(2), conditioning).chunk(2)
            return guide(nothing, nothing, asked, image=1.0, text=text, balanced=False)

        return tell


def _strengths(asked: float | None, known: Cast) -> Tensor:
    """Return how strongly the references of each picture are followed, (B, 1, 1, 1)."""
    if asked is not None:
        return torch.full((len(known.present), 1, 1, 1), asked, device=known.present.device)
    two = known.present.sum(1) > 1
    return torch.where(two, IMAGE_GUIDANCE_OF_TWO, IMAGE_GUIDANCE).view(-1, 1, 1, 1)
