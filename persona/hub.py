"""Networks of the hub for transformers: in a folder, in the hub's own cache, or fetched, which is told before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from persona.errors import BadOption
from persona.events import Listener, Note, silent

T = TypeVar("T")

_KEPT = ["*.json", "*.txt", "*.model", "model*.safetensors"]


def here(name: str) -> Path | None:
    """Return the folder of a network if it is on this disk: by its folder, or by its id in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if Path(name).is_dir():
        return Path(name)
    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=_KEPT))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if _whole(folder) else None


def _whole(folder: Path) -> bool:
    """Whether the weights in a folder are all there; a fetch that was stopped leaves some of them."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return all((folder / part).is_file() for part in parts)
    except (ValueError, LookupError, TypeError, AttributeError):  # it is damaged
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
        hint = "Try again with a network, or give its folder."
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
