"""The segmenter: a small U-Net (Ronneberger et al. 2015), which finds the subjects of clay's world in pictures of it.

It tells classes apart, so that two subjects of a picture can be found one by one. It shares nothing with the judge.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle

from persona.atomic import beside
from persona.clay.judge import as_tensor
from persona.clay.layers import Block, convolved
from persona.metrics import Mask

FOLDER, WEIGHTS = "segmenter", "segmenter.safetensors"
"""Where a base's folder holds it, and its file."""
PATCH = 4  # pixels a side that are told by one place of the finest level: quicker than levels of full resolution


class Segmenter(nn.Module):
    """Reads pictures (B, 3, 128, 128) in [-1, 1].

    Attributes:
        classes: nouns that it tells apart; scenery comes before them.
    """

    def __init__(self, classes: Sequence[str], widths: Sequence[int] = (56, 72, 88)) -> None:
        super().__init__()
        self.classes, self.widths = list(classes), list(widths)
        self.stem = nn.Conv2d(3, widths[0], 2 * PATCH, stride=PATCH, padding=PATCH // 2)
        self.levels = nn.ModuleList([nn.Sequential(Block(width), Block(width)) for width in widths])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList([convolved(fine, coarse, 2) for fine, coarse in pairs])
        self.up = nn.ModuleList([convolved(fine + coarse, fine) for fine, coarse in pairs])
        pixels = nn.Conv2d(widths[0], PATCH**2 * (1 + len(self.classes)), 1)
        self.last = nn.Sequential(Block(widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU(), pixels)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits (B, 1 + classes, 128, 128) of what each pixel shows; scenery is first."""
        x = self.levels[0](self.stem(pictures))
        seen = [x]
        for down, level in zip(self.down, self.levels[1:], strict=False):
            seen.append(x := level(down(x)))
        for up, fine in zip(reversed(self.up), reversed(seen[:-1]), strict=True):
            x = up(torch.cat([fine, interpolate(x, scale_factor=2.0)], 1))
        return pixel_shuffle(self.last(x), PATCH)

    @torch.no_grad()
    def masks(self, pictures: Sequence[Image.Image], noun: str | None = None) -> list[Mask]:
        """Return where subjects are in pictures of any sizes.

        Args:
            pictures: what it looks at.
            noun: only subjects of this class; of all of them when left out, or where the segmenter knows it not.

        Returns:
            For each picture a mask of its size, empty where there is nothing.
        """
        found = []
        for picture in pictures:
            chances = self(as_tensor([picture])).softmax(1)
            if noun in self.classes:
                scores = 2 * chances[:, [1 + self.classes.index(noun)]] - 1
            else:
                scores = 1 - 2 * chances[:, :1]
            sized = interpolate(scores, (picture.height, picture.width), mode="bilinear")
            found.append((sized[0, 0] > 0).numpy())
        return found

    def save(self, folder: Path) -> None:
        """Write its weights to a folder, in float16.

        Raises:
            OSError: they cannot be written.
        """
        weights = {name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}
        made = {"segmenter": json.dumps({"classes": self.classes, "widths": self.widths})}
        with beside(folder / WEIGHTS) as part:
            save_file(weights, part, made)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the segmenter that was saved to a folder, ready to look."""
        with safe_open(folder / WEIGHTS, "pt") as file:
            segmenter = cls(**json.loads(file.metadata()["segmenter"]))
            segmenter.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        return segmenter.eval().requires_grad_(False)
