"""The settings of what is made before a training: pictures of a class, sets of one subject, records of who is where."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from persona.config.fields import Base, Batch, Class, Guidance, Networks, Resolution, Seed, Steps
from persona.config.option import Config, Option
from persona.config.words import check_class, check_prompts
from persona.errors import BadPrompt
from persona.placing import named


@dataclass(frozen=True, kw_only=True)
class PriorsConfig(Config):
    """Settings of ``gen-priors``: draw pictures of a class with the frozen base."""

    class_noun: Class
    base: Base = "clay"
    n: Annotated[int, Option("How many images in all, shared among the prompts.", min=1, max=100_000, flag=("-n",))] = (
        100
    )
    prompt: Annotated[tuple[str, ...], Option('Prompt, repeat it for diversity; "a CLASS" when left out.')] = ()
    steps: Steps = None
    guidance: Guidance = None
    resolution: Resolution = None
    seed: Seed = 0
    store: Annotated[Path | None, Option("Folder of the class images, which all subjects share.")] = None
    batch: Batch = None

    def __post_init__(self) -> None:
        """Check the class noun and the prompts too.

        Raises:
            BadOption: a setting is out of bounds.
            BadToken: the class noun is empty.
            BadPrompt: a prompt is empty, far too long, or about a subject.
        """
        super().__post_init__()
        check_class(self.class_noun)
        check_prompts(self.prompt)
        if subjects := [f"[{name}]" for prompt in self.prompt for name in named(prompt)]:
            told = f"--prompt: {subjects[0]} stands for a subject, and class images show any of the class."
            raise BadPrompt(f"{told} Leave it out.")


@dataclass(frozen=True, kw_only=True)
class SetsConfig(Config):
    """Settings of ``gen-sets``: make sets of pictures of one subject, for a base to learn JeDi from."""

    base: Annotated[str, Option("Base model that draws them: sdxl, say, a hub id, a folder or a file.")]
    out: Annotated[Path, Option("Folder of the sets; an interrupted run resumes there.")] = Path("sets")
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
        float, Option("Quality (CLIP) that an image must have; 0.5 is fair.", min=0, max=1, expert=True)
    ] = 0.5
    networks: Networks = None


@dataclass(frozen=True, kw_only=True)
class SddConfig(Config):
    """Settings of ``gen-sdd``: make records of pictures, for a base to learn Subject-Diffusion from."""

    pictures: Annotated[Path, Option("Folder of images, or of WebDataset shards (*.tar) of them.", positional=True)]
    out: Annotated[Path, Option("Folder of the records; an interrupted run resumes there.")] = Path("records")
    resolution: Annotated[int, Option("Side of the records' images, in pixels.", min=16, max=8192)] = 512
    batch: Annotated[int, Option("Images that are captioned at a time.", min=1, max=4096)] = 8
    captioner: Annotated[str, Option("A BLIP-2 by its hub id or folder, as all networks below.", expert=True)] = (
        "Salesforce/blip2-opt-2.7b"
    )
    tagger: Annotated[str, Option("Network that tells nouns from other words.", expert=True)] = (
        "vblagoje/bert-english-uncased-finetuned-pos"
    )
    detector: Annotated[str, Option("A Grounding DINO.", expert=True)] = "IDEA-Research/grounding-dino-tiny"
    segmenter: Annotated[str, Option("A SAM.", expert=True)] = "facebook/sam-vit-huge"
