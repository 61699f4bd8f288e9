"""The levels of a U-Net, each with a coarser grid of places than the one before."""

from collections.abc import Sequence


def grid_of(places: int, finest: Sequence[int]) -> tuple[int, int]:
    """Return the height and width of a level of so many places, where the finest has a height and width as given."""
    height, width = finest
    scale = (places / (height * width)) ** 0.5
    return round(height * scale), round(width * scale)
