"""Clay's sets of scenes that share a subject, captioned anew each time that they are seen."""

from collections.abc import Iterator

import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from persona.clay.world import Scene, caption
from persona.pretrain.clay.data import MASKS, SET, SETS, mask_of, pixels_of, scenes_of, shards_of
from persona.pretrain.sets import Sets

LOOKS_SAID = 0.25
"""Share of the sets whose captions may say the subject's colours and patterns; prompts leave them to the references."""


class ClaySets(Sets):
    """Shards and masks as :func:`persona.pretrain.clay.data.render_records` writes them."""

    def _list(self) -> Iterator[tuple[str, list[int]]]:
        self._scenes: list[Scene] = []
        for shard in shards_of(self.data / SETS):
            scenes = scenes_of(self.data / SETS, shard)
            self._scenes += scenes
            yield f"{shard:05}", [SET] * (len(scenes) // SET)

    def _read(self, shard: str) -> Iterator[Image.Image]:
        for pixels in pixels_of(self.data / SETS, int(shard)):
            yield Image.fromarray(pixels)

    def noun(self, number: int) -> str:
        """See :class:`Sets`."""
        return self._scenes[number * SET].entities[0].subject.class_noun

    def masks(self, number: int, grid: tuple[int, int]) -> Tensor:
        """See :class:`Sets`."""
        shard, first, size = self._places[number]
        shown = mask_of(self.data / MASKS[SETS], int(shard), slice(first, first + size), 0)
        return adaptive_avg_pool2d(torch.from_numpy(shown).float(), grid)

    def captions(self, number: int, random: Generator) -> list[str]:
        """See :class:`Sets`."""
        looks = random.random() < LOOKS_SAID
        return [caption(scene, random, looks=looks) for scene in self._scenes[number * SET : (number + 1) * SET]]
