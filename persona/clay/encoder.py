"""The encoder: a small network that sees what a subject of clay's world looks like, for drawing it again.

It is to clay what CLIP's image encoder is to photographs, and shares nothing with the judge: whoever draws by it is
measured by somebody else.
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

from persona.atomic import beside
from persona.clay.layers import Block, convolved
from persona.photos.cutouts import squared

FOLDER, WEIGHTS = "encoder", "encoder.safetensors"
"""Where a base's folder holds it, and its file."""
SIDE, PATCH = 128, 4


class Encoder(nn.Module):
    """Looks at subjects (B, 4, 128, 128): colours in [-1, 1], 0 beside the subject, and alpha in [0, 1].

    Attributes:
        width: of each token.
        tokens: patches of a picture, 8x8, row by row from the top.
    """

    def __init__(self, widths: Sequence[int] = (48, 96, 160), depth: int = 2) -> None:
        super().__init__()
        self.sizes = {"widths": list(widths), "depth": depth}
        self.width, self.tokens = widths[-1], (SIDE // PATCH >> (len(widths) - 1)) ** 2
        layers: list[nn.Module] = [nn.Conv2d(4, widths[0], PATCH, stride=PATCH)]
        for number, width in enumerate(widths):
            layers += [convolved(widths[number - 1], width, 2)] if number else []
            layers += [Block(width) for _ in range(depth)]
        self.trunk = nn.Sequential(*layers)
        self.summed = nn.Linear(2 * self.width, self.width)
        self.norm, self.norms = nn.LayerNorm(self.width), nn.LayerNorm(self.width)
        self.places = nn.Parameter(torch.randn(self.tokens, self.width) / 2)  # no patch says where it is

    def forward(self, subjects: Tensor) -> Tensor:
        """Return (B, 1 + tokens, width): the subject as a whole, then its patches."""
        grid = self.trunk(subjects).flatten(2)
        whole = self.norm(self.summed(torch.cat([grid.mean(2), grid.amax(2)], 1)))
        patches = self.norms(grid.mT) + self.places
        return torch.cat([whole[:, None], patches], 1)

    @torch.no_grad()
    def encode(self, cutouts: Sequence[Image.Image]) -> Tensor:
        """See :class:`persona.encoder.ImageEncoder`."""
        seen: Tensor = self(as_subjects(cutouts).to(self.places.device))
        return seen

    def save(self, folder: Path) -> None:
        """Write its weights to a folder, in float16.

        Raises:
            OSError: they cannot be written.
        """
        weights = {name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}
        with beside(folder / WEIGHTS) as part:
            save_file(weights, part, {"encoder": json.dumps(self.sizes)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the encoder that was saved to a folder, ready to look."""
        with safe_open(folder / WEIGHTS, "pt") as file:
            encoder = cls(**json.loads(file.metadata()["encoder"]))
            encoder.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        return encoder.eval().requires_grad_(False)


def as_subjects(cutouts: Sequence[Image.Image]) -> Tensor:
    """Return RGBA cutouts of any sizes as the encoder looks at them, (B, 4, 128, 128)."""
    pixels = np.stack([np.asarray(squared(cutout.convert("RGBA"), SIDE)) for cutout in cutouts])
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    return torch.cat([shown[:, :3] / 127.5 - 1, shown[:, 3:] / 255], 1)
