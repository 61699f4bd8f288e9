import fcntl
import os
from pathlib import Path

import pytest

from persona.atomic import beside


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with beside(path) as part:
        part.write_text("old")

    def fail() -> None:
        with beside(path) as part:
            part.write_text("ne")
            raise OSError(28, "disk full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert [left.name for left in path.parent.iterdir()] == ["file.txt"]


def test_what_is_flushed_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses anything else."""
    modes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: modes.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE))
    with beside(tmp_path / "file.txt") as part:
        part.write_text("new")
    assert modes == [os.O_RDWR]
