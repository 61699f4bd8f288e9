"""Subjects and scenes, as plain data, and their rendering.

A `Subject` is who; a `Scene` is where, how it is seen and in what style. The same subject can be put in any number of
scenes; the same scene always renders to the same bytes.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image

from persona.clay.world import ground, raycast, styles
from persona.clay.world.accessories import ACCESSORIES, SURFACES
from persona.clay.world.bodies import (
    CLASSES,
    LIVE,
    LIVE_POSES,
    MEAN_PROPORTIONS,
    PLANS,
    QUADRUPEDS,
    Body,
    Frame,
    Part,
    turn,
)
from persona.clay.world.contexts import CONTEXTS, GROUNDED, Place, Surface

SIDE = 128
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.07, 0.08), "orange": (0.96, 0.48, 0.06), "yellow": (0.98, 0.83, 0.10), "green": (0.14, 0.60, 0.17),
    "blue": (0.10, 0.26, 0.82), "purple": (0.48, 0.14, 0.68), "pink": (0.98, 0.56, 0.72), "brown": (0.42, 0.24, 0.11),
    "black": (0.08, 0.08, 0.09), "white": (0.95, 0.95, 0.94), "grey": (0.50, 0.51, 0.53),
}  # fmt: skip
PATTERNS = {
    "plain": raycast.PLAIN,
    "spotted": raycast.SPOTTED,
    "striped": raycast.STRIPED,
    "patched": raycast.PATCHED,
    "two-tone": raycast.TWO_TONE,
}
PROPERTIES = ("shiny", "wet", "golden", "transparent", "cube shaped")
# Yaw of each view in degrees (0: facing right), each jittered by up to 10; the camera's height comes with it.
VIEWS = {
    "front": (-90,),
    "side": (0, 180),
    "back": (90,),
    "three-quarter": (-45, -135),
    "top": (0, 180, -90),
    "bottom": (0, 180, -90),
}
RELATIONS = ("next to", "in front of", "to the left of", "to the right of")


@dataclass(frozen=True)
class Subject:
    """Who is drawn: a point in a continuous space of individuals.

    `build` shifts the proportions (each in [-1, 1]); the colours are RGB in [0, 1], their names the words that captions use;
    `cross` names a second class whose proportions are blended in half and half.
    """

    class_noun: str
    build: tuple[float, ...]
    colours: tuple[tuple[float, float, float], ...]
    colour_names: tuple[str, ...]
    pattern: str
    pattern_scale: float
    pattern_seed: int
    cross: str | None = None

    def proportions(self) -> dict[str, float]:
        mean = MEAN_PROPORTIONS[self.class_noun]
        if self.cross:
            other = MEAN_PROPORTIONS[self.cross]
            mean = {name: 0.5 * (value + other[name]) for name, value in mean.items()}
        # Legs, ears and tails differ more between individuals than angles do.
        return {
            name: value * (1.0 + (0.10 if name in ("ear_tilt", "tail_up", "point") else 0.24) * shift)
            for (name, value), shift in zip(mean.items(), self.build, strict=False)
        }


@dataclass(frozen=True)
class Entity:
    """A subject as it stands in one scene."""

    subject: Subject
    pose: str = "standing"
    accessory: str | None = None
    property: str | None = None


@dataclass(frozen=True)
class Scene:
    """One picture to be: one or two entities, a context, a view, a style; all that `seed` still decides is incidental."""

    entities: tuple[Entity, ...]
    context: str
    view: str = "three-quarter"
    style: str = "photo"
    relation: str | None = None
    size: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    seed: int = 0


def held_out(scene: Scene) -> bool:
    """Whether a composition of class, context and style is kept from all training: one in ten is."""
    return any(
        crc32(f"{entity.subject.class_noun}|{scene.context}|{scene.style}".encode()) % 10 == 0
        for entity in scene.entities
    )


def to_dict(scene: Scene) -> dict[str, Any]:
    """A scene as plain data for JSON."""
    return asdict(scene)


def from_dict(data: dict[str, Any]) -> Scene:
    """The scene that `to_dict` wrote."""
    entities = []
    for entity in data["entities"]:
        who = entity["subject"]
        subject = Subject(
            **who
            | {
                "build": tuple(who["build"]),
                "colours": tuple(map(tuple, who["colours"])),
                "colour_names": tuple(who["colour_names"]),
            }
        )
        entities.append(Entity(**entity | {"subject": subject}))
    return Scene(**data | {"entities": tuple(entities), "offset": tuple(data["offset"])})


@dataclass(frozen=True)
class Render:
    """A picture and what is true of it: pixels (128, 128, 3) uint8, one mask (128, 128) bool and one box an entity.

    A mask is where the entity's own body shows (not what it wears); a box is (left, top, right, bottom) in [0, 1].
    """

    scene: Scene
    pixels: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float] | None, ...]:
        return tuple(_box(mask) for mask in self.masks)


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    side = len(mask)
    return columns[0] / side, rows[0] / side, (columns[-1] + 1) / side, (rows[-1] + 1) / side


def random_subject(rng: Generator, class_noun: str | None = None) -> Subject:
    """An individual of a class (a random one unless named); three different colours, each near a named one."""
    noun = class_noun or str(rng.choice(CLASSES))
    names = tuple(str(name) for name in rng.choice(list(COLOURS), 3, replace=False))
    colours = tuple(
        tuple(
            float(c)
            for c in np.clip(np.array(COLOURS[n]) * rng.uniform(0.88, 1.08) + rng.uniform(-0.035, 0.035, 3), 0.02, 1)
        )
        for n in names
    )
    pattern = str(rng.choice(list(PATTERNS), p=(0.28, 0.18, 0.18, 0.18, 0.18)))
    return Subject(
        noun, tuple(float(b) for b in rng.uniform(-1, 1, 20)), colours, names, pattern, float(rng.uniform(0.8, 1.25)), int(rng.integers(1, 10_000))
    )  # fmt: skip


def _slots(entity: Entity) -> dict[str, list[float]]:
    """The materials an entity wears: slot -> row for the ray caster."""
    main, second, accent = entity.subject.colours
    gloss, metal, alpha = 0.10, 0.0, 1.0
    match entity.property:
        case "shiny":
            gloss = 0.95
        case "wet":
            main, second, accent = (tuple(0.62 * c for c in colour) for colour in (main, second, accent))
            gloss = 0.75
        case "golden":
            main, second, accent = (1.0, 0.76, 0.20), (0.86, 0.60, 0.12), (1.0, 0.86, 0.42)
            gloss, metal = 0.8, 1.0
        case "transparent":
            gloss, alpha = 0.9, 0.42
    s = entity.subject
    scale = {"spotted": 3.6, "striped": 2.6, "patched": 2.1, "two-tone": 0.0}.get(s.pattern, 1.0) * s.pattern_scale
    if s.pattern == "two-tone":
        scale = _two_tone_height(s)

    def row(
        first: tuple[float, ...], other: tuple[float, ...] = (0, 0, 0), pattern: int = raycast.PLAIN
    ) -> list[float]:
        return [*first, *other, pattern, scale, s.pattern_seed, gloss, metal, alpha]

    pattern = raycast.PLAIN if entity.property == "golden" else PATTERNS[s.pattern]
    return {
        "main": row(main, second, pattern), "second": row(second), "accent": row(accent), "white": row((0.97, 0.97, 0.97)),
        "black": row((0.05, 0.05, 0.06)), "grey": row((0.6, 0.6, 0.63)), "red": row((0.9, 0.1, 0.1)),
        "orange": row((0.97, 0.55, 0.10)), "glass": row((0.45, 0.62, 0.72)),
    }  # fmt: skip


def _two_tone_height(s: Subject) -> float:
    """The rest-frame height below which a two-tone body wears its second colour."""
    body = PLANS[s.class_noun](s.proportions(), "standing")
    heights = [part.frame.centre[2] for part in body.parts if part.slot == "main"]
    return float(np.mean(heights)) * (0.75 + 0.25 * s.pattern_scale)


def _surface_row(surface: Surface, seed: int) -> list[float]:
    return [*surface.first, *surface.second, surface.pattern, surface.scale, seed, 0.05, 0.0, 1.0]


def _as_cubes(part: Part) -> Part:
    """The boxy stand-in of a rounded part."""
    a, b, c, _ = part.size
    if part.kind == raycast.ELLIPSOID:
        return replace(part, kind=raycast.BOX, size=(0.88 * a, 0.88 * b, 0.88 * c, 0.03))
    if part.kind in (raycast.ROUND_CONE, raycast.CONE):
        wide = 0.85 * max(a, b)
        return replace(part, kind=raycast.BOX, size=(wide, wide, c / 2, 0.02), frame=part.frame.at(0, 0, c / 2))
    return part


class _Builder:
    """Collects the rows that the ray caster reads."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.float64]] = []
        self.kinds: list[int] = []
        self.layers: list[int] = []
        self.casts: list[bool] = []
        self.owners: list[int] = []
        self.material_of: list[int] = []
        self.materials: list[list[float]] = []

    def add(
        self,
        parts: list[Part],
        rest: list[Part],
        slots: dict[str, list[float]],
        place: Frame,
        owner: int,
        layer: int = 0,
    ) -> None:
        index = {name: len(self.materials) + i for i, name in enumerate(slots)}
        self.materials.extend(slots.values())
        for part, still in zip(parts, rest, strict=True):
            row = np.empty(raycast.PRIMITIVE_WIDTH)
            rotation = place.rotation @ part.frame.rotation
            row[:3] = place.rotation @ part.frame.centre + place.centre
            row[3:12] = rotation.T.ravel()
            row[12:16] = part.size
            row[16:19] = still.frame.centre
            row[19:28] = still.frame.rotation.ravel()
            self.rows.append(row)
            self.kinds.append(part.kind)
            self.layers.append(layer)
            self.casts.append(owner != 0)
            self.owners.append(owner)
            self.material_of.append(index[part.slot])


