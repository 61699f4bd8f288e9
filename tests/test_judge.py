"""The judge: what it learns from, what it says of likeness, and its file."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from PIL import Image
from results import opened_in
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import avg_pool2d, cross_entropy, normalize

from persona.clay import world
from persona.clay.judge import WEIGHTS, Judge, as_tensor
from persona.clay.world import CLASSES, Entity, Scene
from persona.errors import BadBase
from persona.pretrain.clay import judging
from persona.pretrain.clay.data import mask_shards, masks_of, render_shards, set_shards
from persona.pretrain.clay.judging import HEADS, RIVALRIES, SUBJECTS, Sets, accuracy, labels, truth
from persona.pretrain.clay.looking import contrastive
from persona.score import load_judge

WHO = replace(world.random_subject(default_rng(0), "dog"), pattern="spotted")
SCENE = Scene((Entity(WHO, accessory="red hat"),), "beach", "side")


def small() -> Judge:
    torch.manual_seed(0)
    return Judge(HEADS, widths=(8, 16), depths=(1, 1)).eval()


def noise(n: int, size: tuple[int, int] = (128, 128)) -> list[Image.Image]:
    rng = default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)) for _ in range(n)]


def test_the_truth_is_what_the_scene_says() -> None:
    assert truth(SCENE) == {
        "class": "dog", "colour": WHO.colour_names[0], "pattern": "spotted", "context": "beach", "style": "photo",
        "view": "side", "accessory": "red hat",
    }  # fmt: skip


@pytest.mark.parametrize("change", ["sepia", "golden", "cube shaped", "cross", "pixel art"])
def test_nothing_is_asked_that_a_picture_cannot_tell(change: str) -> None:
    (entity,) = SCENE.entities
    if change in world.PROPERTIES:
        scene = replace(SCENE, entities=(replace(entity, property=change),))
    elif change == "cross":
        scene = replace(SCENE, entities=(replace(entity, subject=replace(WHO, cross="bear")),))
    else:
        scene = replace(SCENE, style=change)
    hidden = {name for name, answer in truth(scene).items() if answer is None}
    expected = {
        "sepia": {"colour", "pattern"}, "golden": {"colour", "pattern"}, "cube shaped": {"class"}, "cross": {"class"},
        "pixel art": {"pattern"},
    }  # fmt: skip
    assert hidden == expected[change]
    assert {name for name, numbers in labels([scene]).items() if numbers.item() == -100} == hidden


def test_the_contrastive_loss_is_the_papers() -> None:
    embeddings = normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    groups = torch.tensor([0, 0, 0, 1, 1])
    likeness = embeddings @ embeddings.T / 0.07
    losses = []
    for i in range(5):  # Khosla et al. 2020, eq. 2, anchor by anchor
        others = [a for a in range(5) if a != i]
        positives = [p for p in others if groups[p] == groups[i]]
        whole = torch.logsumexp(torch.stack([likeness[i, a] for a in others]), 0)
        losses.append(whole - torch.stack([likeness[i, p] for p in positives]).mean())
    assert contrastive(embeddings, groups).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


def test_likeness_is_one_for_photos_and_nothing_for_others() -> None:
    judge = small()
    rng = torch.Generator().manual_seed(0)
    common, own = torch.randn(128, generator=rng), torch.randn(128, generator=rng)
    photos = normalize(common + 2 * own + 0.2 * torch.randn(5, 128, generator=rng), dim=1)
    judge.others = {"dog": normalize(common + 2 * torch.randn(32, 128, generator=rng), dim=1)}
    same = judge.recovered(
        normalize(common + 2 * own + 0.2 * torch.randn(50, 128, generator=rng), dim=1), photos, "dog"
    )
    others = judge.recovered(normalize(common + 2 * torch.randn(50, 128, generator=rng), dim=1), photos, "dog")
    assert same.shape == (50,)
    assert same.mean().item() == pytest.approx(1, abs=0.05)
    assert others.mean().item() == pytest.approx(0, abs=0.1)
    assert judge.recovered(photos, photos, "giraffe").isfinite().all()


def test_one_photo_is_measured_by_the_ceiling() -> None:
    judge = small()
    judge.others, judge.ceiling = {"dog": torch.eye(128)[1:2]}, 0.5
    photo = torch.eye(128)[:1]
    assert judge.recovered(photo, photo, "dog").item() == pytest.approx(2)


def test_it_is_the_same_after_a_trip_to_disk(tmp_path: Path) -> None:
    judge = small()
    judge.others, judge.ceiling = {"dog": torch.eye(128)[:3]}, 0.75
    judge.save(tmp_path)
    again = Judge.load(tmp_path)
    assert (again.heads, again.ceiling) == (judge.heads, 0.75)
    assert torch.equal(again.others["dog"], judge.others["dog"])
    _, embeddings = judge.read(noise(3))
    read_again, embeddings_again = again.read(noise(3))
    assert embeddings_again.shape == (3, 128)
    assert torch.allclose(embeddings, embeddings_again, atol=0.01)  # float16 on disk
    assert {name: len(found) for name, found in read_again.items()} == dict.fromkeys(HEADS, 3)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    judge.save(tmp_path / "again")
    assert (tmp_path / "again" / "judge.safetensors").read_bytes() == (tmp_path / "judge.safetensors").read_bytes()


@pytest.mark.parametrize("wrong", ["cut off", "of another version"])
def test_one_that_cannot_be_read_is_refused_in_a_line(tmp_path: Path, wrong: str) -> None:
    (folder := tmp_path / "judge").mkdir()
    small().save(folder)
    path = folder / WEIGHTS
    if wrong == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        with safe_open(path, "pt") as file:
            kept = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("place.")}  # noqa: SIM118
            made = file.metadata()
        save_file(kept, path, made)
    base: Any = SimpleNamespace(folder=tmp_path)
    with pytest.raises(BadBase, match=r"judge in .* is damaged, or of another version. Fetch or copy"):
        load_judge(base)


def test_pictures_of_all_sizes_and_modes_are_read() -> None:
    pictures = [*noise(1), *noise(1, (300, 200)), noise(1)[0].convert("L"), noise(1)[0].convert("RGBA")]
    tensor = as_tensor(pictures)
    assert tensor.shape == (4, 3, 128, 128)
    assert tensor.min() >= -1
    assert tensor.max() <= 1
    assert tensor[0, :, 5, 7].tolist() == pytest.approx(np.asarray(pictures[0])[5, 7] / 127.5 - 1, abs=1e-6)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 sets and 12 scenes, with their masks."""
    out = tmp_path_factory.mktemp("rendered")
    list(set_shards(out / "sets", 48, 0, processes=1))
    list(render_shards(out / "data", 12, 0, processes=1))
    list(mask_shards(out / "sets", out / "set-masks", processes=1))
    list(mask_shards(out / "data", out / "masks", processes=1))
    return out


