"""Latents of pictures, computed once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
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


@dataclass(frozen=True)
class Shard:
    """Pictures whose latents are in one file.

    Attributes:
        seed: of what is drawn at random for them.
        pictures: returns them, RGB.
    """

    seed: int
    pictures: Callable[[], Iterable[Image.Image]]


class Latents:
    """The latents of pictures: for each shard a file of (N, C, h, w) float16."""

    def __init__(self, folder: Path, shards: Mapping[str, Shard]) -> None:
        """Name the folder for them, and the shards by the names of their files."""
        self._folder, self._shards = folder, shards

    def encode(self, base: Family, accelerator: Accelerator, listener: Listener) -> None:
        """Write what is missing; the processes share the work.

        Raises:
            BadOption: a picture is damaged.
            OSError: the disk is full.
        """
        mine = list(self._shards)[accelerator.process_index :: accelerator.num_processes]
        for done, name in enumerate(mine):
            listener(Progress("Encoding", done, len(mine)))
            if not self._path(name).exists():
                with beside(self._path(name)) as part:
                    np.save(part, _encoded(self._shards[name], base))
        listener(Progress("Encoding", len(mine), max(1, len(mine))))
        accelerator.wait_for_everyone()

    def rows(self, name: str, chosen: slice) -> Tensor:
        """Return some of a shard, (N, C, h, w), float32."""
        coded = np.load(self._path(name), mmap_mode="r")  # each time: to keep all shards open may not be allowed
        return torch.from_numpy(coded[chosen].astype(np.float32))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"


def _encoded(shard: Shard, base: Family) -> NDArray[np.float16]:
    size, random = (base.resolution, base.resolution), Generator().manual_seed(shard.seed)
    pictures = (middle(picture, size) for picture in shard.pictures())
    coded = []
    while part := list(islice(pictures, base.batch_of(size))):
        coded.append(base.encode_images(torch.stack(part), random).half().cpu())
    latents: NDArray[np.float16] = torch.cat(coded).numpy()
    return latents
