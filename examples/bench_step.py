"""Times a training step of full-size SD 1.5 beside a plain loop that encodes at each step, and a bare pass.

    python examples/bench_step.py [BASE] [--resolution N] [--steps N] [--batch N]

Both train a LoRA of rank 16 with the same optimizer on random weights, in bf16 where this CPU computes in it and else
in fp32, as persona chooses: no step can tell them from real ones, and nothing is fetched. The plain loop does what
diffusers' example script for DreamBooth does, in its order. Bare are the forward and backward pass of the same batch,
with all weights and the optimizer there, and nothing else: what is above it is what a step of persona adds. Each runs
in processes of its own, one for the time and one for the most memory; the first step is not counted. Linux only: it
reads memory as Linux counts it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from persona import adapter, families
from persona.drawing import number_format
from persona.events import silent
from persona.families import Family
from persona.families.attention import choose_kernels
from persona.families.outline import refill
from persona.methods.dreambooth import DreamBooth, Example, Half
from persona.train.average import Average
from persona.train.loop import make_optimizer, steps
from persona.train.rehearsal import networks

RANK = 16
PROMPT = "a sks dog"
RATE = 1e-4


def main() -> None:
    """Time both, and print how they compare."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("base", nargs="?", default="sd15")
    options.add_argument("--resolution", type=int)
    options.add_argument("--steps", type=int, default=5)
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.loop:
        print(json.dumps(timed(given)))
        return
    found = {loop: measured(loop, sys.argv[1:]) for loop in LOOPS}
    ours = found["persona"]
    for other in ("plain", "bare"):
        time, memory = (ours[figure] / found[other][figure] for figure in ("seconds", "bytes"))
        print(f"persona takes {time:.2f} of the time and {memory:.2f} of the memory of {other}")


def measured(loop: str, options: Sequence[str]) -> dict[str, float]:
    """Return what a step of one of the loops takes, in seconds and bytes, with the options of this script."""
    # Given back at once, what is resident of large blocks is what is used; but that takes time of its own.
    tight = alone(loop, os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}, [*options, "--steps", "1"])
    found = {"seconds": alone(loop, os.environ, options)["seconds"], "bytes": tight["bytes"]}
    print(f"{loop:<8} {found['seconds']:>7.2f} s a step {found['bytes'] / 2**30:>6.2f} GiB", flush=True)
    return found


def alone(loop: str, environment: Mapping[str, str], options: Sequence[str]) -> dict[str, float]:
    """Return what a process of its own finds of one of the loops."""
    again = [sys.executable, __file__, *options, "--loop", loop]
    done = subprocess.run(again, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def timed(given: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of a step, and the most bytes that were in memory at once, of one of the loops."""
    base = whole(given.base)
    side = given.resolution or base.resolution
    step = LOOPS[given.loop](base, torch.rand(given.batch, 3, side, side) * 2 - 1)
    times = []
    for _ in range(given.steps + 1):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return {"seconds": median(times[1:]), "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def whole(name: str) -> Family:
    """Return a base with random weights, its autoencoder in the format that its config wants."""
    base = families.blueprint(name)
    base.dtype = number_format("auto", torch.device("cpu"))
    formats = base.formats(base.folder, base.dtype)
    for key, network in networks(base).items():
        dtype = formats.get(key, formats["default"])

        def make(one: Tensor, dtype: torch.dtype = dtype) -> Tensor:
            if one.is_floating_point():
                return torch.empty(one.shape, dtype=dtype).normal_(std=0.02)
            return torch.zeros(one.shape, dtype=one.dtype)

        refill(network, make)
    return base


def attached(base: Family) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """Give a base a LoRA, and return its parameters with their optimizer."""
    learning = adapter.attach(base, adapter.Make(rank=RANK, alpha=float(RANK), targets=base.recipe.targets))
    rates = [(parameters, RATE) for parameters in learning.values()]
    return [one for part in learning.values() for one in part], make_optimizer("adamw8bit", rates, silent)


def persona(base: Family, pixels: Tensor) -> Callable[[], object]:
    """Return a step of persona: pictures and prompts were encoded once, and what encoded them was let go."""
    choose_kernels(base.denoiser, base.device)
    examples = [Example(base.encode_images(one[None]), PROMPT) for one in pixels]
    base.remember([PROMPT])
    base.free_image_encoder()
    base.free_text_encoders()
    base.denoiser.to(memory_format=torch.channels_last)
    _, optimizer = attached(base)
    alone: Any = SimpleNamespace(num_processes=1, process_index=0)
    method = DreamBooth(base, [Half(examples)])
    loop = steps(method, optimizer, alone, first=0, last=sys.maxsize, batch=len(pixels), accumulate=1)
    average = Average(optimizer)

    def step() -> float:
        done = next(loop)
        average.update(done.number)
        return done.check()

    return step


def plain(base: Family, pixels: Tensor) -> Callable[[], object]:
    """Return a step that encodes pictures and prompts anew, adds noise, predicts and learns."""
    parameters, optimizer = attached(base)

    def step() -> float:
        x = base.encode_images(pixels)
        with torch.no_grad():
            told = base.encode_prompts([PROMPT] * len(pixels))
        times = base.noise.times(len(x), torch.Generator())
        noisy, target = base.noise.corrupt(x, torch.randn_like(x), times)
        loss = nn.functional.mse_loss(base.predict(noisy, times, told), target)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return loss.item()

    return step


def bare(base: Family, pixels: Tensor) -> Callable[[], object]:
    """Return one forward and backward pass of what persona's step learns from, without the step."""
    choose_kernels(base.denoiser, base.device)
    x = base.encode_images(pixels)
    told = base.conditioning([PROMPT] * len(pixels))
    base.free_image_encoder()
    base.free_text_encoders()
    base.denoiser.to(memory_format=torch.channels_last)
    _, optimizer = attached(base)
    times = base.noise.times(len(x), torch.Generator())
    noisy, target = base.noise.corrupt(x, torch.randn_like(x), times)

    def step() -> None:
        torch.autograd.backward(nn.functional.mse_loss(base.predict(noisy, times, told), target))

    step()
    optimizer.step()  # its state is there from now on
    return step


LOOPS: dict[str, Callable[[Family, Tensor], Callable[[], object]]] = {"persona": persona, "plain": plain, "bare": bare}


if __name__ == "__main__":
    main()
