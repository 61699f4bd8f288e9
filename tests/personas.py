"""Personas of a tiny base whose adapter is random but not nothing, as if something had been learnt."""

from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from persona import adapter, families
from persona.families import Family
from persona.folder import ADAPTER, Persona, step_name


def make(
    folder: Path, base_folder: Path, *, token: str = "zwx", class_noun: str = "dog", seed: int = 0, **other: Any
) -> Persona:
    """Write a persona, with checkpoints of the steps 1 and 2; what else is given says how its adapter is made."""
    base = families.load(str(base_folder), device="cpu")
    how = adapter.Make(**{"rank": 2, "alpha": 2, "targets": base.recipe.targets, **other})
    parameters = [p for part in adapter.attach(base, how, seed=seed).values() for p in part]
    random = torch.Generator().manual_seed(seed)
    for step in (1, 2):
        for parameter in parameters:
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.5
        path = folder / "checkpoints" / step_name(step) / ADAPTER
        path.parent.mkdir(parents=True)
        path.write_bytes(adapter.save(base))
    known: dict[str, Any] = {"base": str(base_folder), "base_hash": base.hash, "settings": {"adapter": how.kind}}
    return Persona(path=folder, token=token, class_noun=class_noun, step=2, **known).write(path)


def added(base: Family) -> dict[str, Tensor]:
    """Return what an adapter whose weights are products adds to each weight at strength 1, by the module's name."""
    return {
        f"{key}.{path}": layer.get_delta_weight(adapter.NAME).detach().float()
        for key, part in {base.denoiser_name: base.denoiser, **base.text_encoders}.items()
        for path, layer in part.named_modules()
        if isinstance(layer, BaseTunerLayer)
    }
