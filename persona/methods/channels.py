"""New input channels of a U-Net, which begin as if they were not there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from persona.errors import BadBase
from persona.families import Family


def first_convolution(base: Family, title: str) -> nn.Conv2d:
    """Return what new channels are joined to.

    Args:
        base: whose network it is in.
        title: what the method is called that needs it.

    Raises:
        BadBase: the base is no U-Net, or packed.
    """
    first = getattr(base.denoiser, "conv_in", None)
    if not isinstance(first, nn.Conv2d):
        raise BadBase(f"{base.name} is no U-Net, and {title} needs one. Take clay, sd15 or sdxl.")
    if base.bits:
        raise BadBase(f"{title} needs {base.name} in full, and memory is too short for more than {base.bits}.")
    return first


class Channels(nn.Module):
    """A convolution of the new channels alone, added to what the network's first one makes of the latents.

    That is the first convolution made wider, written as a sum; zero at the start, it changes nothing.
    """

    def __init__(self, first: nn.Conv2d, channels: int) -> None:
        """Join the new channels to a network's first convolution, on its device."""
        super().__init__()
        wide = first.weight.new_zeros(first.out_channels, channels, *first.kernel_size, dtype=torch.float32)
        self.weight = nn.Parameter(wide)
        self._given: Tensor | None = None
        self._handle = first.register_forward_hook(self._add)

    @contextmanager
    def given(self, values: Tensor) -> Iterator[None]:
        """Let the next forward passes see values (rows, channels, h, w); without them there is nothing to add."""
        self._given = values
        try:
            yield
        finally:
            self._given = None

    def remove(self) -> None:
        """Leave the first convolution as it was."""
        self._handle.remove()

    def _add(self, first: nn.Conv2d, _: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if self._given is None:
            return out
        weight = self.weight.to(out.device)  # an idle network, and what was joined to it, may wait elsewhere
        return out + nn.functional.conv2d(self._given, weight, stride=first.stride, padding=first.padding)
