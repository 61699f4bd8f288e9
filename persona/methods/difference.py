"""What a method changes in a network: a difference to some of its weights, learnt and kept apart from them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from persona.errors import BadOption


class _Plus(nn.Module):
    """A frozen weight, and what is added to it, in float32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.difference = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))
        self.counts = True

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.difference if self.counts else weight


class Difference:
    """Adds to the weights of some modules of a network; nothing at the start."""

    def __init__(self, network: nn.Module, targets: Sequence[str]) -> None:
        """Join differences to all weights of the modules whose names end in one of the targets.

        Raises:
            BadOption: the network has no module of one of these names.
        """
        self._network = network
        names = {
            target: {
                f"{path}.{name}"
                for path, module in network.named_modules()
                for name, _ in module.named_parameters()
                if f".{path}".endswith(f".{target}")
            }
            for target in targets
        }
        if unknown := [target for target, found in names.items() if not found]:
            raise BadOption(f"The base has no module named {', '.join(unknown)}. Leave that --target out.")
        self._added: dict[str, _Plus] = {}
        for name in sorted(set[str]().union(*names.values())):
            owner, leaf = self._place(name)
            plus = _Plus(getattr(owner, leaf))
            register_parametrization(owner, leaf, plus, unsafe=True)  # a bf16 weight becomes a float32 sum
            self._added[name] = plus

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is added, by the name of the weight in the network."""
        return {name: plus.difference for name, plus in self._added.items()}

    @contextmanager
    def without(self) -> Iterator[None]:
        """Let the network be as it was, to the bit; sums that were cached would not notice."""
        for plus in self._added.values():
            plus.counts = False
        try:
            yield
        finally:
            for plus in self._added.values():
                plus.counts = True

    def remove(self) -> None:
        """Leave the network's weights as they were, to the bit."""
        for name in self._added:
            remove_parametrizations(*self._place(name), leave_parametrized=False)

    def _place(self, name: str) -> tuple[nn.Module, str]:
        path, _, leaf = name.rpartition(".")
        return self._network.get_submodule(path), leaf
