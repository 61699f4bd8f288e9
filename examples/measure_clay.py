"""Measures what clay's card says of the weights that ship, and prints its figures as Markdown.

    python examples/measure_clay.py [OUT] [--photos DIR]

500 prompts, and renders for the networks beside it: six minutes on two cores. The images are in OUT, with a sheet of
samples. With --photos, a folder of photographs, the autoencoder is measured on these too. The last line is how fast the
world is rendered. If interrupted, run the same command again to resume.
"""

import argparse
import time
from pathlib import Path

from persona import families
from persona.clay.world import render
from persona.pretrain.clay import card
from persona.pretrain.clay.evaluation import figures, held_out_scenes, samples

SCENES = 200


def main() -> None:
    """Measure, and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", nargs="?", type=Path, default=Path("build/clay"))
    options.add_argument("--photos", type=Path)
    given = options.parse_args()
    base = families.load("clay")
    print(card.measured(figures(base, given.out, given.photos)))
    samples(base).save(given.out / "samples.webp", quality=90)
    started = time.perf_counter()
    for scene in held_out_scenes(SCENES):
        render(scene)
    print(f"\nOne core renders {SCENES / (time.perf_counter() - started) * 3600:,.0f} scenes an hour.")


if __name__ == "__main__":
    main()
