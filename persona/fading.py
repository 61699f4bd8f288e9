"""Series from a subject to what the text alone shows, or to another subject (Subject-Diffusion's interpolation).

The first steps of a picture are drawn with the subject, the last by the base as it is without; between them the one
gives way to the other. Where it does so moves the picture from the one end to the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from persona.config import InterpolateConfig
from persona.drawing import Size, size_of
from persona.errors import BadOption
from persona.events import Listener
from persona.families import Family
from persona.placing import named, plain
from persona.portraits import Portrayed, portray
from persona.prompts import tell_cut, tell_unknown
from persona.sample import drawn_with


@dataclass(frozen=True)
class Fade:
    """All that a frame is drawn from."""

    seen: Portrayed
    prompts: tuple[str, str]
    config: InterpolateConfig
    size: Size

    @property
    def base(self) -> Family:
        """The base that draws."""
        return self.seen.method.base

    @property
    def facts(self) -> dict[str, str]:
        """What the frames are drawn from, for them to carry."""
        told = {"prompts": " | ".join(self.config.prompts), "seeds": str(self.config.seeds[0])}
        return {**told, **drawn_with(self.config, self.base, self.size), **self.seen.facts}

    def draw(self, places: Sequence[float]) -> list[Image.Image]:
        """Draw the frames at these places."""
        return [
            self.seen.method.between(
                self.prompts,
                self.config.seeds[0],
                place,
                portraits=self.seen.portraits,
                image_guidance=self.seen.guidance,
                steps=self.config.steps,
                guidance=self.config.guidance,
                negative=self.config.negative,
                size=self.size,
            )
            for place in places
        ]


def ends(config: InterpolateConfig) -> tuple[str, str]:
    """Return the prompts of both ends: of one prompt, it and what it says without its subjects.

    Raises:
        BadOption: they are the same.
    """
    first, last = config.prompts if len(config.prompts) == 2 else (config.prompts[0], plain(config.prompts[0]))
    if first == last and named(first):
        raise BadOption("There is nothing to go between. Give two prompts, or one with a subject.")
    return first, last


def fade(config: InterpolateConfig, listener: Listener) -> Fade:
    """Look at the subjects, and get ready to draw.

    Raises:
        PersonaError: as by :func:`persona.portraits.portray` and :func:`ends`.
    """
    prompts = ends(config)
    about = [prompt for prompt in prompts if named(prompt)]
    seen = portray(config, about or prompts, listener)
    method = seen.method
    read = [method.spoken(prompt) for prompt in prompts]
    tell_cut(method.base, read, listener)
    tell_unknown(method.base, read, method.fusion.words, listener)
    return Fade(seen, prompts, config, size_of(method.base, config.resolution))
