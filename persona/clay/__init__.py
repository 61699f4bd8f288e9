"""Clay: the small base model that ships inside persona, and the rendered world that it was taught.

Clay draws toys of its own world and nothing else. For photographs, name a real base with ``--base``.
"""

import json
from functools import cache
from pathlib import Path

from persona.atomic import beside, digest
from persona.errors import BadBase

WEIGHTS = Path(__file__).parent / "weights"
CARD = Path(__file__).parent / "CARD.md"
"""What clay is and is not, what it knows, and what was measured."""
MANIFEST = "manifest.json"
"""Sha256 (hex) of every other file below the weights, by its name."""


@cache
def weights_folder() -> Path:
    """Return the folder with clay's pipeline and its judge, once every file of it is known to be whole.

    Raises:
        BadBase: a file is missing or damaged.
    """
    try:
        manifest: dict[str, str] = json.loads((WEIGHTS / MANIFEST).read_text(encoding="utf-8"))
        wrong = [name for name, known in manifest.items() if digest(WEIGHTS / name) != known]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BadBase(_reinstall(f"its weights cannot be read ({error.__class__.__name__})")) from error
    if wrong:
        raise BadBase(_reinstall(f"{wrong[0]} is damaged"))
    return WEIGHTS


def write_manifest(folder: Path) -> None:
    """Record what the weights in a folder are, for :func:`weights_folder` to check."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digests = {name: digest(folder / name) for name in names if name != MANIFEST}
    with beside(folder / MANIFEST) as part:
        part.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


def _reinstall(reason: str) -> str:
    how = "Reinstall persona from its checkout: pip install --force-reinstall --no-deps ."
    return f"The built-in base clay cannot be used: {reason}. {how}"
