"""A base without its weights: what its configs alone tell, in a second and next to no memory."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from persona.errors import BadBase
from persona.families.family import Family
from persona.families.place import first_line, index_of


def hollow(folder: Path, family: type[Family]) -> Any:
    """Return a pipeline whose networks have the right shapes, and zeros that take no memory for weights.

    Args:
        folder: of the configs and tokenizers.
        family: that the pipeline is of.

    Raises:
        BadBase: a config is missing or damaged.
    """
    import diffusers

    parts = {name: part for name, part in index_of(folder).items() if isinstance(part, list)}
    left_out = {name: None for name, part in parts.items() if name in family.left_out or part == [None, None]}
    try:
        made = {name: _made(folder / name, *part) for name, part in parts.items() if name not in left_out}
        return getattr(diffusers, family.pipeline)(**made, **left_out)
    except Exception as error:  # diffusers and transformers raise whatever their parts do
        raise BadBase(f"The configs in {folder} are damaged: {first_line(error)} Fetch them again.") from error


def _made(folder: Path, library: str, name: str) -> Any:
    """Return a part of a pipeline: tokenizers and schedulers as they are, networks hollow."""
    import diffusers
    import transformers

    kind = getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
    if not issubclass(kind, nn.Module):
        return kind.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        if library == "diffusers":
            network = kind.from_config(kind.load_config(folder, local_files_only=True))
        else:
            network = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
    for part in network.modules():
        for key, tensor in part.named_parameters(recurse=False):
            setattr(part, key, nn.Parameter(_zeros(tensor), requires_grad=False))
        for key, tensor in part.named_buffers(recurse=False):
            setattr(part, key, _zeros(tensor))
    return network


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of that shape and format on the CPU, of one zero in memory."""
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
