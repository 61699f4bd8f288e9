"""The average of the weights over the last part of a run, which is what is drawn with, scored and kept.

At a constant learning rate weights never come to rest: they move about where they should be, and a checkpoint is where
they are just then. Their average is closer, at no cost.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.optim import Optimizer

EXPONENT = 3
"""The weights of a step count as its number to this power: half of the average is of the last sixth of a run, however
long that is."""


class Average:
    """A power function average (Karras et al., 2312.02696, eq. 2), which needs no length to be set."""

    def __init__(self, optimizer: Optimizer) -> None:
        """Begin with the parameters of an optimizer as they are."""
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._values = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in what the parameters are after a step, counted from 1."""
        torch._foreach_lerp_(self._values, self._parameters, 1 - (1 - 1 / step) ** (EXPONENT + 1))

    @contextmanager
    def worn(self) -> Iterator[None]:
        """Let the parameters have the averaged values for a while, and then their own again, to the bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, value in zip(self._parameters, self._values, strict=True):
            own = parameter.clone()
            parameter.copy_(value)
            value.copy_(own)
