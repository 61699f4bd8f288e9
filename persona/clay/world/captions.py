"""What a scene is called: a small grammar with real variety in wording.

What would surprise somebody who asked for plain "a dog" is always said (style, accessory, property, pose); what a
caption may leave open is left open now and then (colour, pattern, context). Of the views one alone is left open, the
usual one: were several, a small model would draw what lies between them, a dog with a head at either end.
"""

from numpy.random import Generator

from persona.clay.world.drawing import faces_left
from persona.clay.world.scene import Entity, Scene
from persona.clay.world.subjects import LIVE

CONTEXT_PHRASES: dict[str, tuple[str, ...]] = {
    "jungle": ("in the jungle", "in a green jungle", "with a jungle in the background", "among jungle trees"),
    "snow": ("in the snow", "in a snowy landscape", "on the snow", "on snow in winter"),
    "beach": ("on the beach", "on a sandy beach", "at the beach", "on a beach by the sea"),
    "cobblestone street": ("on a cobblestone street", "on cobblestones",
                           "on top of a cobblestone street", "in a cobblestone street"),
    "pink fabric": ("on top of pink fabric", "on pink fabric", "on a pink cloth", "lying on pink fabric"),
    "wooden floor": ("on top of a wooden floor", "on a wooden floor",
                     "on the wooden floor", "indoors on a wooden floor"),
    "city": ("with a city in the background", "in the city", "in a city street", "in front of city buildings"),
    "mountain": ("with a mountain in the background", "in the mountains",
                 "in front of a mountain", "with snowy mountains in the background"),
    "blue house": ("with a blue house in the background", "in front of a blue house",
                   "near a blue house", "beside a blue house"),
    "purple rug": ("on top of a purple rug in a forest", "on a purple rug in a forest",
                   "on a purple rug", "on a purple rug in the woods"),
    "wheat field": ("with a wheat field in the background", "in a wheat field",
                    "in front of a wheat field", "in a field of wheat"),
    "autumn leaves": ("with a tree and autumn leaves in the background", "on autumn leaves",
                      "among autumn leaves", "under autumn trees"),
    "water": ("floating on top of water", "on the water", "floating on water", "on top of blue water"),
    "sunflowers": ("on top of green grass with sunflowers around it", "with sunflowers around it",
                   "among sunflowers", "on the grass with sunflowers"),
    "dirt road": ("on top of a dirt road", "on a dirt road", "on a country road", "standing on a dirt road"),
    "white rug": ("on top of a white rug", "on a white rug", "indoors on a white rug", "on a round white rug"),
}  # fmt: skip
STYLE_PHRASES: dict[str, tuple[str, ...]] = {
    "van gogh": (
        "{}, in the style of van gogh",
        "a van gogh painting of {}",
        "{} in van gogh style",
        "a painting of {} in the style of vincent van gogh",
    ),
    "watercolor": ("a watercolor painting of {}", "{}, watercolor", "{} in watercolor style", "a watercolor of {}"),
    "oil painting": ("an oil painting of {}", "{}, oil painting", "{} in oil painting style", "{} painted in oil"),
    "pop art": (
        "{} in pop art style",
        "a pop art print of {}",
        "{}, in the style of andy warhol",
        "a warhol print of {}",
    ),
    "pencil sketch": (
        "a pencil sketch of {}",
        "{}, pencil sketch",
        "{} in pencil sketch style",
        "a pencil drawing of {}",
    ),
    "line drawing": (
        "a line drawing of {}",
        "{}, line drawing",
        "{} in line drawing style",
        "an ink line drawing of {}",
    ),
    "pixel art": ("pixel art of {}", "{}, pixel art", "{} in pixel art style", "a pixel art picture of {}"),
    "sepia": ("a sepia photo of {}", "{}, sepia", "an old sepia photograph of {}", "{} in sepia style"),
    "blueprint": ("a blueprint of {}", "{}, blueprint", "{} in blueprint style", "a blueprint drawing of {}"),
    "mosaic": ("a mosaic of {}", "{}, mosaic", "{} in mosaic style", "a tile mosaic of {}"),
    "ukiyo-e": ("a ukiyo-e print of {}", "{}, ukiyo-e", "{} in ukiyo-e style", "a japanese woodblock print of {}"),
    "photo": ("a photo of {}", "{}", "a picture of {}", "{}, photo", "a photograph of {}"),
}
VIEW_PHRASES: dict[str, tuple[str, ...]] = {
    "front": ("seen from the front", "front view", "from the front", "facing the camera"),
    "side": ("seen from the side", "side view", "from the side", "in profile"),
    "back": ("seen from the back", "back view", "from behind", "seen from behind"),
    "three-quarter": ("three-quarter view", "in three-quarter view", "seen at an angle"),
    "top": ("seen from the top", "top view", "from above", "seen from above"),
    "bottom": ("seen from the bottom", "bottom view", "from below", "seen from below"),
}
ACCESSORY_PHRASES: dict[str, tuple[str, ...]] = {
    "red hat": ("wearing a red hat", "in a red hat", "with a red hat"),
    "santa hat": ("wearing a santa hat", "in a santa hat", "with a santa hat"),
    "top hat and monocle": (
        "wearing a black top hat and a monocle",
        "wearing a top hat and monocle",
        "in a top hat with a monocle",
    ),
    "rainbow scarf": ("wearing a rainbow scarf", "with a rainbow scarf", "in a rainbow scarf"),
    "pink glasses": ("wearing pink glasses", "with pink glasses", "in pink glasses"),
    "yellow shirt": ("wearing a yellow shirt", "in a yellow shirt", "with a yellow shirt"),
    "wizard outfit": (
        "in a wizard outfit",
        "wearing a wizard outfit",
        "dressed as a wizard",
        "in a purple wizard outfit",
    ),
    "chef outfit": ("in a chef outfit", "wearing a chef outfit", "dressed as a chef"),
}
_PATTERN_NOUNS = {"spotted": "spots", "striped": "stripes", "patched": "patches"}
_USUAL_SAID = 0.2
"""Share of captions that say the usual view: three quarters from the front, facing right."""


