"""The settings of ``compare``, and of ``evaluate``, which has more of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from persona.config.fields import Batch, ExpertResolution, Guidance, Networks, Seed, Steps
from persona.config.option import Config, Option
from persona.config.words import check_class
from persona.errors import BadOption


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Config):
    """Settings of ``compare``: two personas or methods side by side, on the same prompts and seeds."""

    names: Annotated[
        tuple[str, ...],
        Option("Personas by folder or name, or methods: dreambooth, jedi, subject-diffusion, base.", positional=True),
    ]
    photos: Annotated[
        tuple[Path, ...], Option("Folder with photos of the subject; repeat it where personas have several.")
    ] = ()
    class_noun: Annotated[str | None, Option("What the photos show, if no persona says it.", flag=("--class",))] = None
    base: Annotated[str | None, Option("Base that methods draw with; with a persona, where its base is.")] = None
    out: Annotated[Path, Option("Folder of images, scores and report; an interrupted run resumes there.")] = Path(
        "comparison"
    )
    prompts: Annotated[str | None, Option("How many of the prompts, or a file with one prompt per line.")] = "4"
    n: Annotated[int, Option("Images of each prompt.", min=1, max=10_000, flag=("-n",))] = 2
    seed: Seed = 0
    steps: Steps = None
    guidance: Guidance = None
    resolution: ExpertResolution = None
    batch: Batch = None
    networks: Networks = None

    def __post_init__(self) -> None:
        """Check that there is something to compare.

        Raises:
            BadOption: a setting is out of bounds, or there are not two names.
            BadToken: the class noun is empty.
        """
        super().__post_init__()
        if self.class_noun is not None:
            check_class(self.class_noun)
        self._check_names()

    def _check_names(self) -> None:
        if len(set(self.names)) != 2 or len(self.names) != 2:
            raise BadOption("Name the two to compare: persona compare personas/dog-sks base --photos PHOTOS")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(CompareConfig):
    """Settings of ``evaluate``: personas, checkpoints, strengths and methods on one table."""

    names: Annotated[
        tuple[str, ...],
        Option("Personas by folder or name, or methods: dreambooth, jedi, subject-diffusion, base.", positional=True),
    ] = ()
    out: Annotated[Path, Option("Folder of images, scores and report; an interrupted run resumes there.")] = Path(
        "evaluation"
    )
    prompts: Annotated[str | None, Option("How many of the prompts, or a file with one prompt per line.")] = None
    n: Annotated[int, Option("Images of each prompt.", min=1, max=10_000, flag=("-n",))] = 4
    checkpoints: Annotated[bool, Option("Measure every checkpoint.")] = False
    scales: Annotated[bool, Option("Try several strengths.")] = False
    dreambench: Annotated[
        str | None, Option("The paper's protocol: folder of its data set, or clay for the built-in edition.")
    ] = None
    subjects: Annotated[str | None, Option("How many of the data set's subjects, or names with commas.")] = None

    def _check_names(self) -> None:
        if not self.names and self.dreambench is None:
            raise BadOption("Name what to measure: persona evaluate personas/dog-sks --photos PHOTOS")
        if len(set(self.names)) != len(self.names):
            raise BadOption("A name is given twice. Name each persona and method once.")
        for flag, given in (("--photos", self.photos), ("--class", self.class_noun)):
            if given and self.dreambench is not None:
                raise BadOption(f"{flag}: the photos and classes of --dreambench are its own. Leave one of them out.")
        for flag, tried in (("--checkpoints", self.checkpoints), ("--scales", self.scales)):
            if tried and self.names and {"jedi", "subject-diffusion", "base"}.issuperset(self.names):
                raise BadOption(f"{flag} is about personas. Name one, or dreambooth, or leave it out.")
        if self.subjects is not None and self.dreambench is None:
            raise BadOption("--subjects chooses from a data set. Name one with --dreambench.")
