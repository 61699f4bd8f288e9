"""Stage 1: scenes and their pictures on disk, in shards that are each written whole or not at all.

A shard is `00012.npy`, pixels (N, 128, 128, 3) uint8, and `00012.json`, the N scenes. What a shard holds depends on its
pictures' numbers and the seed alone, so a run that was killed goes on with the shards that are missing, by any number
of processes.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from persona.atomic import beside
from persona.clay.world import (
    COLOURLESS,
    SIDE,
    STYLES,
    Scene,
    Subject,
    from_dict,
    held_out,
    random_scene,
    random_subject,
    render,
    silhouettes,
    to_dict,
)
from persona.errors import NoMemory
from persona.events import Listener, Progress, silent
from persona.pretrain.clay.textures import texture

SHARD = 1000
SET = 4
"""Pictures of one subject in the shards of sets."""
SETS, PAIRS = "sets", "pairs"
"""Folders of the sets of one subject and of two."""
MASKS = {SETS: "set-masks", PAIRS: "pair-masks"}
"""Folders of their masks."""
WORN = 2
"""Which of a scene's masks is that of what its entities wear."""


_PLAIN_VIEWS = {"front": 0.2, "side": 0.25, "three-quarter": 0.35, "back": 0.08, "top": 0.07, "bottom": 0.05}
"""How often plain scenes are seen from each side."""


def training_scene(seed: int, number: int) -> Scene:
    """Return the `number`-th training scene of a seed: of no held-out composition, and every other one plain."""
    rng = default_rng((seed, number))
    draw = _plain_scene if number % 2 else random_scene
    while held_out(scene := draw(rng)):
        pass
    return scene


def _plain_scene(rng: Generator) -> Scene:
    """Draw a scene that shapes are learnt from: one subject, standing, nothing worn. At random they are too few."""
    view = str(rng.choice(list(_PLAIN_VIEWS), p=list(_PLAIN_VIEWS.values())))
    style = _style(rng, [style for style in STYLES if style != "photo"])
    one = (random_subject(rng),)
    return random_scene(rng, one, style=style, view=view, pose="standing", accessory=None, property=None)


def _style(rng: Generator, others: list[str]) -> str:
    """Draw a style: a photo three times of four, and else one of the others."""
    return "photo" if rng.random() < 0.75 else str(rng.choice(others))


def training_set(seed: int, number: int) -> list[Scene]:
    """Return scenes of one training subject, each in a place of its own: photos, and styles that keep its colours."""
    rng = default_rng((seed, 6, number))
    return _together(rng, [(random_subject(rng),)] * SET)


def training_pair(seed: int, number: int) -> list[Scene]:
    """Return such scenes of two training subjects: the first alone, the second alone, and both of them twice."""
    rng = default_rng((seed, 9, number))
    one, other = random_subject(rng), random_subject(rng)
    return _together(rng, [(one,), (other,), (one, other), (one, other)])


def _together(rng: Generator, casts: Sequence[tuple[Subject, ...]]) -> list[Scene]:
    """Return a scene of each cast."""
    contexts: list[str] = []
    scenes: list[Scene] = []
    while len(scenes) < len(casts):
        style = _style(rng, [style for style in STYLES if style not in COLOURLESS])
        scene = random_scene(rng, casts[len(scenes)], style=style, property=None)
        if scene.context not in contexts and not held_out(scene):
            contexts.append(scene.context)
            scenes.append(scene)
    return scenes


@dataclass(frozen=True)
class _Job:
    """A shard to be written, as it is sent to a process."""

    folder: Path
    shard: int
    pictures: range
    """Their numbers, of all that are made."""
    seed: int


