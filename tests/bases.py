"""Tiny random bases of the real classes, with real tokenizer classes, made in a second and written to a folder.

Their pictures mean nothing; everything else is as in the full-size ones: configs, components, file names.
"""

import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

if TYPE_CHECKING:
    from persona.families import Family

BYTES = sorted(ByteLevel.alphabet())
WORDS = ("a", "an", "and", "beach", "cat", "dog", "in", "of", "on", "photo", "red", "sks", "snow", "the", "zwx")
RECIPE = """{"min_steps": 4, "steps_per_photo": 2, "checkpoint_every": 2, "score_every": 0, "priors": 4,
 "sample_steps": 3, "prior_sample_steps": 3, "crops": 2, "rank": 4, "learning_rate": 0.001, "resolution": 32,
 "gradient_checkpointing": false}"""
SCHEDULE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NO_QUANT_CONV = {"use_quant_conv": False, "use_post_quant_conv": False}
SIZE = 32
"""Side of the tiny bases' pictures, in pixels."""
U_NETS, SHAPE = ("sd-eps", "sd-v-zero", "sdxl"), (4, 8, 8)
"""Bases that differ in what matters to methods on U-Nets, and the shape of their latents."""


def clip_tokenizer(length: int = 16, **special: str) -> Any:
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
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length, **special)


def t5_tokenizer(length: int = 512) -> Any:
    """Return T5's tokenizer with the letters and a few whole words as its vocabulary; they start with a mark."""
    from transformers import T5TokenizerFast

    pieces = ["▁", *string.ascii_letters, *string.digits, *string.punctuation, *(f"▁{word}" for word in WORDS)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -float(len(WORDS))) for piece in pieces)]
    return T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=length)


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


def t5_encoder(tokenizer: Any, *, width: int = 32) -> Any:
    """Return the encoder of T5 1.1 with two layers."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=width // 4,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


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
    schedule = SCHEDULE | {"clip_sample": False, "steps_offset": 1}
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


def sdxl(width: int = 32) -> Any:
    """Return a Stable Diffusion XL pipeline; the width is of its second text encoder."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    tokenizer, tokenizer_2 = clip_tokenizer(), clip_tokenizer(pad_token="!")
    size_width = 8
    return StableDiffusionXLPipeline(
        vae=autoencoder(scaling_factor=0.13025, force_upcast=True),
        text_encoder=clip_encoder(tokenizer),
        text_encoder_2=clip_encoder(tokenizer_2, width=width, projection=True),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=_unet(
            32 + width,
            addition_embed_type="text_time",
            addition_time_embed_dim=size_width,
            projection_class_embeddings_input_dim=6 * size_width + width,
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(2, 4),
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(**SCHEDULE, steps_offset=1, timestep_spacing="leading"),
    )


def sd3() -> Any:
    """Return a Stable Diffusion 3.5 pipeline."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer, tokenizer_2, tokenizer_3 = clip_tokenizer(), clip_tokenizer(pad_token="!"), t5_tokenizer()
    return StableDiffusion3Pipeline(
        vae=autoencoder(8, scaling_factor=1.5305, shift_factor=0.0609, **NO_QUANT_CONV),
        text_encoder=clip_encoder(tokenizer, projection=True),
        text_encoder_2=clip_encoder(tokenizer_2, projection=True),
        text_encoder_3=t5_encoder(tokenizer_3, width=96),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=tokenizer_3,
        transformer=SD3Transformer2DModel(
            sample_size=SIZE // 4,
            in_channels=8,
            out_channels=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=96,
            pooled_projection_dim=32 + 32,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def flux(*, guided: bool = True) -> Any:
    """Return a FLUX.1 pipeline: dev, told its guidance, or schnell, not told."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        vae=autoencoder(scaling_factor=0.3611, shift_factor=0.1159, **NO_QUANT_CONV),
        text_encoder=clip_encoder(tokenizer),
        text_encoder_2=t5_encoder(tokenizer_2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        transformer=FluxTransformer2DModel(
            in_channels=4 * 4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=guided,
            axes_dims_rope=(2, 2, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        if guided
        else FlowMatchEulerDiscreteScheduler(shift=1.0),
    )


BASES: dict[str, Callable[[], Any]] = {
    "sd-eps": sd,
    "sd-v": lambda: sd("v_prediction"),
    "sd-v-zero": sd_zero_snr,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "flux-schnell": lambda: flux(guided=False),
}


def save(name: str | Callable[[], Any], folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny base of random weights to ``folder`` and return it; a function makes one that has no name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        (BASES[name] if isinstance(name, str) else name)().save_pretrained(folder)
    (folder / "recipe.json").write_text(RECIPE, encoding="utf-8")
    return folder


def halve(folder: Path, to: Path, **formats: torch.dtype) -> Path:
    """Copy a tiny base with its weights in 16 bits: bfloat16, or what is said of a part."""
    shutil.copytree(folder, to)
    for path in to.glob("*/*.safetensors"):
        kind = formats.get(path.parent.name, torch.bfloat16)
        weights = load_file(path).items()
        halves = {key: value.to(kind) if value.is_floating_point() else value for key, value in weights}
        save_file(halves, path, {"format": "pt"})
    return to


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def predict(base: "Family", latents: Tensor, prompt: str = "a dog") -> Tensor:
    """Return what a base says of latents (B, C, h, w) at one time."""
    return base.predict(latents, torch.full((len(latents),), 500), base.conditioning([prompt] * len(latents)))
