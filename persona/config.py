"""The settings of each command, declared once: command-line options, Python arguments and the saved record.

``None`` stands for what the base recommends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from persona.errors import BadOption, BadPrompt, BadToken
from persona.option import Config, Option
from persona.placing import read_masks, read_subjects

MAX_PROMPT = 2000
"""Characters of a prompt; no text encoder reads nearly as many."""

Adapter = Literal["lora", "dora", "rslora", "loha", "lokr", "oft"]
Optimizer = Literal["auto", "adamw8bit", "paged-adamw8bit", "adamw"]
Quantize = Literal["auto", "none", "nf4", "int8"]
Precision = Literal["auto", "bf16", "fp32"]
Format = Literal["diffusers", "kohya", "comfyui"]


def _check_class(noun: str) -> None:
    if not noun.strip():
        raise BadToken("--class is empty. Name what the photos show in a word or two: --class dog")
    if not noun.isprintable() or len(noun) > 64 or "[" in noun:
        raise BadToken(f"--class {noun[:64]!r} is no class noun. Name what the photos show: --class dog")


def _check_token(token: str) -> None:
    if not token or any(letter.isspace() for letter in token):
        raise BadToken(f"--token {token!r} must be one word without a space. Try --token sks, or leave it out.")
    if not token.isprintable() or len(token) > 32 or set(token) & set('[]/\\<>:"|?*') or token.startswith("."):
        raise BadToken(f"--token {token[:32]!r} must be a short word of letters and digits. Try --token sks.")


def _is_text(prompt: str) -> bool:
    """Tell text from bytes that were none: Python passes those on as halves of characters."""
    return "\0" not in prompt and not any("\ud800" <= letter <= "\udfff" for letter in prompt)


def check_prompts(prompts: tuple[str, ...]) -> None:
    """Make sure that prompts can be drawn.

    Raises:
        BadPrompt: one is empty, far too long, or no text at all.
    """
    for prompt in prompts:
        if not prompt.strip():
            raise BadPrompt('A prompt is empty. Say what to draw: "a [V] dog on the beach"')
        if not _is_text(prompt):
            raise BadPrompt(f"The prompt {prompt[:60]!a} is no text that can be written down. Type it again.")
        if "../" in prompt or "..\\" in prompt:
            raise BadPrompt(f"The prompt {prompt[:60]!r} looks like a path. Give a file of prompts with --prompts.")
        if len(prompt) > MAX_PROMPT:
            raise BadPrompt(f"A prompt has {len(prompt)} characters; at most {MAX_PROMPT} are read. Shorten it.")


Class = Annotated[str, Option("What the subject is, in a word or two: dog, teapot, toy car.", flag=("--class",))]
Base = Annotated[str, Option("Base model: clay (built in), a short name, a hub id, a folder or a file.")]
OwnBase = Annotated[str | None, Option("Bare base to draw with; after --persona, where that persona's base is.")]
Seed = Annotated[int, Option("Random seed.", min=0, max=2**63 - 1)]
Steps = Annotated[int | None, Option("Sampling steps.", min=1, max=10_000)]
Guidance = Annotated[float | None, Option("How strongly the prompt is followed.", min=0, max=100)]
Resolution = Annotated[int | None, Option("Side of the pictures, in pixels.", min=16, max=8192)]
Batch = Annotated[int | None, Option("Pictures drawn at a time.", min=1, max=4096, expert=True)]
Scale = Annotated[float | None, Option("Strength of the persona: 0 is the bare base.", min=0, max=4)]
Subjects = Annotated[
    tuple[str, ...],
    Option("Subject of one picture: V=dog.png; at a place: V=dog.png@0.1,0.3,0.6,0.9. Up to two, no training."),
]
Masks = Annotated[
    tuple[str, ...],
    Option("Where a subject is in its picture: V=mask.png, or a box as V=0.1,0.3,0.6,0.9.", expert=True),
]
ImageGuidance = Annotated[
    float | None, Option("How strongly references are followed; 1 is plainly.", min=0, max=100, expert=True)
]
SubjectDiffusion = Annotated[
    Path | None, Option("Folder of the weights that draw subjects, if not the base's own.", expert=True)
]
Negative = Annotated[str, Option("What the pictures should not show.")]

TrainingSteps = Annotated[int | None, Option("Training steps.", min=1, max=1_000_000)]
Prior = Annotated[str, Option("Pictures that keep the class as it was: generated, self, none, folder:DIR.")]
Priors = Annotated[int | None, Option("How many pictures of the class.", min=1, max=100_000)]
Rank = Annotated[int | None, Option("Rank of the adapter: how much it can hold.", min=1, max=4096)]
StepBatch = Annotated[int | None, Option("Photos in a step.", min=1, max=4096)]
TrainingResolution = Annotated[int | None, Option("Side of the training pictures, in pixels.", min=16, max=8192)]
TextEncoder = Annotated[bool | None, Option("Adapt the text encoder too.")]
AdapterKind = Annotated[Adapter, Option("Kind of adapter.", expert=True)]
OptimizerKind = Annotated[Optimizer, Option("Optimizer.", expert=True)]
ForwardPrecision = Annotated[Precision, Option("Number format of the forward pass.", expert=True)]
Bits = Annotated[Quantize, Option("Bits of the frozen base: 4, 8 or all.", expert=True)]
Checkpointing = Annotated[bool | None, Option("Trade time for memory.", expert=True)]
Offload = Annotated[bool | None, Option("Keep idle networks off the device.", expert=True)]
Tiling = Annotated[bool | None, Option("Encode and decode large pictures in tiles.", expert=True)]
Accumulate = Annotated[int, Option("Batches whose gradients make a step.", min=1, max=4096, expert=True)]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Settings of ``train``: teach a base model one subject from a few photos."""

    photos: Annotated[Path, Option("Folder with three to six photos of the subject.", positional=True)]
    class_noun: Class
    token: Annotated[str | None, Option("Rare word that will stand for the subject; chosen when left out.")] = None
    base: Base = "clay"
    out: Annotated[Path | None, Option("Folder of the persona; personas/CLASS-TOKEN when left out.")] = None
    steps: TrainingSteps = None
    prior: Prior = "generated"
    priors: Priors = None
    rank: Rank = None
    batch: StepBatch = None
    resolution: TrainingResolution = None
    text_encoder: TextEncoder = None
    seed: Seed = 0
    fresh: Annotated[bool, Option("Discard an unfinished run of other settings in the same folder.")] = False

    prior_weight: Annotated[float, Option("How much the class pictures count.", min=0, max=100, expert=True)] = 1.0
    learning_rate: Annotated[float | None, Option("Learning rate.", min=0, max=10, expert=True)] = None
    text_learning_rate: Annotated[
        float | None, Option("Learning rate of the text encoder.", min=0, max=10, expert=True)
    ] = None
    alpha: Annotated[float | None, Option("Scale of the adapter; the rank by default.", min=0, expert=True)] = None
    adapter: AdapterKind = "lora"
    targets: Annotated[
        tuple[str, ...] | None, Option("Modules that are adapted; repeat for more.", flag=("--target",), expert=True)
    ] = None
    optimizer: OptimizerKind = "auto"
    precision: ForwardPrecision = "auto"
    quantize: Bits = "auto"
    gradient_checkpointing: Checkpointing = None
    offload: Offload = None
    tiling: Tiling = None
    accumulate: Accumulate = 1
    snr_gamma: Annotated[float | None, Option("Min-SNR weighting; 5 is usual.", min=0, max=1000, expert=True)] = None
    crops: Annotated[int | None, Option("Crops encoded of each photo.", min=1, max=1000, expert=True)] = None
    flip: Annotated[bool, Option("Mirror half of the crops.", expert=True)] = True
    checkpoint_every: Annotated[int | None, Option("Steps between checkpoints.", min=1, expert=True)] = None
    score_every: Annotated[
        int | None, Option("Steps between previews that are scored; 0 for none.", min=0, expert=True)
    ] = None
    from_jedi: Annotated[bool, Option("Learn from views that JeDi draws of the subject, too.", expert=True)] = False

    def __post_init__(self) -> None:
        """Check what the bounds alone cannot say.

        Raises:
            BadOption: a setting is out of bounds, or ``prior`` is unknown.
            BadToken: the token or the class noun cannot stand for the subject.
        """
        super().__post_init__()
        _check_class(self.class_noun)
        if self.token is not None:
            _check_token(self.token)
        kind, _, folder = self.prior.partition(":")
        if kind not in ("generated", "self", "none", "folder") or (kind == "folder") != bool(folder):
            raise BadOption(f"--prior is generated, self, none or folder:DIR, not {self.prior!r}.")

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON values, without paths."""
        return super().record() | {"prior": self.prior.partition(":")[0]}


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Config):
    """Settings of ``plan``: tell what a training would take; what they share with ``train`` they mean there."""

    base: Base = "clay"
    vram: Annotated[float | None, Option("Memory of the GPU to plan for, in GB.", min=1, max=10_000)] = None
    every: Annotated[bool, Option("Plan for each base that has a short name.", flag=("--all",))] = False
    photos: Annotated[int, Option("How many photos there are.", min=1, max=10_000)] = 4
    steps: TrainingSteps = None
    prior: Prior = "generated"
    priors: Priors = None
    rank: Rank = None
    batch: StepBatch = None
    resolution: TrainingResolution = None
    text_encoder: TextEncoder = None
    adapter: AdapterKind = "lora"
    optimizer: OptimizerKind = "auto"
    precision: ForwardPrecision = "auto"
    quantize: Bits = "auto"
    gradient_checkpointing: Checkpointing = None
    offload: Offload = None
    tiling: Tiling = None
    accumulate: Accumulate = 1


@dataclass(frozen=True, kw_only=True)
class PriorsConfig(Config):
    """Settings of ``gen-priors``: draw pictures of a class with the frozen base."""

    class_noun: Class
    base: Base = "clay"
    n: Annotated[int, Option("How many pictures of each prompt together.", min=1, max=100_000, flag=("-n",))] = 100
    prompt: Annotated[tuple[str, ...], Option('Prompt, repeat it for diversity; "a CLASS" when left out.')] = ()
    steps: Steps = None
    guidance: Guidance = None
    resolution: Resolution = None
    seed: Seed = 0
    store: Annotated[Path | None, Option("Folder of the pictures that all subjects share.")] = None
    batch: Batch = None

    def __post_init__(self) -> None:
        """Check the class noun and the prompts too.

        Raises:
            BadOption: a setting is out of bounds.
            BadToken: the class noun is empty.
            BadPrompt: a prompt is empty or far too long.
        """
        super().__post_init__()
        _check_class(self.class_noun)
        check_prompts(self.prompt)


@dataclass(frozen=True, kw_only=True)
class SetsConfig(Config):
    """Settings of ``gen-sets``: make sets of pictures of one subject, for a base to learn JeDi from."""

    base: Annotated[str, Option("Base model that draws them: sdxl, say, a hub id, a folder or a file.")]
    out: Annotated[Path, Option("Folder of the sets; a stopped run goes on there.")] = Path("sets")
    n: Annotated[int, Option("Collages that are drawn; each gives a set or none.", min=1, flag=("-n",))] = 1000
    prompts: Annotated[
        Path | None, Option("File that says what they show, a JSON object a line; templates when left out.")
    ] = None
    seed: Seed = 0
    steps: Steps = None
    guidance: Guidance = None
    resolution: Resolution = None
    similarity: Annotated[
        float, Option("Likeness (DINO) that a subject must have to the others of its set.", min=-1, max=1, expert=True)
    ] = 0.6
    quality: Annotated[
        float, Option("Quality (CLIP) that a picture must have; 0.5 is fair.", min=0, max=1, expert=True)
    ] = 0.5
    networks: Annotated[
        Path | None, Option("Folder that holds dino-vits16 and the like, instead of the hub's cache.", expert=True)
    ] = None


def _check_portraits(config: "SampleConfig | InterpolateConfig") -> bool:
    """Tell whether there are subjects of one picture each, and check what is said of them."""
    read_masks(config.mask, read_subjects(config.subject))
    if not config.subject and config.subject_diffusion is not None:
        raise BadOption("--subject-diffusion goes with --subject. Give one, or leave it out.")
    return bool(config.subject)


def _check_alone(config: "SampleConfig | InterpolateConfig", others: Mapping[str, object]) -> None:
    """Make sure that nothing is said of other subjects beside those of one picture each."""
    for flag, given in {"--persona": config.persona or None, "--scale": config.scale, **others}.items():
        if given is not None and given is not False:
            raise BadOption(f"{flag} does not go with --subject, which needs nothing but pictures. Leave one out.")


@dataclass(frozen=True, kw_only=True)
class SddConfig(Config):
    """Settings of ``gen-sdd``: make records of pictures, for a base to learn Subject-Diffusion from."""

    pictures: Annotated[Path, Option("Folder of pictures, or of WebDataset shards (*.tar) of them.", positional=True)]
    out: Annotated[Path, Option("Folder of the records; a stopped run goes on there.")] = Path("records")
    resolution: Annotated[int, Option("Side of the records' pictures, in pixels.", min=16, max=8192)] = 512
    batch: Annotated[int, Option("Pictures that are captioned at a time.", min=1, max=4096)] = 8
    captioner: Annotated[str, Option("A BLIP-2 by its hub id or folder, as all networks below.", expert=True)] = (
        "Salesforce/blip2-opt-2.7b"
    )
    tagger: Annotated[str, Option("Network that tells nouns from other words.", expert=True)] = (
        "vblagoje/bert-english-uncased-finetuned-pos"
    )
    detector: Annotated[str, Option("A Grounding DINO.", expert=True)] = "IDEA-Research/grounding-dino-tiny"
    segmenter: Annotated[str, Option("A SAM.", expert=True)] = "facebook/sam-vit-huge"


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Config):
    """Settings of ``sample``: draw pictures of the subject."""

    prompts: Annotated[
        tuple[str, ...], Option("What to draw; [V] stands for the subject: 'a [V] dog swimming'.", positional=True)
    ] = ()
    prompts_file: Annotated[Path | None, Option("File with a prompt a line.", flag=("--prompts",), expert=True)] = None
    persona: Annotated[Path | None, Option("Folder of the persona; the newest under personas when left out.")] = None
    reference: Annotated[
        Path | None, Option("Folder with pictures of the subject: it is drawn from them, without a training.")
    ] = None
    class_noun: Annotated[str | None, Option("What the references show, in a word or two.", flag=("--class",))] = None
    subject: Subjects = ()
    together: Annotated[bool, Option("All pictures show one subject: the references', or a new one.")] = False
    base: OwnBase = None
    n: Annotated[int, Option("Pictures of each prompt.", min=1, max=10_000, flag=("-n",))] = 4
    seed: Seed = 0
    steps: Steps = None
    guidance: Guidance = None
    scale: Scale = None
    negative: Negative = ""
    out: Annotated[Path, Option("Folder of the pictures.")] = Path("pictures")
    resolution: Annotated[int | None, Option("Side of the pictures, in pixels.", min=16, max=8192, expert=True)] = None
    checkpoint: Annotated[
        int | None, Option("Use the checkpoint of this step instead of the best.", min=1, expert=True)
    ] = None
    batch: Batch = None
    image_guidance: ImageGuidance = None
    balanced: Annotated[bool, Option("Let neither references nor prompt outweigh the other.", expert=True)] = False
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
        if not self.prompts and self.prompts_file is None:
            raise BadPrompt('Say what to draw: persona sample "a [V] dog on the beach"')
        self._check_subject()

    def _check_subject(self) -> None:
        if self.class_noun is not None:
            _check_class(self.class_noun)
        if _check_portraits(self):
            others = {"--reference": self.reference, "--together": self.together, "--class": self.class_noun}
            jedis = {"--jedi": self.jedi, "--balanced": self.balanced}
            _check_alone(self, {**others, **jedis, "--checkpoint": self.checkpoint})
            return
        if self.reference is None and not self.together:
            theirs = {"--class": self.class_noun, "--image-guidance": self.image_guidance, "--jedi": self.jedi}
            hint = "goes with --reference, or with --together. Give one of them, or leave it out."
        else:
            theirs = {"--persona": self.persona, "--scale": self.scale, "--checkpoint": self.checkpoint}
            hint = "is about a persona; --reference and --together need none. Leave one of them out."
        for flag, given in theirs.items():
            if given is not None:
                raise BadOption(f"{flag} {hint}")
        if self.balanced and self.reference is None:
            raise BadOption("--balanced goes with --reference: it weighs those against the prompt. Leave it out.")
        if self.reference is not None and self.class_noun is None:
            raise BadOption("Say what the references show: --class dog")
        if self.together and self.batch is not None:
            raise BadOption("--together draws all pictures at a time. Leave --batch out.")


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig(Config):
    """Settings of ``interpolate``: a smooth series between two things, inferred from what is given."""

    prompts: Annotated[tuple[str, ...], Option("One prompt, or two to go between.", positional=True)]
    persona: Annotated[
        tuple[Path, ...], Option("Folder of a persona, two to go between them; the newest when left out.")
    ] = ()
    subject: Subjects = ()
    base: OwnBase = None
    seeds: Annotated[
        tuple[int, ...], Option("Random seed; give two to go between.", min=0, max=2**63 - 1, flag=("--seed",))
    ] = (0,)
    frames: Annotated[int, Option("Pictures in the series.", min=2, max=10_000)] = 16
    fps: Annotated[float, Option("Frames a second of the animation.", min=0.1, max=120)] = 8.0
    linear: Annotated[bool, Option("Even steps of the parameter instead of steps even to the eye.")] = False
    out: Annotated[Path, Option("Folder of the frames.")] = Path("series")
    steps: Steps = None
    guidance: Guidance = None
    scale: Scale = None
    negative: Negative = ""
    resolution: Annotated[int | None, Option("Side of the pictures, in pixels.", min=16, max=8192, expert=True)] = None
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
        elif len(self.seeds) == 2:
            raise BadOption("--seed: a series with --subject goes between pictures of one seed. Give one.")
        else:
            _check_alone(self, {"--batch": self.batch})


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    """Settings of ``export``: write a persona for other programs."""

    persona: Annotated[Path, Option("Folder of the persona, or its name under personas.", positional=True)]
    to: Annotated[Format, Option("Who shall read it; A1111 and Forge read kohya's.")] = "diffusers"
    merge: Annotated[bool, Option("Write the whole base instead, with the persona merged into it.")] = False
    base: Annotated[str | None, Option("Where the persona's base is, if it is not where it was.")] = None
    out: Annotated[Path, Option("Folder of what is written.")] = Path("exports")
    checkpoint: Annotated[
        int | None, Option("Use the checkpoint of this step instead of the best.", min=1, expert=True)
    ] = None

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
            _check_class(self.class_noun)
        if self.token is not None:
            _check_token(self.token)


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
    base: OwnBase = None
    out: Annotated[Path, Option("Folder of pictures, scores and report; a stopped run goes on there.")] = Path(
        "comparison"
    )
    prompts: Annotated[str | None, Option("How many of the prompts, or a file with a prompt a line.")] = "4"
    n: Annotated[int, Option("Pictures of each prompt.", min=1, max=10_000, flag=("-n",))] = 2
    seed: Seed = 0
    steps: Steps = None
    guidance: Guidance = None
    resolution: Annotated[int | None, Option("Side of the pictures, in pixels.", min=16, max=8192, expert=True)] = None
    batch: Batch = None
    networks: Annotated[
        Path | None, Option("Folder that holds dino-vits16 and the like, instead of the hub's cache.", expert=True)
    ] = None

    def __post_init__(self) -> None:
        """Check that there is something to compare.

        Raises:
            BadOption: a setting is out of bounds, or there are not two names.
            BadToken: the class noun is empty.
        """
        super().__post_init__()
        if self.class_noun is not None:
            _check_class(self.class_noun)
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
    out: Annotated[Path, Option("Folder of pictures, scores and report; a stopped run goes on there.")] = Path(
        "evaluation"
    )
    prompts: Annotated[str | None, Option("How many of the prompts, or a file with a prompt a line.")] = None
    n: Annotated[int, Option("Pictures of each prompt.", min=1, max=10_000, flag=("-n",))] = 4
    checkpoints: Annotated[bool, Option("Try each checkpoint.")] = False
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
        if self.subjects is not None and self.dreambench is None:
            raise BadOption("--subjects chooses from a data set. Name one with --dreambench.")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Config):
    """Settings of ``pretrain clay``: make the built-in base and its judge from nothing."""

    out: Annotated[Path, Option("Folder of the run: what it renders, its states, and the weights in the end.")] = Path(
        "pretraining/clay"
    )
    pictures: Annotated[int, Option("Scenes that are rendered.", min=16, max=10_000_000)] = 200_000
    sets: Annotated[int, Option("Sets of four scenes of one subject, for the judge.", min=16, max=10_000_000)] = 20_000
    autoencoder_steps: Annotated[int, Option("Training steps of the autoencoder.", min=1, max=10_000_000)] = 3_900
    judge_steps: Annotated[int, Option("Training steps of the judge.", min=1, max=10_000_000)] = 4_000
    segmenter_steps: Annotated[int, Option("Training steps of the segmenter.", min=1, max=10_000_000)] = 2_000
    encoder_steps: Annotated[int, Option("Training steps of the encoder.", min=1, max=10_000_000)] = 2_000
    text_steps: Annotated[int, Option("Training steps of the text encoder.", min=1, max=10_000_000)] = 700
    denoiser_steps: Annotated[int, Option("Training steps of the U-Net.", min=1, max=10_000_000)] = 12_000
    seed: Seed = 0
    photos: Annotated[
        Path | None, Option("Folder with photographs to measure the autoencoder on; it never learns from them.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class PretrainMethodConfig(Config):
    """Settings that pretraining has in common for all methods; what it makes is a difference to a base."""

    base: Base = "clay"
    data: Annotated[Path | None, Option("Folder of the shards to learn from; clay renders its own.")] = None
    out: Annotated[Path, Option("Folder of the run: its states, its samples, and the weights in the end.")] = Path(
        "pretraining"
    )
    steps: Annotated[int, Option("Training steps.", min=1, max=10_000_000)] = 8_000
    batch: Annotated[int, Option("Sets that a process takes a step on.", min=1, max=4096)] = 8
    seed: Seed = 0
    accumulate: Annotated[int, Option("Batches whose gradients make a step.", min=1, max=4096, expert=True)] = 1
    learning_rate: Annotated[float | None, Option("Highest learning rate.", min=0, max=10, expert=True)] = None
    targets: Annotated[
        tuple[str, ...], Option("Modules that learn; repeat for more.", flag=("--target",), expert=True)
    ] = ()
    precision: Annotated[Precision, Option("Number format of the forward pass.", expert=True)] = "auto"
    save_every: Annotated[int, Option("Steps between saved states.", min=1, max=1_000_000, expert=True)] = 250


@dataclass(frozen=True, kw_only=True)
class JediConfig(PretrainMethodConfig):
    """Settings of ``pretrain jedi``: teach a base to complete sets of pictures of one subject."""

    out: Annotated[Path, Option("Folder of the run: its states, its samples, and the weights in the end.")] = Path(
        "pretraining/jedi"
    )
    targets: Annotated[
        tuple[str, ...], Option("Modules that learn; repeat for more.", flag=("--target",), expert=True)
    ] = ("attn1",)
    renoised: Annotated[
        bool, Option("Noise the references anew at each step instead of feeding them clean.", expert=True)
    ] = False


@dataclass(frozen=True, kw_only=True)
class SubjectDiffusionConfig(PretrainMethodConfig):
    """Settings of ``pretrain subject-diffusion``: teach a base to draw subjects of one reference each."""

    out: Annotated[Path, Option("Folder of the run: its states, its samples, and the weights in the end.")] = Path(
        "pretraining/subject-diffusion"
    )
    batch: Annotated[int, Option("Pictures that a process takes a step on.", min=1, max=4096)] = 16
    targets: Annotated[
        tuple[str, ...],
        Option("Modules that learn beside the new ones; repeat for more.", flag=("--target",), expert=True),
    ] = ("attn2.to_k", "attn2.to_v")
    encoder: Annotated[
        str, Option("Image encoder: a CLIP by its hub id or folder; the base's own, if left out.", expert=True)
    ] = ""
