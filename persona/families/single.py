"""What a single file with all weights of a base holds, told without reading them."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from persona.errors import BadBase
from persona.families.known import Known

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
"""Ends of the names of files that are never loaded."""

_PACKED = (".scale_weight", ".weight_scale", ".scale_input", ".input_scale", ".absmax", ".comfy_quant", "scaled_fp8")
"""Ends of the names of what a file's weights would have to be multiplied with, which diffusers does not do."""
_UNET = "model.diffusion_model.input_blocks.0.0.weight"  # diffusers takes whatever it does not know for version 1


def shapes_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file as shapes without numbers, by their names.

    Raises:
        BadBase: the file is no safetensors, or holds an adapter or weights that are packed.
    """
    if path.suffix != ".safetensors":
        pickle = "a pickle, which can run code and is never loaded" if path.suffix in PICKLES else "no .safetensors"
        raise BadBase(f"{path} is {pickle}. Give a .safetensors file, or a pipeline's folder.")
    try:
        with safe_open(path, "pt") as file:
            keys = file.keys()
            shapes = {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in keys}
    except (OSError, SafetensorError) as error:
        raise BadBase(f"{path} is damaged or cut off. Fetch it again.") from error
    if any("lora_" in key or ".lora" in key for key in shapes):
        raise BadBase(f"{path} is a LoRA, no base. Make a persona of it: persona import {path}")
    if any(key.endswith(_PACKED) for key in shapes):
        raise BadBase(f"{path} holds quantized weights, which are not supported. Take it in fp16 or bf16.")
    return shapes


def kind_of(path: Path, shapes: dict[str, Tensor], known: Iterable[Known]) -> Known:
    """Return which of the well-known bases has the parts that a single file has.

    Raises:
        BadBase: none of them has.
    """
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    kinds = {one.single: one for one in known if one.single}
    try:
        kind = infer_diffusers_model_type(shapes)
    except Exception:  # it takes for granted what a file of a kind that it knows not may lack
        kind = "unknown"
    if kind == "v1" and _UNET not in shapes:
        kind = "unknown"
    if kind not in kinds:
        raise BadBase(f"{path} is a checkpoint of an unsupported kind ({kind}). Supported are: {', '.join(kinds)}.")
    return kinds[kind]
