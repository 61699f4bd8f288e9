"""What subjects are built of: one plan for four-legged animals, one for birds, one for each kind of object.

A plan turns proportions (named numbers, in units of about half a subject's height) and a pose into primitives, in the
subject's own frame: x forward, y to its left, z up, feet on z = 0. The same plan in the same order for every pose, so
that the standing body gives each primitive its rest frame.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from persona.clay.world.raycast import BOX, CONE, ELLIPSOID, ROUND_CONE, TORUS

Array = NDArray[np.float64]
Proportions = Mapping[str, float]
LIVE_POSES = ("standing", "sitting", "running", "sleeping")


def turn(axis: str, angle: float) -> Array:
    """Rotation about a coordinate axis, radians."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


@dataclass(frozen=True)
class Frame:
    """Where a part sits in its subject: x_subject = rotation @ x_part + centre."""

    rotation: Array
    centre: Array

    def at(self, x: float, y: float, z: float, rotation: Array | None = None) -> "Frame":
        inner = np.eye(3) if rotation is None else rotation
        return Frame(self.rotation @ inner, self.rotation @ np.array([x, y, z]) + self.centre)


ROOT = Frame(np.eye(3), np.zeros(3))


@dataclass(frozen=True)
class Part:
    """A primitive of a subject: its kind and size as the ray caster wants them, and the material slot it wears."""

    frame: Frame
    kind: int
    size: tuple[float, float, float, float]
    slot: str


@dataclass
class Body:
    """Parts of a subject, and the frames that accessories hang on."""

    parts: list[Part] = field(default_factory=list)
    head: Frame = ROOT
    head_radius: float = 0.3
    neck: Frame = ROOT
    neck_radius: float = 0.2
    chest: Frame = ROOT
    chest_size: tuple[float, float, float] = (0.4, 0.3, 0.3)
    eyes: tuple[float, float, float] = (0.26, 0.13, 0.08)  # in the head's frame: forward, sideways, up

    def ball(self, frame: Frame, slot: str, x: float, y: float, z: float, a: float, b: float, c: float) -> None:
        self.parts.append(Part(frame.at(x, y, z), ELLIPSOID, (a, b, c, 0.0), slot))

    def box(
        self, frame: Frame, slot: str, x: float, y: float, z: float, a: float, b: float, c: float, r: float
    ) -> None:
        self.parts.append(Part(frame.at(x, y, z), BOX, (a, b, c, min(r, a, b, c)), slot))

    def ring(self, frame: Frame, slot: str, x: float, y: float, z: float, radius: float, tube: float,
             rotation: Array | None = None) -> None:  # fmt: skip
        self.parts.append(Part(frame.at(x, y, z, rotation), TORUS, (radius, tube, 0.0, 0.0), slot))

    def limb(self, frame: Frame, slot: str, start: tuple[float, float, float], end: tuple[float, float, float],
             first: float, last: float, kind: int = ROUND_CONE) -> None:  # fmt: skip
        """A round cone (or, with kind CONE, a flat-ended one) between two points, with a radius at each."""
        along = np.subtract(end, start).astype(float)
        length = float(np.linalg.norm(along)) + 1e-6
        along /= length
        side = np.cross(along, [0.0, 0.0, 1.0] if abs(along[2]) < 0.9 else [1.0, 0.0, 0.0])
        side /= np.linalg.norm(side)
        rotation = np.stack([side, np.cross(along, side), along], axis=1)
        length = max(length, abs(first - last) + 1e-3) if kind == ROUND_CONE else length
        self.parts.append(Part(frame.at(*start, rotation), kind, (first, last, length, 0.0), slot))


def _eyes(body: Body, head: Frame, forward: float, sideways: float, up: float, radius: float, closed: bool) -> None:
    body.eyes = (forward, sideways, up)
    for side in (1, -1):
        open_ = 0.12 if closed else 1.0
        body.ball(head, "white", forward, side * sideways, up, 0.55 * radius, radius, radius * open_)
        body.ball(head, "black", forward + 0.40 * radius, side * sideways, up, 0.35 * radius, 0.62 * radius,
                  0.62 * radius * (0.35 if closed else 1.0))  # fmt: skip


