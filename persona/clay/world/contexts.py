"""Where a scene takes place: a ground, a sky, light, and things that stand around."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from persona.clay.world import ground
from persona.clay.world.bodies import ROOT, Body, turn
from persona.clay.world.primitives import CONE
from persona.clay.world.raycast import LEAVES, PLAIN, SNOWCAP, WINDOWS

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Surface:
    """What a piece of scenery is painted with: two colours and a pattern of the ray caster's."""

    first: Colour
    second: Colour = (0.0, 0.0, 0.0)
    pattern: int = PLAIN
    scale: float = 1.0


@dataclass
class Place:
    """A context as the ray caster wants it; colours are RGB in [0, 1].

    Attributes:
        kind: of the ground.
        first: colour of the ground.
        second: what it varies to.
        extra: free numbers of the kind: where the shore is, how large the rug.
        sky: colours at the horizon and above.
        clouds: their share, 0 to 1.
        haze: density, for each unit of distance.
        sun: colour and strength of the direct light.
        ambient: of the light from everywhere.
        floats: how deep a subject sinks in, in units of the world.
        body: what stands around.
        surfaces: the slots that its parts name.
    """

    kind: int
    first: Colour
    second: Colour
    extra: tuple[float, ...] = ()
    sky: tuple[Colour, Colour] = ((0.80, 0.90, 0.98), (0.36, 0.60, 0.92))
    clouds: float = 0.0
    haze: float = 0.012
    sun: Colour = (0.78, 0.74, 0.66)
    ambient: Colour = (0.36, 0.38, 0.42)
    floats: float = 0.0
    body: Body = field(default_factory=Body)
    surfaces: dict[str, Surface] = field(default_factory=dict)


def _spots(rng: Generator, n: int, near: float, far: float, clear: float = 1.1) -> list[tuple[float, float]]:
    """Places behind the subject, farther to the sides than `clear`."""
    spots = []
    for i in range(n):
        side = 1 if i % 2 else -1
        y = rng.uniform(near, far)
        spots.append((side * rng.uniform(clear, clear + 0.42 * (y + 2.5)), y))
    return spots


def _tree(place: Place, rng: Generator, x: float, y: float, tall: float, trunk: str, crown: str) -> None:
    body = place.body
    body.limb(ROOT, trunk, (x, y, 0), (x + rng.uniform(-0.15, 0.15), y, 0.6 * tall), 0.14, 0.10)
    for _ in range(3):
        r = tall * rng.uniform(0.20, 0.30)
        body.ball(ROOT, crown, x + rng.uniform(-0.3, 0.3) * tall, y, tall * rng.uniform(0.65, 0.9), r, r, 0.85 * r)


def _conifer(place: Place, x: float, y: float, tall: float, leaf: str) -> None:
    body = place.body
    body.limb(ROOT, "bark", (x, y, 0), (x, y, 0.3 * tall), 0.12, 0.12)
    for i in range(3):
        z = (0.18 + 0.26 * i) * tall
        body.limb(ROOT, leaf, (x, y, z), (x, y, z + 0.42 * tall), (0.34 - 0.08 * i) * tall, 0.01, CONE)


def _jungle(rng: Generator) -> Place:
    place = Place(ground.GRASS, (0.07, 0.20, 0.05), (0.16, 0.36, 0.08), sky=((0.10, 0.26, 0.10), (0.05, 0.16, 0.07)),
                  haze=0.03, sun=(0.66, 0.74, 0.50), ambient=(0.30, 0.40, 0.28))  # fmt: skip
    place.surfaces = {
        "bark": Surface((0.26, 0.17, 0.09)),
        "palm": Surface((0.05, 0.26, 0.07), (0.20, 0.50, 0.12), LEAVES, 3.0),
        "fern": Surface((0.10, 0.38, 0.08), (0.25, 0.58, 0.14), LEAVES, 5.0),
    }
    for x, y in _spots(rng, 8, 2.6, 5.5, 0.5):
        _tree(place, rng, x, y, rng.uniform(2.6, 4.0), "bark", "palm")
    for x, y in _spots(rng, 8, 1.3, 2.2, 1.0):
        for _ in range(2):
            place.body.limb(ROOT, "fern", (x, y, 0), (x + rng.uniform(-0.5, 0.5), y, rng.uniform(0.5, 0.9)), 0.10, 0.03)
    return place


