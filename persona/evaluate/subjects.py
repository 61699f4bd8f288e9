"""Who is drawn, and what is asked for: the protocol of DreamBooth (Ruiz et al., 2208.12242, section 4.1)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from persona.errors import BadOption
from persona.events import Listener, Note
from persona.identity import bare
from persona.metrics import Mask
from persona.photos import Photo, pictures
from persona.placing import of_class

LIVE = ("cat", "dog")
"""Classes of the data set's subjects that are alive: they wear things, the others are put somewhere else."""
INDEX = "prompts_and_classes.txt"
"""The data set's own list."""

_PLACES = (
    "in the jungle", "in the snow", "on the beach", "on a cobblestone street", "on top of pink fabric",
    "on top of a wooden floor", "with a city in the background", "with a mountain in the background",
    "with a blue house in the background", "on top of a purple rug in a forest",
)  # fmt: skip
_MORE_PLACES = (
    "with a wheat field in the background", "with a tree and autumn leaves in the background",
    "with the Eiffel Tower in the background", "floating on top of water", "floating in an ocean of milk",
    "on top of green grass with sunflowers around it", "on top of a mirror",
    "on top of the sidewalk in a crowded street", "on top of a dirt road", "on top of a white rug",
)  # fmt: skip
_CLOTHES = (
    "wearing a red hat", "wearing a santa hat", "wearing a rainbow scarf", "wearing a black top hat and a monocle",
    "in a chef outfit", "in a firefighter outfit", "in a police outfit", "wearing pink glasses",
    "wearing a yellow shirt", "in a purple wizard outfit",
)  # fmt: skip
_PROPERTIES = ("red", "purple", "shiny", "wet", "cube shaped")


@dataclass(frozen=True)
class Prompt:
    """Something to draw.

    Attributes:
        template: ``[V]`` stands for the subject and ``{class}`` for its class noun.
        kind: ``subject``; ``class`` for the bare class, which should have stayed what it was; ``other`` for what has
            nothing to do with either.
        expected: what a judge should read in its pictures, by its heads; empty where none can tell.
    """

    template: str
    kind: str = "subject"
    expected: Mapping[str, str] = field(default_factory=dict)

    def text(self, class_noun: str) -> str:
        """Return the prompt of a class, with ``[V]``."""
        return of_class(self.template, class_noun)

    def bare(self, class_noun: str) -> str:
        """Return the same without the subject, as those read it who never saw it."""
        return bare(self.text(class_noun), class_noun)


BARE = Prompt("a {class}", "class")
"""What PRES is measured on."""
OTHERS = tuple(
    Prompt(text, "other")
    for text in (
        "a bowl of fruit on a table",
        "a city street at night",
        "a portrait of an old sailor",
        "a lake in the mountains",
    )
)
"""What drift is measured on."""


@dataclass(frozen=True)
class Subject:
    """Somebody to draw.

    Attributes:
        name: what to call it.
        class_noun: what it is.
        folder: that holds the photos; ``None`` where there are none.
        photos: as they were read from there.
        prompts: of all kinds.
        masks: where the subject is in each photo, as far as that is known.
    """

    name: str
    class_noun: str
    folder: Path | None
    photos: Sequence[Photo]
    prompts: Sequence[Prompt]
    masks: Sequence[Mask | None]


def papers_prompts(class_noun: str) -> list[Prompt]:
    """Return the 25 prompts of the paper for a class."""
    places = (*_PLACES, *(_CLOTHES if class_noun.lower() in LIVE else _MORE_PLACES))
    texts = (*(f"a [V] {{class}} {place}" for place in places), *(f"a {kind} [V] {{class}}" for kind in _PROPERTIES))
    return [Prompt(text) for text in texts]


def from_photos(name: str, class_noun: str, folder: Path, prompts: Sequence[Prompt], listener: Listener) -> Subject:
    """Return the subject of a folder of photos.

    Raises:
        BadPhotos: the folder holds none that can be read.
    """
    photos = pictures(folder, listener)
    return Subject(name, class_noun, folder, photos, prompts, masks_of(photos))


def masks_of(photos: Sequence[Photo]) -> list[Mask | None]:
    """Return where the subject is in photos that were cut out."""
    return [None if photo.mask is None else np.asarray(photo.mask) > 0 for photo in photos]


def read_dreambench(folder: Path, which: str | None, listener: Listener) -> list[Subject]:
    """Read the public data set of the paper, or what there is of it.

    Args:
        folder: with the data set's own list, and a folder for each subject.
        which: how many of them, or their names; see :func:`chosen`.
        listener: told which are not there, and which photos cannot be read.

    Raises:
        BadOption: there is no such folder, or its list cannot be read, or has no such subject.
        BadPhotos: the photos of a subject cannot be read.
    """
    classes, prompts = _index(folder)
    there = [name for name in classes if (folder / name).is_dir()]
    if not there:
        raise BadOption(
            f"{folder} holds no folder of a subject, such as {next(iter(classes))}. Fetch the data set again."
        )
    names = chosen(there, which, "--subjects")
    if len(there) < len(classes) and which is None:
        gone = f"{len(classes) - len(there)} of {len(classes)} subjects are not in {folder.resolve().name}"  # no paths
        listener(Note(f"{gone}: the figures are those of the other {len(there)}.", warning=True))
    return [
        from_photos(name, classes[name], folder / name, [*prompts[classes[name] in LIVE], BARE, *OTHERS], listener)
        for name in names
    ]


def _index(folder: Path) -> tuple[dict[str, str], dict[bool, list[Prompt]]]:
    """Return the class of each subject, and the prompts of those that are alive and those that are not."""
    try:
        text = (folder / INDEX).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        hint = "Give the folder dataset of github.com/google/dreambooth, or clay for the edition that is built in."
        raise BadOption(f"{folder} is no DreamBench: it has no {INDEX} that can be read. {hint}") from error
    classes = dict(re.findall(r"^([\w-]+),([\w ]+)$", text, re.MULTILINE))
    classes.pop("subject_name", None)
    things, _, live = text.partition("Live Subject Prompts")
    prompts = {alive: _listed(part) for alive, part in ((False, things), (True, live))}
    if not classes or not all(prompts.values()):
        raise BadOption(f"{folder / INDEX} lists no classes, or no prompts of both kinds. Fetch the data set again.")
    return classes, prompts


def _listed(text: str) -> list[Prompt]:
    """Return the prompts of a list that is written as Python, which is read as text and never run."""
    found = re.findall(r"'([^']+)'\.format\(", text)
    return [Prompt(one.replace("{0}", "[V]").replace("{1}", "{class}")) for one in found]


def chosen(names: Sequence[str], which: str | None, flag: str) -> list[str]:
    """Return those of some names that are asked for.

    Args:
        names: in their order.
        which: ``None`` for all, a number for so many, spread evenly, or names with commas between them.
        flag: what asks for them.

    Raises:
        BadOption: there is none of that name, or not as many.
    """
    if which is None:
        return list(names)
    if which.isdecimal():
        number = int(which)
        if not 1 <= number <= len(names):
            raise BadOption(f"{flag} {which}: there are {len(names)}. Give a number from 1 to {len(names)}.")
        return [names[place * len(names) // number] for place in range(number)]
    wanted = list(dict.fromkeys(name.strip() for name in which.split(",")))  # none twice
    for name in wanted:
        if name not in names:
            raise BadOption(f"{flag}: there is no {name!r}. There are: {', '.join(names)}.")
    return wanted
