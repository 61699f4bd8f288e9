"""Who is in pictures: subjects by their references, and where each shall stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from persona.placing import MOST, Box, named, places


@dataclass(frozen=True)
class Portrait:
    """A subject, and where it shall stand.

    Attributes:
        features: of its cut-out reference, (1 + tokens, width), float32, as an image encoder sees it.
        box: in the picture; ``None`` where it may stand as the prompt says.
        shape: width of the reference over its height.
    """

    features: Tensor
    box: Box | None = None
    shape: float = 1.0


@dataclass(frozen=True)
class Cast:
    """The subjects of several pictures, each in one of :data:`MOST` slots.

    Attributes:
        features: (rows, slots, 1 + tokens, width), float32; anything where a slot is empty.
        boxes: (rows, slots, 4).
        present: (rows, slots), false where a slot is empty.
    """

    features: Tensor
    boxes: Tensor
    present: Tensor

    def to(self, device: torch.device) -> Self:
        """Return it on a device."""
        return type(self)(*(getattr(self, field.name).to(device) for field in fields(self)))


def cast(prompts: Sequence[str], portraits: Mapping[str, Portrait]) -> Cast:
    """Return the subjects of prompts, in the order that each names them: its first is in the first slot.

    Args:
        prompts: with at most :data:`MOST` names in each.
        portraits: by their names; at least one.
    """
    rows = [[portraits[name] for name in named(prompt)] for prompt in prompts]
    features = torch.zeros(len(rows), MOST, *next(iter(portraits.values())).features.shape)
    boxes, present = torch.zeros(len(rows), MOST, 4), torch.zeros(len(rows), MOST, dtype=torch.bool)
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        where = places(prompt, [(one.box, one.shape) for one in row])
        for slot, (one, box) in enumerate(zip(row, where, strict=True)):
            features[number, slot], boxes[number, slot], present[number, slot] = one.features, torch.tensor(box), True
    return Cast(features, boxes, present)


def inside(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return what lies in each of the boxes (rows, slots, 4), (rows, slots, h, w): 1, and 0 elsewhere.

    A cell lies where its centre does; a box without a centre, however thin it is, has the cells nearest to its middle.

    Args:
        boxes: their sides in [0, 1].
        grid: height and width.
    """
    left, top, right, bottom = boxes.unbind(-1)
    rows, columns = _between(top, bottom, grid[0]), _between(left, right, grid[1])
    return (rows[..., :, None] & columns[..., None, :]).float()


def _between(start: Tensor, end: Tensor, cells: int) -> Tensor:
    """Return which of so many cells along a side of the picture lie between two places (...), (..., cells)."""
    start, end = start[..., None], end[..., None]
    centres = (torch.arange(cells, device=start.device) + 0.5) / cells
    within = (start <= centres) & (centres < end)
    nearest = one_hot((centres - (start + end) / 2).abs().argmin(-1), cells).bool()
    return torch.where(within.any(-1, keepdim=True), within, nearest)
