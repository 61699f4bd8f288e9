"""Plans of the classes that are things: each turns its proportions into a body, which has but one pose."""

import numpy as np

from persona.clay.world.bodies import ROOT, Body, Proportions, turn
from persona.clay.world.primitives import CONE

OBJECTS: dict[str, dict[str, float]] = {
    "car": {"length": 0.85, "width": 0.42, "height": 0.24, "cabin": 0.45, "cabin_h": 0.25, "cabin_x": -0.08,
            "wheel": 0.21},
    "robot": {"torso": 0.36, "depth": 0.25, "tall": 0.40, "head": 0.30, "neck": 0.08, "arm": 0.50, "arm_r": 0.09,
              "leg": 0.36, "leg_r": 0.12, "antenna": 0.22},
    "teapot": {"belly": 0.52, "tall": 0.46, "spout": 0.55, "spout_r": 0.09, "handle": 0.30, "lid": 0.26, "knob": 0.09},
    "backpack": {"width": 0.46, "depth": 0.25, "tall": 0.62, "pocket": 0.32, "pocket_h": 0.25, "flap": 0.22,
                 "strap": 0.07},
    "sneaker": {"length": 0.85, "width": 0.30, "sole": 0.12, "toe": 0.26, "heel": 0.42, "ankle": 0.30, "tongue": 0.10},
}  # fmt: skip


def car(p: Proportions) -> Body:
    """Build a car."""
    body = Body()
    length, width, height, cabin, x = p["length"], p["width"], p["height"], p["cabin_h"], p["cabin_x"]
    base = 0.75 * p["wheel"] + height
    body.box(ROOT, "main", 0, 0, base, length, width, height, 0.13)
    top = base + height + 0.8 * cabin
    body.box(ROOT, "glass", x, 0, top - 0.06, p["cabin"], 0.86 * width, cabin, 0.16)
    body.box(ROOT, "second", x, 0, top + 0.72 * cabin, 0.86 * p["cabin"], 0.84 * width, 0.30 * cabin, 0.08)
    body.box(ROOT, "second", x, 0, top - 0.05, 0.05, 0.89 * width, cabin, 0.02)
    for side in (1, -1):
        _wheels(body, p, side)
        body.ball(ROOT, "white", length - 0.02, side * 0.62 * width, base + 0.03, 0.06, 0.10, 0.09)
        body.ball(ROOT, "red", -length + 0.02, side * 0.66 * width, base + 0.03, 0.05, 0.10, 0.06)
    body.box(ROOT, "accent", length, 0, base - 0.55 * height, 0.06, 0.9 * width, 0.07, 0.05)
    body.box(ROOT, "accent", -length, 0, base - 0.55 * height, 0.06, 0.9 * width, 0.07, 0.05)
    return body


def _wheels(body: Body, p: Proportions, side: int) -> None:
    width, wheel = p["width"], p["wheel"]
    inside, outside, hub = side * (width - 0.10), side * (width + 0.07), side * (width + 0.09)
    for front in (1, -1):
        x = front * 0.62 * p["length"]
        body.limb(ROOT, "black", (x, inside, wheel), (x, outside, wheel), wheel, wheel, CONE)
        body.limb(ROOT, "accent", (x, side * width, wheel), (x, hub, wheel), 0.55 * wheel, 0.5 * wheel, CONE)


def robot(p: Proportions) -> Body:
    """Build a robot."""
    body = Body()
    depth, torso, tall = p["depth"], p["torso"], p["tall"]
    middle = p["leg"] + 0.10 + tall
    body.box(ROOT, "main", 0, 0, middle, depth, torso, tall, 0.08)
    body.box(ROOT, "second", depth, 0, middle + 0.08, 0.03, 0.62 * torso, 0.45 * tall, 0.02)
    body.ball(ROOT, "red", depth + 0.03, 0.3 * torso, middle + 0.2 * tall, 0.04, 0.06, 0.06)
    body.ball(ROOT, "accent", depth + 0.03, -0.3 * torso, middle + 0.2 * tall, 0.04, 0.06, 0.06)
    _robot_head(body, p, middle)
    for side in (1, -1):
        shoulder = (0, side * (torso + 0.06), middle + 0.7 * tall)
        hand = (0.18, side * (torso + 0.17), middle + 0.7 * tall - p["arm"])
        y = side * 0.5 * torso
        body.ball(ROOT, "accent", *shoulder, 0.13, 0.11, 0.13)
        body.limb(ROOT, "second", shoulder, hand, p["arm_r"], p["arm_r"])
        body.ball(ROOT, "accent", *hand, 0.12, 0.12, 0.12)
        body.limb(ROOT, "second", (0, y, p["leg"] + 0.10), (0, y, 0.08), p["leg_r"], p["leg_r"])
        body.box(ROOT, "accent", 0.07, y, 0.085, 0.22, 1.35 * p["leg_r"], 0.085, 0.05)
    body.chest, body.chest_size = ROOT.at(0, 0, middle), (depth * 1.2, torso * 1.15, tall * 0.8)
    body.neck, body.neck_radius = ROOT.at(0, 0, middle + tall + 0.04), 0.8 * p["head"]
    return body


