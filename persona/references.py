"""References: pictures of a subject that it is drawn from, without training on them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from persona import segment
from persona.drawing import Size
from persona.errors import out_of_memory
from persona.events import Listener, Note
from persona.families import Family
from persona.identity import bare
from persona.methods.jedi import JeDi, References
from persona.photos import Photo, middle
from persona.photos.advice import some
from persona.placing import any_of
from persona.score import odd_ones


def prepare(base: Family, photos: Sequence[Photo], class_noun: str, size: Size) -> References:
    """Encode photos as references.

    Args:
        base: encodes them.
        photos: at least one. Those that are cut out are masked; the caption of one without is what it is, no more, as
            half of those were that JeDi has learnt from.
        class_noun: what they show.
        size: width and height that they are seen at, in pixels: their middles are, or where what is cut out is.

    Raises:
        BadBase: the autoencoder overflows.
    """
    seen = [middle(photo.image, size, photo.mask)[None] for photo in photos]
    latents = torch.cat([base.encode_images(one, Generator().manual_seed(0)) for one in seen])
    captions = [photo.caption or f"a photo of {any_of(class_noun)}" for photo in photos]
    grid = (latents.shape[-1], latents.shape[-2])
    masks = torch.stack([_mask(photo, grid) for photo in photos]) if any(photo.mask for photo in photos) else None
    return References(latents, [bare(caption, class_noun) for caption in captions], masks)


def _mask(photo: Photo, grid: Size) -> Tensor:
    """Return where the subject is in what is seen of a photo, (h, w) of the latents: 1, and 0 elsewhere."""
    if photo.mask is None:
        return torch.ones(grid[1], grid[0])
    return (middle(photo.mask.convert("RGB"), grid, photo.mask)[0] > 0).float()


def tell_odd(base: Family, photos: Sequence[Photo], class_noun: str, listener: Listener) -> None:
    """Warn of photos that seem to show something else than the others, or nothing."""
    if empty := some(photo.name for photo in photos if photo.mask and not segment.shown(photo.mask).any()):
        listener(Note(f"{empty}: fully transparent, so nothing is seen there. Take it out.", warning=True))
    if odd := some(photos[place].name for place in odd_ones(base, [photo.image for photo in photos], class_noun)):
        hint = f"not the same {class_noun} as on the others, it seems. Take out what does not show the subject."
        listener(Note(f"{odd}: {hint}", warning=True))


def fitting(jedi: JeDi, references: References, pictures: int, size: Size, listener: Listener) -> References:
    """Return the first of the references: as many as there is memory for, which a single step tells.

    Args:
        jedi: draws from them.
        references: all of them.
        pictures: how many will see them and each other at a time.
        size: width and height of those, in pixels.
        listener: told if some are left out. Where memory is short, the base draws in tiles from here on.
    """
    number = total = len(references.latents)
    while number > 1:
        try:
            shown = _first(references, number)
            jedi.draw([""] * pictures, range(pictures), references=shown, together=True, steps=1, size=size)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if jedi.base.pipe.vae.use_tiling:
                number //= 2
            else:  # it may have been the decoder, which sees no references
                jedi.base.tile()
        else:
            break
    if number < total:
        listener(Note(f"Memory is short: {number} of the {total} references are used.", warning=True))
    return _first(references, number)


def _first(references: References, number: int) -> References:
    masks = None if references.masks is None else references.masks[:number]
    return replace(references, latents=references.latents[:number], prompts=references.prompts[:number], masks=masks)
