"""Write a persona for other programs: its adapter as one file, or its base with the adapter merged into it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save as to_bytes

from persona import adapter, exchange, families
from persona.atomic import keep, scratch
from persona.config import ExportConfig
from persona.drawing import check_output, open_stored
from persona.errors import BadOption
from persona.events import Listener, Note, silent
from persona.exchange.metadata import describe
from persona.families.vocabulary import WORDS, read_words
from persona.folder import Persona
from persona.sitters import base_of, wear

DROPPED: Mapping[str, str] = {
    "dora": "diffusers drops its magnitudes from kohya's files without a word",
    "loha": "diffusers reads no such file",
    "lokr": "diffusers reads no such file from here",
    "oft": "diffusers reads no such file",
}
"""Kinds of adapters that come to nothing, or to something else, elsewhere; and why."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: a file, or the folder of a merged pipeline.
        trigger: the words that call the subject in a prompt.
        strength: to use the file with; 1 for a merged pipeline, which has it within.
    """

    path: Path
    trigger: str
    strength: float


def export(config: ExportConfig, listener: Listener = silent) -> Exported:
    """Write a persona for other programs; a file is verified by reading it back before it gets its name.

    Args:
        config: what, for whom and where to.
        listener: told what is written.

    Raises:
        BadPersona: the persona is missing or damaged, or its base is another than it was made for.
        BadBase: its base cannot be found.
        BadOption: it adapts something that the other program would drop, or the folder cannot be written to.
        OSError: the disk is full.
    """
    persona = Persona.open(config.persona)
    check_output(config.out)
    trigger = f"{persona.token} {persona.class_noun}"
    if config.merge:
        return Exported(_merge(config, persona, listener), trigger, 1.0)
    return Exported(_write(config, persona, listener), trigger, persona.recommended_scale)


def _write(config: ExportConfig, persona: Persona, listener: Listener) -> Path:
    """Write one file, and make sure that it is read as it was meant."""
    make, weights = adapter.read(persona.weights(config.checkpoint))
    if make.kind in DROPPED:
        hint = "Export it with --merge, or train with --adapter lora."
        raise BadOption(f"{persona.path} is a {make.kind}: {DROPPED[make.kind]}. {hint}")
    base = base_of(persona, config.base, listener, families.outline)
    products = exchange.of_adapter(make, weights)
    tensors = exchange.write(products, base, config.to)
    metadata = describe(tensors, persona, base, config.checkpoint or persona.step)
    path = config.out / f"{persona.path.resolve().name}-{config.to}.safetensors"
    with scratch(path) as part:
        part.write_bytes(to_bytes(tensors, metadata))
        exchange.check(part, products, base, config.to)
        listener(Note(f"Verified: {len(products)} modules read back with the weights that were learned."))
        return keep(part, path)


def _merge(config: ExportConfig, persona: Persona, listener: Listener) -> Path:
    """Write the base with the adapter in its weights, each part in the number format that it had."""
    base = base_of(persona, config.base, listener, open_stored)
    wear(base, persona, step=config.checkpoint)
    adapter.scale(base, persona.recommended_scale)
    listener(Note(f"Merging {persona.path} into {base.name}."))
    adapter.merge(base)
    path = config.out / f"{persona.path.resolve().name}-merged"
    with scratch(path) as part:
        part.mkdir()
        base.save(part)
        if (part / WORDS).is_file():  # the trigger word is not one to be warned of any longer
            words = {*read_words(part), *base.unknown_words(persona.token)}
            (part / WORDS).write_text(json.dumps(sorted(words), indent=0) + "\n", encoding="utf-8")
        return keep(part, path)
