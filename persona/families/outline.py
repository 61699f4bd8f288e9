"""A base without its weights: what its configs alone tell, in a second and next to no memory."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from persona.errors import BadBase
from persona.families.family import Family
from persona.families.place import absent, first_line, parts_of

LENGTH = "tokenizer_config.json"
"""What alone is there of a tokenizer whose words are not."""


def hollow(folder: Path, family: type[Family]) -> Any:
    """Return a pipeline whose networks have the right shapes, and zeros that take no memory for weights.

    Args:
        folder: of the configs and tokenizers.
        family: that the pipeline is of.

    Raises:
        BadBase: a config is missing or damaged.
    """
    import diffusers

    parts = parts_of(folder)
    try:
        made = {name: _made(folder / name, *part) for name, part in parts.items() if part}
        return getattr(diffusers, family.pipeline)(**made, **absent(folder))
    except Exception as error:  # diffusers and transformers raise whatever their parts do
        raise BadBase(f"The configs in {folder} are damaged: {first_line(error)} Fetch them again.") from error


def _made(folder: Path, library: str, name: str) -> Any:
    """Return a part of a pipeline: tokenizers and schedulers as they are, networks hollow."""
    import diffusers
    import transformers

    kind = getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
    if not issubclass(kind, nn.Module):
        if [path.name for path in folder.iterdir()] == [LENGTH]:
            return Wordless(**json.loads((folder / LENGTH).read_text(encoding="utf-8")))
        return kind.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        if library == "diffusers":
            network = kind.from_config(kind.load_config(folder, local_files_only=True))
        else:
            network = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
    refill(network, _zeros)
    return network


def refill(network: nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put other tensors in the place of all weights and buffers of a network; weights that were shared still are."""
    made = dict[torch.Tensor, nn.Parameter]()
    for part in network.modules():
        for key, weights in list(part.named_parameters(recurse=False)):
            if weights not in made:
                made[weights] = nn.Parameter(make(weights), requires_grad=weights.requires_grad)
            setattr(part, key, made[weights])
        for key, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, key, make(buffer))


class Wordless:
    """Stands for a tokenizer whose words are not here: it reads every prompt as nothing, but of the right length."""

    def __init__(self, model_max_length: int) -> None:
        """Take how many tokens it reads."""
        self.model_max_length = model_max_length

    def __call__(self, prompts: str | list[str], *, padding: Any = None, max_length: int = 1, **_: Any) -> Any:
        """Return ids and mask (prompts, tokens), as tokenizers do."""
        rows = 1 if isinstance(prompts, str) else len(prompts)
        ids = torch.zeros(rows, max_length if padding == "max_length" else 1, dtype=torch.int64)
        return SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))

    def tokenize(self, prompt: str) -> list[str]:
        """Return no word."""
        return []


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of that shape and format on the CPU, of one zero in memory."""
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
