"""From a scene to its picture: bodies put into a place, a camera and a light set up, rays cast, the style applied."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image

from persona.clay.world import ground, raycast, styles
from persona.clay.world.accessories import ACCESSORIES, SURFACES
from persona.clay.world.bodies import ROOT, Array, Body, Frame, Part, turn
from persona.clay.world.contexts import CONTEXTS, Place
from persona.clay.world.materials import Row, entity_rows, surface_row
from persona.clay.world.primitives import BOX, CONE, ELLIPSOID, ROUND_CONE
from persona.clay.world.scene import OVERHEAD, VIEWS, Entity, Scene

SIDE = 128
"""Pixels a side of every picture."""

_FOCAL = 1.55  # distance of the image plane, in widths of the frame
_SCENERY, _WORN = 0, -1  # owners of samples; entities count from 1
_GAP = 0.85  # from the middle to each of two entities, at least


@dataclass(frozen=True)
class Render:
    """A picture and what is true of it.

    Attributes:
        scene: what it shows.
        pixels: (128, 128, 3) uint8.
        masks: (128, 128) bool for each entity: where its own body shows, not what it wears.
    """

    scene: Scene
    pixels: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]

    @property
    def image(self) -> Image.Image:
        """The picture, RGB."""
        return Image.fromarray(self.pixels)

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float] | None, ...]:
        """Left, top, right and bottom of each mask in [0, 1]; ``None`` where nothing of the entity shows."""
        return tuple(_box(mask) for mask in self.masks)


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top, right, bottom = (float(end) / len(mask) for end in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return left, top, right, bottom


def render(scene: Scene) -> Render:
    """Draw a scene: the picture in its style, and the mask of each entity."""
    stage, place, camera, rng = _built(scene)
    image, owner, depth = _cast(stage, place, camera, rng)
    pixels = styles.apply(scene.style, image, owner, depth, rng)
    return Render(scene, pixels, _masks(scene, owner))


def silhouettes(scene: Scene) -> tuple[tuple[NDArray[np.bool_], ...], NDArray[np.bool_]]:
    """Return the masks that `render` returns, without the picture, and where what is worn shows, (128, 128) bool."""
    stage, _, camera, _ = _built(scene)
    owner = np.zeros((2 * SIDE, 2 * SIDE), np.int16)
    raycast.cast_owners(
        np.array(stage.rows), np.array(stage.kinds), np.array(stage.layers), np.array(stage.owners),
        camera.eye, camera.right, camera.up, camera.forward, _FOCAL, owner,
    )  # fmt: skip
    return _masks(scene, owner), _coverage(owner == _WORN)


def _built(scene: Scene) -> tuple["_Stage", Place, "_Camera", Generator]:
    """Return a scene's stage, place and camera, and what draws the rest at random."""
    place, scenery, rng = _scenery(scene)
    stage = _Stage()
    stage.add(place.body.parts, place.body.parts, scenery, ROOT, _SCENERY)
    sink = 0.0 if scene.view == "bottom" else place.floats
    standing = [_stand(entity, scene, sink, rng) for entity in scene.entities]
    spots = _spots_for(scene, standing)
    extents = [
        _put(stage, entity, number, one.moved(spot))
        for number, (entity, one, spot) in enumerate(zip(scene.entities, standing, spots, strict=True), 1)
    ]
    low, high = np.min([low for low, _ in extents], 0), np.max([high for _, high in extents], 0)
    return stage, place, _camera(scene, low, high, rng), rng


def _scenery(scene: Scene) -> tuple[Place, dict[str, Row], Generator]:
    """Return a scene's place, the rows of its surfaces, and what draws the rest at random."""
    rng = default_rng(scene.seed)
    place = CONTEXTS[scene.context](rng)
    return place, {name: surface_row(one, int(rng.integers(1, 9999))) for name, one in place.surfaces.items()}, rng


def faces_left(scene: Scene) -> bool:
    """Whether a scene's first entity is turned to the left, which no word of a caption says."""
    *_, rng = _scenery(scene)
    return bool(np.cos(_yaw(scene, rng)) < -0.4)  # at 180 degrees and -135, and not at 90 or -90, each jittered