QUADRUPEDS: dict[str, dict[str, float]] = {
    "dog": dict(length=0.52, girth=0.29, leg=0.42, leg_r=0.095, neck=0.20, head=0.30, muzzle=0.25, muzzle_r=0.15,
                ear=0.27, ear_w=0.13, ear_tilt=2.5, point=0.0, tail=0.42, tail_r=0.06, tail_up=0.9, trunk=0.0),
    "cat": dict(length=0.50, girth=0.23, leg=0.40, leg_r=0.07, neck=0.13, head=0.29, muzzle=0.07, muzzle_r=0.11,
                ear=0.27, ear_w=0.13, ear_tilt=0.35, point=1.0, tail=0.80, tail_r=0.05, tail_up=1.2, trunk=0.0),
    "rabbit": dict(length=0.36, girth=0.31, leg=0.20, leg_r=0.09, neck=0.06, head=0.28, muzzle=0.10, muzzle_r=0.12,
                   ear=0.60, ear_w=0.10, ear_tilt=0.2, point=0.0, tail=0.07, tail_r=0.13, tail_up=0.4, trunk=0.0),
    "bear": dict(length=0.56, girth=0.42, leg=0.34, leg_r=0.16, neck=0.10, head=0.36, muzzle=0.17, muzzle_r=0.17,
                 ear=0.13, ear_w=0.13, ear_tilt=0.7, point=0.0, tail=0.05, tail_r=0.09, tail_up=0.3, trunk=0.0),
    "pig": dict(length=0.56, girth=0.40, leg=0.22, leg_r=0.10, neck=0.02, head=0.33, muzzle=0.16, muzzle_r=0.16,
                ear=0.20, ear_w=0.12, ear_tilt=1.0, point=1.0, tail=0.18, tail_r=0.035, tail_up=0.8, trunk=0.0),
    "elephant": dict(length=0.58, girth=0.45, leg=0.42, leg_r=0.17, neck=0.06, head=0.37, muzzle=0.02, muzzle_r=0.10,
                     ear=0.42, ear_w=0.40, ear_tilt=1.75, point=0.0, tail=0.35, tail_r=0.03, tail_up=-0.9, trunk=0.75),
}  # fmt: skip


