"""What pictures are measured by: each number has its one definition here, whatever network its embeddings come from.

Embeddings are unit vectors, one row a picture, (B, D), float32. Most numbers belong to one picture; those of a set are
their means, with intervals from :func:`interval`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Mask = NDArray[np.bool_]
"""(H, W) of a picture's own size: where its subject is."""
_Crop = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

CELLS = 16
"""Cells a side of a picture's layout: coarse enough to know a copy that is a little off, too fine for a likeness."""
LEAST_BACKGROUND = CELLS**2 // 8
"""Cells below which there is too little left of a background to compare."""
FLAT = 3.0
"""Grey levels of deviation below which a background shows nothing, but for a camera's noise."""
CLOSER = 1.08
"""How much closer a training's crop is than the largest one, typically; at most 1.15."""
COPY = 0.9
"""Likeness of layouts from which a picture counts as a copy of a photo.

None comes to it of 240 renders of the six subjects of ``examples/photos`` in places that no photo of theirs shows, of
those photos against the others of their subject, nor against those of other subjects; the highest are 0.84, 0.66 and
0.85, and 0.86 where the photos are cut to 4:3. Whole and unmirrored, 106 photos of DreamBench came to 0.84 at most.
"""
DRAWS = 1000
"""Times that an interval draws its data anew."""


def likeness(drawn: Tensor, photos: Tensor) -> Tensor:
    """Return the mean cosine (B,) of each picture (B, D) with all photos (P, D): -1 to 1.

    Of pictures of the subject this is DINO or CLIP-I (2208.12242, section 4.2); of its bare class PRES (section 4.4).
    """
    return (drawn @ photos.T).mean(1)


def among(photos: Tensor) -> Tensor:
    """Return the mean cosine (P,) of each photo (P, D), of at least two, with the others: what pictures can reach."""
    likenesses = photos @ photos.T
    return (likenesses.sum(1) - likenesses.diagonal()) / (len(photos) - 1)


def recovered(drawn: Tensor, photos: Tensor, others: Tensor, ceiling: float) -> Tensor:
    """Return how much of a subject's identity pictures show (B,): 0 is any of its class, 1 is as good as a photo.

    (sim(drawn, photos) - sim(others, photos)) / (sim(photos, photos) - sim(others, photos)), sim the mean cosine.

    Args:
        drawn: pictures (B, D) that should show the subject.
        photos: of the subject, (P, D).
        others: pictures (M, D) of others of its class.
        ceiling: mean cosine of photos of one subject, for where there is only one.
    """
    floor = likeness(others, photos).mean()
    top = among(photos).mean() if len(photos) > 1 else torch.tensor(ceiling)
    return (likeness(drawn, photos) - floor) / (top - floor).clamp(min=0.05)


def agreement(pictures: Tensor, texts: Tensor) -> Tensor:
    """Return the cosine (B,) of each picture (B, D) with its own text (B, D): CLIP-T (2208.12242, section 4.2)."""
    return (pictures * texts).sum(1)


def drift(before: Tensor, after: Tensor) -> Tensor:
    """Return (1 - cos) / 2, (B,) from 0 to 1, of what a base draws (B, D) and what it draws once adapted (B, D).

    Both of the same prompts and seeds: prompts that have nothing to do with the subject, or the bare class.
    """
    return (1 - (before * after).sum(1)) / 2


def leak(before: Tensor, after: Tensor) -> Tensor:
    """Return how much more identity is recovered, (B,), in what an adapted base draws of the bare class than before.

    What looks like the subject by chance is no leak; nor is less than any of its class, which counts as 0.

    Args:
        before: identity recovered in the base's own pictures, (B,).
        after: the same once adapted, (B,).
    """
    return after.clamp_min(0) - before.clamp_min(0)


def diversity(distances: Tensor) -> Tensor:
    """Return how far each picture (B,) of one prompt is from the others, given all their distances (B, B), B > 1.

    Of LPIPS distances, the mean is the DIV of 2208.12242, section 4.4.
    """
    return (distances.sum(1) - distances.diagonal()) / (len(distances) - 1)


# Copies


def memorisation(drawn: Sequence[Image.Image], photos: Sequence[Image.Image]) -> NDArray[np.float64]:
    """Return how like each picture's layout is to that of the nearest photo, (B,) from -1 to 1: near 1 is a copy.

    The correlation of their colours at 16x16, with the photo squeezed into the picture's shape, cut to it around the
    middle or a little closer, as training cuts it, or the mirror image of one of these; 0 where both are of one colour.
    """
    return np.nan_to_num(background_memorisation(drawn, photos, [None] * len(drawn), [None] * len(photos)))


def background_memorisation(
    drawn: Sequence[Image.Image],
    photos: Sequence[Image.Image],
    subjects: Sequence[Mask | None],
    photographed: Sequence[Mask | None],
) -> NDArray[np.float64]:
    """Return the same of what lies around the subject, which a prompt should have changed.

    Cells that the subject touches in either picture are left out; a mask may be unknown.

    Args:
        drawn: pictures.
        photos: at least one.
        subjects: where each picture's subject is.
        photographed: where each photo's is.

    Returns:
        (B,), not a number where no photo has enough background, or where that of the picture and that of a photo both
        show nothing: they cannot tell whether it is a copy.
    """
    views = {size: _views(photos, photographed, size) for size in {picture.size for picture in drawn}}
    nearest = []
    for picture, mask in zip(drawn, subjects, strict=True):
        cells, known = views[picture.size]
        kept = ~(known | _touched(mask).ravel())  # (V, 256)
        likenesses = _correlation(_layout(picture).reshape(1, -1, 3), cells, kept)
        enough = likenesses[kept.sum(1) >= LEAST_BACKGROUND]
        nearest.append(enough.max() if len(enough) else math.nan)
    return np.array(nearest)


