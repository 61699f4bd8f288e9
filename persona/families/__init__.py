"""Base models: one small file a family, found by the pipeline class that a base's own folder names."""

import logging
import shutil
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import torch
from torch import nn

from persona.errors import BadBase, NoMemory, PersonaError, out_of_memory
from persona.events import Listener, silent
from persona.families.conditioning import Conditioning
from persona.families.family import Family
from persona.families.outline import hollow
from persona.families.packed import Bits, check, pack
from persona.families.parts import CONFIGS, write
from persona.families.place import (
    Place,
    absent,
    card,
    causes_of,
    configs,
    find,
    first_line,
    flaw,
    format_of,
    formats_of,
    here,
    index_of,
    known,
    stored,
)
from persona.families.recipe import Recipe

__all__ = ["Bits", "Conditioning", "Family", "Recipe", "blueprint", "card", "here", "known", "load", "outline"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def load(
    base: str,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: str | torch.device | None = None,
    bits: Bits | None = None,
    offload: bool = False,
    listener: Listener = silent,
) -> Family:
    """Load a base model, frozen.

    Args:
        base: ``clay`` (built in), a short name such as ``sd15``, a hub id, a folder with a diffusers pipeline, or a
            single ``.safetensors`` file with all the parts of one.
        dtype: number format of the weights, float32 or bfloat16; ``None`` for whatever each part is kept in, which is
            good for everything but predicting.
        device: where to put it; the best there is when left out.
        bits: what to pack the linear layers of denoiser and text encoders in; ``None`` leaves them as they are.
        offload: whether networks that are idle wait in main memory.
        listener: told what is fetched before that begins.

    Raises:
        BadBase: it cannot be found or reached, is damaged, or is of a family that is not supported.
        BadOption: its layers cannot be packed on that device.
        NoMemory: there is too little to read it; where a device has too little, it is torch's own error.
    """
    _silence()
    where = torch.device(device or _best_device())
    if bits:
        check(bits, where)
    place = find(base, listener)
    family = _family_of(place.folder)
    problem = "" if place.file else flaw(place.folder)
    if problem:
        raise BadBase(f"The base {base} is damaged: {problem}. Fetch it again.")
    try:
        pipe = _from_file(place.file, place.folder, family, dtype) if place.file else _read(place.folder, family, dtype)
    except Exception as error:  # diffusers raises whatever its parts do; all of it means the same here
        raise _unread(base, place, family, error) from error
    _correct(pipe, family, place)
    if dtype is None:
        _restore(pipe, place)
    if bits:
        for name, network in pipe.components.items():
            if isinstance(network, nn.Module) and name != "vae":
                pack(network, bits, where)
                if offload:
                    network.to("cpu")  # before the next one is packed on the device
    if offload:
        pipe.enable_model_cpu_offload(device=where)
    else:
        pipe.to(where)
    return family(pipe, name=base, folder=place.folder, file=place.file, device=where, bits=bits)


def _unread(base: str, place: Place, family: type[Family], error: Exception) -> PersonaError:
    """Return what to say where the weights of a base could not be read."""
    if "appear to be missing" in str(error):
        return BadBase(
            f"{place.file} lacks parts of a {family.pipeline}. Give a file that has them all, or the pipeline's folder."
        )
    if short := next(filter(out_of_memory, causes_of(error)), None):  # diffusers hides what was wrong with a file
        return NoMemory(f"Memory is too small to load {base}: {first_line(short)} Close what else runs here.")
    return BadBase(f"The base {base} is damaged: {first_line(error)} Fetch it again.")


def outline(base: str, listener: Listener = silent) -> Family:
    """Return a base without its weights, in a second and next to no memory: it has names and shapes, all else is zero.

    Raises:
        BadBase: as :func:`load`.
    """
    _silence()
    place = find(base, listener)
    family = _family_of(place.folder)
    pipe = hollow(place.folder, family)
    _correct(pipe, family, place)
    return family(pipe, name=base, folder=place.folder, file=place.file)


def blueprint(base: str, listener: Listener = silent) -> Family:
    """Return a base as :func:`outline` does, but of one that is not here fetch the configs alone.

    Of those that have a short name, not even these. Prompts may be read as nothing.

    Raises:
        BadBase: as :func:`load`.
    """
    if here(base, listener):
        return outline(base, listener)
    _silence()
    short = next((short for short, one in known().items() if base in (short, one.repo)), "")
    if short in CONFIGS:
        folder = Path(mkdtemp())
        write(short, folder)
    else:
        folder = configs(base, listener)
    family = _family_of(folder)
    made = family(hollow(folder, family), name=base, folder=folder)
    if short in CONFIGS:
        finalize(made, shutil.rmtree, folder)
    return made


def _family_of(folder: Path) -> type[Family]:
    """Return the family that a pipeline's own index names."""
    name = index_of(folder)["_class_name"]
    if not isinstance(name, str) or name not in Family.known:
        raise BadBase(f"{name} is not supported. Supported are: {', '.join(sorted(Family.known))}.")
    return Family.known[name]


def _read(folder: Path, family: type[Family], dtype: torch.dtype | None) -> Any:
    """Return the pipeline in a folder."""
    from diffusers import DiffusionPipeline

    names = {path.parent.name for path in folder.glob("*/*.safetensors") if ".fp16" not in path.name}
    only_half = {path.parent.name for path in folder.glob("*/*.fp16*.safetensors")} - names
    return DiffusionPipeline.from_pretrained(
        folder,
        dtype=family.formats(folder, dtype) if dtype else stored(folder),
        variant="fp16" if only_half else None,
        use_safetensors=True,
        local_files_only=True,
        **absent(folder),
    )


def _from_file(file: Path, folder: Path, family: type[Family], dtype: torch.dtype | None) -> Any:
    """Return the pipeline in a single file, with the configs and tokenizers in a folder."""
    import diffusers

    formats = family.formats(folder, dtype) if dtype else {"default": format_of(file)}
    how = {"config": str(folder), "local_files_only": True}
    given = absent(folder)
    if exact := formats.get("vae"):
        kind = getattr(diffusers, index_of(folder)["vae"][1])
        given["vae"] = kind.from_single_file(str(file), subfolder="vae", torch_dtype=exact, **how)
    kind = getattr(diffusers, family.pipeline)
    return kind.from_single_file(str(file), torch_dtype=formats["default"], **how, **given)


def _restore(pipe: Any, place: Place) -> None:
    """Bring networks to the number format that they are kept in: of T5 in float16, layers were read as float32."""
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module) and len(kinds := formats_of(place, name)) == 1:
            nn.Module.to(part, kinds.pop())


def _correct(pipe: Any, family: type[Family], place: Place) -> None:
    """Heed what a single file without configs of its own says otherwise than those that it was given."""
    if place.file and place.borrowed:
        family.correct(pipe, place.file)


def _silence() -> None:
    """Keep what the libraries say off the screen: what is to be seen goes to the listener."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it has words for its own developers


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
