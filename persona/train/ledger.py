"""What tensors take: how many bytes of them are alive at a time, and how many operations made them."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten
_FORMULAS = flop_registry | {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATEN._scaled_dot_product_flash_attention],
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _ATEN._scaled_dot_product_flash_attention_backward
    ],
}


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type it
    """Counts the bytes of every storage that comes to be while it is entered, until nothing refers to it any more.

    It sees each operation below autograd, so that what is kept for the backward pass counts, and so do tensors that
    have no data. What a kernel takes for itself and gives back before it returns is not seen.

    Attributes:
        held: bytes alive now.
        most: bytes alive at once at most, since the last stage began.
        operations: floating-point operations of matrix products, convolutions and attention since then.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.most = self.operations = 0
        self._alive = set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and enter what it has made."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func is torch.ops.prim.device.default:  # of all operations the most frequent: a question that makes nothing
            return made
        if formula := _FORMULAS.get(func._overloadpacket):
            self.operations += formula(*args, **kwargs, out_val=made)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _where(tensor).type != "meta":
                self._enter(tensor.untyped_storage())
        return made

    @contextmanager
    def stage(self, stages: dict[str, tuple[int, int]], name: str) -> Iterator[None]:
        """Note under a name what the block takes: the most bytes that are alive at once, and its operations."""
        self.most, self.operations = self.held, 0
        yield
        stages[name] = self.most, self.operations

    def _enter(self, storage: UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.held += size
            self.most = max(self.most, self.held)
            weakref.finalize(storage, self._leave, key, size).atexit = False

    def _leave(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.held -= size


def _where(tensor: Tensor) -> torch.device:
    """Return a tensor's device; to ask one without data for it is an operation of its own."""
    return getattr(tensor, "fake_device", None) or tensor.device
