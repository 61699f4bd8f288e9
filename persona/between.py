"""Where things lie between two: vectors on the arc, and places that are evenly far apart."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def slerp(a: Tensor, b: Tensor, at: float) -> Tensor:
    """Go from one vector to another on the arc between them; their length goes evenly.

    Shoemake, "Animating rotation with quaternion curves" (1985), along the last dimension.

    Args:
        a: of any shape, floating point.
        b: of the same shape.
        at: from 0 (a) to 1 (b).
    """
    long, other = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(a.dtype).tiny
    start, end = a / long.clamp_min(tiny), b / other.clamp_min(tiny)
    angle = (start * end).sum(-1, keepdim=True).clamp(-1, 1).acos()
    turned = torch.sin((1 - at) * angle) * start + torch.sin(at * angle) * end
    arc = turned / angle.sin().clamp_min(tiny) * ((1 - at) * long + at * other)
    straight = (1 - at) * a + at * b
    return torch.where(angle.sin() > 1e-3, arc, straight)  # parallel vectors have no arc, opposite ones no single one


def between(ends: Mapping[str, Tensor], places: Sequence[float]) -> dict[str, Tensor]:
    """Return what a denoiser is told at each place: what is no number to go between, such as a mask, changes half-way.

    Args:
        ends: tensors of two rows each, the two ends.
        places: from 0 to 1.

    Returns:
        The same tensors with one row for each place.
    """

    def at(value: Tensor, place: float) -> Tensor:
        if not value.is_floating_point():
            return value[round(place)]
        return slerp(value[0].float(), value[1].float(), place).to(value.dtype)

    return {key: torch.stack([at(value, place) for place in places]) for key, value in ends.items()}


def mix(a: float, b: float, at: float) -> float:
    """Go straight from one number to another."""
    return (1 - at) * a + at * b


def even(distances: Sequence[float], places: Sequence[float], number: int) -> list[float]:
    """Return places between which a path goes equally far.

    Args:
        distances: how far it goes from each known place to the next.
        places: the known places, ascending, one more than distances.
        number: how many are wanted, at least 2; the first and the last known place are among them.
    """
    gone = [0.0]
    for step in distances:
        gone.append(gone[-1] + step)
    if gone[-1] == 0:  # it does not move at all
        return [mix(places[0], places[-1], one / (number - 1)) for one in range(number)]
    found = []
    for one in range(number):
        wanted = gone[-1] * one / (number - 1)
        after = min(max(1, bisect_left(gone, wanted)), len(gone) - 1)
        step = gone[after] - gone[after - 1]
        share = (wanted - gone[after - 1]) / step if step else 0.0
        found.append(mix(places[after - 1], places[after], share))
    return [places[0], *found[1:-1], places[-1]]
