"""Pretraining clay, with networks small enough to train in a moment."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import processes
import pytest
import tiny_clay
import torch
from numpy.random import default_rng
from PIL import Image
from results import opened_in
from torch import nn
from transformers import CLIPTokenizer
from typer.testing import CliRunner

from persona import clay, encoder, families
from persona.clay import encoder as clay_encoder
from persona.clay import segmenter
from persona.clay.encoder import Encoder
from persona.clay.judge import Judge
from persona.clay.segmenter import Segmenter
from persona.clay.world import Entity, Scene, faces_left, held_out, random_subject
from persona.cli import app
from persona.config import PretrainConfig
from persona.errors import BadBase, BadOption, BadPhotos, Diverged, NoMemory
from persona.events import silent
from persona.families.recipe import Recipe
from persona.methods import jedi, telling
from persona.pretrain.clay import card, encoding, evaluation
from persona.pretrain.clay.alignment import Alignment, sight_shards
from persona.pretrain.clay.data import (
    _spread,
    mask_shards,
    pixels_of,
    render_shards,
    scenes_of,
    set_shards,
    shards_of,
    texture_shards,
)
from persona.pretrain.clay.denoiser import RECIPE, Examples
from persona.pretrain.clay.run import Made, _Pretraining, pretrain_clay
from persona.pretrain.state import Run, position_of
from persona.prompts import tell_unknown


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        tiny_clay.shrink(patch.setattr)
        yield


@pytest.fixture(scope="module")
def made(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return what an uninterrupted run made."""
    return tiny_clay.pretrain(tmp_path_factory.mktemp("clay") / "whole")


def test_a_run_leaves_what_is_shipped(made: Made) -> None:
    base = families.load(str(made.weights))
    assert base.recipe.guidance == RECIPE["guidance"]
    assert base.recipe.max_aspect_ratio == 1
    (picture,) = base.draw(["a photo of a dog"], [0])
    assert picture.size == (128, 128)
    judge = Judge.load(made.weights / "judge")
    assert all(embeddings.shape[1] == 128 for embeddings in judge.others.values())
    assert encoder.load(str(made.weights)).encode([picture.convert("RGBA")]).shape == (1, 65, 8)
    assert Segmenter.load(made.weights / "segmenter").masks([picture])[0].shape == (128, 128)
    assert {"prompts: class", "judge: identity", "autoencoder: renders, dB"} <= set(made.figures)
    assert {"segmenter: overlap", "encoder: identity"} <= set(made.figures)
    assert "| judge: identity |" in made.card.read_text()
    assert "step-000006" in made.report.read_text()
    assert list((made.weights.parent / "samples").glob("step-*.png"))


def test_the_middle_of_the_network_learns_what_the_judge_sees(made: Made, tmp_path: Path) -> None:
    data = made.weights.parent / "data"
    list(sight_shards(data, tmp_path, Judge.load(made.weights / "judge")))
    seen = np.load(tmp_path / "00000.npy")
    assert seen.shape == (24, 8, 8, 8)
    assert abs(seen.mean()) < 0.05
    assert abs(seen.std() - 1) < 0.05
    torch.manual_seed(0)
    unet = tiny_clay.new_unet()
    alignment = Alignment(unet, 8)
    latents, states, sights = torch.randn(8, 8, 16, 16), torch.randn(8, 3, 192), torch.from_numpy(seen[:8]).float()
    optimizer = torch.optim.Adam([*unet.parameters(), *alignment.parameters()], lr=1e-2)
    apart = []
    for _ in range(30):
        unet(latents, 500, states)
        loss = alignment(sights)
        apart.append(loss.item())
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    assert apart[0] > 0.9  # knows nothing
    assert apart[-1] < 0.6


def test_nothing_in_the_weights_says_where_they_were_made(made: Made) -> None:
    files = contents(made.weights)
    assert len(files) > 10
    for name, data in files.items():
        assert str(made.weights.parent).encode() not in data, name


