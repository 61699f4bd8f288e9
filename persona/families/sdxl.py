"""Stable Diffusion XL: a U-Net that two CLIP text encoders tell the prompt, and that is told the picture's size."""

import json
import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open
from torch import Tensor

from persona.errors import BadBase
from persona.families.conditioning import Conditioning
from persona.families.family import Family
from persona.families.known import Known
from persona.families.recipe import Recipe
from persona.noise import Diffusion

_EDM = "edm_vpred.sigma_max"
"""A tensor of files whose network was trained on the schedule of EDM (Karras et al., 2206.00364)."""
_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""Modules of a resnet that can be adapted, and what the authors call them."""


class StableDiffusionXL(Family):
    """Podell et al., 2307.01952."""

    pipeline = "StableDiffusionXLPipeline"
    aliases: ClassVar = {
        "sdxl": Known("stabilityai/stable-diffusion-xl-base-1.0", 13.9, "CreativeML OpenRAIL++-M", single="xl_base")
    }
    comfyui = "kohya"
    denoiser_name = "unet"
    process = Diffusion
    embeds: ClassVar = {"encoder_hidden_states": "prompt_embeds", "text_embeds": "pooled_prompt_embeds"}
    recommended = Recipe(guidance=5.0)

    @classmethod
    def formats(cls, folder: Path, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """Keep the autoencoder in float32 where its config forces that, as the pipeline does."""
        config = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
        exact = {"vae": torch.float32} if config.get("force_upcast", True) else {}
        return {"default": dtype, **exact}

    @classmethod
    def correct(cls, pipe: Any, file: Path) -> None:
        """Heed the marks of files whose network predicts velocity, be it down to zero signal.

        Raises:
            BadBase: it was trained on the schedule of EDM, as CosXL was.
        """
        with safe_open(file, "pt") as opened:
            marks = {"v_pred", "ztsnr", _EDM}.intersection(opened.keys())
        if _EDM in marks:
            raise BadBase(f"{file} was trained on the noise of EDM, which is not supported. Choose another base.")
        if "v_pred" in marks:
            zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in marks else {}
            own = pipe.scheduler
            pipe.scheduler = type(own).from_config(own.config, prediction_type="v_prediction", **zero)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Return ``encoder_hidden_states`` (prompts, tokens, width) and ``text_embeds`` (prompts, pooled width)."""
        with self.autocast():
            states, _, pooled, _ = self.pipe.encode_prompt(
                list(prompts), device=self.device, do_classifier_free_guidance=False
            )
        return {"encoder_hidden_states": states, "text_embeds": pooled}

    def unwanted(self, negative: str, wanted: Conditioning) -> Conditioning:
        """Return zeros for no prompt where the pipeline's config says so: it was trained to take them for nothing."""
        if negative or not self.pipe.config.force_zeros_for_empty_prompt:
            return super().unwanted(negative, wanted)
        return {key: torch.zeros_like(value) for key, value in wanted.items()}

    def arguments(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        """Add the sizes (section 2.2): original size, corner of the crop, and size, each height first, in pixels.

        Photos are said to be whole and of the size that they were cut to, because this is what drawing asks for.
        """
        size = [side * self.pipe.vae_scale_factor for side in noisy.shape[-2:]]
        told = torch.tensor([*size, 0, 0, *size], dtype=torch.float32, device=noisy.device)
        added = {"text_embeds": conditioning["text_embeds"], "time_ids": told.expand(len(noisy), -1)}
        states = conditioning["encoder_hidden_states"]
        return {"timestep": times, "encoder_hidden_states": states, "added_cond_kwargs": added}

    def originals(self) -> dict[str, tuple[str, ...]]:
        """Number the blocks as the authors do: in one row on each side, a resnet with its attention in each."""
        layers = self.denoiser.config.layers_per_block
        modules = [name for name, _ in self.denoiser.named_modules()]
        attentive = {name for name in modules if name.endswith(".attentions")}
        names = {name: _original(name, layers, attentive) for name in modules}
        return {theirs: (name,) for name, theirs in names.items() if theirs}

    def labels(self) -> dict[str, str]:
        """Name the one architecture there is; without ``ss_base_model_version`` programs take it for version 1."""
        velocity = self.pipe.scheduler.config.prediction_type == "v_prediction"
        return {
            "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
            "modelspec.implementation": "sgm",
            "modelspec.prediction_type": "v" if velocity else "epsilon",
            "ss_base_model_version": "sdxl_base_v1-0",
        }


def _original(name: str, layers: int, attentive: Set[str]) -> str:
    """Return what the authors call a module of a U-Net; empty if they do not.

    Args:
        name: as diffusers has it.
        layers: resnets in a block on the way down; there is one more in each on the way up.
        attentive: names of the lists of attentions, in those blocks that have any.
    """
    side, _, path = name.partition(".")
    if sampler := re.fullmatch(r"(\d+)\.(down|up)samplers\.0\.conv", path):
        block = int(sampler[1])
        if sampler[2] == "down":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
        after = 2 if f"{side}.{block}.attentions" in attentive else 1
        return f"output_blocks.{block * (layers + 1) + layers}.{after}.conv"
    match = re.fullmatch(r"(?:(\d+)\.)?(attentions|resnets)\.(\d+)\.(.+)", path)
    if match is None:
        return ""
    block, kind, layer, rest = int(match[1] or 0), match[2], int(match[3]), match[4]
    where = {
        "down_blocks": f"input_blocks.{block * (layers + 1) + layer + 1}.{int(kind == 'attentions')}",
        "mid_block": f"middle_block.{1 if kind == 'attentions' else 2 * layer}",
        "up_blocks": f"output_blocks.{block * (layers + 1) + layer}.{int(kind == 'attentions')}",
    }[side]
    return f"{where}.{rest if kind == 'attentions' else _RESNET.get(rest, rest)}"
