"""Prompts of a file, and what is said of those that a base does not read as they were written."""

from collections.abc import Collection, Sequence
from pathlib import Path

from persona.config.words import read_text
from persona.errors import BadPrompt
from persona.events import Listener, Note
from persona.families import Family


def read_prompts(path: Path) -> tuple[str, ...]:
    """Return the prompts of a file, a line each.

    Raises:
        BadPrompt: it cannot be read, or holds none.
    """
    prompts = tuple(line.strip() for line in lines_of(path) if line.strip())
    if not prompts:
        raise BadPrompt(f"{path} holds no prompt. Write one on each line.")
    return prompts


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file of prompts, empty ones too.

    Raises:
        BadPrompt: it cannot be read.
    """
    try:
        return read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else str(error.strerror).lower()
        raise BadPrompt(f"{path} cannot be read: {reason}.") from None


def tell_cut(base: Family, prompts: Sequence[str], listener: Listener) -> None:
    """Warn of prompts that are longer than any of the base's text encoders reads."""
    for prompt in dict.fromkeys(prompts):
        lengths = [(len(one.encode(prompt)), most) for one, most in zip(base.tokenizers, base.lengths, strict=True)]
        if lengths and all(length > most for length, most in lengths):
            most = max(most for _, most in lengths)
            hint = f"{base.title} reads {most} tokens. Put first what matters, or shorten it."
            listener(Note(f"{prompt[:60]!r} is cut: {hint}", warning=True))


def tell_unknown(base: Family, prompts: Sequence[str], own: Collection[str], listener: Listener) -> None:
    """Warn of words that the base never saw, but for the names of the personas that it wears."""
    unknown = dict.fromkeys(word for prompt in prompts for word in base.unknown_words(prompt))
    names = {part for word in own for part in base.unknown_words(word)}  # as they are read: rex_01 is rex and 01
    if words := ", ".join(word for word in unknown if word not in names):
        told = f"{words}: not in the vocabulary of {base.title}, so of no effect. Use other words."
        listener(Note(told, warning=True))
