"""What the papers and the pipelines say of a training step, read plainly: one example, one family at a time.

Written against the parts of a diffusers pipeline alone; nothing here knows of the package under test.
"""

from typing import Any

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor


def is_flow(pipe: Any) -> bool:
    return isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler)


def corrupt(pipe: Any, x: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the noisy latents (1, C, h, w) at a time (1,), and what is to be predicted from them."""
    if is_flow(pipe):
        line = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
        line.set_timesteps(sigmas=[float(t) / 1000])
        return line.scale_noise(x, line.timesteps, eps), eps - x
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    velocity = schedule.config.prediction_type == "v_prediction"
    return schedule.add_noise(x, eps, t), schedule.get_velocity(x, eps, t) if velocity else eps


def weight(pipe: Any, t: Tensor, gamma: float) -> Tensor:
    """Return the min-SNR weight of a time (1,); a straight line has none."""
    if is_flow(pipe) or not gamma:
        return torch.ones(())
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    snr = compute_snr(schedule, t)
    more = schedule.config.prediction_type == "v_prediction"
    weighed: Tensor = snr.clamp(max=gamma) / (snr + more)
    return weighed.squeeze()


def predict(pipe: Any, noisy: Tensor, t: Tensor, prompt: str) -> Tensor:
    """Return what a pipeline's denoiser says of noisy latents (1, C, h, w) at a time (1,)."""
    families = {
        "StableDiffusionPipeline": stable_diffusion,
        "StableDiffusionXLPipeline": stable_diffusion_xl,
        "StableDiffusion3Pipeline": stable_diffusion_3,
        "FluxPipeline": flux,
    }
    return families[type(pipe).__name__](pipe, noisy, t, prompt)


def stable_diffusion(pipe: Any, noisy: Tensor, t: Tensor, prompt: str) -> Tensor:
    states: Tensor = pipe.text_encoder(ids(pipe.tokenizer, prompt)).last_hidden_state
    said: Tensor = pipe.unet(noisy, t, states).sample
    return said


def stable_diffusion_xl(pipe: Any, noisy: Tensor, t: Tensor, prompt: str) -> Tensor:
    small = pipe.text_encoder(ids(pipe.tokenizer, prompt), output_hidden_states=True)
    large = pipe.text_encoder_2(ids(pipe.tokenizer_2, prompt), output_hidden_states=True)
    states = torch.cat([small.hidden_states[-2], large.hidden_states[-2]], dim=-1)
    height, width = (side * pipe.vae_scale_factor for side in noisy.shape[-2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]])
    added = {"text_embeds": large.text_embeds, "time_ids": sizes}
    said: Tensor = pipe.unet(noisy, t, states, added_cond_kwargs=added).sample
    return said


def stable_diffusion_3(pipe: Any, noisy: Tensor, t: Tensor, prompt: str) -> Tensor:
    small = pipe.text_encoder(ids(pipe.tokenizer, prompt), output_hidden_states=True)
    large = pipe.text_encoder_2(ids(pipe.tokenizer_2, prompt), output_hidden_states=True)
    clip = torch.cat([small.hidden_states[-2], large.hidden_states[-2]], dim=-1)
    if pipe.text_encoder_3 is None:
        t5 = torch.zeros(1, 256, pipe.transformer.config.joint_attention_dim)
    else:
        t5 = pipe.text_encoder_3(ids(pipe.tokenizer_3, prompt, length=256)).last_hidden_state
    padded = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
    said: Tensor = pipe.transformer(
        noisy,
        timestep=t,
        encoder_hidden_states=torch.cat([padded, t5], dim=1),
        pooled_projections=torch.cat([small.text_embeds, large.text_embeds], dim=-1),
    ).sample
    return said


def flux(pipe: Any, noisy: Tensor, t: Tensor, prompt: str) -> Tensor:
    _, channels, height, width = noisy.shape
    pooled = pipe.text_encoder(ids(pipe.tokenizer, prompt)).pooler_output
    words = 512 if pipe.transformer.config.guidance_embeds else 256  # of dev and of schnell
    states = pipe.text_encoder_2(ids(pipe.tokenizer_2, prompt, length=words)).last_hidden_state
    said = pipe.transformer(
        pipe._pack_latents(noisy, 1, channels, height, width),
        timestep=t / 1000,
        guidance=torch.ones(1) if pipe.transformer.config.guidance_embeds else None,
        encoder_hidden_states=states,
        pooled_projections=pooled,
        txt_ids=torch.zeros(words, 3),
        img_ids=pipe._prepare_latent_image_ids(1, height // 2, width // 2, "cpu", torch.float32),
    ).sample
    scale = pipe.vae_scale_factor
    unpacked: Tensor = pipe._unpack_latents(said, height * scale, width * scale, scale)
    return unpacked


def ids(tokenizer: Any, prompt: str, *, length: int | None = None) -> Tensor:
    tokens = tokenizer(
        prompt,
        padding="max_length",
        max_length=length or tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    found: Tensor = tokens.input_ids
    return found
