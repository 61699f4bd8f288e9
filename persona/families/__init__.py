"""Base models: one small file a family, found by the pipeline class that a base's own folder names."""

import json
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch

from persona.errors import BadBase
from persona.families.conditioning import Conditioning
from persona.families.family import Family
from persona.families.recipe import Recipe

__all__ = ["Conditioning", "Family", "Recipe", "load"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def load(base: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None) -> Family:
    """Load a base model, frozen.

    Args:
        base: ``clay`` (built in), a short name such as ``sd15``, a hub id, or a folder with a diffusers pipeline.
        dtype: number format of the weights, float32 or bfloat16.
        device: where to put it; the best there is when left out.

    Raises:
        BadBase: it cannot be found or reached, is damaged, or is of a family that is not supported.
    """
    from diffusers import DiffusionPipeline

    _silence()
    folder = _locate(base)
    family = _family_of(folder)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    left_out: dict[str, Any] = {
        name: None for name, part in index.items() if name in family.left_out or part == [None, None]
    }
    if "requires_safety_checker" in index:
        left_out["requires_safety_checker"] = False
    try:
        pipe = DiffusionPipeline.from_pretrained(
            folder,
            dtype=family.formats(folder, dtype),
            use_safetensors=True,
            local_files_only=True,
            **left_out,
        )
    except Exception as error:  # diffusers raises whatever its parts do; all of it means the same here
        raise BadBase(f"The base {base} is damaged: {_first_line(error)} Fetch it again.") from error
    return family(pipe.to(device or _best_device()), name=base, folder=folder)


def _locate(base: str) -> Path:
    """Return the folder of a base, downloading it if it is on the hub and not here yet."""
    if base == "clay":
        from persona.clay import weights_folder

        return Path(weights_folder())
    if Path(base).is_dir():
        return Path(base)
    aliases = {short: repo for family in Family.known.values() for short, repo in family.aliases.items()}
    repo = aliases.get(base, base)
    if repo.count("/") != 1 or repo.startswith((".", "/")):
        raise BadBase(
            f"There is no base {base}: give clay, a folder, a hub id, or one of {', '.join(sorted(aliases))}."
        )
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(repo, use_safetensors=True))
    except Exception as error:  # the network, the hub and gated models each raise their own
        raise BadBase(
            f"The base {base} cannot be fetched: {_first_line(error)}\n"
            f"Without a network, put the pipeline's folder here and give its path; a gated one needs `hf auth login`."
        ) from error


def _family_of(folder: Path) -> type[Family]:
    """Return the family that a pipeline's own index names."""
    try:
        name = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadBase(f"{folder} holds no pipeline: it has no readable model_index.json. Give its folder.") from error
    if name not in Family.known:
        raise BadBase(f"{name} is not supported. Bases that are: {', '.join(sorted(Family.known))}.")
    return Family.known[name]


def _silence() -> None:
    """Keep the bars of the libraries off the screen: what is to be seen goes to the listener."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
