"""The same protocol in clay's world, offline: rendered subjects that no training saw, prompts that a judge can mark.

The places, clothes and properties are the paper's own, as far as clay has a word for them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from numpy.random import default_rng

from persona.clay import world
from persona.clay.world.captions import ACCESSORY_PHRASES, CONTEXT_PHRASES, STYLE_PHRASES
from persona.drawing import processes, save
from persona.evaluate.subjects import BARE, Prompt, Subject, chosen
from persona.photos import pictures

SEED = 1_000_003
"""Of subjects that no training draws."""
VIEWS = ("three-quarter", "side", "front", "back", "three-quarter")
"""Of the photos of each subject."""

_PLACES = (
    "jungle", "snow", "beach", "cobblestone street", "pink fabric", "wooden floor", "city", "mountain", "blue house",
    "purple rug",
)  # fmt: skip
_COLOURS = ("red", "purple")
_LOOKS = {True: ("shiny", "wet", "cube shaped"), False: ("shiny", "wet", "cube shaped", "golden", "transparent")}
_STYLES = ("van gogh", "watercolor")
_OTHERS: Mapping[str, Mapping[str, str]] = {
    "a photo of a car on the beach": {"class": "car", "context": "beach"},
    "a watercolor painting of a teapot": {"class": "teapot", "style": "watercolor"},
    "a photo of a rabbit in the snow": {"class": "rabbit", "context": "snow"},
    "a photo of a robot with a city in the background": {"class": "robot", "context": "city"},
    "a photo of a bear in the jungle": {"class": "bear", "context": "jungle"},
}


def prompts(class_noun: str) -> list[Prompt]:
    """Return the 25 prompts for a class, and those that are not about the subject.

    Of a class that is none of clay's the judge can tell nothing: it is asked for the rest.
    """
    known = class_noun.lower()
    alive = known in world.LIVE
    places = _PLACES if alive else tuple(world.CONTEXTS)
    clothes = tuple(world.ACCESSORIES) if alive else ()
    who = {"class": known} if known in world.CLASSES else {}
    found = [
        *(Prompt(f"a [V] {{class}} {CONTEXT_PHRASES[one][0]}", expected={**who, "context": one}) for one in places),
        *(
            Prompt(f"a [V] {{class}} {ACCESSORY_PHRASES[one][0]}", expected={**who, "accessory": one})
            for one in clothes
        ),
        *(Prompt(f"a {one} [V] {{class}}", expected={**who, "colour": one}) for one in _COLOURS),
        *(Prompt(f"a {one} [V] {{class}}", expected={} if one == "cube shaped" else who) for one in _LOOKS[alive]),
        *(Prompt(STYLE_PHRASES[one][0].format("a [V] {class}"), expected={**who, "style": one}) for one in _STYLES),
    ]
    others = [Prompt(text, "other", answer) for text, answer in _OTHERS.items() if answer["class"] != known]
    return [*found, replace(BARE, expected=who), *others[:4]]


def subjects(folder: Path, which: str | None) -> list[Subject]:
    """Render a subject of each class, five photos each.

    Args:
        folder: gets a folder of photos for each; those that are there stay.
        which: how many of them, or their names; see :func:`persona.evaluate.subjects.chosen`.

    Raises:
        BadOption: there is none of that name.
        OSError: the disk is full.
    """
    return [_subject(folder / noun, noun) for noun in chosen(world.CLASSES, which, "--subjects")]


def _subject(folder: Path, noun: str) -> Subject:
    rng = default_rng((SEED, 4, world.CLASSES.index(noun)))
    who = world.random_subject(rng, noun)
    places = rng.choice(list(world.CONTEXTS), len(VIEWS), replace=False)
    scenes = [
        world.random_scene(rng, (who,), context=str(place), view=view, style="photo", accessory=None, property=None)
        for place, view in zip(places, VIEWS, strict=True)
    ]
    renders = [world.render(scene) for scene in scenes]
    for number, render in enumerate(renders):
        path = folder / f"{number}.png"
        if processes().is_main_process and not path.exists():
            save(render.image, path, {})
    processes().wait_for_everyone()
    masks = [render.masks[0] for render in renders]
    return Subject(noun, noun, folder, pictures(folder), prompts(noun), masks)
