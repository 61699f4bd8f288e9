"""Pictures of a class as the frozen base draws it, kept once for all subjects of that class.

They hold the class in its place while a subject is learnt (Ruiz et al., 2208.12242, section 3.3): drawn by the
ancestral sampler from "a CLASS", each from its own seed. The store is addressed by content: a folder is named by all
that decides what its pictures look like, so that none is ever taken for another's. Pictures of other prompts have them
beside them, as captions to be trained on, and names that stay apart when their folders are copied into one.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

from persona.atomic import beside, cache, digest_of, room
from persona.config import PriorsConfig
from persona.drawing import Job, draw, open_base, processes, size_of, whole
from persona.errors import BadOption, out_of_space
from persona.events import Listener, Note, silent
from persona.families import Bits, Family
from persona.placing import any_of
from persona.prompts import tell_cut, tell_unknown


def gen_priors(config: PriorsConfig, listener: Listener = silent) -> list[Path]:
    """Draw what pictures of a class are missing from the store, and return all that were asked for.

    Args:
        config: the class, how many, and how they are drawn.
        listener: told how far it has come.

    Returns:
        ``config.n`` PNG files, shared equally among the prompts.

    Raises:
        BadBase: the base cannot be found, or is damaged.
        BadOption: the store cannot be written to.
        NoSpace: the disk of the store is full. Run again, and it goes on where it was.
    """
    check_store(config.store)
    base = open_base(config.base, listener)
    tell_cut(base, config.prompt, listener)
    tell_unknown(base, config.prompt, [], listener)
    return ensure(config, base, listener)


def ensure(config: PriorsConfig, base: Family, listener: Listener = silent) -> list[Path]:
    """Do as :func:`gen_priors` does, with a base that is loaded already and wears no adapter."""
    how = {
        "steps": config.steps or base.recipe.prior_sample_steps,
        "guidance": base.recipe.guidance if config.guidance is None else config.guidance,
        "size": size_of(base, config.resolution),
    }
    plain = any_of(config.class_noun)
    prompts = tuple(dict.fromkeys(config.prompt)) or (plain,)
    # Whole rounds through the prompts share a seed, so that more pictures only add to those that are there.
    rounds = [*islice(((prompt, seed) for seed in count(config.seed) for prompt in prompts), config.n)]

    def stored(bits: Bits | None) -> list[Job]:
        folders = {prompt: store(config.store) / digest_of(_about(base, prompt, how, bits))[:32] for prompt in prompts}
        ends = {prompt: "" if prompt == plain else f"-{folder.name[:8]}" for prompt, folder in folders.items()}
        return [Job(prompt, seed, folders[prompt] / f"{seed}{ends[prompt]}.png") for prompt, seed in rounds]

    with room(store(config.store)):
        jobs = stored(base.bits)
        missing = [job for job in jobs if not whole(job.path)]
        if missing and base.bits and all(whole(job.path) for job in stored(None)):
            jobs, missing = stored(None), []  # what the whole base drew is as good for its packed copy
        processes().wait_for_everyone()  # all have seen the same pictures missing before the first is drawn
        if len(missing) < len(jobs):
            listener(Note(f"{len(jobs) - len(missing)} of {len(jobs)} class images were there already."))
        with _mended(config.store):
            for prompt, folder in {job.prompt: job.path.parent for job in missing}.items():
                _write(folder / "about.json", json.dumps(_about(base, prompt, how, base.bits), indent=2))
            for job in jobs:
                if job.prompt != plain and not (caption := job.path.with_suffix(".txt")).exists():
                    _write(caption, job.prompt)
        draw(base, missing, listener, "Drawing class images", ancestral=True, batch=config.batch, **how)
    return [job.path for job in jobs]


def store(folder: Path | None) -> Path:
    """Return where the pictures are kept: in the user's cache, unless another folder is named."""
    return folder or cache() / "priors"


def check_store(folder: Path | None = None) -> None:
    """Find out before a base is loaded whether there can be a store; one that is there may hold all that is asked for.

    Args:
        folder: where it is, if not in the user's cache.

    Raises:
        BadOption: it cannot be made.
        OSError: the disk is full.
    """
    with _mended(folder):
        store(folder).mkdir(parents=True, exist_ok=True)


@contextmanager
def _mended(folder: Path | None) -> Iterator[None]:
    """Say what to do where a store cannot be written to."""
    try:
        yield
    except OSError as error:
        if out_of_space(error):
            raise
        hint = "Name another folder with --store."
        if folder is None:
            free = "set XDG_CACHE_HOME to a folder that can be written to"
            hint = f"Class images are kept in the cache: {free}, or train with --prior self."
        raise BadOption(f"{error.filename}: {str(error.strerror).lower()}. {hint}") from error


def _about(base: Family, prompt: str, how: dict[str, Any], bits: Bits | None) -> dict[str, Any]:
    """Return all that decides what the pictures of one prompt look like."""
    sampler = type(base.sampler(ancestral=True)).__name__
    about = {"base": base.hash, "dtype": str(base.dtype), "prompt": prompt, "sampler": sampler, **how}
    start = base.recipe.guidance_start
    return about | ({"bits": bits} if bits else {}) | ({"guidance start": start} if start else {})


def _write(path: Path, told: str) -> None:
    """Write beside pictures what they are."""
    with beside(path) as part:
        part.write_text(told + "\n", encoding="utf-8")
