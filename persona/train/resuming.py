"""What the folder of a run holds already, and whether the run that is asked for goes on with it."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from persona import checkpoints
from persona.atomic import digest_of, sweep
from persona.checkpoints import Checkpoint
from persona.config import TrainConfig
from persona.errors import BadOption, BadPersona, PersonaError
from persona.families import Family
from persona.folder import ADAPTER, RECORD, Persona
from persona.methods.settings import Settings
from persona.photos import Photo
from persona.train.thrift import FREE, LOADED, says, unsaid
from persona.train.views import STORE

Fingerprint = Callable[[int, TrainConfig], str]

_ELSE = "Choose another --out, or discard all that is there with --fresh."
_OURS = {ADAPTER, "checkpoints", "previews", "report.html", RECORD, STORE, checkpoints.LOCK}
# Settings that another call may change and still go on: they say how long and how, not what is learnt.
_FREE = {"steps", "checkpoint_every", "score_every"} | FREE


def check_ours(out: Path) -> None:
    """Make sure that the folder of a run holds nothing but what runs leave.

    Raises:
        BadOption: it does.
    """
    # What is hidden there file managers have put there, or a killed run has left.
    seen = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if strangers := sorted(seen - _OURS):
        raise BadOption(f"{out} holds other files ({strangers[0]}). Choose another folder with --out.")


def fingerprint(
    asked: TrainConfig, base: Family, photos: Sequence[Photo], given: Sequence[Photo], token: str, processes: int
) -> str:
    """Return a hash (hex) of all that the user has decided about what a step of a run does.

    Args:
        asked: what the user said.
        base: that is taught.
        photos: of the subject.
        given: the user's own pictures of the class.
        token: stands for the subject.
        processes: that share each step.
    """
    settings = asdict(Settings.of(asked, base, len(photos)))
    decided = {
        "base": [base.hash, str(base.dtype)],
        "photos": [(photo.sha256, photo.caption) for photo in photos],
        "words": [token, asked.class_noun],
        "prior": [
            asked.prior.partition(":")[0],
            asked.prior_weight,
            *((picture.sha256, picture.caption) for picture in given),
        ],
        "settings": [
            {name: value for name, value in settings.items() if name not in _FREE},
            *(asked.adapter, asked.flip, asked.seed, processes),
        ],
    }
    if asked.from_jedi:
        decided["views"] = ["jedi"]
    return digest_of(decided)


def start_of(out: Path, asked: TrainConfig, processes: int, told_by: Fingerprint) -> Checkpoint | None:
    """Return the checkpoint to go on from, once it is known that the folder is ours to write to.

    Args:
        out: the folder.
        asked: what the user said.
        processes: that share each step.
        told_by: returns the fingerprint of a run by so many processes as it is asked for; see :func:`fingerprint`.

    Raises:
        BadOption: the folder holds something else, or a run that cannot be gone on with as it is asked for.
        BadPersona: the newest checkpoint is damaged.
    """
    check_ours(out)
    sweep(out)
    start = checkpoints.latest(out)
    problem = _problem(start, out, asked, processes, told_by)
    if not asked.fresh:
        if problem:
            raise problem
        return start
    # A run that was begun anew and stopped goes on, as any does when the same command is typed again.
    if start and not problem and start.record.get("fresh") and not (out / RECORD).exists():
        return start
    for path in (out / name for name in _OURS - {checkpoints.LOCK}):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return None


def _problem(
    start: Checkpoint | None, out: Path, wanted: TrainConfig, processes: int, told_by: Fingerprint
) -> PersonaError | None:
    """Return why the run that the folder holds cannot be gone on with; ``None`` if it can, or there is none."""
    finished = (out / RECORD).exists()
    if start is None:
        told = f"{out} holds a persona without checkpoints to resume from; it can still be drawn with."
        return BadOption(f"{told} {_ELSE}") if finished else None
    if start.damaged:
        return BadPersona(f"{start.path} is damaged, so the run cannot resume from there. {_ELSE}")
    held, begun, choice = "a finished persona" if finished else "a run", start.record["run"], start.record["choice"]
    asked = unsaid(wanted, choice)
    if begun == told_by(processes, asked):
        fixed = next((name for name in sorted(choice.keys() & LOADED - FREE) if says(asked, name)), None)
        told = f"{out} holds {held} with --{fixed} {choice.get(fixed)}, chosen when memory was short."
        return BadOption(f"{told} Leave --{fixed} out to resume it. {_ELSE}") if fixed else None
    if begun == told_by(number := start.record.get("processes", processes), asked):
        told = f"{out} holds {held} whose steps {number} processes share, not {processes}."
        return BadOption(f"{told} Start as many to resume it. {_ELSE}")
    return BadOption(f"{out} holds {held} of other photos or settings. {_ELSE}")


def made_of(out: Path, start: Checkpoint) -> Persona | None:
    """Return the persona that was made of the run, if it is whole; else its checkpoints can make it again."""
    if not (out / RECORD).is_file():  # one that is called like the folder would be opened, of `personas`
        return None
    try:
        made = Persona.open(out)
    except BadPersona:
        return None
    # One that was trained on, and stopped before the end was written down, is still that of before.
    last = made.step == start.step or scored(made.history, start.step)
    old = list(made.history) != start.record["history"] or not last
    return None if old else made


def scored(history: Iterable[Mapping[str, float]], step: int) -> bool:
    """Tell whether the weights of a step have scores."""
    return any(scores["step"] == step for scores in history)
