"""Render the photos of `examples/photos`: six subjects that clay never saw, five photos of each.

    python examples/make_photos.py [FOLDER]

They are what a new user trains on; `truth.json` beside them says who and what they show.
"""

import argparse
import json
from pathlib import Path

from numpy.random import default_rng

from persona.clay import world

SEED = 1_000_003  # as of the evaluation; training draws from seeds of its own
PHOTOS = {
    "dog": ["wooden floor", "beach", "dirt road", "autumn leaves", "city"],
    "cat": ["white rug", "sunflowers", "wooden floor", "blue house", "snow"],
    "duck": ["water", "beach", "wheat field", "cobblestone street", "mountain"],
    "robot": ["city", "white rug", "jungle", "snow", "wooden floor"],
    "teapot": ["pink fabric", "wooden floor", "white rug", "purple rug", "sunflowers"],
    "sneaker": ["cobblestone street", "wooden floor", "dirt road", "autumn leaves", "white rug"],
}
VIEWS = ("three-quarter", "side", "front", "back", "three-quarter")


def main(folder: Path) -> None:
    for number, (noun, contexts) in enumerate(PHOTOS.items()):
        rng = default_rng((SEED, 3, number))
        who = world.random_subject(rng, noun)
        truth = {}
        (folder / noun).mkdir(parents=True, exist_ok=True)
        for place, (context, view) in enumerate(zip(contexts, VIEWS, strict=True), 1):
            scene = world.random_scene(
                rng, (who,), context=context, view=view, style="photo", accessory=None, property=None
            )
            picture = world.render(scene)
            picture.image.save(folder / noun / f"{place}.png", optimize=True)
            truth[f"{place}.png"] = {"scene": world.to_dict(scene), "box": picture.boxes[0]}
        (folder / noun / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "photos")
    main(options.parse_args().folder)
