"""Read the files of other programs: kohya's, diffusers' of any age, ComfyUI's, OneTrainer's."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from persona.errors import BadPersona
from persona.exchange.names import Rows, table
from persona.exchange.product import Module, Product
from persona.families import Family

_FACTOR = re.compile(r"(.+?)[._]lora(?:_linear_layer)?[._](down|up|A|B)(?:\.default)?\.weight")
_DOWN = ("down", "A")
_ALPHA = ".alpha"
_SETTINGS = "lora_adapter_metadata"


def read(path: Path, base: Family) -> dict[Module, Product]:
    """Read a LoRA of any program that was made for this base.

    Args:
        path: the file.
        base: an outline is enough.

    Raises:
        BadPersona: it is damaged, no safetensors, no LoRA, or was made for another base.
    """
    names = table(base)
    products: dict[Module, Product] = {}
    for name, factors in _factors(path).items():
        rows = names.get(_modern(name))
        product = _shaped(factors, rows[0].shape) if rows else factors
        if rows is None or not _fits(product, rows):
            what = "does not have" if rows is None else "has in another size"
            told = f"{path} is for another base: it adapts {name}, which {base.name} {what}."
            raise BadPersona(f"{told} Give the base that it was made for.")
        products |= _split(product, rows)
    return products


def _factors(path: Path) -> dict[str, Product]:
    """Return the products in a file by the names that it gives them, each with its scale."""
    found: dict[str, dict[str, Tensor]] = {}
    tensors, told = _contents(path)
    for key, tensor in tensors.items():
        if match := _FACTOR.fullmatch(key):
            found.setdefault(match[1], {})["down" if match[2] in _DOWN else "up"] = tensor.float()
        elif key.endswith(_ALPHA):
            found.setdefault(key.removesuffix(_ALPHA), {})["alpha"] = tensor.float()
        else:
            raise BadPersona(f"{path} is no plain LoRA: it holds {key}. Only products of two factors can be imported.")
    for name, parts in found.items():
        if not {"down", "up"} <= parts.keys():
            raise BadPersona(f"{path} lacks a factor of {name}. Fetch it again.")
        down, up, alpha = parts["down"], parts["up"], parts.get("alpha", torch.ones(()))
        if down.ndim < 2 or up.ndim != down.ndim or not len(down) or alpha.numel() != 1:
            raise BadPersona(f"{path} is damaged: what it holds of {name} is no product. Fetch it again.")
        if not all(part.isfinite().all() for part in parts.values()):
            raise BadPersona(f"{path} is damaged: what it holds of {name} is not finite. Fetch it again.")
    return {name: Product(parts["down"], parts["up"] * _scale(name, parts, told)) for name, parts in found.items()}


def _scale(name: str, parts: Mapping[str, Tensor], told: Mapping[str, Any]) -> float:
    """Return alpha over rank; without an alpha it is meant to be the rank.

    Args:
        name: of the module.
        parts: its factors, and its alpha where that is a tensor.
        told: what diffusers writes since 0.34 instead: peft's settings, each with the network's name before it.
    """
    rank = len(parts["down"])
    if "alpha" in parts:
        return parts["alpha"].item() / rank
    network, _, module = name.partition(".")
    patterns: Mapping[str, float] = told.get(f"{network}.alpha_pattern") or {}
    alphas = (alpha for key, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module))
    alpha = next(alphas, told.get(f"{network}.lora_alpha") or rank)
    return alpha / (math.sqrt(rank) if told.get(f"{network}.use_rslora") else rank)


def _contents(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors in a file, and the settings that diffusers has written beside them."""
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get(_SETTINGS, "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no mapping
            return tensors, dict(told)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise BadPersona(f"{path} cannot be read: it is missing, damaged or no safetensors file.") from error


def _modern(name: str) -> str:
    """Return a name as today's files have it: early ones of diffusers named attention by its processor."""
    name = name.removeprefix("base_model.model.").replace(".processor.", ".")
    if ".self_attn.to_" in name:
        return re.sub(r"\.to_(\w+)$", r".\1_proj", name)
    return f"{name}.0" if name.endswith(".to_out") else name


def _shaped(factors: Product, shape: tuple[int, ...]) -> Product:
    """Return a product in the form of a weight: a linear layer and a 1x1 convolution are the same.

    kohya trains ``proj_in`` and ``proj_out`` of Stable Diffusion 2 as convolutions, which are linear here.
    """
    down, up = factors.down, factors.up
    if math.prod((*down.shape[2:], *up.shape[2:], *shape[2:])) != 1:
        return factors
    ones = (1,) * (len(shape) - 2)
    return Product(down.reshape(*down.shape[:2], *ones), up.reshape(*up.shape[:2], *ones))


def _fits(factors: Product, rows: tuple[Rows, ...]) -> bool:
    down, up = factors.down.shape, factors.up.shape
    inside = all(one.shape[1:] == tuple(down[1:]) for one in rows)
    return inside and up[0] == rows[-1].end and up[1] == down[0]


def _split(factors: Product, rows: tuple[Rows, ...]) -> Iterator[tuple[Module, Product]]:
    """Yield what each of our modules has of a product; of a fused one only the ranks that reach it."""
    if len(rows) == 1:
        half = rows[0].shape[0] // 2 if rows[0].turned else 0
        yield rows[0].module, Product(factors.down, factors.up.roll(half, 0))
        return
    for one in rows:
        up = factors.up[one.start : one.end]
        used = torch.nonzero(up.flatten(1).any(0)).flatten()
        if len(used):
            yield one.module, Product(factors.down[used], up[:, used])
