"""Clay from nothing: worlds rendered, networks trained, all of it measured and written down.

Each stage finds out for itself what is left to do, so the same call goes on with a run that was killed at any moment;
the weights come out the same, to the bit, on the same machine.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from persona import checkpoints, report
from persona.atomic import beside, digest, folder_beside
from persona.clay import encoder, judge, segmenter, write_manifest
from persona.clay.judge import Judge
from persona.config import PretrainConfig
from persona.drawing import open_base, processes
from persona.errors import BadOption
from persona.events import Listener, Progress, silent
from persona.methods import jedi, telling
from persona.pretrain.clay import card, evaluation
from persona.pretrain.clay.alignment import sight_shards
from persona.pretrain.clay.autoencoder import train_autoencoder
from persona.pretrain.clay.data import SET, divided, mask_shards, render_shards, set_shards, shards_of, texture_shards
from persona.pretrain.clay.denoiser import HELD, Examples, assemble, encode_shards, train_denoiser
from persona.pretrain.clay.encoding import train_encoder
from persona.pretrain.clay.judging import train_judge
from persona.pretrain.clay.reading import train_text_encoder
from persona.pretrain.clay.segmenting import train_segmenter
from persona.pretrain.clay.text import build_tokenizer
from persona.pretrain.state import no_fewer, position_of, settle

TEXTURES = 2000
PREVIEWS = 8
"""Sample sheets that are drawn while the denoiser learns; another one closes the run."""
_LOOKING = {"judge": judge.WEIGHTS, encoder.FOLDER: encoder.WEIGHTS, segmenter.FOLDER: segmenter.WEIGHTS}
"""Folders and files of the networks that look at pictures, in the run and in what it makes."""
_FIXED = (
    "seed",
    "pictures",
    "sets",
    "autoencoder_steps",
    "judge_steps",
    "text_steps",
)  # what everything later is made of
_LONGER = {"segmenter_steps": segmenter.FOLDER, "encoder_steps": encoder.FOLDER, "denoiser_steps": "unet"}
"""Trainings that may be made longer afterwards, by the folders of their states."""


@dataclass(frozen=True)
class Made:
    """What pretraining leaves.

    Attributes:
        weights: folder with clay's pipeline, its words, its recipe, its judge and a manifest of all of them.
        card: what it can do and cannot, in Markdown.
        report: learning curves and sample sheets, one HTML page.
        figures: what was measured.
    """

    weights: Path
    card: Path
    report: Path
    figures: Mapping[str, float]


def pretrain_clay(config: PretrainConfig, listener: Listener = silent) -> Made:
    """Make clay from nothing, or go on where an earlier call was stopped.

    Args:
        config: how much to render and how long to train.
        listener: told how far each stage is.

    Raises:
        BadOption: the folder holds a run with other pictures or another autoencoder, or one that went farther, or there
            are several processes.
        BadPhotos: there are no photographs in the folder that is named, or one cannot be read.
        Busy: another run holds it.
        NoMemory: a process that rendered was killed.
        Diverged: a loss is NaN or infinite.
        OSError: the disk is full.
    """
    if processes().num_processes > 1:
        raise BadOption("clay is made by one process, on the CPU: persona pretrain clay, without accelerate launch.")
    if config.photos:
        evaluation.photographs(config.photos)  # what cannot be read is said now, and not after hours
    with checkpoints.held(config.out):
        run = _Pretraining(config, listener)
        run.begin()
        run.render()
        run.learn_pixels()
        run.learn_to_judge()
        run.learn_to_see()
        run.learn_words()
        run.learn_to_draw()
        return run.conclude()


class _Pretraining:
    """The stages of a run, which share a folder."""

    def __init__(self, config: PretrainConfig, listener: Listener) -> None:
        self.config, self.out, self.listener = config, config.out, listener

    def begin(self) -> None:
        """Make sure that the folder is for these settings, and clear away what a kill has left half written."""
        lengths = self._lengths()
        settle(self.out, self.config, {name: value for name, value in self.config.record().items() if name in _FIXED})
        with beside(self.out / "lengths.json") as part:
            part.write_text(json.dumps(lengths), encoding="utf-8")

    def render(self) -> None:
        """Render single scenes, sets of them, and textures."""
        config = self.config
        for stage, fill, folder, pictures in (
            ("Rendering scenes", render_shards, "data", config.pictures),
            ("Rendering sets", set_shards, "sets", config.sets * SET),
            ("Drawing textures", texture_shards, "textures", min(TEXTURES, config.pictures)),
        ):
            done = len(shards_of(self.out / folder))
            missing = fill(self.out / folder, pictures, config.seed)
            for _ in self._timed(stage, missing, done, len(divided(pictures))):
                pass
        for stage, data, masks in (("Masking scenes", "data", "masks"), ("Masking sets", "sets", "set-masks")):
            self._each_shard(stage, masks, partial(mask_shards, self.out / data), of=data)

    def learn_pixels(self) -> None:
        """Train the autoencoder, and encode all pictures with it."""
        folder, steps, data = self.out / "vae", self.config.autoencoder_steps, self.out / "data"
        if position_of(folder)["step"] < steps or not (folder / "vae").is_dir():
            for step, loss in train_autoencoder(data, self.out / "textures", folder, steps, self.config.seed):
                self.listener(Progress("Autoencoder", step, steps, loss))
        self._each_shard(
            "Encoding",
            "latents",
            lambda latents: encode_shards(data, latents, AutoencoderKL.from_pretrained(folder / "vae")),
        )

    def learn_to_judge(self) -> None:
        """Train the judge on renders alone, and write down what it sees in all pictures."""
        folder, steps, data = self.out / "judge", self.config.judge_steps, self.out / "data"
        learnt_from = (self.out / "sets", data, self.out / "set-masks", self.out / "masks")
        if position_of(folder)["step"] < steps or not (folder / judge.WEIGHTS).exists():
            shutil.rmtree(self.out / "sights", ignore_errors=True)  # of a judge before
            for step, losses in train_judge(*learnt_from, folder, steps, self.config.seed):
                self.listener(Progress("Judge", step, steps, sum(losses.values())))
        self._each_shard("Looking", "sights", lambda sights: sight_shards(data, sights, Judge.load(folder)))

    def learn_to_see(self) -> None:
        """Train the segmenter, and the encoder of what is cut out."""
        for stage, learn, data, masks, steps in (
            ("Segmenter", train_segmenter, "data", "masks", self.config.segmenter_steps),
            ("Encoder", train_encoder, "sets", "set-masks", self.config.encoder_steps),
        ):
            folder = self.out / stage.lower()
            weights = folder / _LOOKING[stage.lower()]
            if position_of(folder)["step"] < steps or not weights.exists():
                weights.unlink(missing_ok=True)  # of fewer steps: after a kill they would be taken for the new ones
                for step, losses in learn(self.out / data, self.out / masks, folder, steps, self.config.seed):
                    self.listener(Progress(stage, step, steps, sum(losses.values())))

    def learn_words(self) -> None:
        """Train the text encoder on captions and what they say."""
        folder, steps = self.out / "text", self.config.text_steps
        if position_of(folder)["step"] < steps or not (folder / "text_encoder").is_dir():
            words, data = self._tokenizer(), self.out / "data"
            for step, loss in train_text_encoder(data, words, folder, steps, self.config.seed):
                self.listener(Progress("Text encoder", step, steps, loss))

    def learn_to_draw(self) -> None:
        """Train the U-Net, with a sample sheet now and then."""
        state, steps = self.out / "unet", self.config.denoiser_steps
        every = max(250, steps // PREVIEWS // 250 * 250)
        if position_of(state)["step"] < steps:
            examples = Examples(self.out, self._tokenizer(), self.config.seed)
            text = CLIPTextModel.from_pretrained(self.out / "text" / "text_encoder")
            for step, loss in train_denoiser(examples, text, state, steps):
                self.listener(Progress("U-Net", step, steps, loss))
                saved = position_of(state)["step"]
                if saved and saved % every == 0 and not self._sheet_of(saved).exists():
                    self._assemble()
                    self._show(saved)

    def conclude(self) -> Made:
        """Put the weights together, measure them, and write everything down."""
        weights = self._assemble()
        self._show(self.config.denoiser_steps)
        base = open_base(str(weights))
        figures = evaluation.figures(base, self.out / "evaluation", self.config.photos, self.listener)
        seconds = self._seconds()
        made = Made(weights, self.out / "CARD.md", self.out / "report.html", figures)
        with beside(made.card) as part:
            part.write_text(card.text(figures, seconds, self.config, self._lengths()), encoding="utf-8")
        sheets = {path.stem: [(path.stem, Image.open(path))] for path in sorted((self.out / "samples").glob("*.png"))}
        report.write(
            made.report,
            title="Clay",
            photos=[],
            previews=sheets,
            curves={
                f"loss of the {name}": position_of(self.out / name)["curve"]
                for name in ("vae", *_LOOKING, "text", "unet")
            },
            settings=self.config.record() | {f"seconds: {stage}": taken for stage, taken in seconds.items()},
            scores=figures,
        )
        return made

    # Pieces

    def _lengths(self) -> dict[str, list[int]]:
        """Return how many steps each training was to take, by its option: several where it was made longer."""
        path = self.out / "lengths.json"
        lengths: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for name, folder in _LONGER.items():
            steps = getattr(self.config, name)
            no_fewer(self.out, self.out / folder, f"--{name.replace('_', '-')}", steps)
            # A length counts if the rate has fallen by it; that of the others is a cosine, falling from the beginning.
            held, done = HELD if folder == "unet" else 0, position_of(self.out / folder)["step"]
            before = [length for length in lengths.get(name, []) if done > held * length]
            lengths[name] = before if before[-1:] == [steps] else [*before, steps]
        return lengths

    def _each_shard(self, stage: str, name: str, fill: Callable[[Path], Iterable[int]], of: str = "data") -> None:
        """Make a folder hold something of every shard of scenes, or of another folder."""
        folder, shards = self.out / name, len(shards_of(self.out / of))
        done = len(shards_of(folder))
        if done < shards:
            for _ in self._timed(stage, fill(folder), done, shards):
                pass

    def _tokenizer(self) -> CLIPTokenizer:
        folder = self.out / "tokenizer"
        return CLIPTokenizer.from_pretrained(folder) if folder.is_dir() else build_tokenizer(folder)

    def _assemble(self) -> Path:
        """Write the folder of weights from what has been learnt so far."""
        weights, methods = self.out / "weights", self.out / "methods"
        if weights.is_dir():  # what was learnt for it since is put aside: there is a moment without that folder
            with folder_beside(methods) as part:
                _copied(weights, part)
                if not self._same_encoder(weights):  # by what it says of references Subject-Diffusion knows them
                    shutil.rmtree(part / telling.STORE.name, ignore_errors=True)
        with folder_beside(weights) as part:
            vae, text = self.out / "vae" / "vae", self.out / "text" / "text_encoder"
            assemble(vae, text, self._tokenizer(), self.out / "unet", part)
            for name, file in _LOOKING.items():
                if (self.out / name / file).exists():
                    (part / name).mkdir()
                    shutil.copyfile(self.out / name / file, part / name / file)
            _copied(methods, part)  # of another U-Net it is refused
            write_manifest(part)
        return weights

    def _same_encoder(self, weights: Path) -> bool:
        """Tell whether a folder of weights has the encoder of references that was learnt last."""
        files = [folder / encoder.FOLDER / encoder.WEIGHTS for folder in (weights, self.out)]
        return all(file.exists() for file in files) and digest(files[0]) == digest(files[1])

    def _sheet_of(self, step: int) -> Path:
        return self.out / "samples" / f"step-{step:06}.png"

    def _show(self, step: int) -> None:
        """Draw a sheet of samples with the assembled weights."""
        path = self._sheet_of(step)
        if path.exists():
            return
        base = open_base(str(self.out / "weights"))
        with beside(path) as part:
            evaluation.samples(base).save(part)

    def _timed(self, stage: str, pieces: Iterable[int], done: int, total: int) -> Iterator[int]:
        """Pass on the pieces of a stage, tell how far it is, and keep account of its time."""
        self.listener(Progress(stage, done, total))
        started = time.perf_counter()
        for piece in pieces:
            done += 1
            self.listener(Progress(stage, done, total))
            taken, started = time.perf_counter() - started, time.perf_counter()
            path = self.out / "seconds.json"
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            with beside(path) as part:
                part.write_text(json.dumps(known | {stage: known.get(stage, 0.0) + taken}), encoding="utf-8")
            yield piece

    def _seconds(self) -> dict[str, float]:
        """Return how long each stage took, over all calls."""
        path = self.out / "seconds.json"
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        trained = {"Autoencoder": "vae", "Judge": "judge", "Segmenter": "segmenter", "Encoder": "encoder"}
        trained |= {"Text encoder": "text", "U-Net": "unet"}
        return known | {stage: position_of(self.out / folder)["seconds"] for stage, folder in trained.items()}


def _copied(folder: Path, target: Path) -> None:
    """Copy the weights of methods, as far as they are there."""
    for store in (jedi.STORE, telling.STORE):
        if (folder / store.name).is_dir():
            shutil.copytree(folder / store.name, target / store.name)
