"""Pictures of a class as the frozen base draws it, kept once for all subjects of that class.

They hold the class in its place while a subject is learnt (Ruiz et al., 2208.12242, section 3.3): drawn by the
ancestral sampler from "a CLASS", each from its own seed. The store is addressed by content: a folder is named by all
that decides what its pictures look like, so that none is ever taken for another's.
"""

import json
from itertools import count, islice
from pathlib import Path
from typing import Any

from persona.atomic import beside, cache, digest_of, room
from persona.config import PriorsConfig
from persona.drawing import Job, draw, open_base, processes, size_of, whole
from persona.events import Listener, Note, silent
from persona.families import Family
from persona.placing import any_of


def gen_priors(config: PriorsConfig, listener: Listener = silent) -> list[Path]:
    """Draw what pictures of a class are missing from the store, and return all that were asked for.

    Args:
        config: the class, how many, and how they are drawn.
        listener: told how far it has come.

    Returns:
        ``config.n`` PNG files, shared equally among the prompts.

    Raises:
        BadBase: the base cannot be found, or is damaged.
        NoSpace: the disk of the store is full. Run again, and it goes on where it was.
        OSError: the store may not be written to.
    """
    return ensure(config, open_base(config.base, listener), listener)


def ensure(config: PriorsConfig, base: Family, listener: Listener = silent) -> list[Path]:
    """Do as :func:`gen_priors` does, with a base that is loaded already and wears no adapter."""
    how = {
        "steps": config.steps or base.recipe.ancestral_steps,
        "guidance": base.recipe.guidance if config.guidance is None else config.guidance,
        "size": size_of(base, config.resolution),
    }
    prompts = tuple(dict.fromkeys(config.prompt)) or (any_of(config.class_noun),)
    # Whole rounds through the prompts share a seed, so that more pictures only add to those that are there.
    rounds = ((prompt, seed) for seed in count(config.seed) for prompt in prompts)
    with room(store(config)):
        folders = {prompt: _folder(config, base, prompt, how) for prompt in prompts}
        jobs = [Job(prompt, seed, folders[prompt] / f"{seed}.png") for prompt, seed in islice(rounds, config.n)]
        missing = [job for job in jobs if not whole(job.path)]
        processes().wait_for_everyone()  # all have seen the same pictures missing before the first is drawn
        if len(missing) < len(jobs):
            listener(Note(f"{len(jobs) - len(missing)} of {len(jobs)} class images were there already."))
        draw(base, missing, listener, "Drawing class images", ancestral=True, batch=config.batch, **how)
    return [job.path for job in jobs]


def store(config: PriorsConfig) -> Path:
    """Return where the pictures are kept: in the user's cache, unless the config names another folder."""
    return config.store or cache() / "priors"


def _folder(config: PriorsConfig, base: Family, prompt: str, how: dict[str, Any]) -> Path:
    """Return the folder of the pictures of one prompt, with a file for people that says what they are."""
    sampler = type(base.sampler(ancestral=True)).__name__
    about = {"base": base.hash, "dtype": str(base.dtype), "prompt": prompt, "sampler": sampler, **how}
    about |= {"bits": base.bits} if base.bits else {}
    key = digest_of(about)
    folder = store(config) / key[:32]
    if not (folder / "about.json").exists():
        with beside(folder / "about.json") as part:
            part.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return folder