def _robot_head(body: Body, p: Proportions, middle: float) -> None:
    r, tall = p["head"], p["tall"]
    skull = middle + tall + p["neck"] + 0.8 * r
    body.limb(ROOT, "grey", (0, 0, middle + tall), (0, 0, skull), 0.10, 0.10, CONE)
    head = ROOT.at(0, 0, skull)
    body.head, body.head_radius = head, r
    body.box(head, "main", 0, 0, 0, 0.85 * r, 1.15 * r, 0.8 * r, 0.07)
    body.look(head, 0.84 * r, 0.48 * r, 0.12 * r, 0.26 * r, closed=False)
    body.box(head, "black", 0.84 * r, 0, -0.42 * r, 0.03, 0.5 * r, 0.07 * r, 0.01)
    body.limb(head, "grey", (0, 0, 0.7 * r), (0, 0, 0.8 * r + p["antenna"]), 0.025, 0.025)
    body.ball(head, "accent", 0, 0, 0.85 * r + p["antenna"], 0.075, 0.075, 0.075)


def teapot(p: Proportions) -> Body:
    """Build a teapot."""
    body = Body()
    tall, belly, spout, r = p["tall"], p["belly"], p["spout"], p["spout_r"]
    body.limb(ROOT, "accent", (0, 0, 0), (0, 0, 0.12), 0.62 * belly, 0.55 * belly, CONE)
    body.ball(ROOT, "main", 0, 0, 0.06 + tall, belly, belly, tall)
    top = 0.06 + 1.86 * tall
    body.ball(ROOT, "second", 0, 0, top - 0.03, 1.25 * p["lid"], 1.25 * p["lid"], 0.10)
    body.ball(ROOT, "accent", 0, 0, top + 0.09, p["knob"], p["knob"], p["knob"])
    elbow = (belly + 0.25 * spout, 0, tall + 0.02)
    body.limb(ROOT, "second", (0.7 * belly, 0, 0.55 * tall), elbow, 1.9 * r, 1.25 * r)
    body.limb(ROOT, "second", elbow, (belly + 0.60 * spout, 0, 1.55 * tall), 1.25 * r, 0.8 * r)
    body.ring(ROOT, "accent", -belly - 0.25 * p["handle"], 0, 0.1 + tall, p["handle"], 0.062, turn("x", np.pi / 2))
    body.head, body.head_radius = ROOT.at(0, 0, tall), belly
    return body


def backpack(p: Proportions) -> Body:
    """Build a backpack."""
    body = Body()
    width, depth, tall, flap, strap = p["width"], p["depth"], p["tall"], p["flap"], p["strap"]
    body.box(ROOT, "main", 0, 0, tall, depth, width, tall, 0.20)
    body.box(ROOT, "second", depth + 0.07, 0, 0.12 + p["pocket_h"], 0.11, p["pocket"], p["pocket_h"], 0.08)
    body.box(ROOT, "accent", depth + 0.185, 0, 0.12 + 1.55 * p["pocket_h"], 0.015, 0.8 * p["pocket"], 0.03, 0.01)
    body.box(ROOT, "accent", 0.02, 0, 2 * tall - flap, depth + 0.05, 1.03 * width, flap + 0.02, 0.18)
    body.box(ROOT, "second", depth + 0.08, 0, 2 * tall - 1.75 * flap, 0.025, 0.07, 0.12, 0.02)
    body.ring(ROOT, "black", 0, 0, 2 * tall + 0.02, 0.13, 0.035, turn("x", np.pi / 2))
    for side in (1, -1):
        y = side * 0.5 * width
        elbow = (-depth - 0.16, y * 1.15, 1.1 * tall)
        body.limb(ROOT, "second", (-depth, y, 1.75 * tall), elbow, strap, strap)
        body.limb(ROOT, "second", elbow, (-depth, y * 1.25, 0.3 * tall), strap, strap)
        body.box(ROOT, "second", 0, side * (width + 0.05), 0.5 * tall, 0.6 * depth, 0.07, 0.38 * tall, 0.06)
    return body


def sneaker(p: Proportions) -> Body:
    """Build a sneaker."""
    body = Body()
    length, width, sole, heel = p["length"], p["width"], p["sole"], p["heel"]
    body.box(ROOT, "second", 0, 0, sole, length, width, sole, 0.11)
    body.box(ROOT, "white", 0, 0, 0.35 * sole, 1.01 * length, 1.01 * width, 0.35 * sole, 0.04)
    deck = 2 * sole
    body.ball(ROOT, "accent", 0.66 * length, 0, deck, 0.36 * length, 0.93 * width, p["toe"])
    back, toe = (-0.62 * length, 0, deck + 0.5 * heel), (0.45 * length, 0, deck + 0.08)
    body.limb(ROOT, "main", back, toe, 0.98 * width, 0.82 * width)
    low, high = (-0.60 * length, 0, deck), (-0.52 * length, 0, deck + heel + p["ankle"] * 0.6)
    body.limb(ROOT, "main", low, high, 0.93 * width, 0.88 * width, CONE)
    low, high = (-0.55 * length, 0, deck + heel), (-0.518 * length, 0, deck + heel + p["ankle"] * 0.63)
    body.limb(ROOT, "black", low, high, 0.70 * width, 0.70 * width, CONE)
    low, high = (-0.15 * length, 0, deck + 0.5 * heel), (-0.28 * length, 0, deck + heel + p["tongue"])
    body.limb(ROOT, "accent", low, high, 0.14, 0.13)
    for i in range(3):  # laces
        x = 0.30 * length - 0.18 * length * i
        z = deck + 0.10 + 0.82 * width + 0.30 * (0.30 * length - x)
        body.limb(ROOT, "white", (x, 0.15, z - 0.06), (x + 0.02, -0.15, z - 0.06), 0.038, 0.038)
    for side in (1, -1):
        behind = (-0.55 * length, side * 0.90 * width, deck + 0.08)
        before = (0.10 * length, side * 0.80 * width, deck + 0.22)
        body.limb(ROOT, "second", behind, before, 0.055, 0.075)
    return body
