"""More views of a subject: what JeDi draws from its photos, to be learnt beside them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from persona import references
from persona.drawing import Job, draw, processes, size_of, whole
from persona.events import Listener, Note
from persona.families import Family
from persona.identity import bare
from persona.methods.jedi import JeDi
from persona.photos import Photo
from persona.placing import of_class
from persona.score import odd_ones
from persona.train.material import read_drawn

STORE = "views"
"""Where they are in a run's folder, those of each run in a folder of their own."""
VIEWS = (
    "a photo of a [V] {class} on the beach",
    "a photo of a [V] {class} seen from the side",
    "a photo of a [V] {class} in the snow",
    "a photo of a [V] {class} seen from the back",
    "a photo of a [V] {class} on the street",
    "a photo of a [V] {class} seen from above",
    "a photo of a [V] {class} in a garden",
    "a photo of a [V] {class} in a room",
)
"""What they show, in turn."""


def draw_views(
    base: Family, photos: Sequence[Photo], class_noun: str, resolution: int, seed: int, out: Path, listener: Listener
) -> list[Photo]:
    """Return as many views as there are photos, but for those that seem to show another subject.

    Args:
        base: with JeDi weights of its own and without an adapter; it is left as it was.
        photos: of the subject.
        class_noun: what it is.
        resolution: side of the views, in pixels.
        seed: of the first; each has its own.
        out: folder in which they are kept; those that are there are not drawn again.
        listener: told how far it is, and that they are learnt from.

    Raises:
        BadBase: the base has no JeDi weights.
        OSError: the disk is full.
    """
    told = [of_class(VIEWS[number % len(VIEWS)], class_noun) for number in range(len(photos))]
    jobs = [
        Job(bare(prompt, class_noun), seed + number, out / f"{number:03}.png") for number, prompt in enumerate(told)
    ]
    missing = [job for job in jobs if not whole(job.path)]
    processes().wait_for_everyone()  # all have seen the same views missing before the first is drawn
    if missing:
        _draw(base, missing, photos, class_noun, resolution, listener)
    views = [replace(read_drawn(job.path), caption=prompt) for job, prompt in zip(jobs, told, strict=True)]
    odd = odd_ones(base, [photo.image for photo in (*photos, *views)], class_noun)
    kept = [view for place, view in enumerate(views, len(photos)) if place not in odd]
    listener(Note(f"Learning from {len(kept)} views that JeDi drew of the {class_noun}, beside the photos."))
    return kept


def _draw(
    base: Family, jobs: Sequence[Job], photos: Sequence[Photo], class_noun: str, resolution: int, listener: Listener
) -> None:
    size = size_of(base, resolution)
    jedi = JeDi.load(base)
    try:
        known = references.fitting(jedi, references.prepare(base, photos, class_noun, size), 1, size, listener)
        draw(jedi, jobs, listener, "Drawing views", references=known, size=size)
    finally:
        jedi.remove()
