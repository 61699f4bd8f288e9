"""What to type next: commands that name what was made, unless they find it by themselves."""

import shlex
from pathlib import Path


def base_option(base: str) -> str:
    """Return the option that names a base, with a space before it; nothing for clay, which needs no name."""
    return "" if base == "clay" else f" --base {shlex.quote(base)}"


def sample_command(prompt: str, folder: Path, base: str) -> str:
    """Return the command that draws with a persona.

    It says where the persona is, if not where it is looked for, and its base, if only this machine knows it.
    """
    from persona.folder import HOME

    local = Path(base).exists()
    named = f" --persona {shlex.quote(str(folder))}" if local or folder.parent != HOME else ""
    return f"persona sample {shlex.quote(prompt)}{named}" + (f" --base {shlex.quote(base)}" if local else "")
