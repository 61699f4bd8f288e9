"""One evaluation: what is missing is drawn, what is new is measured, and all of it shown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from persona.atomic import beside
from persona.config import EvaluateConfig
from persona.drawing import check_output, precision_of, processes, size_of
from persona.errors import BadOption
from persona.evaluate import tables
from persona.evaluate.contest import CLAY, contest
from persona.evaluate.entrants import Entrant, Studio
from persona.evaluate.evaluator import Evaluator
from persona.evaluate.judging import JudgeEvaluator
from persona.evaluate.methods import BASE, bare_of
from persona.evaluate.networks import NetworkEvaluator
from persona.evaluate.pictures import How, Series, draw_all
from persona.evaluate.published import TABLE, WARNING
from persona.evaluate.scoring import measured
from persona.evaluate.subjects import Subject
from persona.events import Listener, Note, silent
from persona.families import Family
from persona.folder import versions
from persona.networks import CLIP, DINO, Networks, absent
from persona.prompts import tell_unknown
from persona.report import Column, Plot, Row, Shot, write_evaluation
from persona.score import has_judge, load_judge, strange

REPORT, RECORD, TABLE_FILE = "report.html", "evaluation.json", "table.md"
OWN = "The judge cannot tell what your own prompts ask for: prompt is left out, and with it the plot and the best."
"""Of prompts that do not come with what should be read in their pictures."""


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


def evaluate(config: EvaluateConfig, listener: Listener = silent, *, versus: bool = False) -> Evaluation:
    """Measure personas, checkpoints, strengths and methods on the same prompts and seeds.

    The same call goes on where an earlier one was stopped; under ``accelerate launch`` the processes share the work.

    Args:
        config: who, on what, and how.
        listener: told how far it is, and what cannot be measured here.
        versus: whether to add a row for what the first is above the second.

    Raises:
        PersonaError: whatever the user can mend; what was drawn and measured before is kept.
        OSError: the disk is full; likewise.
    """
    check_output(config.out)
    studio = Studio(config.out, config.base, config.seed, _heard(listener), config.checkpoints, config.scales)
    entrants = contest(config, studio)
    if versus:
        _check_comparable(entrants)
    return measure(config, entrants, listener, versus=versus, notes=studio.notes)


def measure(
    config: EvaluateConfig,
    entrants: Sequence[Entrant],
    listener: Listener = silent,
    *,
    versus: bool = False,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Do as :func:`evaluate` does, for entrants that are known already.

    Args:
        config: on what, and how.
        entrants: who is measured.
        listener: see :func:`evaluate`.
        versus: see :func:`evaluate`.
        notes: what was said of the entrants that is to be kept in mind of the figures.
    """
    listener = _heard(listener)
    evaluator = _evaluator(config, entrants, listener)
    for note in evaluator.notes:
        listener(Note(note, warning=True))
    notes = [*notes, *evaluator.notes]
    _tell_unknown(entrants, listener)
    series = [(entrant, *_drawn(config, entrant, listener)) for entrant in entrants]
    shots = measured(series, evaluator, listener)
    columns = [*evaluator.columns, *tables.TIMES]
    if fewer := tables.of_fewer(shots):
        notes.append(f"Not in the choice of the best, as they do not draw all of the subjects: {', '.join(fewer)}.")
        listener(Note(notes[-1]))
    rows = tables.with_best(tables.rows_of(shots, entrants, columns), evaluator, fewer)
    if versus:
        rows.append(tables.difference(shots, rows[0].label, rows[1].label, columns))
    found = Evaluation(
        folder=config.out,
        columns=[column for column in columns if any(column.name in row.cells for row in rows)],
        rows=[*tables.bounds(_subjects(entrants), evaluator), *rows],
        shots=shots,
        fidelity=evaluator.fidelity,
        prompt=evaluator.prompt,
        report=config.out / REPORT,
        table=config.out / TABLE_FILE,
    )
    if processes().is_main_process:
        own = {(entrant.label, drawn.folder) for entrant, drawn, _ in series}
        shown = [shot for shot in found.shots if (shot.label, shot.path.parent) in own]
        _write(found, shown, config, entrants, evaluator, notes)
    processes().wait_for_everyone()
    return found


def _heard(listener: Listener) -> Listener:
    """Let only the first of several processes speak."""
    return listener if processes().is_main_process else silent


def _check_comparable(entrants: Sequence[Entrant]) -> None:
    """Make sure that two draw the same: their pictures are compared one by one.

    Raises:
        BadOption: they have no subject in common.
    """
    drawn: dict[str, set[str]] = {}
    for entrant in entrants:
        drawn.setdefault(entrant.label, set()).add(entrant.subject.name)
    if not set.intersection(*drawn.values()):
        names = " and ".join(drawn)
        raise BadOption(f"{names} are of different subjects: no two images can be compared. Use persona evaluate.")


