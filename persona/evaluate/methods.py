"""The methods that personas are measured against, and the bare base: each makes entrants for a subject."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

from persona import portraits, references
from persona.config import TrainConfig
from persona.drawing import Artist, Size
from persona.errors import BadOption
from persona.evaluate.entrants import Entrant, Studio, of_persona
from persona.evaluate.subjects import Subject
from persona.events import Listener, Note
from persona.families import Family
from persona.folder import RECORD, Persona, slug
from persona.methods.casting import Portrait
from persona.methods.jedi import JeDi, References
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.portraits import Reference
from persona.train import train


def bare(subject: Subject, studio: Studio) -> list[Entrant]:
    """Return the base itself, which knows the class but not the subject."""
    return [bare_of(studio.base_of(None), subject)]


def bare_of(base: Family, subject: Subject) -> Entrant:
    """Return a base that is loaded as an entrant."""

    @contextmanager
    def as_it_is(size: Size) -> Iterator[Artist]:
        yield base

    return Entrant(
        label="base",
        line="base",
        subject=subject,
        base=base,
        decides={},
        open=as_it_is,
        text=lambda prompt: prompt.bare(subject.class_noun),
        leaves=True,
    )


def dreambooth(subject: Subject, studio: Studio) -> list[Entrant]:
    """Train a persona with nothing but the photos and the class, unless that was done before."""
    if subject.folder is None:
        raise BadOption("dreambooth learns from photos. Say where they are with --photos.")
    folder = studio.out / "personas" / slug(subject.name)
    fresh, started = not folder.exists(), time.perf_counter()
    persona = Persona.open(folder) if (folder / RECORD).exists() else None
    if persona is None or persona.photos != tuple(photo.sha256 for photo in subject.photos):
        studio.listener(Note(f"Learning {subject.name}."))
        config = TrainConfig(
            photos=subject.folder,
            class_noun=subject.class_noun,
            base=studio.methods_base,
            out=folder,
            seed=studio.seed,
        )
        persona = train(config, studio.listener)
    learning = time.perf_counter() - started if fresh else None  # of one that was stopped nobody knows
    return of_persona(persona, subject, studio, label="dreambooth", learning=learning)


def jedi(subject: Subject, studio: Studio) -> list[Entrant]:
    """Draw from the photos, without training on them (2407.06187)."""
    if not subject.photos:
        raise BadOption("jedi draws from photos. Say where they are with --photos.")
    base = studio.base_of(None)
    model = JeDi.load(base)  # are there weights for this base at all
    weights = hashlib.sha256(model.save()).hexdigest()
    model.remove()
    return [
        Entrant(
            label="jedi",
            line="jedi",
            subject=subject,
            base=base,
            decides={"jedi": weights, "references": [photo.sha256 for photo in subject.photos]},
            open=partial(_looking, base, subject),
            text=lambda prompt: prompt.bare(subject.class_noun),
            learning=0.0,
            leaves=True,
        )
    ]


@dataclass(frozen=True)
class _Looking:
    """JeDi with its references."""

    model: JeDi
    known: References

    def batch_of(self, size: Size) -> int:
        return self.model.batch_of(size)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> list[Image]:
        return self.model.draw(prompts, seeds, references=self.known, **how)


@contextmanager
def _looking(base: Family, subject: Subject, size: Size) -> Iterator[Artist]:
    model = JeDi.load(base)
    try:
        known = references.prepare(base, subject.photos, subject.class_noun, size)
        yield _Looking(model, references.fitting(model, known, 1, size))
    finally:
        model.remove()


def subject_diffusion(subject: Subject, studio: Studio) -> list[Entrant]:
    """Draw from the first photo alone, cut out, without training on it (2307.11410)."""
    if not subject.photos:
        raise BadOption("subject-diffusion draws from a photo. Say where it is with --photos.")
    base, photo = studio.base_of(None), subject.photos[0]
    model = SubjectDiffusion.load(base)  # are there weights for this base at all
    weights = hashlib.sha256(model.save()).hexdigest()
    model.remove()
    return [
        Entrant(
            label="subject-diffusion",
            line="subject-diffusion",
            subject=subject,
            base=base,
            decides={"subject-diffusion": weights, "references": [photo.sha256]},
            open=partial(_portrayed, base, Reference(photo), studio.listener),
            text=lambda prompt: prompt.text(subject.class_noun),
            learning=0.0,
            leaves=True,
        )
    ]


@dataclass(frozen=True)
class _Portraying:
    """Subject-Diffusion with its portrait."""

    model: SubjectDiffusion
    portraits: Mapping[str, Portrait]

    def batch_of(self, size: Size) -> int:
        return self.model.batch_of(size)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> list[Image]:
        return self.model.draw(prompts, seeds, portraits=self.portraits, **how)


@contextmanager
def _portrayed(base: Family, reference: Reference, listener: Listener, size: Size) -> Iterator[Artist]:
    cutouts = portraits.cut_out({"V": reference}, base, listener)
    model = SubjectDiffusion.load(base)
    try:
        yield _Portraying(model, portraits.paint(model, {"V": reference}, cutouts))
    finally:
        model.remove()


METHODS: dict[str, Callable[[Subject, Studio], list[Entrant]]] = {
    "dreambooth": dreambooth,
    "jedi": jedi,
    "subject-diffusion": subject_diffusion,
    "base": bare,
}
"""Ways to draw a subject, by the names that they are asked for."""


def open_persona(name: str) -> Persona:
    """Open a persona by its folder, or by its name under ``personas``.

    Raises:
        BadOption: there is none of that name, and no method.
        BadPersona: it is damaged.
    """
    for folder in (Path(name), Path("personas") / name):
        if folder.is_dir():
            return Persona.open(folder)
    raise BadOption(f"{name} is no persona here, and no method. Methods are {', '.join(METHODS)}.")
