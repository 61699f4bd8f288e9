"""Latents of pictures, computed once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from persona.atomic import beside
from persona.events import Listener, Progress
from persona.families import Family
from persona.photos import middle

SHARD = 1000
"""Pictures whose latents are in one file."""


class Latents:
    """The latents of pictures that have numbers, in files of (N, C, h, w) float16."""

    def __init__(self, folder: Path, number: int, picture: Callable[[int], Image.Image]) -> None:
        """Name the folder for them, how many pictures there are, and what returns each: RGB, square."""
        self._folder, self._number, self._picture = folder, number, picture

    def encode(self, base: Family, accelerator: Accelerator, listener: Listener) -> None:
        """Write what is missing; the processes share the work.

        Raises:
            OSError: the disk is full.
        """
        shards = range(accelerator.process_index, -(-self._number // SHARD), accelerator.num_processes)
        for done, shard in enumerate(shards):
            listener(Progress("Encoding", done, len(shards)))
            if not self._path(shard).exists():
                with beside(self._path(shard)) as part:
                    np.save(part, self._encoded(shard, base))
        listener(Progress("Encoding", len(shards), max(1, len(shards))))
        accelerator.wait_for_everyone()

    def _encoded(self, shard: int, base: Family) -> NDArray[np.float16]:
        size, random = (base.resolution, base.resolution), Generator().manual_seed(shard)
        numbers, at_once = range(shard * SHARD, min((shard + 1) * SHARD, self._number)), base.batch_of(size)
        coded = []
        for first in range(0, len(numbers), at_once):
            pixels = torch.stack([middle(self._picture(one), size) for one in numbers[first : first + at_once]])
            coded.append(base.encode_images(pixels, random).half().cpu())
        latents: NDArray[np.float16] = torch.cat(coded).numpy()
        return latents

    def __getitem__(self, number: int) -> Tensor:
        """Return those of a picture, (C, h, w), float32."""
        shard, place = divmod(number, SHARD)
        coded = np.load(self._path(shard), mmap_mode="r")  # each time: to keep all shards open may not be allowed
        return torch.from_numpy(coded[place].astype(np.float32))

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:05}.npy"