def quadruped(p: Proportions, pose: str) -> Body:
    """Dog, cat, rabbit, bear, pig, elephant, and anything between them."""
    body = Body()
    length, girth, leg, thick = p["length"], p["girth"], p["leg"], p["leg_r"]
    pitch, height = {
        "standing": (0.0, leg + 0.75 * girth),
        "running": (0.10, leg + 0.85 * girth),
        "sitting": (-0.75, 0.80 * girth + 0.62 * length),
        "sleeping": (0.0, 0.80 * girth),
    }[pose]
    torso = ROOT.at(0.0, 0.0, height, turn("y", pitch))
    body.ball(torso, "main", -0.35 * length, 0, 0, 0.75 * length, 0.97 * girth, girth)
    body.ball(torso, "main", 0.40 * length, 0, 0.02, 0.70 * length, 0.92 * girth, 0.95 * girth)
    body.chest, body.chest_size = torso.at(0.22 * length, 0, 0), (0.75 * length, 1.02 * girth, 1.05 * girth)
    spread = 0.55 * girth
    for side in (1, -1):
        swing = {"running": 0.55 * side}.get(pose, 0.0) * leg
        for front in (1, -1):
            hip = torso.rotation @ np.array([front * 0.62 * length, side * spread, -0.35 * girth]) + torso.centre
            x, y, z = hip
            if pose == "sleeping":
                foot = (x + 0.30 + 0.12 * front, side * (spread + 0.14), thick)
            elif pose == "sitting" and front < 0:
                foot = (x + 0.45 * leg + 0.15, side * (spread + 0.22), thick)
            elif pose == "running":
                foot = (x + 0.75 * front * leg + 0.2 * swing, y, z - leg * (0.55 + 0.1 * side * front))
            else:
                foot = (x + 0.02, y, thick)
            body.limb(ROOT, "main", (x, y, z), foot, 1.15 * thick, thick)
            body.ball(ROOT, "second", foot[0] + 0.35 * thick, foot[1], max(foot[2] - 0.1 * thick, 0.7 * thick),
                      1.35 * thick, 1.1 * thick, 0.75 * thick)  # fmt: skip
    shoulder = torso.rotation @ np.array([0.75 * length, 0, 0.35 * girth]) + torso.centre
    rise = p["neck"] * {"sleeping": -1.2}.get(pose, 1.0)
    skull = np.array([shoulder[0] + 0.30 * p["head"] + 0.5 * p["neck"], 0, shoulder[2] + rise + 0.35 * p["head"]])
    if pose == "sleeping":
        skull[2] = max(0.95 * p["head"], skull[2] - 0.6 * p["head"])
    body.limb(ROOT, "main", tuple(shoulder), tuple(skull), 0.62 * girth + 0.04, 0.55 * p["head"])
    nape = 0.45 * shoulder + 0.55 * skull
    lean = np.arctan2(skull[0] - shoulder[0], max(skull[2] - shoulder[2], 0.05))
    body.neck, body.neck_radius = Frame(turn("y", lean), nape), 0.62 * p["head"] + 0.12 * girth
    head = Frame(turn("y", 0.12 if pose == "sleeping" else 0.0), skull)
    body.head, body.head_radius = head, p["head"]
    _head(body, head, p, closed=pose == "sleeping")
    root = torso.rotation @ np.array([-0.98 * length, 0, 0.25 * girth]) + torso.centre
    up = p["tail_up"] if pose != "sleeping" else 0.05
    reach = p["tail"] if pose != "sleeping" else 0.7 * p["tail"]
    middle = root + reach * 0.5 * np.array([-np.cos(up), 0.15, np.sin(up)])
    tip = middle + reach * 0.5 * np.array([-np.cos(up + 0.7), 0.1, np.sin(up + 0.7) if up > 0 else np.sin(up)])
    for point in (middle, tip):
        point[2] = max(point[2], p["tail_r"])
    body.limb(ROOT, "accent", tuple(root), tuple(middle), p["tail_r"], p["tail_r"])
    body.limb(ROOT, "accent", tuple(middle), tuple(tip), p["tail_r"], 0.9 * p["tail_r"])
    return body


def _head(body: Body, head: Frame, p: Proportions, closed: bool) -> None:
    r = p["head"]
    body.ball(head, "main", 0, 0, 0, 0.98 * r, 1.04 * r, r)
    reach = 0.80 * r + p["muzzle"]
    body.limb(
        head, "second", (0.45 * r, 0, -0.25 * r), (reach, 0, -0.28 * r), 1.1 * p["muzzle_r"], 0.85 * p["muzzle_r"]
    )
    nose = max(0.35 * p["muzzle_r"], 0.045)
    if p["trunk"] > 0.05:
        t = p["trunk"]
        body.limb(head, "main", (0.85 * r, 0, -0.20 * r), (1.05 * r + 0.22 * t, 0, -0.2 * r - 0.5 * t), 0.15, 0.11)
        body.limb(head, "main", (1.05 * r + 0.22 * t, 0, -0.2 * r - 0.5 * t), (1.05 * r + 0.55 * t, 0, -0.2 * r - 0.75 * t),
                  0.11, 0.08)  # fmt: skip
    else:
        body.ball(head, "black", reach + 0.75 * p["muzzle_r"], 0, -0.12 * r, 0.6 * nose, 1.15 * nose, 0.85 * nose)
    _eyes(body, head, 0.80 * r, 0.42 * r, 0.24 * r, 0.24 * r, closed)
    for side in (1, -1):
        tilt = p["ear_tilt"]
        root = (-0.10 * r, side * 0.66 * r * np.cos(0.45) + side * 0.12 * r, 0.72 * r)
        along = turn("x", -side * tilt)
        ear = head.at(*root, along)
        if p["point"] > 0.5:
            body.limb(ear, "accent", (0, 0, -0.08), (0, 0, p["ear"]), 1.05 * p["ear_w"], 0.015, CONE)
        else:
            body.ball(ear, "accent", 0, 0, 0.72 * p["ear"], 0.05 + 0.12 * p["ear_w"] if tilt > 1.5 else 0.55 * p["ear_w"] + 0.02,
                      p["ear_w"], p["ear"] * 0.80)  # fmt: skip


