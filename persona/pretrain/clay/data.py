"""Stage 1: scenes and their pictures on disk, in shards that are each written whole or not at all.

A shard is `00012.npy`, pixels (N, 128, 128, 3) uint8, and `00012.json`, the N scenes. What a shard holds depends on its
number and the seed alone, so a run that was killed goes on with the shards that are missing, by any number of processes.
"""

import json
import os
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from persona.clay.world.scene import Scene, from_dict, held_out, random_scene, random_subject, render, to_dict
from persona.clay.world.styles import COLOURLESS, STYLES
from persona.pretrain.clay.textures import texture

SHARD = 1000
SET = 4  # pictures of one subject in the shards of sets


def training_scene(seed: int, number: int) -> Scene:
    """The `number`-th training scene of a seed: random, but of no held-out composition."""
    rng = default_rng((seed, number))
    while held_out(scene := random_scene(rng)):
        pass
    return scene


def training_set(seed: int, number: int) -> list[Scene]:
    """Scenes of one training subject, each in a place of its own: mostly photos, else styles that keep its colours."""
    rng = default_rng((seed, 6, number))
    who = random_subject(rng)
    contexts: list[str] = []
    scenes: list[Scene] = []
    while len(scenes) < SET:
        style = "photo" if rng.random() < 0.75 else str(rng.choice([s for s in STYLES if s not in COLOURLESS]))
        scene = random_scene(rng, (who,), style=style, property=None)
        if scene.context not in contexts and not held_out(scene):
            contexts.append(scene.context)
            scenes.append(scene)
    return scenes


def _write_sets(job: tuple[Path, int, int]) -> int:
    folder, seed, shard = job
    first = shard * SHARD // SET
    _write_scenes(folder, shard, [scene for i in range(SHARD // SET) for scene in training_set(seed, first + i)])
    return shard


def _write_textures(job: tuple[Path, int, int]) -> int:
    folder, seed, shard = job
    rng = default_rng((seed, 1, shard))
    _write_pixels(folder, shard, np.stack([texture(rng) for _ in range(SHARD)]))
    return shard


def _write_shard(job: tuple[Path, int, int]) -> int:
    folder, seed, shard = job
    _write_scenes(folder, shard, [training_scene(seed, shard * SHARD + i) for i in range(SHARD)])
    return shard


def _write_scenes(folder: Path, shard: int, scenes: list[Scene]) -> None:
    pixels = np.stack([render(scene).pixels for scene in scenes])
    whole(folder / f"{shard:05}.json", json.dumps([to_dict(scene) for scene in scenes]).encode())
    _write_pixels(folder, shard, pixels)


def _write_pixels(folder: Path, shard: int, pixels: NDArray[np.uint8]) -> None:
    partial = folder / f"{shard:05}.partial.npy"
    np.save(partial, pixels)
    os.replace(partial, folder / f"{shard:05}.npy")


def whole(path: Path, content: bytes) -> None:
    """Write a file beside and rename it, so that it is never there by half."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def render_shards(folder: Path, shards: range, seed: int = 0, processes: int | None = None) -> Iterator[int]:
    """Render the shards of scenes that a folder lacks; yields the number of each as it is done."""
    yield from _fill(_write_shard, folder, shards, seed, processes)


def set_shards(folder: Path, shards: range, seed: int = 0, processes: int | None = None) -> Iterator[int]:
    """The same for sets: SET scenes of each subject, one after the other."""
    yield from _fill(_write_sets, folder, shards, seed, processes)


def texture_shards(folder: Path, shards: range, seed: int = 0, processes: int | None = None) -> Iterator[int]:
    """The same for procedural textures, which have no scenes."""
    yield from _fill(_write_textures, folder, shards, seed, processes)


def _fill(
    write: Callable[[tuple[Path, int, int]], int], folder: Path, shards: range, seed: int, processes: int | None
) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    missing = [(folder, seed, shard) for shard in shards if not (folder / f"{shard:05}.npy").exists()]
    with get_context("spawn").Pool(processes or os.cpu_count()) as pool:
        yield from pool.imap_unordered(write, missing)


def shards_of(folder: Path) -> list[int]:
    """Numbers of the shards that are complete."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.npy") if "." not in path.stem)


def scenes_of(folder: Path, shard: int) -> list[Scene]:
    return [from_dict(data) for data in json.loads((folder / f"{shard:05}.json").read_text())]


def pixels_of(folder: Path, shard: int) -> NDArray[np.uint8]:
    """Pictures of a shard, (N, 128, 128, 3) uint8, mapped from disk."""
    pixels: NDArray[np.uint8] = np.load(folder / f"{shard:05}.npy", mmap_mode="r")
    return pixels