def sets_of(folder: Path) -> Sets:
    sets, data, set_masks, masks = (folder / name for name in ("sets", "data", "set-masks", "masks"))
    return Sets(sets, data, set_masks, masks, seed=0)


def test_batches_hold_pairs_of_few_classes(rendered: Path) -> None:
    examples = sets_of(rendered)
    pictures, scenes, groups, places = examples.batch(0)
    pairs = int(groups.max()) + 1
    assert 2 <= pairs <= SUBJECTS
    assert pictures.shape == (2 * pairs + 2 * SUBJECTS, 3, 128, 128)
    assert places.shape == (len(pictures), 8, 8)
    assert len(scenes) == len(groups) == len(pictures)
    assert 2 <= len({scene.entities[0].subject.class_noun for scene in scenes[: 2 * pairs]}) <= RIVALRIES
    shown = set()
    for group in range(pairs):
        pair = [scene for scene, number in zip(scenes, groups.tolist(), strict=True) if number == group]
        (who,) = {scene.entities[0].subject for scene in pair}
        shown.add(who)
        assert len({scene.context for scene in pair}) == 2
    assert len(shown) == pairs  # nobody is their own rival
    assert (groups[2 * pairs :] == -1).all()
    again = examples.batch(0)
    assert torch.equal(pictures, again[0])
    assert torch.equal(places, again[3])
    assert not torch.equal(pictures[:8], examples.batch(1)[0][:8])


