"""What a subject looks like, as tokens: an encoder of pictures that is frozen, whatever base draws by it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from persona.errors import BadOption
from persona.events import Listener, silent
from persona.hub import fetched
from persona.networks import CLIP_GREY, as_clip_sees
from persona.photos.cutouts import squared

CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The encoder of the paper (Subject-Diffusion, 2307.11410)."""


class ImageEncoder(Protocol):
    """Looks at subjects that are cut out; the same subject always gives the same tokens.

    Attributes:
        width: of each token.
        tokens: patches of a picture.
    """

    width: int
    tokens: int

    def encode(self, cutouts: Sequence[Image.Image]) -> Tensor:
        """Look at subjects.

        Args:
            cutouts: RGBA of any sizes; what is transparent is not seen.

        Returns:
            (B, 1 + tokens, width), float32, without a gradient, where the encoder computes: the subject as a whole, and
            then its patches row by row.
        """


def load(name: str, device: str | torch.device = "cpu", listener: Listener = silent) -> ImageEncoder:
    """Load an encoder.

    Args:
        name: ``clay`` for the built-in one; a folder that holds one like it (that of a base, say), or CLIP as
            transformers saves it; or the hub id of a CLIP.
        device: where it computes.
        listener: told what is fetched.

    Raises:
        BadBase: clay's weights are damaged, or those of an encoder like its own; or they are of another version.
        BadOption: there is no such encoder.
    """
    from persona.clay import weights_folder
    from persona.clay.encoder import FOLDER, Encoder
    from persona.clay.layers import opened

    folder = weights_folder() if name == "clay" else Path(name)
    if shipped(folder):
        return opened(Encoder.load, folder / FOLDER, "image encoder").to(device)
    if name == "clay":
        raise BadOption("These weights of clay have no image encoder. Name a CLIP, by its hub id or its folder.")
    return ClipEncoder(fetched([name], listener)[0], device)


def shipped(folder: Path) -> bool:
    """Tell whether a base's folder holds an encoder like clay's."""
    from persona.clay.encoder import FOLDER, WEIGHTS

    return (folder / FOLDER / WEIGHTS).is_file()


class ClipEncoder:
    """CLIP's image encoder (Radford et al., 2103.00020): its class token, normed, and the patches of its last layer.

    Attributes:
        width: of each token.
        tokens: patches of a picture.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load it from a folder, whatever else of CLIP is there.

        Raises:
            BadOption: the folder holds none.
        """
        from transformers import CLIPVisionModel

        try:
            net: Any = CLIPVisionModel.from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError, SafetensorError) as error:
            raise BadOption(f"{folder} holds no CLIP that can look at images. Name another one.") from error
        self._net = net.eval().requires_grad_(False).to(device)
        self._side = net.config.image_size
        self.width: int = net.config.hidden_size
        self.tokens: int = (net.config.image_size // net.config.patch_size) ** 2

    @torch.no_grad()
    def encode(self, cutouts: Sequence[Image.Image]) -> Tensor:
        """See :class:`ImageEncoder`; what is transparent is seen as CLIP's mean colour."""
        shown = as_clip_sees([squared(cutout.convert("RGBA"), self._side, CLIP_GREY) for cutout in cutouts])
        seen = self._net(pixel_values=shown.to(self._net.device))
        return torch.cat([seen.pooler_output[:, None], seen.last_hidden_state[:, 1:]], 1).float()
