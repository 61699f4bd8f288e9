"""The networks that pictures of real bases are measured with, where they can be had: never another under their name.

They come through transformers, each at one revision, so that figures stay comparable; these are the revisions that hold
the weights as safetensors, the main ones only as pickles. LPIPS comes through torchmetrics.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import normalize

from persona.config.words import command_line
from persona.errors import out_of_space
from persona.events import Listener, Note, silent
from persona.families.fingerprint import fingerprint, kept
from persona.metrics import Mask

DINO, CLIP, CLIPSEG = "facebook/dino-vits16", "openai/clip-vit-base-patch32", "CIDAS/clipseg-rd64-refined"
REVISIONS = {DINO: "refs/pr/1", CLIP: "refs/pr/32", CLIPSEG: "refs/pr/5"}
_PARTS = ["*.json", "*.txt", "*.safetensors"]  # their repositories hold the weights of other frameworks too

_SIDE, _MASK_SIDE = 224, 352
_BATCH = 32
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP_GREY = (123, 117, 104)
"""8-bit RGB of the colour that is nothing to CLIP: its mean."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each channel."""
N = TypeVar("N")


def how_to_fetch(name: str, where: Path | None = None) -> str:
    """Return what to type to have a network of the hub in its cache, or in a folder; see :meth:`Networks.find`."""
    parts = " ".join(f'--include "{part}"' for part in _PARTS)
    there = "" if where is None else f" --local-dir {command_line([str(folder_of(name, where))])}"
    return f"hf download {name} --revision {REVISIONS[name]} {parts}{there}"


class Dino:
    """DINO ViT-S/16 (Caron et al., 2104.14294): its class token, of the middle of a picture, as its authors cut it."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load it from a folder.

        Raises:
            OSError: the folder does not hold it.
        """
        from transformers import ViTModel

        self._net = _ready(ViTModel.from_pretrained(folder, add_pooling_layer=False, use_safetensors=True), device)

    def embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return unit embeddings (B, 384) of pictures of any sizes."""

        def run(pixels: Tensor) -> Tensor:
            tokens: Tensor = self._net(pixel_values=pixels).last_hidden_state
            return tokens[:, 0]

        return _embedded(pictures, self._net.device, (256, _IMAGENET), run)


class Clip:
    """CLIP ViT-B/32 (Radford et al., 2103.00020)."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load it from a folder.

        Raises:
            OSError: the folder does not hold it.
        """
        from transformers import AutoTokenizer, CLIPModel

        self._net = _ready(CLIPModel.from_pretrained(folder, use_safetensors=True), device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return unit embeddings (B, 512) of pictures of any sizes."""

        def run(pixels: Tensor) -> Tensor:
            seen: Tensor = self._net.visual_projection(self._net.vision_model(pixel_values=pixels).pooler_output)
            return seen

        return _embedded(pictures, self._net.device, (_SIDE, _OPENAI), run)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Return unit embeddings (B, 512) of texts; what CLIP cannot read of a long one is cut off."""
        tokens = self._tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        read = self._net.text_model(**tokens.to(self._net.device)).pooler_output
        return normalize(self._net.text_projection(read), dim=1).cpu()


class Segmenter:
    """CLIPSeg (Lüddecke and Ecker, 2112.10003): where in a picture the thing is that a word names."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load it from a folder.

        Raises:
            OSError: the folder does not hold it.
        """
        from transformers import AutoTokenizer, CLIPSegForImageSegmentation

        self._net = _ready(CLIPSegForImageSegmentation.from_pretrained(folder, use_safetensors=True), device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def masks(self, pictures: Sequence[Image.Image], noun: str) -> list[Mask]:
        """Return where each picture shows what the noun names."""
        found = []
        tokens = self._tokenizer([noun], return_tensors="pt").to(self._net.device)
        for picture in pictures:
            pixels = _pixels(picture.resize((_MASK_SIDE, _MASK_SIDE), Image.Resampling.BILINEAR))
            logits = self._net(**tokens, pixel_values=_standard(pixels[None], _IMAGENET).to(self._net.device)).logits
            whole = Image.fromarray(logits.view(_MASK_SIDE, _MASK_SIDE).cpu().numpy()).resize(picture.size)
            found.append(np.asarray(whole) > 0)
        return found


class Lpips:
    """LPIPS with AlexNet (Zhang et al., 1801.03924): how different two pictures look to people."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """Load it through torchmetrics.

        Raises:
            ImportError: torchmetrics or torchvision is not installed.
            OSError: AlexNet's weights are not here, and cannot be fetched.
        """
        # They are a pickle: this lets torch read nothing but tensors from it.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self._distance: Any = LearnedPerceptualImagePatchSimilarity("alex", reduction="none", normalize=True)
        self._distance.to(device)

    @torch.no_grad()
    def distances(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return the distances (B, B) of pictures of one size."""
        table = torch.zeros(len(pictures), len(pictures))
        pixels = [_pixels(picture)[None].to(self._distance.device) for picture in pictures]
        for a, b in combinations(range(len(pictures)), 2):
            table[a, b] = table[b, a] = self._distance(pixels[a], pixels[b]).item()
        return table


