"""Who is drawn: a persona, the subject of references, those of portraits, a new one, or nobody but the base."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from persona import adapter, photos, portraits, references
from persona.config import SampleConfig
from persona.drawing import Artist, open_base, size_of
from persona.errors import BadBase, BadPersona, BadPrompt
from persona.events import Listener, Note, silent
from persona.families import Family, blueprint
from persona.folder import Persona
from persona.identity import bare, fill, mentions
from persona.methods.guidance import IMAGE_GUIDANCE
from persona.methods.jedi import STORE, JeDi
from persona.placing import check_single, named


@dataclass(frozen=True)
class Sitter:
    """Who is drawn.

    Attributes:
        base: what reads the prompts.
        artist: the base itself with what it wears, or a method on it.
        prompts: as the artist takes them.
        facts: who it is, for the pictures to carry.
        own: words that stand for it.
        how: settings that are the artist's alone.
        read: the prompts as the text encoders read them, where that is not what the artist takes.
    """

    base: Family
    artist: Artist
    prompts: list[str]
    facts: Mapping[str, str]
    own: Collection[str] = ()
    how: Mapping[str, Any] = field(default_factory=dict)
    read: Sequence[str] = ()


def sitter(config: SampleConfig, listener: Listener) -> Sitter:
    """Find out who is drawn, and load the base and whatever draws on it.

    Raises:
        PersonaError: as by :func:`persona.sample.sample`.
    """
    if config.subject:
        return _portrayed(config, listener)
    check_single(config.prompts)
    if config.reference or config.together:
        return _shown(config, listener)
    return _learnt(config, listener)


def _learnt(config: SampleConfig, listener: Listener) -> Sitter:
    """Let the base wear a persona, where one is drawn."""
    persona = _persona(config, listener)
    filled = [spoken(prompt, persona, listener) for prompt in config.prompts]
    how = {"negative": spoken(config.negative, persona, listener)} if "V" in named(config.negative) else {}
    base = base_of(persona, config.base, listener, negative=config.negative)
    if persona is None:
        return Sitter(base, base, filled, {}, how=how)
    wear(base, persona, step=config.checkpoint)
    adapter.scale(base, persona.recommended_scale if config.scale is None else config.scale)
    told = facts_of(persona, step=config.checkpoint, scale=config.scale)
    return Sitter(base, base, filled, told, [persona.token], how)


def _persona(config: SampleConfig, listener: Listener) -> Persona | None:
    if config.persona is None and config.base is not None:
        return None
    persona = Persona.open(config.persona) if config.persona else Persona.newest()
    persona.weights(config.checkpoint)  # is it there at all, before the base is loaded
    tell_drawn(persona, listener)
    return persona


def tell_drawn(persona: Persona, listener: Listener) -> None:
    """Say which persona is drawn, which may be the newest one, and how prompts call its subject."""
    subject = f"[V] {persona.class_noun} is {persona.token} {persona.class_noun}"
    listener(Note(f"Drawing {persona.path} on {persona.base}: {subject}."))


def spoken(prompt: str, persona: Persona | None, listener: Listener) -> str:
    """Return a prompt as a base reads it that wears a persona, or none; warn where it does not name the subject.

    Raises:
        BadPrompt: it names one, and there is no persona.
    """
    if persona is None:
        if "V" in named(prompt):
            raise BadPrompt("[V] stands for a persona's subject. Name one with --persona, or leave [V] out.")
        return prompt
    filled = fill(prompt, persona.token, persona.class_noun, listener)
    if not mentions(filled, persona.token):
        hint = f'Your subject is "[V] {persona.class_noun}".'
        listener(Note(f"{prompt[:60]!r} has no [V], so it shows what the base makes of it. {hint}", warning=True))
    return filled


def facts_of(persona: Persona, *, step: int | None = None, scale: float | None = None) -> dict[str, str]:
    """Return what pictures carry of a persona.

    Args:
        persona: that is drawn.
        step: checkpoint that is worn; ``None`` for the chosen one.
        scale: strength, where another than the recommended one is asked for.
    """
    return {
        "persona": persona.path.resolve().name,
        "token": persona.token,
        "class": persona.class_noun,
        "step": str(step or persona.step),
        "scale": str(persona.recommended_scale if scale is None else scale),
    }


def _shown(config: SampleConfig, listener: Listener) -> Sitter:
    """Let JeDi look at references, where there are any; without, it makes a subject up."""
    noun, facts, how = config.class_noun, {"method": "jedi"}, dict[str, Any]()
    prompts = [_bare(prompt, noun, listener) for prompt in config.prompts]
    found = photos.pictures(config.reference, listener) if config.reference else []
    STORE.check(blueprint(config.base or "clay", listener), config.jedi)
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
    return Sitter(base, jedi, prompts, facts, how=how)


def _bare(prompt: str, noun: str | None, listener: Listener) -> str:
    """Say what a picture shows to who knows from elsewhere which subject it is."""
    if noun is None:
        if "V" in named(prompt):
            raise BadPrompt("Here [V] is replaced by the class noun. Name it with --class, or leave [V] out.")
        return prompt
    said = bare(prompt, noun)
    if not mentions(said, noun):
        hint = f"Write [V] {noun}, or the subject may be missing."
        listener(Note(f"{prompt[:60]!r} does not say {noun}. {hint}", warning=True))
    return said


def _portrayed(config: SampleConfig, listener: Listener) -> Sitter:
    """Let Subject-Diffusion look at one picture of each subject."""
    seen = portraits.portray(config, config.prompts, listener)
    how = {"portraits": seen.portraits, "image_guidance": seen.guidance}
    read = [seen.method.spoken(prompt) for prompt in config.prompts]
    return Sitter(seen.method.base, seen.method, list(config.prompts), seen.facts, seen.method.fusion.words, how, read)


def base_of(
    persona: Persona | None,
    name: str | None,
    listener: Listener = silent,
    opener: Callable[..., Family] = open_base,
    *,
    negative: str = "",
) -> Family:
    """Load the base of a persona, and make sure that it is that one.

    Args:
        persona: what is to be drawn; ``None`` for a bare base.
        name: where the base is on this machine; ``None`` for where the persona says.
        listener: told what is fetched.
        opener: loads it; to draw with when left out.
        negative: what the pictures shall not show.

    Raises:
        BadOption: the base cannot be led away from that; said before it is loaded.
        BadPersona: it is another than the persona was made for.
        BadBase: it is not here, or is damaged.
    """
    where = name or (persona.base if persona else "clay")
    try:
        if negative:
            blueprint(where, listener).check_negative(negative)
        base = opener(where, listener=listener)
    except BadBase as error:
        if persona is None:
            raise
        raise BadBase(f"{persona.path} needs the base {persona.base}: say where it is with --base. {error}") from error
    if persona and base.hash != persona.base_hash:
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
