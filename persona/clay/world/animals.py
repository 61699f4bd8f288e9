"""Plans of the live classes: one for everything on four legs, one for birds.

A plan turns proportions (named numbers) and a pose into a body: the same parts in the same order for every pose, so
that the standing body gives each part its rest frame.
"""

import numpy as np

from persona.clay.world.bodies import ROOT, Array, Body, Frame, Point, Proportions, turn
from persona.clay.world.primitives import CONE

POSES = ("standing", "sitting", "running", "sleeping")

_ON_FOUR_LEGS = ("length", "girth", "leg", "leg_r", "neck", "head", "muzzle", "muzzle_r", "ear", "ear_w", "ear_tilt",
                 "point", "tail", "tail_r", "tail_up", "trunk")  # fmt: skip
QUADRUPEDS: dict[str, dict[str, float]] = {
    noun: dict(zip(_ON_FOUR_LEGS, mean, strict=True))
    for noun, mean in {
        "dog":      (0.52, 0.29, 0.42, 0.095, 0.20, 0.30, 0.25, 0.15, 0.27, 0.13, 2.50, 0.0, 0.42, 0.060, 0.9, 0.0),
        "cat":      (0.50, 0.23, 0.40, 0.070, 0.13, 0.29, 0.07, 0.11, 0.27, 0.13, 0.35, 1.0, 0.80, 0.050, 1.2, 0.0),
        "rabbit":   (0.36, 0.31, 0.20, 0.090, 0.06, 0.28, 0.10, 0.12, 0.60, 0.10, 0.20, 0.0, 0.07, 0.130, 0.4, 0.0),
        "bear":     (0.56, 0.42, 0.34, 0.160, 0.10, 0.36, 0.17, 0.17, 0.13, 0.13, 0.70, 0.0, 0.05, 0.090, 0.3, 0.0),
        "pig":      (0.56, 0.40, 0.22, 0.100, 0.02, 0.33, 0.16, 0.16, 0.20, 0.12, 1.00, 1.0, 0.18, 0.035, 0.8, 0.0),
        "elephant": (0.58, 0.45, 0.42, 0.170, 0.06, 0.37, 0.02, 0.10, 0.42, 0.40, 1.75, 0.0, 0.35, 0.030, -0.9, 0.75),
    }.items()
}  # fmt: skip
BIRDS: dict[str, dict[str, float]] = {
    "duck": {"length": 0.52, "girth": 0.36, "neck": 0.30, "head": 0.26, "bill": 0.24, "bill_w": 0.15, "wing": 0.42,
             "tail": 0.26, "leg": 0.16},
}  # fmt: skip


def quadruped(p: Proportions, pose: str) -> Body:
    """Build a dog, cat, rabbit, bear, pig, elephant, or anything between two of them."""
    body = Body()
    length, girth, leg = p["length"], p["girth"], p["leg"]
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
    _legs(body, torso, p, pose)
    skull = _neck(body, torso, p, pose)
    head = Frame(turn("y", 0.12 if pose == "sleeping" else 0.0), skull)
    body.head, body.head_radius = head, p["head"]
    _face(body, head, p, closed=pose == "sleeping")
    _ears(body, head, p)
    _tail(body, torso, p, pose)
    return body


def _legs(body: Body, torso: Frame, p: Proportions, pose: str) -> None:
    length, girth, leg, thick = p["length"], p["girth"], p["leg"], p["leg_r"]
    spread = 0.55 * girth
    for side in (1, -1):
        swing = {"running": 0.55 * side}.get(pose, 0.0) * leg
        for front in (1, -1):
            x, y, z = torso.rotation @ np.array([front * 0.62 * length, side * spread, -0.35 * girth]) + torso.centre
            foot: Point = (x + 0.02, y, thick)
            if pose == "sleeping":
                foot = (x + 0.30 + 0.12 * front, side * (spread + 0.14), thick)
            elif pose == "sitting" and front < 0:
                foot = (x + 0.45 * leg + 0.15, side * (spread + 0.22), thick)
            elif pose == "running":
                foot = (x + 0.75 * front * leg + 0.2 * swing, y, z - leg * (0.55 + 0.1 * side * front))
            body.limb(ROOT, "main", (x, y, z), foot, 1.15 * thick, thick)
            body.ball(ROOT, "second", foot[0] + 0.35 * thick, foot[1], max(foot[2] - 0.1 * thick, 0.7 * thick),
                      1.35 * thick, 1.1 * thick, 0.75 * thick)  # fmt: skip