def _dress(entity: Entity, pose: str) -> Body:
    body = PLANS[entity.subject.class_noun](entity.subject.proportions(), pose)
    if entity.property == "cube shaped":
        body.parts = [_as_cubes(part) for part in body.parts]
    if entity.accessory:
        ACCESSORIES[entity.accessory](body)
    return body


def _extent(body: Body, place: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centres = np.array(
        [
            place.rotation
            @ (
                p.frame.at(0, 0, p.size[2] / 2).centre
                if p.kind in (raycast.ROUND_CONE, raycast.CONE)
                else p.frame.centre
            )
            + place.centre
            for p in body.parts
        ]
    )
    reach = np.array(
        [
            (max(p.size[0], p.size[1]) + p.size[2] / 2)
            if p.kind in (raycast.ROUND_CONE, raycast.CONE)
            else (p.size[0] + p.size[1] if p.kind == raycast.TORUS else max(p.size[:3]))
            for p in body.parts
        ]
    )
    return (centres - reach[:, None]).min(0), (centres + reach[:, None]).max(0)


def _stand(
    entity: Entity, scene: Scene, where: tuple[float, float], sink: float, rng: Generator
) -> tuple[Body, Body, Frame]:
    """The posed body, the resting one and the frame that puts it in the world."""
    body, rest = _dress(entity, entity.pose), _dress(entity, "standing")
    yaw = np.radians(rng.choice(VIEWS[scene.view]) + rng.uniform(-10, 10))
    rotation = turn("z", yaw)
    if scene.view == "bottom":  # shown lying on its back, seen from above: its underside against the ground
        rotation = rotation @ turn("x", np.pi)
    place = Frame(rotation, np.zeros(3))
    low, high = _extent(body, place)
    middle = 0.5 * (low + high)
    floor = low[2] if scene.view == "bottom" else 0.0
    return body, rest, Frame(rotation, np.array([where[0] - middle[0], where[1] - middle[1], -floor - sink]))


def render(scene: Scene) -> Render:
    """Draw a scene: the picture in its style and the mask of each entity."""
    rng = default_rng(scene.seed)
    place: Place = CONTEXTS[scene.context](rng)
    build = _Builder()
    scenery = {name: _surface_row(s, int(rng.integers(1, 9999))) for name, s in place.surfaces.items()}
    build.add(place.body.parts, place.body.parts, scenery, Frame(np.eye(3), np.zeros(3)), 0)
    spots = _spots_for(scene)
    lows, highs = [], []
    for i, entity in enumerate(scene.entities):
        body, rest, where = _stand(entity, scene, spots[i], place.floats if scene.view not in ("bottom",) else 0.0, rng)
        own = len(PLANS[entity.subject.class_noun](entity.subject.proportions(), "standing").parts)
        layer = 1 if entity.property == "transparent" else 0
        build.add(body.parts[:own], rest.parts[:own], _slots(entity), where, i + 1, layer)
        worn = {name: _surface_row(s, 7) for name, s in SURFACES.items()}
        build.add(body.parts[own:], rest.parts[own:], worn, where, -1)
        low, high = _extent(body, where)
        lows.append(low), highs.append(high)
    low, high = np.min(lows, 0), np.max(highs, 0)
    image, owner, depth = _shoot(scene, place, build, low, high, rng)
    pixels = styles.apply(scene.style, image, owner, depth, rng)
    masks = tuple(_coverage(owner == i + 1) for i in range(len(scene.entities)))
    return Render(scene, pixels, masks)


def _spots_for(scene: Scene) -> list[tuple[float, float]]:
    if len(scene.entities) == 1:
        return [(0.0, 0.0)]
    gap = 0.85
    return {
        "next to": [(-gap, 0.0), (gap, 0.0)], "to the left of": [(-gap, 0.0), (gap, 0.0)], "to the right of": [(gap, 0.0), (-gap, 0.0)],
        "in front of": [(-0.45, -0.9), (0.45, 0.9)],
    }[scene.relation or "next to"]  # fmt: skip


def _coverage(samples: NDArray[np.bool_]) -> NDArray[np.bool_]:
    side = len(samples) // 2
    return samples.reshape(side, 2, side, 2).sum((1, 3)) >= 2


def _shoot(
    scene: Scene, place: Place, build: _Builder, low: NDArray[np.float64], high: NDArray[np.float64], rng: Generator
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float64]]:
    """Set the camera so that the subject fills its share of the frame, and cast the rays."""
    overhead = scene.view in ("top", "bottom")
    elevation = np.radians(rng.uniform(70, 78) if overhead else rng.uniform(9, 19))
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    focal = 1.55
    tall = half[2] * np.cos(elevation) + half[1] * np.sin(elevation)
    reach = max(half[0] * 0.92, tall, 0.45)
    distance = focal * reach / (0.44 * scene.size) + 0.6 * half[1]
    forward = np.array([0.0, np.cos(elevation), -np.sin(elevation)])
    right = np.array([1.0, 0.0, 0.0])
    up = np.cross(right, forward)
    shift = distance / focal
    target = (
        middle - right * scene.offset[0] * shift - up * scene.offset[1] * shift + (0 if overhead else 0.08) * up * shift
    )
    eye = target - forward * distance
    eye[2] = max(eye[2], 0.25)
    azimuth = rng.uniform(-0.9, 0.9) + (np.pi if rng.random() < 0.5 else 0.0)
    height = rng.uniform(0.8, 1.1)
    light = np.array([np.cos(azimuth) * np.cos(height), -0.55 * np.cos(height), np.sin(height)])
    light /= np.linalg.norm(light)
    row = np.zeros(ground.GROUND_WIDTH)
    row[:9] = place.kind, place.clouds, rng.integers(1, 9999), *place.first, *place.second
    row[9 : 9 + len(place.extra)] = place.extra
    side = 2 * SIDE
    image, owner, depth = (
        np.zeros((side, side, 3), np.float32),
        np.zeros((side, side), np.int16),
        np.zeros((side, side)),
    )
    brightness = rng.uniform(0.94, 1.06)
    bounce = np.array(place.first) * 0.35 + 0.10
    raycast.cast_scene(
        np.array(build.rows), np.array(build.kinds), np.array(build.layers), np.array(build.casts), np.array(build.owners),
        np.array(build.materials), np.array(build.material_of), eye, right, up, forward, focal, light,
        np.array(place.sun) * brightness, np.array(place.ambient) * brightness, bounce, row,
        np.array(place.sky[0]), np.array(place.sky[1]), place.haze, side, image, owner, depth,
    )  # fmt: skip
    return image, owner, depth


