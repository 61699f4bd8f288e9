"""Frozen linear layers in 4 or 8 bits, unpacked for each product and not kept.

bitsandbytes packs and unpacks, but its layers are not used: on CPUs with AVX-512 they turn for good, once they have
been used without a gradient, into a form that has none; and in 8 bits they round what goes through them to float16,
in which T5 overflows.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from persona.errors import BadOption

Bits = Literal["nf4", "int8"]
"""The number formats that weights are packed in: 4 bits in blocks of 64 (Dettmers et al., 2305.14314, section 3), or 8
bits with a scale for each row (2208.07339, section 2)."""

BLOCK = 64
"""Weights that share a scale in 4 bits."""


class PackedLinear(nn.Linear):
    """A frozen linear layer, which takes the place of one that holds its weights as they are.

    Everything about it is as in ``nn.Linear``, but that ``weight`` is made anew each time it is asked for.
    """

    packed: Tensor
    scales: Tensor

    def __init__(self, layer: nn.Linear, bits: Bits) -> None:
        """Pack a layer's weights (out, in), on the device where they are."""
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.bits, self.format = bits, layer.weight.dtype
        packed, scales = _pack4(layer.weight.detach()) if bits == "nf4" else _pack8(layer.weight.detach())
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # what reads a layer's weight reads this one's too
        """The weights (out, in), as near as they were kept."""
        if self.bits == "int8":
            return self.packed.to(self.format).mul_(self.scales)
        return _unpack4(self.packed, self.scales, (self.out_features, self.in_features), self.format)

    def forward(self, x: Tensor) -> Tensor:
        """Return what ``nn.Linear`` would, (..., in) to (..., out)."""
        product: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """A product with packed weights, whose backward pass unpacks them again: to keep them would undo the packing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weight = ctx.layer.weight
        return gradients[0].to(weight.dtype) @ weight, None


def pack(network: nn.Module, bits: Bits, device: torch.device) -> None:
    """Pack all linear layers of a frozen network, each on the device, so that only one is ever there unpacked."""
    for name in [name for name, layer in network.named_modules() if type(layer) is nn.Linear]:
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)  # noqa: S101  # for the types
        network.set_submodule(name, PackedLinear(layer.to(device), bits))


def check(bits: Bits, device: torch.device) -> None:
    """Find out before the work whether weights can be packed on a device.

    Raises:
        BadOption: they cannot.
    """
    try:
        _ = PackedLinear(nn.Linear(BLOCK, 1, device=device), bits).weight
    except (ImportError, OSError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise BadOption(f"--quantize {bits} does not work on this {device.type} ({reason}). Leave it out.") from error


def _pack8(weights: Tensor) -> tuple[Tensor, Tensor]:
    scales = weights.float().abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weights / scales).round().to(torch.int8), scales


def _pack4(weights: Tensor) -> tuple[Tensor, Tensor]:
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(weights.contiguous(), blocksize=BLOCK, quant_type="nf4")
    return packed, state.absmax.to(torch.bfloat16)  # an eighth of a bit more than the paper's, and far simpler


def _unpack4(packed: Tensor, scales: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    from bitsandbytes.functional import QuantState, dequantize_4bit

    state = QuantState(scales.float(), shape=torch.Size(shape), blocksize=BLOCK, quant_type="nf4", dtype=dtype)
    weights: Tensor = dequantize_4bit(packed, state)
    return weights
