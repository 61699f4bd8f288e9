"""What ships with clay: its weights are whole, fit each other, and do what they are for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from persona import families
from persona.clay import weights_folder, world
from persona.clay.encoder import Encoder
from persona.clay.judge import Judge
from persona.clay.segmenter import Segmenter
from persona.families import Family
from persona.methods.jedi import JeDi
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.photos import read
from persona.portraits import Reference, cut_out, paint
from persona.pretrain.clay.encoding import recognised
from persona.pretrain.clay.evaluation import held_out_scenes
from persona.pretrain.clay.segmenting import agreement
from persona.references import prepare

PHOTOS = Path(__file__).parent.parent / "examples/photos/dog"
MEGABYTES = 1e6


@pytest.fixture(scope="module")
def clay() -> Family:
    return families.load("clay", device="cpu")


def test_all_of_it_fits_into_a_wheel() -> None:
    sizes = {path.name: path.stat().st_size / MEGABYTES for path in weights_folder().rglob("*.safetensors")}
    assert sum(sizes.values()) < 95  # an index takes files of a hundred
    assert sizes["judge.safetensors"] < 10
    assert sizes["jedi.safetensors"] < 25
    assert sum(sizes[f"{name}.safetensors"] for name in ("subject-diffusion", "encoder", "segmenter")) < 25


def test_the_judge_reads_renders() -> None:
    scenes = list(held_out_scenes(100))
    labels, _ = Judge.load(weights_folder() / "judge").read([world.render(scene).image for scene in scenes])
    right = np.mean([label == scene.context for label, scene in zip(labels["context"], scenes, strict=True)])
    assert right > 0.9


def test_subjects_are_found_and_known_again() -> None:
    assert agreement(Segmenter.load(weights_folder() / "segmenter"), list(held_out_scenes(40))) > 0.7
    assert recognised(Encoder.load(weights_folder() / "encoder"), 20, seed=1) > 0.5


def test_references_change_what_is_drawn(clay: Family) -> None:
    """By both methods that need no training, and to nobody's surprise towards the subject's colours."""
    photos, prompts = read(PHOTOS), ["a photo of a dog"]
    plain = clay.draw(prompts, [0], steps=8)[0]
    jedi = JeDi.load(clay)
    size = (clay.resolution, clay.resolution)
    by_all = jedi.draw(prompts, [0], references=prepare(clay, photos[:2], "dog", size), steps=8)[0]
    jedi.remove()
    known = {"V": Reference(photos[0])}
    method = SubjectDiffusion.load(clay)
    by_one = method.draw(["a photo of a [V] dog"], [0], portraits=paint(method, known, cut_out(known, clay)), steps=8)[
        0
    ]
    method.remove()
    orange = _orange(photos[0].image)
    assert orange > 0.05
    for drawn in (by_all, by_one):
        assert _orange(drawn) > _orange(plain) + 0.2 * orange


def _orange(picture: Image.Image) -> float:
    """Return the share of pixels that are as orange as the dog of the examples."""
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB"), np.int64), -1, 0)
    return float(((red > 170) & (green > 50) & (green < 150) & (blue < 90)).mean())
