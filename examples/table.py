"""Measures `persona train` on clay and writes the table as Markdown.

    python examples/table.py [OUT] [--subjects N] [--seeds N]

For each subject in examples/photos: training with no option but token and class, the same with class images that the
base draws first, as in the paper, without prior preservation, with no class noun and with a wrong one. Identity is
recovered identity by clay's judge, in places that no photo shows, against fresh renders of the subject that no training
saw. The last rows are what a training step of full-size SD 1.5 takes, of what its forward and backward pass take alone
(bench_step.py; Linux only). If interrupted, run the same command again to resume.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image

import persona
from persona import adapter
from persona.clay import weights_folder
from persona.clay.judge import Judge, as_tensor
from persona.clay.world import LIVE, Subject, from_dict, random_scene, render
from persona.clay.world.captions import ACCESSORY_PHRASES, CONTEXT_PHRASES, STYLE_PHRASES
from persona.drawing import open_base
from persona.identity import fill
from persona.sitters import wear

HERE = Path(__file__).parent
NEW_PLACES = 8
STYLES = ("van gogh", "watercolor", "oil painting", "pop art", "pixel art", "mosaic")
ACCESSORIES = ("red hat", "santa hat", "rainbow scarf", "pink glasses", "yellow shirt", "wizard outfit")
NO_CLASS = "thing"


def main() -> None:
    """Measure, then write OUT/table.md."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", nargs="?", type=Path, default=Path("build/table"))
    options.add_argument("--subjects", type=int, default=6)
    options.add_argument("--seeds", type=int, default=4, help="images of each prompt, at least 2")
    given = options.parse_args()
    if given.seeds < 2:
        options.error("--seeds 2 or more: one image of a prompt says nothing of their diversity")
    truth = {folder.name: folder for folder in sorted((HERE / "photos").iterdir()) if folder.is_dir()}
    rows = [measure(folder, given.out / name, given.seeds) for name, folder in list(truth.items())[: given.subjects]]
    table = as_markdown(rows, step(given.out / "step"))
    (given.out / "table.md").write_text(table, encoding="utf-8")
    print(table)


def measure(photos: Path, out: Path, seeds: int) -> dict[str, Any]:
    """Return every figure of one subject, from the file of an earlier call where it is there."""
    subject, places = subject_of(photos)
    noun = subject.class_noun
    wrong = "dog" if noun == "car" else "car"
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        "bare": lambda: look(None, subject, places, noun, seeds),
        "default": lambda: run(photos, out, noun, seeds),
        "generated": lambda: run(photos, out, noun, seeds, prior="generated"),
        "no prior": lambda: run(photos, out, noun, seeds, prior="none"),
        "no class": lambda: run(photos, out, NO_CLASS, seeds),
        "wrong class": lambda: run(photos, out, wrong, seeds),
    }
    return {"subject": photos.name, **resumed(out, jobs, seeds=seeds)}


def step(out: Path) -> dict[str, float]:
    """Return the seconds and bytes of a training step, as shares of what its forward and backward pass take."""
    if sys.platform != "linux":
        return {"seconds": float("nan"), "bytes": float("nan")}
    from bench_step import measured

    ours, bare = resumed(out, {loop: partial(measured, loop, ()) for loop in ("persona", "bare")}).values()
    return {figure: ours[figure] / bare[figure] for figure in bare}


def subject_of(photos: Path) -> tuple[Subject, tuple[str, ...]]:
    """Return the subject of some photos, and eight places that none of them shows."""
    truth = json.loads((photos / "truth.json").read_text())
    scenes = [from_dict(one["scene"]) for one in truth.values()]
    shown = {scene.context for scene in scenes}
    return scenes[0].entities[0].subject, tuple(place for place in CONTEXT_PHRASES if place not in shown)[:NEW_PLACES]


def resumed(out: Path, jobs: Mapping[str, Callable[[], Any]], **asked: Any) -> dict[str, Any]:
    """Return what jobs find, each from a file in the folder if an earlier call did it that was asked for the same."""
    noted = out / "figures.json"
    known: dict[str, Any] = json.loads(noted.read_text()) if noted.exists() else {}
    if known.setdefault("asked", asked) != asked:
        sys.exit(f"{noted} holds figures that were asked for otherwise: {known['asked']}. Name another OUT.")
    for name, job in jobs.items():
        if name not in known:
            known[name] = job()
            out.mkdir(parents=True, exist_ok=True)
            noted.write_text(json.dumps(known, indent=1))
            print(out.name, name, known[name], flush=True)
    return {name: known[name] for name in jobs}


def run(photos: Path, out: Path, noun: str, seeds: int, **settings: Any) -> dict[str, Any]:
    """Train with nothing but token and class (and what is being compared), timed, and look at it."""
    name = "-".join([noun, *map(str, settings.values())])
    os.environ["XDG_CACHE_HOME"] = str(out / f"cache-{name}")  # an empty store: class images are part of the time
    started = time.perf_counter()
    made = persona.train(persona.TrainConfig(photos=photos, class_noun=noun, token="sks", out=out / name, **settings))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "scores": made.scores, **look(made, *subject_of(photos), noun, seeds)}


