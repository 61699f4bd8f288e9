"""One name for the exact weights of a base, wherever its folder is."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from persona.atomic import beside, cache, digest

KEPT = (".json", ".safetensors", ".txt", ".model")
"""What makes a pipeline draw as it does: configs, weights, vocabularies."""
PLAIN = re.compile(r"[^.]+\.safetensors(\.index\.json)?")
"""Names of weights that are no variant, and of the index of those that are in several files."""


def kept(folder: Path) -> list[Path]:
    """Return the files of a component that make it what it is.

    Other programs may fetch variants of its weights (``model.fp16.safetensors``) to lie beside them; those count where
    there are no others.
    """
    paths = [path for path in folder.glob("*") if path.suffix in KEPT]
    weights = {path for path in paths if ".safetensors" in path.name}
    plain = {path for path in weights if PLAIN.fullmatch(path.name)}
    return [path for path in paths if not plain or path in plain or path not in weights]


def fingerprint(files: Mapping[str, Path]) -> str:
    """Return the sha256 (hex) over files by their names.

    A file's own hash is remembered by its path, size and time of change, so that gigabytes are read only once.
    """
    whole = hashlib.sha256()
    remembered = _remembered()
    known: dict[str, str] = {}
    for name, path in sorted(files.items()):
        stat = path.stat()
        key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        known[key] = remembered.get(key) or digest(path)
        whole.update(f"{name} {known[key]}\n".encode())
    if not known.keys() <= remembered.keys():
        _remember(remembered | known)
    return whole.hexdigest()


def _memory() -> Path:
    return cache() / "hashes.json"


def _remembered() -> dict[str, str]:
    try:
        return dict(json.loads(_memory().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _remember(hashes: dict[str, str]) -> None:
    """Write down what is known; where that cannot be done, do without."""
    with suppress(OSError), beside(_memory()) as part:
        part.write_text(json.dumps(hashes), encoding="utf-8")
