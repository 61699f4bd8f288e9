"""Networks that say what a picture shows, and where: through transformers, from a folder each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from persona.errors import BadOption
from persona.metrics import Mask
from persona.placing import Box

BOX_THRESHOLD, TEXT_THRESHOLD = 0.25, 0.20  # of Grounding DINO, as SDD was made (Subject-Diffusion, data_process.py)
WORDS = 30
"""Tokens of a caption at most."""
LEAST_AREA = 0.01
"""Share of a picture below which SAM has not found its subject."""


@dataclass(frozen=True)
class Found:
    """Something that was looked for by its name.

    Attributes:
        noun: the words that it was found by.
        score: how sure that is, from 0 to 1.
        box: where it is.
    """

    noun: str
    score: float
    box: Box


class Captioner:
    """BLIP-2 (Li et al., 2301.12597): what a picture shows, in a sentence."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """Load it from a folder.

        Raises:
            BadOption: the folder does not hold it.
        """
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        self._net, self._processor = _loaded(folder, Blip2ForConditionalGeneration, Blip2Processor, device, dtype)

    @torch.no_grad()
    def captions(self, pictures: Sequence[Image.Image]) -> list[str]:
        """Return a caption for each picture, in lower case, without its full stop and without brackets: no names."""
        given = self._processor(images=list(pictures), return_tensors="pt")
        tokens = self._net.generate(**given.to(self._net.device, self._net.dtype), max_new_tokens=WORDS)
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(re.sub(r"[\[\]]", "", text).lower().split()).rstrip(" .") for text in texts]


class Tagger:
    """A network that names the part of speech of each word, with ``NOUN`` among its labels."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load it from a folder.

        Raises:
            BadOption: the folder does not hold it, or it knows no nouns.
        """
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        self._net, self._tokenizer = _loaded(folder, AutoModelForTokenClassification, AutoTokenizer, device)
        labels = {label: number for number, label in self._net.config.id2label.items()}
        if "NOUN" not in labels:
            raise BadOption(f"{folder} tells no NOUN from other words. Give a tagger for parts of speech.")
        self._noun = labels["NOUN"]

    @torch.no_grad()
    def nouns(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the nouns of each text, each once, in their order."""
        words = [text.split() for text in texts]
        given = self._tokenizer(words, is_split_into_words=True, padding=True, truncation=True, return_tensors="pt")
        labels = self._net(**given.to(self._net.device)).logits.argmax(2)
        found = []
        for row, known in enumerate(words):
            spoken = given.word_ids(row)
            firsts = {word: place for place, word in reversed(list(enumerate(spoken))) if word is not None}
            nouns = [known[word] for word, place in sorted(firsts.items()) if labels[row, place] == self._noun]
            found.append(list(dict.fromkeys(noun.strip(".,;:!?\"'") for noun in nouns)))
        return found


class Detector:
    """Grounding DINO (Liu et al., 2303.05499): where the things are that words name."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load it from a folder.

        Raises:
            BadOption: the folder does not hold it.
        """
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

        self._net, self._processor = _loaded(folder, GroundingDinoForObjectDetection, GroundingDinoProcessor, device)

    @torch.no_grad()
    def find(self, picture: Image.Image, nouns: Sequence[str]) -> list[Found]:
        """Return what is found of the nouns, the surest first."""
        given = self._processor(images=picture, text=f"{'. '.join(nouns)}.", return_tensors="pt").to(self._net.device)
        (told,) = self._processor.post_process_grounded_object_detection(
            self._net(**given), given["input_ids"], threshold=BOX_THRESHOLD, text_threshold=TEXT_THRESHOLD
        )
        found = [
            Found(noun, float(score), _box(box))
            for noun, score, box in zip(told["text_labels"], told["scores"], told["boxes"], strict=True)
        ]
        return sorted((one for one in found if one.noun and not _empty(one.box)), key=lambda one: -one.score)


class Sam:
    """SAM (Kirillov et al., 2304.02643): what belongs to a box or a point."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load it from a folder.

        Raises:
            BadOption: the folder does not hold it.
        """
        from transformers import SamModel, SamProcessor

        self._net, self._processor = _loaded(folder, SamModel, SamProcessor, device)

    def masks(self, picture: Image.Image, boxes: Sequence[Box]) -> list[Mask]:
        """Return the mask of what is in each box, (H, W) of bool, as large as the picture."""
        sides = picture.width, picture.height, picture.width, picture.height
        inside = [[side * share for side, share in zip(sides, box, strict=True)] for box in boxes]
        return [np.asarray(masks[0]) for masks in self._seen(picture, input_boxes=[inside], multimask_output=False)]

    def subject(self, picture: Image.Image) -> Mask | None:
        """Return what the middle of a picture is of: of SAM's three answers the one whose own middle is nearest."""
        middle = [[[[picture.width / 2, picture.height / 2]]]]
        (masks,) = self._seen(picture, input_points=middle, multimask_output=True)
        large = [np.asarray(mask) for mask in masks if mask.float().mean() > LEAST_AREA]
        return min(large, key=_off_centre, default=None)

    @torch.no_grad()
    def _seen(self, picture: Image.Image, *, multimask_output: bool, **prompts: Any) -> Tensor:
        """Return masks (prompts, answers, H, W)."""
        given = self._processor(picture, **prompts, return_tensors="pt")
        sizes = given["original_sizes"], given["reshaped_input_sizes"]
        # Points and boxes come in float64, which Apple's GPUs do not have.
        given = given.to(torch.float32).to(self._net.device)
        answers = self._net(**given, multimask_output=multimask_output).pred_masks.cpu()
        masks: Tensor = self._processor.image_processor.post_process_masks(answers, *sizes)[0]
        return masks


def _loaded(
    folder: Path, network: Any, processor: Any, device: str | torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Any, Any]:
    try:
        net = network.from_pretrained(folder, use_safetensors=True, dtype=dtype)
        reader = processor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadOption(f"{folder} holds no {network.__name__} that can be read. Give another one.") from error
    return net.eval().requires_grad_(False).to(device), reader


def _box(sides: Tensor) -> Box:
    left, top, right, bottom = sides.clamp(0, 1).tolist()
    return left, top, right, bottom


def _empty(box: Box) -> bool:
    return box[0] >= box[2] or box[1] >= box[3]


def _off_centre(mask: Mask) -> float:
    rows, columns = np.nonzero(mask)
    return float(np.hypot(rows.mean() / mask.shape[0] - 0.5, columns.mean() / mask.shape[1] - 0.5))
