"""The loop that every method is pretrained by: what it learns is its own affair, how is the same for all.

A step depends on the seed and its number alone, so a run that was killed goes on to the same weights, on a CPU to the
bit; and one process with a batch of eight, two with four, or one that accumulates two of four take the same steps.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.random import default_rng
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from persona import checkpoints, drawing, families, report
from persona.atomic import beside, digest
from persona.config import PretrainMethodConfig
from persona.errors import BadOption, NoMemory, out_of_memory
from persona.events import Listener, Progress, silent
from persona.families import Family
from persona.methods import Method
from persona.methods.shards import shard
from persona.noise import Process
from persona.pretrain.records import shards
from persona.pretrain.state import Run, compare, listing, no_fewer, outside, settle
from persona.train.loop import make_optimizer, steps
from persona.train.processes import agree, launched, shares_weights

DECAY = 0.999
"""Of the averaged weights, which are those that are kept."""
CURVE = 50
"""Steps between points of the learning curve."""
SHEETS = 8
"""Sample sheets that are drawn on the way."""
SUBJECT = 4.0
"""What a place that shows the subject counts in the loss, to one that does not."""
GAMMA, LEAST, DRAWN = 5.0, 0.15, 32
"""Of min-SNR, the least that a time counts, and how many are drawn for each that is taken."""


def lot(slot: int, size: int, seed: int) -> tuple[int, np.random.Generator, torch.Generator]:
    """Return which of so many examples a slot learns from, and what draws the rest of it at random, there and in torch.

    Each comes once a round, and every round is shuffled anew.
    """
    rounds, place = divmod(slot, size)
    random = default_rng((seed, 3, slot))
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    return int(_shuffled(size, seed, rounds)[place]), random, generator


@lru_cache(maxsize=2)
def _shuffled(size: int, seed: int, rounds: int) -> NDArray[np.int64]:
    return default_rng((seed, 2, rounds)).permutation(size)


def times(noise: Process, n: int, generator: torch.Generator, gamma: float = GAMMA) -> Tensor:
    """Draw the times of examples, (n,), as often as they count: the root of min-SNR's weight, and a floor.

    Each is one of the process's own, taken out of many by its weight (Hang et al., 2303.09556). That is weighing the
    losses of even times, but less noisy: a third of those show clay noise alone, whose gradient at t = 900 has eleven
    times the energy of that at t = 220, where shapes get sharp. By min-SNR itself next to nothing would be learnt
    where it is decided what there will be to see.
    """
    drawn = noise.times(DRAWN * n, generator).view(n, DRAWN)
    weights = noise.weights(drawn.flatten(), gamma).sqrt().clamp(min=LEAST).view(n, DRAWN)
    return drawn.gather(1, torch.multinomial(weights, 1, generator=generator))[:, 0]


def emphasis(masks: Tensor) -> Tensor:
    """Return the weight of each place in the loss, 1 in the mean of a picture: subjects count more than the rest.

    Args:
        masks: where they are, (..., h, w) in [0, 1].
    """
    weights = 1 + (SUBJECT - 1) * masks
    return weights / weights.mean((-2, -1), keepdim=True)


class Objective(Method, Protocol):
    """A method that is pretrained."""

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What learns, by name: those of their parameters that ask for a gradient."""

    def show(self) -> Image.Image:
        """Draw a sheet of samples with the weights as they are."""

    def save(self) -> bytes:
        """Return what was learnt as the bytes of a safetensors file."""


@dataclass(frozen=True)
class Learnt:
    """What pretraining leaves.

    Attributes:
        weights: safetensors file of the averaged weights.
        report: learning curve and sample sheets, one HTML page.
    """

    weights: Path
    report: Path


def pretrain(
    config: PretrainMethodConfig,
    settings: Mapping[str, Any],
    name: str,
    join: Callable[[Family, Listener], Callable[[Accelerator, Listener], Objective]],
    listener: Listener = silent,
) -> Learnt:
    """Teach a base a method, or go on where an earlier call was stopped.

    Under ``accelerate launch`` the processes share each step, and with ``--use_fsdp`` the denoiser's weights.

    Args:
        config: what to learn from, and how long.
        settings: what else makes the weights what they are: JSON values by the options that they come from.
        name: of the file that the weights are kept in.
        join: joins the method to the base, or refuses to, and returns what makes the objective; data are rendered and
            encoded then, in a folder that is held.
        listener: told how far each stage is.

    Raises:
        BadOption: the folder holds a run with other settings or of more steps, the processes are to share out weights
            by DeepSpeed, or there are no weights to start from.
        BadBase: the base cannot be found.
        Busy: another run holds the folder.
        NoMemory: a step needs more than there is.
        Diverged: a loss is NaN or infinite.
        OSError: the disk is full.
    """
    accelerator = launched(sharing=True)
    if not accelerator.is_main_process:
        listener = silent
    device = accelerator.device
    dtype = drawing.number_format(config.precision, device)
    base = families.load(config.base, dtype=dtype, device=device, listener=listener)
    with ExitStack() as stack:
        agree(accelerator, lambda: stack.enter_context(checkpoints.held(config.out)))
        rate = base.recipe.pretraining_rate if config.learning_rate is None else config.learning_rate
        common = {
            "base": base.hash[:12],
            "data": listing(config.data, _learnt_from(config.data, config.out)) if config.data else None,
            "batch": config.batch * config.accumulate * accelerator.num_processes,
            "learning_rate": rate,
            "targets": config.targets,
            "start_from": _start(config.start_from / name) if config.start_from else None,
            "seed": config.seed,
        }
        agree(accelerator, lambda: compare(config.out, config, {**common, **settings}))
        agree(accelerator, lambda: no_fewer(config.out, config.out / "state", "--steps", config.steps))
        prepare = join(base, listener)
        agree(accelerator, lambda: settle(config.out, config, {**common, **settings}))
        objective = prepare(accelerator, listener)
        base.free_image_encoder()
        if shares_weights(accelerator):
            shard(base.denoiser, accelerator)
        else:
            base.denoiser.to(memory_format=torch.channels_last)  # a CPU's convolutions would turn their input each time
        return learn(objective, config, rate, name, accelerator, listener)