def look(
    made: persona.Persona | None, subject: Subject, places: Sequence[str], noun: str, seeds: int
) -> dict[str, float]:
    """Draw with a persona (or the bare base) and let the judge read the pictures."""
    base = open_base("clay")
    if made is not None:
        wear(base, made)
        adapter.scale(base, made.recommended_scale)
    judge = Judge.load(weights_folder() / "judge")
    rng = np.random.default_rng(12_345)
    fresh = [
        render(random_scene(rng, (subject,), style="photo", property=None, accessory=None)).image for _ in range(12)
    ]
    reference = judge.read(fresh)[1]
    who = f"{'[V] ' if made else ''}{noun}"

    def drawn(prompts: Iterable[str], seeds: int = seeds) -> list[Image.Image]:
        wanted = [(fill(prompt, "sks", noun), seed) for prompt in prompts for seed in range(seeds)]
        return base.draw([prompt for prompt, _ in wanted], [seed for _, seed in wanted])

    def share(head: str, labels: Iterable[str], pictures: Sequence[Image.Image]) -> float:
        read = judge.read(pictures)[0][head]
        return mean(read[i] == label for i, label in enumerate(label for label in labels for _ in range(seeds)))

    in_contexts = drawn(f"a photo of a {who} {CONTEXT_PHRASES[place][0]}" for place in places)
    shown = judge.read(in_contexts)[1]
    bare = drawn([f"a {subject.class_noun}"], 8 * seeds)
    bare_read, bare_shown = judge.read(bare)
    figures = {
        "identity": judge.recovered(shown, reference, subject.class_noun).mean().item(),
        "context": share("context", places, in_contexts),
        "style": share("style", STYLES, drawn(STYLE_PHRASES[style][0].format(f"a {who}") for style in STYLES)),
        "bare class": mean(label == subject.class_noun for label in bare_read["class"]),
        "bare identity": judge.recovered(bare_shown, reference, subject.class_noun).mean().item(),
        "PRES": (bare_shown @ reference.T).mean().item(),
        "DIV": _diversity(judge, drawn([f"a photo of a {who}"], 4 * seeds)),
    }
    if subject.class_noun in LIVE:
        wearing = drawn(f"a {who} {ACCESSORY_PHRASES[accessory][0]}" for accessory in ACCESSORIES)
        figures["accessory"] = share("accessory", ACCESSORIES, wearing)
    return figures


@torch.no_grad()
def _diversity(judge: Judge, pictures: Sequence[Image.Image]) -> float:
    """Mean distance (1 - cosine) of the judge's features between pictures of one prompt: clay's stand-in for LPIPS."""
    features = torch.nn.functional.normalize(judge.features(as_tensor(pictures)), dim=1)
    return mean(1 - float(features[a] @ features[b]) for a, b in combinations(range(len(pictures)), 2))


def as_markdown(rows: list[dict[str, Any]], shares: Mapping[str, float]) -> str:
    """Return the table of all subjects, with their mean and what it should be, and the shares of :func:`step`."""

    def of(job: str, figure: str) -> list[float]:
        return [row[job].get(figure, float("nan")) for row in rows]

    def kept(figure: str) -> list[float]:
        """Return the share of what the bare base gets right, each and of all together, of what it can get right."""
        pairs = list(zip(of("default", figure), of("bare", figure), strict=True))
        total = np.nansum([ours for ours, _ in pairs]) / max(np.nansum([base for _, base in pairs]), 1e-6)
        return [*(ours / base if base else float("nan") for ours, base in pairs), float(total)]

    def with_mean(values: list[float]) -> list[float]:
        return [*values, float(np.nanmean(values))]

    lines = {
        "minutes": (with_mean([seconds / 60 for seconds in of("default", "seconds")]), "at most 4"),
        "identity": (with_mean(of("default", "identity")), "at least 0.80"),
        **{f"{figure} kept": (kept(figure), "at least 0.90") for figure in ("context", "style", "accessory")},
        "PRES": (with_mean(of("default", "PRES")), "lower than without prior"),
        "PRES, class images": (with_mean(of("generated", "PRES")), ""),
        "PRES, no prior": (with_mean(of("no prior", "PRES")), ""),
        "DIV": (with_mean(of("default", "DIV")), "higher than without prior"),
        "DIV, class images": (with_mean(of("generated", "DIV")), ""),
        "DIV, no prior": (with_mean(of("no prior", "DIV")), ""),
        "identity, class images": (with_mean(of("generated", "identity")), ""),
        "identity, no prior": (with_mean(of("no prior", "identity")), "at most 0.08 more than with it"),
        "identity, no class": (with_mean(of("no class", "identity")), "lower"),
        "identity, wrong class": (with_mean(of("wrong class", "identity")), "lower"),
        "bare class right": (with_mean(of("default", "bare class")), "at least 0.95"),
        "bare class right, class images": (with_mean(of("generated", "bare class")), ""),
        "bare class right, untouched base": (with_mean(of("bare", "bare class")), ""),
        "bare identity": (with_mean(of("default", "bare identity")), "at most 0.15"),
        "bare identity, class images": (with_mean(of("generated", "bare identity")), ""),
        "bare identity, untouched base": (with_mean(of("bare", "bare identity")), ""),
        "time of a step": ([*[float("nan")] * len(rows), shares["seconds"]], "at most 1.08"),
        "memory of a step": ([*[float("nan")] * len(rows), shares["bytes"]], "at most 1.15"),
    }
    head = [f"| | {' | '.join(row['subject'] for row in rows)} | all | target |", "|---" * (len(rows) + 3) + "|"]
    body = [
        f"| {name} | {' | '.join('' if np.isnan(value) else f'{value:.2f}' for value in values)} | {wanted} |"
        for name, (values, wanted) in lines.items()
    ]
    return "\n".join([*head, *body]) + "\n"


if __name__ == "__main__":
    main()