def _neck(body: Body, torso: Frame, p: Proportions, pose: str) -> Array:
    """Build the neck, and return where the skull is."""
    length, girth = p["length"], p["girth"]
    shoulder = torso.rotation @ np.array([0.75 * length, 0, 0.35 * girth]) + torso.centre
    rise = p["neck"] * {"sleeping": -1.2}.get(pose, 1.0)
    skull = np.array([shoulder[0] + 0.30 * p["head"] + 0.5 * p["neck"], 0, shoulder[2] + rise + 0.35 * p["head"]])
    if pose == "sleeping":
        skull[2] = max(0.95 * p["head"], skull[2] - 0.6 * p["head"])
    body.limb(ROOT, "main", _point(shoulder), _point(skull), 0.62 * girth + 0.04, 0.55 * p["head"])
    nape = 0.45 * shoulder + 0.55 * skull
    lean = np.arctan2(skull[0] - shoulder[0], max(skull[2] - shoulder[2], 0.05))
    hidden = max(0.0, 0.16 - p["neck"])  # what is worn around a short neck lies around the jaw, or it would not show
    body.neck, body.neck_radius = Frame(turn("y", lean), nape), 0.62 * p["head"] + 0.12 * girth + 0.9 * hidden
    return skull


def _face(body: Body, head: Frame, p: Proportions, *, closed: bool) -> None:
    r = p["head"]
    body.ball(head, "main", 0, 0, 0, 0.98 * r, 1.04 * r, r)
    reach = 0.80 * r + p["muzzle"]
    chin, snout = (0.45 * r, 0, -0.25 * r), (reach, 0, -0.28 * r)
    body.limb(head, "second", chin, snout, 1.1 * p["muzzle_r"], 0.85 * p["muzzle_r"])
    nose = max(0.35 * p["muzzle_r"], 0.045)
    if p["trunk"] > 0.05:
        t = p["trunk"]
        knee, tip = (1.05 * r + 0.22 * t, 0, -0.2 * r - 0.5 * t), (1.05 * r + 0.55 * t, 0, -0.2 * r - 0.75 * t)
        body.limb(head, "main", (0.85 * r, 0, -0.20 * r), knee, 0.15, 0.11)
        body.limb(head, "main", knee, tip, 0.11, 0.08)
    else:
        body.ball(head, "black", reach + 0.75 * p["muzzle_r"], 0, -0.12 * r, 0.6 * nose, 1.15 * nose, 0.85 * nose)
    body.look(head, 0.80 * r, 0.42 * r, 0.24 * r, 0.24 * r, closed=closed)


def _ears(body: Body, head: Frame, p: Proportions) -> None:
    r, tilt = p["head"], p["ear_tilt"]
    for side in (1, -1):
        root = (-0.10 * r, side * 0.66 * r * np.cos(0.45) + side * 0.12 * r, 0.72 * r)
        ear = head.at(*root, turn("x", -side * tilt))
        if p["point"] > 0.5:
            body.limb(ear, "accent", (0, 0, -0.08), (0, 0, p["ear"]), 1.05 * p["ear_w"], 0.015, CONE)
        else:
            thick = 0.05 + 0.12 * p["ear_w"] if tilt > 1.5 else 0.55 * p["ear_w"] + 0.02
            body.ball(ear, "accent", 0, 0, 0.72 * p["ear"], thick, p["ear_w"], p["ear"] * 0.80)


