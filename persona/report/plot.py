"""Fidelity against prompt: a point for each row, with its intervals, and lines through those that belong together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from persona.report.axes import WIDTH, Axes

_HEIGHT = 400
_NAMED = 12  # more points than this, and only the ends of lines and the best bear their names
_COLOURS = "abcdef"


@dataclass(frozen=True)
class Cell:
    """A mean, and the interval that it lies in."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """Somebody who was measured.

    Attributes:
        label: who.
        cells: name of a column to what was measured.
        line: rows of one line belong together, such as the checkpoints of a run; empty keeps a row out of the plot.
        best: whether its trade-off is the best.
    """

    label: str
    cells: Mapping[str, Cell] = field(default_factory=dict)
    line: str = ""
    best: bool = False


@dataclass(frozen=True)
class Plot:
    """Names of the columns that are drawn: across, and up."""

    x: str
    y: str


def drawn(plot: Plot, rows: Sequence[Row]) -> str:
    """Return the plot as HTML; nothing where no row has both columns."""
    points = [row for row in rows if row.line and _has(row, plot.x) and _has(row, plot.y)]
    if not points:
        return ""
    axes = _axes(plot, points)
    lines = list(dict.fromkeys(row.line for row in points))
    colour = {line: _COLOURS[number % len(_COLOURS)] for number, line in enumerate(lines)}
    paths = "".join(_path(axes, plot, [row for row in points if row.line == line], colour[line]) for line in lines)
    marks = "".join(_mark(axes, plot, row, colour[row.line], named=_is_named(row, points)) for row in points)
    best = next((f", best {row.label}" for row in points if row.best), "")
    said = f"{plot.y} against {plot.x} of {', '.join(lines)}{best}; the values are in the table of scores"
    return (
        f'<figure class="plot"><svg viewBox="0 0 {WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}">'
        f"{axes.drawn()}{paths}{marks}</svg>"
        f"<figcaption>Up: {escape(plot.y)}. To the right: {escape(plot.x)}. Bars hold 95 %.</figcaption></figure>"
    )


def _has(row: Row, column: str) -> bool:
    return column in row.cells and math.isfinite(row.cells[column].mean)


def _axes(plot: Plot, points: Sequence[Row]) -> Axes:
    across = [end for row in points for end in (row.cells[plot.x].low, row.cells[plot.x].high)]
    up = [end for row in points for end in (row.cells[plot.y].low, row.cells[plot.y].high)]
    return Axes.around(across, up, height=_HEIGHT, room=0.08)


def _path(axes: Axes, plot: Plot, rows: Sequence[Row], colour: str) -> str:
    ends = " ".join(f"{axes.across(row.cells[plot.x].mean):.1f},{axes.up(row.cells[plot.y].mean):.1f}" for row in rows)
    return f'<polyline class="line {colour}" points="{ends}"/>'


def _is_named(row: Row, points: Sequence[Row]) -> bool:
    own = [one for one in points if one.line == row.line]
    return len(points) <= _NAMED or row.best or row in (own[0], own[-1])


def _mark(axes: Axes, plot: Plot, row: Row, colour: str, *, named: bool) -> str:
    x, y = row.cells[plot.x], row.cells[plot.y]
    across, up = axes.across(x.mean), axes.up(y.mean)
    bars = _bar(colour, (axes.across(x.low), axes.across(x.high)), (up, up))
    bars += _bar(colour, (across, across), (axes.up(y.low), axes.up(y.high)))
    shift, anchor = (-8, "end") if across > WIDTH * 0.7 else (8, "start")
    name = f"{row.label}{' (best)' if row.best else ''}"
    text = (
        f'<text x="{across + shift:.1f}" y="{up - 6:.1f}" text-anchor="{anchor}">{escape(name)}</text>' if named else ""
    )
    values = f"{name}: {plot.y} {y.mean:.3f}, {plot.x} {x.mean:.3f}"
    return (
        f'{bars}<circle class="point {colour}{" chosen" if row.best else ""}" cx="{across:.1f}" cy="{up:.1f}" '
        f'r="{7 if row.best else 4}"><title>{escape(values)}</title></circle>{text}'
    )


def _bar(colour: str, x: tuple[float, float], y: tuple[float, float]) -> str:
    return f'<line class="bar {colour}" x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"/>'
