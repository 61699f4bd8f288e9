"""What a training would take, told before anything is fetched or trained: no GPU and no weights are needed.

It is rehearsed with networks of their real sizes, on tensors without data (:mod:`persona.train.rehearsal`).
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
import torch
from huggingface_hub import model_info

from persona.checkpoints import KEPT
from persona.config import PlanConfig, TrainConfig
from persona.drawing import free, number_format, processes
from persona.events import Listener, Progress, silent
from persona.families import blueprint, here, known
from persona.families.fingerprint import PLAIN
from persona.methods.settings import Settings
from persona.train import speed
from persona.train.rehearsal import Rehearsal, rehearse
from persona.train.thrift import SHARE, fit, sides, words

CONTEXT = 2**29
"""Bytes of a card that its driver takes."""


@dataclass(frozen=True)
class Plan:
    """What a training would take.

    Attributes:
        base: the one that is trained.
        device: type of the device that it would run on.
        settings: of the training.
        how: what it does to need less memory, in words; empty for nothing.
        memory: the most bytes on the device at once.
        stage: the stage of the training that needs the most.
        room: bytes that there are for it; ``None`` for no limit.
        ram: bytes of main memory.
        download: bytes to fetch; ``None`` if the hub does not say.
        disk: the most bytes that the training has on the disk.
        parameters: how many numbers are trained.
        adapter: bytes of the adapter's file.
        step_seconds: seconds per step; ``None`` if no large base was trained on this device yet.
    """

    base: str
    device: str
    settings: Settings
    how: str
    memory: int
    stage: str
    room: int | None
    ram: int
    download: int | None
    disk: int
    parameters: int
    adapter: int
    step_seconds: float | None

    @property
    def fits(self) -> bool:
        """Whether there is enough memory."""
        return self.room is None or self.memory <= self.room


def plan(config: PlanConfig, listener: Listener = silent) -> list[Plan]:
    """Tell what a training would take.

    Args:
        config: what would be trained, and on what.
        listener: told how far it is, and what is fetched.

    Returns:
        A plan of the base, or of each that has a short name. What the config leaves open is chosen to fit into the
        memory that there is, as in a training; where nothing does, the plan is of what takes the least.

    Raises:
        BadBase: the base cannot be found or reached.
        BadOption: it cannot draw pictures as large as that.
    """
    names = ["clay", *known()] if config.every else [config.base]
    plans = []
    for number, name in enumerate(names):
        listener(Progress("Rehearsing", number, len(names)))
        plans.append(_plan(name, config, listener))
    listener(Progress("Rehearsing", len(names), len(names)))
    return plans


def _plan(base: str, config: PlanConfig, listener: Listener) -> Plan:
    shared = {field.name for field in fields(TrainConfig)} & {field.name for field in fields(PlanConfig)}
    given = {name: getattr(config, name) for name in shared} | {"base": base, "photos": Path("photos")}
    asked = TrainConfig(class_noun="dog", **given)
    machine = _machine(config)
    outlined = blueprint(base, listener)
    wanted = Settings.of(asked, outlined, config.photos)

    def act(settings: Settings) -> Rehearsal:
        return rehearse(
            blueprint(base, listener),
            asked,
            settings,
            photos=config.photos,
            dtype=machine.dtype,
            device=machine.device.type,
        )

    room = sys.maxsize if machine.room is None else machine.room
    settings, seen = fit(asked, wanted, room, act, machine.device.type, sides(outlined, wanted.resolution))
    on_cpu, formats = machine.device.type == "cpu", f"{machine.dtype}, {settings.quantize}"
    return Plan(
        base=base,
        device=machine.device.type,
        settings=settings,
        how=words(wanted, settings),
        memory=seen.most,
        stage=seen.worst,
        room=machine.room,
        ram=psutil.Process().memory_info().rss + (seen.most if on_cpu else seen.loaded),
        download=_download(base, [name for name, part in outlined.pipe.components.items() if part is not None]),
        disk=_disk(asked, settings, seen),
        parameters=seen.parameters,
        adapter=seen.adapter,
        step_seconds=speed.seconds(machine.device, formats, seen.operations) if machine.here else None,
    )


@dataclass(frozen=True)
class _Machine:
    """What a training would run on.

    Attributes:
        device: of that kind.
        here: whether it is this machine's.
        dtype: number format of the frozen weights.
        room: bytes that there are; ``None`` where nobody knows.
    """

    device: torch.device
    here: bool
    dtype: torch.dtype
    room: int | None


def _machine(config: PlanConfig) -> _Machine:
    """Return the card that was asked for; else this machine's device, or a card without end for a table of all."""
    device = processes().device
    if config.vram is None and (device.type != "cpu" or not config.every):
        return _Machine(device, True, number_format(config.precision, device), int(SHARE * free(device)))
    here = device.type == "cuda"
    device = device if here else torch.device("cuda")
    dtype = number_format(config.precision, device) if here or config.precision != "auto" else torch.bfloat16
    return _Machine(device, here, dtype, int(SHARE * config.vram * 2**30) - CONTEXT if config.vram else None)


def _download(base: str, parts: Collection[str]) -> int | None:
    """Return how many bytes are fetched: the weights of these parts, each in one variant."""
    if here(base):
        return 0
    one = next((one for short, one in known().items() if base in (short, one.repo)), None)
    if one:
        return round(one.gigabytes * 10**9)
    try:
        files = model_info(base, files_metadata=True).siblings or []
    except (
        Exception
    ):  # the network and the hub each raise their own; the configs are here, so this is all that is unknown
        return None
    sizes: dict[str, dict[str, int]] = {}
    for file in files:
        part, _, name = file.rfilename.partition("/")
        if part in parts and name.endswith(".safetensors"):
            sizes.setdefault(part, {})[name] = file.size or 0
    # As diffusers fetches them: where one part has fp16 alone, fp16 of all that have it.
    whole = {part: [name for name in of if PLAIN.fullmatch(name)] for part, of in sizes.items()}
    halves = {part: [name for name in of if ".fp16" in name] for part, of in sizes.items()}
    fetched = whole if all(whole.values()) else {part: halves[part] or whole[part] for part in sizes}
    return sum(sizes[part][name] for part, names in fetched.items() for name in names)


def _disk(asked: TrainConfig, settings: Settings, seen: Rehearsal) -> int:
    """Return how many bytes a run has on the disk at most: weights, what resuming needs, pictures of the class."""
    # The weights of a step and two numbers of the optimizer for each; and all that anew while a checkpoint is written.
    state = int(2 * seen.adapter * (3 if settings.optimizer == "adamw" else 1.5))
    pictures = settings.priors * 3 * settings.resolution**2 if asked.prior == "generated" else 0
    looks = settings.steps // settings.score_every if settings.score_every else 0
    files = KEPT + looks + 2  # the copy that is drawn with, and one that is being written
    return files * seen.adapter + state + pictures
