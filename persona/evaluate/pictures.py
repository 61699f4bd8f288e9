"""What is drawn for an evaluation, each picture once: a run that was stopped finds again what it had."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.atomic import beside, digest_of
from persona.config import EvaluateConfig
from persona.drawing import Job, Size, draw, processes, size_of, whole
from persona.evaluate.entrants import Entrant
from persona.evaluate.subjects import Prompt
from persona.events import Listener
from persona.families import Family
from persona.folder import slug

CLASS_PICTURES = 4
"""Pictures of the bare class for each one that is drawn of another prompt: PRES is measured on one prompt alone."""
ABOUT = "about.json"


@dataclass(frozen=True)
class How:
    """How everybody draws.

    Attributes:
        n: pictures of each prompt.
        seed: of the first of them; the others follow.
        steps: of the sampler.
        guidance: towards the prompt.
        size: width and height in pixels.
        batch: pictures at a time; ``None`` for as many as memory bears.
    """

    n: int
    seed: int
    steps: int
    guidance: float
    size: Size
    batch: int | None

    def seeds(self, prompt: Prompt) -> range:
        """Return the seeds of a prompt."""
        return range(self.seed, self.seed + self.n * (CLASS_PICTURES if prompt.kind == "class" else 1))


def how_of(config: EvaluateConfig, base: Family) -> How:
    """Return how everybody draws who draws with a base.

    Raises:
        BadOption: it cannot draw pictures as large as that.
    """
    return How(
        n=config.n,
        seed=config.seed,
        steps=config.steps or base.recipe.sample_steps,
        guidance=base.recipe.guidance if config.guidance is None else config.guidance,
        size=size_of(base, config.resolution),
        batch=config.batch,
    )


@dataclass(frozen=True)
class Drawn:
    """A picture that was drawn.

    Attributes:
        prompt: what it should show.
        seed: that it was drawn with.
        path: PNG file.
    """

    prompt: Prompt
    seed: int
    path: Path


@dataclass(frozen=True)
class Series:
    """All that an entrant drew.

    Attributes:
        folder: of the pictures.
        pictures: in the order of prompts and seeds.
        learning: seconds that it took to learn the subject; ``None`` where that is not known.
        drawing: seconds a picture; likewise.
    """

    folder: Path
    pictures: Sequence[Drawn]
    learning: float | None
    drawing: float | None


def draw_all(entrant: Entrant, prompts: Sequence[Prompt], how: How, out: Path, listener: Listener) -> Series:
    """Draw what is missing of an entrant's pictures; several processes share the work.

    Args:
        entrant: draws.
        prompts: what to draw.
        how: how to draw it.
        out: gets a folder for the entrant, named by all that decides what its pictures look like.
        listener: told how far it is.

    Raises:
        OSError: the disk is full. Run again, and it goes on where it was.
    """
    about = _about(entrant, how)
    key = digest_of(about)
    folder = out / "pictures" / f"{slug(entrant.label)}-{key[:12]}"
    pictures = [
        Drawn(prompt, seed, folder / f"{file_name(entrant.text(prompt))}-{seed}.png")
        for prompt in prompts
        for seed in how.seeds(prompt)
    ]
    texts = {one.path: Job(entrant.text(one.prompt), one.seed, one.path, _metadata(entrant, one)) for one in pictures}
    missing = [job for path, job in texts.items() if not whole(path)]
    processes().wait_for_everyone()  # all have seen the same pictures missing before the first is drawn
    spent = _read(folder / ABOUT)
    started = time.perf_counter()
    if missing:
        stage = f"Drawing {entrant.label}"
        with entrant.open(how.size) as artist:
            draw(
                artist, missing, listener, stage, steps=how.steps, guidance=how.guidance, size=how.size, batch=how.batch
            )
    spent = {
        **about,
        "learning": spent.get("learning") if entrant.learning is None else entrant.learning,
        "seconds": spent.get("seconds", 0.0) + (time.perf_counter() - started if missing else 0.0),
        "drawn": spent.get("drawn", 0) + len(missing),
    }
    if processes().is_main_process:
        with beside(folder / ABOUT) as part:
            part.write_text(json.dumps(spent, indent=2) + "\n", encoding="utf-8")
    return Series(folder, pictures, spent["learning"], spent["seconds"] / spent["drawn"] if spent["drawn"] else None)


def _about(entrant: Entrant, how: How) -> dict[str, Any]:
    return {
        "base": entrant.base.hash,
        "dtype": str(entrant.base.dtype),
        **({"bits": entrant.base.bits} if entrant.base.bits else {}),
        **entrant.decides,
        "steps": how.steps,
        "guidance": how.guidance,
        **({"guidance start": start} if (start := entrant.base.recipe.guidance_start) else {}),
        "size": how.size,
    }


def file_name(text: str) -> str:
    """Return the name of files that belong to a text: no two texts share one, however long they are."""
    return f"{slug(text)[:40]}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


def _metadata(entrant: Entrant, one: Drawn) -> Mapping[str, str]:
    return {"prompt": entrant.text(one.prompt), "seed": str(one.seed), "drawn by": entrant.label}


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
