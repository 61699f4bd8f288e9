"""Smooth series between two things: two prompts, seeds or personas, base and persona, a subject and what text shows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from PIL import Image

from persona import fading, film, moving
from persona.atomic import keep
from persona.between import even
from persona.config import InterpolateConfig
from persona.drawing import Size, check_output, processes, save
from persona.errors import BadOption
from persona.events import Listener, Note, Progress, silent
from persona.eye import distance
from persona.families import Family
from persona.folder import slug
from persona.placing import check_single
from persona.sheet import Row, sheet
from persona.sitters import tell_drawn

ROUNDS = 2
"""Times that frames are drawn anew where the eye wants them; the first puts most right."""
EVEN = 1.25
"""Largest step over the mean step from which frames are drawn anew."""
STRIP = 16
"""Frames on the contact strip."""


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
        what = fading.ends(config)
        listener(Note(f"From {what[0]} to {what[1]}."))
        return what, fading.fade(config, listener)
    check_single(config.prompts)
    personas = moving.worn(config)
    what = moving.ends(config, personas)
    for persona in personas:
        tell_drawn(persona, listener)
    listener(Note(f"From {what[0]} to {what[1]}."))
    return what, moving.move(config, personas, listener)


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