def _snow(rng: Generator) -> Place:
    place = Place(ground.SNOW, (0.97, 0.98, 1.0), (0.80, 0.86, 0.95), sky=((0.92, 0.95, 0.98), (0.70, 0.80, 0.92)),
                  haze=0.02, ambient=(0.46, 0.48, 0.54))  # fmt: skip
    place.surfaces = {
        "bark": Surface((0.35, 0.26, 0.20)),
        "fir": Surface((0.20, 0.38, 0.34), (0.97, 0.98, 1.0), LEAVES, 3.5),
    }
    for x, y in _spots(rng, 6, 3.0, 6.0, 0.8):
        _conifer(place, x, y, rng.uniform(1.6, 2.6), "fir")
    return place


def _beach(rng: Generator) -> Place:
    place = Place(ground.SAND_AND_SEA, (0.95, 0.84, 0.60), (0.86, 0.72, 0.47), (rng.uniform(2.0, 3.0),), clouds=0.5,
                  sky=((0.82, 0.93, 0.99), (0.30, 0.62, 0.95)))  # fmt: skip
    place.surfaces = {"bark": Surface((0.55, 0.40, 0.24)), "palm": Surface((0.20, 0.52, 0.20))}
    x, y = rng.choice([-1, 1]) * rng.uniform(1.3, 1.9), 1.7
    top = (x + 0.2, y, rng.uniform(1.8, 2.2))
    place.body.limb(ROOT, "bark", (x, y, 0), top, 0.10, 0.07)
    for a in np.linspace(0, 2 * np.pi, 6)[:-1] + rng.uniform(0, 1):
        end = (top[0] + 0.75 * np.cos(a), top[1] + 0.75 * np.sin(a), top[2] - 0.25)
        place.body.limb(ROOT, "palm", top, end, 0.09, 0.02)
    return place


def _cobbles(rng: Generator) -> Place:
    place = Place(ground.COBBLES, (0.42, 0.42, 0.45), (0.66, 0.64, 0.62), sky=((0.86, 0.86, 0.86), (0.66, 0.74, 0.84)))
    place.surfaces = {
        "wall": Surface((0.74, 0.55, 0.42), (0.30, 0.30, 0.36), WINDOWS),
        "wall2": Surface((0.82, 0.74, 0.56), (0.30, 0.30, 0.36), WINDOWS),
    }
    for i, x in enumerate((-3.2, 0.0, 3.2)):
        wall = "wall" if (i + int(rng.integers(2))) % 2 else "wall2"
        place.body.box(ROOT, wall, x + rng.uniform(-0.3, 0.3), 4.6, 1.2, 1.55, 0.5, rng.uniform(1.0, 1.6), 0.03)
    return place


def _fabric(rng: Generator) -> Place:
    place = Place(ground.FABRIC, (0.88, 0.42, 0.62), (0.98, 0.66, 0.80), haze=0.0,
                  sky=((0.95, 0.58, 0.74), (0.88, 0.46, 0.65)))  # fmt: skip
    place.surfaces = {"cloth": Surface((0.92, 0.52, 0.70)), "cloth2": Surface((0.96, 0.62, 0.77))}
    for i, x in enumerate(np.linspace(-4, 4, 12)):
        low, high = (x, 3.6 + 0.15 * (i % 2), -0.2), (x + rng.uniform(-0.3, 0.3), 3.6, 4.5)
        place.body.limb(ROOT, ("cloth", "cloth2")[i % 2], low, high, 0.42, 0.36)
    return place


def _indoors(first: Colour, second: Colour, kind: int, wall: Colour, extra: tuple[float, ...] = ()) -> Place:
    place = Place(kind, first, second, extra, sky=(wall, wall), haze=0.0, ambient=(0.44, 0.42, 0.40))
    place.surfaces = {"wall": Surface(wall), "skirting": Surface((0.95, 0.94, 0.92))}
    place.body.box(ROOT, "wall", 0, 3.9, 2.5, 9, 0.3, 2.6, 0.01)
    place.body.box(ROOT, "skirting", 0, 3.6, 0.1, 9, 0.05, 0.13, 0.01)
    return place


def _wooden_floor(rng: Generator) -> Place:
    return _indoors((0.62, 0.38, 0.19), (0.80, 0.56, 0.32), ground.PLANKS, (0.88, 0.85, 0.78))


