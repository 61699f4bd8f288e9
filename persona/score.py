"""What pictures say about a run: identity, prompt, drift, memorisation, and the trade-off between them.

A base that ships a judge of its own is scored by it; others by DINO and CLIP, where these can be loaded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from persona.families import Family

SEEDS = (0, 1)
"""Seeds of the pictures that are drawn of each prompt, the same each time."""

DINO, CLIP = "facebook/dino-vits16", "openai/clip-vit-base-patch32"

_EXPECTED = {
    "a photo of a [V] {class} in the snow": {"context": "snow", "style": "photo"},
    "a [V] {class} on the beach, side view": {"context": "beach", "view": "side"},
    "a [V] {class} on a cobblestone street": {"context": "cobblestone street"},
    "an oil painting of a [V] {class} in the jungle": {"style": "oil painting", "context": "jungle"},
}
"""Prompts of the judge, and what it should read in their pictures."""
_BARE = "a photo of a {class}"


@dataclass(frozen=True)
class Scores:
    """What a set of pictures is worth.

    Attributes:
        identity: how much of the subject they show; by a judge 0 is any of its class and 1 a photo, by DINO the cosine.
        prompt: how well they follow their prompts: the judge's share of right answers, or CLIP's cosine.
        drift: (1 - cos) / 2 between what the base and the adapted base draw for the bare class, 0 to 1.
        memorisation: likeness of their layout to the nearest photo, -1 to 1; near 1 is a copy.
        total: the trade-off by which checkpoints are chosen, higher is better.
    """

    identity: float
    prompt: float
    drift: float
    memorisation: float
    total: float


class Scorer(Protocol):
    """Judges the pictures of a base."""

    prompts: tuple[str, ...]
    """Templates with ``[V]`` and ``{class}`` whose pictures it wants."""
    bare: tuple[str, ...]
    """Templates without ``[V]``, to see what became of the class."""

    def score(self, drawn: Mapping[str, Sequence[Image.Image]], photos: Sequence[Image.Image]) -> Scores:
        """Score pictures, those of each template in the order of ``SEEDS``, against photos of the subject."""


def scorer_for(base: Family, class_noun: str) -> Scorer | None:
    """Return what can judge pictures of a base, before an adapter is attached to it; ``None`` if nothing can."""
    if (base.folder / "judge" / "judge.safetensors").exists():
        return JudgeScorer(base, class_noun)
    try:
        return PhotoScorer(base, class_noun)
    except (OSError, ValueError, ImportError):  # not on this disk
        return None


class JudgeScorer:
    """Scores by the judge that a base ships with."""

    prompts: tuple[str, ...] = tuple(_EXPECTED)
    bare: tuple[str, ...] = (_BARE,)

    def __init__(self, base: Family, class_noun: str) -> None:
        """Draw what the base makes of the bare class."""
        from persona.clay.judge import Judge

        self.judge, self.class_noun = Judge.load(base.folder / "judge"), class_noun
        self.before = self.judge.read(_bare_pictures(base, class_noun))[1]

    def score(self, drawn: Mapping[str, Sequence[Image.Image]], photos: Sequence[Image.Image]) -> Scores:
        """See :class:`Scorer`."""
        _, subject = self.judge.read(photos)
        read = {template: self.judge.read(drawn[template]) for template in (*self.prompts, *self.bare)}
        right = [
            label == expected
            for template, wanted in _EXPECTED.items()
            for head, expected in wanted.items()
            for label in read[template][0][head]
        ]
        shown = torch.cat([read[template][1] for template in self.prompts])
        identity = self.judge.recovered(shown, subject, self.class_noun).mean().item()
        after = read[_BARE][1]
        leak = self.judge.recovered(after, subject, self.class_noun).mean().item()
        prompt = sum(right) / len(right)
        # Pictures have to be of the subject and as asked; a class that turns into the subject costs what it leaks.
        total = math.sqrt(max(identity, 0) * prompt) - max(leak - 0.1, 0)
        pictures = [picture for template in self.prompts for picture in drawn[template]]
        return Scores(identity, prompt, drift(self.before, after), memorisation(pictures, photos), total)


class PhotoScorer:
    """Scores by DINO ViT-S/16 and CLIP ViT-B/32, as the DreamBooth paper does."""

    prompts: tuple[str, ...] = (
        "a photo of a [V] {class} in the snow",
        "a [V] {class} on the beach",
        "a painting of a [V] {class}",
    )
    bare: tuple[str, ...] = (_BARE,)

    def __init__(self, base: Family, class_noun: str) -> None:
        """Load both networks from this disk; a run does not wait for a gigabyte that nobody has asked for.

        Raises:
            OSError: one of them is not here.
        """
        from huggingface_hub import snapshot_download
        from transformers import AutoImageProcessor, AutoModel, CLIPModel, CLIPProcessor

        # By their folders: by name, transformers asks the hub for adapters even where only local files are allowed.
        dino, clip = (snapshot_download(name, local_files_only=True) for name in (DINO, CLIP))
        self.dino: Any = AutoModel.from_pretrained(dino, use_safetensors=True).eval()
        self.prepare: Any = AutoImageProcessor.from_pretrained(dino)
        self.clip: Any = CLIPModel.from_pretrained(clip, use_safetensors=True).eval()
        self.processor: Any = CLIPProcessor.from_pretrained(clip)
        self.class_noun = class_noun
        self.before = self._embed(_bare_pictures(base, class_noun))

    def score(self, drawn: Mapping[str, Sequence[Image.Image]], photos: Sequence[Image.Image]) -> Scores:
        """See :class:`Scorer`."""
        pictures = [picture for template in self.prompts for picture in drawn[template]]
        identity = (self._embed(pictures) @ self._embed(photos).T).mean().item()
        prompt = sum(self._likeness(drawn[template], template) for template in self.prompts) / len(self.prompts)
        moved = drift(self.before, self._embed(drawn[_BARE]))
        # A tenth of DINO and a twentieth of CLIP-T are about as visible (2208.12242, section 4.3).
        return Scores(identity, prompt, moved, memorisation(pictures, photos), identity + 2 * prompt - moved)

    @torch.no_grad()
    def _embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        inputs = self.prepare(images=list(pictures), return_tensors="pt")
        return normalize(self.dino(**inputs).last_hidden_state[:, 0], dim=1)

    @torch.no_grad()
    def _likeness(self, pictures: Sequence[Image.Image], template: str) -> float:
        """Return the mean cosine of pictures and their prompt, the identifier left out: CLIP has never seen it."""
        text = template.replace("[V] ", "").replace("{class}", self.class_noun)
        inputs = self.processor(text=[text], images=list(pictures), return_tensors="pt", padding=True)
        out = self.clip(**inputs)
        return float((normalize(out.image_embeds, dim=1) @ normalize(out.text_embeds, dim=1).T).mean())


def drift(before: Tensor, after: Tensor) -> float:
    """Return (1 - cos) / 2 of unit embeddings (B, D) of pictures of the same prompts and seeds, averaged."""
    return ((1 - (before * after).sum(1)) / 2).mean().item()


def memorisation(drawn: Sequence[Image.Image], photos: Sequence[Image.Image]) -> float:
    """Return the mean over pictures of the correlation with the photo nearest in layout and colour, at 16x16."""
    one, other = _thumbnails(drawn), _thumbnails(photos)
    return float((one @ other.T).max(1).mean())


def _thumbnails(pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    small = np.stack([np.asarray(p.convert("RGB").resize((16, 16), Image.Resampling.BOX), float) for p in pictures])
    flat: NDArray[np.float64] = small.reshape(len(small), -1)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    return flat


def _bare_pictures(base: Family, class_noun: str) -> list[Image.Image]:
    return base.draw([_BARE.replace("{class}", class_noun)] * len(SEEDS), SEEDS)
