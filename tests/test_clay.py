"""What ships with clay: its weights are whole, fit each other, and do what they are for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.random import default_rng
from pictures import DREAMBENCH
from PIL import Image
from safetensors import safe_open

from persona import families
from persona.clay import weights_folder, world
from persona.clay.encoder import Encoder
from persona.clay.judge import Judge
from persona.clay.segmenter import Segmenter
from persona.config import TrainConfig
from persona.events import Event, Note
from persona.families import Family
from persona.folder import ADAPTER
from persona.identity import bare
from persona.methods.jedi import JeDi
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.photos import read
from persona.portraits import Reference, cut_out, paint
from persona.pretrain.clay.denoiser import RECIPE
from persona.pretrain.clay.encoding import recognised
from persona.pretrain.clay.evaluation import held_out_scenes
from persona.pretrain.clay.judging import truth
from persona.pretrain.clay.segmenting import agreement
from persona.pretrain.clay.textures import texture
from persona.references import prepare
from persona.score import JudgeScorer, scorer_for, strange
from persona.train import train

PHOTOS = Path(__file__).parent.parent / "examples/photos/dog"
MEGABYTES = 2**20
LEAST_READ = {
    "class": 0.8, "colour": 0.45, "pattern": 0.25, "context": 0.9, "style": 0.85, "view": 0.75, "accessory": 0.75,
}  # fmt: skip
"""How often the judge has to read each of them right on a render: rarely less than it does, and far above chance."""


@pytest.fixture(scope="module")
def clay() -> Family:
    return families.load("clay", device="cpu")


def test_all_of_it_fits_into_a_wheel() -> None:
    sizes = {path.name: path.stat().st_size / MEGABYTES for path in weights_folder().rglob("*.safetensors")}
    assert sum(sizes.values()) < 95  # an index takes files of a hundred
    pipeline = sum(
        path.stat().st_size / MEGABYTES
        for part in ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
        for path in (weights_folder() / part).iterdir()
    )
    assert pipeline < 50
    assert pipeline + sizes["judge.safetensors"] < 60
    assert sizes["judge.safetensors"] < 10
    assert sizes["jedi.safetensors"] < 25
    assert sum(sizes[f"{name}.safetensors"] for name in ("subject-diffusion", "encoder", "segmenter")) < 25


def test_diffusers_loads_it_without_us_and_draws_the_same(clay: Family) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(weights_folder(), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    (theirs,) = pipeline(
        "a red dog on the beach",
        num_inference_steps=4,
        guidance_scale=clay.recipe.guidance,
        generator=torch.Generator().manual_seed(3),
    ).images
    (ours,) = clay.draw(["a red dog on the beach"], [3], steps=4)
    assert np.abs(np.asarray(theirs, float) - np.asarray(ours, float)).mean() < 1


def test_what_is_recommended_is_what_a_new_clay_would_recommend() -> None:
    assert json.loads((weights_folder() / "recipe.json").read_text()) == RECIPE


def test_the_judge_reads_renders() -> None:
    scenes = list(held_out_scenes(100))
    labels, _ = Judge.load(weights_folder() / "judge").read([world.render(scene).image for scene in scenes])
    for head, least in LEAST_READ.items():
        known = [(truth(scene)[head], label) for scene, label in zip(scenes, labels[head], strict=True)]
        told = [answer == label for answer, label in known if answer is not None]
        assert len(told) > 40, head
        assert np.mean(told) > least, head


@pytest.mark.parametrize("photos", sorted(PHOTOS.parent.glob("*/")), ids=lambda photos: photos.name)
def test_renders_are_known_to_be_of_its_world(clay: Family, photos: Path) -> None:
    assert not strange(clay, [photo.image for photo in read(photos)])


@pytest.mark.skipif(not DREAMBENCH.exists(), reason="needs the public data set")
@pytest.mark.parametrize("photos", sorted(DREAMBENCH.glob("*/")), ids=lambda photos: photos.name)
def test_photographs_are_strange_to_it(clay: Family, photos: Path) -> None:
    assert strange(clay, [photo.image for photo in read(photos)])


def test_what_is_strange_to_it_is_taught_at_length(clay: Family, tmp_path: Path) -> None:
    for number in range(5):
        Image.fromarray(texture(default_rng(number))).save(tmp_path / f"{number}.png")
    assert not isinstance(scorer_for(clay, [photo.image for photo in read(tmp_path)], "dog", (128, 128)), JudgeScorer)
    config = TrainConfig(
        photos=tmp_path, class_noun="dog", token="znt", out=tmp_path / "made", prior="none", steps=2, score_every=0
    )
    events: list[Event] = []
    made = train(config, events.append)
    (told,) = (event.text for event in events if isinstance(event, Note) and "never shown" in event.text)
    assert "for 2 steps" in told
    assert made.settings["targets"] == RECIPE["ood_targets"]
    with safe_open(made.path / ADAPTER, "pt") as adapter:
        assert any(".resnets.0.conv1." in name for name in adapter.keys())  # noqa: SIM118 (no mapping)


def test_subjects_are_found_and_known_again() -> None:
    assert agreement(Segmenter.load(weights_folder() / "segmenter"), list(held_out_scenes(40))) > 0.7
    assert recognised(Encoder.load(weights_folder() / "encoder"), 20, seed=1) > 0.5


def test_references_make_the_subject_known_again(clay: Family) -> None:
    """By both methods that need no training."""
    photos, size = read(PHOTOS), (clay.resolution, clay.resolution)
    prompts, seeds = ["a photo of a [V] dog on the beach"] * 2, range(2)
    plain = clay.draw([bare(prompt, "dog") for prompt in prompts], seeds, steps=15)
    jedi = JeDi.load(clay)
    by_two = jedi.draw(
        [bare(prompt, "dog") for prompt in prompts], seeds, references=prepare(clay, photos[:2], "dog", size), steps=15
    )
    jedi.remove()
    known = {"V": Reference(photos[0])}
    method = SubjectDiffusion.load(clay)
    by_one = method.draw(prompts, seeds, portraits=paint(method, known, cut_out(known, clay)), steps=15)
    method.remove()
    judge = Judge.load(weights_folder() / "judge")
    truth = judge.read([photo.image for photo in photos])[1]
    seen = [judge.recovered(judge.read(drawn)[1], truth, "dog").mean() for drawn in (plain, by_one, by_two)]
    assert seen[0] + 0.1 < seen[1]
    assert seen[0] + 0.1 < seen[2]


def test_what_the_base_draws_anyway_is_no_leak(clay: Family) -> None:
    """Its bare class may look like the subject by chance; that is not what the adapter has spoilt."""
    photos = [photo.image for photo in read(PHOTOS)]
    scorer = scorer_for(clay, photos, "dog", (128, 128))
    assert isinstance(scorer, JudgeScorer)
    drawn = {template: [photos[seed % 2] for seed in seeds] for template, seeds in scorer.wanted.items()}
    spoilt = scorer.score(drawn, photos).total
    scorer.before = scorer.judge.read(drawn["a photo of a {class}"])[1]
    assert scorer.score(drawn, photos).total > spoilt + 0.5
