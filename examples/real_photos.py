"""Teach clay things from real photographs, and lay what it draws beside them.

    python examples/real_photos.py DATASET [OUT] [--subjects NAME=CLASS ...]

DATASET has a folder of photos for each subject, as DreamBench has. OUT/sheet.webp shows photos and images;
OUT/drawn.webp the images alone. Clay's judge has never seen a photograph: how good they are is for you to see.
If interrupted, run the same command again to resume.
"""

import argparse
from pathlib import Path

from PIL import Image

import persona
from persona.photos import pictures
from persona.sheet import Row, sheet

SUBJECTS = ("dog=dog", "cat=cat", "backpack=backpack", "duck_toy=duck")
PROMPTS = ("a photo of a [V] {}", "a [V] {} on the beach", "a [V] {} in the snow", "a watercolor painting of a [V] {}")
SHOWN = 4
"""Photos, and pictures of each subject, on the sheets."""


def main() -> None:
    """Train on each subject, draw it, and write the sheets."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset", type=Path)
    options.add_argument("out", nargs="?", type=Path, default=Path("build/real-photos"))
    options.add_argument("--subjects", nargs="+", default=SUBJECTS, metavar="NAME=CLASS")
    given = options.parse_args()
    beside, alone = [], []
    for subject in given.subjects:
        name, _, noun = subject.partition("=")
        photos = pictures(given.dataset / name)[:SHOWN]
        drawn = taught(given.dataset / name, noun, given.out / name)
        beside += [Row(name, [(photo.image, "") for photo in photos]), Row("", drawn)]
        alone.append(Row(name, drawn))
    sheet(beside).save(given.out / "sheet.webp", quality=90)
    sheet(alone).save(given.out / "drawn.webp", quality=90)


def taught(photos: Path, noun: str, out: Path) -> list[tuple[Image.Image, str]]:
    """Return pictures of a subject by clay, with their prompts, once it was taught from the photos."""
    made = persona.train(persona.TrainConfig(photos=photos, class_noun=noun, token="sks", out=out / "persona"), print)
    asked = persona.SampleConfig(
        prompts=tuple(prompt.format(noun) for prompt in PROMPTS), persona=made.path, out=out / "pictures", n=1
    )
    return [(Image.open(one.path), one.prompt) for one in persona.sample(asked)]


if __name__ == "__main__":
    main()
