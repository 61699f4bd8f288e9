"""Photos of any shape, as batches of tensors: each is cut as little as the base allows."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from persona.events import Listener, Note, silent
from persona.photos.advice import some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from persona.photos.reading import Photo

Size = tuple[int, int]
"""Width and height in pixels."""

ASPECTS = (1.0, 4 / 3, 3 / 2, 16 / 9, 2.0)
"""Shapes of the buckets, long side over short: those of cameras and phones. Few, so that photos share them."""

ENLARGED = 1.25
"""Enlargement from which a photo is called too small."""

_ZOOM = 1.15  # the closest crop: closer ones would cut the subject off
_OPAQUE = [0] * 128 + [255] * 128  # what counts for where the subject is: programs that cut out leave haze


def buckets(
    photos: Sequence[Photo], resolution: int, multiple_of: int, widest: float = 2.0, listener: Listener = silent
) -> dict[Size, list[Photo]]:
    """Give every photo the size that it is trained at: of about the same area, of nearly its own shape.

    Args:
        photos: all of them come back, in the order given.
        resolution: side in pixels of the square that has the area of all buckets.
        multiple_of: what both sides must be a multiple of, in pixels.
        widest: longest side over shortest that the base was made for; 1 for squares only.
        listener: told which photos are too small for it.
    """
    found: dict[Size, list[Photo]] = defaultdict(list)
    small = []
    for photo in photos:
        size = _fit(photo.image.size, resolution, multiple_of, widest)
        found[size].append(photo)
        if max(size[0] / photo.image.width, size[1] / photo.image.height) > ENLARGED:
            small.append(f"{photo.name} ({photo.image.width}x{photo.image.height})")
    if small:
        hint = f"smaller than the {resolution} pixels trained on. Take larger ones, or a lower --resolution."
        listener(Note(f"{some(small)}: {hint}", warning=True))
    return dict(found)


def _fit(size: Size, resolution: int, multiple_of: int, widest: float) -> Size:
    """Return the size of the bucket whose shape is nearest."""
    wanted = max(size) / min(size)
    aspect = min((a for a in ASPECTS if a <= widest), key=lambda a: abs(math.log(a / wanted)))
    long, short = (max(1, round(resolution * side / multiple_of)) * multiple_of for side in (aspect**0.5, aspect**-0.5))
    return (long, short) if size[0] >= size[1] else (short, long)


def crops(photo: Photo, size: Size, count: int, flip: bool, seed: int) -> Tensor:
    """Cut several crops of a photo, and mirror them.

    The first crop is the largest one of that shape; the others are a little closer, each elsewhere. Of a photo that was
    cut out they show as much of the subject as they can. They depend on the photo and the seed alone, not on the photos
    beside it.

    Args:
        photo: what is cut.
        size: of the crops, from :func:`buckets`.
        count: how many, at least 1.
        flip: add the mirror image of each behind them.
        seed: of the random crops.

    Returns:
        float32 of shape (count or 2 * count, 3, height, width), from -1 to 1.
    """
    return _crops(photo.image, photo, size, count, flip, seed)


def masks(photo: Photo, size: Size, count: int, flip: bool, seed: int) -> Tensor | None:
    """Cut the same crops as :func:`crops` of what a photo that was cut out shows, and of nothing else.

    Returns:
        float32 of shape (count or 2 * count, height, width), 1 where the subject is and 0 beside it; ``None`` of a
        photo that shows its background.
    """
    if photo.mask is None:
        return None
    return (_crops(photo.mask.convert("RGB"), photo, size, count, flip, seed)[:, 0] + 1) / 2


def _crops(image: Image.Image, photo: Photo, size: Size, count: int, flip: bool, seed: int) -> Tensor:
    import torch  # not above: to look at a folder takes none of the seconds that it takes

    random = np.random.default_rng([seed, int(photo.sha256[:16], 16)])
    cut = partial(_crop, image, size, subject=_subject(photo.mask))
    closer = [cut(random.uniform(1, _ZOOM), *random.random(2)) for _ in range(count - 1)]
    pixels = torch.stack([_tensor(one) for one in (cut(1.0, 0.5, 0.5), *closer)])
    return torch.cat([pixels, pixels.flip(-1)]) if flip else pixels


def middle(image: Image.Image, size: Size, mask: Image.Image | None = None) -> Tensor:
    """Return the largest crop of that shape around the middle, (3, height, width), float32 from -1 to 1.

    Args:
        image: what is cut.
        size: of the crop.
        mask: grey, of the image's size, white where the subject is, onto which the crop is moved.
    """
    return _tensor(_crop(image, size, 1.0, 0.5, 0.5, _subject(mask)))


def _subject(mask: Image.Image | None) -> tuple[int, int, int, int] | None:
    """Return the box of what a mask shows, in pixels, if there is anything."""
    return mask.point(_OPAQUE).getbbox() if mask else None


def _crop(
    image: Image.Image, size: Size, zoom: float, x: float, y: float, subject: tuple[int, int, int, int] | None = None
) -> Image.Image:
    """Cut the part of the picture that lies at (x, y) of the room there is, each from 0 to 1; or nearer a subject."""
    scale = min(image.width / size[0], image.height / size[1]) / zoom
    # Rounding must not lead out of the picture: Pillow refuses a box that does by a hair.
    width, height = min(size[0] * scale, image.width), min(size[1] * scale, image.height)
    left, top = (image.width - width) * x, (image.height - height) * y
    if subject:
        left, top = _onto(left, width, subject[0], subject[2]), _onto(top, height, subject[1], subject[3])
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3)


def _onto(start: float, length: float, first: float, last: float) -> float:
    """Move a stretch as little as brings it onto another, or into it where that is longer; return its start."""
    low, high = sorted((first, last - length))
    return min(max(start, low), high)


def _tensor(image: Image.Image) -> Tensor:
    import torch

    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1
