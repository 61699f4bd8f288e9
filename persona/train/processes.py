"""What the processes of a run have to settle between them."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from persona.drawing import processes
from persona.errors import BadOption, PersonaError

T = TypeVar("T")

_SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


def launched() -> Accelerator:
    """Return the processes of this run, as ``accelerate launch`` has started them.

    Raises:
        BadOption: they are configured to share out a network's weights. Ours share a step's work: each holds all of the
            base, which is frozen, so that there is little to share out.
    """
    for name, kind in _SHARDING.items():
        if os.environ.get(name, "").lower() in ("true", "1", "yes"):
            raise BadOption(
                f"{kind} would share out no weights here: each process holds the whole base. "
                "Leave it out of accelerate's config; accelerate launch --multi_gpu shares the work."
            )
    return Accelerator(cpu=processes().device.type == "cpu")


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


def add_up(accelerator: Accelerator, gradients: Sequence[Tensor], loss: Tensor) -> Tensor:
    """Add up gradients, in place, and losses over all processes in one message, and return the loss.

    The adapters are small, so nothing is gained by sending while the backward pass still runs; and the networks stay
    what they are, without a wrapper that the rest of the program would have to know of.
    """
    message = torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])
    summed: Tensor = accelerator.reduce(message, "sum")
    loss, *parts = torch.split(summed, [1, *(gradient.numel() for gradient in gradients)])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return loss[0]