@processes.needs_fork
@pytest.mark.parametrize(
    "folder", ["judge", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sets", "vae", "unet"))]
)
def test_a_killed_run_ends_with_the_same_bytes(made: Made, tmp_path: Path, folder: str) -> None:
    out = tmp_path / "killed"
    child = multiprocessing.get_context("fork").Process(target=tiny_clay.pretrain_and_die, args=(out, folder))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL
    assert list(out.rglob(".*"))
    again = tiny_clay.pretrain(out)
    assert contents(again.weights) == contents(made.weights)
    assert not list(out.rglob(".*"))


def test_weights_of_fewer_steps_do_not_outlive_a_kill(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(name: str) -> dict[str, bytes]:
        networks = {"segmenter": segmenter.WEIGHTS, "encoder": clay_encoder.WEIGHTS}
        longer = tiny_clay.CONFIG | {"segmenter_steps": 8, "encoder_steps": 8}
        _Pretraining(PretrainConfig(out=tmp_path / name, **longer), silent).learn_to_see()
        return {network: (tmp_path / name / network / file).read_bytes() for network, file in networks.items()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name, folder in product(("whole", "killed"), ("data", "masks", "sets", "set-masks", "segmenter", "encoder")):
        shutil.copytree(made.weights.parent / folder, tmp_path / name / folder)
    for network in (Segmenter, Encoder):
        with monkeypatch.context() as patch:
            patch.setattr(network, "save", stop)
            with pytest.raises(KeyboardInterrupt):
                learn("killed")
    assert learn("killed") == learn("whole")


def test_a_finished_run_stays_as_it_is_and_says_what_was_made(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = shutil.copytree(made.weights.parent, tmp_path / "run") / "weights"
    for store in (jedi.STORE, telling.STORE):  # as a method learnt since
        (weights / store.name).mkdir()
        (weights / store.name / store.file).write_bytes(b"learnt")
    clay.write_manifest(weights)
    before = contents(weights)
    for stage in ("autoencoder", "judge", "segmenter", "encoder", "text_encoder", "denoiser"):
        monkeypatch.setattr(f"persona.pretrain.clay.run.train_{stage}", lambda *_: pytest.fail("learns anew"))
    told = [f"--{name.replace('_', '-')}={value}" for name, value in tiny_clay.CONFIG.items()]
    for _ in range(2):
        result = CliRunner().invoke(app, ["pretrain", "clay", "--out", str(weights.parent), *told, "--json"])
        assert result.exit_code == 0, result.output
        assert contents(weights) == before
        shutil.rmtree(weights)  # as who is killed while the folder is replaced leaves it
    assert json.loads(result.stdout)["figures"].keys() == made.figures.keys()
    assert json.loads(result.stdout)["weights"] == str(weights)
    assert "persona sample 'a dog on the beach'" in result.stderr


def test_subject_diffusion_does_not_outlive_the_encoder_that_it_learnt_with(made: Made, tmp_path: Path) -> None:
    out = shutil.copytree(made.weights.parent, tmp_path / "run")
    for store in (jedi.STORE, telling.STORE):
        (out / "weights" / store.name).mkdir()
        (out / "weights" / store.name / store.file).write_bytes(b"learnt")
    longer = Encoder.load(out / "encoder")
    next(longer.parameters()).data.add_(1)
    longer.save(out / "encoder")
    weights = tiny_clay.pretrain(out).weights
    assert (weights / jedi.STORE.name).is_dir()
    assert not (weights / telling.STORE.name).exists()


def test_other_settings_need_another_folder(made: Made) -> None:
    with pytest.raises(BadOption, match="holds a run with --pictures 24"):
        pretrain_clay(PretrainConfig(out=made.weights.parent, **tiny_clay.CONFIG | {"pictures": 48}))


@pytest.mark.parametrize("option", ["segmenter_steps", "encoder_steps", "denoiser_steps"])
def test_a_run_is_not_passed_off_as_a_shorter_one(made: Made, option: str) -> None:
    shorter = PretrainConfig(out=made.weights.parent, **tiny_clay.CONFIG | {option: 4})
    with pytest.raises(BadOption, match=f"--{option.replace('_', '-')} 4: .* holds a training of 6 steps"):
        pretrain_clay(shorter)


def test_the_card_of_a_run_that_was_made_longer_says_so(made: Made, tmp_path: Path) -> None:
    for name in ("unet", "encoder"):
        shutil.copytree(made.weights.parent / name, tmp_path / name)
    shutil.copy(made.weights.parent / "lengths.json", tmp_path)
    longer = PretrainConfig(out=tmp_path, **tiny_clay.CONFIG | {"denoiser_steps": 8, "segmenter_steps": 8})
    for _ in range(2):
        (run := _Pretraining(longer, silent)).begin()
    lengths = run._lengths()
    assert lengths == {
        "segmenter_steps": [8],
        "encoder_steps": [6],
        "denoiser_steps": [6, 8],
    }  # one had not begun
    assert "these very weights: `--denoiser-steps` was 6, then 8," in card.text({}, {}, longer, lengths)
    assert "these very weights" not in made.card.read_text()
    (tmp_path / "lengths.json").write_text(json.dumps({"denoiser_steps": [12]}))  # of which a half is done
    assert run._lengths()["denoiser_steps"] == [8]  # as it would have been from the start


def test_the_card_names_what_differs_from_the_defaults() -> None:
    assert "```sh\npersona pretrain clay\n```" in card.text({}, {}, PretrainConfig(photos=Path("photos")), {})
    assert "\npersona pretrain clay --sets 16 --seed 3\n" in card.text({}, {}, PretrainConfig(sets=16, seed=3), {})


def test_the_card_that_ships_says_what_the_code_writes() -> None:
    """What was added to it by hand is not asked for, nor are the sentences that lead to it."""
    shipped = " ".join((Path(clay.__file__).parent / "CARD.md").read_text(encoding="utf-8").split())
    written = card.text({}, {}, PretrainConfig(), {}).replace("again by", "again, but for what is said below, by")
    said = re.split(r"(?<=[.:])\s+|\n\n", written)
    said = [" ".join(one.split()) for one in said if "samples/" not in one and "measured | target" not in one]
    assert len(said) > 20
    assert [one for one in said if one not in shipped] == []


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persona.pretrain.clay.run.processes", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(BadOption, match="without accelerate launch"):
        pretrain_clay(PretrainConfig(out=tmp_path / "out", **tiny_clay.CONFIG))
    assert not (tmp_path / "out").exists()


def test_photographs_are_looked_at_before_anything_is_made(tmp_path: Path) -> None:
    config = PretrainConfig(out=tmp_path / "out", photos=tmp_path, **tiny_clay.CONFIG)
    (tmp_path / "._IMG_1.JPG").write_bytes(b"what a Mac hides")
    with pytest.raises(BadPhotos, match="no JPEG"):
        pretrain_clay(config)
    Image.new("RGB", (20, 10)).save(tmp_path / "IMG_1.JPG", "JPEG")
    assert [picture.size for picture in evaluation.photographs(tmp_path)] == [(128, 128)]
    (tmp_path / "IMG_2.jpeg").write_bytes((tmp_path / "IMG_1.JPG").read_bytes()[:-100])
    with pytest.raises(BadPhotos, match=r"IMG_2\.jpeg cannot be read"):
        pretrain_clay(config)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong(made: Made) -> None:
    result = CliRunner().invoke(app, ["pretrain", "clay", "--out", str(made.weights.parent), "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["kind"] == "BadOption"
    assert "Traceback" not in result.stderr


def test_words_that_the_base_never_saw_are_named(made: Made) -> None:
    base = families.load(str(made.weights))
    assert base.unknown_words("A Ukiyo-e print of a two-tone dog, three-quarter view; a dog") == []
    assert base.unknown_words("a giraffe flying a kite, a kite in the snow") == ["giraffe", "flying", "kite"]
    notes: list[str] = []
    tell_unknown(base, ["a zwx dog", "a zwx giraffe"], ["zwx"], lambda event: notes.append(str(event)))
    tell_unknown(base, ["a zwx dog"], ["ZWX"], lambda event: notes.append(str(event)))
    assert len(notes) == 1
    assert "giraffe" in notes[0]
    assert "zwx" not in notes[0]


def test_bases_without_a_list_know_every_word(base_folder: object) -> None:
    base = families.load(str(base_folder("sd-eps")))  # type: ignore[operator]
    assert base.unknown_words("a giraffe flying a kite") == []


@pytest.mark.parametrize("spoil", ["missing", "truncated", "changed", "no manifest", "bad manifest"])
def test_damaged_weights_are_one_error(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    for name, data in contents(made.weights).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(clay, "WEIGHTS", tmp_path)
    clay.weights_folder.cache_clear()
    assert clay.weights_folder() == tmp_path
    clay.weights_folder.cache_clear()
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    match spoil:
        case "missing":
            file.unlink()
        case "truncated":
            file.write_bytes(file.read_bytes()[:-1])
        case "changed":
            file.write_bytes(file.read_bytes()[:-1] + b"\x01")
        case "no manifest":
            (tmp_path / "manifest.json").unlink()
        case "bad manifest":
            (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(BadBase) as error:
        families.load("clay")
    assert "\n" not in str(error.value)
    assert "pip install --force-reinstall --no-deps ." in str(error.value)


def test_shards_depend_on_the_numbers_of_their_pictures_alone(tmp_path: Path) -> None:
    assert list(render_shards(tmp_path / "a", 8, seed=3, processes=1, size=4)) == [0, 1]
    assert list(render_shards(tmp_path / "b", 7, seed=3, processes=1, size=3)) == [0, 1]
    assert len(pixels_of(tmp_path / "b", 1)) == 4  # as many as were asked for, and no shard of one
    assert (pixels_of(tmp_path / "a", 1)[:3] == pixels_of(tmp_path / "b", 1)[1:]).all()
    assert scenes_of(tmp_path / "a", 1)[:3] == scenes_of(tmp_path / "b", 1)[1:]
    assert shards_of(tmp_path / "a") == [0, 1]
    assert list(render_shards(tmp_path / "a", 8, seed=3, processes=1, size=4)) == []


def test_a_process_that_is_killed_while_it_renders_is_not_waited_for() -> None:
    with pytest.raises(NoMemory, match="run the same command again"):
        list(_spread(os._exit, [1, 1], processes=2))


def test_no_more_processes_render_than_windows_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(workers: int, *_: object) -> None:
        assert workers == 61
        raise InterruptedError

    monkeypatch.setattr("persona.pretrain.clay.data.ProcessPoolExecutor", pool)
    with pytest.raises(InterruptedError):
        list(_spread(abs, [1] * 99, processes=99))


def test_sets_show_one_subject_in_different_places(tmp_path: Path) -> None:
    list(set_shards(tmp_path, 8, seed=3, processes=1))
    scenes = scenes_of(tmp_path, 0)
    for one in (scenes[:4], scenes[4:]):
        assert len({scene.entities[0].subject for scene in one}) == 1
        assert len({scene.context for scene in one}) == 4


def test_batches_of_the_encoder_hold_nobody_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "SUBJECTS", 32)
    list(set_shards(tmp_path / "sets", 24, seed=3, processes=1))
    list(mask_shards(tmp_path / "sets", tmp_path / "masks", processes=1))
    shown, people = encoding.Subjects(tmp_path / "sets", tmp_path / "masks", 0).batch(0)
    assert len(shown) == len(people)
    assert people[::2] == people[1::2]
    assert 2 < len(set(people)) == len(people) / 2 <= 6


def test_textures_fill_their_range(tmp_path: Path) -> None:
    list(texture_shards(tmp_path, 16, 0, processes=1))
    pixels = pixels_of(tmp_path, 0)
    assert pixels.shape == (16, 128, 128, 3)
    assert pixels.std((1, 2, 3)).min() > 2


def test_a_resumed_run_takes_the_same_steps(tmp_path: Path) -> None:
    def new() -> Run:
        torch.manual_seed(0)
        net = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Run(tmp_path, {"net": net}, torch.optim.AdamW(net.parameters(), lr=1e-2), decay=0.9)

    def go(run: Run, steps: int) -> None:
        while run.step < steps:
            pictures = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(run.step))
            run.advance(run.modules["net"](pictures).square().mean(), 1e-2, started=0.0)

    whole = new()
    go(whole, 12)
    stopped = new()
    go(stopped, 5)
    stopped.save()
    resumed = new()
    assert resumed.resume()
    assert position_of(tmp_path)["step"] == 5
    go(resumed, 12)
    for name, parameter in whole.parameters():
        assert torch.equal(parameter, dict(resumed.parameters())[name])
        assert torch.equal(whole.average[name], resumed.average[name])


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    net = nn.Linear(1, 1)
    run = Run(tmp_path, {"net": net}, torch.optim.AdamW(net.parameters()))
    with pytest.raises(Diverged, match="--seed and --out"):
        run.advance(net(torch.tensor([float("nan")])).sum(), 1e-3, started=0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at open files by /proc")
def test_what_is_seen_keeps_no_files_open(made: Made) -> None:
    run = made.weights.parent.resolve()
    examples = Examples(run, CLIPTokenizer.from_pretrained(run / "tokenizer"), 0)
    assert examples.batch(0)[-1].shape[1] == 8
    assert not opened_in(run / "sights")


def test_the_unet_learns_from_no_scene_that_faces_left(made: Made) -> None:
    run = made.weights.parent
    examples = Examples(run, CLIPTokenizer.from_pretrained(run / "tokenizer"), 0)
    assert set(examples.round) == {n for n, scene in enumerate(examples.scenes) if not faces_left(scene)}
    assert any(faces_left(scene) for scene in examples.scenes)


def test_prompts_of_the_evaluation_are_of_held_out_compositions() -> None:
    asked = evaluation.requests(60)
    assert len({request.prompt for request in asked}) > 50
    for request in asked:
        noun, context, style = (request.expected[head] for head in ("class", "context", "style"))
        assert held_out(Scene((Entity(random_subject(default_rng(0), noun)),), context, style=style))


@pytest.fixture
def painter() -> Any:
    """A base that paints what its prompts name, and counts."""

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        base.drawn += len(prompts)
        return [Image.new("RGB", (8, 8), prompt) for prompt in prompts]

    base = SimpleNamespace(hash="a", recipe=Recipe(), resolution=8, batch_of=lambda size: 2, draw=draw, drawn=0)
    return base


def test_pictures_of_an_evaluation_are_of_its_prompts_and_its_recipe(painter: Any, tmp_path: Path) -> None:
    for _ in range(2):
        evaluation._drawn(painter, ["red", "blue"], tmp_path, silent)
    assert painter.drawn == 2
    (_, lime) = evaluation._drawn(painter, ["red", "lime"], tmp_path, silent)
    assert lime.getpixel((0, 0)) == (0, 255, 0)
    assert painter.drawn == 4
    painter.recipe = replace(painter.recipe, guidance=1.0)
    evaluation._drawn(painter, ["red", "lime"], tmp_path, silent)
    assert painter.drawn == 6


@pytest.mark.skipif(sys.platform != "linux", reason="looks at open files by /proc")
def test_pictures_of_an_evaluation_keep_no_files_open(painter: Any, tmp_path: Path) -> None:
    pictures = evaluation._drawn(painter, ["red", "blue"], tmp_path, silent)
    assert len(pictures) == 2
    assert not opened_in(tmp_path)
