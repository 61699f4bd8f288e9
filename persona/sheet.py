"""Pictures side by side, with captions, as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE = 256
"""Pixels that the longer side of a picture takes up at most."""
_GAP, _TEXT = 8, 14
_PAPER, _INK, _SOFT = "white", "#1d1d1f", "#6b6b70"


@dataclass(frozen=True)
class Row:
    """Pictures that belong together.

    Attributes:
        caption: stands above them; may be empty.
        pictures: each with a short caption below; that may be empty, too.
    """

    caption: str
    pictures: Sequence[tuple[Image.Image, str]]


def sheet(rows: Sequence[Row], columns: int = 8) -> Image.Image:
    """Lay rows of pictures out on one sheet; a row of more than ``columns`` goes on below, in lines of one length.

    Args:
        rows: at least one picture in all, of any sizes.
        columns: pictures side by side at most, at least 1.

    Returns:
        An RGB picture as large as it needs to be.
    """
    font = ImageFont.load_default(_TEXT)
    cell = _cell(rows)
    columns = max(_even(len(row.pictures), columns) for row in rows)
    width = columns * (cell[0] + _GAP) + _GAP
    placed, below = [], _GAP
    for row in rows:
        lines = _wrapped(row.caption, font, width - 2 * _GAP)
        named = any(caption for _, caption in row.pictures)
        height = cell[1] + _GAP + (_TEXT + _GAP) * named
        placed.append((row, lines, below, height))
        below += len(lines) * (_TEXT + 4) + -(-len(row.pictures) // columns) * height + _GAP
    page = Image.new("RGB", (width, below), _PAPER)
    for row, lines, top, height in placed:
        _place(page, row, lines, top, (cell[0], height), columns, font)
    return page


def _even(number: int, most: int) -> int:
    """Return how many are in each line where so many are broken into as few lines as can be, as even as can be."""
    lines = -(-number // most) or 1
    return -(-number // lines)


def _cell(rows: Sequence[Row]) -> tuple[int, int]:
    sizes = [_fitted(picture.size) for row in rows for picture, _ in row.pictures]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _place(
    page: Image.Image,
    row: Row,
    lines: list[str],
    top: int,
    cell: tuple[int, int],
    columns: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    pen = ImageDraw.Draw(page)
    for line in lines:
        pen.text((_GAP, top), line, _INK, font)
        top += _TEXT + 4
    for number, (picture, caption) in enumerate(row.pictures):
        left, above = _GAP + number % columns * (cell[0] + _GAP), top + number // columns * cell[1]
        small = picture.convert("RGB").resize(_fitted(picture.size), Image.Resampling.LANCZOS)
        page.paste(small, (left, above))
        for line in _wrapped(caption, font, cell[0], 1):
            pen.text((left, above + small.height + 2), line, _SOFT, font)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most: int = 3) -> list[str]:
    """Break a text into lines of at most so many pixels; what needs more lines than ``most`` is cut short."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, font, width))
    if len(lines) <= most:
        return lines
    dots = " ..."
    return [*lines[: most - 1], _cut(lines[most - 1], font, width - int(font.getlength(dots))) + dots]


def _cut(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while len(word) > 1 and font.getlength(word) > width:
        word = word[:-1]
    return word