def divided(pictures: int, size: int = SHARD) -> list[range]:
    """Return which pictures are in each shard: so many, and in the last what is left over too."""
    last = max(1, pictures // size) - 1
    firsts = range(0, last * size, size)
    return [*(range(first, first + size) for first in firsts), range(last * size, pictures)]


def _fill(
    write: Callable[[_Job], int],
    folder: Path,
    pictures: int,
    seed: int,
    processes: int | None = None,
    size: int = SHARD,
) -> Iterator[int]:
    """Write the shards of so many pictures that a folder lacks; yields the number of each as it is done."""
    present = set(shards_of(folder))
    jobs = [_Job(folder, shard, numbers, seed) for shard, numbers in enumerate(divided(pictures, size))]
    yield from _spread(write, [job for job in jobs if job.shard not in present], processes)


_MOST = 61
"""Processes that Windows lets one wait for."""


def _spread(write: Callable[[Any], int], jobs: list[Any], processes: int | None) -> Iterator[int]:
    """Do jobs in so many processes, as many as there are cores when left out; yields what each returns."""
    workers = min(processes or _cores(), len(jobs), _MOST)
    if workers <= 1:
        yield from map(write, jobs)
        return
    context = get_context("spawn")
    end, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (end,))
    try:
        for done in as_completed([pool.submit(write, job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool as error:
        why = "A process that rendered was killed, most likely for want of memory"
        raise NoMemory(f"{why}. Make room, and run the same command again to resume.") from error
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Return how many cores this process may use, which in a container are few of all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(end: Connection) -> None:
    """Let a worker stop when the other end of a pipe is closed, as it also is when who holds it is killed.

    Ctrl-C reaches all processes of a terminal: what it means is for the first one to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_stop, args=(end,), daemon=True).start()


def _stop(end: Connection) -> None:
    wait([end])
    os._exit(1)


def mask_shards(data: Path, folder: Path, processes: int | None = None) -> Iterator[int]:
    """Write where the entities of every shard show; yields the number of each as it is done.

    A shard is (N, 3, 128, 16) uint8: for each scene the masks (128, 128) of two entities and of what they wear, their
    rows packed into bits; where there is no second entity, or nothing is worn, the mask is empty.
    """
    missing = sorted(set(shards_of(data)) - set(shards_of(folder)))
    yield from _spread(_write_masks, [(data, folder, shard) for shard in missing], processes)


def _write_masks(job: tuple[Path, Path, int]) -> int:
    data, folder, shard = job
    masks = np.zeros((len(scenes := scenes_of(data, shard)), WORN + 1, SIDE, SIDE), bool)
    for row, scene in zip(masks, scenes, strict=True):
        bodies, row[WORN] = silhouettes(scene)
        row[: len(bodies)] = bodies
    with beside(folder / f"{shard:05}.npy") as part:
        np.save(part, np.packbits(masks, axis=-1))
    return shard


def _write_singles(job: _Job) -> int:
    return _write_scenes(job, [training_scene(job.seed, number) for number in job.pictures])


def _write_sets(job: _Job) -> int:
    return _write_scenes(job, [scene for number in _sets_of(job) for scene in training_set(job.seed, number)])


def _write_pairs(job: _Job) -> int:
    return _write_scenes(job, [scene for number in _sets_of(job) for scene in training_pair(job.seed, number)])


def _sets_of(job: _Job) -> range:
    return range(job.pictures.start // SET, job.pictures.stop // SET)


def _write_textures(job: _Job) -> int:
    rng = default_rng((job.seed, 1, job.shard))
    return _write_pixels(job, np.stack([texture(rng) for _ in job.pictures]))


def _write_scenes(job: _Job, scenes: list[Scene]) -> int:
    with beside(job.folder / f"{job.shard:05}.json") as part:
        part.write_text(json.dumps([to_dict(scene) for scene in scenes]), encoding="utf-8")
    return _write_pixels(job, np.stack([render(scene).pixels for scene in scenes]))


def _write_pixels(job: _Job, pixels: NDArray[np.uint8]) -> int:
    with beside(job.folder / f"{job.shard:05}.npy") as part:
        np.save(part, pixels)
    return job.shard


render_shards = partial(_fill, _write_singles)
"""Fills a folder with single scenes, as :func:`_fill` says."""
set_shards = partial(_fill, _write_sets)
"""With sets: SET scenes of each subject, one after the other."""
pair_shards = partial(_fill, _write_pairs)
"""With sets of two subjects."""
texture_shards = partial(_fill, _write_textures)
"""With procedural textures, which have no scenes."""


def render_records(folder: Path, sets: int, pairs: int, seed: int, listener: Listener = silent) -> None:
    """Render what a folder lacks of sets, of pairs, and of their masks; goes on where it was stopped.

    Args:
        folder: that :class:`ClaySets` and :class:`ClayRecords` shall read.
        sets: of four pictures of one subject.
        pairs: sets of four pictures of two subjects.
        seed: of the scenes.
        listener: told how far it is.

    Raises:
        NoMemory: a process that rendered was killed.
        OSError: the disk is full.
    """
    for kind, number, fill in ((SETS, sets, set_shards), (PAIRS, pairs, pair_shards)):
        if not number:
            continue
        total, done = len(divided(number * SET)), len(shards_of(folder / kind))
        for _ in fill(folder / kind, number * SET, seed):
            done += 1
            listener(Progress(f"Rendering {kind}", done, total))
        masked = len(shards_of(folder / MASKS[kind]))
        for _ in mask_shards(folder / kind, folder / MASKS[kind]):
            masked += 1
            listener(Progress(f"Masking {kind}", masked, total))


def shards_of(folder: Path) -> list[int]:
    """Return the numbers of the shards that are complete."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.npy") if path.stem.isdigit())


def scenes_of(folder: Path, shard: int) -> list[Scene]:
    """Return the scenes of a shard, in the order of its pictures."""
    return [from_dict(data) for data in json.loads((folder / f"{shard:05}.json").read_text(encoding="utf-8"))]


def pixels_of(folder: Path, shard: int) -> NDArray[np.uint8]:
    """Return the pictures of a shard, (N, 128, 128, 3) uint8, mapped from disk."""
    pixels: NDArray[np.uint8] = np.load(folder / f"{shard:05}.npy", mmap_mode="r")
    return pixels


def masks_of(folder: Path, shard: int) -> NDArray[np.bool_]:
    """Return the masks of a shard, (N, 3, 128, 128) bool."""
    return np.unpackbits(np.load(folder / f"{shard:05}.npy"), axis=-1).astype(bool)


def mask_of(folder: Path, shard: int, number: int | slice, entity: int) -> NDArray[np.bool_]:
    """Return the mask of one entity of one scene of a shard, (128, 128) bool, or of several scenes, (N, 128, 128)."""
    packed = np.load(folder / f"{shard:05}.npy", mmap_mode="r")[number, entity]
    return np.unpackbits(packed, axis=-1).astype(bool)
