"""Subjects that are taken out of their picture and set into another, of another place."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator as Random
from PIL import Image

from persona.families import Family
from persona.families.inpainting import inpaint
from persona.metrics import Mask
from persona.pretrain.collages.sieve import box_of

SHARE = (0.4, 0.75)
"""Of the picture's side that a subject's longer side takes up, from and to."""


def repaint(
    base: Family,
    prompts: Sequence[str],
    pictures: Sequence[Image.Image],
    masks: Sequence[Mask],
    side: int,
    random: Random,
    **how: int | float | None,
) -> list[Image.Image]:
    """Set each subject somewhere in a square, and let the base draw what lies around it.

    Args:
        base: draws.
        prompts: what each picture is to show.
        pictures: of any sizes.
        masks: where the subject is; not empty.
        side: of the squares, in pixels.
        random: says where, how large, and from which noise.
        how: passed on to :func:`persona.families.inpainting.inpaint`.

    Raises:
        BadBase: a picture is not finite.
    """
    placed = [set_down(picture, mask, side, random) for picture, mask in zip(pictures, masks, strict=True)]
    seeds = random.integers(2**62, size=len(placed)).tolist()
    batch, drawn = base.batch_of((side, side)), list[Image.Image]()
    for first in range(0, len(placed), batch):
        part = slice(first, first + batch)
        canvases, holes = zip(*placed[part], strict=True)
        drawn += inpaint(base, prompts[part], seeds[part], canvases, holes, **how)  # type: ignore[arg-type]
    return drawn


def set_down(picture: Image.Image, mask: Mask, side: int, random: Random) -> tuple[Image.Image, Image.Image]:
    """Place a subject in a square.

    Returns:
        The square, around the subject what lay around it before, and grey of the same size: white but for the subject.
    """
    left, top, right, bottom = box_of(mask)
    scale = side * random.uniform(*SHARE) / max(right - left, bottom - top)
    size = [max(1, round(length * scale)) for length in picture.size]
    across, down = (random.random() * (side - scale * length) for length in (right - left, bottom - top))
    corner = round(across - scale * left), round(down - scale * top)
    around = np.asarray(picture.convert("RGB"))[~mask]
    canvas = Image.new("RGB", (side, side), tuple(around.mean(0).astype(int).tolist()) if len(around) else "grey")
    canvas.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), corner)
    hole = Image.new("L", (side, side), 255)
    hole.paste(0, corner, Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST))
    return canvas, hole
