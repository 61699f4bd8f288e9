"""Subjects cut out of their pictures, and set on grey for a network to look at."""

import numpy as np
from PIL import Image

from persona.metrics import Mask
from persona.placing import Box

MARGIN = 0.05
"""Of the longer side of what is cut out, on each side of it."""


def box_of(mask: Mask) -> Box:
    """Return what a mask takes up at least; it must not be empty."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        float(columns[0]) / width, float(rows[0]) / height,
        float(columns[-1] + 1) / width, float(rows[-1] + 1) / height,
    )  # fmt: skip


def pixels_of(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box in whole pixels of a picture of that width and height; it has at least one."""
    left, top = (min(round(box[i] * size[i]), size[i] - 1) for i in (0, 1))
    right, bottom = (max(round(box[i + 2] * size[i]), start + 1) for i, start in enumerate((left, top)))
    return left, top, min(right, size[0]), min(bottom, size[1])


def cut(picture: Image.Image, mask: Mask) -> Image.Image:
    """Cut a subject out.

    Args:
        picture: of any mode and of the mask's size.
        mask: where the subject is; it must not be empty.

    Returns:
        RGBA, transparent beside the subject, as large as the subject with :data:`MARGIN` around.
    """
    whole = picture.convert("RGB")
    whole.putalpha(Image.fromarray(mask.astype(np.uint8) * 255))
    left, top, right, bottom = pixels_of(box_of(mask), picture.size)
    margin = round(MARGIN * max(right - left, bottom - top))
    around = max(left - margin, 0), max(top - margin, 0)
    return whole.crop((*around, min(right + margin, picture.width), min(bottom + margin, picture.height)))


def squared(cutout: Image.Image, side: int, grey: tuple[int, int, int] = (127, 127, 127)) -> Image.Image:
    """Return a cutout in the middle of a square, (side, side) RGBA: grey wherever it is transparent, alpha as it was.

    Args:
        cutout: RGBA of any size.
        side: in pixels.
        grey: 8-bit RGB.
    """
    scale = side / max(cutout.size)
    small = cutout.resize([max(1, round(length * scale)) for length in cutout.size], Image.Resampling.BICUBIC)
    page = Image.new("RGBA", (side, side), (*grey, 0))
    page.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    alpha = page.getchannel("A")
    colours = Image.new("RGBA", page.size, (*grey, 255))
    colours.alpha_composite(page)
    colours.putalpha(alpha)
    return colours
