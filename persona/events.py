"""What the library has to say while it works.

It never prints: it tells its listener. The command line draws bars and notes from these events; a notebook or a
server may pass any function that takes one.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    Attributes:
        stage: what is being done, in a word or two ("Training"); a new stage replaces the one before.
        done: units finished, from 0 to ``total``.
        total: units of the whole stage, at least 1.
        loss: the last training loss, where there is one.
    """

    stage: str
    done: int
    total: int
    loss: float | None = None


@dataclass(frozen=True)
class Note:
    """One sentence for the user; a warning says what to do about it."""

    text: str
    warning: bool = False


Event = Progress | Note
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listen to nothing."""
