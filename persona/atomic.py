"""Files that are there whole or not at all, whenever a run is killed."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when all went well, it takes the place of ``path``.

    What stood at ``path`` stays until then, and for good when the writing fails. The folder is made where it is
    missing. The path to write to has the same suffix and belongs to this process alone.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield part
        with part.open("r+b") as file:  # Windows flushes nothing that is open for reading alone
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; when all went well, it takes the place of ``path``.

    Between the two there is a moment without either: whoever finds no folder has to fill it again.

    Raises:
        OSError: the disk is full, or the folder above may not be written to.
    """
    part = path.with_name(f".{os.getpid()}-{path.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process has left half-written in a folder and those below it; no other may write there."""
    for left in folder.rglob(".*"):
        if re.fullmatch(r"\.\d+-.+", left.name):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """Return the sha256 (hex) of a file, which tells whether it is still the one that was written."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
