"""What a run does to need less memory: chosen before it begins, and again whenever memory runs out.

There is one order, from what costs nothing to what costs quality, whoever asks: ``train`` before it loads a base, the
loop when it runs out of memory, ``plan`` for a card that is not here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from accelerate import Accelerator

from persona.config import TrainConfig
from persona.drawing import free
from persona.errors import NoMemory
from persona.events import Listener, Note
from persona.families import Family, outline
from persona.families.place import find
from persona.methods.settings import Settings
from persona.train.rehearsal import DRAWING, LOADING, PICTURES, PREVIEWS, PROMPTS, TRAINING, Rehearsal, rehearse

Choice = Mapping[str, Any]
"""Values of options that were left open, by the names of their fields."""

SHARE = 0.9
"""Of the memory that is free, so much is planned for: allocators leave gaps, and kernels take some for themselves."""
AMPLE = 20
"""No base was seen to need more memory than this multiple of its weights' files, in the batches and at the resolution
that it recommends: with that much free, nothing is rehearsed."""

_HELP = {
    LOADING: ("offload", "quantize"),
    PICTURES: ("offload", "tiling", "resolution"),
    PROMPTS: ("offload", "quantize"),
    DRAWING: ("offload", "tiling", "quantize", "resolution"),
    TRAINING: ("batch", "gradient_checkpointing", "quantize", "resolution"),
    PREVIEWS: ("tiling", "quantize", "resolution"),
}
"""What helps at which stage, the cheapest first."""
LOADED = {"quantize", "offload", "resolution"}
"""What is chosen by loading the base anew."""
FREE = {"gradient_checkpointing", "offload", "tiling"}
"""What changes nothing that is learnt, but for the seams of tiles, so that whoever resumes a run may say otherwise."""


def sides(base: Family, resolution: int) -> list[int]:
    """Return the resolutions that a run goes down to where memory is short, the largest first.

    Args:
        base: that is trained: both sides of its pictures are multiples of something.
        resolution: that the run has, in pixels; below half of it nothing is worth learning.
    """
    found, least, multiple = [resolution], resolution // 2, base.granularity
    while least <= (smaller := max(least, found[-1] * 3 // 4) // multiple * multiple) < found[-1]:
        found.append(smaller)
    return found[1:]


def leaner(asked: TrainConfig, now: Settings, stage: str, device: str, smaller: Sequence[int]) -> Choice:
    """Return what to change so that a stage takes less memory; empty where nothing is left that the user left open.

    Args:
        asked: what the user said.
        now: the settings as they are.
        stage: of a run, as in :mod:`persona.train.rehearsal`.
        device: type of the device.
        smaller: what the resolution may become, as :func:`sides` returns it.
    """
    for name in _HELP[stage]:
        # However a batch is divided, a step is the same.
        left_open = name == "batch" or not says(asked, name)
        helps = device == "cuda" or name != "offload"  # on a CPU there is nowhere to put things aside
        if left_open and helps and (change := _less(name, now, smaller)):
            return change
    return {}


def says(asked: TrainConfig, name: str) -> bool:
    """Tell whether the user has given an option, by the name of its field, that else is chosen."""
    return getattr(asked, name) not in (None, "auto")


def unsaid(asked: TrainConfig, choice: Choice) -> TrainConfig:
    """Return what the user said, with that left open which says no more than what was chosen for a run before."""
    ours = [field for field in fields(TrainConfig) if field.name in LOADED - FREE]
    open_again: dict[str, Any] = {
        one.name: one.default for one in ours if getattr(asked, one.name) == choice.get(one.name)
    }
    return replace(asked, **open_again)


def kept(asked: TrainConfig, choice: Choice) -> Choice:
    """Return what was chosen for a run before, without what the user now says otherwise and may."""
    return {name: value for name, value in choice.items() if not (name in FREE and says(asked, name))}


def _less(name: str, now: Settings, smaller: Sequence[int]) -> Choice:
    """Return the next smaller value of a setting, with what has to change along with it."""
    value = getattr(now, name)
    if isinstance(value, bool):
        return {} if value else {name: True}
    match name:
        case "quantize":
            return {name: "nf4"} if value == "none" else {}
        case "batch":
            part = max((n for n in range(1, value) if value % n == 0), default=0)
            return {name: part, "accumulate": now.accumulate * value // part} if part else {}
        case _:
            return next(({name: side} for side in smaller if side < value), {})


def fit(
    asked: TrainConfig,
    settings: Settings,
    room: int,
    rehearse: Callable[[Settings], Rehearsal],
    device: str,
    smaller: Sequence[int],
) -> tuple[Settings, Rehearsal]:
    """Change settings until a run fits into so many bytes, or until nothing is left to change.

    Returns:
        The settings, and what they were seen to take: more than there is where nothing fits.
    """
    seen = rehearse(settings)
    while seen.most > room and (change := leaner(asked, settings, seen.worst, device, smaller)):
        settings = replace(settings, **change)
        seen = rehearse(settings)
    return settings, seen


def relieve(
    asked: TrainConfig, now: Settings, stage: str, accelerator: Accelerator, smaller: Sequence[int], listener: Listener
) -> Choice:
    """Return what to change once memory has run out, as :func:`leaner` does.

    Args:
        asked: as for :func:`leaner`.
        now: as for :func:`leaner`.
        stage: as for :func:`leaner`.
        accelerator: knows the device, and the other processes: where there are any, none loads the base anew alone, or
            draws its share of pictures again, for which it would wait for them.
        smaller: as for :func:`leaner`.
        listener: told what is changed.

    Raises:
        NoMemory: nothing is left that could be done.
    """
    change = leaner(asked, now, stage, accelerator.device.type, smaller)
    together = accelerator.num_processes > 1 and (stage == DRAWING or change.keys() & LOADED)
    if not change or together:
        ways = {"quantize": "--quantize nf4", "resolution": "a smaller --resolution"}
        left = " or ".join([*(flag for name, flag in ways.items() if _less(name, now, smaller)), "a smaller --base"])
        # What was kept before is of other settings.
        raise NoMemory(f"There is too little memory for {stage}. Begin again with another --out, and {left}.")
    how = words(now, replace(now, **change))
    listener(Note(f"Memory is short: continuing with {how}.", warning=True))
    return change


def words(before: Settings, after: Settings) -> str:
    """Say what one of two settings does to need less memory than the other; empty if there is nothing."""
    said = {
        "offload": "CPU offload of idle networks",
        "tiling": "images in tiles",
        "batch": f"batches of {after.batch}, {after.accumulate} to a step",
        "gradient_checkpointing": "gradient checkpointing",
        "quantize": f"the base in {after.quantize}",
        "resolution": f"{after.resolution} pixels instead of {before.resolution}",
    }
    return ", ".join(text for name, text in said.items() if name in differing(before, after))


def differing(before: Settings, after: Settings) -> Choice:
    """Return what is otherwise in the second of two settings."""
    values = {field.name: getattr(after, field.name) for field in fields(after)}
    return {name: value for name, value in values.items() if getattr(before, name) != value}


def choose(
    config: TrainConfig, photos: int, dtype: torch.dtype, device: torch.device, processes: int, listener: Listener
) -> tuple[Choice, Rehearsal | None]:
    """Find out what a run has to do to fit into the memory that is free.

    Args:
        config: what is to be trained; what it says is not changed.
        photos: how many there are.
        dtype: number format of the frozen weights.
        device: where it will run.
        processes: how many of this machine will share it, if it is a CPU.
        listener: told in one line what was chosen.

    Returns:
        The choice, and what was seen of the run, if there was any need to look.

    Raises:
        BadBase: the base cannot be found or reached.
        NoMemory: the run would not fit whatever it does.
    """
    place, room = find(config.base, listener), free(device)
    files = [place.file] if place.file else place.folder.glob("*/*.safetensors")
    if device.type == "cpu":
        room //= processes
    if AMPLE * _grown(config, photos) * sum(file.stat().st_size for file in files) < room:
        return {}, None
    listener(Note("Memory may be short. Measuring what a training step needs ..."))
    base = outline(config.base)
    asked = Settings.of(config, base, photos)
    settings, seen = fit(
        config,
        asked,
        int(SHARE * room),
        lambda one: rehearse(outline(config.base), config, one, photos=photos, dtype=dtype, device=device.type),
        device.type,
        sides(base, asked.resolution),
    )
    needs = f"{seen.most / 2**30:.1f} GiB of the {room / 2**30:.1f} GiB that are free, for {seen.worst}"
    how = words(asked, settings)
    if seen.most > room:
        with_all = f" even with {how}" if how else ""
        where = "Take a smaller --base; `persona plan --all` shows them all."
        raise NoMemory(f"{config.base} needs {needs},{with_all}. {where}")
    listener(Note(f"Memory: {needs}{f', with {how}' if how else ''}."))
    return differing(asked, settings), seen


def _grown(config: TrainConfig, photos: int) -> float:
    """Return how many times the pixels of a step that the base recommends were asked for, at least once."""
    if config.batch is None and config.resolution is None:
        return 1.0
    base = outline(config.base)
    asked = Settings.of(config, base, photos)
    own = Settings.of(replace(config, batch=None, resolution=None), base, photos)
    return max(1.0, asked.batch * asked.resolution**2 / (own.batch * own.resolution**2))
