"""The settings of ``export`` and ``import``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from persona.config.fields import Checkpoint
from persona.config.option import Config, Option
from persona.config.words import check_class, check_token
from persona.errors import BadOption

Format = Literal["diffusers", "kohya", "comfyui"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    """Settings of ``export``: write a persona for other programs."""

    persona: Annotated[Path, Option("Folder of the persona, or its name under personas.", positional=True)]
    to: Annotated[Format, Option("Program to write for (A1111 and Forge: kohya).")] = "diffusers"
    merge: Annotated[bool, Option("Write the whole base instead, with the persona merged into it.")] = False
    base: Annotated[str | None, Option("Where the persona's base is, if it is not where it was.")] = None
    out: Annotated[Path, Option("Folder of what is written.")] = Path("exports")
    checkpoint: Checkpoint = None

    def __post_init__(self) -> None:
        """Check that what is merged is for diffusers.

        Raises:
            BadOption: a setting is out of bounds, or ``merge`` contradicts ``to``.
        """
        super().__post_init__()
        if self.merge and self.to != "diffusers":
            raise BadOption(f"--merge writes a pipeline of diffusers, nothing for {self.to}. Leave one of them out.")


@dataclass(frozen=True, kw_only=True)
class ImportConfig(Config):
    """Settings of ``import``: make a persona of another program's LoRA."""

    file: Annotated[Path, Option("The LoRA, a .safetensors file.", positional=True)]
    base: Annotated[str | None, Option("Base that it was made for.")] = None
    class_noun: Annotated[str | None, Option("What it shows, in a word or two.", flag=("--class",))] = None
    token: Annotated[str | None, Option("Its trigger word.")] = None
    out: Annotated[Path | None, Option("Folder of the persona; personas/CLASS-TOKEN when left out.")] = None

    def __post_init__(self) -> None:
        """Check the words that are given.

        Raises:
            BadOption: a setting is out of bounds.
            BadToken: the token or the class noun cannot stand for the subject.
        """
        super().__post_init__()
        if self.class_noun is not None:
            check_class(self.class_noun)
        if self.token is not None:
            check_token(self.token)
