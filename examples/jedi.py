"""Measures drawing from references on clay, beside training, and writes the table as Markdown.

    python examples/jedi.py [OUT] [--subjects N] [--seeds N] [--references N ...] [--jedi FOLDER]

For each subject in examples/photos: JeDi with the first so many of its photos as references, DreamBooth with all of
them, and the bare base. Identity is recovered identity by clay's judge in new places, views and poses, against fresh
renders of the subject; a copy is an image whose background is that of a photo. If interrupted, run the same command
again to resume.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median

import numpy as np
from PIL import Image
from table import ACCESSORIES, STYLES, resumed, subject_of

import persona
from persona import adapter, metrics
from persona.clay import weights_folder
from persona.clay.judge import Judge
from persona.clay.world import LIVE, Subject, from_dict, random_scene, render
from persona.clay.world.captions import ACCESSORY_PHRASES, CONTEXT_PHRASES, STYLE_PHRASES, VIEW_PHRASES
from persona.drawing import open_base
from persona.identity import bare, fill
from persona.methods.jedi import JeDi
from persona.photos import Photo, pictures
from persona.references import prepare
from persona.sitters import wear

HERE = Path(__file__).parent
VIEWS = ("front", "side", "back", "top")
POSES = ("sitting", "running", "sleeping")
TIMED = 3
"""Pictures that are drawn one at a time to time them."""

Draw = Callable[[Sequence[str], Sequence[int]], list[Image.Image]]
"""Draws pictures of prompts with [V], one for each seed."""


@dataclass(frozen=True)
class Sitter:
    """A subject with places that are new to it, its photos, and where it is on them."""

    who: Subject
    places: tuple[str, ...]
    folder: Path
    photos: list[Photo]
    masks: list[np.ndarray]

    @classmethod
    def of(cls, folder: Path) -> "Sitter":
        truth = json.loads((folder / "truth.json").read_text())
        scenes = {name: from_dict(one["scene"]) for name, one in truth.items()}
        photos = pictures(folder)
        masks = [render(scenes[photo.name]).masks[0] for photo in photos]
        return cls(*subject_of(folder), folder, photos, masks)


def main() -> None:
    """Measure, then write OUT/table.md."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", nargs="?", type=Path, default=Path("build/jedi"))
    options.add_argument("--subjects", type=int, default=6)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--references", type=int, nargs="+", default=[1, 2, 3, 4])
    options.add_argument("--jedi", type=Path, help="folder of other weights than clay's own")
    given = options.parse_args()
    rows: dict[str, list[dict[str, float]]] = {}
    for folder in sorted(path for path in (HERE / "photos").iterdir() if path.is_dir())[: given.subjects]:
        for name, figures in measured(folder, given.out / folder.name, given).items():
            rows.setdefault(name, []).append(figures)
    table = as_markdown(rows)
    (given.out / "table.md").write_text(table, encoding="utf-8")
    print(table)


