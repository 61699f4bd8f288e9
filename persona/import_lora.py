"""Make a persona of a LoRA that another program has trained."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError, safe_open

from persona import adapter, exchange, families
from persona.config import ImportConfig
from persona.drawing import check_output
from persona.errors import BadBase, BadOption, BadPersona, BadToken
from persona.events import Listener, Note, silent
from persona.families.single import PICKLES
from persona.folder import ADAPTER, RECORD, Persona, folder_for
from persona.identity import OTHERS

_PART = ".import-"
"""How the folder begins that a persona is made in."""


def import_lora(config: ImportConfig, listener: Listener = silent) -> Persona:
    """Make a persona of a file by diffusers, kohya or whoever writes like them.

    Args:
        config: the file, its base, and what it shows; what the file says of itself need not be given.
        listener: told what was in it.

    Raises:
        BadPersona: the file is damaged, no LoRA, or was made for another base.
        BadBase: nobody says which base it is for, or that cannot be found.
        BadToken: nobody says what it shows.
        BadOption: the folder holds something already, or cannot be written to.
        OSError: the disk is full.
    """
    said = _said(config.file)
    config, token, noun = _words(config, said)
    name = config.base or said.get("persona.base")
    if not name:
        raise BadBase(f"{config.file} does not say which base it was made for. Give it: --base sd15")
    out = config.out or folder_for(noun, token)
    check_output(out)
    if out.exists():
        if any(not path.name.startswith(_PART) for path in out.iterdir()):
            raise BadOption(f"{out} holds something already. Choose another folder with --out.")
        for left in out.glob(f"{_PART}*"):  # by one that was killed
            shutil.rmtree(left)
    base = families.outline(name, listener)
    if said.get("persona.base_hash", base.hash) != base.hash:
        raise BadPersona(f"{config.file} was made for another base than {base.name}. Give that one with --base.")
    products = exchange.read(config.file, base)
    if not any(component == base.denoiser_name for component, _ in products):
        raise BadPersona(f"{config.file} adapts text encoders alone, and nothing that draws. Choose another LoRA.")
    make, weights = exchange.to_adapter(products)
    listener(Note(f"{config.file.name} adapts {len(products)} modules of {base.name}, with ranks up to {make.rank}."))
    made = Persona(
        path=out,
        token=token,
        class_noun=noun,
        base=name,
        base_hash=base.hash,
        method="import",
        recommended_scale=_strength(said.get("persona.scale")),
        settings={"file": config.file.name},
    )
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=_PART, dir=out) as part:  # within: the folder may be where the user stands
        learnt = Path(part, ADAPTER)
        learnt.write_bytes(adapter.pack(make, weights))
        replace(made, path=Path(part)).write(learnt)
        for name in (ADAPTER, RECORD):
            Path(part, name).rename(out / name)
    return Persona.open(out)


def _said(path: Path) -> dict[str, str]:
    """Return what a file says of itself.

    Raises:
        BadPersona: it is missing, damaged, or can be run.
    """
    if path.suffix in PICKLES:
        raise BadPersona(f"{path} is a pickle, which can run code and is never loaded. Give a .safetensors file.")
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise BadPersona(f"{path} cannot be read: it is missing, damaged or no safetensors file.") from error


def _words(config: ImportConfig, said: dict[str, str]) -> tuple[ImportConfig, str, str]:
    """Return the trigger word and the class noun, as they were given or as the file says; the config checks them."""
    word, *rest = said.get("modelspec.trigger_phrase", "").split() or [""]
    if any(re.fullmatch(rf"{OTHERS}|photo|.*\W", one, re.IGNORECASE) for one in (word, *rest)):
        word, rest = "", []  # of a sentence, or of a list
    token = config.token or said.get("persona.token") or word
    noun = config.class_noun or said.get("persona.class") or " ".join(rest)
    unsaid = BadToken(f"{config.file} does not say what it shows. Give --class dog, and its trigger word: --token sks")
    if not token or not noun:
        raise unsaid
    try:
        return replace(config, token=token, class_noun=noun), token, noun
    except BadToken:  # by the file: what was given was checked when the config was made
        raise unsaid from None


def _strength(text: str | None) -> float:
    """Return what a file says of its strength, where it is one that could be asked for."""
    try:
        told = float(text or 1)
    except ValueError:
        return 1.0
    return told if 0 <= told <= 4 else 1.0
