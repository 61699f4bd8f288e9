"""Subjects by name, as they are typed, and where they shall stand in a picture."""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from persona.errors import BadOption, BadPrompt

MOST = 2
"""Subjects in a picture."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, each as a share of the picture, from 0 to 1."""

_VOWELS = "aeiou"
_PLACEHOLDER = re.compile(r"\[(\w+)\]")
_HEIGHT = 0.6  # of the box of a subject that is alone; two have to share the picture
_RELATIONS = {  # how the first stands to the second: which of two places is its own, and whether they lie side by side
    "beside": (0, True),
    "next to": (0, True),
    "left of": (0, True),
    "right of": (1, True),
    "under": (1, False),
    "below": (1, False),
    "beneath": (1, False),
    "on top of": (0, False),
    "above": (0, False),
    "over": (0, False),
}
_OTHER = re.compile(r"(?:,|\band|\bwith) +(?:(?:an?|the)\b|$)")  # what is said before it is not of the second subject
_BESIDE = ((0.04, 0.25, 0.48, 0.9), (0.52, 0.25, 0.96, 0.9))
_ABOVE = ((0.25, 0.05, 0.75, 0.48), (0.2, 0.52, 0.8, 0.95))


@dataclass(frozen=True)
class Subject:
    """A subject as it is typed: ``V=dog.png``, or ``V=dog.png@0.1,0.3,0.6,0.9``.

    Attributes:
        name: stands for it in prompts, in brackets: ``[V]``.
        reference: the picture that shows it.
        box: where it shall stand; ``None`` where that is left to us.
    """

    name: str
    reference: Path
    box: Box | None = None


def read_subjects(texts: Iterable[str]) -> dict[str, Subject]:
    """Return the subjects by their names.

    Raises:
        BadOption: one cannot be read, a box is outside the picture or empty, a name is given twice, or there are more
            than :data:`MOST`.
    """
    subjects: dict[str, Subject] = {}
    for text in texts:
        name, rest = _named("--subject", text, "V=dog.png")
        match = re.fullmatch(r"(.+)@([^@/\\]*,[^@/\\]*)", rest)
        path, box = (match[1], read_box(match[2])) if match else (rest, None)
        if name in subjects:
            raise BadOption(f"--subject {name} is given twice. Each subject needs a name of its own: V, W.")
        subjects[name] = Subject(name, _path(path), box)
    if len(subjects) > MOST:
        raise BadOption(f"--subject: an image shows {MOST} subjects at most; {len(subjects)} were given.")
    return subjects


def read_masks(texts: Iterable[str], subjects: Mapping[str, Subject]) -> dict[str, Path | Box]:
    """Return where each subject is in its reference, by its name: the file of a mask, or a box.

    Raises:
        BadOption: one cannot be read, a box is outside the picture or empty, a subject has two, or there is no such
            subject.
    """
    masks: dict[str, Path | Box] = {}
    for text in texts:
        name, rest = _named("--mask", text, "V=mask.png")
        if name not in subjects:
            raise BadOption(f"--mask {name}: there is no such subject. Name one: --subject {name}=dog.png")
        if name in masks:
            raise BadOption(f"--mask {name} is given twice. Give one for each subject.")
        masks[name] = read_box(rest) if re.fullmatch(r"[-+.,\d\s]*,[-+.,\d\s]*", rest) else _path(rest)
    return masks


