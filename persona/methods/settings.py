"""A run's settings with nothing left open: what the user said, and what the base recommends for the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from torch import nn

from persona.adapter import Make
from persona.config import TrainConfig
from persona.drawing import size_of
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
    accumulate: int
    resolution: int
    crops: int
    snr_gamma: float
    optimizer: Literal["adamw8bit", "adamw"]
    quantize: Literal["none", "nf4", "int8"]
    gradient_checkpointing: bool
    offload: bool
    tiling: bool
    checkpoint_every: int
    score_every: int

    @classmethod
    def of(cls, config: TrainConfig, base: Family, photos: int) -> Self:
        """Fill in what the config leaves open, for so many photos.

        Raises:
            BadOption: the resolution is more than the base can draw at all.
        """
        config = replace(config, resolution=size_of(base, config.resolution)[0])  # what is trained in truth
        recipe = base.recipe
        rank = config.rank or recipe.rank
        advised: dict[str, Any] = {
            "steps": recipe.steps(photos),
            "alpha": float(rank),
            "optimizer": "adamw8bit",
            "quantize": "none",
            "offload": False,
            "tiling": False,
        }
        chosen = {}
        for name in (field.name for field in fields(cls)):
            said = getattr(config, name)
            left_open = said is None or said == "auto"
            chosen[name] = said if not left_open else advised[name] if name in advised else getattr(recipe, name)
        return cls(**chosen)

    def make(self, config: TrainConfig, base: Family) -> Make:
        """Return how the adapter is made."""
        return Make(
            kind=config.adapter,
            rank=self.rank,
            alpha=self.alpha,
            targets=self.targets,
            text_targets=base.text_targets if self.text_encoder else (),
        )

    def rates(self, base: Family, learning: Mapping[str, list[nn.Parameter]]) -> list[tuple[list[nn.Parameter], float]]:
        """Return the parameters of each component of the pipeline with their learning rate."""
        return [
            (parameters, self.learning_rate if part == base.denoiser_name else self.text_learning_rate)
            for part, parameters in learning.items()
        ]
