"""An image encoder that needs no weights: it sees the colours of a cut-out, and of its quarters."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


class Eye:
    """See the module."""

    width, tokens = 3, 4

    def encode(self, cutouts: Sequence[Image.Image]) -> Tensor:
        """Return (B, 5, 3), float32, in [0, 1]."""
        pixels = torch.stack([torch.tensor(np.asarray(one.convert("RGB").resize((8, 8)))) for one in cutouts])
        seen = pixels.permute(0, 3, 1, 2).float() / 255
        return torch.cat([adaptive_avg_pool2d(seen, side).flatten(2).mT for side in (1, 2)], dim=1)