BIRDS: dict[str, dict[str, float]] = {
    "duck": dict(length=0.52, girth=0.36, neck=0.30, head=0.26, bill=0.24, bill_w=0.15, wing=0.42, tail=0.26, leg=0.16)
}


def bird(p: Proportions, pose: str) -> Body:
    """A duck."""
    body = Body()
    length, girth = p["length"], p["girth"]
    leg = {"standing": p["leg"], "running": 1.25 * p["leg"]}.get(pose, 0.0)
    torso = ROOT.at(0, 0, leg + 0.92 * girth, turn("y", {"running": -0.25, "sitting": -0.12}.get(pose, 0.0)))
    body.ball(torso, "main", 0, 0, 0, length, 0.92 * girth, 0.95 * girth)
    body.ball(torso, "main", 0.42 * length, 0, 0.05, 0.55 * length, 0.85 * girth, 0.9 * girth)
    body.chest, body.chest_size = torso.at(0.18 * length, 0, 0), (0.85 * length, 1.0 * girth, 1.02 * girth)
    body.limb(
        torso, "accent", (-0.75 * length, 0, 0.15), (-0.9 * length - p["tail"], 0, 0.25 + 0.4 * p["tail"]), 0.16, 0.03
    )
    for side in (1, -1):
        spread = 0.95 if pose == "running" else 0.12
        wing = torso.at(-0.05, side * 0.80 * girth, 0.10, turn("x", side * spread))
        body.ball(wing, "second", 0, 0, 0, p["wing"], 0.09, 0.24)
        step = {"running": 0.28 * side}.get(pose, 0.0)
        tucked = leg == 0.0
        y = side * 0.42 * girth
        hip, foot = (0.05, y, leg + 0.2), ((0.05 + step, y, 0.05) if not tucked else (0.12, y, 0.05))
        body.limb(ROOT, "orange", hip, foot, 0.05, 0.045)
        body.ball(ROOT, "orange", foot[0] + 0.1, y, 0.035, 0.16, 0.11, 0.035)
    rise = p["neck"] * (0.15 if pose == "sleeping" else 1.0)
    shoulder = torso.at(0.62 * length, 0, 0.35 * girth).centre
    back = 0.05 if pose == "sleeping" else 0.10
    skull = shoulder + np.array([back, 0, rise + 0.5 * p["head"]])
    body.limb(ROOT, "main", tuple(shoulder), tuple(skull), 0.24, 0.72 * p["head"])
    body.neck, body.neck_radius = Frame(np.eye(3), 0.5 * shoulder + 0.5 * skull), 0.25
    head = Frame(turn("y", 0.2 if pose == "sleeping" else 0.0), skull)
    body.head, body.head_radius = head, p["head"]
    r = p["head"]
    body.ball(head, "main", 0, 0, 0, r, 0.96 * r, r)
    body.ball(head, "orange", 0.85 * r + 0.4 * p["bill"], 0, -0.15 * r, 0.65 * p["bill"], p["bill_w"], 0.055)
    body.ball(head, "orange", 0.80 * r + 0.25 * p["bill"], 0, -0.28 * r, 0.5 * p["bill"], 0.85 * p["bill_w"], 0.04)
    _eyes(body, head, 0.62 * r, 0.60 * r, 0.28 * r, 0.24 * r, pose == "sleeping")
    return body


