"""What the networks that look at clay's pictures are built of."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import init

from persona.errors import BadBase

N = TypeVar("N")


def opened(load: Callable[[Path], N], folder: Path, what: str) -> N:
    """Return a network that a base ships with.

    Args:
        load: that of its class.
        folder: that holds it.
        what: it is called in the message.

    Raises:
        BadBase: its file is damaged, or of another version.
    """
    try:
        return load(folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadBase(
            f"The {what} in {folder} is damaged, or of another version. Fetch or copy that base again."
        ) from error


class Block(nn.Module):
    """A residual block (He et al. 2016, "Identity mappings"), which adds nothing at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, last = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.layers = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), first, nn.BatchNorm2d(width), nn.ReLU(), last)
        init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, width, h, w) of maps of the same shape."""
        inner: Tensor = self.layers(x)
        return x + inner


def convolved(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a normed 3x3 convolution; with a stride of 2 it leads to half the resolution."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), convolution)
