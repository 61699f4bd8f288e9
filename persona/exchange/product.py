"""What a LoRA adds to a weight: the product of two factors (Hu et al., 2106.09685), its scale within."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from persona.adapter import Make

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"

Module = tuple[str, str]
"""Component of the pipeline, and the module's path within it."""


@dataclass(frozen=True)
class Product:
    """What is added to a weight (out, in), or (out, in, h, w) of a convolution.

    Attributes:
        down: (rank, in) or (rank, in, h, w), float32.
        up: (out, rank) or (out, rank, 1, 1), float32, times whatever the product counts.
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """How many pairs of columns and rows it has."""
        return len(self.down)


def of_adapter(make: Make, weights: Mapping[str, Tensor]) -> dict[Module, Product]:
    """Return the products of a lora or rslora as it was read by :func:`persona.adapter.read`."""
    names = [key.removesuffix(_DOWN) for key in weights if key.endswith(_DOWN)]
    return {
        _module(name): Product(weights[name + _DOWN].float(), weights[name + _UP].float() * make.scale(name))
        for name in names
    }


def to_adapter(products: Mapping[Module, Product]) -> tuple[Make, dict[str, Tensor]]:
    """Return the make and the tensors of a lora with these products, as :func:`persona.adapter.pack` takes them."""
    ranks = {".".join(module): product.rank for module, product in products.items()}
    most = max(ranks.values())
    weights = {".".join(module) + _DOWN: product.down.contiguous() for module, product in products.items()}
    weights |= {".".join(module) + _UP: product.up.contiguous() for module, product in products.items()}
    return Make(rank=most, alpha=most, targets=(), ranks=ranks), weights


def _module(name: str) -> Module:
    component, _, path = name.partition(".")
    return component, path


def difference(ours: Mapping[Module, Product], theirs: Mapping[Module, Product]) -> float:
    """Return by how much two adapters differ in the weights that they add, over what the first one adds.

    The largest over the modules of ``|B A - B' A'| / |B A|`` in Frobenius norms, worked out from the factors; infinite
    where only one of them adds anything to a module.
    """
    return max((_apart(ours.get(module), theirs.get(module)) for module in {**ours, **theirs}), default=0.0)


def _apart(one: Product | None, other: Product | None) -> float:
    if one is None or other is None:
        only = one or other
        return math.inf if only and _norm(only) else 0.0
    minus = Product(torch.cat([one.down, other.down]), torch.cat([one.up, -other.up], dim=1))
    norm, distance = _norm(one), _norm(minus)
    return distance / norm if norm else distance


def _norm(product: Product) -> float:
    """Return the Frobenius norm of a product: ``|U D|^2`` is the sum over ``U^T U`` times ``D D^T``."""
    down, up = product.down.flatten(1).double(), product.up.flatten(1).double()
    return float(((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt())
