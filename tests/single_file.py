"""Write a pipeline as one file with its authors' names, as people share checkpoints."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    ".resnets.": ".block.",
}
OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm": "ln_",
    "fc1": "c_fc",
    "fc2": "c_proj",
}


def write(pipe: Any, path: Path) -> Path:
    """Write a Stable Diffusion 1 or XL pipeline, and return the file."""
    tensors = {f"model.diffusion_model.{key}": value for key, value in unet(pipe.unet).items()}
    tensors |= {f"first_stage_model.{key}": value for key, value in vae(pipe.vae).items()}
    clip = {f"text_model.{key}": value for key, value in pipe.text_encoder.state_dict().items()}
    second = getattr(pipe, "text_encoder_2", None)
    prefix = "conditioner.embedders.0.transformer" if second else "cond_stage_model.transformer"
    tensors |= {f"{prefix}.{key}": value for key, value in clip.items()}
    if second:
        tensors |= {f"conditioner.embedders.1.model.{key}": value for key, value in open_clip(second).items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def unet(network: Any) -> dict[str, Tensor]:
    rows = network.config.layers_per_block + 1
    return {_unet(key, rows): value for key, value in network.state_dict().items()}


def _unet(key: str, rows: int) -> str:
    for ours, theirs in UNET_TOP.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    if match := re.match(r"mid_block\.(\w+)\.(\d)\.(.+)", key):
        kind, layer, rest = match[1], int(match[2]), match[3]
        return f"middle_block.{1 if kind == 'attentions' else 2 * layer}.{_inside(kind, rest)}"
    match = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key)
    assert match, key
    side, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{rows * (block + 1)}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{rows * (block + 1) - 1}.2.{rest}"  # the tiny ones have attention where they grow
    place = f"input_blocks.{rows * block + layer + 1}" if side == "down" else f"output_blocks.{rows * block + layer}"
    return f"{place}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    name, _, end = rest.partition(".")
    return f"{RESNET[name]}.{end}"


def vae(network: Any) -> dict[str, Tensor]:
    blocks = len(network.config.block_out_channels)
    found = {}
    for key, value in network.state_dict().items():
        name = re.sub(r"up_blocks\.(\d)", lambda match: f"up.{blocks - 1 - int(match[1])}", key)
        name = name.replace("down_blocks", "down")
        for ours, theirs in VAE.items():
            name = name.replace(ours, theirs)
        square = "mid.attn_1" in name and value.dim() == 2
        found[name] = value[:, :, None, None] if square else value
    return found


def open_clip(network: Any) -> dict[str, Tensor]:
    weights = network.state_dict()
    found = {"text_projection": weights["text_projection.weight"].T}
    for key, value in weights.items():
        if "_proj." in key and "self_attn" in key and "out_proj" not in key:
            continue
        name = key
        for ours, theirs in OPEN_CLIP.items():
            name = name.replace(ours, theirs)
        if key != "text_projection.weight":
            found[name] = value
    for layer in range(network.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            own = [weights[f"text_model.encoder.layers.{layer}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            found[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(own)
    return found
