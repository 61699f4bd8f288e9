"""One self-contained HTML page about a run: photos, previews, curves, scores and settings.

It needs neither network nor script: pictures are data URIs, curves inline SVG, and the page's own policy forbids the
rest. Everything that comes from outside is escaped. It follows the reader's dark mode, prints, and can be read by
keyboard and by screen reader: each picture has a text, each curve a table of its values.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from persona.atomic import beside

Captioned = tuple[str, Image.Image]
"""A picture and what it shows."""
Points = Sequence[tuple[float, float]]
"""A curve: (step, value) in the order of the steps."""

_LARGEST = 384  # pixels a side: photos of a camera would make the page tens of megabytes
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 240, 56, 28, 20
_DOTS = 60  # more points than this are a noisy curve: it is drawn faint, with its running mean above it
_ROWS = 50  # of the table that stands beside a curve

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fff; --soft: #6b6b70; --line: #d9d9de; --accent: #0b62c4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --paper: #161618; --soft: #a3a3aa; --line: #3a3a40; --accent: #74b0ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem; max-width: 68rem; font: 1rem/1.5 system-ui, sans-serif;
       color: var(--ink); background: var(--paper); overflow-wrap: anywhere }
h1 { margin: 0 0 1rem; line-height: 1.2 }
h2 { margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line) }
#curves figure { display: inline-block; width: min(31.5rem, 100%); padding-right: 1rem; vertical-align: top }
h3 { margin: 1.25rem 0 .5rem; font-size: 1rem }
nav a { margin-right: 1rem }
a { color: var(--accent) }
a:focus-visible, summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .75rem;
            margin: 0; padding: 0; list-style: none }
figure { margin: 0; break-inside: avoid }
img { display: block; width: 100%; height: auto; border-radius: 4px }
figcaption, .soft, text { font-size: .8rem; color: var(--soft); fill: var(--soft) }
svg { display: block; width: 100%; height: auto }
svg .axis { stroke: var(--line) }
svg .curve { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round }
svg .raw { opacity: .3; stroke-width: 1 }
svg .dot { fill: var(--accent) }
svg text { font-size: 14px }
svg .chosen { stroke: var(--ink); stroke-dasharray: 4 3 }
table { border-collapse: collapse }
caption { text-align: left }
th, td { padding: .2rem 1.25rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
td { font-variant-numeric: tabular-nums }
@media print { nav, details:not([open]) { display: none } body { max-width: none; padding: 0 } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><nav aria-label="Sections">{links}</nav></header>
<main>
{sections}
</main>
</body>
</html>
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
        "Scores": _table("What was measured", scores),
        "Photos": _pictures(photos),
        "Previews": "".join(f"<h3>{escape(heading)}</h3>{_pictures(row)}" for heading, row in previews.items()),
        "Curves": "".join(_chart(name, points, chosen) for name, points in curves.items()),
        "Settings": _table("How it was made", settings),
    }
    filled = {heading: body for heading, body in sections.items() if body}
    page = _PAGE.format(
        title=escape(title),
        style=_STYLE,
        links="".join(f'<a href="#{heading.lower()}">{heading}</a>' for heading in filled),
        sections="\n".join(
            f'<section id="{heading.lower()}" aria-labelledby="{heading.lower()}-heading">'
            f'<h2 id="{heading.lower()}-heading">{heading}</h2>{body}</section>'
            for heading, body in filled.items()
        ),
    )
    with beside(path) as part:
        part.write_text(page, encoding="utf-8", errors="replace")


def _table(caption: str, values: Mapping[str, object]) -> str:
    rows = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_shown(value))}</td></tr>'
        for name, value in values.items()
    )
    return f'<table><caption class="soft">{escape(caption)}</caption>{"".join(rows)}</table>' if values else ""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else "as the base recommends" if value is None else str(value)


def _pictures(pictures: Sequence[Captioned]) -> str:
    figures = (
        f'<li><figure><img src="{_data_uri(image)}" width="{image.width}" height="{image.height}" '
        f'alt="{escape(caption)}" loading="lazy"><figcaption>{escape(caption)}</figcaption></figure></li>'
        for caption, image in pictures
    )
    return f'<ul class="pictures">{"".join(figures)}</ul>' if pictures else ""


def _data_uri(image: Image.Image) -> str:
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=88)  # WebP of PIL writes no metadata unless told to: no place, no camera
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


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
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(summary)}">'
        f"{_drawn(finite, chosen)}</svg>{_values(name, finite)}</figure>"
    )


def _drawn(points: Points, chosen: float | None) -> str:
    """Return the axes, the curve and the mark of the chosen step, in the units of the chart."""
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])

    def across(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - 8)

    def up(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _BOTTOM - _TOP)

    def line(path: Points, kind: str) -> str:
        ends = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in path)
        return f'<polyline class="{kind}" points="{ends}"/>'

    parts = [
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
        for y in _ticks(y_low, y_high)
    ]
    parts += [
        f'<text x="{across(x):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{x:g}</text>' for x in _ticks(x_low, x_high)
    ]
    if chosen is not None and x_low <= chosen <= x_high:
        x = f"{across(chosen):.1f}"
        parts.append(
            f'<line class="chosen" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text x="{x}" y="{_TOP - 3}" text-anchor="middle">kept</text>'
        )
    if len(points) > _DOTS:
        parts += [line(_thinned(points, 2 * _WIDTH), "curve raw"), line(_smoothed(points), "curve")]
    else:
        parts.append(line(points, "curve"))
        parts += [f'<circle class="dot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>' for x, y in points]
    return "".join(parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that holds the values, never of length zero."""
    low, high = min(values), max(values)
    room = (high - low) * 0.02 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Return three to nine round numbers between two ends."""
    size = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(size * k for k in (5, 2, 1) if (high - low) / (size * k) >= 3 or k == 1)
    return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thinned(points: Points, most: int) -> Points:
    return points[:: math.ceil(len(points) / most)]


def _smoothed(points: Points) -> Points:
    """Return the means of groups of neighbouring points, as many as there are dots in a sparse curve."""
    size = math.ceil(len(points) / _DOTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _values(name: str, points: Points) -> str:
    rows = "".join(f"<tr><td>{x:g}</td><td>{y:.4g}</td></tr>" for x, y in _thinned(points, _ROWS))
    head = f'<tr><th scope="col">step</th><th scope="col">{escape(name)}</th></tr>'
    return f"<details><summary>Values of {escape(name)}</summary><table>{head}{rows}</table></details>"
