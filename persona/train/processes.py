"""What the processes of a run have to settle between them."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from persona.drawing import processes
from persona.errors import BadOption, NoMemory, PersonaError, out_of_memory

T = TypeVar("T")


def launched(*, sharing: bool = False) -> Accelerator:
    """Return the processes of this run, as ``accelerate launch`` has started them.

    Args:
        sharing: whether FSDP is heeded, see :func:`shares_weights`.

    Raises:
        BadOption: they are configured to share out weights where they would not. Adapters are small: who learns one
            holds all of the base. DeepSpeed's engine takes over the backward pass, the optimizer and the state on disk,
            which it pickles.
    """
    if _asked("ACCELERATE_USE_DEEPSPEED"):
        raise BadOption(
            "DeepSpeed cannot share out weights here. Leave it out of accelerate's config; "
            "accelerate launch --multi_gpu shares the work, and for persona pretrain --use_fsdp the weights."
        )
    if _asked("ACCELERATE_USE_FSDP"):
        if not sharing:
            raise BadOption(
                "FSDP cannot share out weights here: each process holds the whole base. "
                "Leave it out of accelerate's config; accelerate launch --multi_gpu shares the work."
            )
        # Each process loads all by itself; transformers and accelerate would wait for what the first has to send.
        os.environ |= {"FSDP_CPU_RAM_EFFICIENT_LOADING": "false", "FSDP_SYNC_MODULE_STATES": "false"}
    return Accelerator(cpu=processes().device.type == "cpu")


def shares_weights(accelerator: Accelerator) -> bool:
    """Tell whether the processes were started to share out weights among them, by FSDP."""
    return accelerator.num_processes > 1 and _asked("ACCELERATE_USE_FSDP")


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1", "yes")


def agree(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Let the first process do something alone; all get its result, or raise its error, together.

    Raises:
        PersonaError: the action did; so with OSError. None waits for a process that has given up.
        NoMemory: the action has run out of it, and there are others, who would wait if it were tried with less.
    """
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [(action(), None)]
        except (PersonaError, OSError) as error:
            outcome = [(None, error)]
        except (RuntimeError, MemoryError) as error:
            if accelerator.num_processes == 1 or not out_of_memory(error):
                raise
            outcome = [(None, NoMemory("There is too little memory. Take a smaller --base, or fewer processes."))]
    broadcast_object_list(outcome)
    result, failure = outcome[0]
    if failure:
        failure.told = not accelerator.is_main_process
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