def _one(rng: Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def noun_phrase(entity: Entity, rng: Generator, identifier: str | None = None, *, looks: bool = True) -> str:
    """Return what an entity is called, without an article: "spotted red sks dog with blue ears"."""
    subject = entity.subject
    main, second, accent = subject.colour_names
    words: list[str] = []
    after = ""
    seen = looks and entity.property not in ("golden", "transparent", "wet")
    if entity.property:
        words.append(entity.property)
    colour = seen and rng.random() < 0.6
    pattern = seen and subject.pattern != "plain" and rng.random() < 0.5
    if pattern and rng.random() < 0.5 and subject.pattern in _PATTERN_NOUNS:
        after = f" with {second} {_PATTERN_NOUNS[subject.pattern]}"
    elif pattern:
        words.append(subject.pattern)
    if colour:
        words.append(f"{main} and {second}" if rng.random() < 0.2 else main)
        rng.shuffle(words)
    if identifier:
        words.append(identifier)
    words.append(subject.class_noun)
    if seen and not after and subject.class_noun in LIVE and subject.class_noun != "duck" and rng.random() < 0.12:
        after = f" with {accent} ears"
    return " ".join(words) + after


def _entity(entity: Entity, rng: Generator, identifier: str | None, *, looks: bool) -> str:
    subject = entity.subject
    if subject.cross:
        pair = [subject.class_noun, subject.cross]
        rng.shuffle(pair)
        mark = f"{identifier} " if identifier and pair[0] == subject.class_noun else ""
        phrase = f"cross of {_article(mark + pair[0])} and {_article(pair[1])}"
        phrase = _article(f"{entity.property} {phrase}" if entity.property else phrase)
    else:
        phrase = _article(noun_phrase(entity, rng, identifier, looks=looks))
    pose = entity.pose
    said = 1.0 if pose != "standing" else 0.12 if subject.class_noun in LIVE else 0.0
    if said and rng.random() < said:
        before = rng.random() < 0.3 and not subject.cross
        phrase = f"{_article(pose)} {phrase.split(' ', 1)[1]}" if before else f"{phrase} {pose}"
    if entity.accessory:
        phrase += " " + _one(rng, ACCESSORY_PHRASES[entity.accessory])
    return phrase


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def caption(
    scene: Scene, rng: Generator, identifiers: tuple[str | None, ...] = (None, None), *, looks: bool = True
) -> str:
    """Return one way to say what a scene shows.

    Args:
        scene: what is shown.
        rng: decides the wording.
        identifiers: words without a meaning that are put before the class nouns, one an entity.
        looks: whether the subjects' own colours and patterns may be said, or are left to pictures of them.
    """
    phrase = _entity(scene.entities[0], rng, identifiers[0], looks=looks)
    if len(scene.entities) > 1:
        phrase += f" {scene.relation} {_entity(scene.entities[1], rng, identifiers[1], looks=looks)}"
    context = _one(rng, CONTEXT_PHRASES[scene.context]) if rng.random() < 0.87 else ""
    said = _USUAL_SAID if scene.view == "three-quarter" and not faces_left(scene) else 1.0
    view = _one(rng, VIEW_PHRASES[scene.view]) if rng.random() < said else ""
    before = ""
    if context and rng.random() < 0.12:
        before, context = f"{context}, ", ""
    phrase = " ".join(filter(None, (phrase, context)))
    if view:
        phrase = f"{phrase}, {view}" if rng.random() < 0.7 else f"{phrase} {view}"
    return before + _one(rng, STYLE_PHRASES[scene.style]).format(phrase)
