"""Personalization methods: one file a method, and the contract with the training loop."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

__all__ = ["Method"]


class Method(Protocol):
    """What the training loop asks of a method.

    All randomness of an example belongs to its slot, a number that counts the examples of the whole run: whoever
    computes a slot, in whatever batch, process or resumed run, draws the same picture, time and noise.
    """

    def loss(self, slots: Sequence[int], total: int) -> Tensor:
        """Return what these slots contribute to the loss of a step.

        Args:
            slots: numbers of the examples, counted from the beginning of the run.
            total: slots of the whole step, over all its batches and processes.

        Returns:
            A scalar with a gradient; the step's loss is the sum over its batches and processes.
        """