def _learnt_from(data: Path, out: Path) -> list[Path]:
    """Return what is learnt from in a folder: shards, or clay's scenes; sheets and notes beside them may change."""
    return shards(data) or outside(out, data, data.rglob("[0-9]*"))


def _start(path: Path) -> str:
    """Return what tells the weights that a run starts from from others.

    Raises:
        BadOption: there are none.
    """
    if not path.is_file():
        raise BadOption(f"There is no {path} to start from. Name a folder that holds one, or leave --start-from out.")
    return digest(path)[:12]


def learn(
    objective: Objective,
    config: PretrainMethodConfig,
    rate: float,
    name: str,
    accelerator: Accelerator,
    listener: Listener,
) -> Learnt:
    """Train to the last step, from where an earlier call was stopped.

    Args:
        objective: gives the losses.
        config: how long, in what batches, and in which folder.
        rate: the highest learning rate.
        name: of the file that the weights are kept in.
        accelerator: knows the other processes.
        listener: told how far it is.

    Raises:
        NoMemory: a step needs more than there is.
        Diverged: a loss is NaN or infinite.
        OSError: the disk is full.
    """
    learning = [p for module in objective.modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = make_optimizer("adamw", [(learning, rate)], listener)
    run = Run(config.out / "state", objective.modules, optimizer, decay=DECAY)
    run.resume()
    try:
        _follow(run, objective, config, rate, accelerator, listener)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise NoMemory(_less(config)) from error
    with run.averaged():
        learnt = objective.save()
    return agree(accelerator, partial(_conclude, run, learnt, config, rate, config.out / "weights" / name))


def _less(config: PretrainMethodConfig) -> str:
    """Say how the same steps are taken in less memory."""
    short = f"Memory is too small for --batch {config.batch}."
    if config.batch == 1:
        return f"{short} Take a smaller --base, or share its weights out by accelerate launch --use_fsdp."
    batch = next(n for n in range(config.batch // 2, 0, -1) if config.batch % n == 0)
    same = f"--batch {batch} --accumulate {config.accumulate * config.batch // batch}"
    return f"{short} Type the command with {same}: it takes the same steps, and resumes."


def _follow(
    run: Run,
    objective: Objective,
    config: PretrainMethodConfig,
    rate: float,
    accelerator: Accelerator,
    listener: Listener,
) -> None:
    last, losses = config.steps, []
    every = max(1, last // SHEETS)
    _set_rate(run.optimizer, rate * share(run.step, last))
    started = time.perf_counter()
    for step in steps(
        objective,
        run.optimizer,
        accelerator,
        first=run.step,
        last=last,
        batch=config.batch,
        accumulate=config.accumulate,
    ):
        run.count(started)
        losses.append(step.loss)
        due = step.number % config.save_every == 0 or step.number == last
        if due or step.number % CURVE == 0:
            step.check()
            run.curve.append((step.number, torch.stack(losses).mean().item()))
            losses.clear()
        listener(Progress("Learning", step.number, last, run.curve[-1][1] if run.curve else None))
        if step.number % every == 0:  # before the state, from which a run that is killed here draws it anew
            path = config.out / "samples" / f"step-{step.number:06}.png"
            with run.averaged():
                sheet = objective.show() if shares_weights(accelerator) else None  # by all: each holds but a part
                agree(accelerator, partial(_keep, path, sheet, objective))
        if due:
            agree(accelerator, partial(run.write, run.tensors()))
        _set_rate(run.optimizer, rate * share(step.number, last))
        started = time.perf_counter()


def share(step: int, last: int) -> float:
    """Return the share of the highest rate that a step is made with: it warms up, stays, and falls in the last third.

    A run can thus be lengthened without having been cooled too early.
    """
    gone = step / last
    fall = 1.0 if gone < 0.67 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (gone - 0.67) / 0.33))
    return min(1.0, (step + 1) / min(200, max(1, last // 10))) * fall


def _set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _keep(path: Path, sheet: Image.Image | None, objective: Objective) -> None:
    with beside(path) as part:
        (sheet or objective.show()).save(part)


def _conclude(run: Run, learnt: bytes, config: PretrainMethodConfig, rate: float, weights: Path) -> Learnt:
    with beside(weights) as part:
        part.write_bytes(learnt)
    sheets = {path.stem: [(path.stem, Image.open(path))] for path in sorted((config.out / "samples").glob("*.png"))}
    page = config.out / "report.html"
    report.write(
        page,
        title=weights.stem,
        photos=[],
        previews=sheets,
        curves={"loss": run.curve},
        settings=config.record() | {"learning_rate": rate, "seconds": run.seconds},
        scores={},
    )
    return Learnt(weights, page)
