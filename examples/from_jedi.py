"""Does it help to learn from JeDi's views beside the photos? Measured on clay, each subject with and without them.

    python examples/from_jedi.py [OUT] [--subjects N] [--steps N]

Writes OUT/table.md: the identity that was recovered and the share of right prompts, as clay's judge sees them, and the
minutes until nine tenths of the identity were there that the photos alone reach. If interrupted, run the same command
again to resume; minutes then count from there: delete a subject's folder to measure it from the start.
"""

import argparse
import json
import math
import time
from pathlib import Path
from statistics import mean
from typing import Any

import persona

HERE = Path(__file__).parent
ENOUGH = 0.9
"""Share of the identity that the photos alone reach, at which the clock is stopped."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", nargs="?", type=Path, default=Path("build/from-jedi"))
    options.add_argument("--subjects", type=int, default=6)
    options.add_argument("--steps", type=int)
    options.add_argument("--score-every", type=int, default=25)
    given = options.parse_args()
    photos = sorted(path for path in (HERE / "photos").iterdir() if path.is_dir())[: given.subjects]
    pairs = [[measured(folder, given, from_jedi=aided) for aided in (False, True)] for folder in photos]
    table = as_markdown(pairs)
    (given.out / "table.md").write_text(table, encoding="utf-8")
    print(table)


def measured(folder: Path, given: argparse.Namespace, *, from_jedi: bool) -> dict[str, Any]:
    """Return scores and the course of a training, from the file of an earlier call where it is there."""
    out = given.out / folder.name / ("jedi" if from_jedi else "photos")
    noted = out.with_suffix(".json")
    if noted.exists():
        found: dict[str, Any] = json.loads(noted.read_text())
        return found
    started, times = time.perf_counter(), dict[int, float]()

    def listen(event: persona.Event) -> None:
        if isinstance(event, persona.Progress) and event.stage == "Training":
            times[event.done] = (time.perf_counter() - started) / 60

    config = persona.TrainConfig(
        photos=folder, class_noun=folder.name, out=out, from_jedi=from_jedi, steps=given.steps,
        score_every=given.score_every,
    )  # fmt: skip
    made = persona.train(config, listen)
    # Of a run that was interrupted the times of the steps before are gone, and its course with them.
    course = [(times[step], one["identity"]) for one in made.history if (step := int(one["step"])) in times]
    found = {"scores": dict(made.scores), "course": course, "minutes": (time.perf_counter() - started) / 60}
    noted.write_text(json.dumps(found))
    return found


def reached(run: dict[str, Any], identity: float) -> float | None:
    """Return the minutes after which a run recovered so much identity, if it did."""
    return next((minutes for minutes, recovered in run["course"] if recovered >= identity), None)


def as_markdown(pairs: list[list[dict[str, Any]]]) -> str:
    lines = [
        "| learned from | identity | prompt | minutes to nine tenths | subjects that got there | minutes in all |",
        "|---|---|---|---|---|---|",
    ]
    for way, name in enumerate(("photos", "photos and JeDi's views")):
        runs = [pair[way] for pair in pairs]
        goals = [ENOUGH * max((recovered for _, recovered in pair[0]["course"]), default=math.inf) for pair in pairs]
        times = [at for run, goal in zip(runs, goals, strict=True) if (at := reached(run, goal)) is not None]
        cells = [
            f"{mean(run['scores']['identity'] for run in runs):.3f}",
            f"{mean(run['scores']['prompt'] for run in runs):.3f}",
            f"{mean(times):.1f}" if times else "",
            f"{len(times)} of {len(runs)}",
            f"{mean(run['minutes'] for run in runs):.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
