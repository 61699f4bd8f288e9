"""What clay and its judge must show, measured on what neither was trained on."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.random import Generator, default_rng
from PIL import Image, ImageOps
from torch import Tensor

from persona.atomic import beside, digest_of
from persona.clay.encoder import Encoder
from persona.clay.judge import Judge, as_tensor
from persona.clay.segmenter import Segmenter
from persona.clay.world import (
    CLASSES,
    COLOURLESS,
    COLOURS,
    GROUNDED,
    LIVE,
    SIDE,
    STYLES,
    VIEWS,
    Entity,
    Scene,
    held_out,
    random_scene,
    random_subject,
    render,
)
from persona.clay.world.captions import ACCESSORY_PHRASES, CONTEXT_PHRASES, STYLE_PHRASES, VIEW_PHRASES
from persona.errors import BadPhotos
from persona.events import Listener, Progress, silent
from persona.families import Family
from persona.photos.reading import DAMAGE
from persona.placing import any_of
from persona.pretrain.clay import encoding, segmenting
from persona.pretrain.clay.judging import accuracy
from persona.score import load_judge
from persona.sheet import Row, sheet

HELD_OUT_SEED = 1_000_003
"""Seeds of subjects and scenes that no training stage uses."""
PROMPTS, RENDERS, RIVALS, PIXELS = 500, 1500, 100, 200
"""How many prompts, renders to judge, subjects to be told apart, and pictures to be encoded there are."""


_SHOWN = {
    "photos": [f"a photo of a {noun}" for noun in (
        "dog", "cat", "rabbit", "duck", "car", "robot", "teapot", "sneaker")],
    "places": [f"a dog {place}" for place in (
        "in the jungle", "in the snow", "on the beach", "in the city", "on a cobblestone street", "on a wooden floor",
        "with a blue house in the background", "floating on top of water")],
    "styles": [f"{style} of a blue car" for style in (
        "a van gogh painting", "a watercolor painting", "an oil painting", "a pop art print", "a pencil sketch",
        "a blueprint", "a mosaic", "pixel art")],
    "colours and clothes": [
        "a red cat", "a green bear", "a striped pink pig", "a spotted teapot", "a golden robot",
        "a rabbit wearing a santa hat", "a dog in a wizard outfit", "a duck wearing pink glasses"],
}  # fmt: skip
"""Prompts of the sheet of samples, by its rows."""


def samples(base: Family) -> Image.Image:
    """Draw what clay makes of its classes, places, styles, and of colours and clothes, on one sheet."""
    prompts = [prompt for row in _SHOWN.values() for prompt in row]
    drawn = iter(base.draw(prompts, range(len(prompts))))
    return sheet([Row(name, [(next(drawn), prompt) for prompt in row]) for name, row in _SHOWN.items()])


def figures(base: Family, folder: Path, photos: Path | None, listener: Listener = silent) -> dict[str, float]:
    """Measure clay, its judge, its segmenter and its encoder.

    Args:
        base: clay, with these networks in its folder.
        folder: where the pictures are kept, so that a stopped evaluation goes on where it was.
        photos: folder with real photographs for the autoencoder; ``None`` to leave that out.
        listener: told how many pictures are drawn.

    Returns:
        Shares from 0 to 1 of right answers about prompts and renders, dB, seconds and megabytes, by name.

    Raises:
        BadPhotos: there are no photographs in the folder, or one cannot be read.
    """
    judge, vae = load_judge(base), base.pipe.vae
    asked = requests(PROMPTS)
    pictures = _drawn(base, [request.prompt for request in asked], folder, listener)
    measured = {f"prompts: {head}": share for head, share in right(judge, pictures, asked).items()}
    measured |= {f"judge: {head}": share for head, share in judge_figures(judge).items()}
    segmenter, encoder = Segmenter.load(base.folder / "segmenter"), Encoder.load(base.folder / "encoder")
    measured["segmenter: overlap"] = segmenting.agreement(segmenter, list(held_out_scenes(PIXELS)))
    measured["encoder: identity"] = encoding.recognised(encoder, RIVALS, HELD_OUT_SEED)
    measured["autoencoder: renders, dB"] = psnr(vae, [render(scene).image for scene in held_out_scenes(PIXELS)])
    if photos is not None:
        measured["autoencoder: photos, dB"] = psnr(vae, photographs(photos))
    measured["seconds a picture"] = seconds_a_picture(lambda: base.draw(["a photo of a dog"], [0]))
    parts = (*base.pipe.components, "judge")  # methods and their networks lie beside them
    files = (path for part in parts for path in (base.folder / part).rglob("*") if path.is_file())
    return measured | {"megabytes": sum(path.stat().st_size for path in files) / 1e6}


def _drawn(base: Family, prompts: Sequence[str], folder: Path, listener: Listener) -> list[Image.Image]:
    """Return a picture of each prompt, drawn with its number as the seed unless it is in the folder already."""
    kept = folder / digest_of([base.hash, asdict(base.recipe), prompts])[:12]  # of no other prompts or guidance
    paths = [kept / f"{number:04}.png" for number in range(len(prompts))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    batch = base.batch_of((base.resolution, base.resolution))
    for first in range(0, len(missing), batch):
        listener(Progress("Drawing prompts", len(prompts) - len(missing) + first, len(prompts)))
        numbers = missing[first : first + batch]
        drawn = base.draw([prompts[number] for number in numbers], numbers)
        for number, picture in zip(numbers, drawn, strict=True):
            with beside(paths[number]) as part:
                picture.save(part)
    listener(Progress("Drawing prompts", len(prompts), len(prompts)))
    return [_read(path) for path in paths]


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:  # as many at once are more than a process may open
        return picture.convert("RGB")


@dataclass(frozen=True)
class Request:
    """A prompt, and what a judge should read in its picture: head -> label."""

    prompt: str
    expected: dict[str, str]


def requests(n: int) -> list[Request]:
    """Return prompts of compositions (class, context, style) that no training scene shows."""
    rng = default_rng(HELD_OUT_SEED)
    return [_request(rng) for _ in range(n)]


def _request(rng: Generator) -> Request:
    style = "photo" if rng.random() < 0.5 else str(rng.choice([s for s in STYLES if s != "photo"]))
    view = str(rng.choice(list(VIEWS))) if rng.random() < 0.5 else None
    contexts = GROUNDED if view in ("top", "bottom") else tuple(CONTEXT_PHRASES)
    while True:
        who = random_subject(rng, str(rng.choice(CLASSES)))
        scene = Scene((Entity(who),), str(rng.choice(contexts)), view or "side", style)
        if held_out(scene):
            break
    expected = {"class": who.class_noun, "context": scene.context, "style": style}
    words = who.class_noun
    if style not in COLOURLESS and rng.random() < 0.6:
        expected["colour"] = str(rng.choice(list(COLOURS)))
        words = f"{expected['colour']} {words}"
    phrase = any_of(words)
    if who.class_noun in LIVE and rng.random() < 0.4:
        expected["accessory"] = str(rng.choice(list(ACCESSORY_PHRASES)))
        phrase += f" {ACCESSORY_PHRASES[expected['accessory']][0]}"
    phrase += f" {CONTEXT_PHRASES[scene.context][0]}"
    if view:
        expected["view"] = view
        phrase += f", {VIEW_PHRASES[view][0]}"
    return Request(STYLE_PHRASES[style][0].format(phrase), expected)


def right(judge: Judge, pictures: Sequence[Image.Image], asked: Sequence[Request]) -> dict[str, float]:
    """Return the share of pictures in which the judge reads what was asked for, for every head that was."""
    read, _ = judge.read(pictures)
    shares = {}
    for head in judge.heads:
        hits = [read[head][i] == request.expected[head] for i, request in enumerate(asked) if head in request.expected]
        if hits:
            shares[head] = sum(hits) / len(hits)
    return shares


def held_out_scenes(n: int) -> Iterator[Scene]:
    """Yield single-subject scenes of held-out identities, of any composition."""
    rng = default_rng((HELD_OUT_SEED, 1))
    for _ in range(n):
        yield random_scene(rng, (random_subject(rng),))


@torch.no_grad()
def judge_figures(judge: Judge) -> dict[str, float]:
    """Return how often each head is right on held-out renders, and a subject is found among a hundred of its class."""
    scenes = list(held_out_scenes(RENDERS))
    pictures = as_tensor([render(scene).image for scene in scenes])
    return accuracy(judge, scenes, pictures) | {"identity": _found(judge)}


def _found(judge: Judge, classes: int = 4) -> float:
    """Return top-1 retrieval: photos of RIVALS subjects of a class, asked with another scene of each."""
    hits, asked = 0, 0
    rng = default_rng((HELD_OUT_SEED, 2))
    for noun in list(rng.permutation(CLASSES))[:classes]:
        people = [random_subject(rng, str(noun)) for _ in range(RIVALS)]
        gallery, query = (
            _embeddings(judge, [random_scene(rng, (who,), style="photo", property=None) for who in people])
            for _ in range(2)
        )
        hits += int(((query @ gallery.T).argmax(1) == torch.arange(RIVALS)).sum())
        asked += RIVALS
    return hits / asked


def _embeddings(judge: Judge, scenes: list[Scene]) -> Tensor:
    return judge.read([render(scene).image for scene in scenes])[1]


def psnr(vae: AutoencoderKL, pictures: Sequence[Image.Image]) -> float:
    """Return the mean PSNR in dB between pictures and what the autoencoder makes of them, from its mean latents."""
    values = []
    with torch.no_grad():
        for picture in pictures:
            pixels = as_tensor([picture])
            latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mean
            back = vae.decode(latents).sample.float().cpu().clamp(-1, 1)
            values.append(-10 * np.log10(float(((back - pixels) / 2).square().mean()) + 1e-12))
    return float(np.mean(values))


def photographs(folder: Path) -> list[Image.Image]:
    """Return every JPEG below a folder as a 128x128 picture, cut square around its middle.

    Raises:
        BadPhotos: there are none, or one cannot be read.
    """
    paths = [path for path in sorted(folder.rglob("[!.]*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    if not paths:
        raise BadPhotos(f"There is no JPEG (*.jpg) in {folder}. Name a folder with some, or leave --photos out.")
    return [_photograph(path) for path in paths]


def _photograph(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise BadPhotos(f"{path} cannot be read as an image. Save it again as JPEG, or take it out.") from error


def seconds_a_picture(draw: Callable[[], object], times: int = 3) -> float:
    """Return the median seconds of drawing one picture."""
    draw()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        draw()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))
