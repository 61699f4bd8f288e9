"""Smooth series between two things: two prompts, seeds or personas, base and persona, a subject and what text shows.

What moves is what was given twice. Prompts move between their embeddings and seeds between their noises, on the
sphere, where both keep the lengths that the network knows. Personas move in the space of the weights themselves, by
the sum of their products ``B A``: a mean of the factors would multiply the one's A with the other's B.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from PIL import Image
from torch import Generator

from persona import adapter, film
from persona.atomic import keep
from persona.between import between, even, mix, slerp
from persona.config import InterpolateConfig
from persona.drawing import Size, check_output, processes, save, size_of
from persona.errors import BadOption, BadPersona, BadPrompt
from persona.events import Listener, Note, Progress, silent
from persona.eye import distance
from persona.fading import ends, fade
from persona.families import Family
from persona.folder import Persona, slug
from persona.identity import fill, renamed
from persona.placing import check_single, named
from persona.prompts import tell_cut, tell_unknown
from persona.sample import drawn_with
from persona.sheet import Row, sheet
from persona.sitters import base_of, facts_of, spoken, tell_drawn, wear

ROUNDS = 2
"""Times that frames are drawn anew where the eye wants them; the first puts most right."""
EVEN = 1.25
"""Largest step over the mean step from which frames are drawn anew."""
STRIP = 16
"""Frames on the contact strip."""

_NAMES = ("first", "second")  # what the adapters of the personas are called


@dataclass(frozen=True)
class Frames:
    """A series that was drawn.

    Attributes:
        what: between which two things.
        folder: holds all of it.
        paths: a PNG file for each frame, in their order.
        places: where each frame lies, from 0 (the one thing) to 1 (the other).
        distances: how different each frame looks from the one before.
        strip: frames side by side, in one picture.
        animations: WebP, GIF, and MP4 where it could be written.
        facts: the settings, the personas and the base, as each frame carries them.
    """

    what: str
    folder: Path
    paths: tuple[Path, ...]
    places: tuple[float, ...]
    distances: tuple[float, ...]
    strip: Path
    animations: tuple[Path, ...]
    facts: Mapping[str, str]


class _Series(Protocol):
    """What frames are drawn from."""

    @property
    def base(self) -> Family:
        """The base that draws."""

    @property
    def size(self) -> Size:
        """Width and height of the frames, in pixels."""

    @property
    def facts(self) -> dict[str, str]:
        """What the frames are drawn from, for them to carry."""

    def draw(self, places: Sequence[float]) -> list[Image.Image]:
        """Draw the frames at these places."""


@dataclass(frozen=True)
class _Line:
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
        """See :class:`_Series`; of two personas both are told."""
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


def interpolate(config: InterpolateConfig, listener: Listener = silent) -> Frames:
    """Draw a series of frames from one thing to another, as evenly as the eye sees them.

    Args:
        config: the two things, how many frames, and how to draw them.
        listener: told what moves, and how far it has come.

    Raises:
        BadOption: nothing is given twice, the folder cannot be written to, or there are several processes.
        BadPrompt: a prompt cannot be drawn.
        BadPersona: a persona is missing, damaged, or was made for another base.
        BadBase: the base cannot be found, or is damaged.
        OSError: the disk is full.
    """
    if processes().num_processes > 1:
        raise BadOption("The frames of a series depend on each other. Start interpolate without accelerate launch.")
    check_output(config.out)
    what, line = _series(config, listener)
    config.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".series-", dir=config.out) as part:
        drawn = _drawn(line, config, Path(part, "drawn"), listener)
        frames = _write(" to ".join(what), drawn, line.facts, Path(part, "series"))
        animations = film.write(frames, Path(part, "series"), config.fps, listener)
        folder = keep(Path(part, "series"), config.out / f"{slug(what[0])}-to-{slug(what[1])}")
    return Frames(
        what=" to ".join(what),
        folder=folder,
        paths=tuple(folder / _name(number) for number in range(len(drawn))),
        places=tuple(place for place, _ in drawn),
        distances=tuple(_distances(frames)),
        strip=folder / "strip.png",
        animations=tuple(folder / animation.name for animation in animations),
        facts=line.facts,
    )


def _series(config: InterpolateConfig, listener: Listener) -> tuple[tuple[str, str], _Series]:
    """Name the two ends, and get ready to draw between them."""
    if config.subject:
        what = ends(config)
        listener(Note(f"From {what[0]} to {what[1]}."))
        return what, fade(config, listener)
    check_single(config.prompts)
    personas = _personas(config)
    what = _what(config, personas)
    for persona in personas:
        tell_drawn(persona, listener)
    listener(Note(f"From {what[0]} to {what[1]}."))
    return what, _line(config, personas, listener)


def _personas(config: InterpolateConfig) -> list[Persona]:
    """Open what is drawn: at most two, and of one base."""
    if config.persona:
        personas = [Persona.open(path) for path in config.persona]
    else:
        personas = [] if config.base else [Persona.newest()]
    for persona in personas[1:]:
        if persona.base_hash != personas[0].base_hash:
            raise BadPersona(f"{persona.path} and {personas[0].path} were made for different bases. Train both on one.")
    return personas


def _what(config: InterpolateConfig, personas: list[Persona]) -> tuple[str, str]:
    """Name the two ends, by what moves."""
    worn = [persona.path.resolve() for persona in personas]
    for flag, given in (("PROMPTS", config.prompts), ("--persona", worn), ("--seed", config.seeds)):
        if len(given) == 2 and given[0] == given[1]:
            raise BadOption(f"There is nothing to go between: both {flag} are the same. Give two that differ, or one.")
    if len(config.prompts) == 2:
        return config.prompts[0], config.prompts[1]
    if len(personas) == 2:
        return worn[0].name, worn[1].name
    if len(config.seeds) == 2:
        return f"seed {config.seeds[0]}", f"seed {config.seeds[1]}"
    if personas and config.scale != 0:
        return "the base", worn[0].name
    raise BadOption("There is nothing to go between. Give two prompts, two --seed, or a --persona, not at --scale 0.")


def _line(config: InterpolateConfig, personas: list[Persona], listener: Listener) -> _Line:
    prompts, negative = _prompts(config, personas, listener), _negative(config, personas, listener)
    base = base_of(personas[0] if personas else None, config.base, listener, negative=config.negative)
    for name, persona in zip(_NAMES, personas, strict=False):
        wear(base, persona, name=name)
    tell_cut(base, prompts, listener)
    tell_unknown(base, prompts, [persona.token for persona in personas], listener)
    seeds = config.seeds[0], config.seeds[-1]
    size = size_of(base, config.resolution)
    line = _Line(base, personas, prompts, negative, seeds, _strengths(config, personas), config, size)
    line.wear(1 / (config.frames - 1))  # what has no strength between is refused before anything is drawn
    return line


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


def _drawn(line: _Series, config: InterpolateConfig, folder: Path, listener: Listener) -> list[tuple[float, Path]]:
    """Draw the frames, evenly spaced, and return their places and files."""
    number = config.frames
    known: dict[float, Path] = {}
    folder.mkdir()

    def draw(places: Sequence[float], stage: str) -> None:
        wanted = [place for place in places if place not in known]
        at_once = config.batch or line.base.batch_of(line.size)
        for first in range(0, len(wanted), at_once):
            part = wanted[first : first + at_once]
            listener(Progress(stage, first, len(wanted)))
            for place, frame in zip(part, line.draw(part), strict=True):
                known[place] = folder / f"{len(known)}.png"
                save(frame, known[place], {})
        listener(Progress(stage, max(1, len(wanted)), max(1, len(wanted))))

    chosen = [one / (number - 1) for one in range(number)]
    draw(chosen, "Drawing the series")
    if not config.linear:
        tried = [(_unevenness(known, chosen), chosen)]
        while tried[-1][0] > EVEN and len(tried) <= ROUNDS:
            path = sorted(known)
            chosen = even(_distances(_open(known[place]) for place in path), path, number)
            draw(chosen, "Spacing the frames")
            tried.append((_unevenness(known, chosen), chosen))
        _, chosen = min(tried)  # frames have looks of their own, by which a later round may be the worse one
    return [(place, known[place]) for place in chosen]


def _unevenness(known: Mapping[float, Path], places: Sequence[float]) -> float:
    """Return the largest step between frames over the mean step; 0 where nothing moves."""
    steps = _distances(_open(known[place]) for place in places)
    return max(steps) * len(steps) / (math.fsum(steps) or 1)


def _distances(frames: Iterable[Image.Image]) -> list[float]:
    return [distance(a, b) for a, b in pairwise(frames)]


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _write(what: str, drawn: list[tuple[float, Path]], facts: dict[str, str], folder: Path) -> list[Image.Image]:
    """Write the frames with what they were drawn from, and the strip; return the frames."""
    folder.mkdir()
    frames = [_open(path) for _, path in drawn]
    for number, ((place, _), frame) in enumerate(zip(drawn, frames, strict=True)):
        save(frame, folder / _name(number), {"series": what, "place": f"{place:.6f}", **facts})
    shown = sorted({round(one * (len(frames) - 1) / (STRIP - 1)) for one in range(STRIP)})
    strip = Row(what, [(frames[number], f"{drawn[number][0]:.2f}") for number in shown])
    save(sheet([strip]), folder / "strip.png", {})
    return frames


def _name(number: int) -> str:
    return f"frame-{number:04}.png"