OBJECTS: dict[str, dict[str, float]] = {
    "car": dict(length=0.85, width=0.42, height=0.24, cabin=0.45, cabin_h=0.25, cabin_x=-0.08, wheel=0.21),
    "robot": dict(torso=0.36, depth=0.25, tall=0.40, head=0.30, neck=0.08, arm=0.50, arm_r=0.09, leg=0.36, leg_r=0.12, antenna=0.22),
    "teapot": dict(belly=0.52, tall=0.46, spout=0.55, spout_r=0.09, handle=0.30, lid=0.26, knob=0.09),
    "backpack": dict(width=0.46, depth=0.25, tall=0.62, pocket=0.32, pocket_h=0.25, flap=0.22, strap=0.07),
    "sneaker": dict(length=0.85, width=0.30, sole=0.12, toe=0.26, heel=0.42, ankle=0.30, tongue=0.10),
}  # fmt: skip


def car(p: Proportions, pose: str) -> Body:
    body = Body()
    length, width, wheel = p["length"], p["width"], p["wheel"]
    base = 0.75 * wheel + p["height"]
    body.box(ROOT, "main", 0, 0, base, length, width, p["height"], 0.13)
    top = base + p["height"] + 0.8 * p["cabin_h"]
    body.box(ROOT, "glass", p["cabin_x"], 0, top - 0.06, p["cabin"], 0.86 * width, p["cabin_h"], 0.16)
    body.box(
        ROOT,
        "second",
        p["cabin_x"],
        0,
        top + 0.72 * p["cabin_h"],
        0.86 * p["cabin"],
        0.84 * width,
        0.30 * p["cabin_h"],
        0.08,
    )
    body.box(ROOT, "second", p["cabin_x"], 0, top - 0.05, 0.05, 0.89 * width, p["cabin_h"], 0.02)
    for side in (1, -1):
        for front in (1, -1):
            x = front * 0.62 * length
            body.limb(
                ROOT, "black", (x, side * (width - 0.10), wheel), (x, side * (width + 0.07), wheel), wheel, wheel, CONE
            )
            body.limb(
                ROOT,
                "accent",
                (x, side * (width + 0.0), wheel),
                (x, side * (width + 0.09), wheel),
                0.55 * wheel,
                0.5 * wheel,
                CONE,
            )
        body.ball(ROOT, "white", length - 0.02, side * 0.62 * width, base + 0.03, 0.06, 0.10, 0.09)
        body.ball(ROOT, "red", -length + 0.02, side * 0.66 * width, base + 0.03, 0.05, 0.10, 0.06)
    body.box(ROOT, "accent", length, 0, base - 0.55 * p["height"], 0.06, 0.9 * width, 0.07, 0.05)
    body.box(ROOT, "accent", -length, 0, base - 0.55 * p["height"], 0.06, 0.9 * width, 0.07, 0.05)
    return body


