"""How a setting is declared: its type says what it may hold, its :class:`Option` what it means and its bounds.

Both are checked when a :class:`Config` is made, before anything expensive.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from persona.errors import BadOption


@dataclass(frozen=True)
class Option:
    """What an option means.

    Attributes:
        help: one sentence for ``--help``.
        min: smallest value allowed, itself included; ``None`` for no bound.
        max: largest value allowed, itself included; ``None`` for no bound.
        flag: name on the command line, where it is not the field's; the first may be followed by short ones.
        expert: shown in the experts' panel of ``--help``.
        positional: given by its place on the command line instead of by name.
    """

    help: str
    min: float | None = None
    max: float | None = None
    flag: tuple[str, ...] = ()
    expert: bool = False
    positional: bool = False


@dataclass(frozen=True)
class Setting:
    """A field of a config, as its declaration says.

    Attributes:
        name: the field.
        kind: its type without ``Annotated``.
        option: its meaning and bounds.
        default: its default, ``dataclasses.MISSING`` where it has none.
    """

    name: str
    kind: Any
    option: Option
    default: Any

    @property
    def flag(self) -> str:
        """The option as it is typed: ``learning_rate`` is ``--learning-rate``; a positional is named in capitals."""
        if self.option.positional:
            return self.name.upper()
        return self.option.flag[0] if self.option.flag else "--" + self.name.replace("_", "-")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it may have, where they can be counted."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def many(self) -> bool:
        """Whether it takes any number of values, as a tuple."""
        return any(get_origin(part) is tuple for part in (self.kind, *get_args(self.kind)))

    @property
    def classes(self) -> tuple[type, ...]:
        """The classes of its value, or of each of its values."""
        return tuple(_classes(self.kind))


def _classes(kind: Any) -> Iterator[type]:
    if get_origin(kind) is Literal:
        yield str
    elif get_origin(kind) is tuple:
        yield from _classes(get_args(kind)[0])
    elif get_args(kind):
        for part in get_args(kind):
            yield from _classes(part)
    else:
        yield from (float, int) if kind is float else (kind,)


def settings(config: "type[Config]") -> Iterator[Setting]:
    """Yield the settings of a command in the order of their declaration."""
    hints = get_type_hints(config, include_extras=True)
    for field in fields(config):
        kind, option = get_args(hints[field.name])
        yield Setting(field.name, kind, option, field.default)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What all commands' settings share: they are checked when made, and can be written down."""

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            BadOption: a value is of another type or out of bounds; the message names the option as it is typed.
        """
        for setting in settings(type(self)):
            value = getattr(self, setting.name)
            _check_type(setting, value)
            if setting.name == "base" and value == "":  # of a variable that is not set
                raise BadOption("--base is empty. Name one, or leave it out.")
            for item in value if setting.many and value is not None else (value,):
                _check_bounds(setting, item)

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON values. Paths are left out: they say where the user's files are."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if not isinstance(value, Path)}


def _check_type(setting: Setting, value: Any) -> None:
    """Raise BadOption for what Python would let pass and no command line could say, such as text for a number."""
    given = value if setting.many and isinstance(value, tuple) else (value,)
    alone = setting.many and value is not None and not isinstance(value, tuple)
    wrong = () if bool in setting.classes else bool  # which is an int to Python
    if alone or not all(isinstance(one, setting.classes) and not isinstance(one, wrong) for one in given):
        names = " or ".join("nothing" if kind is NoneType else kind.__name__ for kind in setting.classes)
        raise BadOption(f"{setting.flag} takes {'a tuple of ' if setting.many else ''}{names}, not {value!r}.")


def _check_bounds(setting: Setting, value: object) -> None:
    """Raise BadOption unless the value is among the choices and within the bounds of its setting."""
    if setting.choices and value not in setting.choices:
        raise BadOption(f"{setting.flag} is one of {', '.join(setting.choices)}, not {value!r}.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high = setting.option.min, setting.option.max
    if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
        raise BadOption(f"{setting.flag} must be {_bounds(low, high)}, not {value}.")


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"from {low} to {high}"
    return f"{low} or more" if low is not None else f"{high} or less" if high is not None else "a finite number"
