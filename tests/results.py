"""What commands leave: their pictures, what these carry, and what was said on the way."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from persona.events import Event, Note


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), int)


def apart(first: Path, second: Path) -> int:
    return int(abs(pixels(first) - pixels(second)).max())


def facts(path: Path) -> dict[Any, Any]:
    with Image.open(path) as image:
        return dict(image.info)


def notes(events: Iterable[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Note))


def opened_in(folder: Path) -> list[Path]:
    """Return the files of a folder that this process holds open; on Linux alone."""
    held = [file.resolve() for file in Path("/proc/self/fd").iterdir()]
    return [file for file in held if folder.resolve() in file.parents]
