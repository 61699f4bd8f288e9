"""The hub's own cache, as it is left by a fetch of some of the files of a repository."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0" * 40


def fetched(monkeypatch: pytest.MonkeyPatch, repo: str, folder: Path, others: Iterable[str] = ("README.md",)) -> Path:
    """Take a folder's files for those that were fetched of a repository, which lists others too; return its snapshot.

    The hub lists a repository whole whatever it is asked for.
    """
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder.parent))
    kept = folder.parent / f"models--{repo.replace('/', '--')}"
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for number, name in enumerate(names):
        blob, link = kept / "blobs" / str(number), kept / "snapshots" / COMMIT / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, blob)
        link.symlink_to(blob)
    listed = {name: {"size": 1, "blob_id": COMMIT} for name in (*names, *others)}
    tree = json.dumps({"format_version": 1, "files": listed})
    for name, text in (("refs/main", COMMIT), (f"trees/{COMMIT}.json", tree)):
        (kept / name).parent.mkdir()
        (kept / name).write_text(text)
    return kept / "snapshots" / COMMIT
