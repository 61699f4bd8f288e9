"""What clay and its judge must show, measured on what neither was trained on."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.random import Generator, default_rng
from PIL import Image
from torch import Tensor

from persona.clay.judge import Judge, as_tensor
from persona.clay.world import (
    CLASSES,
    COLOURLESS,
    COLOURS,
    GROUNDED,
    LIVE,
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
from persona.pretrain.clay.judging import accuracy

HELD_OUT_SEED = 1_000_003
"""Seeds of subjects and scenes that no training stage uses."""


@dataclass(frozen=True)
class Request:
    """A prompt, and what a judge should read in its picture: head -> label."""

    prompt: str
    expected: dict[str, str]


def requests(n: int, seed: int = HELD_OUT_SEED) -> list[Request]:
    """Prompts of compositions (class, context, style) that no training scene shows."""
    rng = default_rng(seed)
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
    phrase = f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
    if who.class_noun in LIVE and rng.random() < 0.4:
        expected["accessory"] = str(rng.choice(list(ACCESSORY_PHRASES)))
        phrase += f" {ACCESSORY_PHRASES[expected['accessory']][0]}"
    phrase += f" {CONTEXT_PHRASES[scene.context][0]}"
    if view:
        expected["view"] = view
        phrase += f", {VIEW_PHRASES[view][0]}"
    return Request(STYLE_PHRASES[style][0].format(phrase), expected)


def right(judge: Judge, pictures: Sequence[Image.Image], asked: Sequence[Request]) -> dict[str, float]:
    """Share of pictures in which the judge reads what was asked for, for every head that was."""
    read, _ = judge.read(pictures)
    shares = {}
    for head in judge.heads:
        hits = [read[head][i] == request.expected[head] for i, request in enumerate(asked) if head in request.expected]
        if hits:
            shares[head] = sum(hits) / len(hits)
    return shares


def held_out_scenes(n: int, seed: int = HELD_OUT_SEED) -> Iterator[Scene]:
    """Single-subject scenes of held-out identities, any composition."""
    rng = default_rng((seed, 1))
    for _ in range(n):
        yield random_scene(rng, (random_subject(rng),))


@torch.no_grad()
def judge_figures(judge: Judge, n: int = 1500) -> dict[str, float]:
    """Accuracy of every head on held-out renders, and of finding a subject's other picture among 100 of its class."""
    scenes = list(held_out_scenes(n))
    pictures = as_tensor([render(scene).image for scene in scenes])
    return accuracy(judge, scenes, pictures) | {"identity": _found(judge)}


def _found(judge: Judge, subjects: int = 100, queries: int = 4) -> float:
    """Top-1 retrieval: photos of 100 subjects of a class in one scene each, asked with another scene of each."""
    hits, asked = 0, 0
    rng = default_rng((HELD_OUT_SEED, 2))
    for noun in list(rng.permutation(CLASSES))[:queries]:
        people = [random_subject(rng, str(noun)) for _ in range(subjects)]
        gallery, query = (
            _embeddings(judge, [random_scene(rng, (who,), style="photo", property=None) for who in people])
            for _ in range(2)
        )
        hits += int(((query @ gallery.T).argmax(1) == torch.arange(subjects)).sum())
        asked += subjects
    return hits / asked


def _embeddings(judge: Judge, scenes: list[Scene]) -> Tensor:
    return judge.read([render(scene).image for scene in scenes])[1]


def psnr(vae: AutoencoderKL, pictures: Sequence[Image.Image]) -> float:
    """Mean over pictures of the PSNR in dB between each and what the autoencoder makes of it, deterministic latents."""
    values = []
    with torch.no_grad():
        for picture in pictures:
            pixels = as_tensor([picture])
            back = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
            values.append(-10 * np.log10(float(((back - pixels) / 2).square().mean()) + 1e-12))
    return float(np.mean(values))


def photographs(folder: Path) -> list[Image.Image]:
    """Every JPEG below a folder as a 128x128 picture, cut square around its middle."""
    pictures = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            pictures.append(
                image.convert("RGB")
                .crop((left, top, left + side, top + side))
                .resize((128, 128), Image.Resampling.LANCZOS)
            )
    return pictures


def seconds_a_picture(draw: Callable[[], object], times: int = 3) -> float:
    """Median seconds of drawing one picture."""
    draw()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        draw()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))
