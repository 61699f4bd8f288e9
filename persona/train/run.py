"""One run of training, from photos to persona."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim import AdamW, Optimizer

from persona import adapter, checkpoints, report
from persona.checkpoints import Checkpoint
from persona.config import TrainConfig
from persona.errors import NoMemory
from persona.events import Listener, Note, Progress
from persona.families import Family
from persona.folder import Persona, portable
from persona.identity import Token
from persona.methods.dreambooth import DreamBooth
from persona.methods.settings import Settings
from persona.photos import Photo
from persona.placing import any_of
from persona.prompts import tell_cut
from persona.train.average import Average
from persona.train.frugal import Frugal, Leaner
from persona.train.loop import make_optimizer, steps
from persona.train.material import drawn_pictures, prepare
from persona.train.processes import agree
from persona.train.rehearsal import DRAWING, PICTURES, PREVIEWS, PROMPTS, TRAINING
from persona.train.resuming import fingerprint, made_of, scored, start_of
from persona.train.views import STORE, draw_views
from persona.train.watch import Watch, best_of

READ_EVERY = 10
"""Steps between the times that a loss is read from an accelerator, each of which waits for it."""
CURVE = 500
"""Points of the loss curve that are kept."""


class Run:
    """Holds together what the stages of a run share.

    Attributes:
        frugal: has the base, and what is to be done with it.
        done: steps done.
        owed: whether pictures of the last step done are still to be drawn, since memory ran out over them.
        pace: seconds that a step takes; 0 while nobody knows.
    """

    def __init__(
        self,
        frugal: Frugal,
        photos: Sequence[Photo],
        given: Sequence[Photo],
        token: Token,
        out: Path,
        accelerator: Accelerator,
        listener: Listener,
    ) -> None:
        """Take what is known when the folder of the run is; see :func:`persona.train.train`."""
        self.frugal, self.photos, self.given, self.token, self.out = frugal, photos, given, token, out
        self.accelerator, self.listener = accelerator, listener
        self._processes: int = accelerator.num_processes
        self.losses: list[tuple[int, float]] = []
        self.done = 0
        self.owed = False
        self.pace = 0.0

    @property
    def asked(self) -> TrainConfig:
        """What the user said."""
        return self.frugal.asked

    @property
    def base(self) -> Family:
        """The base as it is loaded now."""
        return self.frugal.base

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self.frugal.settings

    def finish(self) -> Persona:
        """Do what is left to do, and return the persona.

        Raises:
            BadOption: the folder holds something else.
            BadPersona: its checkpoint is damaged.
            Diverged: the loss is NaN or infinite.
            NoMemory: there is too little, whatever is done to need less of it.
            OSError: the disk is full.
        """
        start = agree(self.accelerator, partial(start_of, self.out, self.asked, self._processes, self._fingerprint))
        if start and self._is_done(start) and (made := made_of(self.out, start)):
            passed = bool(start.record["passed"])
            more = "It stopped early: later scores were no better" if passed else "Give more --steps to train on"
            self.listener(Note(f"{self.out} is trained already. {more}. To start over, give --fresh or another --out."))
            return made
        if start:
            self.listener(Note(f"Resuming from step {start.step}."))
            self.frugal.follow(start.record["choice"])
        self.watch = self.frugal.anyhow(partial(self.frugal.within, DRAWING, self._watch))
        self.watch.judged = agree(self.accelerator, lambda: self.watch.judged)  # or one would wait for a look of others
        if start:
            self.losses, self.watch.history = start.record["losses"], start.record["history"]
        self.frugal.anyhow(self._learn)
        return agree(self.accelerator, self._conclude)

    def _fingerprint(self, processes: int, asked: TrainConfig) -> str:
        return fingerprint(asked, self.base, self.photos, self.given, self.token.text, processes)

    def _is_done(self, start: Checkpoint) -> bool:
        return start.step >= self.settings.steps or bool(start.record["passed"])

    # Learning

    def _watch(self) -> Watch:
        noun, every = self.asked.class_noun, self.settings.score_every
        return Watch(self.base, self.frugal.size, self.photos, self.token.text, noun, every, self.out, self.listener)

    def _learn(self) -> None:
        """Train from the latest checkpoint on to the last step, or until the best has passed."""
        start = checkpoints.latest(self.out)
        if start and self._is_done(start) and not self.owed:
            return
        self.done = start.step if start else 0
        photos, priors = self.frugal.within(DRAWING, self._pictures)
        method = self.frugal.within(PICTURES, partial(self._prepare, photos, priors))
        self.frugal.within(PROMPTS, partial(self._encode, method))
        optimizer, average = self._attach(start)
        try:
            if not (self.owed and self._keep(optimizer, average, looked=True)):
                self.frugal.within(TRAINING, partial(self._step, method, optimizer, average))
        except (Leaner, NoMemory):
            newest = checkpoints.latest(self.out)
            if self._processes == 1 and self.done > (newest.step if newest else 0):
                self._save(optimizer, average)
            raise

    def _pictures(self) -> tuple[list[Photo], Sequence[Photo]]:
        """Return pictures of the subject, and of what preserves its class; those that are to be drawn are drawn."""
        asked, photos, resolution = self.asked, [*self.photos], self.settings.resolution
        if asked.from_jedi:
            # One that was stopped before its first checkpoint has left nothing else that says whose views they are.
            out = self.out / STORE / self._fingerprint(self._processes, self.asked)[:16]
            photos += draw_views(self.base, self.photos, asked.class_noun, resolution, asked.seed, out, self.listener)
        return photos, drawn_pictures(asked, self.settings, self.base, self.listener) or self.given

    def _prepare(self, photos: Sequence[Photo], priors: Sequence[Photo]) -> DreamBooth:
        return prepare(self.frugal.config, self.settings, self.base, photos, priors, self.token, self.listener)

    def _encode(self, method: DreamBooth) -> None:
        """Encode the prompts once for all, and let go of what only encodes; adapted text encoders stay."""
        tell_cut(self.base, method.prompts, self.listener)
        prompts = [*method.prompts, *self.watch.prompts.values(), ""]
        if self.settings.text_encoder:
            self.base.free_frozen_text_encoders(prompts)
        else:
            self.base.remember(prompts)
            self.base.free_text_encoders()
        self.base.free_image_encoder()
        self.base.settle()
        # Convolutions would else turn their input each time; tensor cores of GPUs want it so, too.
        self.base.denoiser.to(memory_format=torch.channels_last)

    def _attach(self, start: Checkpoint | None) -> tuple[Optimizer, Average]:
        """Give the base its adapter, new or as it was, and return the optimizer over it and the average of it."""
        settings = self.settings
        if start:
            learning = adapter.load(self.base, start.adapter)
        else:
            learning = adapter.attach(self.base, settings.make(self.asked, self.base), seed=self.asked.seed)
        kind = settings.optimizer
        if start and kind != "adamw" and not start.in_8_bits:
            kind = "adamw"
            self.listener(Note("Going on with plain AdamW, as the run began."))
        optimizer = make_optimizer(kind, settings.rates(self.base, learning), self.listener)
        average = Average(optimizer)  # as which the adapter was kept
        if start and start.in_8_bits and isinstance(optimizer, AdamW):
            told = "The state of the 8-bit optimizer is of no use to plain AdamW, which begins anew."
            self.listener(Note(f"{told} To keep it, stop, and resume where bitsandbytes works.", warning=True))
            checkpoints.restore_weights(start, optimizer)
        elif start:
            checkpoints.restore(start, optimizer)
        return optimizer, average

    def _step(self, method: DreamBooth, optimizer: Optimizer, average: Average) -> None:
        """Take step after step from where the run is."""
        settings, last = self.settings, self.settings.steps
        read_every = 1 if self.base.device.type == "cpu" else READ_EVERY
        if settings.gradient_checkpointing:
            self.base.denoiser.enable_gradient_checkpointing()
        self.listener(Progress("Training", self.done, last))
        since: tuple[int, float] | None = None  # the step and the moment from which the pace is taken
        shape = {"batch": settings.batch, "accumulate": settings.accumulate}
        for step in steps(method, optimizer, self.accelerator, first=self.done, last=last, **shape):
            self.done = step.number
            average.update(step.number)
            looked = self.watch.due(step.number, last)
            due = looked or step.number % settings.checkpoint_every == 0 or step.number == last
            if due or step.number % read_every == 0:
                loss = step.check()
                self.listener(Progress("Training", step.number, last, loss))
                now = perf_counter()
                if since:
                    self.pace = (now - since[1]) / (step.number - since[0])
                since = None if due else since or (step.number, now)
                if step.number % max(1, last // CURVE) == 0:
                    self.losses.append((step.number, loss))
            if due and agree(self.accelerator, partial(self._keep, optimizer, average, looked=looked)):
                break

    def _keep(self, optimizer: Optimizer, average: Average, *, looked: bool) -> bool:
        """Write a checkpoint, with previews where they are due, and tell whether the best has passed."""
        if looked:
            self.owed = True
            with average.worn():
                self.frugal.within(PREVIEWS, lambda: self.watch.look(self.done, self.base, self.frugal.size))
            self.owed = False
        self._save(optimizer, average)
        return self.watch.passed

    def _save(self, optimizer: Optimizer, average: Average) -> None:
        with average.worn():
            averaged = adapter.save(self.base)
        checkpoints.save(
            self.out,
            self.done,
            adapter=averaged,
            optimizer=optimizer,
            record={
                "run": self._fingerprint(self._processes, self.asked),
                "processes": self._processes,
                "fresh": self.asked.fresh,
                "choice": self.frugal.choice,
                "photos": [photo.sha256 for photo in self.photos],
                "token": self.token.text,
                "evidence": dict(self.token.evidence),
                "passed": self.watch.passed,
                "history": self.watch.history,
                "losses": self.losses,
            },
            keep=[int(scores["step"]) for scores in self.watch.history],
        )

    # What was learnt

    def _conclude(self) -> Persona:
        """Make the folder a persona with the best weights, or the last where these were not scored."""
        there = {one.step: one for one in checkpoints.every(self.out)}  # the user may have removed some of them
        best = best_of(one for one in self.watch.history if one["step"] in there)
        if best is None or not scored(self.watch.history, max(there)):
            best = {"step": max(there)}  # scores of before say nothing of it, and it is what was asked for last
        step = int(best["step"])
        made = Persona(
            path=self.out,
            token=self.token.text,
            class_noun=self.asked.class_noun,
            base=self.base.name,
            base_hash=self.base.hash,
            step=step,
            scores={name: value for name, value in best.items() if name != "step"},
            history=tuple(self.watch.history),
            settings=portable(self.frugal.config.record() | asdict(self.settings) | self._used()),
            photos=tuple(photo.sha256 for photo in self.photos),
        )
        self._report(made)  # before the record, which ends the run: what fails here is made when it goes on
        return made.write(there[step].adapter)

    def _used(self) -> dict[str, Any]:
        """Return what the run has found out: its token's evidence, and what it has in truth trained with."""
        last = checkpoints.latest(self.out)
        return {
            "evidence": dict(self.token.evidence),
            "optimizer": "adamw8bit" if last and last.in_8_bits else "adamw",
            "precision": "bf16" if self.base.dtype == torch.bfloat16 else "fp32",
            "priors": self.settings.priors if self.asked.prior == "generated" else len(self.given),
        }

    def _report(self, made: Persona) -> None:
        names = [name for name in next(iter(made.history), {}) if name != "step"]
        curves: dict[str, Any] = {name: [(one["step"], one[name]) for one in made.history] for name in names}
        report.write(
            self.out / "report.html",
            title=f"{made.token}, {any_of(made.class_noun)}",
            photos=[(photo.caption or photo.name, photo.image) for photo in self.photos],
            previews=self.watch.previews(),
            curves={"loss": self.losses, **curves},
            settings={**made.settings, "token": made.token},
            scores=made.scores,
            chosen=made.step,
        )
