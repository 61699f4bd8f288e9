"""Stable Diffusion 3 and 3.5: a transformer that two CLIP text encoders and T5 tell the prompt."""

from collections.abc import Sequence
from typing import ClassVar

from persona.families.conditioning import Conditioning
from persona.families.family import Family
from persona.families.recipe import Recipe


class StableDiffusion3(Family):
    """Esser et al., 2403.03206; without its T5, which may be missing, it reads zeros instead."""

    pipeline = "StableDiffusion3Pipeline"
    aliases: ClassVar = {
        "sd3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
        "sd35-medium": "stabilityai/stable-diffusion-3.5-medium",
        "sd35-large": "stabilityai/stable-diffusion-3.5-large",
    }
    targets = (*Family.targets, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    embeds: ClassVar = {"encoder_hidden_states": "prompt_embeds", "pooled_projections": "pooled_prompt_embeds"}
    recommended = Recipe(sample_steps=28, guidance=4.5, gradient_checkpointing=True)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Return ``encoder_hidden_states`` (prompts, tokens, width) and ``pooled_projections`` (prompts, width)."""
        with self.autocast():
            states, _, pooled, _ = self.pipe.encode_prompt(
                list(prompts), None, None, device=self.device, do_classifier_free_guidance=False
            )
        return {"encoder_hidden_states": states, "pooled_projections": pooled}