@dataclass(frozen=True)
class Networks:
    """What can be had of them.

    Attributes:
        dino: or ``None``, as all others.
        clip: likewise.
        segmenter: likewise.
        lpips: likewise.
        missing: for each that cannot be had, a sentence about what is left out, and what to do about it.
        mark: tells these weights from others.
    """

    dino: Dino | None = None
    clip: Clip | None = None
    segmenter: Segmenter | None = None
    lpips: Lpips | None = None
    missing: tuple[str, ...] = ()
    mark: str = ""

    @classmethod
    def find(cls, where: Path | None = None, *, device: str | torch.device = "cpu") -> Self:
        """Load what is on this disk.

        Args:
            where: folder that holds them under the last parts of their names, ``dino-vits16`` and so on; without one
                they are looked for in the hub's own cache.
            device: where to put them.
        """
        missing: list[str] = []
        own = None if where is None else Path()  # what is missing is kept with the figures, which shall name no path
        within = "" if own is None else ", type in the folder of --networks"
        files: dict[str, Path] = {}

        def have(load: Callable[[], N], what: str, how: str) -> N | None:
            try:
                return load()
            except (OSError, ValueError, ImportError, SafetensorError) as error:  # of transformers, the hub, a network
                if out_of_space(error):
                    raise
                missing.append(f"{what} is not available here, and left out. To get it{within}: {how}")
                return None

        def net(kind: Callable[[Path, str | torch.device], N], name: str, what: str) -> N | None:
            def load() -> N:
                folder = folder_of(name, where)
                if not folder.is_dir():  # transformers would take it for the name of a repository, and ask the hub
                    raise FileNotFoundError(folder)
                loaded = kind(folder, device)
                files.update({f"{name}/{path.name}": path for path in kept(folder)})
                return loaded

            return have(load, what, how_to_fetch(name, own))

        return cls(
            dino=net(Dino, DINO, "DINO"),
            clip=net(Clip, CLIP, "CLIP-I and CLIP-T"),
            segmenter=net(Segmenter, CLIPSEG, "What needs masks"),
            lpips=have(lambda: Lpips(device), "DIV (LPIPS)", "pip install torchmetrics torchvision"),
            missing=tuple(missing),
            mark=fingerprint(files),
        )


def absent(where: Path | None = None) -> list[str]:
    """Return which of the networks of the hub are not on this disk; see :meth:`Networks.find`."""

    def here(name: str) -> bool:
        try:
            return folder_of(name, where).is_dir()
        except (OSError, ValueError):
            return False

    return [name for name in REVISIONS if not here(name)]


def fetch(listener: Listener = silent) -> None:
    """Fetch what is not in the hub's cache; what cannot be had is missed by whoever looks for it.

    Raises:
        OSError: the disk is full.
    """
    if missing := absent():
        listener(Note(f"Fetching {', '.join(missing)}: at most 1.3 GB, once."))
    for name in missing:
        try:
            folder_of(name, fetch=True)
        except (OSError, ValueError) as error:  # of the hub, the network
            if out_of_space(error):
                raise


def folder_of(name: str, where: Path | None = None, *, fetch: bool = False) -> Path:
    """Return the folder of a network; see :meth:`Networks.find`.

    Raises:
        OSError: it is not here.
    """
    from huggingface_hub import snapshot_download

    if where is not None:
        return where / name.partition("/")[2]
    # By its folder: by name, transformers asks the hub for adapters even where only local files are allowed.
    return Path(
        snapshot_download(
            name,
            revision=REVISIONS[name],
            local_files_only=not fetch,
            allow_patterns=_PARTS,
        )
    )


# Pictures as networks take them


@torch.no_grad()
def _embedded(
    pictures: Sequence[Image.Image],
    device: torch.device,
    prepared: tuple[int, Statistics],
    run: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return unit embeddings of the middles of pictures, whose shorter sides are scaled to so many pixels before."""
    side, statistics = prepared
    parts = []
    for first in range(0, len(pictures), _BATCH):
        pixels = torch.stack([_pixels(_middle(picture, side)) for picture in pictures[first : first + _BATCH]])
        parts.append(normalize(run(_standard(pixels, statistics).to(device)), dim=1).cpu())
    return torch.cat(parts)


def as_clip_sees(pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures of one size as CLIP takes them, (B, 3, H, W)."""
    return _standard(torch.stack([_pixels(picture) for picture in pictures]), _OPENAI)


def _ready(net: Any, device: str | torch.device) -> Any:
    return net.eval().requires_grad_(False).to(device)


def _pixels(picture: Image.Image) -> Tensor:
    """Return a picture as (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


def _standard(pixels: Tensor, statistics: Statistics) -> Tensor:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in statistics)
    return (pixels - mean) / deviation


def _middle(picture: Image.Image, side: int) -> Image.Image:
    """Scale a picture so that its shorter side has so many pixels, and cut the network's square from its middle."""
    scale = side / min(picture.size)
    width, height = max(side, round(picture.width * scale)), max(side, round(picture.height * scale))
    left, top = (width - _SIDE) // 2, (height - _SIDE) // 2
    scaled = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return scaled.crop((left, top, left + _SIDE, top + _SIDE))
