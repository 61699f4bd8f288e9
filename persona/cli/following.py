"""What to type next: commands that name what was made, unless they find it by themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from persona.config.words import command_line


def typed(name: str, places: Sequence[object] = (), options: Mapping[str, object] | None = None) -> str:
    """Return a command as it is typed.

    Args:
        name: of the command.
        places: what it is given by its place.
        options: what it is given by name; a sequence once for each of its values, and ``None`` not at all.
    """
    words = [*name.split(), *places]
    for flag, given in (options or {}).items():
        values = given if isinstance(given, list | tuple) else [given]
        words += [word for value in values if value is not None for word in (flag, value)]
    return command_line(["persona", *map(str, words)])


def real(base: str | None) -> str | None:
    """Return a base as it has to be named; clay needs no name."""
    return None if base == "clay" else base


def sample_command(prompt: str, folder: Path, base: str) -> str:
    """Return the command that draws with a persona.

    It names the persona, if it is not the newest, and its base, if only this machine knows it.
    """
    from persona.folder import personas

    local = Path(base).exists()
    found = not local and personas()[:1] == [folder]
    return typed("sample", [prompt], {"--persona": None if found else folder, "--base": base if local else None})
