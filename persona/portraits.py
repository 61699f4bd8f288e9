"""References of one picture each: read, cut out, and seen by Subject-Diffusion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from persona import photos, segment
from persona.config import InterpolateConfig, SampleConfig
from persona.drawing import open_base
from persona.errors import BadOption
from persona.events import Listener, silent
from persona.families import Family, blueprint
from persona.methods.casting import Portrait
from persona.methods.guidance import IMAGE_GUIDANCE, IMAGE_GUIDANCE_OF_TWO
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.methods.telling import STORE
from persona.photos import Photo
from persona.photos.reading import upright
from persona.placing import Box, Subject, check, read_masks, read_subjects


@dataclass(frozen=True)
class Reference:
    """The picture that shows a subject.

    Attributes:
        photo: the picture; one that was cut out shows nothing but the subject.
        mask: grey, of the photo's size, white where the subject is; instead of what the photo says itself.
        within: box in the photo that the subject is in.
        box: where it shall stand in the pictures that are drawn; ``None`` where that is left to us.
    """

    photo: Photo
    mask: Image.Image | None = None
    within: Box | None = None
    box: Box | None = None


def read(subjects: Mapping[str, Subject], masks: Mapping[str, Path | Box]) -> dict[str, Reference]:
    """Read the references of subjects, and where these are in them, from what was typed.

    Raises:
        BadPhotos: a picture cannot be read.
        BadOption: a mask is of another size than its picture, or shows nothing; or a picture does not.
    """
    references = {}
    for name, subject in subjects.items():
        photo, where = photos.picture(subject.reference), masks.get(name)
        mask = _white(photos.picture(where)) if isinstance(where, Path) else None
        if isinstance(where, Path) and mask and mask.size != photo.image.size:
            sizes = [_pixels(path) for path in (where, subject.reference)]
            raise BadOption(f"{where} has {sizes[0]} pixels, {subject.reference} {sizes[1]}. Make them of one size.")
        if mask and not segment.shown(mask).any():
            raise BadOption(f"The mask {where} is empty: it must be white where the subject is. Draw it again.")
        if not mask and photo.mask and not segment.shown(photo.mask).any():
            raise BadOption(f"{subject.reference} is transparent all over. Give an image that shows the subject.")
        within = None if isinstance(where, Path) else where
        references[name] = Reference(photo, mask, within, subject.box)
    return references


def _pixels(path: Path) -> str:
    """Return the size of a picture as its file has it, which is shrunk where it is large."""
    with Image.open(path) as image:
        turned = upright(image)
    return f"{turned.width}x{turned.height}"


def _white(drawn: Photo) -> Image.Image:
    """Return a mask that was drawn, as L: what is transparent in it is none of the subject."""
    light = drawn.image.convert("L")
    return ImageChops.multiply(light, drawn.mask) if drawn.mask else light


def cut_out(references: Mapping[str, Reference], base: Family, listener: Listener = silent) -> dict[str, Image.Image]:
    """Cut the subjects out of their references, as :func:`persona.segment.cut_out` does.

    Raises:
        BadOption: there is nothing of a subject in its picture, or in its box.
    """
    return {
        name: segment.cut_out(
            one.photo.image, base=base, mask=one.mask or one.photo.mask, box=one.within, listener=listener
        )
        for name, one in references.items()
    }


def paint(
    method: SubjectDiffusion, references: Mapping[str, Reference], cutouts: Mapping[str, Image.Image]
) -> dict[str, Portrait]:
    """Let the image encoder look at subjects that are cut out."""
    features = method.encoder.encode(list(cutouts.values()))
    return {
        name: Portrait(seen, references[name].box, cutout.width / cutout.height)
        for seen, (name, cutout) in zip(features, cutouts.items(), strict=True)
    }


@dataclass(frozen=True)
class Portrayed:
    """Subjects, and what draws them.

    Attributes:
        method: draws.
        portraits: of the subjects, by their names.
        guidance: how strongly they are followed; ``None`` where it depends on how many a picture shows.
        facts: who they are, for pictures to carry.
    """

    method: SubjectDiffusion
    portraits: Mapping[str, Portrait]
    guidance: float | None
    facts: Mapping[str, str]


def portray(config: SampleConfig | InterpolateConfig, prompts: Sequence[str], listener: Listener) -> Portrayed:
    """Look at the subjects of a command.

    Args:
        config: names them.
        prompts: that are about them, each about one at least.
        listener: told how they are cut out.

    Raises:
        BadPrompt: a prompt is about nobody, or somebody else.
        BadOption: a subject is in no prompt, or cannot be cut out as was said.
        BadPhotos: a picture cannot be read.
        BadBase: the base cannot be found, is damaged, or has no weights that draw subjects.
    """
    subjects = read_subjects(config.subject)
    check(prompts, subjects)
    references = read(subjects, read_masks(config.mask, subjects))
    name = config.base or "clay"
    STORE.check(blueprint(name, listener), config.subject_diffusion)
    base = open_base(name, listener=listener)
    cutouts = cut_out(references, base, listener)
    method = SubjectDiffusion.load(base, config.subject_diffusion, listener)
    guidance = config.image_guidance
    followed = f"{IMAGE_GUIDANCE}, {IMAGE_GUIDANCE_OF_TWO} of two" if guidance is None else str(guidance)
    told = []
    for name, one in references.items():
        where = f" at {','.join(f'{side:g}' for side in one.box)}" if one.box else ""
        told.append(f"{name} {one.photo.sha256[:12]}{where}")
    # The names may be in any letters, which a PNG's keywords may not.
    facts = {"method": "subject-diffusion", "image guidance": followed, "subjects": "; ".join(told)}
    return Portrayed(method, paint(method, references, cutouts), guidance, facts)