def measured(folder: Path, out: Path, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the figures of each way to draw a subject, from the file of an earlier call where they are there."""
    sitter, seeds = Sitter.of(folder), given.seeds
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "base": partial(of_base, sitter, seeds),
        **{
            f"JeDi, {count} of its photos": partial(of_jedi, sitter, count, seeds, given.jedi)
            for count in given.references
        },
        "DreamBooth": partial(of_dreambooth, sitter, out, seeds),
    }
    return resumed(out, jobs, seeds=seeds, jedi=str(given.jedi))


def of_base(sitter: Sitter, seeds: int) -> dict[str, float]:
    base, noun = open_base("clay"), sitter.who.class_noun
    return look(lambda prompts, numbers: base.draw([bare(one, noun) for one in prompts], numbers), sitter, seeds)


def of_jedi(sitter: Sitter, count: int, seeds: int, weights: Path | None) -> dict[str, float]:
    base, noun = open_base("clay"), sitter.who.class_noun
    jedi = JeDi.load(base, weights)
    known = prepare(base, sitter.photos[:count], noun, (base.resolution, base.resolution))

    def draw(prompts: Sequence[str], numbers: Sequence[int]) -> list[Image.Image]:
        return jedi.draw([bare(one, noun) for one in prompts], numbers, references=known)

    return look(draw, sitter, seeds)


def of_dreambooth(sitter: Sitter, out: Path, seeds: int) -> dict[str, float]:
    """Train with nothing but the photos and the class, and look at it."""
    noun, started = sitter.who.class_noun, time.perf_counter()
    made = persona.train(persona.TrainConfig(photos=sitter.folder, class_noun=noun, out=out / "persona"))
    minutes = (time.perf_counter() - started) / 60
    base = open_base("clay")
    wear(base, made)
    adapter.scale(base, made.recommended_scale)

    def draw(prompts: Sequence[str], numbers: Sequence[int]) -> list[Image.Image]:
        return base.draw([fill(one, made.token, noun) for one in prompts], numbers)

    return {"minutes": minutes, **look(draw, sitter, seeds)}


def look(draw: Draw, sitter: Sitter, seeds: int) -> dict[str, float]:
    """Draw the prompts and let the judge read the pictures."""
    judge, noun = Judge.load(weights_folder() / "judge"), sitter.who.class_noun
    who, numbers = f"[V] {noun}", range(seeds)

    def drawn(prompts: Iterable[str]) -> list[Image.Image]:
        asked = [(prompt, seed) for prompt in prompts for seed in numbers]
        return draw([prompt for prompt, _ in asked], [seed for _, seed in asked])

    def right(head: str, labels: Iterable[str], shown: Sequence[Image.Image]) -> float:
        wanted = [label for label in labels for _ in numbers]
        return mean(read == label for read, label in zip(judge.read(shown)[0][head], wanted, strict=True))

    contexts = drawn(f"a photo of a {who} {CONTEXT_PHRASES[place][0]}" for place in sitter.places)
    views = drawn(
        f"a photo of a {who} {CONTEXT_PHRASES[place][0]}, {VIEW_PHRASES[view][0]}"
        for view, place in zip(VIEWS, sitter.places, strict=False)
    )
    live = noun in LIVE
    poses = drawn(f"a photo of a {who} {pose}" for pose in POSES) if live else []
    shown = [*contexts, *views, *poses]
    references = judge.read(renders(sitter.who))[1]
    background = metrics.background_memorisation(
        shown, [photo.image for photo in sitter.photos], [None] * len(shown), sitter.masks
    )
    whole = metrics.memorisation(shown, [photo.image for photo in sitter.photos])
    figures = {
        "identity": judge.recovered(judge.read(shown)[1], references, noun).mean().item(),
        "context": right("context", sitter.places, contexts),
        "style": right("style", STYLES, drawn(STYLE_PHRASES[style][0].format(f"a {who}") for style in STYLES)),
        "copies": float(np.mean(np.where(np.isfinite(background), background, whole) >= metrics.COPY)),
        "seconds": median(timed(draw, f"a photo of a {who}", seed) for seed in range(TIMED)),
    }
    if live:
        wearing = drawn(f"a {who} {ACCESSORY_PHRASES[accessory][0]}" for accessory in ACCESSORIES)
        figures["accessory"] = right("accessory", ACCESSORIES, wearing)
    return figures


def renders(who: Subject) -> list[Image.Image]:
    """Return what the subject looks like in scenes that nobody has seen."""
    rng = np.random.default_rng(12_345)
    scenes = [random_scene(rng, (who,), style="photo", property=None, accessory=None) for _ in range(12)]
    return [render(scene).image for scene in scenes]


def timed(draw: Draw, prompt: str, seed: int) -> float:
    """Return the seconds that one picture takes."""
    started = time.perf_counter()
    draw([prompt], [seed])
    return time.perf_counter() - started


def as_markdown(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the table: means over the subjects, with what was kept as a share of the bare base."""

    def over(name: str, figure: str) -> float:
        return mean(one[figure] for one in rows[name] if figure in one)

    def kept(name: str, figure: str) -> str:
        known = any(figure in one for one in rows[name])
        return f"{over(name, figure) / max(over('base', figure), 1e-6):.0%}" if known else ""

    lines = [
        "| | identity | context kept | style kept | accessory kept | copies | seconds an image | minutes before |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, subjects in rows.items():
        low, high = metrics.interval([[one["identity"]] for one in subjects])
        minutes = f"{over(name, 'minutes'):.1f}" if "minutes" in subjects[0] else "0"
        cells = [
            f"{over(name, 'identity'):.2f} ({low:.2f} to {high:.2f})",
            *(kept(name, figure) for figure in ("context", "style", "accessory")),
            f"{over(name, 'copies'):.1%}",
            f"{over(name, 'seconds'):.1f}",
            minutes,
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
