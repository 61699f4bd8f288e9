"""Series between two prompts, seeds or personas, or base and persona: what moves is what was given twice.

Prompts move between their embeddings and seeds between their noises, on the sphere, where both keep the lengths that
the network knows. Personas move in the space of the weights themselves, by the sum of their products ``B A``: a mean of
the factors would multiply the one's A with the other's B.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Generator

from persona import adapter
from persona.between import between, mix, slerp
from persona.config import InterpolateConfig
from persona.drawing import Size, size_of
from persona.errors import BadOption, BadPersona, BadPrompt
from persona.events import Listener
from persona.families import Family
from persona.folder import Persona
from persona.identity import fill, renamed
from persona.placing import named
from persona.prompts import tell_cut, tell_unknown
from persona.sample import drawn_with
from persona.sitters import base_of, facts_of, spoken, wear

_NAMES = ("first", "second")  # what the adapters of the personas are called


@dataclass(frozen=True)
class Move:
    """All that a frame is drawn from, at both of its ends; what does not move is the same at both."""

    base: Family
    personas: Sequence[Persona]
    prompts: tuple[str, str]
    negative: str
    seeds: tuple[int, int]
    strengths: tuple[dict[str, float], dict[str, float]]
    config: InterpolateConfig
    size: Size

    @property
    def facts(self) -> dict[str, str]:
        """What the frames are drawn from, for them to carry; of two personas both are told."""
        worn = [facts_of(persona, scale=self.config.scale) for persona in self.personas]
        return {
            "prompts": " | ".join(self.config.prompts),
            "seeds": " ".join(map(str, self.config.seeds)),
            **drawn_with(self.config, self.base, self.size),
            **{key: " | ".join(one[key] for one in worn) for key in (worn[0] if worn else ())},
        }

    def wear(self, place: float) -> None:
        """Set the strengths of the adapters at a place.

        Raises:
            BadOption: an adapter has none there.
        """
        start, end = self.strengths
        if start:
            adapter.scale(self.base, {name: mix(start[name], end[name], place) for name in start})

    @torch.no_grad()
    def draw(self, places: Sequence[float]) -> list[Image.Image]:
        """Draw the frames at these places."""
        if self.strengths[0] == self.strengths[1]:
            return self._draw(places)
        return [frame for place in places for frame in self._draw([place])]  # the base wears one strength at a time

    def _draw(self, places: Sequence[float]) -> list[Image.Image]:
        self.wear(places[0])
        noise = self.base.initial_noise([Generator().manual_seed(seed) for seed in self.seeds], self.size)
        frames: list[Image.Image] = self.base.draw(
            [self.prompts[0]] * len(places),
            [self.seeds[0]] * len(places),  # of noise that is added on the way, where the sampler is an ancestral one
            steps=self.config.steps,
            guidance=self.config.guidance,
            negative=self.negative,
            size=self.size,
            conditioning=between(self.base.conditioning(self.prompts), places),
            latents=torch.stack([slerp(noise[0].flatten(), noise[1].flatten(), at).view_as(noise[0]) for at in places]),
            batch=self.config.batch,
        )
        return frames


def worn(config: InterpolateConfig) -> list[Persona]:
    """Open the personas of a series: at most two, and of one base.

    Raises:
        BadPersona: one is missing or damaged, or they were made for different bases.
    """
    if config.persona:
        personas = [Persona.open(path) for path in config.persona]
    else:
        personas = [] if config.base else [Persona.newest()]
    for persona in personas[1:]:
        if persona.base_hash != personas[0].base_hash:
            raise BadPersona(f"{persona.path} and {personas[0].path} were made for different bases. Train both on one.")
    return personas


def ends(config: InterpolateConfig, personas: list[Persona]) -> tuple[str, str]:
    """Name the two ends, by what moves.

    Raises:
        BadOption: nothing does.
    """
    paths = [persona.path.resolve() for persona in personas]
    for flag, given in (("PROMPTS", config.prompts), ("--persona", paths), ("--seed", config.seeds)):
        if len(given) == 2 and given[0] == given[1]:
            raise BadOption(f"There is nothing to go between: both {flag} are the same. Give two that differ, or one.")
    if len(config.prompts) == 2:
        return config.prompts[0], config.prompts[1]
    if len(personas) == 2 and config.scale != 0:
        return paths[0].name, paths[1].name
    if len(config.seeds) == 2:
        return f"seed {config.seeds[0]}", f"seed {config.seeds[1]}"
    if personas and config.scale != 0:
        return "the base", paths[0].name
    raise BadOption(
        "There is nothing to go between. Give two prompts, two --seed, or a --persona with a --scale above 0."
    )


def move(config: InterpolateConfig, personas: list[Persona], listener: Listener) -> Move:
    """Load the base and what it wears, and get ready to draw.

    Raises:
        PersonaError: as by :func:`persona.interpolate.interpolate`.
    """
    prompts, negative = _prompts(config, personas, listener), _negative(config, personas, listener)
    base = base_of(personas[0] if personas else None, config.base, listener, negative=config.negative)
    for name, persona in zip(_NAMES, personas, strict=False):
        wear(base, persona, name=name)
    tell_cut(base, prompts, listener)
    tell_unknown(base, prompts, [persona.token for persona in personas], listener)
    seeds = config.seeds[0], config.seeds[-1]
    size = size_of(base, config.resolution)
    moving = Move(base, personas, prompts, negative, seeds, _strengths(config, personas), config, size)
    moving.wear(1 / (config.frames - 1))  # what has no strength between is refused before anything is drawn
    return moving


def _prompts(config: InterpolateConfig, personas: list[Persona], listener: Listener) -> tuple[str, str]:
    """Fill in the token of the persona at each end, and its class noun where one prompt stands for both."""
    first, second = config.prompts[0], config.prompts[-1]
    start, end = (personas[0], personas[-1]) if personas else (None, None)
    if start and end and len(config.prompts) == 1:
        second = renamed(second, start.class_noun, end.class_noun)
    filled = [spoken(first, start, listener)]
    if (second, end) != (first, start):
        filled.append(spoken(second, end, listener))
    return filled[0], filled[-1]


def _negative(config: InterpolateConfig, personas: list[Persona], listener: Listener) -> str:
    """Fill in the token of the persona in what the frames shall not show."""
    if "V" not in named(config.negative):
        return config.negative
    if len(personas) != 1:
        raise BadPrompt("[V] in --negative stands for the subject of one persona. Give one --persona, or leave it out.")
    return fill(config.negative, personas[0].token, personas[0].class_noun, listener)


def _strengths(config: InterpolateConfig, personas: list[Persona]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the strength of each adapter at both ends."""
    full = [persona.recommended_scale if config.scale is None else config.scale for persona in personas]
    if len(personas) == 2:
        return {"first": full[0], "second": 0.0}, {"first": 0.0, "second": full[1]}
    end = dict(zip(_NAMES, full, strict=False))
    moves_otherwise = len(config.prompts) == 2 or len(config.seeds) == 2
    return (end if moves_otherwise else dict.fromkeys(end, 0.0)), end
