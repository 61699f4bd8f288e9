"""Pretrains a clay of tiny networks, and kills itself on the way."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel

from persona import atomic
from persona.clay.encoder import Encoder
from persona.clay.judge import Judge
from persona.clay.segmenter import Segmenter
from persona.config import PretrainConfig
from persona.pretrain.clay import autoencoder, denoiser, encoding, evaluation, judging, reading, run, segmenting, text

CONFIG: dict[str, Any] = {
    "pictures": 24, "sets": 16, "autoencoder_steps": 6, "judge_steps": 6, "segmenter_steps": 6,
    "encoder_steps": 6, "text_steps": 6, "denoiser_steps": 6,
}  # fmt: skip


def shrink(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make networks, batches and the evaluation small; what is left of them is the code that runs."""
    put(autoencoder, "new_autoencoder", new_autoencoder)
    put(autoencoder, "BATCH", 8)
    put(denoiser, "new_unet", new_unet)
    put(denoiser, "BATCH", 4)
    put(denoiser, "RECIPE", {**denoiser.RECIPE, "sample_steps": 1})
    put(judging, "Judge", partial(Judge, widths=(4, 8, 8), depths=(1, 1, 1)))
    put(judging, "SUBJECTS", 3)
    put(judging, "OTHERS", 2)
    put(segmenting, "Segmenter", partial(Segmenter, widths=(4, 8)))
    put(segmenting, "BATCH", 2)
    put(encoding, "Encoder", partial(Encoder, widths=(4, 8, 8), depth=1))
    put(encoding, "SUBJECTS", 2)
    for name in ("PROMPTS", "RENDERS", "RIVALS", "PIXELS"):
        put(evaluation, name, 2)
    put(reading, "BATCH", 4)
    words = partial(text.caption_words, 2000)
    put(text, "caption_words", words)
    put(denoiser, "caption_words", words)
    stages = (
        autoencoder.train_autoencoder, judging.train_judge, segmenting.train_segmenter, encoding.train_encoder,
        reading.train_text_encoder, denoiser.train_denoiser,
    )  # fmt: skip
    for stage in stages:
        put(run, stage.__name__, partial(stage, save_every=2))  # so that a kill has much to spoil


def new_autoencoder() -> Any:
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8), latent_channels=8, layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        mid_block_add_attention=False, sample_size=128, scaling_factor=1.0,
    )  # fmt: skip


def new_unet() -> Any:
    return UNet2DConditionModel(
        sample_size=16, in_channels=8, out_channels=8, block_out_channels=(8, 8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=192, attention_head_dim=8,
        norm_num_groups=4,
    )  # fmt: skip


def pretrain(out: Path) -> run.Made:
    return run.pretrain_clay(PretrainConfig(out=out, **CONFIG))


def pretrain_and_die(out: Path, folder: str) -> None:
    """Be killed while the second file of a folder is written, or the first for the second time."""
    put, written = atomic.put, 0

    def put_or_die(part: Path, path: Path) -> Path:
        nonlocal written
        written += path.parent == out / folder
        if written == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return put(part, path)

    atomic.put = put_or_die
    pretrain(out)
