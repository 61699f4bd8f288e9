"""Stage 2: the autoencoder, an ordinary AutoencoderKL: 128x128 pixels to 16x16 latents of 8 channels."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from numpy.random import default_rng
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, l1_loss, mse_loss

from persona.atomic import folder_beside
from persona.pretrain.clay.data import pixels_of, shards_of
from persona.pretrain.clay.mixed import mixed
from persona.pretrain.state import Run, cosine

BATCH = 16
RATE = 1.5e-3
EQUIVARIANCE_WEIGHT = 0.5
KL_WEIGHT = 2e-4  # per latent number; the reconstruction loss is per pixel value


def new_autoencoder() -> AutoencoderKL:
    """Return an autoencoder of random weights, narrow where the picture is large: that is where the time goes."""
    model = AutoencoderKL(
        block_out_channels=(16, 32, 96, 128), latent_channels=8, layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        mid_block_add_attention=False, sample_size=128, scaling_factor=1.0,
    )  # fmt: skip
    _ease(model)
    return model


@torch.no_grad()
def _ease(model: AutoencoderKL) -> None:
    """Make it begin as a nearly linear path of nearly no noise: after 140 steps, loss 0.44 instead of 0.63.

    Residual branches start at zero, and the convolutions between levels keep the variance.
    """
    for name, module in model.named_modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
        elif isinstance(module, nn.Conv2d) and (
            "samplers" in name or name.endswith(("conv_in", "conv_out", "conv_shortcut"))
        ):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    channels = model.config.latent_channels
    model.quant_conv.weight[channels:] *= 0.1
    model.quant_conv.bias[channels:] = -5.0  # the log-variance of the latents


def _batch(sources: tuple[Path, Path], seed: int, step: int, whole: bool) -> Tensor:
    """Return pictures in [-1, 1], two thirds of them renders, one third textures.

    They are crops (16, 3, 64, 64), or (4, 3, 128, 128) if whole.

    Crops cost the same as a quarter as many whole pictures, and teach more; the last stretch sees whole pictures, whose
    group norms differ a little.
    """
    rng = default_rng((seed, 2, step))
    chosen = []
    size = BATCH // 4 if whole else BATCH
    for folder, n in zip(sources, (size - size // 3, size // 3), strict=True):
        shards = shards_of(folder)
        pixels = pixels_of(folder, shards[rng.integers(len(shards))])
        chosen.append(pixels[np.sort(rng.choice(len(pixels), n, replace=False))])
    pictures = np.concatenate(chosen)
    if not whole:
        y, x = rng.integers(0, 65, 2)
        pictures = pictures[:, y : y + 64, x : x + 64]
    if rng.random() < 0.5:
        pictures = pictures[:, :, ::-1]
    tensor = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return (tensor.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _difference(drawn: Tensor, pictures: Tensor) -> Tensor:
    return l1_loss(drawn.float(), pictures) + 2 * mse_loss(drawn.float(), pictures)


def train_autoencoder(
    data: Path, textures: Path, folder: Path, steps: int, seed: int, save_every: int = 1000
) -> Iterator[tuple[int, float]]:
    """Train to `steps`, from the state in `folder` if there is one; yields (step, loss) now and then.

    The averaged weights are saved in `folder / "vae"`, whitened.
    """
    torch.manual_seed(seed)
    model = new_autoencoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run(folder, {"vae": model}, optimizer, decay=0.998)
    run.resume()
    while run.step < steps:
        started = time.perf_counter()
        pictures = _batch((data, textures), seed, run.step, whole=run.step >= 0.85 * steps)
        torch.manual_seed(hash((seed, run.step)) % 2**31)
        with mixed():
            posterior = model.encode(pictures).latent_dist
            latents = posterior.sample()
            drawn = model.decode(latents).sample
            # Halved latents must be the halved picture (EQ-VAE, Kouzelis et al. 2025): then they have no fine structure
            # of their own beside the picture's, which a denoiser would have to learn first.
            halved = model.decode(avg_pool2d(latents, 2)).sample
        loss = _difference(drawn, pictures)
        total = loss + EQUIVARIANCE_WEIGHT * _difference(halved, avg_pool2d(pictures, 2))
        total = total + KL_WEIGHT * posterior.kl().float().mean() / posterior.mean[0].numel()
        run.advance(total, cosine(RATE, run.step, steps, warm_up=100, least=0.02), started)
        if run.step % 50 == 0:
            run.curve.append((run.step, loss.item()))
            yield run.step, loss.item()
        if run.step % save_every == 0 or run.step == steps:
            run.save()
    run.use_average()
    whiten(model, data)
    with folder_beside(folder / "vae") as part:
        model.save_pretrained(part)


@torch.no_grad()
def whiten(model: AutoencoderKL, data: Path) -> None:
    """Fold into the 1x1 convolutions around the latents what gives every channel mean 0 and spread 1 on renders.

    A pipeline scales all latent channels by one number; channels of unlike spread would see unlike noise levels.
    """
    pixels = np.concatenate([np.asarray(pixels_of(data, shard)[:64]) for shard in shards_of(data)[:16]])
    latents = torch.cat([encode(model, chunk) for chunk in np.array_split(pixels, max(1, len(pixels) // 64))])
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    convolution, inverse = model.quant_conv, model.post_quant_conv
    convolution.weight[:channels] /= spread[:, None, None, None]
    convolution.bias[:channels] = (convolution.bias[:channels] - mean) / spread
    convolution.bias[channels:] -= 2 * spread.log()  # the log-variance of the scaled latents
    inverse.bias += (inverse.weight[:, :, 0, 0] * mean).sum(1)
    inverse.weight *= spread[None, :, None, None]


@torch.no_grad()
def encode(model: AutoencoderKL, pixels: NDArray[np.uint8]) -> Tensor:
    """Return the mean latents (N, 8, 16, 16) of pixels (N, 128, 128, 3) uint8."""
    pictures = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with mixed():
        posterior = model.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
    latents: Tensor = posterior.mean.float()
    return latents
