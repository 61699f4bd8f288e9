"""The page about an evaluation or a comparison: scores, trade-off, worst cases, and every picture by its references."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image

from persona.report.page import LARGEST, Captioned, figure, table, write_page
from persona.report.plot import Cell, Plot, Row, drawn
from persona.report.sorting import SCRIPT, STYLE

WORST = 8
"""Pictures that are shown of each kind of failure."""

_MANY = ((1500, 160), (400, 256), (0, LARGEST))
"""Pixels a side from so many pictures on, so that a page of thousands stays one that opens at once."""
_STRIP = 96  # pixels a side of the references beside a worst case
_DIRECTIONS = {1: ("↑", "higher is better"), -1: ("↓", "lower is better"), 0: ("", "")}


@dataclass(frozen=True)
class Column:
    """Something that was measured.

    Attributes:
        name: of a few letters.
        meaning: what it says, in a sentence.
        better: 1 where higher is better, -1 where lower is, 0 where neither is.
    """

    name: str
    meaning: str
    better: int = 1


@dataclass(frozen=True)
class Shot:
    """A picture that was measured.

    Attributes:
        path: where it lies.
        label: who drew it: that of a row.
        subject: whose references it belongs to.
        prompt: as it was asked for.
        seed: likewise.
        scores: name of a column to value.
    """

    path: Path
    label: str
    subject: str
    prompt: str
    seed: int
    scores: Mapping[str, float] = field(default_factory=dict)


def write_evaluation(
    path: Path,
    *,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    plot: Plot | None,
    notes: Sequence[str],
    published: tuple[str, Sequence[Sequence[str]]] | None,
    worst: Sequence[str],
    used: Collection[str],
    photos: Mapping[str, Sequence[Captioned]],
    shots: Sequence[Shot],
    settings: Mapping[str, object],
) -> None:
    """Write the page; what stood at ``path`` stays until the new page is complete.

    Args:
        path: the HTML file.
        title: heading of the page, as plain text.
        columns: what was measured.
        rows: who was measured.
        plot: of two of the columns.
        notes: sentences on what was left out, or is to be kept in mind.
        published: a warning, and others' figures as rows of text with a head.
        worst: columns whose worst pictures are shown first.
        used: labels whose worst pictures these are: of those that one would draw with.
        photos: of each subject.
        shots: the pictures, in any order.
        settings: name to value, shown as text.

    Raises:
        OSError: the file cannot be written, or a picture cannot be read.
    """
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(shot.prompt for shot in shots))}
    ordered = sorted(shots, key=lambda shot: (shot.subject, prompts[shot.prompt], shot.seed))  # side by side
    by_name = {column.name: column for column in columns}
    failing = [shot for shot in shots if shot.label in used]
    sections = {
        "Scores": _scores(columns, rows, notes),
        "Trade-off": drawn(plot, rows) if plot else "",
        "Published": _published(*published) if published else "",
        "Worst cases": "".join(_worst(by_name[name], failing, photos) for name in worst if name in by_name),
        "Images": _gallery(columns, ordered, photos),
        "Settings": table("How it was measured", settings),
    }
    write_page(path, title, sections, style=STYLE, script=SCRIPT)


# Tables


def _scores(columns: Sequence[Column], rows: Sequence[Row], notes: Sequence[str]) -> str:
    heads = [("", 0), *((column.name, column.better) for column in columns)]
    body = "".join(
        f"<tr{' class=best' if row.best else ''}>"
        f'<th scope="row">{escape(row.label)}{" <b>(best)</b>" if row.best else ""}</th>'
        f"{''.join(_cell(row.cells.get(column.name)) for column in columns)}</tr>"
        for row in rows
    )
    meanings = "".join(f"<dt>{escape(one.name)}</dt><dd>{escape(one.meaning)}</dd>" for one in columns)
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        _sortable("Means, and the intervals that hold 95 % of means of resampled data", heads, body)
        + (f"<ul>{said}</ul>" if said else "")
        + f"<details><summary>What the columns mean</summary><dl>{meanings}</dl></details>"
    )


def _cell(cell: Cell | None) -> str:
    if cell is None or not math.isfinite(cell.mean):
        return '<td data-v="">-</td>'
    return (
        f'<td data-v="{cell.mean:.6g}">{cell.mean:.3f} <span class="soft">{cell.low:.3f} to {cell.high:.3f}</span></td>'
    )


def _sortable(caption: str, heads: Iterable[tuple[str, int]], body: str) -> str:
    columns = "".join(
        f'<th scope="col" aria-sort="none" data-better="{better}"><button type="button">{escape(name) or "name"} '
        f'<span aria-hidden="true">{_DIRECTIONS[better][0]}</span>'
        f'<span class="unseen">{_DIRECTIONS[better][1]}</span></button></th>'
        for name, better in heads
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="sortable">'
        f'<caption class="soft">{escape(caption)}</caption><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _published(warning: str, rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_text_cell(text) for text in texts)}</tr>'
        for name, *texts in others
    )
    return f"<p>{escape(warning)}</p>" + _sortable("Figures of others", [(name, 0) for name in head], body)


def _text_cell(text: str) -> str:
    try:
        value = f' data-v="{float(text):.6g}"'
    except ValueError:
        value = ""
    return f"<td{value}>{escape(text)}</td>"


# Pictures


def _worst(column: Column, shots: Sequence[Shot], photos: Mapping[str, Sequence[Captioned]]) -> str:
    """Return the pictures that are worst in a column, each beside the references of its subject."""
    known = [shot for shot in shots if math.isfinite(shot.scores.get(column.name, math.nan))]
    chosen = sorted(known, key=lambda shot: shot.scores[column.name] * (column.better or 1))[:WORST]
    strips = {name: _strip(photos.get(name, ())) for name in dict.fromkeys(shot.subject for shot in chosen)}
    items = "".join(f"<li>{_shown(shot, LARGEST, [column])}{strips[shot.subject]}</li>" for shot in chosen)
    heading = f"{'Highest' if column.better < 0 else 'Lowest'} {column.name}"
    return f'<h3>{escape(heading)}</h3><ul class="pictures worst">{items}</ul>' if items else ""


def _strip(photos: Sequence[Captioned]) -> str:
    return (
        f'<div class="strip">{"".join(figure(image, "", f"reference {name}", _STRIP) for name, image in photos)}</div>'
    )


def _gallery(columns: Sequence[Column], shots: Sequence[Shot], photos: Mapping[str, Sequence[Captioned]]) -> str:
    if not shots:
        return ""
    side = next(side for many, side in _MANY if len(shots) >= many)
    labels = list(dict.fromkeys(shot.label for shot in shots))
    measured = [column for column in columns if any(column.name in shot.scores for shot in shots)]
    parts = [_controls(measured, labels)]
    kind = "pictures shots pairs" if len(labels) == 2 else "pictures shots"  # of two, one prompt's in one row
    for subject in dict.fromkeys(shot.subject for shot in shots):
        items = "".join(
            f'<li data-by="{labels.index(shot.label)}" data-s="{_values(shot, measured)}">'
            f"{_shown(shot, side, measured)}</li>"
            for shot in shots
            if shot.subject == subject
        )
        references = "".join(
            figure(image, escape(name), f"reference {name}", 256) for name, image in photos.get(subject, ())
        )
        parts.append(
            f'<h3>{escape(subject)}</h3><div class="beside"><div class="references">{references}</div>'
            f'<ul class="{kind}">{items}</ul></div>'
        )
    return "".join(parts)


def _controls(columns: Sequence[Column], labels: Sequence[str]) -> str:
    """Return what orders and filters the pictures; it shows only where the script runs."""
    orders = "".join(
        f'<option value="{number}" data-better="{column.better}">{escape(column.name)}, worst first</option>'
        for number, column in enumerate(columns)
    )
    shown = "".join(f'<option value="{number}">{escape(label)}</option>' for number, label in enumerate(labels))
    return (
        '<p class="controls" hidden>'
        f'<label>Order <select id="order"><option value="">as asked for</option>{orders}</select></label> '
        f'<label>Show <select id="show"><option value="">all</option>{shown}</select></label></p>'
    )


def _values(shot: Shot, columns: Sequence[Column]) -> str:
    return " ".join(f"{shot.scores.get(column.name, math.nan):.4g}" for column in columns)


def _shown(shot: Shot, side: int, columns: Sequence[Column]) -> str:
    said = f"{shot.label}: {shot.prompt}, seed {shot.seed}"
    copy = '<br><b class="copy">near-copy of a photo</b>' if shot.scores.get("copies") else ""
    measured = " ".join(
        f"{column.name} {shot.scores[column.name]:.2f}" for column in columns if column.name in shot.scores
    )
    with Image.open(shot.path) as image:
        return figure(image, f"{escape(said)}{copy}<br><b>{escape(measured)}</b>", said, side)
