"""Where a base is on this machine: in a folder, in a single file, or fetched from the hub."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from persona.errors import BadBase, out_of_memory
from persona.events import Listener, Note, silent
from persona.families.family import Family
from persona.families.fingerprint import kept
from persona.families.known import Known
from persona.families.single import PICKLES, kind_of, shapes_of
from persona.hub import cached, weights

INDEX = "model_index.json"
"""What makes a folder a pipeline."""

_CONFIGS = ["*.json", "*.txt", "*.model"]
_FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True)
class Place:
    """Where a base is.

    Attributes:
        folder: a diffusers pipeline, or where there is a file, only the configs and tokenizers of one.
        file: a single file with all weights; ``None`` where the folder has them.
        borrowed: whether the configs are those of the well-known base that the file is most like.
    """

    folder: Path
    file: Path | None = None
    borrowed: bool = False


def known() -> dict[str, Known]:
    """Return the bases that have a short name, by that name."""
    return {short: one for family in Family.known.values() for short, one in family.aliases.items()}


def find(base: str, listener: Listener = silent) -> Place:
    """Return where a base is; what is not here yet is fetched from the hub.

    Args:
        base: ``clay``, a short name, a hub id, a folder, or a single file.
        listener: told what is fetched, how large it is and under which licence.

    Raises:
        BadBase: it cannot be found or reached, or is no base.
    """
    return here(base, listener) or Place(_fetch(base, listener))


def here(base: str, listener: Listener = silent) -> Place | None:
    """Return where a base is if nothing has to be fetched but, for a single file, configs; see :func:`find`."""
    if base == "clay":
        from persona.clay import weights_folder

        return Place(Path(weights_folder()))
    path = Path(base)
    if path.is_file():
        return _of_file(path, listener)
    if path.is_dir():
        return Place(path)
    folder = cached(_repo(base))
    return Place(folder) if folder and not flaw(folder) else None


def card(base: str) -> Path | None:
    """Return the model card of the base that ships with us; those of others are on the hub."""
    from persona.clay import CARD

    return CARD if base == "clay" else None


def index_of(folder: Path) -> dict[str, Any]:
    """Return a pipeline's own list of its parts.

    Raises:
        BadBase: the folder has none that can be read.
    """
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadBase(
            f"{folder} holds no pipeline: it has no readable {INDEX}. Give the folder of a pipeline."
        ) from error
    return index


def parts_of(folder: Path) -> dict[str, list[str] | None]:
    """Return library and class of a pipeline's parts by their names; ``None`` for what it has not, or nobody needs.

    Raises:
        BadBase: as :func:`index_of`.
    """
    parts = {name: part for name, part in index_of(folder).items() if isinstance(part, list)}
    return {name: None if name in Family.left_out or part == [None, None] else part for name, part in parts.items()}


def absent(folder: Path) -> dict[str, Any]:
    """Return what a pipeline is given in the place of the parts that it has not, or that nobody needs."""
    none = {name: None for name, part in parts_of(folder).items() if part is None}
    return none | ({"requires_safety_checker": False} if "safety_checker" in none else {})  # or it would warn


def flaw(folder: Path) -> str:
    """Return what is wrong with the weights in a pipeline's folder, found without reading them; empty if nothing is."""
    try:
        parts = parts_of(folder)
    except BadBase as error:
        return str(error)
    return next(filter(None, (_flaw(folder / name) for name, part in parts.items() if part)), "")


def _flaw(part: Path) -> str:
    """Return what is wrong with the weights in a part's folder; empty if nothing is, or it needs none."""
    if not part.is_dir():
        return f"{part.name} is missing"
    if not (part / "config.json").is_file():  # only networks have one
        return ""
    try:
        paths = weights(part)
    except ValueError:
        return f"the list of {part.name}'s weights is damaged"
    bad = next((path for path in paths if not _readable(path)), None)
    if bad is None:
        return ""
    return f"{part.name}/{bad.name} is {'damaged or cut off' if bad.is_file() else 'missing'}"


def _readable(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError) as error:
        return out_of_memory(error)  # which says nothing against the file


def format_of(file: Path) -> torch.dtype:
    """Return the number format that the weights in a file are kept in: that of its first tensor of floats."""
    return next(_formats(file), torch.float32)


def _formats(file: Path) -> Iterator[torch.dtype]:
    with safe_open(file, "pt") as opened:
        for key in opened.keys():  # noqa: SIM118  # it is no mapping
            if kind := _FLOATS.get(opened.get_slice(key).get_dtype()):
                yield kind


