"""Many pictures to files: shared among processes, as many at a time as memory bears, each kept as soon as drawn."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image, PngImagePlugin
from torch import nn

from persona import families
from persona.atomic import keep, put, scratch
from persona.errors import BadOption, NoMemory, out_of_memory
from persona.events import Listener, Note, Progress, silent
from persona.families import Family
from persona.families.family import release

_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = (
    (_GROUPS, "memory.max", "memory.current"),
    (_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),  # of version 1
)
"""Where Linux says what memory a container may take, and what it has taken."""

Size = tuple[int, int]
"""Width and height in pixels."""
PATIENCE = timedelta(days=1)
"""How long processes wait for each other: one may fetch a base meanwhile, or draw more; the default is ten minutes."""


class Artist(Protocol):
    """Whatever draws pictures: a base with what it wears, or a method on one."""

    def batch_of(self, size: Size) -> int:
        """Return how many pictures of that width and height, in pixels, are drawn at a time."""

    @property
    def draw(self) -> Callable[..., list[Image.Image]]:
        """Draw one picture for each pair of prompt and seed, as :meth:`persona.families.Family.draw` does."""


@dataclass(frozen=True)
class Job:
    """One picture to draw.

    Attributes:
        prompt: as the base shall read it.
        seed: it and the prompt alone make the picture.
        path: PNG file to write.
        metadata: texts that the file carries, by their keywords.
        fresh: what has that name already stays, and the picture gets the next that is free.
    """

    prompt: str
    seed: int
    path: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False


def processes() -> PartialState:
    """Return this process's place among those that ``accelerate launch`` has started; alone, it is the only one.

    Where there is no GPU they meet on the CPU, which accelerate would not do unless told.
    """
    chosen = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")
    return PartialState(cpu=chosen or not torch.accelerator.is_available(), timeout=PATIENCE)


def open_base(name: str, listener: Listener = silent) -> Family:
    """Load a base to draw with, on this process's own device and in the number format that it is fast in.

    In bfloat16 what a picture shows depends on its prompt and seed alone, but its last bits also on the rest of its
    batch, as kernels round differently (clay: 47 dB between one alone and the same among eight).

    Args:
        name: of the base.
        listener: told what is fetched.

    Raises:
        BadBase: it cannot be found, or is damaged.
    """
    device = processes().device
    dtype = number_format("auto", device)
    bits, offload = None, False
    if device.type == "cuda":
        parts = families.outline(name, listener).pipe.components.values()
        sizes = [sum(p.numel() for p in part.parameters()) for part in parts if isinstance(part, nn.Module)]
        bits, offload = spared([size * dtype.itemsize for size in sizes], free(device))
    if offload:
        packed = f", and the base is drawn with in {bits}" if bits else ""
        listener(Note(f"Memory is short: idle networks wait in main memory{packed}."))
    return families.load(name, device=device, dtype=dtype, bits=bits, offload=offload, listener=listener)


def spared(networks: Sequence[int], room: int) -> tuple[families.Bits | None, bool]:
    """Return in how many bits a base is drawn with where memory is short, and whether idle networks wait elsewhere.

    Idle ones take no more than half of the memory, one in use no more than three quarters: the rest is for pictures.

    Args:
        networks: bytes of each.
        room: bytes that are free.
    """
    return "nf4" if max(networks) > 3 * room // 4 else None, sum(networks) > room // 2


def free(device: torch.device) -> int:
    """Return how many bytes are free on a device, once what nothing refers to any more is given back."""
    release()
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return int(min(psutil.virtual_memory().available, _allowed()))


def _allowed() -> float:
    """Return the bytes that a container leaves to who runs in it; without end where nothing limits them."""
    for folder, limit, used in _LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            parts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            spare = int(parts.get("total_inactive_file", parts.get("inactive_file", 0)))  # files that need not be kept
            return int((folder / limit).read_text()) - int((folder / used).read_text()) + spare
    return math.inf


def open_stored(name: str, listener: Listener = silent) -> Family:
    """Load a base to write it again: on the CPU, each part in the number format that it is kept in.

    Raises:
        BadBase: it cannot be found, or is damaged.
    """
    return families.load(name, device="cpu", dtype=None, listener=listener)


def number_format(precision: str, device: torch.device) -> torch.dtype:
    """Return bf16 where it is asked for, or where ``auto`` leaves it open and the device computes in it."""
    if precision == "auto":
        units = torch.cpu.get_capabilities()
        fast = {
            "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
            "cpu": lambda: units.get("amx_bf16", False) or units.get("avx512_bf16", False),
        }
        return torch.bfloat16 if device.type in fast and fast[device.type]() else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def precision_of(base: Family) -> str:
    """Return the number format that a base draws in, and what its weights are packed in where memory was short."""
    return " in ".join([*([base.bits] if base.bits else []), str(base.dtype).removeprefix("torch.")])


def draw(
    base: Artist, jobs: Sequence[Job], listener: Listener = silent, stage: str = "Drawing", **how: Any
) -> list[Path]:
    """Draw pictures and write them; this process takes its share, and waits until all are done.

    Args:
        base: draws.
        jobs: the same in each process.
        listener: told how far this process has come.
        stage: what to call it.
        how: passed on to :meth:`persona.families.Family.draw`; ``size`` is needed.

    Returns:
        The files of all pictures, in the order of the jobs.

    Raises:
        OSError: the disk is full, or the folder may not be written to; the pictures before stay.
    """
    state = processes()
    mine = jobs[state.process_index :: state.num_processes]
    batch = how.pop("batch", None) or base.batch_of(how["size"])
    made: list[Path] = []
    with ExitStack() as ending:
        if isinstance(base, Family):
            ending.enter_context(base.reading_once())
        while (done := len(made)) < len(mine):
            part = mine[done : done + batch]
            listener(Progress(stage, done, len(mine)))
            try:
                pictures = base.draw([job.prompt for job in part], [job.seed for job in part], batch=batch, **how)
            except (RuntimeError, MemoryError) as error:  # torch's own OutOfMemoryError is a RuntimeError
                if not out_of_memory(error):
                    raise
                if batch > 1:
                    batch //= 2
                    listener(Note(f"Memory is short: drawing {batch} at a time."))
                elif not _tiled(base, ending, listener):
                    raise
                continue
            made += _saved(pictures, part)
    if mine:
        listener(Progress(stage, len(mine), len(mine)))
    shares: list[list[Path]] = gather_object([made])
    return [shares[number % len(shares)][number // len(shares)] for number in range(len(jobs))]


def draw_together(base: Artist, jobs: Sequence[Job], listener: Listener = silent, **how: Any) -> list[Path]:
    """Draw pictures that see each other, all at once, and write them; the first process does, and the others wait.

    Args:
        base: a method whose pictures see each other.
        jobs: all of them.
        listener: told when they are drawn.
        how: passed on, as by :func:`draw`.

    Returns:
        Their files.

    Raises:
        NoMemory: there is too little for so many at once.
        OSError: the disk is full, or the folder may not be written to.
    """
    made: list[Path] = []
    if processes().is_main_process:
        listener(Progress("Drawing", 0, len(jobs)))
        with ExitStack() as ending:
            while not made:
                try:
                    pictures = base.draw([job.prompt for job in jobs], [job.seed for job in jobs], together=True, **how)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    if _tiled(base, ending, listener):
                        continue
                    hint = "Draw fewer with -n, or smaller ones with --resolution."
                    told = f"Memory is too small for {len(jobs)} images that see each other."
                    raise NoMemory(f"{told} {hint}") from error
                made += _saved(pictures, jobs)
        listener(Progress("Drawing", len(jobs), len(jobs)))
    all_made: list[Path] = gather_object(made)
    return all_made


def _tiled(base: Artist, ending: ExitStack, listener: Listener) -> bool:
    """Let pictures be decoded in tiles until the end of a context, and tell whether they were not before."""
    family = base if isinstance(base, Family) else getattr(base, "base", None)  # a method draws on one
    if not isinstance(family, Family) or family.pipe.vae.use_tiling:
        return False
    family.tile()
    ending.callback(family.tile, tiled=False)
    listener(Note("Memory is short: images in tiles."))
    return True


def _saved(pictures: Sequence[Image.Image], jobs: Sequence[Job]) -> list[Path]:
    drawn = zip(pictures, jobs, strict=True)
    return [save(picture, job.path, job.metadata, fresh=job.fresh) for picture, job in drawn]


def save(picture: Image.Image, path: Path, metadata: Mapping[str, str], *, fresh: bool = False) -> Path:
    """Write a PNG that carries texts; it is there whole or not at all.

    Args:
        picture: to write.
        path: its file.
        metadata: the texts, by their keywords.
        fresh: what has that name already stays, and the picture gets the next that is free.

    Returns:
        The file.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    info = PngImagePlugin.PngInfo()
    for key, text in metadata.items():
        info.add_itxt(key, text)
    with scratch(path) as part:
        picture.save(part, "PNG", pnginfo=info)
        return keep(part, path) if fresh else put(part, path)


def whole(path: Path) -> bool:
    """Tell whether a picture is there and undamaged; the PNG's own checksums say so."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def size_of(base: Family, resolution: int | None) -> Size:
    """Return the size of square pictures: what was asked for, as near as the base can draw it.

    Raises:
        BadOption: it is more than the base can draw at all.
    """
    side = max(base.granularity, round((resolution or base.resolution) / base.granularity) * base.granularity)
    if side > base.largest:
        raise BadOption(f"{base.name} supports images of up to {base.largest:.0f} pixels a side. Lower --resolution.")
    return side, side


def check_output(folder: Path) -> None:
    """Find out before the work whether its result can be written.

    Raises:
        BadOption: the folder cannot be written to, or made.
    """
    parents = (folder.absolute(), *folder.absolute().parents)
    there = next((parent for parent in parents if parent.exists()), parents[-1])  # a drive may not be there either
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise BadOption(f"{there} is no folder that can be written to. Name another one with --out.")
