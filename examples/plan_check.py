"""Compares `persona plan` with what a step takes: the same step, on this CPU, with random weights.

    python examples/plan_check.py [sd15 sdxl ...] [--resolution N]

Nothing is fetched. Each case is planned, then done in a process of its own, whose memory is watched: what it takes at
most in each stage, beyond what it took before it had networks. SD 1.5 takes a few minutes and 8 GiB, SDXL half an hour
and 24 GiB. It ends with 1 if a step takes 10 % more or less than was planned. Linux only: it reads /proc.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from persona import families
from persona.config import TrainConfig
from persona.drawing import number_format
from persona.families.attention import choose_kernels
from persona.families.outline import refill
from persona.methods.settings import Settings
from persona.train.rehearsal import TRAINING, Stage, networks, perform, prepare, rehearse

CASES: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": "adamw"},
    "checkpointing": {"optimizer": "adamw", "gradient_checkpointing": True},
    "nf4": {"optimizer": "adamw", "quantize": "nf4"},
    "8-bit optimizer": {"optimizer": "adamw8bit"},
    "all three": {"optimizer": "adamw8bit", "quantize": "nf4", "gradient_checkpointing": True},
}
PHOTOS = 4
NEAR = 0.1
FORMAT = number_format("auto", torch.device("cpu"))
"""Bf16 where this CPU computes in it, else fp32, as persona chooses."""


def main() -> None:
    """Compare, and print a row for each case."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bases", nargs="*", default=["sd15", "sdxl"])
    options.add_argument("--resolution", type=int)
    options.add_argument("--measure", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measured(config(given.bases[0], given.measure, given.resolution))))
        return
    print(f"{'base':<12} {'case':<16} {'planned':>9} {'taken':>9}")
    apart = [compare(base, case, given.resolution) for base in given.bases for case in CASES]
    sys.exit(any(abs(one) > NEAR for one in apart))


def compare(base: str, case: str, resolution: int | None) -> float:
    """Print what was planned and what was taken, and return how far they are apart."""
    asked = config(base, case, resolution)
    plan = planned(asked)[TRAINING]
    again = [sys.executable, __file__, base, "--measure", case]
    again += ["--resolution", str(resolution)] if resolution else []
    # Large blocks go back to the system when they are freed, so that what is resident is what is used.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(again, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    stages: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    taken = stages[TRAINING]
    print(
        f"{base:<12} {case:<16} {plan / 2**30:>6.2f} GiB {taken / 2**30:>6.2f} GiB {taken / plan - 1:>+6.1%}",
        flush=True,
    )
    return taken / plan - 1


def config(base: str, case: str, resolution: int | None) -> TrainConfig:
    """Return the settings of a case: one photo to a step, and nothing that preserves the class."""
    return TrainConfig(
        photos=Path("photos"), class_noun="dog", base=base, prior="none", resolution=resolution, **CASES[case]
    )


def planned(asked: TrainConfig) -> dict[str, int]:
    """Return the bytes of each stage, without data."""
    base = families.blueprint(asked.base)
    settings = Settings.of(asked, base, PHOTOS)
    return dict(rehearse(base, asked, settings, photos=PHOTOS, dtype=FORMAT, device="cpu").stages)


def measured(asked: TrainConfig) -> dict[str, int]:
    """Return the bytes of each stage as this process takes them, with random weights."""
    act(replace(asked, base="clay", resolution=None), lambda name: nullcontext())  # the code itself is in memory then
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before, stages = psutil.Process().memory_info().rss, dict[str, int]()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # forget the most that was resident so far
        yield
        stages[name] = most_resident() - before

    act(asked, stage)
    return stages


def act(asked: TrainConfig, stage: Stage) -> None:
    """Go through the stages of a training with random weights."""
    base = families.blueprint(asked.base)
    settings, formats = Settings.of(asked, base, PHOTOS), base.formats(base.folder, FORMAT)
    for name, network in networks(base).items():
        dtype = formats.get(name, formats["default"])
        refill(network, partial(random, dtype=dtype))
    prepare(base, asked, settings, FORMAT)
    choose_kernels(base.denoiser, base.device)
    perform(base, asked, settings, PHOTOS, stage, lambda network, there: None)


def random(one: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of the same shape with small numbers, or with zeros where it is no weight."""
    if one.is_floating_point():
        return torch.empty(one.shape, dtype=dtype).normal_(std=0.02)
    return torch.zeros(one.shape, dtype=one.dtype)


def most_resident() -> int:
    """Return the most bytes of this process that were in memory at once."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