def formats_of(place: Place, part: str) -> set[torch.dtype]:
    """Return the number formats that the weights of a part are kept in; in a single file, those of all parts."""
    files = [place.file] if place.file else kept(place.folder / part)
    return {kind for file in files if file.suffix == ".safetensors" for kind in _formats(file)}


def stored(folder: Path) -> dict[str, torch.dtype]:
    """Return the number format that each network of a pipeline is kept in, by its name."""
    parts = [part for part in folder.iterdir() if part.is_dir()]
    weights = [path for part in parts for path in kept(part) if path.suffix == ".safetensors"]
    return {"default": torch.float32, **{path.parent.name: format_of(path) for path in weights}}


# The hub


def _repo(base: str) -> str:
    """Return the hub id of a base.

    Raises:
        BadBase: this can be no base.
    """
    one = known().get(base)
    repo = one.repo if one else base
    if Path(base).suffix in (".safetensors", *PICKLES) or repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        names = ", ".join(sorted(known()))
        raise BadBase(
            f"There is no base {base}: give clay, a folder, a .safetensors file, a hub id, or one of {names}."
        )
    return repo


def _fetch(base: str, listener: Listener) -> Path:
    """Fetch a base from the hub, and return its folder."""
    from diffusers import DiffusionPipeline

    repo, one = _repo(base), known().get(base)
    listener(Note(f"Fetching {one or f'{repo}; its page says how large it is, and under which licence'}."))
    fetch = partial(DiffusionPipeline.download, repo, use_safetensors=True, **dict.fromkeys(Family.left_out))
    try:
        try:
            return Path(fetch())
        except OSError as error:
            if "Could not find the necessary" not in str(error):
                raise
            return Path(fetch(variant="fp16"))  # all that some have
    except Exception as error:  # the network, the hub and gated models each raise their own
        raise BadBase(f"{_why(base, repo, error)}\nOr put the pipeline's folder here as {base}.") from error


def _why(base: str, repo: str, error: BaseException) -> str:
    """Say why a base could not be fetched, and what to do about it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    causes, one = causes_of(error), known().get(base)
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return f"The base {base} is gated: accept its licence on the page of {repo} and run `hf auth login` first."
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"The hub has no {repo}, or it is private. Correct the name, or run `hf auth login` first."
    gate = " This base is gated: accept its licence on its page and run `hf auth login` first."
    why = f"The base {base} cannot be fetched: {first_line(causes[-1])} Check your connection."
    return f"{why}{gate}" if one and one.gated else why


def causes_of(error: BaseException) -> list[BaseException]:
    """Return an error with what it was raised from or after, the first cause last."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    return causes


def first_line(error: BaseException) -> str:
    """Return the first line of an error as a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:") + "."


def configs(base: str, listener: Listener) -> Path:
    """Return a folder with the configs of a base on the hub, from this disk or else fetched, without its weights.

    Raises:
        BadBase: it cannot be found or reached.
    """
    from huggingface_hub import snapshot_download

    repo = _repo(base)
    folder = cached(repo)
    if folder and (folder / INDEX).is_file():
        needed = [name for name, part in parts_of(folder).items() if part]
        if all(any((folder / name).glob("*.json")) for name in needed):
            return folder
    listener(Note(f"Fetching the configs of {repo}; they are small."))
    try:
        return Path(snapshot_download(repo, allow_patterns=_CONFIGS))
    except Exception as error:  # as above
        raise BadBase(_why(base, repo, error)) from error


# Single files


def _of_file(path: Path, listener: Listener) -> Place:
    """Return a single file with the configs of its kind: those beside it, or those of the well-known base."""
    shapes = shapes_of(path)
    for beside in (path.with_suffix(""), path.parent):
        if (beside / INDEX).is_file():
            return Place(beside, path)
    return Place(_configs(path, kind_of(path, shapes, known().values()), listener), path, borrowed=True)


def _configs(path: Path, one: Known, listener: Listener) -> Path:
    """Return a folder with the configs of the well-known base that a single file is most like."""
    try:
        return configs(one.repo, listener)
    except BadBase as error:
        gate = " (gated: `hf auth login`)" if one.gated else ""
        raise BadBase(
            f"{path} has no configs, and those of {one.repo}{gate} are neither on this disk nor can they be fetched.\n"
            f"Put that pipeline's folder beside it as {path.stem}; its weights are not needed."
        ) from error
