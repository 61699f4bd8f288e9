"""Who is drawn: endless individuals of a few classes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from persona.clay.world import raycast
from persona.clay.world.animals import BIRDS, QUADRUPEDS, bird, quadruped
from persona.clay.world.bodies import Body, Proportions
from persona.clay.world.objects import OBJECTS, backpack, car, robot, sneaker, teapot

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.07, 0.08), "orange": (0.96, 0.48, 0.06), "yellow": (0.98, 0.83, 0.10), "green": (0.14, 0.60, 0.17),
    "blue": (0.10, 0.26, 0.82), "purple": (0.48, 0.14, 0.68), "pink": (0.98, 0.56, 0.72), "brown": (0.42, 0.24, 0.11),
    "black": (0.08, 0.08, 0.09), "white": (0.95, 0.95, 0.94), "grey": (0.50, 0.51, 0.53),
}  # fmt: skip
PATTERNS = {
    "plain": raycast.PLAIN, "spotted": raycast.SPOTTED, "striped": raycast.STRIPED, "patched": raycast.PATCHED,
    "two-tone": raycast.TWO_TONE,
}  # fmt: skip
LIVE = (*QUADRUPEDS, *BIRDS)
CLASSES = (*LIVE, *OBJECTS)

_MEANS = QUADRUPEDS | BIRDS | OBJECTS
_OBJECT_PLANS: dict[str, Callable[[Proportions], Body]] = {
    "car": car, "robot": robot, "teapot": teapot, "backpack": backpack, "sneaker": sneaker,
}  # fmt: skip
_SHIFTS = 20  # of a subject's build; no class has as many proportions
_ANGLES = ("ear_tilt", "tail_up", "point")


@dataclass(frozen=True)
class Subject:
    """An individual: a point in a continuous space.

    Attributes:
        class_noun: one of ``CLASSES``.
        build: shifts of the proportions, 20 numbers in [-1, 1], taken in the order of the class's own.
        colours: main, second and accent, RGB in [0, 1].
        colour_names: the words for them that captions use.
        pattern: one of ``PATTERNS``; it shows the second colour on the main one.
        pattern_scale: 1 is usual; finer above.
        pattern_seed: where its spots and patches are.
        cross: a second class on four legs whose proportions are blended in half and half.
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
        """Return the proportions of the body, by name."""
        mean = _MEANS[self.class_noun]
        if self.cross:
            other = _MEANS[self.cross]
            mean = {name: 0.5 * (value + other[name]) for name, value in mean.items()}
        # Legs, ears and tails differ more between individuals than angles do.
        return {
            name: value * (1.0 + (0.10 if name in _ANGLES else 0.24) * shift)
            for (name, value), shift in zip(mean.items(), self.build, strict=False)
        }

    def body(self, pose: str = "standing") -> Body:
        """Return the body in a pose; things have but one."""
        if self.class_noun in LIVE:
            return (quadruped if self.class_noun in QUADRUPEDS else bird)(self.proportions(), pose)
        return _OBJECT_PLANS[self.class_noun](self.proportions())


def random_subject(rng: Generator, class_noun: str | None = None) -> Subject:
    """Return an individual of a class (a random one unless named), of three colours, each near a named one."""
    noun = class_noun or str(rng.choice(CLASSES))
    names = tuple(str(name) for name in rng.choice(list(COLOURS), 3, replace=False))
    return Subject(
        colours=tuple(_near(name, rng) for name in names),
        class_noun=noun,
        colour_names=names,
        pattern=str(rng.choice(list(PATTERNS), p=(0.28, 0.18, 0.18, 0.18, 0.18))),
        build=tuple(float(shift) for shift in rng.uniform(-1, 1, _SHIFTS)),
        pattern_scale=float(rng.uniform(0.8, 1.25)),
        pattern_seed=int(rng.integers(1, 10_000)),
    )


def _near(name: str, rng: Generator) -> tuple[float, float, float]:
    """Return a colour like the named one."""
    varied = np.array(COLOURS[name]) * rng.uniform(0.88, 1.08) + rng.uniform(-0.035, 0.035, 3)
    red, green, blue = np.clip(varied, 0.02, 1)
    return float(red), float(green), float(blue)