def _evaluator(config: EvaluateConfig, entrants: Sequence[Entrant], listener: Listener) -> Evaluator:
    """Return the judge of the bases where they ship one, unless the photos are real; else the papers' networks.

    It guesses at real photos too where these networks would first have to be fetched: clay needs no download.
    """
    bases, missing = [entrant.base for entrant in entrants], absent(config.networks)
    if all(has_judge(base) for base in bases) and config.dreambench in (None, CLAY):
        guesses = _guesses(bases[0], _subjects(entrants)) if config.dreambench is None else []
        if not guesses or (config.networks is None and {DINO, CLIP}.intersection(missing)):
            return _judge(bases[0], entrants, guesses)
    if missing and config.networks is None:
        listener(Note(f"Fetching {', '.join(missing)}: at most 1.3 GB, once."))
    with processes().local_main_process_first():  # one fetches for all
        return NetworkEvaluator(Networks.find(config.networks, fetch=True, device=processes().device))


def _guesses(base: Family, subjects: Sequence[Subject]) -> list[str]:
    """Return what is to be said where the judge of a base measures what it does not know."""
    judge = f"The judge of {Path(base.name).name} was never shown photos such as those of"
    return [
        f"{judge} {subject.name}: what it says of their images is a guess. Look at them."
        for subject in subjects
        if subject.photos and strange(base, [photo.image for photo in subject.photos])
    ]


def _judge(base: Family, entrants: Sequence[Entrant], guesses: Sequence[str]) -> Evaluator:
    evaluator = JudgeEvaluator(load_judge(base))
    asked = [p for subject in _subjects(entrants) for p in subject.prompts if p.kind == "subject"]
    evaluator.notes = (*guesses, *(() if any(p.expected for p in asked) else (OWN,)))
    return evaluator


def _subjects(entrants: Sequence[Entrant]) -> list[Subject]:
    return list({entrant.subject.name: entrant.subject for entrant in entrants}.values())


def _tell_unknown(entrants: Sequence[Entrant], listener: Listener) -> None:
    for base in {entrant.base.hash: entrant.base for entrant in entrants}.values():
        texts = {p.bare(e.subject.class_noun) for e in entrants if e.base.hash == base.hash for p in e.subject.prompts}
        tell_unknown(base, sorted(texts), [], listener)


# Drawing


def _drawn(config: EvaluateConfig, entrant: Entrant, listener: Listener) -> tuple[Series, Series]:
    """Draw what is missing of an entrant's pictures, and of the base's own that they are compared with."""
    how = _how(config, entrant.base)
    about, rest = (
        [prompt for prompt in entrant.subject.prompts if (prompt.kind == "subject") is wanted]
        for wanted in (True, False)
    )
    before = draw_all(bare_of(entrant.base, entrant.subject), rest, how, config.out, listener)
    if not entrant.leaves:
        return draw_all(entrant, [*about, *rest], how, config.out, listener), before
    drawn = draw_all(entrant, about, how, config.out, listener)
    return replace(drawn, pictures=[*drawn.pictures, *before.pictures]), before


def _how(config: EvaluateConfig, base: Family) -> How:
    return How(
        n=config.n,
        seed=config.seed,
        steps=config.steps or base.recipe.sample_steps,
        guidance=base.recipe.guidance if config.guidance is None else config.guidance,
        size=size_of(base, config.resolution),
        batch=config.batch,
    )


# Showing


def _write(
    found: Evaluation,
    shown: Sequence[Shot],
    config: EvaluateConfig,
    entrants: Sequence[Entrant],
    evaluator: Evaluator,
    notes: Sequence[str],
) -> None:
    subjects = _subjects(entrants)
    settings = _settings(config, entrants, evaluator)
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
    bases = {Path(entrant.base.name).name: entrant.base for entrant in entrants}
    used = {name: _how(config, base) for name, base in bases.items()}
    told = {name: value for name, value in config.record().items() if value is not None}
    paths: dict[str, Any] = {name: Path(str(told[name])).name for name in ("dreambench", "prompts") if name in told}
    for name in ("photos", "base"):  # where they are on this machine is nobody's business
        told.pop(name, None)
    return {
        **told,
        **paths,
        "names": [Path(name).name for name in config.names],
        "measured with": evaluator.name,
        "drawn with": {
            name: f"{base.hash[:12]}, {used[name].steps} steps, guidance {used[name].guidance:g}, "
            f"{used[name].size[0]} pixels, {precision_of(base)}"
            for name, base in bases.items()
        },
        **{entrant.label: _common(entrant.label, entrants) for entrant in entrants if entrant.decides},
        "versions": versions(),
    }


def _common(label: str, entrants: Sequence[Entrant]) -> Mapping[str, Any]:
    """Return what decides the pictures of a row, as far as it is the same for all its subjects."""
    rows = [entrant.decides for entrant in entrants if entrant.label == label]
    return {name: value for name, value in rows[0].items() if all(row.get(name) == value for row in rows)}
