"""The judge: a small network that reads clay's pictures, trained on renders alone and never on generated pictures.

It is to clay what CLIP and DINO are to photographs: class, colour, pattern, context, style, view, accessory, and an
embedding in which pictures of one subject lie together (supervised contrastive, Khosla et al. 2020).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from persona.atomic import beside
from persona.clay.layers import Block, convolved
from persona.metrics import recovered

WEIGHTS = "judge.safetensors"
SIDE = 128
EMBEDDING = 128
EVERYWHERE = ("context", "style")
"""Heads that read the whole picture; the others, and the embedding, read where the subject is."""


class Judge(nn.Module):
    """Reads pictures (B, 3, 128, 128) in [-1, 1].

    Attributes:
        heads: the labels that each head tells apart.
        others: embeddings (M, 128) of many subjects of each class, what "any dog" looks like.
        ceiling: mean similarity of two renders of one subject in different scenes.
    """

    def __init__(
        self,
        heads: dict[str, list[str]],
        widths: Sequence[int] = (48, 96, 192),
        depths: Sequence[int] = (2, 2, 5),
    ) -> None:
        super().__init__()
        self.heads = {name: list(labels) for name, labels in heads.items()}
        self.sizes = {"widths": list(widths), "depths": list(depths)}
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0] // 2, 3, stride=2, padding=1)]
        for before, width, depth in zip((widths[0] // 2, *widths), widths, depths, strict=False):
            layers += [convolved(before, width, 2), *(Block(width) for _ in range(depth))]
        self.trunk = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.place = nn.Conv2d(widths[-1], 1, 1)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(2 * widths[-1]) for name in ("picture", "subject")})
        self.readers = nn.ModuleDict(
            {name: nn.Linear(2 * widths[-1], len(labels)) for name, labels in self.heads.items()}
        )
        self.identity = nn.Sequential(nn.Linear(2 * widths[-1], 256), nn.GELU(), nn.Linear(256, EMBEDDING))
        self.others: dict[str, Tensor] = {}
        self.ceiling = 1.0

    def sight(self, pictures: Tensor) -> Tensor:
        """Return what is seen at each of 8x8 places, (B, 192, 8, 8)."""
        seen: Tensor = self.trunk(pictures)
        return seen

    def look(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look at pictures, and then at their subjects.

        Returns:
            What is seen of the whole picture, and of the subject, mean and maximum over their places, each (B, 384) and
            normed; and where the subject is, logits (B, 8, 8).
        """
        grid = self.last(self.sight(pictures))
        place = self.place(grid)
        shares = place.sigmoid()
        subject = grid * shares
        mean = subject.sum((2, 3)) / shares.sum((2, 3)).clamp(min=1)
        whole = self.norms["picture"](torch.cat([grid.mean((2, 3)), grid.amax((2, 3))], 1))
        return whole, self.norms["subject"](torch.cat([mean, subject.amax((2, 3))], 1)), place[:, 0]

    def features(self, pictures: Tensor) -> Tensor:
        """Return what is seen of pictures and of their subjects, (B, 768), normed."""
        return torch.cat(self.look(pictures)[:2], 1)

    def tell(self, whole: Tensor, subject: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return logits (B, labels) of every head, and unit embeddings (B, 128), given what :meth:`look` saw."""
        logits = {name: reader(whole if name in EVERYWHERE else subject) for name, reader in self.readers.items()}
        return logits, normalize(self.identity(subject), dim=1)

    def forward(self, pictures: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return logits (B, labels) of every head, and unit embeddings (B, 128)."""
        whole, subject, _ = self.look(pictures)
        return self.tell(whole, subject)

    def read(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, list[str]], Tensor]:
        """Return the likeliest label of every head for every picture (B, any size), and the embeddings (B, 128)."""
        logits, embeddings = self._look(pictures)
        labels = {name: [known[i] for i in logits[name].argmax(1).tolist()] for name, known in self.heads.items()}
        return labels, embeddings

    def sure_of_place(self, pictures: Sequence[Image.Image]) -> float:
        """Return the probability from 0 to 1 that it gives the likeliest place, in the mean over pictures.

        It is low for what the judge was never shown (Hendrycks and Gimpel 2017, 1610.02136).
        """
        logits, _ = self._look(pictures)
        return float(logits["context"].softmax(1).amax(1).mean())

    @torch.no_grad()
    def _look(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Tensor], Tensor]:
        """Do as :meth:`forward` does, for any number of pictures of any size."""
        parts = [self(as_tensor(pictures[start : start + 64])) for start in range(0, len(pictures), 64)]
        logits = {name: torch.cat([heads[name] for heads, _ in parts]) for name in self.heads}
        return logits, torch.cat([embedding for _, embedding in parts])

    def recovered(self, drawn: Tensor, photos: Tensor, class_noun: str) -> Tensor:
        """Return how much of a subject's identity pictures show; see :func:`persona.metrics.recovered`.

        Args:
            drawn: embeddings (B, 128) of the pictures.
            photos: embeddings (P, 128) of photos of the subject.
            class_noun: whose others are compared with; all classes' where the judge does not know it.

        Returns:
            One number a picture, (B,).
        """
        others = self.others.get(class_noun.lower(), torch.cat(list(self.others.values())))
        return recovered(drawn, photos, others, self.ceiling)

    def save(self, folder: Path) -> None:
        """Write ``judge.safetensors`` to a folder, in float16.

        Raises:
            OSError: it cannot be written.
        """
        weights = {name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}
        weights |= {f"others/{noun}": embeddings.half().contiguous() for noun, embeddings in self.others.items()}
        # One entry: safetensors writes several in an order of its own, and the file could not be made again to the bit.
        made = {"judge": json.dumps({"heads": self.heads, "ceiling": self.ceiling, **self.sizes})}
        with beside(folder / WEIGHTS) as part:
            save_file(weights, part, made)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the judge that was saved to a folder, ready to read."""
        with safe_open(folder / WEIGHTS, "pt") as file:
            made = json.loads(file.metadata()["judge"])
            judge = cls(made["heads"], made["widths"], made["depths"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
        judge.others = {
            name.removeprefix("others/"): tensors.pop(name) for name in list(tensors) if name.startswith("others/")
        }
        judge.ceiling = made["ceiling"]
        judge.load_state_dict(tensors)
        return judge.eval().requires_grad_(False)


def as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures as the judge reads them, (B, 3, 128, 128) in [-1, 1]; those of other sizes are scaled."""
    side = (SIDE, SIDE)
    coloured = [picture.convert("RGB") for picture in pictures]
    sized = [
        picture if picture.size == side else picture.resize(side, Image.Resampling.LANCZOS) for picture in coloured
    ]
    return (
        torch.from_numpy(np.stack([np.asarray(picture) for picture in sized])).permute(0, 3, 1, 2).float() / 127.5 - 1
    )
