"""Small shards of sets in WebDataset's layout: each set is one colour in different patterns."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

NOUNS = ("dog", "cat", "beach")


def write_shard(path: Path, *, sets: int, pictures: int, side: int = 40, first: int = 0) -> Path:
    """Write sets of random pictures, each set of its own colour; what a set shows depends on its number alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in range(first, first + sets):
            random = np.random.default_rng(number)
            told = {
                "class": NOUNS[number % len(NOUNS)],
                "captions": [f"a red {NOUNS[number % len(NOUNS)]} {n}" for n in range(pictures)],
            }
            _add(tar, f"{number:06}.json", json.dumps(told).encode())
            colour = random.integers(0, 255, 3)
            for place in range(pictures):
                coarse = np.clip(colour + random.normal(0, 40, (6, 6, 3)), 0, 255).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
                _add(tar, f"{number:06}.{place}.png", buffer.getvalue())
    return path


def packed_anew(path: Path, target: Path) -> Path:
    """Pack a shard's files as ``tar -cf TARGET --sort=name .`` does."""
    (folder := target.with_suffix("")).mkdir()
    with tarfile.open(path) as tar:
        for member in tar:
            source = tar.extractfile(member)
            assert source is not None
            (folder / member.name).write_bytes(source.read())
    with tarfile.open(target, "w") as tar:
        tar.add(folder, ".")
    return target


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
