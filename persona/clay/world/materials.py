"""What parts are painted with: a row of numbers for each material, as the ray caster reads it."""

import numpy as np

from persona.clay.world import raycast
from persona.clay.world.contexts import Surface
from persona.clay.world.scene import Entity
from persona.clay.world.subjects import PATTERNS, Subject

Row = list[float]
_SCALES = {"spotted": 3.6, "striped": 2.6, "patched": 2.1}  # of a pattern, in cells a unit


def surface_row(surface: Surface, seed: int) -> Row:
    """Return the row of a piece of scenery or clothing; ``seed`` says where its spots are."""
    return [*surface.first, *surface.second, surface.pattern, surface.scale, seed, 0.05, 0.0, 1.0]


def entity_rows(entity: Entity) -> dict[str, Row]:
    """Return the rows of the slots that an entity's parts name."""
    who = entity.subject
    main, second, accent = who.colours
    gloss, metal, alpha = 0.10, 0.0, 1.0
    pattern = PATTERNS[who.pattern]
    match entity.property:
        case "shiny":
            gloss = 0.95
        case "wet":
            main, second, accent = _darker(main), _darker(second), _darker(accent)
            gloss = 0.75
        case "golden":
            main, second, accent = (1.0, 0.76, 0.20), (0.86, 0.60, 0.12), (1.0, 0.86, 0.42)
            gloss, metal, pattern = 0.8, 1.0, raycast.PLAIN
        case "transparent":
            gloss, alpha = 0.9, 0.42
    scale = _pattern_scale(who)

    def row(first: tuple[float, ...], other: tuple[float, ...] = (0, 0, 0), pattern: int = raycast.PLAIN) -> Row:
        return [*first, *other, pattern, scale, who.pattern_seed, gloss, metal, alpha]

    return {
        "main": row(main, second, pattern), "second": row(second), "accent": row(accent),
        "white": row((0.97, 0.97, 0.97)), "black": row((0.05, 0.05, 0.06)), "grey": row((0.6, 0.6, 0.63)),
        "red": row((0.9, 0.1, 0.1)), "orange": row((0.97, 0.55, 0.10)), "glass": row((0.45, 0.62, 0.72)),
    }  # fmt: skip


def _darker(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = colour
    return 0.62 * red, 0.62 * green, 0.62 * blue


def _pattern_scale(who: Subject) -> float:
    """Return the fineness of a pattern; of two tones, the height in the rest frame below which the second shows."""
    if who.pattern == "two-tone":
        heights = [part.frame.centre[2] for part in who.body().parts if part.slot == "main"]
        return float(np.mean(heights)) * (0.75 + 0.25 * who.pattern_scale)
    return _SCALES.get(who.pattern, 1.0) * who.pattern_scale
