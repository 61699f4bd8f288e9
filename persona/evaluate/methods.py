"""The methods that personas are measured against, and the bare base: each makes entrants for a subject."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from PIL.Image import Image

from persona import portraits, references
from persona.atomic import beside, digest_of
from persona.config import TrainConfig
from persona.drawing import Artist, Size, processes
from persona.errors import BadOption
from persona.evaluate.entrants import Entrant, Studio, of_persona
from persona.evaluate.subjects import Prompt, Subject
from persona.events import Note
from persona.families import Family
from persona.folder import RECORD, Persona, folder_of, slug
from persona.methods import telling
from persona.methods.guidance import IMAGE_GUIDANCE
from persona.methods.jedi import STORE, JeDi
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.photos import Photo
from persona.portraits import Reference
from persona.train import train

BASE = "base"
"""Name of the base itself among the methods."""


def bare(subject: Subject, studio: Studio) -> list[Entrant]:
    """Return the base itself, which knows the class but not the subject."""
    return [bare_of(studio.base_of(None), subject)]


def bare_of(base: Family, subject: Subject) -> Entrant:
    """Return a base that is loaded as an entrant."""

    @contextmanager
    def as_it_is(size: Size) -> Iterator[Artist]:
        yield base

    return Entrant(
        label=BASE,
        line=BASE,
        subject=subject,
        base=base,
        decides={},
        open=as_it_is,
        text=lambda prompt: prompt.bare(subject.class_noun),
        leaves=True,
    )


def dreambooth(subject: Subject, studio: Studio) -> list[Entrant]:
    """Draw by a persona that was trained with nothing but the photos and the class."""
    persona, learning = learnt(subject, studio)
    if not persona.scores:
        hint = "Fetch DINO and CLIP into the hub's cache, where train looks, and use another --out."
        studio.hear(Note(f"dreambooth: no checkpoint was scored, so the last is measured. {hint}", warning=True))
    return of_persona(persona, subject, studio, label="dreambooth", learning=learning)


def learnt(subject: Subject, studio: Studio) -> tuple[Persona, float | None]:
    """Train a persona, unless that was done before; return it with the seconds that it took, where they are known."""
    if subject.folder is None:
        raise BadOption("dreambooth learns from photos. Say where they are with --photos.")
    # Other photos or captions, another class, base or seed are another training.
    key = digest_of([subject.class_noun, studio.methods_outline.hash, studio.seed, _known(subject.photos)])
    folder = studio.out / "personas" / f"{slug(subject.name)}-{key[:12]}"
    clock = folder.with_suffix(".json")
    if (folder / RECORD).exists():
        return Persona.open(folder), json.loads(clock.read_text())["seconds"] if clock.exists() else None
    studio.listener(Note(f"Learning {subject.name}."))
    fresh, started = not folder.exists(), time.perf_counter()
    config = TrainConfig(
        photos=subject.folder,
        class_noun=subject.class_noun,
        base=studio.methods_base,
        out=folder,
        seed=studio.seed,
    )
    persona = train(config, studio.listener)
    seconds = time.perf_counter() - started if fresh else None  # of one that was stopped nobody knows
    if processes().is_main_process:
        with beside(clock) as part:
            part.write_text(json.dumps({"seconds": seconds}) + "\n", encoding="utf-8")
    processes().wait_for_everyone()
    return persona, seconds


def jedi(subject: Subject, studio: Studio) -> list[Entrant]:
    """Draw from the photos, without training on them (2407.06187)."""
    if not subject.photos:
        raise BadOption("jedi draws from photos. Say where they are with --photos.")

    def look(model: JeDi, size: Size) -> dict[str, Any]:
        known = references.prepare(model.base, subject.photos, subject.class_noun, size)
        return {"references": references.fitting(model, known, 1, size, studio.hear)}

    def text(prompt: Prompt) -> str:
        return prompt.bare(subject.class_noun)

    also = {"references": _known(subject.photos), "class": subject.class_noun}
    return [_looking("jedi", JeDi.load, subject, studio, also=also, look=look, text=text)]


def subject_diffusion(subject: Subject, studio: Studio) -> list[Entrant]:
    """Draw from the first photo alone, cut out, without training on it (2307.11410)."""
    if not subject.photos:
        raise BadOption("subject-diffusion draws from a photo. Say where it is with --photos.")
    base, shown = studio.base_of(None), {"V": Reference(subject.photos[0])}
    telling.STORE.check(base)
    cutouts = portraits.cut_out(shown, base, studio.hear)

    def look(model: SubjectDiffusion, size: Size) -> dict[str, Any]:
        return {"portraits": portraits.paint(model, shown, cutouts)}

    def text(prompt: Prompt) -> str:
        return prompt.text(subject.class_noun)

    # Two runs may cut it out otherwise: what does so may have been installed between them.
    seen = hashlib.sha256(cutouts["V"].tobytes()).hexdigest()
    also = {"references": _known(subject.photos[:1]), "cut out": seen}
    load = partial(SubjectDiffusion.load, listener=studio.listener)
    return [_looking("subject-diffusion", load, subject, studio, also=also, look=look, text=text)]


def _known(photos: Sequence[Photo]) -> list[tuple[str, str | None]]:
    return [(photo.sha256, photo.caption) for photo in photos]


Model = TypeVar("Model", JeDi, SubjectDiffusion)


def _looking(
    name: str,
    load: Callable[[Family], Model],
    subject: Subject,
    studio: Studio,
    *,
    also: Mapping[str, Any],
    look: Callable[[Model, Size], Mapping[str, Any]],
    text: Callable[[Prompt], str],
) -> Entrant:
    """Return a method that looks at photos instead of learning from them; what it sees is for its drawing.

    What else decides what its pictures are is said with it.
    """
    base = studio.base_of(None)
    if name not in studio.weights:  # they are the same for all subjects
        model = load(base)  # are there any for this base at all
        studio.weights[name] = hashlib.sha256(model.save()).hexdigest()
        model.remove()

    @contextmanager
    def seeing(size: Size) -> Iterator[Artist]:
        model = load(base)
        try:
            yield _Seeing(model, look(model, size))
        finally:
            model.remove()

    return Entrant(
        label=name,
        line=name,
        subject=subject,
        base=base,
        decides={name: studio.weights[name], "image guidance": IMAGE_GUIDANCE, **also},
        open=seeing,
        text=text,
        learning=0.0,
        leaves=True,
    )


@dataclass(frozen=True)
class _Seeing:
    """A method with what it sees of a subject."""

    model: Artist
    seen: Mapping[str, Any]

    def batch_of(self, size: Size) -> int:
        return self.model.batch_of(size)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> list[Image]:
        return self.model.draw(prompts, seeds, **self.seen, **how)


METHODS: dict[str, Callable[[Subject, Studio], list[Entrant]]] = {
    "dreambooth": dreambooth,
    "jedi": jedi,
    "subject-diffusion": subject_diffusion,
    BASE: bare,
}
"""Ways to draw a subject, by the names that they are asked for."""

STORES = {store.name: store for store in (STORE, telling.STORE)}
"""Where those have their weights that a base must have learnt once."""


def open_persona(name: str) -> Persona:
    """Open a persona by its folder, or by its name under ``personas``.

    Raises:
        BadOption: there is none of that name, and no method.
        BadPersona: it is damaged.
    """
    if folder := folder_of(name):
        return Persona.open(folder)
    raise BadOption(f"{name} is no persona here, and no method. Methods are {', '.join(METHODS)}.")
