"""What a run learns from: photos and pictures of their class, as latents."""

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from persona.config import PriorsConfig, TrainConfig
from persona.events import Listener, Note
from persona.families import Family, blueprint
from persona.identity import Token, caption, replaced
from persona.methods.dreambooth import Cut, DreamBooth, Example, Half, encode, without
from persona.methods.settings import Settings
from persona.photos import Photo, files, pictures
from persona.photos.advice import some
from persona.photos.reading import SHORT_SIDE, SUFFIXES
from persona.placing import any_of, named, plain
from persona.priors import ensure


def kept_side(config: TrainConfig) -> int:
    """Return the pixels of a photo's shorter side that are kept: no fewer than are trained on."""
    return max(SHORT_SIDE, config.resolution or 0)


def given_pictures(config: TrainConfig, listener: Listener) -> list[Photo]:
    """Return the user's own pictures of the class, where there is a folder of them: as many as are learnt from.

    Raises:
        BadBase: the base, which says how many that are, cannot be found or reached.
        BadPhotos: the folder cannot be read, or holds none.
    """
    kind, _, name = config.prior.partition(":")
    if kind != "folder":
        return []
    # No shell expands it behind a colon; pathlib raises at users that there are not.
    folder, of = Path(os.path.expanduser(name)), "class images"  # noqa: PTH111
    there = sum(path.suffix.lower() in SUFFIXES for path in files(folder, of))
    most = config.priors or blueprint(config.base, listener).recipe.priors
    found = pictures(folder, listener, of=of, most=most, side=kept_side(config))
    if len(found) == most < there:
        listener(Note(f"{most:,} of {there:,} {of} are used; --priors N takes more."))
    if config.token:
        named_so = {one.name: replaced(one.caption, config.token, "[V]") for one in found if one.caption}
        found = [replace(one, caption=named_so.get(one.name)) for one in found]
    if subjects := [picture.name for picture in found if "V" in named(picture.caption or "")]:
        told = "[V] and the token are left out of the captions, since class images must not name the subject."
        listener(Note(f"{some(subjects)}: {told}", warning=True))
    return [replace(one, caption=plain(one.caption)) if one.name in subjects and one.caption else one for one in found]


def drawn_pictures(config: TrainConfig, settings: Settings, base: Family, listener: Listener) -> list[Photo]:
    """Return the pictures of the class that the base draws, if it shall; those that are missing are drawn."""
    if config.prior != "generated":
        return []
    asked = PriorsConfig(
        class_noun=config.class_noun,
        base=config.base,
        n=settings.priors,
        resolution=settings.resolution,
        seed=config.seed,
    )
    return [read_drawn(path) for path in ensure(asked, base, listener)]


def prepare(
    config: TrainConfig,
    settings: Settings,
    base: Family,
    photos: Sequence[Photo],
    priors: Sequence[Photo],
    token: Token,
    listener: Listener,
) -> DreamBooth:
    """Encode photos, and pictures of their class.

    Args:
        config: what is learnt.
        settings: the same with nothing left open.
        base: encodes them.
        photos: of the subject.
        priors: of its class.
        token: stands for the subject.
        listener: told how far it is.
    """
    taught = config.prior == "self"
    subject = encode(
        base,
        photos,
        lambda photo: caption(photo.caption, token.text, config.class_noun, listener),
        Cut(settings.resolution, settings.crops, config.flip, config.seed),
        stage="Encoding photos",
        listener=listener,
    )
    preserved: Sequence[Example] = []
    if taught:
        preserved = without(token.text, config.class_noun, subject)
    elif priors:
        preserved = encode(
            base,
            priors,
            lambda picture: picture.caption or any_of(config.class_noun),
            Cut(settings.resolution),
            stage="Encoding class images",
            listener=listener,
        )
    halves = [Half(subject), *([Half(preserved, config.prior_weight, taught)] if preserved else [])]
    return DreamBooth(base, halves, gamma=settings.snr_gamma, seed=config.seed)


def read_drawn(path: Path) -> Photo:
    """Read a picture that was drawn here."""
    data = path.read_bytes()
    return Photo(path.name, Image.open(io.BytesIO(data)).convert("RGB"), None, hashlib.sha256(data).hexdigest())
