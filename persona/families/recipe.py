"""What a family of base models recommends, so that its users need no knob."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from persona.errors import BadBase

RECIPE = "recipe.json"
"""What a base's own settings are called in its folder."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention layers of a denoiser."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings that suit three to six photos.

    Attributes:
        resolution: side of the pictures in pixels; ``None`` for the base's own.
        max_aspect_ratio: longest side over shortest of the pictures that the base was made for; 1 for squares only.
        steps_per_photo: training steps for each photo ...
        min_steps: ... but no fewer ...
        max_steps: ... and no more.
        rank: rank of the adapter; its alpha is the same.
        targets: modules of the denoiser that are adapted, by the end of their names.
        ood_steps: training steps where photos are out of distribution, which is to show what the base was never
            shown, be they few or many; 0 for a base that was shown photographs.
        ood_targets: modules that are adapted then.
        learning_rate: of the denoiser's adapter.
        text_learning_rate: of the text encoders' adapters.
        pretraining_rate: highest learning rate of what methods are pretrained by, which changes the weights themselves.
        text_encoder: whether the text encoders are adapted as well.
        batch: photos in a step, and as many pictures of the class.
        snr_gamma: min-SNR weighting; 0 weighs all times alike.
        crops: crops encoded of each photo.
        gradient_checkpointing: whether activations are computed twice to save memory even where there is enough.
        checkpoint_every: steps between checkpoints.
        score_every: steps between scored previews.
        priors: pictures of the class.
        sample_steps: steps of the base's own sampler.
        prior_sample_steps: steps of the ancestral sampler, which draws pictures of the class and needs more.
        guidance: how strongly the prompt is followed.
        guidance_start: share of the sampler's steps after which guidance starts. Where noise is strongest it harms: it
            leads to few compositions, and not to the likely ones (Kynkäänniemi et al., 2404.07724).
    """

    resolution: int | None = None
    max_aspect_ratio: float = 2.0
    steps_per_photo: int = 100
    min_steps: int = 400
    max_steps: int = 800
    rank: int = 16
    targets: tuple[str, ...] = ATTENTION
    ood_steps: int = 0
    ood_targets: tuple[str, ...] = ()
    learning_rate: float = 1e-4
    text_learning_rate: float = 1e-5
    pretraining_rate: float = 5e-5
    text_encoder: bool = False
    batch: int = 1
    snr_gamma: float = 0.0
    crops: int = 4
    gradient_checkpointing: bool = False
    checkpoint_every: int = 50
    score_every: int = 100
    priors: int = 100
    sample_steps: int = 30
    prior_sample_steps: int = 50
    guidance: float = 7.5
    guidance_start: float = 0.0

    def steps(self, photos: int) -> int:
        """Return how many steps to train on so many photos."""
        return min(max(self.steps_per_photo * photos, self.min_steps), self.max_steps)

    def adjusted(self, path: Path) -> "Recipe":
        """Return the recipe with what a base's own ``recipe.json`` says instead, if it has one.

        Raises:
            BadBase: the file is no JSON object of these settings, or one of them cannot be what it says.
        """
        if not path.is_file():
            return self
        try:
            said = _read(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:
            raise BadBase(f"{path} is no JSON object ({error}). Correct or remove it.") from error
        if unknown := sorted(said.keys() - asdict(self).keys()):
            told = f"{path} has unknown keys: {', '.join(unknown)}."
            raise BadBase(f"{told} Correct or remove them: `persona info clay --json` shows those that there are.")
        for name, value in said.items():
            if not _possible(name, value):
                raise BadBase(f"{path}: {name} cannot be {json.dumps(value)}. Correct or remove it.")
        return replace(self, **said)


def _possible(name: str, value: Any) -> bool:
    """Tell whether a setting can have a value: of the kind of its usual one, and large enough."""
    usual = getattr(Recipe(), name)
    if isinstance(usual, bool):
        return isinstance(value, bool)
    if isinstance(usual, tuple):
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    if usual is None and value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, (int, float) if isinstance(usual, float) else int):
        return False
    least = 0 if isinstance(usual, float) or name in ("ood_steps", "score_every") else 1
    return math.isfinite(value) and value >= least


def _read(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that JSON gives, their lists as tuples again."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