def robot(p: Proportions, pose: str) -> Body:
    body = Body()
    hip = p["leg"] + 0.10
    middle = hip + p["tall"]
    body.box(ROOT, "main", 0, 0, middle, p["depth"], p["torso"], p["tall"], 0.08)
    body.box(ROOT, "second", p["depth"], 0, middle + 0.08, 0.03, 0.62 * p["torso"], 0.45 * p["tall"], 0.02)
    body.ball(ROOT, "red", p["depth"] + 0.03, 0.3 * p["torso"], middle + 0.2 * p["tall"], 0.04, 0.06, 0.06)
    body.ball(ROOT, "accent", p["depth"] + 0.03, -0.3 * p["torso"], middle + 0.2 * p["tall"], 0.04, 0.06, 0.06)
    skull = middle + p["tall"] + p["neck"] + 0.8 * p["head"]
    body.limb(ROOT, "grey", (0, 0, middle + p["tall"]), (0, 0, skull), 0.10, 0.10, CONE)
    head = ROOT.at(0, 0, skull)
    body.head, body.head_radius = head, p["head"]
    body.box(head, "main", 0, 0, 0, 0.85 * p["head"], 1.15 * p["head"], 0.8 * p["head"], 0.07)
    _eyes(body, head, 0.84 * p["head"], 0.48 * p["head"], 0.12 * p["head"], 0.26 * p["head"], False)
    body.box(head, "black", 0.84 * p["head"], 0, -0.42 * p["head"], 0.03, 0.5 * p["head"], 0.07 * p["head"], 0.01)
    body.limb(head, "grey", (0, 0, 0.7 * p["head"]), (0, 0, 0.8 * p["head"] + p["antenna"]), 0.025, 0.025)
    body.ball(head, "accent", 0, 0, 0.85 * p["head"] + p["antenna"], 0.075, 0.075, 0.075)
    for side in (1, -1):
        shoulder = (0, side * (p["torso"] + 0.06), middle + 0.7 * p["tall"])
        hand = (0.18, side * (p["torso"] + 0.17), middle + 0.7 * p["tall"] - p["arm"])
        body.ball(ROOT, "accent", *shoulder, 0.13, 0.11, 0.13)
        body.limb(ROOT, "second", shoulder, hand, p["arm_r"], p["arm_r"])
        body.ball(ROOT, "accent", *hand, 0.12, 0.12, 0.12)
        body.limb(
            ROOT,
            "second",
            (0, side * 0.5 * p["torso"], hip),
            (0, side * 0.5 * p["torso"], 0.08),
            p["leg_r"],
            p["leg_r"],
        )
        body.box(ROOT, "accent", 0.07, side * 0.5 * p["torso"], 0.085, 0.22, 1.35 * p["leg_r"], 0.085, 0.05)
    body.chest, body.chest_size = ROOT.at(0, 0, middle), (p["depth"] * 1.2, p["torso"] * 1.15, p["tall"] * 0.8)
    body.neck, body.neck_radius = ROOT.at(0, 0, middle + p["tall"] + 0.04), 0.8 * p["head"]
    return body


def teapot(p: Proportions, pose: str) -> Body:
    body = Body()
    tall, belly = p["tall"], p["belly"]
    body.limb(ROOT, "accent", (0, 0, 0), (0, 0, 0.12), 0.62 * belly, 0.55 * belly, CONE)
    body.ball(ROOT, "main", 0, 0, 0.06 + tall, belly, belly, tall)
    top = 0.06 + 1.86 * tall
    body.ball(ROOT, "second", 0, 0, top - 0.03, 1.25 * p["lid"], 1.25 * p["lid"], 0.10)
    body.ball(ROOT, "accent", 0, 0, top + 0.09, p["knob"], p["knob"], p["knob"])
    elbow = (belly + 0.25 * p["spout"], 0, tall + 0.02)
    body.limb(ROOT, "second", (0.7 * belly, 0, 0.55 * tall), elbow, 1.9 * p["spout_r"], 1.25 * p["spout_r"])
    body.limb(
        ROOT, "second", elbow, (belly + 0.60 * p["spout"], 0, 1.55 * tall), 1.25 * p["spout_r"], 0.8 * p["spout_r"]
    )
    body.ring(ROOT, "accent", -belly - 0.25 * p["handle"], 0, 0.1 + tall, p["handle"], 0.062, turn("x", np.pi / 2))
    body.head, body.head_radius = ROOT.at(0, 0, tall), belly
    return body


