"""Draw the subject: each picture from its own seed, so that any of them can be drawn again alone."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from persona import __version__, adapter, photos, references
from persona.config import InterpolateConfig, SampleConfig
from persona.drawing import (
    Artist,
    Job,
    Size,
    check_output,
    draw,
    draw_together,
    free_names,
    open_base,
    processes,
    save,
    size_of,
)
from persona.errors import BadBase, BadPersona, BadPrompt
from persona.events import Listener, Note, silent
from persona.families import Family
from persona.folder import Persona, slug
from persona.identity import bare, fill, mentions
from persona.methods.jedi import IMAGE_GUIDANCE, JeDi
from persona.sheet import Row, sheet

MOST_IN_GRID = 200
"""Pictures from which there is no grid any more."""


@dataclass(frozen=True)
class Picture:
    """What was drawn.

    Attributes:
        path: the PNG file; it carries the settings as metadata.
        prompt: as it was given, with ``[V]``.
        seed: draws it again, alone, with the same settings.
    """

    path: Path
    prompt: str
    seed: int


@dataclass(frozen=True)
class _Sitter:
    """Who is drawn.

    Attributes:
        base: what reads the prompts.
        artist: the base itself with what it wears, or a method on it.
        prompts: as the base shall read them.
        facts: who it is, for the pictures to carry.
        own: words that stand for it.
        how: settings that are the artist's alone.
    """

    base: Family
    artist: Artist
    prompts: list[str]
    facts: Mapping[str, str]
    own: Collection[str] = ()
    how: Mapping[str, Any] = field(default_factory=dict)


def sample(config: SampleConfig, listener: Listener = silent) -> list[Picture]:
    """Draw pictures of a persona, of what references show, of one new subject, or of a bare base.

    Several processes share the work; each returns the whole list.

    Args:
        config: prompts, persona or references, and how to draw.
        listener: told who is drawn, and how far it has come.

    Returns:
        ``config.n`` pictures of the first prompt, then of the next, in the folder ``config.out``. A grid of all
        of them lies beside.

    Raises:
        BadPrompt: a prompt cannot be drawn.
        BadPersona: the persona is missing, damaged, or was made for another base.
        BadBase: the base cannot be found, is damaged, or has nothing that draws from references.
        BadPhotos: there are no references, or none can be read.
        BadOption: the folder cannot be written to.
        NoMemory: there is too little for so many pictures together.
        OSError: the disk is full.
    """
    config = _with_file(config)
    check_output(config.out)
    sitter = _shown(config, listener) if config.reference or config.together else _learnt(config, listener)
    base = sitter.base
    tell_cut(base, sitter.prompts, listener)
    tell_unknown(base, sitter.prompts, sitter.own, listener)
    size = size_of(base, config.resolution)
    jobs = list(_jobs(config, sitter.prompts, {**drawn_with(config, base, size), **sitter.facts}))
    processes().wait_for_everyone()  # all have chosen the same names before the first is taken
    how: dict[str, Any] = {
        "steps": config.steps,
        "guidance": config.guidance,
        "negative": config.negative,
        "size": size,
        **sitter.how,
    }
    if config.together:
        draw_together(sitter.artist, jobs, listener, **how)
    else:
        draw(sitter.artist, jobs, listener, batch=config.batch, **how)
    prompts = [prompt for prompt in config.prompts for _ in range(config.n)]
    pictures = [Picture(job.path, prompt, job.seed) for job, prompt in zip(jobs, prompts, strict=True)]
    if processes().is_main_process and 1 < len(pictures) <= MOST_IN_GRID:
        _grid(config, pictures, listener)
    return pictures


def _with_file(config: SampleConfig) -> SampleConfig:
    """Add the prompts of a file to those that were given; they are checked as those are."""
    if config.prompts_file is None:
        return config
    return replace(config, prompts=(*config.prompts, *read_prompts(config.prompts_file)), prompts_file=None)


def read_prompts(path: Path) -> tuple[str, ...]:
    """Return the prompts of a file, a line each.

    Raises:
        BadPrompt: it cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = "is no text" if isinstance(error, ValueError) else str(error.strerror).lower()
        raise BadPrompt(f"The prompts in {path} cannot be read: {reason}.") from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise BadPrompt(f"{path} holds no prompt. Write one on each line.")
    return prompts


