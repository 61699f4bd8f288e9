"""Who draws: trained personas at their checkpoints and strengths, methods that learn or look at the photos, the base.

A way to draw a subject is an :class:`Entrant`; that of a method is made by one function in
:data:`persona.evaluate.methods.METHODS`, and all else here knows nothing of methods.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from persona import adapter, families
from persona.drawing import Artist, Size, open_base
from persona.errors import BadOption
from persona.evaluate.subjects import Prompt, Subject
from persona.events import Event, Listener, Note, silent
from persona.families import Family
from persona.folder import ADAPTER, Persona
from persona.identity import fill
from persona.sitters import base_of, wear

SCALES = (0.4, 0.6, 0.8, 1.0, 1.2)
"""Strengths that are tried for where fidelity and prompt are best together."""


@dataclass(frozen=True)
class Entrant:
    """A way to draw a subject.

    Attributes:
        label: row of the table; entrants of several subjects may share it.
        line: rows that belong together, such as the checkpoints of one run.
        subject: who is drawn.
        base: the base that it draws with.
        decides: all that makes its pictures what they are, beside prompt, seed and how is drawn: JSON values.
        open: gets it ready to draw pictures of a size, and tidies up.
        text: what it reads in the place of a prompt.
        learning: seconds that it took to learn the subject, where that is known.
        leaves: whether it leaves the base as it is for all prompts that are not about the subject.
    """

    label: str
    line: str
    subject: Subject
    base: Family
    decides: Mapping[str, Any]
    open: Callable[[Size], AbstractContextManager[Artist]]
    text: Callable[[Prompt], str]
    learning: float | None = None
    leaves: bool = False


def subjects_of(entrants: Sequence[Entrant]) -> list[Subject]:
    """Return all whom entrants draw, each once."""
    return list({entrant.subject.name: entrant.subject for entrant in entrants}.values())


@dataclass(frozen=True)
class Hearing:
    """Passes on what is said, and keeps warnings, each once: figures are read with these in mind.

    Attributes:
        listener: told all that is new.
        notes: what was warned of.
    """

    listener: Listener
    notes: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Listen, as any :data:`persona.events.Listener` does."""
        if isinstance(event, Note) and event.warning:
            if event.text in self.notes:
                return
            self.notes.append(event.text)
        self.listener(event)


@dataclass
class Studio:
    """What the entrants of a run share.

    Attributes:
        out: folder of the run.
        base: where the base is, as the user says; ``None`` for each persona's own.
        seed: of trainings.
        listener: told how far they are; what they warn of is no matter of the figures.
        checkpoints: whether each checkpoint of a persona is an entrant.
        scales: whether each of :data:`SCALES` is.
        fallback: base that methods draw with where the user names none.
        weights: sha256 (hex) of what methods have learnt for that base, by their names, as far as it is known yet.
    """

    out: Path
    base: str | None
    seed: int
    listener: Listener
    checkpoints: bool = False
    scales: bool = False
    fallback: str = "clay"
    weights: dict[str, str] = field(default_factory=dict)
    _bases: dict[str, Family] = field(default_factory=dict)

    @cached_property
    def hear(self) -> Hearing:
        """What is told all else."""
        return Hearing(self.listener)

    @property
    def methods_base(self) -> str:
        """Name of the base that methods draw with."""
        return self.base or self.fallback

    @cached_property
    def methods_outline(self) -> Family:
        """That base without its weights, which are not loaded for it."""
        return families.outline(self.methods_base, self.listener)

    def base_of(self, persona: Persona | None) -> Family:
        """Load the base of a persona, or for ``None`` that of the methods; each is loaded once.

        Raises:
            BadBase: it is gone.
            BadPersona: it is another than the persona was made for.
        """
        return base_of(persona, self.base if persona else self.methods_base, self.listener, self._open)

    def _open(self, name: str, listener: Listener) -> Family:
        if name not in self._bases:
            self._bases[name] = open_base(name, listener=listener)
        return self._bases[name]


def of_persona(
    persona: Persona, subject: Subject, studio: Studio, *, label: str, learning: float | None = None
) -> list[Entrant]:
    """Return a persona as it is, or each of its checkpoints and strengths where the studio tries them.

    Args:
        persona: draws.
        subject: who is drawn.
        studio: what all share.
        label: row of the table.
        learning: seconds that it took to learn.

    Raises:
        BadBase: its base is gone.
        BadPersona: that is another than it was made for.
        BadOption: strengths are to be tried, and its adapter has but one.
    """
    base = studio.base_of(persona)
    tries: dict[str, tuple[str, int | None, float]] = {}
    if studio.checkpoints:
        if not persona.checkpoints:
            studio.hear(Note(f"{label} has no checkpoints: only its final weights are tried.", warning=True))
        tries |= {f"{label}, step {step}": (label, step, persona.recommended_scale) for step in persona.checkpoints}
    if studio.scales:
        if persona.settings.get("adapter") == "oft":
            raise BadOption(f"{persona.path} has an oft adapter, which can only be on or off. Leave --scales out.")
        strengths = f"{label} by scale" if studio.checkpoints else label  # two curves, not one that leaps back
        tries |= {f"{label}, scale {scale:g}": (strengths, None, scale) for scale in SCALES}
    _tell_other_words(persona, subject, label, studio.hear)
    return [
        Entrant(
            label=title,
            line=curve,
            subject=subject,
            base=base,
            decides={
                "weights": persona.files[ADAPTER if step is None else persona.checkpoints[step]],
                "scale": scale,
                "words": [persona.token, persona.class_noun],
            },
            open=partial(_worn, base, persona, step, scale),
            text=partial(_filled, persona),
            learning=learning,
        )
        for title, (curve, step, scale) in (tries or {label: (label, None, persona.recommended_scale)}).items()
    ]


def _tell_other_words(persona: Persona, subject: Subject, label: str, listener: Listener) -> None:
    """Warn where a persona reads other words than those whom it is compared with."""
    own, asked = persona.class_noun, subject.class_noun
    if own.lower() != asked.lower():
        hint = "its figures of prompts and of the bare class say little. Measure it alone."
        listener(Note(f"{label} draws {own} where {asked} is asked for: {hint}", warning=True))
    for prompt in subject.prompts:
        if prompt.kind == "subject":
            _filled(persona, prompt, listener)


@contextmanager
def _worn(base: Family, persona: Persona, step: int | None, scale: float, size: Size) -> Iterator[Artist]:
    wear(base, persona, step=step)
    try:
        adapter.scale(base, scale)
        yield base
    finally:
        adapter.detach(base)


def _filled(persona: Persona, prompt: Prompt, listener: Listener = silent) -> str:
    return fill(prompt.text(persona.class_noun), persona.token, persona.class_noun, listener)
