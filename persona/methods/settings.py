"""A run's settings with nothing left open: what the user said, and what the base recommends for the rest."""

from dataclasses import dataclass, fields
from typing import Any, Self

from persona.config import TrainConfig
from persona.families import Family


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of :class:`TrainConfig` that it may leave to the base; they mean the same here."""

    steps: int
    priors: int
    rank: int
    alpha: float
    targets: tuple[str, ...]
    text_encoder: bool
    learning_rate: float
    text_learning_rate: float
    batch: int
    resolution: int
    crops: int
    snr_gamma: float
    gradient_checkpointing: bool
    checkpoint_every: int
    score_every: int

    @classmethod
    def of(cls, config: TrainConfig, base: Family, photos: int) -> Self:
        """Fill in what the config leaves open, for so many photos."""
        recipe = base.recipe
        rank = config.rank or recipe.rank
        advised: dict[str, Any] = {
            "steps": recipe.steps(photos),
            "alpha": float(rank),
            "targets": base.targets,
            "resolution": base.resolution,
        }
        chosen = {}
        for name in (field.name for field in fields(cls)):
            said = getattr(config, name)
            chosen[name] = said if said is not None else advised[name] if name in advised else getattr(recipe, name)
        return cls(**chosen)