@pytest.mark.skipif(sys.platform != "linux", reason="looks at open files by /proc")
def test_what_it_learns_from_keeps_no_files_open(rendered: Path) -> None:
    examples = sets_of(rendered)
    assert len(examples.batch(0)[0])
    assert not opened_in(rendered)


def test_places_are_where_the_moved_pictures_show_the_subject(rendered: Path, tmp_path: Path) -> None:
    shutil.copytree(rendered, out := tmp_path / "silhouettes")
    for pixels, masks in (("sets", "set-masks"), ("data", "masks")):
        shown = masks_of(out / masks, 0)[:, 0]
        np.save(out / pixels / "00000.npy", np.repeat(shown[..., None], 3, -1).astype(np.uint8) * 255)
    pictures, _, _, places = sets_of(out).batch(0)
    seen = avg_pool2d((pictures.mean(1) + 1) / 2, 16)
    assert (seen - places).abs().mean() < 0.05  # but for noise and brightness
    assert places.amax((1, 2)).min() > 0.3


def test_a_pair_is_mirrored_together_and_rare_scenes_come_as_often_as_they_should(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "SUBJECTS", 6)
    monkeypatch.setattr(judging, "RIVALRIES", len(CLASSES))
    shutil.copytree(rendered, out := tmp_path / "ramps")
    ramp = np.broadcast_to(np.linspace(0, 255, 128).astype(np.uint8)[:, None], (48, 128, 128, 3))
    np.save(out / "sets" / "00000.npy", ramp)
    np.save(out / "data" / "00000.npy", ramp[:12])
    examples = sets_of(out)
    rarest = examples.alone[2]
    examples.chances = np.array([0.0, 0.0, *[1.0] * (len(examples.alone) - 2)])
    pictures, scenes, groups, _ = examples.batch(0)
    assert groups.tolist() == [number for number in range(6) for _ in range(2)] + [-1] * 12
    mirrored = pictures[:, 0, :, :64].mean((1, 2)) > pictures[:, 0, :, 64:].mean((1, 2))
    assert torch.equal(mirrored[:12:2], mirrored[1:12:2])
    for some in (mirrored[:12], mirrored[12:]):
        assert 0 < some.float().mean() < 1
    assert {id(scene) for scene in scenes[12:]} == {id(examples.scenes[rarest[0]][rarest[1]])}


def test_what_is_rare_is_drawn_more_often(rendered: Path) -> None:
    examples = sets_of(rendered)
    kinds = [(one.style, one.view) for one in (examples.scenes[s][i] for s, i in examples.alone)]
    worn = [examples.scenes[s][i].entities[0].accessory is not None for s, i in examples.alone]
    chances = np.diff(examples.chances, prepend=0)
    weights = [2.0 if shown else 1.0 for shown in worn] / np.sqrt([kinds.count(kind) for kind in kinds])
    assert chances.tolist() == pytest.approx((weights / weights.sum()).tolist())


def test_a_judge_learns_to_tell_places_apart() -> None:
    scenes = [
        Scene((Entity(world.random_subject(default_rng(seed), "dog")),), context, "side", seed=seed)
        for seed in range(8)
        for context in ("snow", "pink fabric", "city")
    ]
    pictures = as_tensor([world.render(scene).image for scene in scenes])
    judge = small().train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-2)
    for _ in range(25):
        cross_entropy(judge(pictures[:18])[0]["context"], labels(scenes[:18])["context"]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert accuracy(judge.eval(), scenes[18:], pictures[18:])["context"] > 0.8
