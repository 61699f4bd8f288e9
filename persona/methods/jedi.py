"""JeDi (Zeng et al., 2407.06187): pictures of a subject out of other pictures of it, without training on any.

The network learns the joint distribution of sets of pictures that share a subject; drawing completes such a set. All
pictures of a set attend to each other in every self-attention layer, each is told its own prompt. What is known of a
set, the references, is fed clean at time 0, with a copy and a mask in input channels of its own.

No code or weights of the paper were released, and it leaves open how references are fed. Clean ones do not depend on
the picture that is being drawn: their keys and values are computed once, so that a step costs as much as without them
but for a wider attention.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL.Image import Image
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from persona.families import Conditioning, Family
from persona.methods.channels import Channels, first_convolution
from persona.methods.coupling import Coupling, Memory, masked
from persona.methods.difference import Difference
from persona.methods.guidance import IMAGE_GUIDANCE, Say, at_a_time, draw, guide, unless_empty
from persona.methods.weights import Store
from persona.noise import squared_error

TARGETS = ("attn1",)
"""Modules that differ from the base's: the self-attention, which is what couples."""
STORE = Store("JeDi", "jedi", frozenset({"targets", "renoised"}))


@dataclass(frozen=True)
class Sets:
    """Sets of pictures to learn from, and what is drawn for them.

    Attributes:
        latents: clean, (sets, pictures, C, h, w), float32.
        noise: of the same shape.
        times: (sets, pictures), as the denoiser expects them; those of references only count if they are re-noised.
        prompts: one a picture, set after set.
        known: how many pictures of each set are references; they come first.
        together: whether the others attend to each other too, or only to the references.
        emphasis: how much each place counts, (sets, pictures, h, w); ``None`` if all count alike.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    prompts: Sequence[str]
    known: int
    together: bool
    emphasis: Tensor | None = None


@dataclass(frozen=True)
class References:
    """What is known of a subject.

    Attributes:
        latents: clean, (references, C, h, w), float32.
        prompts: what each shows.
        masks: (references, h, w), not zero where the subject is; ``None`` to see all of the pictures.
    """

    latents: Tensor
    prompts: Sequence[str]
    masks: Tensor | None = None


class JeDi:
    """A U-Net base whose pictures see each other.

    Attributes:
        base: predicts as it did before wherever pictures are alone and nothing was learnt yet.
        renoised: whether references are noised to the time of the pictures that see them, instead of fed clean.
    """

    def __init__(self, base: Family, targets: Sequence[str] = TARGETS, *, renoised: bool = False) -> None:
        """Join coupled attention, new input channels and a difference to the weights of a base.

        Args:
            base: stays so until :meth:`remove`.
            targets: modules whose weights may differ from the base's, by the end of their names.
            renoised: see the class.

        Raises:
            BadBase: it is no U-Net, or packed.
            BadOption: it has no module of these names.
        """
        first = first_convolution(base, STORE.title)
        self.base, self.targets, self.renoised = base, tuple(targets), renoised
        self.difference = Difference(base.denoiser, targets)
        self.channels = Channels(first, first.in_channels + 1)
        self.coupling = Coupling(base.denoiser)

    def remove(self) -> None:
        """Leave the base as it was."""
        self.coupling.remove()
        self.channels.remove()
        self.difference.remove()

    # Weights

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What learns: the parameters of these that ask for a gradient."""
        return {"denoiser": self.base.denoiser, "channels": self.channels}

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All that was learnt, by name."""
        named = {f"denoiser.{name}": parameter for name, parameter in self.difference.parameters.items()}
        return {**named, "channels": self.channels.weight}

    def save(self) -> bytes:
        """Return the difference to the base as the bytes of a safetensors file, in float16."""
        return STORE.write(self.base, {"targets": self.targets, "renoised": self.renoised}, self.parameters)

    @classmethod
    def load(cls, base: Family, folder: Path | None = None) -> Self:
        """Join what was learnt to the base that it was learnt on.

        Args:
            base: see the class.
            folder: with the weights; beside the base's own when left out.

        Raises:
            BadBase: there are none, or they are damaged or another base's. The base stays as it was.
        """
        return STORE.load(base, folder, lambda made: cls(base, made["targets"], renoised=made["renoised"]))

    # Learning

    def loss(self, sets: Sets) -> Tensor:
        """Return the mean squared error of each missing picture, (sets, pictures - known), with a gradient."""
        known, base = sets.known, self.base
        latents, noise, times = (part.to(base.device) for part in (sets.latents, sets.noise, sets.times))
        conditioning = self._told(sets.prompts)
        numbers = torch.arange(times.numel(), device=base.device).view(times.shape)

        def rows(chosen: slice) -> tuple[Tensor, Tensor, Tensor, Conditioning]:
            row = numbers[:, chosen].flatten()
            told = {key: value[row] for key, value in conditioning.items()}
            return latents.flatten(0, 1)[row], noise.flatten(0, 1)[row], times.flatten()[row], told

        memory = self._refer(*rows(slice(known)), size=known) if known else {}
        x, eps, when, told = rows(slice(known, None))
        noisy, target = base.noise.corrupt(x, eps, when)
        with self.coupling.recalling(memory, size=times.shape[1] - known if sets.together else 1):
            said = base.predict(noisy, when, told)
        emphasis = None if sets.emphasis is None else sets.emphasis[:, known:].flatten(0, 1).to(base.device)
        return squared_error(said, target, emphasis).view(len(times), -1)

    def _told(self, prompts: Sequence[str]) -> Conditioning:
        """Return the conditioning of prompts, one row each; of none, what guidance will lead away from."""
        read = self.base.conditioning(prompts)
        return unless_empty(prompts, read, self.base.unwanted)

    def _refer(self, x: Tensor, noise: Tensor, times: Tensor, conditioning: Conditioning, *, size: int) -> Memory:
        """Return what there is to see of references (rows, C, h, w), ``size`` of a set one after the other."""
        if self.renoised:
            noisy, _ = self.base.noise.corrupt(x, noise, times)
        else:
            noisy, times = x, torch.zeros_like(times)
        known = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        with self.coupling.keeping(size) as memory, self.channels.given(known):
            self.base.predict(noisy, times, conditioning)
        return memory

    # Drawing

    batch_of = staticmethod(at_a_time)

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        references: References | None = None,
        together: bool = False,
        steps: int | None = None,
        guidance: float | None = None,
        image_guidance: float = IMAGE_GUIDANCE,
        balanced: bool = False,
        negative: str = "",
        size: tuple[int, int] | None = None,
        batch: int | None = None,
    ) -> list[Image]:
        """Draw one picture for each pair of prompt and seed.

        Args:
            prompts: as the text encoder shall read them.
            seeds: one a prompt; unless drawn together, prompt, seed and references alone make the picture.
            references: of the subject; without any, it is one that the network makes up.
            together: whether all of these pictures show one subject, whatever their prompts.
            steps: of the sampler; the recipe's when left out.
            guidance: towards the prompt; the recipe's when left out.
            image_guidance: towards the references; 1 is none, and takes a third less time.
            balanced: see :func:`persona.methods.guidance.guide`; counts where there are references.
            negative: what guidance leads away from.
            size: width and height in pixels; the base's own resolution when left out.
            batch: pictures at a time; by their size when left out.

        Raises:
            BadBase: a picture is not finite.
        """
        base = self.base
        size = size or (base.resolution, base.resolution)
        lead = {
            "image": image_guidance if references else 1.0,
            "balanced": balanced and references is not None,  # there is nothing else to balance the prompt with
        }

        def told(part: slice) -> Say:
            wanted = base.conditioning(prompts[part])
            return self._guided([base.unwanted(negative, wanted), wanted], references, lead, together=together)

        with parametrize.cached():  # what the weights add up to is worked out once
            many = len(prompts) if together else batch
            return draw(base, seeds, size=size, steps=steps, guidance=guidance, batch=many, told=told)

    def _guided(
        self, told: list[Conditioning], references: References | None, lead: dict[str, Any], *, together: bool
    ) -> Say:
        """Return what says, for noisy latents and times, where to go: in one pass of two or three rows a picture."""
        apart = lead["image"] != 1 or lead["balanced"]
        branches = [told[0], *told] if apart else told
        conditioning = {key: torch.cat([branch[key] for branch in branches]) for key in told[0]}
        recall = self._recall(references)

        def say(noisy: Tensor, times: Tensor, text: float) -> Tensor:
            size = len(noisy) if together else 1
            memory = recall(times[:1])
            with self.coupling.recalling(memory, size=size, blind=len(noisy) // size if apart else 0):
                rows = noisy.repeat(len(branches), 1, 1, 1), times.repeat(len(branches))
                said = self.base.predict(*rows, conditioning).chunk(len(branches))
            return guide(said[0], said[-2], said[-1], text=text, **lead)

        return say

    def _recall(self, references: References | None) -> Callable[[Tensor], Memory]:
        """Return what gives the memory of references at a time, (1,): always the same unless they are re-noised."""
        if references is None:
            return lambda time: {}
        latents = references.latents.to(self.base.device)
        noise = torch.randn(latents.shape, generator=Generator().manual_seed(0)).to(self.base.device)
        conditioning = self.base.conditioning(references.prompts)

        def refer(time: Tensor) -> Memory:
            times = time.long().expand(len(latents))
            memory = self._refer(latents, noise, times, conditioning, size=len(latents))
            return memory if references.masks is None else masked(memory, references.masks.to(self.base.device))

        if self.renoised:
            return refer
        memory = refer(torch.zeros(1, device=self.base.device))
        return lambda time: memory
