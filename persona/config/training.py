"""The settings of ``train``, and of ``plan``, which shares most of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from persona.config.fields import Accumulate, Base, Class, ForwardPrecision, Seed
from persona.config.option import Config, Option
from persona.config.words import check_class, check_token
from persona.errors import BadOption

Adapter = Literal["lora", "dora", "rslora", "loha", "lokr", "oft"]
Optimizer = Literal["auto", "adamw8bit", "adamw"]
Quantize = Literal["auto", "none", "nf4", "int8"]

TrainingSteps = Annotated[int | None, Option("Training steps.", min=1, max=1_000_000)]
Prior = Annotated[str, Option("Prior preservation, which keeps the class: self, generated, none, folder:DIR.")]
Priors = Annotated[int | None, Option("How many class images, if there are any.", min=1, max=100_000)]
Rank = Annotated[int | None, Option("Rank of the adapter: how much it can hold.", min=1, max=4096)]
StepBatch = Annotated[int | None, Option("Photos in a step.", min=1, max=4096)]
TrainingResolution = Annotated[int | None, Option("Side of the training images, in pixels.", min=16, max=8192)]
TextEncoder = Annotated[bool | None, Option("Train the text encoders too: CLIP's, never T5.")]
AdapterKind = Annotated[Adapter, Option("Kind of adapter.", expert=True)]
OptimizerKind = Annotated[Optimizer, Option("Optimizer.", expert=True)]
Bits = Annotated[Quantize, Option("Number format of the frozen base; nf4 is 4 bits, int8 is 8.", expert=True)]
Checkpointing = Annotated[bool | None, Option("Trade time for memory.", expert=True)]
Offload = Annotated[bool | None, Option("Keep idle networks off the device.", expert=True)]
Tiling = Annotated[bool | None, Option("Encode and decode large images in tiles.", expert=True)]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Settings of ``train``: teach a base model one subject from a few photos."""

    photos: Annotated[Path, Option("Folder with three to six photos of the subject.", positional=True)]
    class_noun: Class
    token: Annotated[str | None, Option("Rare word that will stand for the subject; chosen when left out.")] = None
    base: Base = "clay"
    out: Annotated[Path | None, Option("Folder of the persona; personas/CLASS-TOKEN when left out.")] = None
    steps: TrainingSteps = None
    prior: Prior = "self"
    priors: Priors = None
    rank: Rank = None
    batch: StepBatch = None
    resolution: TrainingResolution = None
    text_encoder: TextEncoder = None
    seed: Seed = 0
    fresh: Annotated[
        bool, Option("Start over: discard what the folder holds, even a finished persona. If interrupted, it resumes.")
    ] = False

    prior_weight: Annotated[float, Option("How much prior preservation counts.", min=0, max=100, expert=True)] = 1.0
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
    from_jedi: Annotated[bool, Option("Also learn from views that JeDi draws of the subject.", expert=True)] = False

    def __post_init__(self) -> None:
        """Check what the bounds alone cannot say.

        Raises:
            BadOption: a setting is out of bounds or without effect, or ``prior`` is unknown.
            BadToken: the token or the class noun cannot stand for the subject.
        """
        super().__post_init__()
        check_class(self.class_noun)
        if self.token is not None:
            check_token(self.token)
        kind, _, folder = self.prior.partition(":")
        if kind not in ("self", "generated", "none", "folder") or (kind == "folder") != bool(folder):
            raise BadOption(f"--prior is self, generated, none or folder:DIR, not {self.prior!r}.")
        if kind == "none" and self.prior_weight != 1:
            raise BadOption("--prior-weight has no effect with --prior none. Leave one of them out.")
        if self.prior_weight == 0:
            raise BadOption("--prior-weight 0 would switch prior preservation off. Give --prior none instead.")
        if kind in ("self", "none") and self.priors is not None:
            told = f"--priors counts class images, and --prior {kind} takes none."
            raise BadOption(f"{told} Add --prior generated, or leave --priors out.")
        if self.learning_rate == 0 and (not self.text_encoder or self.text_learning_rate == 0):
            raise BadOption("--learning-rate 0 learns nothing. Give another, or --text-encoder to train that alone.")
        if self.adapter == "oft" and self.alpha is not None:
            raise BadOption("--alpha has no effect on oft adapters: they rotate weights. Leave it out.")
        if self.alpha == 0:
            raise BadOption("--alpha 0 would switch the adapter off. Leave it out: it is the rank then.")

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON values, without paths."""
        return super().record() | {"prior": self.prior.partition(":")[0]}


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Config):
    """Settings of ``plan``: estimate what training would need; what they share with ``train`` they mean there."""

    base: Base = "clay"
    vram: Annotated[float | None, Option("Memory of the GPU to plan for, in GiB.", min=1, max=10_000)] = None
    every: Annotated[bool, Option("Plan for each base that has a short name.", flag=("--all",))] = False
    photos: Annotated[int, Option("How many photos there are.", min=1, max=10_000)] = 4
    steps: TrainingSteps = None
    prior: Prior = "self"
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

    def __post_init__(self) -> None:
        """Check that none is named where all are planned for.

        Raises:
            BadOption: a setting is out of bounds, or ``base`` contradicts ``every``.
        """
        super().__post_init__()
        if self.every and self.base != "clay":
            raise BadOption("--all plans for each base that has a short name. Leave --base out, or --all.")
