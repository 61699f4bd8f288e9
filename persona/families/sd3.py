"""Stable Diffusion 3 and 3.5: a transformer that two CLIP text encoders and T5 tell the prompt."""

from collections.abc import Sequence
from typing import ClassVar

from persona.families.conditioning import Conditioning
from persona.families.family import Family
from persona.families.known import Known
from persona.families.recipe import ATTENTION, Recipe


class StableDiffusion3(Family):
    """Esser et al., 2403.03206; without its T5, which may be missing, it reads zeros instead."""

    pipeline = "StableDiffusion3Pipeline"
    aliases: ClassVar = {
        short: Known(f"stabilityai/{repo}", gigabytes, "Stability AI Community", gated=True, single=single)
        for short, repo, gigabytes, single in (
            ("sd3-medium", "stable-diffusion-3-medium-diffusers", 15.5, "sd3"),
            ("sd35-medium", "stable-diffusion-3.5-medium", 16.3, "sd35_medium"),
            ("sd35-large", "stable-diffusion-3.5-large", 27.6, "sd35_large"),
        )
    }
    embeds: ClassVar = {"encoder_hidden_states": "prompt_embeds", "pooled_projections": "pooled_prompt_embeds"}
    original: ClassVar = {
        "joint_blocks.*.x_block.attn.qkv": tuple(f"transformer_blocks.*.attn.to_{one}" for one in "qkv"),
        "joint_blocks.*.x_block.attn.proj": ("transformer_blocks.*.attn.to_out.0",),
        "joint_blocks.*.x_block.attn2.qkv": tuple(f"transformer_blocks.*.attn2.to_{one}" for one in "qkv"),
        "joint_blocks.*.x_block.attn2.proj": ("transformer_blocks.*.attn2.to_out.0",),
        "joint_blocks.*.x_block.mlp.fc1": ("transformer_blocks.*.ff.net.0.proj",),
        "joint_blocks.*.x_block.mlp.fc2": ("transformer_blocks.*.ff.net.2",),
        "joint_blocks.*.x_block.adaLN_modulation.1": ("transformer_blocks.*.norm1.linear",),
        "joint_blocks.*.context_block.attn.qkv": tuple(f"transformer_blocks.*.attn.add_{one}_proj" for one in "qkv"),
        "joint_blocks.*.context_block.attn.proj": ("transformer_blocks.*.attn.to_add_out",),
        "joint_blocks.*.context_block.mlp.fc1": ("transformer_blocks.*.ff_context.net.0.proj",),
        "joint_blocks.*.context_block.mlp.fc2": ("transformer_blocks.*.ff_context.net.2",),
    }
    only_read: ClassVar = {
        "joint_blocks.*.context_block.adaLN_modulation.1": ("transformer_blocks.*.norm1_context.linear",),
        "x_embedder.proj": ("pos_embed.proj",),
        "context_embedder": ("context_embedder",),
        "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
        "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
        "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
        "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
        "final_layer.linear": ("proj_out",),
    }
    kohya: ClassVar = {**Family.kohya, "text_encoder_3": "lora_te3"}
    recommended = Recipe(
        targets=(*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        sample_steps=28,
        prior_sample_steps=28,
        guidance=4.5,
    )

    @property
    def largest(self) -> float:
        """Longest side in pixels that its table of places goes to."""
        config = self.denoiser.config
        side: int = config.pos_embed_max_size * config.patch_size * self.pipe.vae_scale_factor
        return side

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Return ``encoder_hidden_states`` (prompts, tokens, width) and ``pooled_projections`` (prompts, width)."""
        with self.autocast():
            states, _, pooled, _ = self.pipe.encode_prompt(
                list(prompts), None, None, device=self.device, do_classifier_free_guidance=False
            )
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def labels(self) -> dict[str, str]:
        """Tell the sizes apart: only 3.5 normalises queries, and only its medium size attends twice."""
        config = self.denoiser.config
        size = "m" if not config.qk_norm else "5-medium" if config.dual_attention_layers else "5-large"
        version = f"stable-diffusion-3-{size}"
        return {**super().labels(), "modelspec.architecture": f"{version}/lora", "ss_base_model_version": f"sd3-{size}"}
