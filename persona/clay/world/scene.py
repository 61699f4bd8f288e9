"""What is drawn, as plain data: who, where, from which side, in what style.

The same subject can be put in any number of scenes; the same scene always renders to the same bytes.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, TypedDict, Unpack
from zlib import crc32

from numpy.random import Generator

from persona.clay.world.accessories import ACCESSORIES
from persona.clay.world.animals import POSES, QUADRUPEDS
from persona.clay.world.contexts import CONTEXTS, GROUNDED
from persona.clay.world.styles import STYLES
from persona.clay.world.subjects import LIVE, Subject, random_subject

PROPERTIES = ("shiny", "wet", "golden", "transparent", "cube shaped")
VIEWS = {
    "front": (-90,), "side": (0, 180), "back": (90,), "three-quarter": (-45, -135),
    "top": (0, 180, -90), "bottom": (0, 180, -90),
}  # fmt: skip
"""Yaws of each view in degrees (0 faces right), each jittered by up to 10; the camera's height comes with the view."""
OVERHEAD = ("top", "bottom")
RELATIONS = ("next to", "in front of", "to the left of", "to the right of")


@dataclass(frozen=True)
class Entity:
    """A subject as it stands in one scene; only live ones pose and wear accessories."""

    subject: Subject
    pose: str = "standing"
    accessory: str | None = None
    property: str | None = None


@dataclass(frozen=True)
class Scene:
    """One picture to be.

    Attributes:
        entities: one or two.
        context: one of ``CONTEXTS``; of ``GROUNDED`` for the views from straight above and below.
        view: one of ``VIEWS``.
        style: one of ``STYLES``.
        relation: of the first entity to the second, one of ``RELATIONS``.
        size: how much of the frame the entities fill, about 1 to 1.3.
        offset: of the entities from the middle, to the right and up, in shares of the frame.
        seed: decides what is incidental: light, trees, jitter.
    """

    entities: tuple[Entity, ...]
    context: str
    view: str = "three-quarter"
    style: str = "photo"
    relation: str | None = None
    size: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    seed: int = 0


def held_out(scene: Scene) -> bool:
    """Whether a composition of class, context and style is kept from training: one in ten is, a cross with either."""
    nouns = {noun for entity in scene.entities for noun in (entity.subject.class_noun, entity.subject.cross) if noun}
    return any(crc32(f"{noun}|{scene.context}|{scene.style}".encode()) % 10 == 0 for noun in nouns)


def to_dict(scene: Scene) -> dict[str, Any]:
    """Return a scene as plain data for JSON."""
    return asdict(scene)


def from_dict(data: dict[str, Any]) -> Scene:
    """Return the scene that :func:`to_dict` wrote."""
    entities = tuple(Entity(**entity | {"subject": _subject(entity["subject"])}) for entity in data["entities"])
    return Scene(**data | {"entities": entities, "offset": tuple(data["offset"])})


def _subject(data: dict[str, Any]) -> Subject:
    colours = tuple(tuple(colour) for colour in data["colours"])
    names, build = tuple(data["colour_names"]), tuple(data["build"])
    return Subject(**data | {"build": build, "colours": colours, "colour_names": names})


class Fixed(TypedDict, total=False):
    """What :func:`random_scene` shall not choose; ``None`` for no accessory, or no property, at all."""

    context: str
    view: str
    style: str
    relation: str
    pose: str
    accessory: str | None
    property: str | None


def random_scene(rng: Generator, subjects: tuple[Subject, ...] | None = None, **fixed: Unpack[Fixed]) -> Scene:
    """Draw a scene at random.

    Args:
        rng: decides all that is not given; the same state gives the same scene.
        subjects: one or two; random ones, now and then a cross of two classes, when left out.
        fixed: what is given.
    """
    people = subjects or _random_people(rng)
    two = len(people) > 1
    view = fixed.get("view") or _random_view(rng, two=two)
    overhead = view in OVERHEAD
    context = fixed.get("context") or str(rng.choice(GROUNDED if overhead else list(CONTEXTS)))
    style = fixed.get("style") or _random_style(rng)
    return Scene(
        entities=tuple(_random_entity(rng, who, fixed, two=two, overhead=overhead) for who in people),
        context=context,
        view=view,
        style=style,
        relation=fixed.get("relation") or str(rng.choice(RELATIONS)) if two else None,
        size=float(rng.uniform(1.0, 1.22) if two else rng.uniform(1.0, 1.32)),
        offset=(float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.05, 0.05))),
        seed=int(rng.integers(2**31)),
    )


def _random_people(rng: Generator) -> tuple[Subject, ...]:
    people = tuple(random_subject(rng) for _ in range(2 if rng.random() < 0.12 else 1))
    noun = people[0].class_noun
    if len(people) == 1 and noun in QUADRUPEDS and rng.random() < 0.06:
        other = str(rng.choice([known for known in QUADRUPEDS if known != noun]))
        return (replace(people[0], cross=other),)
    return people


def _random_view(rng: Generator, *, two: bool) -> str:
    shares = (0.3, 0.3, 0.1, 0.3, 0, 0) if two else (0.22, 0.24, 0.13, 0.25, 0.10, 0.06)
    return str(rng.choice(list(VIEWS), p=shares))


def _random_style(rng: Generator) -> str:
    return "photo" if rng.random() < 0.55 else str(rng.choice([style for style in STYLES if style != "photo"]))


def _random_entity(rng: Generator, who: Subject, fixed: Fixed, *, two: bool, overhead: bool) -> Entity:
    live = who.class_noun in LIVE
    pose = fixed.get("pose")
    if not pose:
        pose = str(rng.choice(POSES, p=(0.55, 0.17, 0.17, 0.11))) if live and not overhead else "standing"
    if "accessory" in fixed:
        wears = fixed["accessory"]
    else:
        wears = str(rng.choice(list(ACCESSORIES))) if live and rng.random() < (0.15 if two else 0.42) else None
    if "property" in fixed:
        kind = fixed["property"]
    else:
        kind = str(rng.choice(PROPERTIES)) if rng.random() < (0.05 if two else 0.14) else None
    return Entity(who, pose if live else "standing", wears if live else None, kind)
