"""FLUX.1: a transformer over patches of 2 by 2 latents, told the prompt by T5 and, in short, by CLIP."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from persona.errors import BadOption
from persona.families.conditioning import Conditioning
from persona.families.family import Family
from persona.families.known import Known
from persona.families.recipe import ATTENTION, Recipe


class Flux(Family):
    """Black Forest Labs, 2024; the distilled model knows guidance as one more thing that it is told."""

    pipeline = "FluxPipeline"
    aliases: ClassVar = {
        short: Known(f"black-forest-labs/{repo}", 33.7, licence, gated=True, single=single)
        for short, repo, licence, single in (
            ("flux-dev", "FLUX.1-dev", "FLUX.1 [dev] Non-Commercial", "flux-dev"),
            ("flux-krea", "FLUX.1-Krea-dev", "FLUX.1 [dev] Non-Commercial", ""),
            ("flux-schnell", "FLUX.1-schnell", "Apache-2.0", "flux-schnell"),
        )
    }
    embeds: ClassVar = {"encoder_hidden_states": "prompt_embeds", "pooled_projections": "pooled_prompt_embeds"}
    original: ClassVar = {
        "double_blocks.*.img_attn.qkv": tuple(f"transformer_blocks.*.attn.to_{one}" for one in "qkv"),
        "double_blocks.*.img_attn.proj": ("transformer_blocks.*.attn.to_out.0",),
        "double_blocks.*.img_mlp.0": ("transformer_blocks.*.ff.net.0.proj",),
        "double_blocks.*.img_mlp.2": ("transformer_blocks.*.ff.net.2",),
        "double_blocks.*.img_mod.lin": ("transformer_blocks.*.norm1.linear",),
        "double_blocks.*.txt_attn.qkv": tuple(f"transformer_blocks.*.attn.add_{one}_proj" for one in "qkv"),
        "double_blocks.*.txt_attn.proj": ("transformer_blocks.*.attn.to_add_out",),
        "double_blocks.*.txt_mlp.0": ("transformer_blocks.*.ff_context.net.0.proj",),
        "double_blocks.*.txt_mlp.2": ("transformer_blocks.*.ff_context.net.2",),
        "double_blocks.*.txt_mod.lin": ("transformer_blocks.*.norm1_context.linear",),
        "single_blocks.*.linear1": tuple(
            f"single_transformer_blocks.*.{one}" for one in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        ),
        "single_blocks.*.linear2": ("single_transformer_blocks.*.proj_out",),
        "single_blocks.*.modulation.lin": ("single_transformer_blocks.*.norm.linear",),
    }
    only_read: ClassVar = {
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
        "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
        "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
        "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
        "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
        "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
        "final_layer.linear": ("proj_out",),
    }
    kohya: ClassVar = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te3"}
    recommended = Recipe(
        targets=(
            *ATTENTION,
            *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
            *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        ),
        sample_steps=28,
        prior_sample_steps=28,
        guidance=3.5,
    )

    def recommend(self) -> Recipe:
        """Draw in four steps where the model was distilled to that: such a one is not told its guidance."""
        if self._guided:
            return self.recommended
        return replace(self.recommended, sample_steps=4, prior_sample_steps=4, guidance=0.0)

    @property
    def lengths(self) -> list[int]:
        """How many tokens the pipeline takes from each tokenizer: of T5, as many as the model was made for."""
        return [min(length, self._longest) for length in super().lengths]

    @property
    def _longest(self) -> int:
        return 512 if self._guided else 256

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Return ``encoder_hidden_states`` (prompts, tokens, width) and ``pooled_projections`` (prompts, width)."""
        how = {"device": self.device, "max_sequence_length": self._longest}
        with self.autocast():
            states, pooled, _ = self.pipe.encode_prompt(list(prompts), **how)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def check_negative(self, negative: str) -> None:
        """Refuse any: guidance is distilled into the model, so that it leads away from nothing.

        Raises:
            BadOption: a negative prompt was given.
        """
        if negative:
            raise BadOption(f"{self.name} was distilled and takes no negative prompt. Leave --negative out.")

    def unwanted(self, negative: str, wanted: Conditioning) -> Conditioning:
        """Return nothing; see :meth:`check_negative`."""
        self.check_negative(negative)
        return {}

    def arguments(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        """Add the places of patches and words, and a guidance of 1: the plain conditional prediction.

        Times are in (0, 1) here.
        """
        rows, columns = (torch.arange(side // 2, device=noisy.device) for side in noisy.shape[-2:])
        places = torch.cartesian_prod(torch.zeros_like(rows[:1]), rows, columns).to(noisy.dtype)
        words = conditioning["encoder_hidden_states"].shape[1]
        return {
            "timestep": times / self.pipe.scheduler.config.num_train_timesteps,
            "img_ids": places,
            "txt_ids": places.new_zeros(words, 3),
            "guidance": torch.ones_like(times) if self._guided else None,
            **conditioning,
        }

    @property
    def _guided(self) -> bool:
        return bool(self.denoiser.config.guidance_embeds)

    def labels(self) -> dict[str, str]:
        """Tell dev from schnell, which is not told its guidance."""
        return {
            "modelspec.architecture": f"flux-1-{'dev' if self._guided else 'schnell'}/lora",
            "modelspec.implementation": "flux",
            "ss_base_model_version": "flux1",
        }

    def pack(self, latents: Tensor) -> Tensor:
        """Lay 2 by 2 latents side by side as one token: (B, C, h, w) to (B, h w / 4, 4 C)."""
        return functional.pixel_unshuffle(latents, 2).flatten(2).mT

    def unpack(self, packed: Tensor, height: int, width: int) -> Tensor:
        """Undo ``pack`` for latents of that height and width."""
        return functional.pixel_shuffle(packed.mT.reshape(len(packed), -1, height // 2, width // 2), 2)
