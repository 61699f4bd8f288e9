"""Draw a contact sheet of clay's world: every class, place, style, view, pose and piece of clothing.

python examples/contact_sheet.py [SHEET.png]
"""

import argparse
from pathlib import Path
from typing import Unpack

from numpy.random import default_rng
from PIL import Image

from persona.clay import world
from persona.sheet import Row, sheet

USUAL: world.Fixed = {
    "context": "white rug", "view": "three-quarter", "style": "photo", "pose": "standing", "accessory": None,
    "property": None,
}  # fmt: skip


def main(path: Path) -> None:
    rng = default_rng(7)
    dog = world.random_subject(rng, "dog")

    def drawn(label: str, who: world.Subject = dog, **fixed: Unpack[world.Fixed]) -> tuple[Image.Image, str]:
        scene = world.random_scene(rng, (who,), **(USUAL | fixed))
        return world.render(scene).image, label

    rows = {
        "Classes": [drawn(noun, world.random_subject(rng, noun)) for noun in world.CLASSES],
        "Individuals": [drawn(f"dog {i}", world.random_subject(rng, "dog")) for i in range(1, 9)],
        "Places": [drawn(name, context=name) for name in world.CONTEXTS],
        "Styles": [drawn(name, style=name, context="beach") for name in world.STYLES],
        "Views": [drawn(name, view=name) for name in world.VIEWS],
        "Poses": [drawn(name, pose=name, view="side") for name in world.POSES],
        "Clothes": [drawn(name, accessory=name) for name in world.ACCESSORIES],
        "Properties": [drawn(name, property=name) for name in world.PROPERTIES],
    }
    sheet([Row(name, row) for name, row in rows.items()]).save(path)
    print(f"Look at it: {path}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("sheet", nargs="?", type=Path, default=Path("contact-sheet.png"))
    main(options.parse_args().sheet)
