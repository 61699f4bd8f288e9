"""How different two pictures look, without a trained model."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDES = (32, 16, 8, 4)  # cells a side, from fine to coarse; finer detail moves with every seed and means little

# Björn Ottosson, "A perceptual color space for image processing" (2020): linear sRGB to cone responses to Oklab.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def look(image: Image.Image) -> NDArray[np.float64]:
    """Describe what a picture looks like from afar, so that distances between descriptions are those seen.

    Colours in Oklab, whose distances are even to the eye, at four scales that count the same. The description of a
    black picture and that of a white one are 1 apart.

    Returns:
        vector of 4,080 numbers for a picture of any size and mode.
    """
    levels = [_oklab(image.convert("RGB").resize((side, side), Image.Resampling.BOX)) for side in _SIDES]
    return np.concatenate([level.ravel() / side for level, side in zip(levels, _SIDES, strict=True)]) / 2


def distance(a: Image.Image, b: Image.Image) -> float:
    """Return how different two pictures look: 0 for the same, 1 for black and white."""
    return float(np.linalg.norm(look(a) - look(b)))


def _oklab(image: Image.Image) -> NDArray[np.float64]:
    encoded = np.asarray(image, np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    lab: NDArray[np.float64] = np.cbrt(linear @ _CONES.T) @ _OKLAB.T
    return lab