def _learnt(config: SampleConfig, listener: Listener) -> _Sitter:
    """Let the base wear a persona, where one is drawn."""
    persona = _persona(config, listener)
    filled = [_fill(prompt, persona, listener) for prompt in config.prompts]
    base = base_of(persona, config.base, listener)
    if persona is None:
        return _Sitter(base, base, filled, {})
    wear(base, persona, step=config.checkpoint)
    adapter.scale(base, persona.recommended_scale if config.scale is None else config.scale)
    return _Sitter(base, base, filled, _of(persona, config), [persona.token])


def _shown(config: SampleConfig, listener: Listener) -> _Sitter:
    """Let JeDi look at references, where there are any; without, it makes a subject up."""
    noun, facts, how = config.class_noun, {"method": "jedi"}, dict[str, Any]()
    prompts = [_bare(prompt, noun, listener) for prompt in config.prompts]
    found = photos.pictures(config.reference, listener) if config.reference else []
    base = base_of(None, config.base, listener)
    jedi = JeDi.load(base, config.jedi)
    number = len(prompts) * config.n if config.together else 1
    if config.together:
        facts["together"] = str(number)
    if found and noun:
        references.tell_odd(base, found, noun, listener)
        size = size_of(base, config.resolution)
        known = references.fitting(jedi, references.prepare(base, found, noun, size), number, size, listener)
        strength = IMAGE_GUIDANCE if config.image_guidance is None else config.image_guidance
        how = {"references": known, "image_guidance": strength, "balanced": config.balanced}
        used = [photo.sha256[:12] for photo in found[: len(known.latents)]]
        facts |= {"class": noun, "references": " ".join(used), "image guidance": str(strength)}
        facts |= {"balanced": "yes"} if config.balanced else {}
    return _Sitter(base, jedi, prompts, facts, how=how)


def _bare(prompt: str, noun: str | None, listener: Listener) -> str:
    """Say what a picture shows to who knows from elsewhere which subject it is."""
    if noun is None:
        if "[v]" in prompt.lower():
            raise BadPrompt("[V] stands for no more than the class noun here. Name it with --class, or leave [V] out.")
        return prompt
    said = bare(prompt, noun)
    if not mentions(said, noun):
        hint = f"Write [V] {noun}, or the subject may be missing."
        listener(Note(f"{prompt[:60]!r} does not say {noun}. {hint}", warning=True))
    return said


def _persona(config: SampleConfig, listener: Listener) -> Persona | None:
    if config.persona is None and config.base is not None:
        return None
    persona = Persona.open(config.persona) if config.persona else Persona.newest()
    persona.weights(config.checkpoint)  # is it there at all, before the base is loaded
    listener(Note(f"Drawing {persona.path}: [V] {persona.class_noun} is {persona.token} {persona.class_noun}."))
    return persona


def _fill(prompt: str, persona: Persona | None, listener: Listener) -> str:
    if persona is None:
        if "[v]" in prompt.lower():
            raise BadPrompt("[V] stands for a persona's subject. Name one with --persona, or leave [V] out.")
        return prompt
    filled = fill(prompt, persona.token, persona.class_noun, listener)
    if not mentions(filled, persona.token):
        hint = f'Your subject is "[V] {persona.class_noun}".'
        listener(Note(f"{prompt[:60]!r} has no [V], so it shows what the base makes of it. {hint}", warning=True))
    return filled


def base_of(
    persona: Persona | None,
    name: str | None,
    listener: Listener = silent,
    opener: Callable[..., Family] = open_base,
) -> Family:
    """Load the base of a persona, and make sure that it is that one.

    Args:
        persona: what is to be drawn; ``None`` for a bare base.
        name: where the base is on this machine; ``None`` for where the persona says.
        listener: told what is fetched.
        opener: loads it; to draw with when left out.

    Raises:
        BadPersona: it is another than the persona was made for.
        BadBase: it is not here, or is damaged.
    """
    if persona is None:
        return opener(name or "clay", listener=listener)
    try:
        base = opener(name or persona.base, listener=listener)
    except BadBase as error:
        raise BadBase(f"{persona.path} needs the base {persona.base}: say where it is with --base. {error}") from error
    if base.hash != persona.base_hash:
        raise BadPersona(
            f"{persona.path} was made for another base: {persona.base} with the hash {persona.base_hash[:12]}, "
            f"while {base.name} has {base.hash[:12]}. Give that one, or train on this."
        )
    return base