def _white_rug(rng: Generator) -> Place:
    return _indoors(
        (0.44, 0.42, 0.44), (0.52, 0.50, 0.52), ground.RUG, (0.60, 0.70, 0.74), (1.7, 1.35, 0.97, 0.97, 0.95)
    )


def _city(rng: Generator) -> Place:
    place = Place(ground.PAVEMENT, (0.34, 0.34, 0.37), (0.44, 0.44, 0.46), (rng.choice([-1.0, 1.0]) * 1.3,), haze=0.02,
                  sky=((0.88, 0.90, 0.92), (0.55, 0.68, 0.84)))  # fmt: skip
    for i, x in enumerate(np.linspace(-4.4, 4.4, 6)):
        tone = rng.uniform(0.36, 0.62)
        place.surfaces[f"tower{i}"] = Surface((tone, tone, tone + 0.07), (0.97, 0.90, 0.60), WINDOWS)
        tall = rng.uniform(1.5, 3.6)
        place.body.box(ROOT, f"tower{i}", x, 6.0 + rng.uniform(-0.6, 0.6), tall, 0.72, 0.6, tall, 0.02)
    return place


def _mountain(rng: Generator) -> Place:
    place = Place(ground.GRASS, (0.36, 0.50, 0.24), (0.55, 0.62, 0.34), clouds=0.7, haze=0.016)
    place.surfaces = {"rock": Surface((0.43, 0.44, 0.52), (0.97, 0.98, 1.0), SNOWCAP, 2.7)}
    for x in (rng.uniform(-1.4, 1.4), rng.uniform(-6, -4.2), rng.uniform(4.2, 6)):
        tall = rng.uniform(3.6, 4.8)
        place.body.limb(ROOT, "rock", (x, 10.0, -0.2), (x, 10.0, tall), 1.05 * tall, 0.05, kind=CONE)
    return place


def _blue_house(rng: Generator) -> Place:
    place = Place(ground.GRASS, (0.30, 0.52, 0.18), (0.44, 0.64, 0.26), clouds=0.5)
    place.surfaces = {
        "blue": Surface((0.16, 0.38, 0.82)),
        "roof": Surface((0.60, 0.24, 0.18)),
        "pane": Surface((0.97, 0.95, 0.84)),
        "door": Surface((0.94, 0.94, 0.92)),
    }
    x, y = rng.uniform(-1.2, 1.2), 4.8
    body = place.body
    body.box(ROOT, "blue", x, y, 1.0, 1.6, 0.8, 1.0, 0.02)
    for side in (1, -1):
        roof = ROOT.at(x, y, 2.25, turn("y", side * 0.6))
        body.box(roof, "roof", side * 0.92, 0, 0.10, 1.08, 1.0, 0.08, 0.02)
        body.box(ROOT, "pane", x + side * 0.95, y - 0.8, 1.15, 0.30, 0.03, 0.30, 0.01)
    body.limb(ROOT, "blue", (x, y, 1.9), (x, y, 2.75), 1.15, 0.2, kind=CONE)
    body.box(ROOT, "door", x, y - 0.8, 0.55, 0.28, 0.03, 0.55, 0.01)
    return place


def _purple_rug(rng: Generator) -> Place:
    place = Place(ground.RUG, (0.28, 0.26, 0.12), (0.38, 0.36, 0.16), (1.75, 1.4, 0.46, 0.16, 0.62), haze=0.03,
                  sky=((0.55, 0.68, 0.50), (0.36, 0.54, 0.36)))  # fmt: skip
    place.surfaces = {
        "bark": Surface((0.34, 0.22, 0.13)),
        "fir": Surface((0.10, 0.33, 0.14), (0.20, 0.48, 0.20), LEAVES, 3.0),
    }
    for x, y in _spots(rng, 9, 2.6, 5.5, 0.5):
        _conifer(place, x, y, rng.uniform(2.2, 3.4), "fir")
    return place


