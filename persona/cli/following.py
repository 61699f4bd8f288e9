"""What to type next: commands that name what was made, unless they find it by themselves."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from persona.config.option import Config, settings
from persona.config.words import command_line


def typed(name: str, places: Sequence[object] = (), options: Mapping[str, object] | None = None) -> str:
    """Return a command as it is typed.

    Args:
        name: of the command.
        places: what it is given by its place.
        options: what it is given by name; a sequence once for each of its values, and ``None`` not at all.
    """
    named: list[object] = []
    placed = [str(place) for place in places]
    for flag, value in (options or {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        if isinstance(value, bool):
            named.append(flag if value else f"--no-{flag[2:]}")
        else:
            named += [word for one in values if one is not None for word in (flag, one)]
    # What begins with a dash would be read as an option.
    last = [*named, "--", *placed] if any(place.startswith("-") for place in placed) else [*placed, *named]
    return command_line(["persona", *name.split(), *map(str, last)])


def given(config: Config, to: type[Config], but: Collection[str] = ()) -> dict[str, object]:
    """Return what a command was given by name, as :func:`typed` takes it; defaults need not be typed.

    Args:
        config: of the command.
        to: settings of the command to type next, which understands its own alone.
        but: settings that are left out.
    """
    known = {setting.name for setting in settings(to)}.difference(but)
    named = [one for one in settings(type(config)) if one.name in known and not one.option.positional]
    return {one.flag: value for one in named if (value := getattr(config, one.name)) != one.default}


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
