"""Weights that are shared out: each process holds some rows of each, and all of a block only while that computes.

This is FSDP (Zhao et al., 2304.11277) as torch's ``fully_shard`` does it. Gradients, averages and an optimizer's state
are shared out with the weights; on disk all of them are as a process alone would write them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def shard(network: Any, accelerator: Accelerator) -> None:
    """Share out a network's weights among the processes, by the blocks that diffusers says are not to be split.

    From now on all processes have to call the network together, and its gradients come added up.

    Args:
        network: of diffusers, on this process's device, with all that is joined to it; its weights are contiguous.
        accelerator: knows the other processes.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    named = {module for module in network.modules() if type(module).__name__ in network._no_split_modules}
    blocks = [block for block in network.modules() if named.intersection(block.modules()) == {block}]
    for unit in (*blocks, network):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)  # of what there is, gloo can only add
    for block in blocks:
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(partial(_await, block))


def _await(block: FSDPModule, layer: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
    """Let a block be gathered when a gradient enters it elsewhere than by its output, where torch waits for it.

    Keys and values of JeDi's references leave their block by themselves, and the last one's output is not used at all.
    """
    if out.requires_grad:
        out.register_hook(lambda _: _gather(block))  # type: ignore[no-untyped-call]  # torch's hooks are untyped


def _gather(block: Any) -> None:
    if any(isinstance(parameter, DTensor) for parameter in block.parameters()):
        block.unshard()


def part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, in the same memory and without a gradient: all unless shared out."""
    held = tensor.detach()
    return held.to_local() if isinstance(held, DTensor) else held


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; if it is shared out, on the CPU, and all processes have to ask for it together."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def shared(value: Tensor, parameter: Tensor) -> Tensor:
    """Share out a value that every process has as a parameter is; it stays whole if that is."""
    if not isinstance(parameter, DTensor):
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def gather_state(optimizer: Optimizer, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the state of parameters as that of a flat one of all of them: as a process alone would have it."""
    states = [optimizer.state[parameter] for parameter in parameters]
    return {
        name: torch.cat([whole(state[name]).flatten().cpu() for state in states]) if value.dim() else value
        for name, value in states[0].items()
    }


def share_state(optimizer: Optimizer, parameters: Sequence[Tensor], flat: Mapping[str, Tensor]) -> None:
    """Give an optimizer the state of a flat parameter for the parameters that it is made of."""
    for name, value in flat.items():
        sizes = [parameter.numel() for parameter in parameters]
        values = torch.split(value, sizes) if value.dim() else [value.clone() for _ in sizes]
        for parameter, one in zip(parameters, values, strict=True):
            held = shared(one.view(parameter.shape), parameter).to(parameter.device) if value.dim() else one
            optimizer.state[parameter][name] = held
