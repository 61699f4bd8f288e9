"""What a live subject can wear: parts hung on the body's head, neck or chest, so that they follow view and pose."""

from collections.abc import Callable

from persona.clay.world.bodies import Body, turn
from persona.clay.world.contexts import Colour, Surface
from persona.clay.world.primitives import CONE
from persona.clay.world.raycast import RAINBOW, STARS

_HAT_TILT = turn("y", -0.12)


def _brim(body: Body, slot: str, width: float, tall: float, crown: float, top: float) -> None:
    r = body.head_radius
    hat = body.head.at(-0.05 * r, 0, 0.78 * r, _HAT_TILT)
    body.limb(hat, slot, (0, 0, 0), (0, 0, 0.05), width * r, width * r, CONE)
    body.limb(hat, slot, (0, 0, 0.03), (0, 0, tall * r), crown * r, top * r, CONE)


def _red_hat(body: Body) -> None:
    _brim(body, "red cloth", 1.15, 0.55, 0.72, 0.62)


def _santa_hat(body: Body) -> None:
    r = body.head_radius
    hat = body.head.at(-0.05 * r, 0, 0.74 * r, _HAT_TILT)
    body.limb(hat, "red cloth", (0, 0, 0.05 * r), (-0.45 * r, 0, 1.05 * r), 0.78 * r, 0.14 * r)
    body.ring(hat, "white cloth", 0, 0, 0.10 * r, 0.72 * r, 0.20 * r)
    body.ball(hat, "white cloth", -0.55 * r, 0, 1.15 * r, 0.25 * r, 0.25 * r, 0.25 * r)


def _top_hat(body: Body) -> None:
    _brim(body, "black cloth", 1.05, 1.05, 0.66, 0.70)
    forward, sideways, up = body.eyes
    eye = body.head.at(forward + 0.05, sideways, up, turn("y", 1.5708))
    body.ring(eye, "brass", 0, 0, 0, 0.36 * body.head_radius, 0.05 * body.head_radius)


def _scarf(body: Body) -> None:
    r = body.neck_radius
    body.ring(body.neck, "rainbow", 0, 0, -0.02, 0.92 * r, 0.36 * r)
    body.limb(body.neck, "rainbow", (0.9 * r, 0.45 * r, 0), (1.15 * r, 0.55 * r, -1.6 * r), 0.22 * r, 0.24 * r)


def _pink_glasses(body: Body) -> None:
    forward, sideways, up = body.eyes
    r = body.head_radius
    for side in (1, -1):
        eye = body.head.at(forward + 0.30 * r, side * max(sideways, 0.42 * r), up, turn("y", 1.5708))
        body.ring(eye, "hot pink", 0, 0, 0, 0.36 * r, 0.10 * r)
        hinge, end = (forward + 0.25 * r, side * 0.86 * r, up), (-0.2 * r, side * 1.02 * r, up + 0.05 * r)
        body.limb(body.head, "hot pink", hinge, end, 0.07 * r, 0.07 * r)
    left, right = (forward + 0.32 * r, 0.15 * r, up), (forward + 0.32 * r, -0.15 * r, up)
    body.limb(body.head, "hot pink", left, right, 0.08 * r, 0.08 * r)


def _yellow_shirt(body: Body) -> None:
    a, b, c = body.chest_size
    body.ball(body.chest, "yellow cloth", 0, 0, 0, 1.02 * a, 1.10 * b, 1.10 * c)


def _wizard(body: Body) -> None:
    r = body.head_radius
    _brim(body, "wizard cloth", 1.20, 0.10, 0.70, 0.70)
    hat = body.head.at(-0.05 * r, 0, 0.80 * r, _HAT_TILT)
    body.limb(hat, "wizard cloth", (0, 0, 0), (-0.12 * r, 0, 1.75 * r), 0.72 * r, 0.04 * r, CONE)
    a, b, c = body.chest_size
    body.ball(body.chest, "wizard cloth", 0, 0, 0, 1.02 * a, 1.10 * b, 1.10 * c)


def _chef(body: Body) -> None:
    r = body.head_radius
    hat = body.head.at(-0.05 * r, 0, 0.75 * r, _HAT_TILT)
    body.limb(hat, "white cloth", (0, 0, 0), (0, 0, 0.62 * r), 0.66 * r, 0.70 * r, CONE)
    for x, y in ((0.35, 0.0), (-0.2, 0.4), (-0.2, -0.4)):
        body.ball(hat, "white cloth", x * r, y * r, 0.80 * r, 0.52 * r, 0.52 * r, 0.42 * r)
    a, b, c = body.chest_size
    body.ball(body.chest, "white cloth", 0, 0, 0, 1.02 * a, 1.08 * b, 1.08 * c)


_RED: Colour = (0.86, 0.07, 0.08)
SURFACES = {
    "red cloth": Surface(_RED),
    "white cloth": Surface((0.97, 0.97, 0.96)),
    "black cloth": Surface((0.06, 0.06, 0.07)),
    "brass": Surface((0.90, 0.72, 0.22)),
    "rainbow": Surface(_RED, _RED, RAINBOW, 1.6),
    "hot pink": Surface((1.0, 0.20, 0.62)),
    "yellow cloth": Surface((0.99, 0.84, 0.08)),
    "wizard cloth": Surface((0.26, 0.14, 0.60), (0.98, 0.88, 0.30), STARS, 5.0),
}
ACCESSORIES: dict[str, Callable[[Body], None]] = {
    "red hat": _red_hat, "santa hat": _santa_hat, "top hat and monocle": _top_hat, "rainbow scarf": _scarf,
    "pink glasses": _pink_glasses, "yellow shirt": _yellow_shirt, "wizard outfit": _wizard, "chef outfit": _chef,
}  # fmt: skip