def _tail(body: Body, torso: Frame, p: Proportions, pose: str) -> None:
    length, girth = p["length"], p["girth"]
    root = torso.rotation @ np.array([-0.98 * length, 0, 0.25 * girth]) + torso.centre
    up = p["tail_up"] if pose != "sleeping" else 0.05
    reach = p["tail"] if pose != "sleeping" else 0.7 * p["tail"]
    middle = root + reach * 0.5 * np.array([-np.cos(up), 0.15, np.sin(up)])
    tip = middle + reach * 0.5 * np.array([-np.cos(up + 0.7), 0.1, np.sin(up + 0.7) if up > 0 else np.sin(up)])
    for point in (middle, tip):
        point[2] = max(point[2], p["tail_r"])
    body.limb(ROOT, "accent", _point(root), _point(middle), p["tail_r"], p["tail_r"])
    body.limb(ROOT, "accent", _point(middle), _point(tip), p["tail_r"], 0.9 * p["tail_r"])


def bird(p: Proportions, pose: str) -> Body:
    """Build a duck."""
    body = Body()
    length, girth = p["length"], p["girth"]
    leg = {"standing": p["leg"], "running": 1.25 * p["leg"]}.get(pose, 0.0)
    torso = ROOT.at(0, 0, leg + 0.92 * girth, turn("y", {"running": -0.25, "sitting": -0.12}.get(pose, 0.0)))
    body.ball(torso, "main", 0, 0, 0, length, 0.92 * girth, 0.95 * girth)
    body.ball(torso, "main", 0.42 * length, 0, 0.05, 0.55 * length, 0.85 * girth, 0.9 * girth)
    body.chest, body.chest_size = torso.at(0.18 * length, 0, 0), (0.85 * length, 1.0 * girth, 1.02 * girth)
    rump, tail = (-0.75 * length, 0, 0.15), (-0.9 * length - p["tail"], 0, 0.25 + 0.4 * p["tail"])
    body.limb(torso, "accent", rump, tail, 0.16, 0.03)
    for side in (1, -1):
        spread = 0.95 if pose == "running" else 0.12
        wing = torso.at(-0.05, side * 0.80 * girth, 0.10, turn("x", side * spread))
        body.ball(wing, "second", 0, 0, 0, p["wing"], 0.09, 0.24)
        y = side * 0.42 * girth
        step = {"running": 0.28 * side}.get(pose, 0.0)
        foot = (0.05 + step, y, 0.05) if leg else (0.12, y, 0.05)
        body.limb(ROOT, "orange", (0.05, y, leg + 0.2), foot, 0.05, 0.045)
        body.ball(ROOT, "orange", foot[0] + 0.1, y, 0.035, 0.16, 0.11, 0.035)
    _bill_and_head(body, torso, p, pose)
    return body


def _bill_and_head(body: Body, torso: Frame, p: Proportions, pose: str) -> None:
    r, asleep = p["head"], pose == "sleeping"
    rise = p["neck"] * (0.15 if asleep else 1.0)
    shoulder = torso.at(0.62 * p["length"], 0, 0.35 * p["girth"]).centre
    back = 0.05 if asleep else 0.10
    skull = shoulder + np.array([back, 0, rise + 0.5 * r])
    body.limb(ROOT, "main", _point(shoulder), _point(skull), 0.24, 0.72 * r)
    body.neck, body.neck_radius = Frame(np.eye(3), 0.5 * shoulder + 0.5 * skull), 0.25
    head = Frame(turn("y", 0.2 if asleep else 0.0), skull)
    body.head, body.head_radius = head, r
    body.ball(head, "main", 0, 0, 0, r, 0.96 * r, r)
    body.ball(head, "orange", 0.85 * r + 0.4 * p["bill"], 0, -0.15 * r, 0.65 * p["bill"], p["bill_w"], 0.055)
    body.ball(head, "orange", 0.80 * r + 0.25 * p["bill"], 0, -0.28 * r, 0.5 * p["bill"], 0.85 * p["bill_w"], 0.04)
    body.look(head, 0.62 * r, 0.60 * r, 0.28 * r, 0.24 * r, closed=asleep)


def _point(array: Array) -> Point:
    x, y, z = array
    return x, y, z
