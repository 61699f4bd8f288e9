"""Measures `persona train` on clay and writes the table as Markdown; killed, it goes on where it was.

    python examples/table.py [OUT] [--subjects N] [--seeds N]

For each subject in examples/photos: training with no option but token and class on an empty store of priors, the same
without prior preservation, with no class noun and with a wrong one. Identity is recovered identity by clay's judge,
against fresh renders of the subject that no training saw.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
NEW_CONTEXTS = ("jungle", "beach", "snow", "cobblestone street", "wooden floor", "city", "purple rug", "water")
STYLES = ("van gogh", "watercolor", "oil painting", "pop art", "pixel art", "mosaic")
ACCESSORIES = ("red hat", "santa hat", "rainbow scarf", "pink glasses", "yellow shirt", "wizard outfit")
NO_CLASS = "thing"


def main() -> None:
    """Measure, then write OUT/table.md."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", nargs="?", type=Path, default=Path("build/table"))
    options.add_argument("--subjects", type=int, default=6)
    options.add_argument("--seeds", type=int, default=4, help="pictures of each prompt, at least 2")
    given = options.parse_args()
    if given.seeds < 2:
        options.error("--seeds 2 or more: one picture of a prompt says nothing of their diversity")
    truth = {folder.name: folder for folder in sorted((HERE / "photos").iterdir()) if folder.is_dir()}
    rows = [measure(folder, given.out / name, given.seeds) for name, folder in list(truth.items())[: given.subjects]]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "table.md").write_text(as_markdown(rows), encoding="utf-8")
    print(as_markdown(rows))


def measure(photos: Path, out: Path, seeds: int) -> dict[str, Any]:
    """Return every figure of one subject, from the file of an earlier call where it is there."""
    truth = json.loads((photos / "truth.json").read_text())
    subject = from_dict(next(iter(truth.values()))["scene"]).entities[0].subject
    noun = subject.class_noun
    wrong = "dog" if noun == "car" else "car"
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        "bare": lambda: look(None, subject, noun, seeds),
        "default": lambda: run(photos, out, subject, noun, seeds),
        "no prior": lambda: run(photos, out, subject, noun, seeds, prior="none"),
        "no class": lambda: run(photos, out, subject, NO_CLASS, seeds),
        "wrong class": lambda: run(photos, out, subject, wrong, seeds),
    }
    return {"subject": photos.name, **resumed(out, jobs)}


def resumed(out: Path, jobs: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Return what jobs find, each from a file in the folder if an earlier call did it."""
    noted = out / "figures.json"
    known: dict[str, Any] = json.loads(noted.read_text()) if noted.exists() else {}
    for name, job in jobs.items():
        if name not in known:
            known[name] = job()
            out.mkdir(parents=True, exist_ok=True)
            noted.write_text(json.dumps(known, indent=1))
            print(out.name, name, known[name], flush=True)
    return {name: known[name] for name in jobs}


def run(photos: Path, out: Path, subject: Subject, noun: str, seeds: int, **settings: Any) -> dict[str, Any]:
    """Train with nothing but token and class (and what is being compared), timed with its priors, and look at it."""
    name = "-".join([noun, *map(str, settings.values())])
    os.environ["XDG_CACHE_HOME"] = str(out / f"cache-{name}")  # an empty store: the priors are part of the time
    started = time.perf_counter()
    made = persona.train(persona.TrainConfig(photos=photos, class_noun=noun, token="sks", out=out / name, **settings))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "scores": made.scores, **look(made, subject, noun, seeds)}


def look(made: persona.Persona | None, subject: Subject, noun: str, seeds: int) -> dict[str, float]:
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

    def drawn(prompts: Iterable[str]) -> list[Image.Image]:
        wanted = [(fill(prompt, "sks", noun), seed) for prompt in prompts for seed in range(seeds)]
        return base.draw([prompt for prompt, _ in wanted], [seed for _, seed in wanted])

    def share(head: str, labels: Iterable[str], pictures: Sequence[Image.Image]) -> float:
        read = judge.read(pictures)[0][head]
        return mean(read[i] == label for i, label in enumerate(label for label in labels for _ in range(seeds)))

    in_contexts = drawn(f"a photo of a {who} {CONTEXT_PHRASES[context][0]}" for context in NEW_CONTEXTS)
    shown = judge.read(in_contexts)[1]
    bare = drawn([f"a {subject.class_noun}"] * 4)
    bare_read, bare_shown = judge.read(bare)
    figures = {
        "identity": judge.recovered(shown, reference, subject.class_noun).mean().item(),
        "context": share("context", NEW_CONTEXTS, in_contexts),
        "style": share("style", STYLES, drawn(STYLE_PHRASES[style][0].format(f"a {who}") for style in STYLES)),
        "bare class": mean(label == subject.class_noun for label in bare_read["class"]),
        "bare identity": judge.recovered(bare_shown, reference, subject.class_noun).mean().item(),
        "PRES": (bare_shown @ reference.T).mean().item(),
        "DIV": _diversity(judge, [in_contexts[at : at + seeds] for at in range(0, 4 * seeds, seeds)]),
    }
    if subject.class_noun in LIVE:
        wearing = drawn(f"a {who} {ACCESSORY_PHRASES[accessory][0]}" for accessory in ACCESSORIES)
        figures["accessory"] = share("accessory", ACCESSORIES, wearing)
    return figures


@torch.no_grad()
def _diversity(judge: Judge, groups: Sequence[Sequence[Image.Image]]) -> float:
    """Mean distance (1 - cosine) of the judge's features between pictures of one prompt: clay's stand-in for LPIPS."""
    distances = []
    for group in groups:
        features = torch.nn.functional.normalize(judge.features(as_tensor(group)), dim=1)
        distances += [1 - float(features[a] @ features[b]) for a, b in combinations(range(len(group)), 2)]
    return mean(distances)


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table of all subjects, with their mean."""
    columns: dict[str, Callable[[dict[str, Any]], float]] = {
        "minutes": lambda row: row["default"]["seconds"] / 60,
        "identity": lambda row: row["default"]["identity"],
        "context kept": lambda row: row["default"]["context"] / max(row["bare"]["context"], 1e-6),
        "style kept": lambda row: row["default"]["style"] / max(row["bare"]["style"], 1e-6),
        "accessory kept": lambda row: (
            row["default"]["accessory"] / max(row["bare"]["accessory"], 1e-6)
            if "accessory" in row["bare"]
            else float("nan")
        ),
        "PRES, no prior": lambda row: row["no prior"]["PRES"],
        "PRES": lambda row: row["default"]["PRES"],
        "DIV, no prior": lambda row: row["no prior"]["DIV"],
        "DIV": lambda row: row["default"]["DIV"],
        "identity, no prior": lambda row: row["no prior"]["identity"],
        "identity, no class": lambda row: row["no class"]["identity"],
        "identity, wrong class": lambda row: row["wrong class"]["identity"],
        "bare class right": lambda row: row["default"]["bare class"],
        "bare identity": lambda row: row["default"]["bare identity"],
    }
    lines = [f"| | {' | '.join(row['subject'] for row in rows)} | mean |", "|---" * (len(rows) + 2) + "|"]
    for name, figure in columns.items():
        values = [figure(row) for row in rows]
        cells = ["" if np.isnan(value) else f"{value:.2f}" for value in (*values, np.nanmean(values))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