def wear(base: Family, persona: Persona, *, step: int | None = None, name: str = adapter.NAME) -> None:
    """Attach what a persona has learnt to the base that it was made for.

    Args:
        base: as :func:`base_of` returns it.
        persona: whose weights they are.
        step: checkpoint that they are taken from; ``None`` for the chosen one.
        name: what to call the adapter.

    Raises:
        BadPersona: the weights are missing, damaged or do not fit.
    """
    adapter.load(base, persona.weights(step), name=name)


def tell_cut(base: Family, prompts: Sequence[str], listener: Listener) -> None:
    """Warn of prompts that are longer than any of the base's text encoders reads."""
    for prompt in prompts:
        lengths = [(len(one.encode(prompt)), most) for one, most in zip(base.tokenizers, base.lengths, strict=True)]
        if lengths and all(length > most for length, most in lengths):
            most = max(most for _, most in lengths)
            hint = f"{base.name} reads {most} tokens. Put first what matters, or shorten it."
            listener(Note(f"{prompt[:60]!r} is cut: {hint}", warning=True))


def tell_unknown(base: Family, prompts: Sequence[str], own: Collection[str], listener: Listener) -> None:
    """Warn of words that the base never saw, but for the names of the personas that it wears."""
    unknown = dict.fromkeys(word for prompt in prompts for word in base.unknown_words(prompt))
    names = {word.lower() for word in own}
    if words := ", ".join(word for word in unknown if word not in names):
        listener(Note(f"{base.name} never saw {words}, and will make nothing of it. Say it otherwise.", warning=True))


def drawn_with(config: SampleConfig | InterpolateConfig, base: Family, size: Size) -> dict[str, str]:
    """Return what the pictures of a command share, as texts: with prompt, seed and persona, enough to draw them again.

    Nothing in it tells where the user's files are.
    """
    facts: dict[str, object] = {
        "Software": f"persona {__version__}",
        "negative": config.negative,
        "steps": config.steps or base.recipe.sample_steps,
        "guidance": base.recipe.guidance if config.guidance is None else config.guidance,
        "sampler": type(base.pipe.scheduler).__name__,
        "size": f"{size[0]}x{size[1]}",
        "base": Path(base.name).name if Path(base.name).exists() else base.name,
        "base hash": base.hash,
    }
    return {key: str(fact) for key, fact in facts.items()}


def _of(persona: Persona, config: SampleConfig) -> dict[str, str]:
    return {
        "persona": persona.path.resolve().name,
        "token": persona.token,
        "class": persona.class_noun,
        "step": str(config.checkpoint or persona.step),
        "scale": str(persona.recommended_scale if config.scale is None else config.scale),
    }


def _jobs(config: SampleConfig, filled: list[str], shared: dict[str, str]) -> Iterator[Job]:
    seeds = range(config.seed, config.seed + config.n)
    drawn = [(given, read, seed) for given, read in zip(config.prompts, filled, strict=True) for seed in seeds]
    paths = free_names(config.out, [f"{slug(given)}-{seed}" for given, _, seed in drawn])
    for (given, read, seed), path in zip(drawn, paths, strict=True):
        yield Job(read, seed, path, {"prompt": given, "seed": str(seed), **shared})


def _grid(config: SampleConfig, pictures: list[Picture], listener: Listener) -> None:
    """Lay all pictures out, a row or more for each prompt."""
    rows = []
    for first in range(0, len(pictures), config.n):
        part = pictures[first : first + config.n]
        shown = [(Image.open(picture.path), f"seed {picture.seed}") for picture in part]
        rows.append(Row(part[0].prompt, shown))
    (path,) = free_names(config.out, ["grid"])
    save(sheet(rows), path, {})
    listener(Note(f"All of them side by side: {path}"))
