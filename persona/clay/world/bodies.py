"""What bodies are put together from: frames, parts, and a body that collects them.

A subject's own frame: x forward, y to its left, z up, feet on z = 0, in units of about half its height.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from persona.clay.world.primitives import BOX, CONE, ELLIPSOID, ROUND_CONE, TORUS

Array = NDArray[np.float64]
Point = tuple[float, float, float]
Proportions = Mapping[str, float]
"""Sizes of a subject by their names, and a few angles in radians."""


def turn(axis: str, angle: float) -> Array:
    """Return the rotation (3, 3) about a coordinate axis by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def _cross(a: Array, b: Array | Sequence[float]) -> Array:
    """Return the cross product of two vectors (3,), of which numpy's own takes eight times as long."""
    (a0, a1, a2), (b0, b1, b2) = a, b
    return np.array([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0])


@dataclass(frozen=True)
class Frame:
    """Where a part sits in its subject: x_subject = rotation @ x_part + centre."""

    rotation: Array
    centre: Array

    def at(self, x: float, y: float, z: float, rotation: Array | None = None) -> "Frame":
        """Return the frame whose origin is at a point of this one, turned within it."""
        turned = self.rotation if rotation is None else self.rotation @ rotation
        return Frame(turned, self.rotation @ np.array([x, y, z]) + self.centre)


ROOT = Frame(np.eye(3), np.zeros(3))


@dataclass(frozen=True)
class Part:
    """A primitive of a subject: its kind and size as the ray caster wants them, and the material slot that it wears."""

    frame: Frame
    kind: int
    size: tuple[float, float, float, float]
    slot: str

    @property
    def middle(self) -> Array:
        """Centre (3,) of the primitive itself: that of a cone is half way up."""
        return self.frame.at(0, 0, self.size[2] / 2).centre if self.kind in (ROUND_CONE, CONE) else self.frame.centre

    @property
    def reach(self) -> float:
        """Radius of a sphere around the middle that holds it, but for the corners of a box."""
        a, b, c, _ = self.size
        if self.kind in (ROUND_CONE, CONE):
            return max(a, b) + c / 2
        return a + b if self.kind == TORUS else max(a, b, c)


@dataclass
class Body:
    """Parts of a subject, and the frames that accessories hang on.

    Attributes:
        parts: the same in the same order for every pose of a subject.
        head: of the skull, and its radius.
        neck: where a scarf goes, and its radius.
        chest: where a shirt goes, and its half axes.
        eyes: forward, sideways and up, in the head's frame.
    """

    parts: list[Part] = field(default_factory=list)
    head: Frame = ROOT
    head_radius: float = 0.3
    neck: Frame = ROOT
    neck_radius: float = 0.2
    chest: Frame = ROOT
    chest_size: Point = (0.4, 0.3, 0.3)
    eyes: Point = (0.26, 0.13, 0.08)

    def ball(self, frame: Frame, slot: str, x: float, y: float, z: float, a: float, b: float, c: float) -> None:
        """Add an ellipsoid around (x, y, z) with half axes a, b, c."""
        self.parts.append(Part(frame.at(x, y, z), ELLIPSOID, (a, b, c, 0.0), slot))

    def box(
        self, frame: Frame, slot: str, x: float, y: float, z: float, a: float, b: float, c: float, r: float
    ) -> None:
        """Add a box around (x, y, z) with half sides a, b, c and edges rounded by r."""
        self.parts.append(Part(frame.at(x, y, z), BOX, (a, b, c, min(r, a, b, c)), slot))

    def ring(self, frame: Frame, slot: str, x: float, y: float, z: float, radius: float, tube: float,
             rotation: Array | None = None) -> None:  # fmt: skip
        """Add a torus around (x, y, z), level in its frame unless turned."""
        self.parts.append(Part(frame.at(x, y, z, rotation), TORUS, (radius, tube, 0.0, 0.0), slot))

    def limb(self, frame: Frame, slot: str, start: Point, end: Point, first: float, last: float,
             kind: int = ROUND_CONE) -> None:  # fmt: skip
        """Add a round cone (or, with kind CONE, a flat-ended one) between two points, with a radius at each."""
        along = np.subtract(end, start).astype(float)
        length = float(np.linalg.norm(along)) + 1e-6
        along /= length
        steep = abs(along[2]) >= 0.9 * np.linalg.norm(along)  # of a very short one this is not near 1
        side = _cross(along, [1.0, 0.0, 0.0] if steep else [0.0, 0.0, 1.0])
        side /= np.linalg.norm(side)
        rotation = np.stack([side, _cross(along, side), along], axis=1)
        length = max(length, abs(first - last) + 1e-3) if kind == ROUND_CONE else length
        self.parts.append(Part(frame.at(*start, rotation), kind, (first, last, length, 0.0), slot))

    def look(self, head: Frame, forward: float, sideways: float, up: float, radius: float, *, closed: bool) -> None:
        """Add two eyes to a head."""
        self.eyes = (forward, sideways, up)
        for side in (1, -1):
            self.ball(head, "white", forward, side * sideways, up,
                      0.55 * radius, radius, radius * (0.12 if closed else 1.0))  # fmt: skip
            self.ball(head, "black", forward + 0.40 * radius, side * sideways, up,
                      0.35 * radius, 0.62 * radius, 0.62 * radius * (0.35 if closed else 1.0))  # fmt: skip
