"""Draw the images of the README: teach clay the dog of `examples/photos`, and run every command of its tables of tasks.

    python examples/pictures.py [OUT]

OUT (`examples/pictures` when left out) gets a strip of images for each row, named by the task, and the photos.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from itertools import takewhile
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
PHOTOS = HERE / "photos" / "dog"
SHOWN = 4
"""Pictures in a strip."""
ROW = re.compile(r"^\| (?P<task>[A-Z]\w+)\b[^|]*\| `persona sample (?P<words>[^`]+)` \|", re.MULTILINE)


def persona(*words: str) -> dict[str, Any]:
    """Type a command, and return what it says to a script."""
    command = [sys.executable, "-m", "persona", *words, "--json"]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def strip(paths: list[Path], target: Path) -> None:
    """Put pictures side by side."""
    pictures = [Image.open(path).convert("RGB") for path in paths]
    side = pictures[0].height
    joined = Image.new("RGB", (len(pictures) * (side + 4) - 4, side), "white")
    for number, picture in enumerate(pictures):
        joined.paste(picture, (number * (side + 4), 0))
    joined.save(target, lossless=True)


def main(out: Path) -> None:
    """Train once, then draw each row: of each of its prompts as many pictures as there is room for.

    Rows that bring pictures of the subject along need no training.
    """
    out.mkdir(parents=True, exist_ok=True)
    strip(sorted(PHOTOS.glob("*.png"))[:SHOWN], out / "photos.webp")
    with tempfile.TemporaryDirectory() as work:
        learnt = Path(work) / "dog"
        persona("train", str(PHOTOS), "--class", "dog", "--token", "sks", "--out", str(learnt))
        for row in ROW.finditer((HERE.parent / "README.md").read_text(encoding="utf-8")):
            words = shlex.split(row["words"])
            prompts = list(takewhile(lambda word: not word.startswith("--"), words))
            who = [] if len(words) > len(prompts) else ["--persona", str(learnt)]
            drawn = Path(work) / row["task"]
            made = persona("sample", *words, *who, "-n", str(SHOWN // len(prompts)), "--out", str(drawn))
            paths = [Path(picture["path"]) for picture in made["pictures"]]
            strip(paths[:SHOWN], out / f"{row['task'].lower()}.webp")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", nargs="?", type=Path, default=HERE / "pictures")
    main(options.parse_args().out.resolve())
