import errno
import os
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.atomic import _name, beside, cache, keep, scratch, sweep


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


def test_only_what_a_kill_left_is_swept_away(tmp_path: Path) -> None:
    for name in ("run/.2024-backup/notes.txt", ".1-list.md", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    there = sorted(tmp_path.rglob("*"))
    with scratch(tmp_path / "run" / "dog.png") as part, scratch(tmp_path / "weights") as folder:
        part.touch()
        folder.mkdir()
        sweep(tmp_path)
        assert sorted(tmp_path.rglob("*")) == there


def test_without_a_home_there_is_no_cache_but_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(FileNotFoundError, match=r"~/\.cache"):
        cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache() == tmp_path / "persona"


def test_what_is_flushed_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses anything else."""
    fcntl = pytest.importorskip("fcntl")
    modes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: modes.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE))
    with beside(tmp_path / "file.txt") as part:
        part.write_text("new")
    assert modes == [os.O_RDWR]


@given(
    names=st.lists(st.sampled_from(["a.png", "b.png", "a-2.png", "a", "b.c"]), max_size=8),
    there=st.sets(st.sampled_from(["a.png", "b.png", "a", "a-2"])),
)
def test_what_is_kept_overwrites_nothing(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], there: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("out")
    for name in there:
        (folder / name).write_text(name)
    kept = [write(folder / name, str(number)) for number, name in enumerate(names)]
    assert [read(path) for path in kept] == [str(number) for number in range(len(names))]
    assert all((folder / name).read_text() == name for name in there)
    assert len(list(folder.iterdir())) == len(names) + len(there)


def test_what_is_stopped_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.png", "whole")
    assert not list(tmp_path.iterdir())


def test_a_disk_without_links_keeps_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert [read(write(tmp_path / "a.png", text)) for text in ("first", "second")] == ["first", "second"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.png", "a.png"]


def test_runs_of_one_process_id_leave_each_other_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers count their processes from 1, each for itself."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "a.png"
    with scratch(path) as slow:
        slow.write_text("slow")
        assert read(write(path, "fast")) == "fast"
        assert read(keep(slow, path)) == "slow"


def test_what_is_lost_meanwhile_leaves_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _name(tmp_path / "lost.png", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.png", "series"])
def test_runs_at_the_same_time_keep_what_each_has_made(tmp_path: Path, name: str) -> None:
    with get_context("fork").Pool(4) as pool:
        pool.starmap(write, [(tmp_path / name, str(number)) for number in range(200)], chunksize=1)
    assert sorted(map(read, tmp_path.iterdir())) == sorted(map(str, range(200)))


def write(path: Path, text: str) -> Path:
    """Keep a file, or a folder where the name has no suffix of one."""
    with scratch(path) as part:
        if path.suffix != ".png":
            part.mkdir()
        (part if path.suffix == ".png" else part / "text").write_text(text)
        return keep(part, path)


def read(path: Path) -> str:
    return (path / "text" if path.is_dir() else path).read_text()
