"""The training loop: the same for every family and every method."""

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from persona.errors import Diverged
from persona.events import Listener, Note
from persona.methods import Method
from persona.train.processes import add_up

LONGEST_STEP = 1.0
"""Norm that gradients are clipped to, as in the reference implementation."""


@dataclass(frozen=True)
class Step:
    """One update of the weights.

    Attributes:
        number: steps done, counted from the beginning of the run.
        loss: scalar on the device; reading it waits for the device.
        gradient: norm of the gradient before it was clipped, likewise.
    """

    number: int
    loss: Tensor
    gradient: Tensor

    def check(self) -> float:
        """Return the loss.

        Raises:
            Diverged: it, or the gradient, is not finite.
        """
        loss = self.loss.item()
        if not (math.isfinite(loss) and math.isfinite(self.gradient.item())):
            raise Diverged(  # what was kept before is of other settings
                f"The loss or its gradient is NaN or infinite at step {self.number}. Lower --learning-rate "
                "(a tenth is a good try), or give --precision fp32, and choose another --out."
            )
        return loss


EIGHT_BITS = ("cuda", "xpu", "cpu")
"""Devices that bitsandbytes has kernels of 8-bit optimizers for."""


def flatten(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Lay parameters side by side in one tensor, of which they and their gradients become views.

    An adapter has hundreds of small factors; one large one takes the optimizer a fifth of the time, and one message
    between processes.
    """
    flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [parameter.numel() for parameter in parameters]
    values, gradients = torch.split(flat.detach(), sizes), torch.split(flat.grad, sizes)
    for parameter, value, gradient in zip(parameters, values, gradients, strict=True):
        parameter.data, parameter.grad = value.view_as(parameter), gradient.view_as(parameter)
    return flat


def make_optimizer(kind: str, rates: Sequence[tuple[list[nn.Parameter], float]], listener: Listener) -> Optimizer:
    """Return the optimizer, in 8 bits (Dettmers et al., 2110.02861) where that can be had.

    Args:
        kind: ``adamw8bit`` or ``adamw``.
        rates: groups of parameters with their learning rates; each group is laid out flat, unless it is shared out.
        listener: told where 8 bits cannot be had.
    """
    groups = [group | {"lr": rate} for parameters, rate in rates for group in _groups(parameters)]
    if kind != "adamw":
        device = groups[0]["params"][0].device
        try:
            if device.type not in EIGHT_BITS:
                raise RuntimeError(f"bitsandbytes has none for {device.type}")  # it would say so at the first step
            in_8_bits: Callable[..., Optimizer] = importlib.import_module("bitsandbytes").optim.AdamW8bit
            _step_once(in_8_bits, device)
            made = in_8_bits(groups)
        except (ImportError, OSError, RuntimeError) as error:  # not installed, or without a library for this device
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            listener(Note(f"No 8-bit optimizer here ({reason}): training with plain AdamW, which needs more memory."))
        else:
            return made
    return AdamW(groups)


def _step_once(kind: Callable[..., Optimizer], device: torch.device) -> None:
    """Take a step with an optimizer, of a parameter that is large enough for 8 bits: a library is missed but then."""
    parameter = nn.Parameter(torch.zeros(4096, device=device))
    parameter.grad = torch.zeros_like(parameter)
    kind([parameter]).step()


def _groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Return groups of an optimizer: of one flat parameter, or of those that are shared out and the others."""
    shards, others = _apart(parameters)
    if not shards:
        return [{"params": [flatten(parameters)]}]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    return [{"params": shards, "foreach": True}, {"params": others}]


def _apart(parameters: Sequence[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that are shared out among processes, and the others: no kernel takes both at once."""
    shards: list[nn.Parameter] = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    return shards, [parameter for parameter in parameters if not isinstance(parameter, DTensor)]


def clip(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Shorten the gradient of parameters to the longest step, in place, and return the norm that it had."""
    shards, others = _apart(parameters)
    if not shards:
        return nn.utils.clip_grad_norm_(parameters, LONGEST_STEP)
    kinds = [kind for kind in (shards, others) if kind]
    norms = [nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None], foreach=True) for kind in kinds]
    norm: Tensor = torch.stack([one.full_tensor() if isinstance(one, DTensor) else one for one in norms]).norm()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, LONGEST_STEP, norm, foreach=True)
    return norm


def steps(
    method: Method,
    optimizer: Optimizer,
    accelerator: Accelerator,
    *,
    first: int,
    last: int,
    batch: int,
    accumulate: int,
) -> Iterator[Step]:
    """Train, a step at a time.

    One process with a batch of four, two with two, or one that accumulates two batches of two: the same losses.

    Args:
        method: gives the loss.
        optimizer: over the parameters that learn.
        accelerator: knows the other processes.
        first: steps already done.
        last: steps done when the training ends.
        batch: examples that a process puts through the network at once.
        accumulate: batches of each process whose gradients make a step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    processes = accelerator.num_processes
    optimizer.zero_grad(set_to_none=False)  # of a step that was broken off; the gradients are views of a flat one
    own = batch * accumulate  # each process has slots of its own, so that it may divide them as its memory demands
    total = own * processes
    for number in range(first, last):
        losses = []
        for part in range(accumulate):
            start = number * total + accelerator.process_index * own + part * batch
            loss = method.loss(range(start, start + batch), total)
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        mean = torch.stack(losses).sum() if accumulate > 1 else losses[0]
        if processes > 1:
            mean = add_up(accelerator, [p.grad for p in _apart(parameters)[1] if p.grad is not None], mean)
        gradient = clip(parameters)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        yield Step(number + 1, mean, gradient)
