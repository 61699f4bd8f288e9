"""Tiny random networks of the real classes, under the names that evaluation looks for."""

from pathlib import Path
from typing import Any

import torch
from bases import clip_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


def save(folder: Path, *names: str) -> Path:
    """Write those that are named, of random weights, and return the folder."""
    for name in names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            {"dino-vits16": _dino, "clip-vit-base-patch32": _clip, "clipseg-rd64-refined": _clipseg}[name](
                folder / name
            )
    return folder


def _dino(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(**SIZES, image_size=224, patch_size=56), add_pooling_layer=False).save_pretrained(folder)


def _texts() -> tuple[Any, dict[str, Any]]:
    tokenizer = clip_tokenizer(length=77)
    special = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    return tokenizer, {**SIZES, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 77}


def _clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    tokenizer, text = _texts()
    vision = {**SIZES, "image_size": 224, "patch_size": 56}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _clipseg(folder: Path) -> None:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    tokenizer, text = _texts()
    vision = {**SIZES, "image_size": 352, "patch_size": 32}
    config = CLIPSegConfig(
        text_config=text, vision_config=vision, projection_dim=8, reduce_dim=8, extract_layers=[0, 1],
        decoder_num_attention_heads=2, decoder_intermediate_size=16, conditional_layer=0,
    )  # fmt: skip
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
