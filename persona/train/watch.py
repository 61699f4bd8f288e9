"""How a run is coming along, judged by its pictures: the loss says little about when to stop."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from persona.atomic import beside
from persona.drawing import Size
from persona.events import Listener, Note, Progress
from persona.families import Family
from persona.folder import slug, step_name, step_of
from persona.identity import fill
from persona.networks import CLIP, DINO, how_to_fetch
from persona.photos import Photo
from persona.placing import of_class
from persona.score import SEEDS, Scorer, scorer_for

PATIENCE = 2
"""Scores in a row below the best after which it has passed."""
UNSCORED = ("a photo of a [V] {class}", "a [V] {class} on the beach")
"""What is drawn at the end where nothing can judge it."""


class Watch:
    """Draws a fixed set of pictures at intervals, scores them, and knows which weights are the best.

    Attributes:
        judged: whether pictures are drawn at intervals, since the first process has what can judge them.
        history: scores of each time, with their ``step``; goes into the checkpoints.
    """

    def __init__(
        self,
        base: Family,
        size: Size,
        photos: Sequence[Photo],
        token: str,
        class_noun: str,
        every: int,
        run: Path,
        listener: Listener,
    ) -> None:
        """Find out what can judge pictures of the subject.

        Args:
            base: without an adapter; draws what a judge compares with.
            size: of its pictures.
            photos: of the subject.
            token: stands for it.
            class_noun: what it is.
            every: steps between two looks; 0 for none.
            run: folder of the run.
            listener: told how far the drawing is, and what cannot be judged.
        """
        self.photos, self.folder, self.listener = photos, run / "previews", listener
        self.every = every
        self.scorer: Scorer | None = None
        if every:
            self.scorer = scorer_for(base, [photo.image for photo in photos], class_noun, size, listener)
        self.seeds = self.scorer.wanted if self.scorer else dict.fromkeys(UNSCORED, SEEDS)
        self.judged = self.scorer is not None
        self.prompts = {one: fill(of_class(one, class_noun), token, class_noun) for one in self.seeds}
        self.history: list[dict[str, float]] = []
        if every and not self.scorer:
            why = "Nothing here can score images of this subject, so the last checkpoint is kept."
            how = "; ".join(how_to_fetch(name) for name in (DINO, CLIP))
            listener(Note(f"{why} To have scores: {how}"))

    def due(self, step: int, last: int) -> bool:
        """Tell whether to look at this step: at intervals and at the end; only at the end where nothing can judge."""
        return bool(self.every) and (step == last or (self.judged and step % self.every == 0))

    def look(self, step: int, base: Family, size: Size) -> None:
        """Draw the pictures of this step, keep them in the folder, and score them.

        Args:
            step: that the run is at.
            base: carries the adapter.
            size: of the pictures: that of the training, which is what memory is planned for.
        """
        drawn = {}
        for number, (template, prompt) in enumerate(self.prompts.items()):
            self.listener(Progress("Drawing previews", number, len(self.prompts)))
            seeds = self.seeds[template]
            drawn[template] = base.draw([prompt] * len(seeds), seeds, size=size)
        self.listener(Progress("Drawing previews", len(self.prompts), len(self.prompts)))
        self._keep(step, drawn)
        if self.scorer:
            scores = self.scorer.score(drawn, [photo.image for photo in self.photos])
            self.history.append({"step": step, **asdict(scores)})

    @property
    def best(self) -> dict[str, float] | None:
        """The scores of the best weights so far."""
        return best_of(self.history)

    @property
    def passed(self) -> bool:
        """Whether the best is so long ago that going on is of no use; where nothing was learnt yet, it never is."""
        if self.best is None or self.best["total"] <= 0:
            return False
        return len(self.history) - 1 - self.history.index(self.best) >= PATIENCE

    def previews(self) -> dict[str, list[tuple[str, Image.Image]]]:
        """Return the pictures kept so far under the step that they are of, each with its prompt."""
        return {
            f"Step {step_of(step.name)}": [
                (prompt, _open(path))
                for template, prompt in self.prompts.items()
                for seed in self.seeds[template]
                if (path := step / _name(template, seed)).is_file()
            ]
            for step in sorted(self.folder.glob("step-*"))
        }

    def _keep(self, step: int, drawn: Mapping[str, Sequence[Image.Image]]) -> None:
        folder = self.folder / step_name(step)
        folder.mkdir(parents=True, exist_ok=True)
        for template, images in drawn.items():
            for seed, image in zip(self.seeds[template], images, strict=True):
                with beside(folder / _name(template, seed)) as part:
                    image.save(part)


def best_of(history: Iterable[dict[str, float]]) -> dict[str, float] | None:
    """Return the best of scores, if there are any; of equals the earliest, which has forgotten least."""
    return max(history, key=lambda scores: scores["total"], default=None)


def _name(template: str, seed: int) -> str:
    return f"{slug(template)}-{seed}.png"


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()