def _path(text: str) -> Path:
    """Return a path that is typed behind an equals sign, where shells leave ~ as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib raises at users that there are not


def _named(flag: str, text: str, example: str) -> tuple[str, str]:
    name, _, rest = text.partition("=")
    if not re.fullmatch(r"\w+", name) or not rest:
        raise BadOption(f"{flag} {text!r} cannot be read. Write {flag} {example}")
    return name.upper(), rest


def read_box(text: str) -> Box:
    """Return a box that is typed as its four sides with commas.

    Raises:
        BadOption: it has no four sides, is empty, or is not inside the picture.
    """
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        raise BadOption(f"The box {text} needs four numbers: left,top,right,bottom, as 0.1,0.3,0.6,0.9") from None
    if not all(0 <= side <= 1 for side in (left, top, right, bottom)):
        raise BadOption(f"The box {text} is not inside the image: its sides go from 0 to 1, as 0.1,0.3,0.6,0.9")
    if left >= right or top >= bottom:
        raise BadOption(f"The box {text} is empty: it is left,top,right,bottom, as 0.1,0.3,0.6,0.9")
    return left, top, right, bottom


def named(prompt: str) -> list[str]:
    """Return the names that stand in brackets in a prompt, in capitals, each once, in their order."""
    return list(dict.fromkeys(name.upper() for name in _PLACEHOLDER.findall(prompt)))


def say(prompt: str, words: Mapping[str, str]) -> str:
    """Put words in the place of names in brackets; they are found by the name in capitals."""
    return _PLACEHOLDER.sub(lambda match: words[match[1].upper()], prompt)


def plain(prompt: str) -> str:
    """Return a prompt without its names: what the base alone would be asked for, with the articles that it needs."""
    spoken = re.sub(rf"\b(a)n? {_PLACEHOLDER.pattern} (?=(\w+))", _article, prompt, flags=re.IGNORECASE)
    return re.sub(rf"{_PLACEHOLDER.pattern} ?", "", spoken).strip()


def _article(match: re.Match[str]) -> str:
    return f"{match[1]}{'n' if match[3][0].lower() in _VOWELS else ''} "


def of_class(template: str, noun: str) -> str:
    """Return a template with the class noun in the place of ``{class}``, and the article that it needs."""
    return template.replace("a {class}", any_of(noun)).replace("{class}", noun)


def any_of(noun: str) -> str:
    """Return what one says of a thing that is not known: "a dog", "an elephant"."""
    return f"{'an' if noun[:1].lower() in _VOWELS else 'a'} {noun}"


def check(prompts: Sequence[str], subjects: Collection[str]) -> None:
    """Make sure that prompts and subjects are about each other.

    Raises:
        BadPrompt: a prompt names a subject that there is no reference of, or none at all.
        BadOption: a subject is in no prompt.
    """
    for prompt in prompts:
        unknown = [name for name in named(prompt) if name not in subjects]
        if unknown:
            raise BadPrompt(f"[{unknown[0]}] has no reference. Give one: --subject {unknown[0]}=dog.png")
        if not named(prompt):
            names = " and ".join(f"[{name}]" for name in subjects)
            raise BadPrompt(f"{prompt[:60]!r} names no subject. Write {names} where it should be: a [V] dog")
    said = {name for prompt in prompts for name in named(prompt)}
    for name in subjects:
        if name not in said:
            raise BadOption(f"--subject {name} is in no prompt. Write [{name}] before its noun, or leave it out.")


def check_single(prompts: Sequence[str]) -> None:
    """Make sure that prompts are about one subject, as all are but those of :func:`check`.

    Raises:
        BadPrompt: one is about a second subject.
    """
    if any("W" in named(prompt) for prompt in prompts):
        raise BadPrompt("[W] has no reference. Give one for each subject: --subject V=dog.png --subject W=cat.png")


def places(prompt: str, wanted: Sequence[tuple[Box | None, float]]) -> list[Box]:
    """Return where the subjects of a prompt stand: where they were placed, or else as the prompt says of them.

    One that is alone stands in the middle; one beside another that was placed keeps clear of it.

    Args:
        prompt: with their names.
        wanted: of each subject, in the order of the prompt, its box if it was placed, and its width over its height.
    """
    if len(wanted) < MOST:
        return [box or _fitted((0.05, 0.9 - _HEIGHT, 0.95, 0.9), shape) for box, shape in wanted]
    between = _OTHER.split(prompt.lower().partition("]")[2].partition("[")[0])[-1]
    said = re.findall(rf"\b(?:{'|'.join(_RELATIONS)})\b", between)  # those before the last are to other things
    first, beside = _RELATIONS[said[-1] if said else "beside"]
    slots = (_BESIDE if beside else _ABOVE)[:: -1 if first else 1]

    def crowded(slots: Sequence[Box]) -> float:
        """Return how much the places of those that nobody placed share with the others."""
        mine, theirs = zip(*((slot, box or slot) for slot, (box, _) in zip(slots, wanted, strict=True)), strict=True)
        return common(mine[0], theirs[1]) + common(mine[1], theirs[0])

    if crowded(slots[::-1]) < crowded(slots):
        slots = slots[::-1]
    return [box or _fitted(slot, shape) for slot, (box, shape) in zip(slots, wanted, strict=True)]


def common(one: Box, other: Box) -> float:
    """Return the area that two boxes have in common, as a share of the picture."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _fitted(slot: Box, shape: float) -> Box:
    """Return the largest box of a shape in another, in its middle and at its foot."""
    left, top, right, bottom = slot
    width = min(right - left, (bottom - top) * shape)
    middle, height = (left + right) / 2, width / shape
    return middle - width / 2, bottom - height, middle + width / 2, bottom
