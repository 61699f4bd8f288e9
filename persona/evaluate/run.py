"""One evaluation: what is missing is drawn, what is new is measured, and all of it shown."""

from collections.abc import Sequence
from dataclasses import replace

from persona.config import EvaluateConfig
from persona.drawing import check_output, processes
from persona.errors import BadOption
from persona.evaluate import tables
from persona.evaluate.contest import contest, have_networks, judged
from persona.evaluate.entrants import Entrant, Hearing, Studio, subjects_of
from persona.evaluate.evaluator import Evaluator
from persona.evaluate.judging import JudgeEvaluator
from persona.evaluate.methods import bare_of
from persona.evaluate.networks import NetworkEvaluator
from persona.evaluate.pictures import Series, draw_all, how_of
from persona.evaluate.scoring import measured
from persona.evaluate.showing import REPORT, TABLE_FILE, Evaluation, write
from persona.evaluate.subjects import Subject
from persona.events import Listener, Note, silent
from persona.families import Family
from persona.networks import CLIP, DINO, Networks, absent
from persona.prompts import tell_cut, tell_unknown
from persona.score import load_judge, strange

OWN = "The judge cannot tell what your own prompts ask for: the prompt column, the plot and the best are left out."
"""Of prompts that do not come with what should be read in their pictures."""


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
    if config.networks is not None and not config.networks.is_dir():
        raise BadOption(f"--networks {config.networks} is no folder. Name one that holds dino-vits16 and the like.")
    studio = Studio(config.out, config.base, config.seed, _heard(listener), config.checkpoints, config.scales)
    entrants = contest(config, studio)
    if versus:
        _check_comparable(entrants)
    return measure(config, entrants, listener, versus=versus, notes=studio.hear.notes)


def measure(
    config: EvaluateConfig,
    entrants: Sequence[Entrant],
    listener: Listener = silent,
    *,
    versus: bool = False,
    notes: list[str] | None = None,
) -> Evaluation:
    """Do as :func:`evaluate` does, for entrants that are known already.

    Args:
        config: on what, and how.
        entrants: who is measured.
        listener: see :func:`evaluate`.
        versus: see :func:`evaluate`.
        notes: what was warned of already, and is to be kept in mind of the figures; what else is, is added.
    """
    hear = Hearing(_heard(listener), [] if notes is None else notes)
    evaluator = _evaluator(config, entrants, hear)
    for note in evaluator.notes:
        hear(Note(note, warning=True))
    _tell_prompts(entrants, hear)
    series = [(entrant, *_drawn(config, entrant, hear)) for entrant in entrants]
    shots = measured(series, evaluator, hear)
    columns = [*evaluator.columns, *tables.TIMES]
    if fewer := tables.of_fewer(shots):
        reason = "as they do not draw all of the subjects"
        hear.notes.append(f"Not in the choice of the best, {reason}: {', '.join(fewer)}.")
        hear(Note(hear.notes[-1]))
    rows = tables.with_best(tables.rows_of(shots, entrants, columns), evaluator, fewer)
    if versus:
        rows.append(tables.difference(shots, rows[0].label, rows[1].label, columns))
    found = Evaluation(
        folder=config.out,
        columns=[column for column in columns if any(column.name in row.cells for row in rows)],
        rows=[*tables.bounds(subjects_of(entrants), evaluator), *rows],
        shots=shots,
        fidelity=evaluator.fidelity,
        prompt=evaluator.prompt,
        report=config.out / REPORT,
        table=config.out / TABLE_FILE,
    )
    if processes().is_main_process:
        own = {(entrant.label, drawn.folder) for entrant, drawn, _ in series}
        shown = [shot for shot in found.shots if (shot.label, shot.path.parent) in own]
        write(found, shown, config, entrants, evaluator, hear.notes, hear)
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
    bases = [entrant.base for entrant in entrants]
    if judged(config, bases):
        guesses = _guesses(bases[0], subjects_of(entrants)) if config.dreambench is None else []
        if not guesses or (config.networks is None and {DINO, CLIP}.intersection(absent())):
            if config.networks is not None:
                listener(Note(f"The judge of {bases[0].title} measures its own world: --networks is not used."))
            return _judge(bases[0], entrants, guesses)
    have_networks(config, listener)
    return NetworkEvaluator(Networks.find(config.networks, device=processes().device))


def _guesses(base: Family, subjects: Sequence[Subject]) -> list[str]:
    """Return what is to be said where the judge of a base measures what it does not know."""
    judge = f"The judge of {base.title} was never shown photos such as those of"
    return [
        f"{judge} {subject.name}: what it says of their images is a guess. Look at them."
        for subject in subjects
        if subject.photos and strange(base, [photo.image for photo in subject.photos])
    ]


def _judge(base: Family, entrants: Sequence[Entrant], guesses: Sequence[str]) -> Evaluator:
    evaluator = JudgeEvaluator(load_judge(base))
    asked = [p for subject in subjects_of(entrants) for p in subject.prompts if p.kind == "subject"]
    evaluator.notes = (*guesses, *(() if any(p.expected for p in asked) else (OWN,)))
    return evaluator


def _tell_prompts(entrants: Sequence[Entrant], listener: Listener) -> None:
    """Warn of what their bases do not read of prompts."""
    for base in {entrant.base.hash: entrant.base for entrant in entrants}.values():
        asked = [(e, prompt) for e in entrants if e.base.hash == base.hash for prompt in e.subject.prompts]
        tell_cut(base, sorted({e.text(prompt) for e, prompt in asked}), listener)
        tell_unknown(base, sorted({prompt.bare(e.subject.class_noun) for e, prompt in asked}), [], listener)


# Drawing


def _drawn(config: EvaluateConfig, entrant: Entrant, listener: Listener) -> tuple[Series, Series]:
    """Draw what is missing of an entrant's pictures, and of the base's own that they are compared with."""
    how = how_of(config, entrant.base)
    about, rest = (
        [prompt for prompt in entrant.subject.prompts if (prompt.kind == "subject") is wanted]
        for wanted in (True, False)
    )
    before = draw_all(bare_of(entrant.base, entrant.subject), rest, how, config.out, listener)
    if not entrant.leaves:
        return draw_all(entrant, [*about, *rest], how, config.out, listener), before
    drawn = draw_all(entrant, about, how, config.out, listener)
    return replace(drawn, pictures=[*drawn.pictures, *before.pictures]), before
