"""Pictures of nothing in particular, the same each time, and where the photographs of the public data set are."""

import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image

DREAMBENCH = Path(os.environ.get("PERSONA_DREAMBENCH", "no-dreambench"))


def grain(size: tuple[int, int], deviation: float, seed: int = 0) -> Image.Image:
    """Return grey noise around the middle, in RGB."""
    noise = np.random.default_rng(seed).normal(128, deviation, size[::-1])
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")


def exif_of(*tags: tuple[int, int, int]) -> bytes:
    """Return EXIF of tags by their number, type and value; 38 is where a negative fraction is, behind two tags."""
    entries = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in tags)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<Iii", 0, -1, 1)
