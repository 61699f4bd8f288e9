"""The parts of well-known bases, which tell how large they are before any of them is fetched.

Of their configs only what is not the default of its class; tokenizers have a length and no words.
"""

import json
from pathlib import Path
from typing import Any

Part = tuple[str | None, str | None, dict[str, Any]]
"""Library, class and config of a part of a pipeline; ``None`` for what it can do without."""

_CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_CLIP_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_T5_XXL: dict[str, Any] = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 32128,
}
_VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_VAE_16: dict[str, Any] = _VAE | {
    "latent_channels": 16,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_UNET_XL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD3: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
_FLUX: dict[str, Any] = {"in_channels": 64, "guidance_embeds": True}
_DIFFUSION: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_FLOW: dict[str, Any] = {"shift": 3.0}


def _tokenizers(*lengths: int) -> dict[str, Part]:
    kinds = {77: "CLIPTokenizer", 512: "T5TokenizerFast"}
    names = [f"tokenizer_{number + 1}" if number else "tokenizer" for number in range(len(lengths))]
    return {
        name: ("transformers", kinds[length], {"model_max_length": length})
        for name, length in zip(names, lengths, strict=True)
    }


def _clip(config: dict[str, Any], *, projection: bool = False) -> Part:
    return "transformers", "CLIPTextModelWithProjection" if projection else "CLIPTextModel", config


def _diffusers(kind: str, config: dict[str, Any]) -> Part:
    return "diffusers", kind, config


def _sd(unet: dict[str, Any], text: dict[str, Any], scheduler: Part, side: int) -> dict[str, Part]:
    return {
        "vae": _diffusers("AutoencoderKL", _VAE | {"sample_size": side}),
        "text_encoder": _clip(text),
        **_tokenizers(77),
        "unet": _diffusers("UNet2DConditionModel", unet),
        "scheduler": scheduler,
        "safety_checker": (None, None, {}),
        "feature_extractor": (None, None, {}),
    }


def _sd3(**transformer: Any) -> dict[str, Part]:
    return {
        "vae": _diffusers("AutoencoderKL", _VAE_16 | {"scaling_factor": 1.5305, "shift_factor": 0.0609}),
        "text_encoder": _clip(_CLIP_L, projection=True),
        "text_encoder_2": _clip(_CLIP_G, projection=True),
        "text_encoder_3": ("transformers", "T5EncoderModel", _T5_XXL),
        **_tokenizers(77, 77, 512),
        "transformer": _diffusers("SD3Transformer2DModel", _SD3 | transformer),
        "scheduler": _diffusers("FlowMatchEulerDiscreteScheduler", _FLOW),
    }


def _flux(*, guided: bool) -> dict[str, Part]:
    return {
        "vae": _diffusers("AutoencoderKL", _VAE_16 | {"scaling_factor": 0.3611, "shift_factor": 0.1159}),
        "text_encoder": _clip(_CLIP_L),
        "text_encoder_2": ("transformers", "T5EncoderModel", _T5_XXL),
        **_tokenizers(77, 512),
        "transformer": _diffusers("FluxTransformer2DModel", _FLUX | {"guidance_embeds": guided}),
        "scheduler": _diffusers(
            "FlowMatchEulerDiscreteScheduler", _FLOW | {"use_dynamic_shifting": True} if guided else {"shift": 1.0}
        ),
    }


CONFIGS: dict[str, tuple[str, dict[str, Part]]] = {
    "sd15": (
        "StableDiffusionPipeline",
        _sd(
            {"sample_size": 64, "cross_attention_dim": 768},
            _CLIP_L,
            _diffusers("PNDMScheduler", _DIFFUSION | {"skip_prk_steps": True, "steps_offset": 1}),
            512,
        ),
    ),
    "sd21": (
        "StableDiffusionPipeline",
        _sd(
            {
                "sample_size": 96,
                "cross_attention_dim": 1024,
                "attention_head_dim": [5, 10, 20, 20],
                "use_linear_projection": True,
            },
            {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 23,
                "num_attention_heads": 16,
                "hidden_act": "gelu",
            },
            _diffusers(
                "DDIMScheduler",
                _DIFFUSION | {"prediction_type": "v_prediction", "clip_sample": False, "steps_offset": 1},
            ),
            768,
        ),
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {
            "vae": _diffusers("AutoencoderKL", _VAE | {"sample_size": 1024, "scaling_factor": 0.13025}),
            "text_encoder": _clip(_CLIP_L),
            "text_encoder_2": _clip(_CLIP_G, projection=True),
            **_tokenizers(77, 77),
            "unet": _diffusers("UNet2DConditionModel", _UNET_XL),
            "scheduler": _diffusers("EulerDiscreteScheduler", _DIFFUSION | {"steps_offset": 1}),
        },
    ),
    "sd3-medium": ("StableDiffusion3Pipeline", _sd3()),
    "sd35-medium": (
        "StableDiffusion3Pipeline",
        _sd3(pos_embed_max_size=384, dual_attention_layers=list(range(13)), qk_norm="rms_norm"),
    ),
    "sd35-large": (
        "StableDiffusion3Pipeline",
        _sd3(num_layers=38, num_attention_heads=38, caption_projection_dim=2432, qk_norm="rms_norm"),
    ),
    "flux-dev": ("FluxPipeline", _flux(guided=True)),
    "flux-krea": ("FluxPipeline", _flux(guided=True)),
    "flux-schnell": ("FluxPipeline", _flux(guided=False)),
}
"""Pipeline class and parts of each base that has a short name."""


def write(short: str, folder: Path) -> None:
    """Write the configs of a well-known base as they lie in its folder."""
    pipeline, parts = CONFIGS[short]
    index = {name: part[:2] for name, part in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **index}), encoding="utf-8")
    for name, (_, _, config) in parts.items():
        kind = name.partition("_")[0]
        file = f"{kind}_config.json" if kind in ("scheduler", "tokenizer") else "config.json"
        (folder / name).mkdir()
        (folder / name / file).write_text(json.dumps(config), encoding="utf-8")
