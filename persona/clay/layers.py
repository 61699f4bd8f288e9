"""What the networks that look at clay's pictures are built of."""

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import init

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
"""What loading such a network raises where its file is damaged, or of another version."""


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
