"""The words that a base has learnt from, where its folder lists them in ``words.json``."""

import json
import re
from collections.abc import Set
from pathlib import Path

from persona.errors import BadBase

WORDS = "words.json"
"""What the list is called in a base's folder."""


def read_words(folder: Path) -> frozenset[str]:
    """Return the words of a base, in small letters; none where it does not list them.

    Raises:
        BadBase: the file is no JSON list.
    """
    path = folder / WORDS
    if not path.is_file():
        return frozenset()
    try:
        return frozenset(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadBase(f"The words of the base cannot be read ({error}). Correct or remove {path.name}.") from error


def unknown(prompt: str, words: Set[str]) -> list[str]:
    """Return what a prompt says that is not among the words, each once."""
    said = re.findall(r"[^\W_]+(?:'[^\W_]+)?", prompt.lower())
    return [word for word in dict.fromkeys(said) if word not in words]
