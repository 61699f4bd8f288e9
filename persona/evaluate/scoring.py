"""Measuring what was drawn: each process its share, and nothing twice."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persona import __version__
from persona.atomic import beside, digest_of
from persona.drawing import processes
from persona.errors import PersonaError
from persona.evaluate import tables
from persona.evaluate.entrants import Entrant
from persona.evaluate.evaluator import Evaluator, Scores
from persona.evaluate.pictures import Series, file_name
from persona.events import Listener, Progress
from persona.report import Shot


def measured(
    series: Sequence[tuple[Entrant, Series, Series]],
    evaluator: Evaluator,
    listener: Listener,
) -> list[Shot]:
    """Measure what is new; each process takes its share, and finds that of the others in their files."""
    state = processes()
    files = [_scores_file(entrant, drawn) for entrant, drawn, _ in series]
    marks = [_mark(*one, evaluator) for one in series]
    todo = [place for place, file in enumerate(files) if _scores(file, marks[place]) is None]
    state.wait_for_everyone()  # all have seen the same scores missing before the first is written
    mine = todo[state.process_index :: state.num_processes]
    for number, place in enumerate(mine):
        listener(Progress("Measuring", number, len(mine)))
        entrant, drawn, before = series[place]
        scores = evaluator.score(entrant.subject, drawn.pictures, before.pictures)
        with beside(files[place]) as part:
            part.write_text(json.dumps({"of": marks[place], "scores": scores}) + "\n", encoding="utf-8")
    if mine:
        listener(Progress("Measuring", len(mine), len(mine)))
    state.wait_for_everyone()
    return [
        shot
        for (entrant, drawn, _), file, mark in zip(series, files, marks, strict=True)
        for shot in _shots(entrant, drawn, _there(file, mark))
    ]


def _scores_file(entrant: Entrant, drawn: Series) -> Path:
    return drawn.folder / f"scores-{file_name(entrant.subject.name)}.json"


def _mark(entrant: Entrant, drawn: Series, before: Series, evaluator: Evaluator) -> str:
    """Return a hash (hex) of all that scores depend on."""
    subject = entrant.subject
    what = {
        "with": [__version__, evaluator.mark, [(one.name, one.meaning) for one in evaluator.columns]],
        "photos": [photo.sha256 for photo in subject.photos],
        "class": subject.class_noun,
        "pictures": [one.path.name for one in drawn.pictures],
        "expected": [dict(prompt.expected) for prompt in subject.prompts],
        "before": before.folder.name,
    }
    return digest_of(what)


def _scores(file: Path, mark: str) -> list[Scores] | None:
    """Return the scores in a file, if it is there and they are of the same pictures, measured alike."""
    try:
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known["scores"] if known.get("of") == mark else None


def _there(file: Path, mark: str) -> list[Scores]:
    """Return the scores in a file that some process has written.

    Raises:
        PersonaError: on a disk that machines share it is not to be seen here yet.
    """
    scores = _scores(file, mark)
    if scores is None:
        raise PersonaError(f"{file} was written by another process, and is not here yet. Run the same command again.")
    return scores


def _shots(entrant: Entrant, drawn: Series, scores: Sequence[Scores]) -> list[Shot]:
    learning, drawing = tables.TIMES
    times = {
        learning.name: None if drawn.learning is None else drawn.learning / 60,
        drawing.name: drawn.drawing,
    }
    known = {name: seconds for name, seconds in times.items() if seconds is not None}
    noun = entrant.subject.class_noun
    return [
        Shot(one.path, entrant.label, entrant.subject.name, one.prompt.text(noun), one.seed, {**values, **known})
        for one, values in zip(drawn.pictures, scores, strict=True)
    ]
