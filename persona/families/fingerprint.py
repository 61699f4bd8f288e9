"""One name for the exact weights of a base, wherever its folder is."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from persona.atomic import digest

KEPT = (".json", ".safetensors", ".txt", ".model")
"""What makes a pipeline draw as it does: configs, weights, vocabularies."""


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
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "persona" / "hashes.json"


def _remembered() -> dict[str, str]:
    try:
        return dict(json.loads(_memory().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _remember(hashes: dict[str, str]) -> None:
    """Write what is known beside the old file and rename it; where that cannot be done, do without."""
    path = _memory()
    beside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(hashes), encoding="utf-8")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