def _wheat(rng: Generator) -> Place:
    place = Place(ground.NOISE, (0.72, 0.54, 0.20), (0.60, 0.42, 0.16), sky=((0.90, 0.93, 0.95), (0.45, 0.66, 0.92)))
    place.surfaces = {"stalk": Surface((0.90, 0.74, 0.28)), "ear": Surface((0.82, 0.60, 0.18))}
    for i, x in enumerate(np.linspace(-3.4, 3.4, 34)):
        x, y = x + rng.uniform(-0.1, 0.1), 2.2 + 0.5 * (i % 3)
        tall = rng.uniform(0.85, 1.15) + 0.12 * (i % 3)
        place.body.limb(ROOT, "stalk", (x, y, 0), (x, y, tall), 0.09, 0.05)
        place.body.ball(ROOT, "ear", x, y, tall + 0.05, 0.08, 0.08, 0.20)
    return place


def _autumn(rng: Generator) -> Place:
    place = Place(
        ground.LEAF_LITTER, (0.40, 0.30, 0.14), (0.52, 0.40, 0.18), sky=((0.95, 0.90, 0.80), (0.72, 0.80, 0.90))
    )
    place.surfaces = {
        "bark": Surface((0.30, 0.20, 0.13)),
        "crown": Surface((0.88, 0.38, 0.08), (0.96, 0.70, 0.14), LEAVES, 3.0),
    }
    side = rng.choice([-1, 1])
    _tree(place, rng, side * rng.uniform(0.9, 1.5), 2.6, rng.uniform(2.8, 3.3), "bark", "crown")
    _tree(place, rng, -side * rng.uniform(1.6, 2.6), 4.2, rng.uniform(2.8, 3.4), "bark", "crown")
    return place


def _water(rng: Generator) -> Place:
    return Place(ground.WATER, (0.08, 0.34, 0.58), (0.45, 0.72, 0.88), clouds=0.6, floats=0.16,
                 sky=((0.86, 0.93, 0.97), (0.42, 0.66, 0.92)))  # fmt: skip


def _sunflowers(rng: Generator) -> Place:
    place = Place(ground.GRASS, (0.22, 0.50, 0.12), (0.40, 0.66, 0.22), clouds=0.3)
    place.surfaces = {
        "stem": Surface((0.16, 0.42, 0.10)),
        "petal": Surface((0.99, 0.80, 0.08)),
        "seeds": Surface((0.32, 0.18, 0.07)),
    }
    for x, y in _spots(rng, 9, 0.6, 3.4, 0.95):
        tall = rng.uniform(0.6, 1.2)
        place.body.limb(ROOT, "stem", (x, y, 0), (x, y, tall), 0.04, 0.04)
        place.body.ball(ROOT, "petal", x, y - 0.05, tall, 0.26, 0.07, 0.26)
        place.body.ball(ROOT, "seeds", x, y - 0.10, tall, 0.12, 0.06, 0.12)
    return place


def _dirt_road(rng: Generator) -> Place:
    place = Place(ground.ROAD, (0.60, 0.44, 0.28), (0.46, 0.32, 0.19), (1.25,), clouds=0.4)
    place.surfaces = {
        "post": Surface((0.50, 0.38, 0.26)),
        "bush": Surface((0.18, 0.42, 0.12), (0.34, 0.56, 0.20), LEAVES, 4.0),
    }
    for x, y in _spots(rng, 5, 2.0, 6.0, 2.0):
        place.body.ball(ROOT, "bush", x, y, 0.25, 0.5, 0.4, 0.42)
    for side in (1, -1):
        for y in (0.5, 2.5, 4.5, 6.5):
            place.body.limb(ROOT, "post", (side * 1.95, y, 0), (side * 1.95, y, 0.7), 0.06, 0.06)
        place.body.limb(ROOT, "post", (side * 1.95, 0.5, 0.55), (side * 1.95, 6.5, 0.55), 0.04, 0.04)
    return place


CONTEXTS: dict[str, Callable[[Generator], Place]] = {
    "jungle": _jungle, "snow": _snow, "beach": _beach, "cobblestone street": _cobbles, "pink fabric": _fabric,
    "wooden floor": _wooden_floor, "city": _city, "mountain": _mountain, "blue house": _blue_house,
    "purple rug": _purple_rug, "wheat field": _wheat, "autumn leaves": _autumn, "water": _water,
    "sunflowers": _sunflowers, "dirt road": _dirt_road, "white rug": _white_rug,
}  # fmt: skip
GROUNDED = ("snow", "beach", "cobblestone street", "pink fabric", "wooden floor", "purple rug", "autumn leaves",
            "water", "dirt road", "white rug")  # fmt: skip
"""Contexts that the ground alone tells: the only ones for views from straight above and below."""