def random_scene(rng: Generator, subjects: tuple[Subject, ...] | None = None, **fixed: object) -> Scene:
    """A scene with everything that is not given drawn at random; `fixed` names fields of Scene, or pose, accessory, property."""
    people = subjects or tuple(random_subject(rng) for _ in range(2 if rng.random() < 0.12 else 1))
    two = len(people) > 1
    if subjects is None and not two and people[0].class_noun in QUADRUPEDS and rng.random() < 0.06:
        other = str(rng.choice([noun for noun in QUADRUPEDS if noun != people[0].class_noun]))
        people = (replace(people[0], cross=other),)
    view = str(
        fixed.get("view")
        or rng.choice(list(VIEWS), p=(0.22, 0.24, 0.13, 0.25, 0.10, 0.06) if not two else (0.3, 0.3, 0.1, 0.3, 0, 0))
    )
    overhead = view in ("top", "bottom")
    context = str(fixed.get("context") or rng.choice(GROUNDED if overhead else list(CONTEXTS)))
    style = str(
        fixed.get("style")
        or ("photo" if rng.random() < 0.55 else rng.choice([s for s in styles.STYLES if s != "photo"]))
    )
    entities = []
    for person in people:
        live = person.class_noun in LIVE
        pose = str(
            fixed.get("pose")
            or (rng.choice(LIVE_POSES, p=(0.55, 0.17, 0.17, 0.11)) if live and not overhead else "standing")
        )
        wears = (
            fixed["accessory"]
            if "accessory" in fixed
            else (rng.choice(list(ACCESSORIES)) if live and rng.random() < (0.15 if two else 0.42) else None)
        )
        kind = (
            fixed["property"]
            if "property" in fixed
            else (rng.choice(PROPERTIES) if rng.random() < (0.05 if two else 0.14) else None)
        )
        entities.append(
            Entity(
                person,
                pose if live else "standing",
                str(wears) if wears and live else None,
                str(kind) if kind else None,
            )
        )
    return Scene(
        tuple(entities), context, view, style,
        str(fixed.get("relation") or rng.choice(RELATIONS)) if two else None,
        float(rng.uniform(0.82, 1.12) if two else rng.uniform(0.75, 1.1)),
        (float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.05, 0.05))),
        int(rng.integers(2**31)),
    )  # fmt: skip
