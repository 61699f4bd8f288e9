"""Pictures of which a part is drawn anew, by any base: what is kept of a picture is put back at each step."""

from collections.abc import Sequence

import torch
from PIL.Image import Image
from torch import Generator

from persona.families.family import Family


@torch.no_grad()
def inpaint(
    base: Family,
    prompts: Sequence[str],
    seeds: Sequence[int],
    pictures: Sequence[Image],
    masks: Sequence[Image],
    *,
    steps: int | None = None,
    guidance: float | None = None,
) -> list[Image]:
    """Draw a part of each picture anew, by blended latent diffusion (Avrahami et al., 2206.02779) in diffusers.

    Args:
        base: none of its networks needs to be made for this.
        prompts: what the whole of each picture is to show.
        seeds: one a picture.
        pictures: all of one size, whose sides are multiples of the base's granularity.
        masks: grey, of the same size; white is drawn anew, black is kept.
        steps: of the sampler; the recipe's when left out.
        guidance: classifier-free guidance scale; the recipe's when left out.

    Raises:
        BadBase: a picture is not finite.
    """
    from diffusers import AutoPipelineForInpainting

    steps = steps or base.recipe.sample_steps
    pipe = AutoPipelineForInpainting.from_pipe(base.pipe)
    pipe.scheduler = base.sampler()
    pipe.set_progress_bar_config(disable=True)
    width, height = pictures[0].size
    wanted = base.conditioning(prompts)
    # As latents: given pixels, some pipelines would leave the autoencoder in another number format than they found it.
    pixels = torch.as_tensor(pipe.image_processor.preprocess(list(pictures)))
    latents = base.encode_images(pixels, Generator().manual_seed(0))
    with base.autocast():
        packed = pipe(
            **{base.embeds[key]: value for key, value in wanted.items()},
            **{f"negative_{base.embeds[key]}": value for key, value in base.unwanted("", wanted).items()},
            image=latents,
            mask_image=list(masks),
            masked_image_latents=latents,  # asked for beside a mask, and seen by networks that were made for this alone
            strength=1.0,
            generator=[Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=steps,
            **base.guiding(base.recipe.guidance if guidance is None else guidance, steps),
            width=width,
            height=height,
            output_type="latent",
        ).images
    scale = base.pipe.vae_scale_factor
    return base.decode_latents(base.unpack(packed, height // scale, width // scale))
