"""Where the subject of a reference is, and the reference cut out: by what the user says, or by itself."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from persona.errors import BadOption
from persona.events import Listener, Note, silent
from persona.families import Family
from persona.hub import here
from persona.metrics import Mask
from persona.photos.cutouts import cut, pixels_of
from persona.placing import Box

SAMS = ("facebook/sam-vit-huge", "facebook/sam-vit-large", "facebook/sam-vit-base")
"""Segment Anything (Kirillov et al., 2304.02643) by hub id, the best first: the first that is on the disk is used."""


def cut_out(
    picture: Image.Image,
    *,
    base: Family,
    mask: Image.Image | None = None,
    box: Box | None = None,
    listener: Listener = silent,
) -> Image.Image:
    """Cut the subject out of a picture; see :func:`find`.

    Returns:
        RGBA, transparent beside the subject, as large as the subject with a small margin around.
    """
    return cut(picture, find(picture, base=base, mask=mask, box=box, listener=listener))


def find(
    picture: Image.Image,
    *,
    base: Family,
    mask: Image.Image | None = None,
    box: Box | None = None,
    listener: Listener = silent,
) -> Mask:
    """Find the subject of a picture: by a mask, or else by itself; never beside the box.

    By itself it is found by the segmenter that the base ships with, by ``rembg``, or by a SAM that is on this disk.
    With none of them, it is all of the picture or of the box, of which the listener is warned.

    Args:
        picture: RGB.
        base: whose world the picture is of.
        mask: of the picture's size, light where the subject is: its transparency, or what was drawn.
        box: that the subject is in, within the picture.
        listener: told how it is found, and warned if it could not be.

    Returns:
        Where the subject is, not empty, of the picture's size.

    Raises:
        BadOption: the mask shows nothing of the subject, or not in the box.
        BadBase: the segmenter that the base ships with is damaged, or of another version.
    """
    if mask is None:
        return _guessed(picture, box, base, listener)
    found = shown(mask) & _inside(picture, box)
    if not found.any():
        where = "box" if box else "image"
        raise BadOption(f"There is nothing of the subject in its {where}. Give another {where}.")
    return found


def shown(mask: Image.Image) -> Mask:
    """Return what a grey picture shows of its subject, of the same size."""
    return np.asarray(mask.convert("L")) > 127


def _inside(picture: Image.Image, box: Box | None) -> Mask:
    left, top, right, bottom = pixels_of(box or (0, 0, 1, 1), picture.size)
    inside = np.zeros((picture.height, picture.width), bool)
    inside[top:bottom, left:right] = True
    return inside


def _guessed(picture: Image.Image, box: Box | None, base: Family, listener: Listener) -> Mask:
    """Find the subject with what there is; where nothing is found, it is the whole picture, or all of the box."""
    within = _inside(picture, box)
    found, how = _sought(picture, box, base, listener)
    if found is not None and (found & within).any():
        return found & within
    whole = "its box" if box else "the reference"
    hint = f"{how}: all of {whole} counts as the subject. Give a --mask V=mask.png, or an image that is cut out."
    listener(Note(hint, warning=True))
    return within


def _sought(picture: Image.Image, box: Box | None, base: Family, listener: Listener) -> tuple[Mask | None, str]:
    """Return where the subject seems to be, and if that failed, why."""
    from persona.clay.segmenter import FOLDER, WEIGHTS

    if (base.folder / FOLDER / WEIGHTS).is_file():
        return _by_its_own(base.folder / FOLDER, picture), "No subject was found"
    if find_spec("rembg") and find_spec("onnxruntime"):  # rembg without its runtime prints and exits
        return _by_rembg(picture, listener)
    if folder := next(filter(None, map(here, SAMS)), None):
        from persona.labelling import Sam

        listener(Note("The reference is cut out by SAM."))
        sam = Sam(folder, base.device)
        return sam.masks(picture, [box])[0] if box else sam.subject(picture), "SAM found no subject"
    return None, 'Nothing is here that could cut it out (pip install "rembg[cpu]")'


def _by_its_own(folder: Path, picture: Image.Image) -> Mask:
    from persona.clay.layers import opened
    from persona.clay.segmenter import Segmenter

    return opened(Segmenter.load, folder, "segmenter").masks([picture])[0]


def _by_rembg(picture: Image.Image, listener: Listener) -> tuple[Mask | None, str]:
    listener(Note("The reference is cut out by rembg, which fetches a network of 0.2 GB when it has none."))
    try:
        import rembg

        return np.asarray(rembg.remove(picture, only_mask=True).convert("L")) > 127, "rembg found no subject"
    except (Exception, SystemExit) as error:  # whatever its imports, its network and its runtime raise
        return None, f"rembg failed ({type(error).__name__})"
