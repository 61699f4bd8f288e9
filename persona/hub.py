"""What is on the hub: in its own cache already or not; networks for transformers, fetched, which is told before."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TypeVar

from persona.errors import BadOption
from persona.events import Listener, Note, silent

T = TypeVar("T")

_KEPT = ["*.json", "*.txt", "*.model", "model*.safetensors"]


def cached(name: str) -> Path | None:
    """Return what the hub's own cache holds of a repository, be it all or some of its files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except IncompleteSnapshotError as error:  # nobody fetches the weights of other frameworks, or its README
        return Path(error.snapshot_path)
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def weights(folder: Path, stem: str = "*") -> list[Path]:
    """Return the files that hold the weights of a network, or that should but are not there.

    Raises:
        ValueError: the list of those that are in several files is damaged.
    """
    lists = (folder.glob(f"{stem}.safetensors.index.{end}") for end in ("json", "*.json"))
    index = next(chain.from_iterable(lists), None)
    if index is None:
        return sorted(folder.glob(f"{stem}.safetensors")) or [folder / f"{stem}.safetensors"]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    except (OSError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged") from error


def here(name: str) -> Path | None:
    """Return the folder of a network if it is on this disk: by its folder, or by its id in the hub's cache."""
    if Path(name).is_dir():
        return Path(name)
    folder = cached(name)
    return folder if folder and _whole(folder) else None


def _whole(folder: Path) -> bool:
    """Whether the weights in a folder are all there; a fetch that was stopped leaves some of them."""
    try:
        return all(path.is_file() for path in weights(folder, "model"))
    except ValueError:
        return False


def fetched(names: list[str], listener: Listener = silent) -> list[Path]:
    """Return the folders of networks; what is not here yet is fetched, and told in one line with its size before.

    Args:
        names: hub ids or folders.
        listener: told what is fetched.

    Raises:
        BadOption: one is damaged, or is not here and cannot be fetched.
    """
    folders = {name: here(name) for name in names}
    for folder in folders.values():
        if folder is not None and not _whole(folder):
            raise BadOption(f"{folder} holds no model.safetensors, or not all of it. Give the folder of a network.")
    sizes = {name: _asked(_gigabytes, name) for name, folder in folders.items() if folder is None}
    if sizes:
        what = ", ".join(f"{name} ({size:.1f} GB)" for name, size in sizes.items())
        listener(Note(f"Fetching {sum(sizes.values()):.1f} GB: {what}."))
    return [folders[name] or _asked(_fetch, name) for name in names]


def _asked(what: Callable[[str], T], name: str) -> T:
    """Ask the hub for something of a network.

    Raises:
        BadOption: it cannot be had.
    """
    try:
        return what(name)
    except Exception as error:  # the network, the hub and gated repositories each raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        hint = "Try again online, or give its folder."
        raise BadOption(f"{name} is not on this disk and cannot be fetched: {reason}. {hint}") from error


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=_KEPT))


def _gigabytes(name: str) -> float:
    from fnmatch import fnmatch

    from huggingface_hub import HfApi

    files = HfApi().model_info(name, files_metadata=True).siblings or []
    kept = (one for one in files if any(fnmatch(one.rfilename, pattern) for pattern in _KEPT))
    return sum(one.size or 0 for one in kept) / 1e9
