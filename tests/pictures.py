"""Pictures of nothing in particular, the same each time, and where the photographs of the public data set are."""

from pathlib import Path

import numpy as np
from PIL import Image

DREAMBENCH = Path(__file__).parent.parent.parent / "shared/dreambench"


def grain(size: tuple[int, int], deviation: float, seed: int = 0) -> Image.Image:
    """Return grey noise around the middle, in RGB."""
    noise = np.random.default_rng(seed).normal(128, deviation, size[::-1])
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")
