"""The settings of ``sample`` and ``interpolate``."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from persona.config.fields import Batch, Checkpoint, ExpertResolution, Guidance, OwnBase, Seed, Steps
from persona.config.option import Config, Option
from persona.config.words import check_class, check_prompts, check_text
from persona.errors import BadOption, BadPrompt
from persona.placing import named, read_masks, read_subjects

Scale = Annotated[float | None, Option("Strength of the adapter: 0 is the bare base.", min=0, max=4)]
Subjects = Annotated[
    tuple[str, ...],
    Option("Subject of one image: V=dog.png; at a place: V=dog.png@0.1,0.3,0.6,0.9. Up to two, no training."),
]
Masks = Annotated[
    tuple[str, ...],
    Option("Where a subject is in its image: V=mask.png, or a box to cut it out in: V=0.1,0.3,0.6,0.9.", expert=True),
]
ImageGuidance = Annotated[
    float | None, Option("How strongly references are followed; 1 adds no guidance.", min=0, max=100, expert=True)
]
SubjectDiffusion = Annotated[
    Path | None, Option("Folder of the weights that draw subjects, if not the base's own.", expert=True)
]
Negative = Annotated[str, Option("What the images should not show.")]


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Config):
    """Settings of ``sample``: draw pictures of the subject."""

    prompts: Annotated[
        tuple[str, ...], Option("What to draw; [V] stands for the subject: 'a [V] dog swimming'.", positional=True)
    ] = ()
    prompts_file: Annotated[Path | None, Option("File with one prompt per line.", flag=("--prompts",), expert=True)] = (
        None
    )
    persona: Annotated[
        Path | None, Option("Folder of the persona, or its name under personas; the newest when left out.")
    ] = None
    reference: Annotated[
        Path | None, Option("Folder with images of the subject: it is drawn from them, without training.")
    ] = None
    class_noun: Annotated[str | None, Option("What the references show, in a word or two.", flag=("--class",))] = None
    subject: Subjects = ()
    together: Annotated[bool, Option("Show one subject in all images: that of the references, or a new one.")] = False
    base: OwnBase = None
    n: Annotated[int, Option("Images of each prompt.", min=1, max=10_000, flag=("-n",))] = 4
    seed: Seed = 0
    steps: Steps = None
    guidance: Guidance = None
    scale: Scale = None
    negative: Negative = ""
    out: Annotated[Path, Option("Folder of the images.")] = Path("pictures")
    resolution: ExpertResolution = None
    checkpoint: Checkpoint = None
    batch: Batch = None
    image_guidance: ImageGuidance = None
    balanced: Annotated[bool, Option("Balance image and text guidance (SynCD).", expert=True)] = False
    jedi: Annotated[
        Path | None, Option("Folder of the weights that draw from references, if not the base's own.", expert=True)
    ] = None
    mask: Masks = ()
    subject_diffusion: SubjectDiffusion = None

    def __post_init__(self) -> None:
        """Check the prompts too, and who is drawn.

        Raises:
            BadOption: a setting is out of bounds, or contradicts another.
            BadPrompt: there is no prompt, or one is empty or far too long.
            BadToken: the class noun is empty.
        """
        super().__post_init__()
        check_prompts(self.prompts)
        _check_unwanted(self, self.subject or self.reference)
        if not self.prompts and self.prompts_file is None:
            raise BadPrompt('Say what to draw: persona sample "a [V] dog on the beach"')
        self._check_subject()

    def _check_subject(self) -> None:
        if self.class_noun is not None:
            check_class(self.class_noun)
        if _check_portraits(self):
            others = {"--reference": self.reference, "--together": self.together, "--class": self.class_noun}
            jedis = {"--jedi": self.jedi, "--balanced": self.balanced}
            _check_alone(self, {**others, **jedis, "--checkpoint": self.checkpoint})
            return
        if self.reference is None and not self.together:
            _check_bare(self, {"--scale": self.scale, "--checkpoint": self.checkpoint})
            theirs: dict[str, object] = {"--class": self.class_noun, "--jedi": self.jedi}
            hint = "goes with --reference, or with --together. Give one of them, or leave it out."
        else:
            _check_nameless(self.negative, ("V",))
            theirs = {"--persona": self.persona, "--scale": self.scale, "--checkpoint": self.checkpoint}
            hint = "is about a persona; --reference and --together need none. Leave one of them out."
        for flag, given in theirs.items():
            if given is not None:
                raise BadOption(f"{flag} {hint}")
        for flag, asked in {"--balanced": self.balanced, "--image-guidance": self.image_guidance is not None}.items():
            if asked and self.reference is None:
                raise BadOption(f"{flag} goes with --reference: it weighs those against the prompt. Leave it out.")
        if self.reference is not None and self.class_noun is None:
            raise BadOption("Say what the references show: --class dog")
        if self.together and self.batch is not None:
            raise BadOption("--together draws all images at once. Leave --batch out.")


MOST_FRAMES = 1_000
"""Of a series: what animates them holds all in memory, 3 MB each at 1024 pixels."""


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig(Config):
    """Settings of ``interpolate``: a smooth series between two things, inferred from what is given."""

    prompts: Annotated[tuple[str, ...], Option("One prompt, or two to go between.", positional=True)]
    persona: Annotated[
        tuple[Path, ...], Option("Folder of a persona or its name, two to go between them; the newest when left out.")
    ] = ()
    subject: Subjects = ()
    base: OwnBase = None
    seeds: Annotated[
        tuple[int, ...], Option("Random seed; give two to go between.", min=0, max=2**63 - 1, flag=("--seed",))
    ] = (0,)
    frames: Annotated[int, Option("Images in the series.", min=2, max=MOST_FRAMES)] = 16
    fps: Annotated[float, Option("Frames a second of the animation.", min=0.1, max=120)] = 8.0
    linear: Annotated[bool, Option("Space the frames evenly in the parameter, not to the eye.")] = False
    out: Annotated[Path, Option("Folder of the frames.")] = Path("series")
    steps: Steps = None
    guidance: Guidance = None
    scale: Scale = None
    negative: Negative = ""
    resolution: ExpertResolution = None
    batch: Batch = None
    image_guidance: ImageGuidance = None
    mask: Masks = ()
    subject_diffusion: SubjectDiffusion = None

    def __post_init__(self) -> None:
        """Check that no more than two of each are given.

        Raises:
            BadOption: a setting is out of bounds, or there are more than two of a kind.
            BadPrompt: a prompt is empty or far too long.
        """
        super().__post_init__()
        check_prompts(self.prompts)
        _check_unwanted(self, self.subject)
        for flag, given, least in (
            ("PROMPTS", self.prompts, 1),
            ("--seed", self.seeds, 1),
            ("--persona", self.persona, 0),
        ):
            if not least <= len(given) <= 2:
                raise BadOption(f"{flag}: a series goes between two; {len(given)} were given.")
        if not _check_portraits(self):
            if self.image_guidance is not None:
                raise BadOption("--image-guidance goes with --subject. Give one, or leave it out.")
            _check_bare(self, {"--scale": self.scale})
        elif len(self.seeds) == 2:
            raise BadOption("--seed: a series with --subject goes between images of one seed. Give one.")
        else:
            _check_alone(self, {"--batch": self.batch})


def _check_portraits(config: "SampleConfig | InterpolateConfig") -> bool:
    """Tell whether there are subjects of one picture each, and check what is said of them."""
    subjects = read_subjects(config.subject)
    read_masks(config.mask, subjects)
    if not subjects and config.subject_diffusion is not None:
        raise BadOption("--subject-diffusion goes with --subject. Give one, or leave it out.")
    _check_nameless(config.negative, subjects)
    return bool(subjects)


def _check_nameless(negative: str, subjects: Collection[str]) -> None:
    """Make sure that what a picture shall not show is no subject which a picture shows: guidance sees words alone."""
    for name in named(negative):
        if name in subjects:
            raise BadPrompt(
                f"--negative: [{name}] can only stand for a persona's subject here. Write its noun without it."
            )


def _check_unwanted(config: "SampleConfig | InterpolateConfig", references: object) -> None:
    """Make sure that what pictures shall not show can be read, and is led away from, as by references too."""
    check_text("--negative", config.negative)
    if config.negative and not references and config.guidance is not None and config.guidance <= 1:
        raise BadOption("--negative has no effect at a --guidance of 1 or less. Raise that, or leave one of them out.")


def _check_bare(config: "SampleConfig | InterpolateConfig", theirs: Mapping[str, object]) -> None:
    """Make sure that nothing is said of a persona where a bare base is drawn with."""
    for flag, given in theirs.items():
        if given is not None and config.base is not None and not config.persona:
            raise BadOption(f"{flag} is about a persona. Name one with --persona, or leave it out.")


def _check_alone(config: "SampleConfig | InterpolateConfig", others: Mapping[str, object]) -> None:
    """Make sure that nothing is said of other subjects beside those of one picture each."""
    for flag, given in {"--persona": config.persona or None, "--scale": config.scale, **others}.items():
        if given is not None and given is not False:
            raise BadOption(f"{flag} does not go with --subject, which needs nothing but images. Leave one out.")
