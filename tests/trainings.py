"""Trainings that end at once: a few steps on a tiny base, without class images."""

from pathlib import Path
from typing import Any

from persona.config import TrainConfig


def short(base: Path, photos: Path, out: Path, **other: Any) -> TrainConfig:
    """Return the settings of six steps, or of what else is given."""
    settings: dict[str, Any] = {"class_noun": "dog", "token": "sks", "steps": 6, "prior": "none", **other}
    return TrainConfig(photos=photos, base=str(base), out=out, **settings)
