"""Teach a base model one subject: photos in, a persona out."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from persona import checkpoints, drawing, families, identity
from persona.atomic import room
from persona.config import TrainConfig
from persona.config.words import is_text
from persona.errors import BadOption, BadPersona
from persona.events import Listener, Note, silent
from persona.families import Family
from persona.families.family import has
from persona.folder import HOME, Persona, folder_for, personas
from persona.identity import Token
from persona.methods.jedi import JeDi
from persona.methods.settings import Settings
from persona.noise import Flow
from persona.photos import Photo, read
from persona.priors import check_store
from persona.prompts import tell_unknown
from persona.score import strange
from persona.train import speed
from persona.train.frugal import Frugal
from persona.train.material import given_pictures, kept_side
from persona.train.processes import agree, launched
from persona.train.rehearsal import DRAWING
from persona.train.resuming import check_ours, fingerprint
from persona.train.run import Run
from persona.train.thrift import Choice, choose, kept, unsaid

__all__ = ["train"]


def train(config: TrainConfig, listener: Listener = silent) -> Persona:
    """Learn the subject of a few photos.

    Called again, it resumes a run that was stopped, however it was stopped (on a CPU to the bit; on a GPU kernels round
    in no fixed order); a finished persona it only opens. Under ``accelerate launch`` the processes share each step.

    Args:
        config: what to learn, and how; what it leaves open is as the base recommends.
        listener: told how far it is, and what could be better.

    Raises:
        PersonaError: whatever the user can mend; what was there before is untouched.
    """
    accelerator = launched()
    if not accelerator.is_main_process:
        listener = silent
    photos, given = read(config.photos, listener, kept_side(config)), given_pictures(config, listener)
    agree(accelerator, partial(_check_folder, config))
    _check_effects(config, listener)
    dtype = drawing.number_format(config.precision, accelerator.device)
    frugal = Frugal(config, dtype, len(photos), accelerator, listener)
    choice, seen = agree(accelerator, partial(_begun, config)), None
    if choice is None or not frugal.fits(choice):
        look = partial(choose, config, len(photos), dtype, accelerator.device, accelerator.num_processes, listener)
        choice, seen = agree(accelerator, look)
        frugal.load(choice)
    if config.from_jedi:
        JeDi.load(frugal.base).remove()  # it has weights for it, before anything else is done
    if frugal.base.recipe.ood_steps and strange(frugal.base, [photo.image for photo in photos]):
        frugal.asked = _at_length(config, frugal.base, listener)
    tell_unknown(frugal.base, [config.class_noun], [], listener)
    known = partial(_token, frugal, photos, given, accelerator, listener)
    token = frugal.anyhow(partial(frugal.within, DRAWING, known))
    out = config.out or folder_for(config.class_noun, token.text)
    with room(out), ExitStack() as stack:
        agree(accelerator, lambda: stack.enter_context(checkpoints.held(out)))
        run = Run(frugal, photos, given, token, out, accelerator, listener)
        made = run.finish()
        if seen and run.pace and frugal.choice == choice:  # what was seen is of no other
            speed.note(accelerator.device, f"{dtype}, {frugal.settings.quantize}", seen.operations, run.pace)
        return made


def _check_folder(config: TrainConfig) -> None:
    """Find out before a base is fetched and loaded whether a run may write what it has to, as far as is known.

    Raises:
        BadOption: there it cannot write, or the folder holds other files.
        Busy: another run holds it.
    """
    if config.prior == "generated":
        check_store()
    out = _known_folder(config)
    if out is None:
        return
    if not is_text(str(out)):  # safetensors would not open its own file there, when all is learnt
        raise BadOption(f"--out {str(out)!a} is no text, so weights in it could not be read. Choose another name.")
    drawing.check_output(out)
    if out.exists():
        with checkpoints.held(out):
            check_ours(out)


def _known_folder(config: TrainConfig) -> Path | None:
    """Return the folder of a run, if it is known before its token is."""
    return config.out or (folder_for(config.class_noun, config.token) if config.token else None)


def _begun(config: TrainConfig) -> Choice | None:
    """Return what was chosen for the run that goes on, if there is one: to look anew would take minutes."""
    out = _known_folder(config)
    start = checkpoints.latest(out) if out and not config.fresh else None
    return kept(config, start.record["choice"]) if start and not start.damaged else None


def _check_effects(config: TrainConfig, listener: Listener) -> None:
    """Find out as early whether what is said can have an effect on the base.

    Raises:
        BadBase: it cannot be found or reached.
        BadOption: something would have none, or the base can draw nothing that large.
    """
    if not (config.snr_gamma or config.text_learning_rate is not None or config.targets or config.resolution):
        return
    base = families.blueprint(config.base, listener)
    drawing.size_of(base, config.resolution)
    if config.snr_gamma and isinstance(base.noise, Flow):
        raise BadOption(f"--snr-gamma has no effect on {base.name}, which learns by flow matching. Leave it out.")
    if config.text_learning_rate is not None and not Settings.of(config, base, 1).text_encoder:
        raise BadOption("--text-learning-rate goes with --text-encoder. Give both, or leave it out.")
    if unknown := [target for target in config.targets or () if not has(base.denoiser, [target])]:
        raise BadOption(f"{base.name} has no module named {', '.join(unknown)}. Leave that --target out.")


def _at_length(config: TrainConfig, base: Family, listener: Listener) -> TrainConfig:
    """Return settings for photos of what the base was never shown, which takes more of it and longer to learn."""
    steps = config.steps or base.recipe.ood_steps
    told = f"These photos show what {base.name} was never shown: more of its layers are trained, for {steps:,} steps."
    listener(Note(f"{told} It draws them but roughly; for photographs, name a real base with --base."))
    return replace(config, steps=steps, targets=config.targets or base.recipe.ood_targets)


def _token(
    frugal: Frugal, photos: Sequence[Photo], given: Sequence[Photo], accelerator: Accelerator, listener: Listener
) -> Token:
    """Return the user's token, that of the run that goes on, or one that the first process chooses for all."""
    config, base = frugal.asked, frugal.base
    if config.token is not None:
        token, advice = identity.check(base, config.token, config.class_noun)
        for note in advice:
            listener(note)
        return token

    def choose() -> Token:
        # Chosen anew, at the size that memory allows today, it could be another, and begin another folder.
        folders = [config.out] if config.out else sorted(HOME.glob("*"))
        starts = {folder: start for folder in folders if (start := checkpoints.latest(folder))}
        records = {folder: start.record for folder, start in starts.items() if not start.damaged}
        for record in [] if config.fresh else records.values():
            asked, processes = unsaid(config, record["choice"]), accelerator.num_processes
            same = partial(fingerprint, asked, base, photos, given, record["token"], processes)
            if config.out or (record["evidence"] and record["run"] == same()):
                token, _ = identity.check(base, record["token"], config.class_noun)
                return replace(token, evidence=record["evidence"])
        return identity.choose(base, config.class_noun, listener, frugal.size, _taken(config, photos, records))

    return agree(accelerator, choose)


def _taken(config: TrainConfig, photos: Sequence[Photo], records: Mapping[Path, Mapping[str, Any]]) -> set[str]:
    """Return the words of other subjects of the class, which keep the folders that are called by them.

    Args:
        config: what it replaces keeps nothing.
        photos: of this subject.
        records: of the runs that can be gone on with, by their folders; other personas were imported or passed on.
    """
    ours = {photo.sha256 for photo in photos}
    words = [(folder, record["token"], record.get("photos", ours)) for folder, record in records.items()]
    for folder in {*personas()} - records.keys():
        with suppress(BadPersona):
            made = Persona.recorded(folder)
            words.append((folder, made.token, made.photos))
    return {
        word
        for folder, word, shown in words
        if folder == folder_for(config.class_noun, word) and folder != config.out and ours.isdisjoint(shown)
    }
