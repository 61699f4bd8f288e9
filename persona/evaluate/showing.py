"""What an evaluation found, as a page, a table and a record."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from persona.atomic import beside, keep
from persona.config import EvaluateConfig
from persona.drawing import precision_of
from persona.evaluate import tables
from persona.evaluate.contest import CLAY
from persona.evaluate.entrants import Entrant, subjects_of
from persona.evaluate.evaluator import Evaluator
from persona.evaluate.methods import BASE
from persona.evaluate.pictures import how_of
from persona.evaluate.published import TABLE, WARNING
from persona.evaluate.subjects import Subject
from persona.events import Listener, Note
from persona.families import Family
from persona.folder import versions
from persona.report import Column, Plot, Row, Shot, write_evaluation

REPORT, RECORD, TABLE_FILE = "report.html", "evaluation.json", "table.md"


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        folder: of all of it.
        columns: what was measured.
        rows: those who were, after the bounds of what can be reached.
        shots: every picture with its scores.
        fidelity: the column that says how well the subject is met.
        prompt: the column that says how well prompts are followed.
        report: a page about it.
        table: the same rows as Markdown.
    """

    folder: Path
    columns: Sequence[Column]
    rows: Sequence[Row]
    shots: Sequence[Shot]
    fidelity: str
    prompt: str
    report: Path
    table: Path


def write(
    found: Evaluation,
    shown: Sequence[Shot],
    config: EvaluateConfig,
    entrants: Sequence[Entrant],
    evaluator: Evaluator,
    notes: Sequence[str],
    listener: Listener,
) -> None:
    """Write all of it into the folder of the evaluation; what another evaluation has left there gets other names.

    Args:
        found: what was found.
        shown: those of its pictures that are on the page.
        config: of the evaluation.
        entrants: who was measured.
        evaluator: what measured them.
        notes: what to keep in mind of the figures.
        listener: told what was renamed.
    """
    subjects = subjects_of(entrants)
    settings = _settings(config, entrants, evaluator)
    _set_aside(config.out, settings, listener)
    record = {"settings": settings, "notes": list(notes), "rows": tables.as_json(found.rows)}
    with beside(config.out / RECORD) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    with beside(found.table) as part:
        part.write_text(tables.as_markdown(found.rows, found.columns), encoding="utf-8")
    real = config.dreambench not in (None, CLAY)
    times = {column.name for column in tables.TIMES}
    copied = "background" if any(column.name == "background" for column in found.columns) else "memorisation"
    write_evaluation(
        found.report,
        title=_title(config, entrants, subjects),
        columns=found.columns,
        rows=found.rows,
        plot=Plot(found.prompt, found.fidelity),
        notes=notes,
        published=(WARNING, TABLE) if real else None,
        worst=(found.fidelity, found.prompt, copied),
        used=_used(found, entrants),
        photos={subject.name: [(photo.name, photo.image) for photo in subject.photos] for subject in subjects},
        shots=[_without(shot, times) for shot in shown],
        settings=settings,
    )


def _set_aside(folder: Path, settings: Mapping[str, Any], listener: Listener) -> None:
    """Rename what an evaluation with other settings has written."""

    def own(settings: Any) -> Any:
        return {name: value for name, value in settings.items() if name != "versions"}

    with suppress(OSError, ValueError, KeyError, AttributeError):  # nothing is there, or nothing of ours
        if own(json.loads((folder / RECORD).read_text(encoding="utf-8"))["settings"]) == own(
            json.loads(json.dumps(settings))
        ):
            return
        report, *_ = [keep(folder / name, folder / name) for name in (REPORT, TABLE_FILE, RECORD)]
        listener(Note(f"The evaluation that was in {folder} is now in {report.name}, and so on."))


def _used(found: Evaluation, entrants: Sequence[Entrant]) -> list[str]:
    """Return whose failures matter: the best's, else those of all but the base, which never saw the subject."""
    best = [row.label for row in found.rows if row.best]
    labels = [entrant.label for entrant in entrants]
    return best or [label for label in labels if label != BASE] or labels


def _without(shot: Shot, times: set[str]) -> Shot:
    """Leave out of a picture's own scores what is the same for all."""
    return replace(shot, scores={name: value for name, value in shot.scores.items() if name not in times})


def _title(config: EvaluateConfig, entrants: Sequence[Entrant], subjects: Sequence[Subject]) -> str:
    lines = list(dict.fromkeys(entrant.line for entrant in entrants))
    if config.dreambench is None:
        where = ", ".join(subject.name for subject in subjects)
    else:
        where = f"{len(subjects)} subjects of {'clay' if config.dreambench == CLAY else 'DreamBench'}"
    return f"{', '.join(lines)} on {where}"


def _settings(config: EvaluateConfig, entrants: Sequence[Entrant], evaluator: Evaluator) -> Mapping[str, Any]:
    bases = {entrant.base.hash: entrant.base for entrant in entrants}.values()
    told = {name: value for name, value in config.record().items() if value is not None}
    paths: dict[str, Any] = {name: Path(str(told[name])).name for name in ("dreambench", "prompts") if name in told}
    for name in ("photos", "base"):  # where they are on this machine is nobody's business
        told.pop(name, None)
    return {
        **told,
        **paths,
        "names": [Path(name).name for name in config.names],
        "measured with": evaluator.name,
        "drawn with": {f"{base.title} {base.hash[:12]}": _drawn_with(config, base) for base in bases},
        **{entrant.label: _common(entrant.label, entrants) for entrant in entrants if entrant.decides},
        "versions": versions(),
    }


def _drawn_with(config: EvaluateConfig, base: Family) -> str:
    how = how_of(config, base)
    start = f" after {base.recipe.guidance_start:.0%} of them" if base.recipe.guidance_start else ""
    return f"{how.steps} steps, guidance {how.guidance:g}{start}, {how.size[0]} pixels, {precision_of(base)}"


def _common(label: str, entrants: Sequence[Entrant]) -> Mapping[str, Any]:
    """Return what decides the pictures of a row, as far as it is the same for all its subjects."""
    rows = [entrant.decides for entrant in entrants if entrant.label == label]
    return {name: value for name, value in rows[0].items() if all(row.get(name) == value for row in rows)}
