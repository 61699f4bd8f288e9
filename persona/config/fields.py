"""Fields that several rooms of settings share: each is declared once, and means the same wherever it is asked for."""

from pathlib import Path
from typing import Annotated, Literal

from persona.config.option import Option

Precision = Literal["auto", "bf16", "fp32"]

Class = Annotated[str, Option("What the subject is, in a word or two: dog, teapot, toy car.", flag=("--class",))]
Base = Annotated[str, Option("Base model: clay (built in), a short name, a hub id, a folder or a file.")]
OwnBase = Annotated[str | None, Option("Base to draw with; with a persona, where its base is.")]
Seed = Annotated[int, Option("Random seed.", min=0, max=2**63 - 1)]
# The noise of bases has a thousand levels; samplers with an offset, as most have, step past the last of them at 1000.
Steps = Annotated[int | None, Option("Sampling steps.", min=1, max=999)]
Guidance = Annotated[float | None, Option("How strongly the prompt is followed.", min=0, max=100)]
Resolution = Annotated[int | None, Option("Side of the images, in pixels.", min=16, max=8192)]
ExpertResolution = Annotated[int | None, Option("Side of the images, in pixels.", min=16, max=8192, expert=True)]
Batch = Annotated[int | None, Option("Images in a batch.", min=1, max=4096, expert=True)]
Checkpoint = Annotated[int | None, Option("Use the checkpoint of this step instead of the best.", min=1, expert=True)]
Networks = Annotated[
    Path | None, Option("Folder that holds dino-vits16 and the like, instead of the hub's cache.", expert=True)
]
ForwardPrecision = Annotated[Precision, Option("Number format of the forward pass.", expert=True)]
Accumulate = Annotated[int, Option("Batches accumulated for each step.", min=1, max=4096, expert=True)]
