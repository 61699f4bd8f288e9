"""From the scores of pictures to rows with intervals: for the page, for machines, and for a README."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import mean

from persona.evaluate.entrants import Entrant
from persona.evaluate.evaluator import Evaluator, Scores
from persona.evaluate.subjects import Subject
from persona.metrics import interval
from persona.report import Cell, Column, Row, Shot

TIMES = (
    Column("learning, min", "Minutes that learning the subject took.", -1),
    Column("drawing, s", "Seconds that an image took on this machine.", -1),
)


def rows_of(shots: Sequence[Shot], entrants: Sequence[Entrant], columns: Sequence[Column]) -> list[Row]:
    """Return a row for each label, in the order of the entrants."""
    lines = {entrant.label: entrant.line for entrant in entrants}
    return [
        Row(label, _cells([shot for shot in shots if shot.label == label], columns), line)
        for label, line in lines.items()
    ]


def of_fewer(shots: Sequence[Shot]) -> list[str]:
    """Return the labels that some of the subjects are missing from, such as late checkpoints of long trainings."""
    subjects: dict[str, set[str]] = {}
    for shot in shots:
        subjects.setdefault(shot.label, set()).add(shot.subject)
    every = set[str]().union(*subjects.values())
    return [label for label, known in subjects.items() if known < every]


def with_best(rows: Sequence[Row], evaluator: Evaluator, apart: Collection[str] = ()) -> list[Row]:
    """Mark the row whose trade-off is the best; none where there is nothing to choose between.

    Args:
        rows: of all labels.
        evaluator: knows the trade-off.
        apart: labels that cannot be compared with the others.
    """
    totals = [
        math.nan if row.label in apart else evaluator.total({name: cell.mean for name, cell in row.cells.items()})
        for row in rows
    ]
    finite = [total for total in totals if math.isfinite(total)]
    best = totals.index(max(finite)) if len(finite) > 1 else None
    return [replace(row, best=place == best) for place, row in enumerate(rows)]


def difference(shots: Sequence[Shot], one: str, other: str, columns: Sequence[Column]) -> Row:
    """Return by how much one label is above another, picture by picture: what both find hard does not count."""
    yours = {(shot.subject, shot.prompt, shot.seed): shot.scores for shot in shots if shot.label == other}
    apart = []
    for shot in (shot for shot in shots if shot.label == one):
        base = yours.get((shot.subject, shot.prompt, shot.seed), {})
        above = {name: value - base[name] for name, value in shot.scores.items() if name in base}
        apart.append(replace(shot, scores=above))
    return Row(f"{one} minus {other}", _cells(apart, columns))


def bounds(subjects: Sequence[Subject], evaluator: Evaluator) -> list[Row]:
    """Return what can be reached, photos against the subject's other photos, and what is nothing, another's photos."""
    known = [(subject.class_noun, [photo.image for photo in subject.photos]) for subject in subjects if subject.photos]
    own = [evaluator.score_photos(photos, noun) for noun, photos in known if len(photos) > 1]
    rows = [Row("photos of the same subject", _cells_of(own))]
    if len(known) > 1:
        others = [
            evaluator.score_photos(photos, noun, known[place - 1][1]) for place, (noun, photos) in enumerate(known)
        ]
        rows.append(Row("photos of another subject", _cells_of(others)))
    return [row for row in rows if row.cells]


def _cells_of(scores: Sequence[Sequence[Scores]]) -> dict[str, Cell]:
    """Return the means of scores, those of one subject in each group."""
    names = dict.fromkeys(name for group in scores for one in group for name in one)
    groups = {name: [[one[name] for one in group if name in one] for group in scores] for name in names}
    cells = {name: _cell([group for group in some if group]) for name, some in groups.items()}
    return {name: cell for name, cell in cells.items() if cell}


def as_markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Return rows as a Markdown table."""
    shown = [column for column in columns if any(column.name in row.cells for row in rows)]
    lines = [f"| | {' | '.join(column.name for column in shown)} |", "|---" * (len(shown) + 1) + "|"]
    for row in rows:
        cells = (_text(row.cells.get(column.name)) for column in shown)
        name = " ".join(row.label.split()).replace("|", "\\|")
        lines.append(f"| {name}{' **(best)**' if row.best else ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return rows as JSON values: mean, low and high of each column."""
    return [
        {
            "label": row.label,
            "best": row.best,
            "scores": {name: [cell.mean, cell.low, cell.high] for name, cell in row.cells.items()},
        }
        for row in rows
    ]


def _text(cell: Cell | None) -> str:
    return f"{cell.mean:.3f} ({cell.low:.3f} to {cell.high:.3f})" if cell else ""


def _cells(shots: Sequence[Shot], columns: Sequence[Column]) -> dict[str, Cell]:
    found = {
        column.name: _cell([list(prompts.values()) for prompts in _by_prompt(shots, column.name).values()])
        for column in columns
    }
    return {name: cell for name, cell in found.items() if cell}


def _cell(groups: Sequence[Sequence[float]]) -> Cell | None:
    """Return the mean of the groups' means, so that each subject counts the same, with its interval."""
    return Cell(mean(map(mean, groups)), *interval(groups)) if groups else None


def _by_prompt(shots: Sequence[Shot], column: str) -> Mapping[str, Mapping[object, float]]:
    """Return the mean of a column over the seeds of each prompt, by subject; of a prompt alone, the value of each seed.

    What varies least is averaged; were it all that there is, nothing would be left to vary.
    """
    values: dict[str, dict[object, dict[int, float]]] = {}
    for shot in shots:
        if column in shot.scores:
            values.setdefault(shot.subject, {}).setdefault(shot.prompt, {})[shot.seed] = shot.scores[column]
    return {
        subject: {prompt: mean(seeds.values()) for prompt, seeds in prompts.items()}
        if len(prompts) > 1
        else dict(*prompts.values())
        for subject, prompts in values.items()
    }
