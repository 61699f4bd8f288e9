"""Tiny random bases of the real classes, with real tokenizer classes, made in a second and written to a folder.

Their pictures mean nothing; everything else is as in the full-size ones: configs, components, file names.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel

BYTES = sorted(ByteLevel.alphabet())
WORDS = ("a", "an", "and", "beach", "cat", "dog", "in", "of", "on", "photo", "red", "sks", "snow", "the", "zwx")
RECIPE = """{"least_steps": 4, "steps_per_photo": 2, "checkpoint_every": 2, "score_every": 0, "priors": 4,
 "sample_steps": 3, "ancestral_steps": 3, "crops": 2, "rank": 4, "learning_rate": 0.001}"""
SIZE = 32
"""Side of the tiny bases' pictures, in pixels."""


def clip_tokenizer(length: int = 16) -> Any:
    """Return CLIP's tokenizer with the bytes and a few whole words as its vocabulary."""
    from transformers import CLIPTokenizer

    tokens = [*BYTES, *(f"{byte}</w>" for byte in BYTES)]
    merges = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            last = word[end - 1] + ("</w>" if end == len(word) else "")
            pair = (word[: end - 1], last)
            if pair not in merges and len(word) > 1:
                merges.append(pair)
                tokens.append("".join(pair))
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def clip_encoder(tokenizer: Any, *, width: int = 32, projection: bool = False) -> Any:
    """Return a CLIP text encoder of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def autoencoder(channels: int = 4, *, halvings: int = 2, **config: Any) -> Any:
    """Return an autoencoder that makes each side ``2 ** halvings`` times smaller."""
    from diffusers import AutoencoderKL

    blocks = halvings + 1
    return AutoencoderKL(
        block_out_channels=[8] * blocks,
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIZE,
        **config,
    )


def _unet(cross: int, **config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross,
        norm_num_groups=4,
        **{"attention_head_dim": 8, **config},
    )


def sd(prediction: str = "epsilon", **scheduler: Any) -> Any:
    """Return a Stable Diffusion 1.x (epsilon) or 2.x (v_prediction) pipeline."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    tokenizer = clip_tokenizer()
    schedule = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "steps_offset": 1,
    }
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=clip_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=_unet(32),
        scheduler=DDIMScheduler(prediction_type=prediction, **schedule | scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd_zero_snr() -> Any:
    """Return a pipeline that predicts velocity down to zero signal, as the built-in base does."""
    return sd("v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")


BASES: dict[str, Callable[[], Any]] = {"sd-eps": sd, "sd-v": lambda: sd("v_prediction"), "sd-v-zero": sd_zero_snr}


def training_schedule(pipe: Any) -> Any:
    """Return the scheduler that diffusers' own training scripts would use for a pipeline."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(pipe.scheduler.config)


def save(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny base of random weights to ``folder`` and return it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BASES[name]().save_pretrained(folder)
    (folder / "recipe.json").write_text(RECIPE, encoding="utf-8")
    return folder
