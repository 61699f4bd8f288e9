"""The settings of ``pretrain``: of clay, and of each method that a base learns once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from persona.config.fields import Accumulate, Base, ForwardPrecision, Seed
from persona.config.option import Config, Option

Run = Annotated[Path, Option("Folder of the run: its states, its samples, and the weights in the end.")]
Targets = Annotated[tuple[str, ...], Option("Modules that learn; repeat for more.", flag=("--target",), expert=True)]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Config):
    """Settings of ``pretrain clay``: make the built-in base and its judge from nothing."""

    out: Annotated[Path, Option("Folder of the run: what it renders, its states, and the weights in the end.")] = Path(
        "pretraining/clay"
    )
    pictures: Annotated[int, Option("Scenes that are rendered.", min=16, max=10_000_000)] = 36_000
    sets: Annotated[
        int, Option("Sets of four scenes of one subject, for the judge and the encoder.", min=16, max=10_000_000)
    ] = 5_000
    autoencoder_steps: Annotated[int, Option("Training steps of the autoencoder.", min=1, max=10_000_000)] = 3_900
    judge_steps: Annotated[int, Option("Training steps of the judge.", min=1, max=10_000_000)] = 4_000
    segmenter_steps: Annotated[int, Option("Training steps of the segmenter.", min=1, max=10_000_000)] = 1_600
    encoder_steps: Annotated[int, Option("Training steps of the encoder.", min=1, max=10_000_000)] = 1_800
    text_steps: Annotated[int, Option("Training steps of the text encoder.", min=1, max=10_000_000)] = 700
    denoiser_steps: Annotated[int, Option("Training steps of the U-Net.", min=1, max=10_000_000)] = 17_000
    seed: Seed = 0
    photos: Annotated[
        Path | None, Option("Folder with photographs to measure the autoencoder on; it never learns from them.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class PretrainMethodConfig(Config):
    """Settings that pretraining has in common for all methods; what it makes is a difference to a base."""

    base: Base = "clay"
    data: Annotated[Path | None, Option("Folder of the shards to learn from; clay renders its own.")] = None
    out: Run
    steps: Annotated[int, Option("Training steps.", min=1, max=10_000_000)] = 8_000
    batch: Annotated[int, Option("Sets in a batch, of each process.", min=1, max=4096)] = 8
    seed: Seed = 0
    accumulate: Accumulate = 1
    learning_rate: Annotated[float | None, Option("Highest learning rate.", min=0, max=10, expert=True)] = None
    targets: Targets
    start_from: Annotated[
        Path | None,
        Option("Folder of weights to start from; an earlier version of the base may have them.", expert=True),
    ] = None
    precision: ForwardPrecision = "auto"
    save_every: Annotated[int, Option("Steps between saved states.", min=1, max=1_000_000, expert=True)] = 250


@dataclass(frozen=True, kw_only=True)
class JediConfig(PretrainMethodConfig):
    """Settings of ``pretrain jedi``: teach a base to complete sets of pictures of one subject."""

    out: Run = Path("pretraining/jedi")
    targets: Targets = ("attn1",)
    renoised: Annotated[
        bool,
        Option("Noise references to the time of the images that see them, instead of feeding them clean.", expert=True),
    ] = False


@dataclass(frozen=True, kw_only=True)
class SubjectDiffusionConfig(PretrainMethodConfig):
    """Settings of ``pretrain subject-diffusion``: teach a base to draw subjects of one reference each."""

    out: Run = Path("pretraining/subject-diffusion")
    batch: Annotated[int, Option("Images in a batch, of each process.", min=1, max=4096)] = 16
    targets: Annotated[
        tuple[str, ...],
        Option("Modules that learn beside the new ones; repeat for more.", flag=("--target",), expert=True),
    ] = ("attn2.to_k", "attn2.to_v")
    encoder: Annotated[
        str,
        Option(
            "Image encoder: a CLIP, by hub id or folder; drawing looks for the folder's name beside the weights.",
            expert=True,
        ),
    ] = ""
    attention_control: Annotated[
        float, Option("Weight of the loss that keeps attention to a subject where it is.", min=0, max=10, expert=True)
    ] = 0.01