def _views(
    photos: Sequence[Image.Image], masks: Sequence[Mask | None], size: tuple[int, int]
) -> tuple[NDArray[np.float64], Mask]:
    """Return the cells (V, 256, 3) of all that a picture of a size may show of photos, and those with a subject."""
    seen = []
    for photo, mask in zip(photos, masks, strict=True):
        for box in (None, _middle(photo.size, size, 1.0), _middle(photo.size, size, CLOSER)):
            cells, touched = _layout(photo, box), _touched(mask, box)
            seen += [(cells, touched), (cells[:, ::-1], touched[:, ::-1])]
    return np.stack([cells.reshape(-1, 3) for cells, _ in seen]), np.stack([touched.ravel() for _, touched in seen])


def _middle(size: tuple[int, int], shape: tuple[int, int], zoom: float) -> _Crop:
    """Return the largest box of a shape around the middle of a picture of a size, or a closer one, in pixels."""
    scale = min(size[0] / shape[0], size[1] / shape[1]) / zoom
    left, top = ((whole - side * scale) / 2 for whole, side in zip(size, shape, strict=True))
    # Rounding must not lead out of the picture: Pillow refuses a box that does by a hair.
    return max(left, 0.0), max(top, 0.0), min(size[0] - left, size[0]), min(size[1] - top, size[1])


def _layout(picture: Image.Image, box: _Crop | None = None) -> NDArray[np.float64]:
    """Return the colours (16, 16, 3) of a picture's cells, or of a part's."""
    return np.asarray(picture.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX, box), np.float64)


def _touched(mask: Mask | None, box: _Crop | None = None) -> Mask:
    """Return the cells (16, 16) that a subject touches."""
    if mask is None:
        return np.zeros((CELLS, CELLS), bool)
    shares = Image.fromarray(mask.astype(np.float32)).resize((CELLS, CELLS), Image.Resampling.BOX, box)
    return np.asarray(shares) > 0


def _correlation(one: NDArray[np.float64], others: NDArray[np.float64], kept: Mask) -> NDArray[np.float64]:
    """Return the correlation (P,) of cells (1, 256, 3) with others (P, 256, 3), over those that are kept (P, 256).

    Not a number where both are flat.
    """
    number = np.maximum(kept.sum(1), 1)[:, None, None] * 3

    def centred(cells: NDArray[np.float64]) -> NDArray[np.float64]:
        shown = np.where(kept[..., None], cells, 0.0)
        middle = shown.sum((1, 2), keepdims=True) / number
        return np.where(kept[..., None], shown - middle, 0.0)

    a, b = centred(one), centred(others)
    lengths = np.stack([np.linalg.norm(cells, axis=(1, 2)) for cells in (a, b)])
    flat = (lengths < FLAT * np.sqrt(number.ravel())).all(0)
    return np.where(flat, math.nan, (a * b).sum((1, 2)) / (lengths.prod(0) + 1e-6))


# What it comes to


def trade_off_of_photos(dino: float, clip_t: float, drift: float, copies: float) -> float:
    """Return what pictures of a real base are worth: likeness and prompt, less what the base has lost.

    A tenth of DINO and a twentieth of CLIP-T are about as visible (2208.12242, section 4.3). ``copies`` is the share of
    the pictures that are copies of a photo, which are worth nothing.
    """
    return (dino + 2 * clip_t) * (1 - copies) - drift


def trade_off_of_judge(identity: float, prompt: float, leak: float, copies: float) -> float:
    """Return what pictures of a base with a judge are worth: of the subject, and as asked.

    Args:
        identity: recovered, 0 to 1.
        prompt: share of right answers, 0 to 1.
        leak: into pictures of the bare class, by :func:`leak`; what is above a tenth is taken off.
        copies: share of the pictures that are copies of a photo, which are worth nothing.
    """
    return math.sqrt(max(identity, 0) * prompt) * (1 - copies) - max(leak - 0.1, 0)


def interval(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of the groups' means, by the bootstrap.

    Groups are drawn anew, then values in each.

    Args:
        groups: of values that belong together, such as a subject's prompts; each has at least one. A single group is
            not drawn anew itself.

    Returns:
        Low and high end; the same for the same values, and equal where there is only one.
    """
    rng = np.random.default_rng(0)
    sizes = np.array([len(group) for group in groups])
    table = np.zeros((len(groups), sizes.max()))
    for row, group in zip(table, groups, strict=True):
        row[: len(group)] = group
    chosen = rng.integers(len(groups), size=(DRAWS, len(groups)))
    among_own = sizes[chosen][..., None]
    places = rng.integers(among_own, size=(DRAWS, *table.shape))
    counted = np.arange(table.shape[1]) < among_own
    means = (table[chosen[..., None], places] * counted).sum(2) / sizes[chosen]
    low, high = np.quantile(means.mean(1), (0.025, 0.975))
    return float(low), float(high)