def _yaw(scene: Scene, rng: Generator) -> float:
    """Draw how an entity is turned, in radians: 0 faces right, a negative right angle the camera."""
    return float(np.radians(rng.choice(VIEWS[scene.view]) + rng.uniform(-10, 10)))


def _masks(scene: Scene, owner: NDArray[np.int16]) -> tuple[NDArray[np.bool_], ...]:
    return tuple(_coverage(owner == i + 1) for i in range(len(scene.entities)))


def _coverage(samples: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels that at least half of their four samples (256, 256) belong to."""
    covered: NDArray[np.bool_] = styles.halved(samples.astype(np.float32)) >= 0.5
    return covered


# Bodies in their place


@dataclass
class _Stage:
    """Collects the rows that the ray caster reads, one for each primitive, and the materials that they name."""

    rows: list[Array] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    casts: list[bool] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    materials: list[Row] = field(default_factory=list)
    material_of: list[int] = field(default_factory=list)

    def add(
        self, parts: list[Part], rest: list[Part], slots: dict[str, Row], place: Frame, owner: int, layer: int = 0
    ) -> None:
        """Add parts with their rest frames; layer 1 is seen through. Scenery casts no shadow."""
        index = {name: len(self.materials) + i for i, name in enumerate(slots)}
        self.materials.extend(slots.values())
        for part, still in zip(parts, rest, strict=True):
            row = np.empty(raycast.PRIMITIVE_WIDTH)
            row[:3] = place.rotation @ part.frame.centre + place.centre
            row[3:12] = (place.rotation @ part.frame.rotation).T.ravel()
            row[12:16] = part.size
            row[16:19] = still.frame.centre
            row[19:28] = still.frame.rotation.ravel()
            self.rows.append(row)
            self.kinds.append(part.kind)
            self.layers.append(layer)
            self.casts.append(owner != _SCENERY)
            self.owners.append(owner)
            self.material_of.append(index[part.slot])


@dataclass(frozen=True)
class _Standing:
    """An entity's posed body, its resting one, and the frame that puts both into the world."""

    body: Body
    rest: Body
    where: Frame

    def moved(self, spot: tuple[float, float]) -> "_Standing":
        """Return it on another spot of the ground."""
        return replace(self, where=Frame(self.where.rotation, self.where.centre + np.array([*spot, 0.0])))


def _stand(entity: Entity, scene: Scene, sink: float, rng: Generator) -> _Standing:
    """Pose an entity and turn it as it is seen, over the middle of the ground."""
    body, rest = _dressed(entity, entity.pose), _dressed(entity, "standing")
    rotation = turn("z", _yaw(scene, rng))
    if scene.view == "bottom":  # shown lying on its back, seen from above: its underside against the ground
        rotation = rotation @ turn("x", np.pi)
    low, high = _extent(body, Frame(rotation, np.zeros(3)))
    x, y, _ = 0.5 * (low + high)
    floor = low[2] if scene.view == "bottom" else 0.0
    return _Standing(body, rest, Frame(rotation, np.array([-x, -y, -floor - sink])))


def _dressed(entity: Entity, pose: str) -> Body:
    body = entity.subject.body(pose)
    if entity.property == "cube shaped":
        body.parts = [_as_cube(part) for part in body.parts]
    if entity.accessory:
        ACCESSORIES[entity.accessory](body)
    return body


def _as_cube(part: Part) -> Part:
    """Return the boxy stand-in of a rounded part."""
    a, b, c, _ = part.size
    if part.kind == ELLIPSOID:
        return replace(part, kind=BOX, size=(0.88 * a, 0.88 * b, 0.88 * c, 0.03))
    if part.kind in (ROUND_CONE, CONE):
        wide = 0.85 * max(a, b)
        return replace(part, kind=BOX, size=(wide, wide, c / 2, 0.02), frame=part.frame.at(0, 0, c / 2))
    return part


def _put(stage: _Stage, entity: Entity, number: int, standing: _Standing) -> tuple[Array, Array]:
    """Put an entity and what it wears on the stage, and return its extent."""
    body, rest, where = standing.body.parts, standing.rest.parts, standing.where
    own = len(entity.subject.body().parts)
    layer = 1 if entity.property == "transparent" else 0
    stage.add(body[:own], rest[:own], entity_rows(entity), where, number, layer)
    worn = {name: surface_row(surface, 7) for name, surface in SURFACES.items()}
    stage.add(body[own:], rest[own:], worn, where, _WORN)
    return _extent(standing.body, where)


def _extent(body: Body, place: Frame) -> tuple[Array, Array]:
    """Return the lowest and the highest x, y and z (3,) of a body in the world."""
    middles = np.array([place.rotation @ part.middle + place.centre for part in body.parts])
    reach = np.array([part.reach for part in body.parts])
    return (middles - reach[:, None]).min(0), (middles + reach[:, None]).max(0)


def _spots_for(scene: Scene, standing: list[_Standing]) -> list[tuple[float, float]]:
    """Return where each entity stands on the ground; side by side they keep clear of each other, however wide."""
    if len(standing) == 1:
        return [(0.0, 0.0)]
    extents = (_extent(one.body, one.where) for one in standing)
    gap = max(_GAP, sum(float(high[0] - low[0]) for low, high in extents) / 4)
    left, right = (-gap, 0.0), (gap, 0.0)
    return {
        "next to": [left, right], "to the left of": [left, right], "to the right of": [right, left],
        "in front of": [(-0.45, -0.9), (0.45, 0.9)],
    }[scene.relation or "next to"]  # fmt: skip


# Camera and light


@dataclass(frozen=True)
class _Camera:
    """Where the eye is, and the axes of what it sees, each (3,)."""

    eye: Array
    right: Array
    up: Array
    forward: Array


def _camera(scene: Scene, low: Array, high: Array, rng: Generator) -> _Camera:
    """Set the camera so that what lies between two corners fills its share of the frame."""
    overhead = scene.view in OVERHEAD
    elevation = np.radians(rng.uniform(70, 78) if overhead else rng.uniform(9, 19))
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    tall = half[2] * np.cos(elevation) + half[1] * np.sin(elevation)
    reach = max(half[0] * 0.92, tall, 0.45)
    distance = _FOCAL * reach / (0.44 * scene.size) + 0.6 * half[1]
    forward = np.array([0.0, np.cos(elevation), -np.sin(elevation)])
    right = np.array([1.0, 0.0, 0.0])
    up = np.cross(right, forward)
    shift = distance / _FOCAL
    lift = (0 if overhead else 0.08) * up * shift
    target = middle - right * scene.offset[0] * shift - up * scene.offset[1] * shift + lift
    eye = target - forward * distance
    eye[2] = max(eye[2], 0.25)
    return _Camera(eye, right, up, forward)


def _cast(
    stage: _Stage, place: Place, camera: _Camera, rng: Generator
) -> tuple[NDArray[np.float32], NDArray[np.int16], Array]:
    """Light the stage and cast the rays: colours (256, 256, 3), owners (256, 256) and depths (256, 256)."""
    light = _light(rng)
    row = np.zeros(ground.GROUND_WIDTH)
    row[:9] = place.kind, place.clouds, rng.integers(1, 9999), *place.first, *place.second
    row[9 : 9 + len(place.extra)] = place.extra
    side = 2 * SIDE
    image, owner = np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.int16)
    depth = np.zeros((side, side))
    brightness = rng.uniform(0.94, 1.06)
    bounce = np.array(place.first) * 0.35 + 0.10
    raycast.cast_scene(
        np.array(stage.rows), np.array(stage.kinds), np.array(stage.layers), np.array(stage.casts),
        np.array(stage.owners), np.array(stage.materials), np.array(stage.material_of),
        camera.eye, camera.right, camera.up, camera.forward, _FOCAL, light,
        np.array(place.sun) * brightness, np.array(place.ambient) * brightness, bounce, row,
        np.array(place.sky[0]), np.array(place.sky[1]), place.haze, side, image, owner, depth,
    )  # fmt: skip
    return image, owner, depth


def _light(rng: Generator) -> Array:
    """Return the unit direction (3,) to a sun that stands behind the camera, to either side."""
    azimuth = rng.uniform(-0.9, 0.9) + (np.pi if rng.random() < 0.5 else 0.0)
    height = rng.uniform(0.8, 1.1)
    light = np.array([np.cos(azimuth) * np.cos(height), -0.55 * np.cos(height), np.sin(height)])
    light /= np.linalg.norm(light)
    return light
