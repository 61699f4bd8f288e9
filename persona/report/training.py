"""The page about a run of training: photos, previews, curves, scores and settings."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from persona.report.axes import BOTTOM, TOP, WIDTH, Axes
from persona.report.page import Captioned, pictures, table, write_page

Points = Sequence[tuple[float, float]]
"""A curve: (step, value) in the order of the steps."""

_HEIGHT = 240
_DOTS = 60  # more points than this are a noisy curve: it is drawn faint, with its running mean above it
_ROWS = 50  # of the table that stands beside a curve

_STYLE = """
#curves figure { display: inline-block; width: min(31.5rem, 100%); padding-right: 1rem; vertical-align: top }
svg .curve { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round }
svg .raw { opacity: .3; stroke-width: 1 }
svg .dot { fill: var(--accent) }
svg .chosen { stroke: var(--ink); stroke-dasharray: 4 3 }
"""


def write(
    path: Path,
    *,
    title: str,
    photos: Sequence[Captioned],
    previews: Mapping[str, Sequence[Captioned]],
    curves: Mapping[str, Points],
    settings: Mapping[str, object],
    scores: Mapping[str, float],
    chosen: float | None = None,
) -> None:
    """Write the page; what stood at ``path`` stays until the new page is complete.

    Args:
        path: the HTML file.
        title: heading of the page, as plain text.
        photos: the photos that the run learnt from, in any mode and size; large ones are shown smaller.
        previews: rows of pictures under their heading ("step 100"), in the order of time.
        curves: name to points; values that are no finite numbers are left out.
        settings: name to value, shown as text.
        scores: name to value.
        chosen: step that was kept; it is marked in every curve.

    Raises:
        OSError: the file cannot be written.
    """
    sections = {
        "Scores": table("What was measured", scores),
        "Photos": pictures(photos),
        "Previews": "".join(f"<h3>{escape(heading)}</h3>{pictures(row)}" for heading, row in previews.items()),
        "Curves": "".join(_chart(name, points, chosen) for name, points in curves.items()),
        "Settings": table("How it was made", settings),
    }
    write_page(path, title, sections, style=_STYLE)


def _chart(name: str, points: Points, chosen: float | None) -> str:
    """Return a curve as SVG, with its values in a table that opens below it."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ""
    (first_x, first_y), (last_x, last_y) = finite[0], finite[-1]
    summary = f"{name}: from {first_y:.4g} at {first_x:g} to {last_y:.4g} at {last_x:g}"
    if chosen is not None:
        summary += f", kept at {chosen:g}"
    return (
        f"<figure><h3>{escape(name)}</h3>"
        f'<svg viewBox="0 0 {WIDTH} {_HEIGHT}" role="img" aria-label="{escape(summary)}">'
        f"{_drawn(finite, chosen)}</svg>{_values(name, finite)}</figure>"
    )


def _drawn(points: Points, chosen: float | None) -> str:
    """Return the axes, the curve and the mark of the chosen step."""
    axes = Axes.around([x for x, _ in points], [y for _, y in points], height=_HEIGHT)

    def line(path: Points, kind: str) -> str:
        ends = " ".join(f"{axes.across(x):.1f},{axes.up(y):.1f}" for x, y in path)
        return f'<polyline class="{kind}" points="{ends}"/>'

    parts = [axes.drawn()]
    if chosen is not None and axes.x[0] <= chosen <= axes.x[1]:
        x = f"{axes.across(chosen):.1f}"
        parts.append(
            f'<line class="chosen" x1="{x}" x2="{x}" y1="{TOP}" y2="{_HEIGHT - BOTTOM}"/>'
            f'<text x="{x}" y="{TOP - 3}" text-anchor="middle">kept</text>'
        )
    if len(points) > _DOTS:
        parts += [line(_thinned(points, 2 * WIDTH), "curve raw"), line(_smoothed(points), "curve")]
    else:
        parts.append(line(points, "curve"))
        parts += [f'<circle class="dot" cx="{axes.across(x):.1f}" cy="{axes.up(y):.1f}" r="3"/>' for x, y in points]
    return "".join(parts)


def _thinned(points: Points, most: int) -> Points:
    """Return every so many of the points, the last among them."""
    return points[:: -math.ceil(len(points) / most)][::-1]


def _smoothed(points: Points) -> Points:
    """Return the means of groups of neighbouring points, as many as there are dots in a sparse curve."""
    size = math.ceil(len(points) / _DOTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _values(name: str, points: Points) -> str:
    rows = "".join(f"<tr><td>{x:g}</td><td>{y:.4g}</td></tr>" for x, y in _thinned(points, _ROWS))
    head = f'<tr><th scope="col">step</th><th scope="col">{escape(name)}</th></tr>'
    return f"<details><summary>Values of {escape(name)}</summary><table>{head}{rows}</table></details>"