def backpack(p: Proportions, pose: str) -> Body:
    body = Body()
    width, depth, tall = p["width"], p["depth"], p["tall"]
    body.box(ROOT, "main", 0, 0, tall, depth, width, tall, 0.20)
    body.box(ROOT, "second", depth + 0.07, 0, 0.12 + p["pocket_h"], 0.11, p["pocket"], p["pocket_h"], 0.08)
    body.box(ROOT, "accent", depth + 0.185, 0, 0.12 + 1.55 * p["pocket_h"], 0.015, 0.8 * p["pocket"], 0.03, 0.01)
    body.box(ROOT, "accent", 0.02, 0, 2 * tall - p["flap"], depth + 0.05, 1.03 * width, p["flap"] + 0.02, 0.18)
    body.box(ROOT, "second", depth + 0.08, 0, 2 * tall - 1.75 * p["flap"], 0.025, 0.07, 0.12, 0.02)
    body.ring(ROOT, "black", 0, 0, 2 * tall + 0.02, 0.13, 0.035, turn("x", np.pi / 2))
    for side in (1, -1):
        y = side * 0.5 * width
        body.limb(
            ROOT, "second", (-depth, y, 1.75 * tall), (-depth - 0.16, y * 1.15, 1.1 * tall), p["strap"], p["strap"]
        )
        body.limb(
            ROOT,
            "second",
            (-depth - 0.16, y * 1.15, 1.1 * tall),
            (-depth, y * 1.25, 0.3 * tall),
            p["strap"],
            p["strap"],
        )
        body.box(ROOT, "second", 0, side * (width + 0.05), 0.5 * tall, 0.6 * depth, 0.07, 0.38 * tall, 0.06)
    return body


def sneaker(p: Proportions, pose: str) -> Body:
    body = Body()
    length, width, sole = p["length"], p["width"], p["sole"]
    body.box(ROOT, "second", 0, 0, sole, length, width, sole, 0.11)
    body.box(ROOT, "white", 0, 0, 0.35 * sole, 1.01 * length, 1.01 * width, 0.35 * sole, 0.04)
    deck = 2 * sole
    body.ball(ROOT, "accent", 0.66 * length, 0, deck, 0.36 * length, 0.93 * width, p["toe"])
    body.limb(
        ROOT,
        "main",
        (-0.62 * length, 0, deck + 0.5 * p["heel"]),
        (0.45 * length, 0, deck + 0.08),
        0.98 * width,
        0.82 * width,
    )
    body.limb(
        ROOT,
        "main",
        (-0.60 * length, 0, deck),
        (-0.52 * length, 0, deck + p["heel"] + p["ankle"] * 0.6),
        0.93 * width,
        0.88 * width,
        CONE,
    )
    body.limb(
        ROOT,
        "black",
        (-0.55 * length, 0, deck + p["heel"]),
        (-0.518 * length, 0, deck + p["heel"] + p["ankle"] * 0.63),
        0.70 * width,
        0.70 * width,
        CONE,
    )
    body.limb(
        ROOT,
        "accent",
        (-0.15 * length, 0, deck + 0.5 * p["heel"]),
        (-0.28 * length, 0, deck + p["heel"] + p["tongue"]),
        0.14,
        0.13,
    )
    for i in range(3):
        x = 0.30 * length - 0.18 * length * i
        z = deck + 0.10 + 0.82 * width + 0.30 * (0.30 * length - x)
        body.limb(ROOT, "white", (x, 0.15, z - 0.06), (x + 0.02, -0.15, z - 0.06), 0.038, 0.038)
    for side in (1, -1):
        body.limb(
            ROOT,
            "second",
            (-0.55 * length, side * 0.90 * width, deck + 0.08),
            (0.10 * length, side * 0.80 * width, deck + 0.22),
            0.055,
            0.075,
        )
    return body


Plan = Callable[[Proportions, str], Body]
PLANS: dict[str, Plan] = (
    dict.fromkeys(QUADRUPEDS, quadruped)
    | dict.fromkeys(BIRDS, bird)
    | {"car": car, "robot": robot, "teapot": teapot, "backpack": backpack, "sneaker": sneaker}
)
MEAN_PROPORTIONS: dict[str, dict[str, float]] = QUADRUPEDS | BIRDS | OBJECTS
LIVE = (*QUADRUPEDS, *BIRDS)
CLASSES = (*LIVE, *OBJECTS)
