"""Files that are there whole or not at all, whenever a run is killed."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from secrets import randbits

from persona.errors import NoSpace, out_of_space


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when all went well, it takes the place of ``path``.

    What stood at ``path`` stays until then, and for good when the writing fails.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    with scratch(path) as part:
        yield part
        put(part, path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; when all went well, it takes the place of ``path``.

    Between the two there is a moment without either: whoever finds no folder has to fill it again.

    Raises:
        OSError: the disk is full, or the folder above may not be written to.
    """
    with scratch(path) as part:
        part.mkdir()
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a path to write to that is on the disk of ``path``, and clear away what is still there in the end.

    The folder is made where it is missing. The path to write to has the same suffix and is nobody else's.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{randbits(64)}-{path.name}")  # containers that share a disk have process ids in common
    try:
        yield part
    finally:
        _remove(part)


def put(part: Path, path: Path) -> Path:
    """Give a file its name, in the place of what stood there, and return it."""
    _flush(part)
    return part.replace(path)


def keep(part: Path, path: Path) -> Path:
    """Give what was written its name, or the next that is free: what is there stays, whichever process made it.

    Args:
        part: of :func:`scratch`, a file, or a folder that holds something; on the disk of ``path``.
        path: the name that it shall have: ``dog.png``, or else ``dog-2.png``.

    Returns:
        The name that it has.

    Raises:
        OSError: the folder may not be written to.
    """
    folder = part.is_dir()
    if not folder:
        _flush(part)
    for free in _names(path, "" if folder else path.suffix):
        if os.path.lexists(free):
            continue
        try:
            if folder:
                part.rename(free)  # which fails where another holds something
            else:
                _name(part, free)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            break  # and else another process was faster
    return free


def _name(part: Path, free: Path) -> None:
    """Give a file a name in one step, which fails where another has it; its old name may stay.

    Raises:
        FileExistsError: another has it.
    """
    try:
        os.link(part, free)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a disk without links takes two steps: who is killed between them leaves an empty file
        free.touch(exist_ok=False)
        part.replace(free)


def _names(path: Path, suffix: str) -> Iterator[Path]:
    yield path
    yield from (path.with_name(f"{path.name.removesuffix(suffix)}-{number}{suffix}") for number in count(2))


def _flush(part: Path) -> None:
    with part.open("r+b") as file:  # Windows flushes nothing that is open for reading alone
        os.fsync(file.fileno())


@contextmanager
def room(place: Path) -> Iterator[None]:
    """Say what to do where the disk of a place is full: what writes there resumes.

    Raises:
        NoSpace: it is.
    """
    try:
        yield
    except OSError as error:
        if not out_of_space(error):
            raise
        raise NoSpace(f"The disk of {place} is full. Make room, and run the same command again to resume.") from error


def _remove(part: Path) -> None:
    shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process has left half-written in a folder and those below it; no other may write there."""
    for left in folder.rglob(".*"):
        if re.fullmatch(r"\.\d{15,20}-.+", left.name):  # 64 bits, nearly always; fewer digits may be somebody's date
            _remove(left)


def cache() -> Path:
    """Return the folder of what all runs of a user share.

    Raises:
        OSError: nobody knows where the user's home is.
    """
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "persona"
    try:
        return Path.home() / ".cache" / "persona"
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "~/.cache") from error


def digest(path: Path) -> str:
    """Return the sha256 (hex) of a file, which tells whether it is still the one that was written."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(what: object) -> str:
    """Return the sha256 (hex) of what JSON can hold, whatever the order of its names."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
