"""Draw the subject: each picture from its own seed, so that any of them can be drawn again alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from persona import __version__
from persona.config import InterpolateConfig, SampleConfig
from persona.drawing import Job, Size, check_output, draw, draw_together, precision_of, processes, save, size_of
from persona.events import Listener, Note, silent
from persona.families import Family
from persona.folder import slug
from persona.prompts import read_prompts, tell_cut, tell_unknown
from persona.sheet import Row, sheet
from persona.sitters import sitter

MOST_IN_GRID = 200
"""Pictures that a grid shows at most."""


@dataclass(frozen=True)
class Picture:
    """What was drawn.

    Attributes:
        path: the PNG file; it carries the settings as metadata.
        prompt: as it was given, with ``[V]``.
        seed: draws it again, alone, with the same settings.
        facts: these settings, the persona and the base, as the file carries them; all pictures of a command share them.
    """

    path: Path
    prompt: str
    seed: int
    facts: Mapping[str, str] = field(default_factory=dict)


def sample(config: SampleConfig, listener: Listener = silent) -> list[Picture]:
    """Draw pictures of a persona, of what references show, of one new subject, or of a bare base.

    Several processes share the work; each returns the whole list.

    Args:
        config: prompts, persona, references or subjects, and how to draw.
        listener: told who is drawn, and how far it has come.

    Returns:
        ``config.n`` pictures of the first prompt, then of the next, in the folder ``config.out``. A grid of all
        of them lies beside.

    Raises:
        BadPrompt: a prompt cannot be drawn.
        BadPersona: the persona is missing, damaged, or was made for another base.
        BadBase: the base cannot be found, is damaged, or has nothing that draws from references.
        BadPhotos: there are no references, or none can be read.
        BadOption: the folder cannot be written to, or a reference cannot be cut out as it was said.
        NoMemory: there is too little for so many pictures together.
        OSError: the disk is full.
    """
    config = _with_file(config)
    check_output(config.out)
    who = sitter(config, listener)
    base, read = who.base, who.read or who.prompts
    tell_cut(base, read, listener)
    tell_unknown(base, read, who.own, listener)
    size = size_of(base, config.resolution)
    facts = {**drawn_with(config, base, size), **who.facts}
    jobs = list(_jobs(config, who.prompts, facts))
    how: dict[str, Any] = {
        "steps": config.steps,
        "guidance": config.guidance,
        "negative": config.negative,
        "size": size,
        **who.how,
    }
    if config.together:
        paths = draw_together(who.artist, jobs, listener, **how)
    else:
        paths = draw(who.artist, jobs, listener, batch=config.batch, **how)
    prompts = [prompt for prompt in config.prompts for _ in range(config.n)]
    drawn = zip(paths, prompts, jobs, strict=True)
    pictures = [Picture(path, prompt, job.seed, facts) for path, prompt, job in drawn]
    if processes().is_main_process and 1 < len(pictures) <= MOST_IN_GRID:
        _grid(config, pictures, listener)
    return pictures


def _with_file(config: SampleConfig) -> SampleConfig:
    """Add the prompts of a file to those that were given; they are checked as those are."""
    if config.prompts_file is None:
        return config
    return replace(config, prompts=(*config.prompts, *read_prompts(config.prompts_file)), prompts_file=None)


def drawn_with(config: SampleConfig | InterpolateConfig, base: Family, size: Size) -> dict[str, str]:
    """Return what the pictures of a command share, as texts: with prompt, seed and persona, enough to draw them again.

    Nothing in it tells where the user's files are.
    """
    facts: dict[str, object] = {
        "Software": f"persona {__version__}",
        "negative": config.negative,
        "steps": config.steps or base.recipe.sample_steps,
        "guidance": base.recipe.guidance if config.guidance is None else config.guidance,
        **({"guidance start": start} if (start := base.recipe.guidance_start) else {}),
        "sampler": type(base.pipe.scheduler).__name__,
        "size": f"{size[0]}x{size[1]}",
        "precision": precision_of(base),
        "base": base.title,
        "base hash": base.hash,
    }
    return {key: str(fact) for key, fact in facts.items()}


def _jobs(config: SampleConfig, filled: list[str], shared: dict[str, str]) -> Iterator[Job]:
    seeds = range(config.seed, config.seed + config.n)
    for given, read in zip(config.prompts, filled, strict=True):
        for seed in seeds:
            path = config.out / f"{slug(given)}-{seed}.png"
            yield Job(read, seed, path, {"prompt": given, "seed": str(seed), **shared}, fresh=True)


def _grid(config: SampleConfig, pictures: list[Picture], listener: Listener) -> None:
    """Lay all pictures out, a row or more for each prompt."""
    rows = []
    for first in range(0, len(pictures), config.n):
        part = pictures[first : first + config.n]
        shown = [(Image.open(picture.path), f"seed {picture.seed}") for picture in part]
        rows.append(Row(part[0].prompt, shown))
    path = save(sheet(rows), config.out / "grid.png", {}, fresh=True)
    listener(Note(f"All of them side by side: {path}"))
