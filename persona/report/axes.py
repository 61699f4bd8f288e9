"""The axes of charts and plots: their ends, their ticks, and where on them a value lies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

WIDTH, LEFT, BOTTOM, TOP, RIGHT = 640, 56, 28, 20, 8
"""Of every drawing, in units of its view box."""


@dataclass(frozen=True)
class Axes:
    """A drawing whose axes hold some values.

    Attributes:
        x: lowest and highest value across.
        y: and up.
        height: of the drawing, in units of its view box.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    height: int

    @classmethod
    def around(cls, x: Sequence[float], y: Sequence[float], *, height: int, room: float = 0.02) -> Self:
        """Return the axes that hold values, with a share of their range as room on either side."""
        return cls(_ends(x, room), _ends(y, room), height)

    def across(self, x: float) -> float:
        """Return where a value lies from the left."""
        low, high = self.x
        return LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def up(self, y: float) -> float:
        """Return where a value lies from the top."""
        low, high = self.y
        return self.height - BOTTOM - (y - low) / (high - low) * (self.height - BOTTOM - TOP)

    def drawn(self) -> str:
        """Return the ticks as SVG."""
        rows = (
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{self.up(y):.1f}" y2="{self.up(y):.1f}"/>'
            f'<text x="{LEFT - 6}" y="{self.up(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
            for y in _ticks(*self.y)
        )
        columns = (
            f'<text x="{self.across(x):.1f}" y="{self.height - 8}" text-anchor="middle">{x:g}</text>'
            for x in _ticks(*self.x)
        )
        return "".join((*rows, *columns))


def _ends(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return the ends of an axis that holds the values, never of length zero."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Return three to nine round numbers between two ends."""
    size = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(size * k for k in (5, 2, 1) if (high - low) / (size * k) >= 3 or k == 1)
    return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
