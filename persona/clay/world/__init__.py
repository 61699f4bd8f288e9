"""Clay's world: small scenes of toys, rendered from closed-form primitives, with the truth about each picture.

from numpy.random import default_rng
from persona.clay import world

picture = world.render(world.random_scene(default_rng(0))).image
"""

from persona.clay.world.accessories import ACCESSORIES
from persona.clay.world.animals import POSES
from persona.clay.world.captions import caption, noun_phrase
from persona.clay.world.contexts import CONTEXTS, GROUNDED
from persona.clay.world.drawing import SIDE, Render, faces_left, render, silhouettes
from persona.clay.world.scene import (
    PROPERTIES,
    RELATIONS,
    VIEWS,
    Entity,
    Fixed,
    Scene,
    from_dict,
    held_out,
    random_scene,
    to_dict,
)
from persona.clay.world.styles import COLOURLESS, STYLES
from persona.clay.world.subjects import CLASSES, COLOURS, LIVE, PATTERNS, Subject, random_subject

__all__ = [
    "ACCESSORIES",
    "CLASSES",
    "COLOURLESS",
    "COLOURS",
    "CONTEXTS",
    "GROUNDED",
    "LIVE",
    "PATTERNS",
    "POSES",
    "PROPERTIES",
    "RELATIONS",
    "SIDE",
    "STYLES",
    "VIEWS",
    "Entity",
    "Fixed",
    "Render",
    "Scene",
    "Subject",
    "caption",
    "faces_left",
    "from_dict",
    "held_out",
    "noun_phrase",
    "random_scene",
    "random_subject",
    "render",
    "silhouettes",
    "to_dict",
]
