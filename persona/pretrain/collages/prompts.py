"""What collages show: from the templates below, or from a file that any language model wrote."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from numpy.random import default_rng

from persona.errors import BadPrompt
from persona.placing import any_of
from persona.prompts import lines_of

SCENES = 8
"""Scenes of a subject that is made of the templates; a collage has fewer panels."""

_ANIMALS = (
    "dog", "puppy", "cat", "kitten", "rabbit", "horse", "pony", "cow", "goat", "sheep", "pig", "duck", "goose", "owl",
    "parrot", "chicken", "fox", "bear", "wolf", "lion", "tiger", "monkey", "squirrel", "hamster", "turtle", "frog",
)  # fmt: skip
_COATS = (
    "brown", "white", "black", "grey", "golden", "spotted", "striped", "black and white", "brown and white", "fluffy",
    "shaggy", "long-haired", "short-haired", "old", "young", "chubby", "slim", "small", "large",
)  # fmt: skip
_ANIMALS_HAVE = (
    "a red collar", "a blue bandana", "a white patch on its face", "dark ears", "a white belly", "a bell", "blue eyes",
    "a green scarf", "a notched ear", "white feet", "a dark tail", "a yellow bow",
)  # fmt: skip
_THINGS = (
    "backpack", "handbag", "suitcase", "teapot", "mug", "vase", "bowl", "candle", "clock", "lamp", "lantern", "chair",
    "stool", "toy car", "toy train", "toy robot", "teddy bear", "plush toy", "doll", "boot", "sneaker", "sandal", "hat",
    "helmet", "watch", "pair of glasses", "guitar", "violin", "drum", "camera", "radio", "telephone", "bicycle",
    "scooter", "skateboard", "kettle", "bottle", "jar", "can", "basket", "umbrella", "statuette", "birdhouse",
)  # fmt: skip
_LOOKS = (
    "red", "blue", "green", "yellow", "orange", "purple", "pink", "turquoise", "black", "white", "silver", "brown",
    "wooden", "ceramic", "metal", "leather", "knitted", "plastic", "glass", "striped", "spotted", "checkered",
    "vintage", "modern", "rustic", "handmade", "shiny", "worn",
)  # fmt: skip
_THINGS_HAVE = (
    "a floral pattern", "a painted star", "a gold rim", "a leather strap", "a round label", "brass details",
    "a zigzag pattern", "a blue stripe", "white dots", "a carved handle", "a chipped edge", "an embroidered leaf",
)  # fmt: skip
_PLACES = (
    "on a beach", "in the snow", "in a forest", "in a garden", "on a city street", "on a cobblestone street",
    "on a wooden floor", "on a kitchen table", "on a windowsill", "in a living room", "on a white rug", "on a blanket",
    "on green grass", "among flowers", "among autumn leaves", "by a lake", "by a river", "by a waterfall",
    "in front of a brick wall", "in front of mountains", "in front of a castle", "in a desert", "on a rock",
    "on a pier", "on a boat", "in a park", "at a market", "in a library", "in a workshop", "on a staircase",
    "on a rooftop", "on a bench", "in a field of wheat", "in the rain", "in the fog", "at sunset", "at night",
    "in a studio on a grey background", "on a red carpet", "beside a fireplace",
)  # fmt: skip
_KEYS = {"class": str, "subject": str, "scenes": list}


@dataclass(frozen=True)
class Plan:
    """What a set shows.

    Attributes:
        noun: the class of its subject.
        subject: that one subject, described so that the panels of a collage agree on it.
        scenes: where it is, different ones, one for each picture of the set at least.
    """

    noun: str
    subject: str
    scenes: tuple[str, ...]

    @property
    def collage(self) -> str:
        """What the base is asked for."""
        return (
            f"photo collage of the same {self.subject}, four photos in a two by two grid with white borders, "
            "each from another angle in another place"
        )

    def caption(self, scene: int) -> str:
        """Say what a picture shows: not what the subject looks like, which is for the other pictures to tell."""
        return f"a photo of {any_of(self.noun)} {self.scenes[scene]}"


def plans(file: Path | None, seed: int) -> Callable[[int], Plan]:
    """Return what gives the plan of each collage by its number, from 0.

    Args:
        file: of plans, which are taken in turn; of the templates when left out.
        seed: of what is made of the templates.

    Raises:
        BadPrompt: the file cannot be read, or a line of it is no plan.
    """
    if file is None:
        return lambda number: _made(number, seed)
    written = _read(file)
    return lambda number: written[number % len(written)]


def _made(number: int, seed: int) -> Plan:
    random = default_rng((seed, 1, number))
    animal = bool(random.random() < len(_ANIMALS) / (len(_ANIMALS) + len(_THINGS)))
    nouns, looks, details = (_ANIMALS, _COATS, _ANIMALS_HAVE) if animal else (_THINGS, _LOOKS, _THINGS_HAVE)
    noun, look, detail = (str(random.choice(words)) for words in (nouns, looks, details))
    scenes = random.choice(_PLACES, SCENES, replace=False)
    return Plan(noun, f"{look} {noun} with {detail}", tuple(map(str, scenes)))


def _read(file: Path) -> list[Plan]:
    found = [_plan(line, f"{file}, line {number}") for number, line in enumerate(lines_of(file), 1) if line.strip()]
    if not found:
        raise BadPrompt(f"{file} holds no prompt. Each line is {_form()}")
    return found


def _plan(line: str, where: str) -> Plan:
    try:
        told = json.loads(line)
        noun, subject, scenes = (told[key] for key in _KEYS)
        right = all(isinstance(told[key], kind) and told[key] for key, kind in _KEYS.items())
        right = right and all(isinstance(scene, str) and scene.strip() for scene in scenes) and len(set(scenes)) > 1
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise BadPrompt(f"{where} is no plan of a set. Write {_form()}")
    return Plan(noun, subject, tuple(dict.fromkeys(scenes)))


def _form() -> str:
    return '{"class": "dog", "subject": "shaggy brown dog with a red collar", "scenes": ["on a beach", "in the snow"]}'
