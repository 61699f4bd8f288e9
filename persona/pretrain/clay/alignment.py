"""What the judge sees in a picture, as a guide to what the U-Net should make of its noisy latents.

Representation alignment (Yu et al. 2024, "Representation alignment for generation"), in the middle of the U-Net and at
the judge's resolution, as Tian et al. 2025 ("U-REPA") found best.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from persona.atomic import beside
from persona.clay.judge import Judge
from persona.pretrain.clay.data import pixels_of, shards_of
from persona.pretrain.clay.mixed import mixed


@torch.no_grad()
def sight_shards(data: Path, folder: Path, judge: Judge) -> Iterator[int]:
    """Write what the judge sees in the pictures of every shard that has it not yet, standardized; yields its number.

    A shard is (N, 192, 8, 8), float16.
    """
    shards = shards_of(data)
    first = _seen(judge, pixels_of(data, shards[0])[:256])
    mean, spread = first.mean((0, 2, 3), keepdim=True), first.std((0, 2, 3), keepdim=True)
    for shard in shards:
        path = folder / f"{shard:05}.npy"
        if not path.exists():
            pixels = pixels_of(data, shard)
            seen = torch.cat([_seen(judge, pixels[i : i + 50]) for i in range(0, len(pixels), 50)])
            with beside(path) as part:
                np.save(part, ((seen - mean) / spread).half().numpy())
            yield shard


def _seen(judge: Judge, pixels: Any) -> Tensor:
    pictures = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with mixed():
        return judge.sight(pictures.contiguous(memory_format=torch.channels_last)).float()


class Alignment(nn.Module):
    """A reading of the U-Net's middle that is drawn towards what the judge sees in the clean picture."""

    def __init__(self, unet: UNet2DConditionModel, width: int) -> None:
        """Listen to a U-Net, for sights of so many channels."""
        super().__init__()
        inner = unet.config.block_out_channels[-1]
        self.reading = nn.Sequential(nn.Conv2d(inner, 2 * inner, 1), nn.SiLU(), nn.Conv2d(2 * inner, width, 1))
        self._inner: Tensor | None = None
        unet.up_blocks[0].register_forward_hook(self._listen)

    def _listen(self, module: nn.Module, given: object, inner: Tensor) -> None:
        self._inner = inner

    def forward(self, sights: Tensor) -> Tensor:
        """Return one minus the mean cosine of what the last pass of the U-Net held and of sights (B, C, h, w)."""
        inner, self._inner = self._inner, None
        return 1 - cosine_similarity(self.reading(inner).float(), sights, dim=1).mean()
