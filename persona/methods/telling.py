"""What Subject-Diffusion joins to a U-Net, so that it can be told of subjects; and its weights."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from persona import encoder
from persona.errors import BadBase
from persona.events import Listener, silent
from persona.families import Conditioning, Family
from persona.identity import rare
from persona.methods.attention_control import AttentionMaps
from persona.methods.casting import Cast, inside
from persona.methods.channels import Channels, first_convolution
from persona.methods.difference import Difference
from persona.methods.fusion import Fusion
from persona.methods.gated import Gates, Slots, Told
from persona.methods.weights import Store
from persona.placing import MOST, named, say

TARGETS = ("attn2.to_k", "attn2.to_v")
"""Modules of the denoiser that differ from the base's: how it reads prompts."""
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Modules of the text encoders that do: all of their linear layers. The paper trains embeddings and norms, too."""
STORE = Store("Subject-Diffusion", "subject-diffusion", frozenset({"targets", "encoder"}))


class Telling:
    """A U-Net base that is told of subjects.

    Attributes:
        base: predicts as it did before wherever it is told of none.
        encoder: sees references.
    """

    def __init__(
        self, base: Family, seen_by: str = "", targets: Sequence[str] = TARGETS, listener: Listener = silent
    ) -> None:
        """Join gates, slots, a new input channel and differences to the weights of a base.

        Args:
            base: stays so until :meth:`remove`.
            seen_by: the image encoder, as :func:`persona.encoder.load` takes it; the base's own when empty.
            targets: modules of the denoiser whose weights may differ from the base's, by the end of their names.
            listener: told what is fetched.

        Raises:
            BadBase: it is no U-Net, is packed, or its tokenizers have no rare words.
            BadOption: it has no module of these names, or there is no such encoder.
        """
        first = first_convolution(base, STORE.title)
        words = list(islice(rare(base.tokenizers), MOST))
        if len(words) < MOST:
            raise BadBase(f"{base.name} has too few rare tokens to stand for subjects. Take clay, sd15 or sdxl.")
        self.encoder = seer = encoder.load(seen_by or str(base.folder), base.device, listener)
        self.base, self.seen_by, self.targets = base, seen_by, tuple(targets)
        width = base.denoiser.config.cross_attention_dim
        self.reading = Difference(base.denoiser, targets)
        self.writing = {name: Difference(one, TEXT_TARGETS) for name, one in base.text_encoders.items()}
        self.channels = Channels(first, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what is new begins the same everywhere
            self.gates = Gates(base.denoiser, width)
            self.slots = Slots(seer.tokens, seer.width, width).to(base.device)
            self.fusion = Fusion(base.text_encoders, base.tokenizers, words, seer.width)
        self.maps = AttentionMaps(base.denoiser)

    def remove(self) -> None:
        """Leave the base as it was."""
        self.maps.remove()
        self.fusion.remove()
        self.gates.remove()
        self.channels.remove()
        for difference in (*self.writing.values(), self.reading):
            difference.remove()

    # Weights

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What learns: the parameters of these that ask for a gradient."""
        own = {"channels": self.channels, "slots": self.slots, "fusion": self.fusion}
        return {"denoiser": self.base.denoiser, **self.base.text_encoders, **own}

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All that was learnt, by name."""
        differences = {"denoiser": self.reading, **self.writing}
        parts = {"channels": self.channels, "slots": self.slots, "fusion": self.fusion, "gates": self.gates.adapters}
        return {
            **{f"{part}.{name}": p for part, one in differences.items() for name, p in one.parameters.items()},
            **{f"{part}.{name}": p for part, one in parts.items() for name, p in one.named_parameters()},
        }

    def save(self) -> bytes:
        """Return what was learnt as the bytes of a safetensors file, in float16."""
        seen_by = Path(self.seen_by).name if Path(self.seen_by).exists() else self.seen_by  # nothing of this machine
        return STORE.write(self.base, {"targets": self.targets, "encoder": seen_by}, self.parameters)

    @classmethod
    def load(cls, base: Family, folder: Path | None = None, listener: Listener = silent) -> Self:
        """Join what was learnt to the base that it was learnt on.

        Args:
            base: see the class.
            folder: with the weights; beside the base's own when left out. An image encoder that was a folder when they
                were made is looked for in there by its name, and then in the current directory.
            listener: told what is fetched.

        Raises:
            BadBase: there are none, or they are damaged or another base's. The base stays as it was.
            BadOption: their image encoder cannot be had.
        """
        home = folder or base.folder / STORE.name
        return STORE.load(
            base, folder, lambda made: cls(base, _encoder(home, made["encoder"]), made["targets"], listener)
        )

    # Subjects

    def spoken(self, prompt: str) -> str:
        """Return a prompt as the text encoders read it: with the words that stand for its subjects."""
        return say(prompt, dict(zip(named(prompt), self.fusion.words, strict=False)))

    def read(self, prompts: Sequence[str], who: Cast) -> Conditioning:
        """Return the conditioning of prompts that speak of subjects, with a gradient."""
        with self.fusion.given(who.features[:, :, 0]):
            return self.base.encode_prompts([self.spoken(prompt) for prompt in prompts])

    def unwanted(self, negative: str, wanted: Conditioning) -> Conditioning:
        """Return what guidance leads away from, as the base's own text encoders read it."""
        with self.plainly():
            return self.base.unwanted(negative, wanted)

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Let the base be as it was, to the bit."""
        with ExitStack() as stack:
            for difference in (self.reading, *self.writing.values()):
                stack.enter_context(difference.without())
            yield

    @contextmanager
    def told(self, who: Cast, placed: Tensor, grid: tuple[int, int]) -> Iterator[None]:
        """Let the next forward passes see subjects, and in the rows that are placed (rows,) their boxes too."""
        tokens = self.slots(who.features[:, :, 1:], who.boxes, who.present)
        within, present = inside(who.boxes, grid), who.present[..., None, None]
        shown = (within * (present & placed[:, None, None, None])).amax(1, keepdim=True)
        with self.gates.given(Told(tokens, within.where(present, 1.0))), self.channels.given(shown):
            yield


def _encoder(home: Path, name: str) -> str:
    """Return what the image encoder of the weights in a folder is loaded by: where it lies beside them, or its name."""
    return str(home / name) if name and (home / name).is_dir() else name
