"""One run of training, from photos to persona."""

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image
from torch.optim import Optimizer

from persona import adapter, checkpoints, report
from persona.checkpoints import Checkpoint
from persona.config import PriorsConfig, TrainConfig
from persona.errors import BadOption
from persona.events import Listener, Note, Progress
from persona.families import Family
from persona.folder import RECORD, Persona
from persona.identity import Token, caption
from persona.methods.dreambooth import Cut, DreamBooth, Example, Half, encode, without
from persona.methods.settings import Settings
from persona.photos import Photo, read
from persona.priors import ensure
from persona.train.loop import make_optimizer, steps
from persona.train.processes import agree
from persona.train.watch import Watch

READ_EVERY = 10
"""Steps between the times that a loss is read from an accelerator, each of which waits for it."""
CURVE = 500
"""Points of the loss curve that are kept."""

_OURS = {"adapter.safetensors", "checkpoints", "previews", "report.html", RECORD, checkpoints.LOCK}
_FREE = {"steps", "checkpoint_every", "score_every"}  # settings that another call may change and still go on


class Run:
    """Holds together what the stages of a run share."""

    def __init__(
        self,
        config: TrainConfig,
        base: Family,
        photos: Sequence[Photo],
        token: Token,
        out: Path,
        accelerator: Accelerator,
        listener: Listener,
    ) -> None:
        """Take what is known when the folder of the run is; see :func:`persona.train.train`."""
        self.config, self.base, self.photos, self.token, self.out = config, base, photos, token, out
        self.accelerator, self.listener = accelerator, listener
        self.settings = Settings.of(config, base, len(photos))
        self.losses: list[tuple[int, float]] = []

    def finish(self) -> Persona:
        """Do what is left to do, and return the persona.

        Raises:
            BadOption: the folder holds something else.
            Diverged: the loss is no longer a number.
            OSError: the disk is full.
        """
        start = agree(self.accelerator, self._start)
        if start and self._is_done(start) and (self.out / RECORD).exists():
            self.listener(Note(f"{self.out} is trained already. Give more --steps to go on."))
            return Persona.open(self.out)
        every = self.settings.score_every
        watch = Watch(self.base, self.photos, self.token.text, self.config.class_noun, every, self.out, self.listener)
        if start:
            self.listener(Note(f"Going on from step {start.step}."))
            self.losses, watch.history = start.record["losses"], start.record["history"]
        if not start or not self._is_done(start):
            method = self._prepare()
            self._encode(method, watch)
            self._learn(method, self._attach(start), watch, start.step if start else 0)
        return agree(self.accelerator, lambda: self._conclude(watch))

    # What is there already

    def _start(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, once it is known that the folder is ours to write to."""
        strangers = sorted(path.name for path in self.out.iterdir() if path.name not in _OURS)
        if strangers:
            raise BadOption(f"{self.out} holds other files ({strangers[0]}). Choose another folder with --out.")
        start = checkpoints.latest(self.out)
        if (start and start.record["run"] == self._fingerprint()) or not (start or (self.out / RECORD).exists()):
            return start
        if not self.config.fresh:
            raise BadOption(
                f"{self.out} holds a run with other photos or settings. Choose another --out, "
                "or discard that run with --fresh."
            )
        for path in (self.out / name for name in _OURS - {checkpoints.LOCK}):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return None

    def _fingerprint(self) -> str:
        """Return a hash (hex) of all that decides what a step does."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in _FREE}
        config = self.config
        decided = {
            "base": [self.base.hash, str(self.base.dtype)],
            "photos": [(photo.sha256, photo.caption) for photo in self.photos],
            "words": [self.token.text, config.class_noun],
            "prior": [config.prior, config.prior_weight],
            "settings": [settings, config.adapter, config.optimizer, config.flip, config.seed],
            "step": [self.settings.batch, config.accumulate, self.accelerator.num_processes],
        }
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def _is_done(self, start: Checkpoint) -> bool:
        return start.step >= self.settings.steps or bool(start.record["passed"])

    # What is learnt from

    def _prepare(self) -> DreamBooth:
        """Encode the photos, and what preserves their class."""
        config, settings = self.config, self.settings
        taught = config.prior == "self"
        priors: Sequence[Example] = ()
        if config.prior not in ("self", "none"):
            priors = encode(
                self.base,
                self._class_pictures(),
                lambda picture: picture.caption or f"a {config.class_noun}",
                Cut(settings.resolution),
                stage="Encoding the class",
            )
        photos = encode(
            self.base,
            self.photos,
            lambda photo: caption(photo.caption, self.token.text, config.class_noun, self.listener),
            Cut(settings.resolution, settings.crops, config.flip, config.seed),
            stage="Encoding the photos",
            listener=self.listener,
        )
        if taught:
            priors = without(self.token.text, photos)
        halves = [Half(photos), *([Half(priors, config.prior_weight, taught)] if priors else [])]
        return DreamBooth(self.base, halves, gamma=settings.snr_gamma, seed=config.seed)

    def _class_pictures(self) -> list[Photo]:
        if self.config.prior.startswith("folder:"):
            return read(Path(self.config.prior.removeprefix("folder:")))[: self.settings.priors]
        asked = PriorsConfig(
            class_noun=self.config.class_noun,
            base=self.config.base,
            n=self.settings.priors,
            resolution=self.settings.resolution,
            seed=self.config.seed,
        )
        return [_picture(path) for path in ensure(asked, self.base, self.listener)]

    def _encode(self, method: DreamBooth, watch: Watch) -> None:
        """Encode the prompts once for all, and let go of what only encodes; adapted text encoders stay."""
        self.base.free_image_encoder()
        if not self.settings.text_encoder:
            self.base.remember([*method.prompts, *watch.prompts.values(), ""])
            self.base.free_text_encoders()

    # Learning

    def _attach(self, start: Checkpoint | None) -> Optimizer:
        """Give the base its adapter, new or as it was, and return the optimizer over it."""
        settings, config = self.settings, self.config
        make = adapter.Make(
            kind=config.adapter,
            rank=settings.rank,
            alpha=settings.alpha,
            targets=settings.targets,
            text_targets=self.base.text_targets if settings.text_encoder else (),
        )
        learning = (
            adapter.load(self.base, start.adapter) if start else adapter.attach(self.base, make, seed=config.seed)
        )
        if settings.gradient_checkpointing:
            self.base.denoiser.enable_gradient_checkpointing()
        rates = [
            (parameters, settings.learning_rate if part == self.base.denoiser_name else settings.text_learning_rate)
            for part, parameters in learning.items()
        ]
        optimizer = make_optimizer(config.optimizer, rates, self.listener)
        if start:
            checkpoints.restore(start, optimizer)
        return optimizer

    def _learn(self, method: DreamBooth, optimizer: Optimizer, watch: Watch, first: int) -> None:
        """Train to the last step, or until the best has passed."""
        settings, last = self.settings, self.settings.steps
        read_every = 1 if self.base.device.type == "cpu" else READ_EVERY
        self.listener(Progress("Training", first, last))
        for step in steps(
            method,
            optimizer,
            self.accelerator,
            first=first,
            last=last,
            batch=settings.batch,
            accumulate=self.config.accumulate,
        ):
            looked = watch.due(step.number, last)
            due = looked or step.number % settings.checkpoint_every == 0 or step.number == last
            if due or step.number % read_every == 0:
                loss = step.check()
                self.listener(Progress("Training", step.number, last, loss))
                if step.number % max(1, last // CURVE) == 0:
                    self.losses.append((step.number, loss))
            if due and agree(self.accelerator, partial(self._keep, step.number, optimizer, watch, looked=looked)):
                break

    def _keep(self, step: int, optimizer: Optimizer, watch: Watch, *, looked: bool) -> bool:
        """Write a checkpoint, with previews where they are due, and tell whether the best has passed."""
        if looked:
            watch.look(step)
        checkpoints.save(
            self.out,
            step,
            adapter=adapter.save(self.base),
            optimizer=optimizer,
            record={
                "run": self._fingerprint(),
                "token": self.token.text,
                "passed": watch.passed,
                "history": watch.history,
                "losses": self.losses,
            },
            keep=[int(scores["step"]) for scores in watch.history],
        )
        return watch.passed

    def _conclude(self, watch: Watch) -> Persona:
        """Make the folder a persona with the best weights, or the last where nothing was scored."""
        best = watch.best or {"step": checkpoints.every(self.out)[-1].step}
        step = int(best["step"])
        weights = next(one for one in checkpoints.every(self.out) if one.step == step)
        made = Persona(
            path=self.out,
            token=self.token.text,
            class_noun=self.config.class_noun,
            base=self.base.name,
            base_hash=self.base.hash,
            step=step,
            scores={name: value for name, value in best.items() if name != "step"},
            history=tuple(watch.history),
            settings=self.config.record() | asdict(self.settings) | {"evidence": dict(self.token.evidence)},
            photos=tuple(photo.sha256 for photo in self.photos),
        ).write(weights.adapter)
        self._report(made, watch)
        return made

    def _report(self, made: Persona, watch: Watch) -> None:
        names = list(made.scores)
        curves: dict[str, Any] = {name: [(one["step"], one[name]) for one in made.history] for name in names}
        report.write(
            self.out / "report.html",
            title=f"{made.token}, a {made.class_noun}",
            photos=[(photo.caption or photo.name, photo.image) for photo in self.photos],
            previews=watch.previews(),
            curves={"loss": self.losses, **curves},
            settings=made.settings,
            scores=made.scores,
            chosen=made.step,
        )


def _picture(path: Path) -> Photo:
    """Read a picture that was drawn here."""
    data = path.read_bytes()
    return Photo(path.name, Image.open(io.BytesIO(data)).convert("RGB"), None, hashlib.sha256(data).hexdigest())
