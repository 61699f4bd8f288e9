"""What the processes of a run have to settle between them."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from persona.errors import PersonaError

T = TypeVar("T")


def agree(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Let the first process do something alone; all get its result, or raise its error, together.

    Raises:
        PersonaError: the action did; so with OSError. None waits for a process that has given up.
    """
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [(action(), None)]
        except (PersonaError, OSError) as error:
            outcome = [(None, error)]
    broadcast_object_list(outcome)
    result, failure = outcome[0]
    if failure:
        raise failure
    agreed: T = result
    return agreed


def add_up(accelerator: Accelerator, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
    """Add up gradients and losses over all processes in one message, and return the loss.

    The adapters are small, so nothing is gained by sending while the backward pass still runs; and the networks stay
    what they are, without a wrapper that the rest of the program would have to know of.
    """
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    message = torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])
    summed: Tensor = accelerator.reduce(message, "sum")
    rest = summed[1:]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = rest[: gradient.numel()].view_as(gradient)
        rest = rest[gradient.numel() :]
    return summed[0]
