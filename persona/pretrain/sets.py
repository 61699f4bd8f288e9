"""Sets of pictures that share a subject: what they show, and their latents, which are computed once."""

import json
import tarfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.random import Generator as Random
from PIL import Image
from torch import Tensor

from persona.errors import BadOption
from persona.pretrain.latents import Latents, Shard
from persona.pretrain.records import add, png, shards


class Sets(ABC):
    """Sets in shards of any format; nothing but their captions is held in memory.

    Attributes:
        sizes: how many pictures each has.
        encoded: the latents of the shards.
    """

    def __init__(self, data: Path, latents: Path) -> None:
        """List the sets.

        Args:
            data: folder of the shards.
            latents: folder for what is computed from them.

        Raises:
            BadOption: there are none, a shard is damaged, or a set has but one picture.
        """
        self.data, self._places = data, list[tuple[str, int, int]]()
        shards = dict[str, Shard]()
        for shard, sizes in self._list():
            if not sizes:  # there is nothing to encode
                continue
            if min(sizes) < 2:
                raise BadOption(f"{data}: a set in shard {shard} has fewer than two images. Take it out.")
            shards[shard] = Shard(crc32(shard.encode()), partial(self._read, shard))
            ends = np.cumsum(sizes).tolist()
            self._places += [(shard, end - size, size) for end, size in zip(ends, sizes, strict=True)]
        self.sizes = [size for *_, size in self._places]
        if not self.sizes:
            raise BadOption(f"{data} holds no sets. Make some: persona gen-sets")
        self.encoded = Latents(latents, shards)

    def __len__(self) -> int:
        return len(self._places)

    @abstractmethod
    def _list(self) -> Iterable[tuple[str, list[int]]]:
        """Return the shards by name, and how many pictures each of their sets has."""

    @abstractmethod
    def _read(self, shard: str) -> Iterator[Image.Image]:
        """Yield the pictures of a shard, set after set."""

    @abstractmethod
    def noun(self, number: int) -> str:
        """Return what the subject of a set is."""

    @abstractmethod
    def captions(self, number: int, random: Random) -> list[str]:
        """Return a caption for each picture of a set."""

    def masks(self, number: int, grid: tuple[int, int]) -> Tensor:
        """Return where the subject of a set shows, (pictures, *grid) in [0, 1]; zero if nobody knows."""
        return torch.zeros(self._places[number][2], *grid)

    def latents(self, number: int) -> Tensor:
        """Return the latents of a set, (pictures, C, h, w), float32; they must be encoded."""
        shard, first, size = self._places[number]
        return self.encoded.rows(shard, slice(first, first + size))


class WebSets(Sets):
    """WebDataset shards, ``*.tar``: ``KEY.json`` with ``class`` and ``captions``, then ``KEY.0.png`` and so on."""

    def _list(self) -> Iterator[tuple[str, list[int]]]:
        self._told: list[tuple[str, list[str]]] = []
        for path in shards(self.data):
            sizes = []
            for told in self._records(path):
                self._told.append(told)
                sizes.append(len(told[1]))
            yield path.stem, sizes

    def _records(self, path: Path) -> Iterable[tuple[str, list[str]]]:
        told, pictures = dict[str, tuple[str, list[str]]](), Counter[str]()
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.endswith(".json") and (file := tar.extractfile(member)):
                        record = json.load(file)
                        captions = list(map(str, record["captions"]))
                        told[member.name.removesuffix(".json")] = str(record["class"]), captions
                    elif member.isfile():
                        pictures[_place(member)[0]] += 1
        except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
            raise BadOption(f"{path} is no shard of sets, or is damaged: {error}. Make it again.") from error
        if pictures != Counter({key: len(captions) for key, (_, captions) in told.items()}):
            raise BadOption(f"{path} has not as many images as captions. Make it again.")
        return told.values()

    def _read(self, shard: str) -> Iterator[Image.Image]:
        path = self.data / f"{shard}.tar"
        try:
            with tarfile.open(path) as tar:
                members = [member for member in tar if member.isfile()]
                keys = [one.name.removesuffix(".json") for one in members if one.name.endswith(".json")]
                order = {key: number for number, key in enumerate(keys)}
                pictures = [(_place(one), one) for one in members if not one.name.endswith(".json")]
                # Sorted by name, 10 comes before 2.
                for _, member in sorted(pictures, key=lambda one: (order[one[0][0]], one[0][1])):
                    if file := tar.extractfile(member):
                        yield Image.open(file).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BadOption(f"{path} is damaged ({error}). Make it again.") from error

    def noun(self, number: int) -> str:
        """See :class:`Sets`."""
        return self._told[number][0]

    def captions(self, number: int, random: Random) -> list[str]:
        """See :class:`Sets`."""
        return self._told[number][1]


def _place(member: tarfile.TarInfo) -> tuple[str, int]:
    """Return the key of a picture's set, and its number there.

    Raises:
        ValueError: it has none.
    """
    key, _, number = member.name.rpartition(".")[0].rpartition(".")
    if not number.isdecimal():
        raise ValueError(f"{member.name} is no KEY.NUMBER.png")
    return key, int(number)


def write_set(tar: tarfile.TarFile, key: str, told: Mapping[str, Any], pictures: Sequence[Image.Image]) -> None:
    """Add a set to a shard as :class:`WebSets` reads it.

    Args:
        tar: the shard.
        key: of the set; no other of the shard has it.
        told: JSON values, ``class`` and ``captions`` among them.
        pictures: as many as there are captions.
    """
    add(tar, f"{key}.json", json.dumps(told).encode())
    for place, picture in enumerate(pictures):
        add(tar, f"{key}.{place}.png", png(picture))
