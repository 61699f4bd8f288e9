"""Pretraining JeDi on tiny bases: the loop that all methods share, its data, and what it leaves."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from numpy.random import default_rng
from PIL import Image
from results import opened_in
from safetensors.torch import load_file
from typer.testing import CliRunner
from webdata import packed_anew, write_shard

from persona import families
from persona.clay.world import render
from persona.cli import app
from persona.config import JediConfig
from persona.errors import BadBase, BadOption, NoMemory
from persona.events import Event, Note, Progress
from persona.methods.jedi import STORE, JeDi
from persona.noise import Diffusion
from persona.pretrain import learning
from persona.pretrain.clay.data import render_records
from persona.pretrain.clay.sets import ClaySets
from persona.pretrain.jedi import Completion, pretrain_jedi
from persona.pretrain.learning import Learnt, _learnt_from, emphasis, share, times
from persona.pretrain.sets import WebSets


@pytest.fixture(scope="module", autouse=True)
def few_sheets() -> Iterator[None]:
    """Let runs of six steps draw a small sheet of samples at every second one, as states are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "SHEETS", 3)
        patch.setattr("persona.pretrain.jedi.SHOWN", 1)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_shard(folder / "00000.tar", sets=5, pictures=3)
    write_shard(folder / "00001.tar", sets=4, pictures=4, first=5)
    tarfile.open(folder / "00002.tar", "w").close()  # a sharder had none left for it
    (folder / ".1234567890123456789-00003.tar").write_bytes(b"half written")
    return folder


@pytest.fixture
def config(base_folder: Callable[[str], Path], data: Path, tmp_path: Path) -> JediConfig:
    return JediConfig(
        base=str(base_folder("sd-v-zero")), data=data, out=tmp_path / "run", steps=6, batch=2, save_every=2,
        learning_rate=1e-3, precision="fp32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(base_folder: Callable[[str], Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """What an uninterrupted run of the settings above leaves."""
    return pretrain_jedi(
        JediConfig(
            base=str(base_folder("sd-v-zero")), data=data, out=tmp_path_factory.mktemp("whole") / "run", steps=6,
            batch=2, save_every=2, learning_rate=1e-3, precision="fp32",
        )
    )  # fmt: skip


def losses(events: list[Event]) -> list[float | None]:
    return [event.loss for event in events if isinstance(event, Progress) and event.stage == "Learning"]


# What a run leaves


def test_a_run_leaves_weights_that_draw(whole: Learnt, config: JediConfig) -> None:
    base = families.load(config.base, device="cpu")
    jedi = JeDi.load(base, whole.weights.parent)
    assert any(parameter.abs().max() > 0 for parameter in jedi.difference.parameters.values())
    assert jedi.channels.weight.abs().max() > 0
    assert jedi.draw(["a dog"], [0], size=(32, 32))[0].size == (32, 32)
    page = whole.report.read_text()
    assert "step-000006" in page
    assert "loss" in page
    assert list((whole.weights.parent.parent / "samples").glob("step-*.png"))


def test_nothing_in_the_weights_says_where_they_were_made(whole: Learnt) -> None:
    assert str(whole.weights.parent.parent).encode() not in whole.weights.read_bytes()


def test_a_finished_run_stays_as_it_is_and_says_what_was_made(
    whole: Learnt, config: JediConfig, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Completion, "loss", lambda *_: pytest.fail("learns anew"))
    before, out = whole.weights.read_bytes(), whole.weights.parent.parent
    told = ["--steps=6", "--batch=2", "--save-every=2", "--learning-rate=0.001", "--precision=fp32", "--json"]
    result = CliRunner().invoke(
        app, ["pretrain", "jedi", "--base", config.base, "--data", str(data), "--out", str(out), *told]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["weights"] == str(whole.weights)
    assert whole.weights.read_bytes() == before


# Going on


@processes.needs_fork
def test_a_killed_run_ends_with_the_same_bytes(whole: Learnt, config: JediConfig) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "Learning" and event.done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=pretrain_jedi, args=(config, listen))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL
    (config.out / "state" / ".1234567890123456789-state.safetensors").write_bytes(b"half written")
    events: list[Event] = []
    again = pretrain_jedi(config, events.append)
    assert len(losses(events)) == 2  # from the state of step 4
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    assert not list(config.out.rglob(".*-*"))


def test_a_run_that_is_stopped_while_it_draws_draws_the_same_anew(
    whole: Learnt, config: JediConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(completion: Completion) -> Image.Image:
        if len(losses(events)) == 4:  # a state is due too
            raise KeyboardInterrupt
        before = torch.get_rng_state()
        sheet = draw(completion)
        assert torch.equal(torch.get_rng_state(), before)
        return sheet

    draw, events = Completion.show, list[Event]()
    with monkeypatch.context() as patch:
        patch.setattr(Completion, "show", show)
        with pytest.raises(KeyboardInterrupt):
            pretrain_jedi(config, events.append)
    again = pretrain_jedi(config)
    one, other = (made.weights.parent.parent / "samples" for made in (whole, again))
    assert len(list(one.iterdir())) == 3
    for sheet in one.iterdir():
        assert (other / sheet.name).read_bytes() == sheet.read_bytes()
    assert again.weights.read_bytes() == whole.weights.read_bytes()


def test_a_run_may_lie_in_the_folder_of_its_data(tmp_path: Path) -> None:
    for name in ("sets/00000.npy", "sets/00000.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"of clay")
    before = _learnt_from(tmp_path, tmp_path / "run")
    assert len(before) == 2
    (tmp_path / "run" / "latents").mkdir(parents=True)
    (tmp_path / "run" / "latents" / "00000.npy").write_bytes(b"of the run")
    assert _learnt_from(tmp_path, tmp_path / "run") == before


def test_a_run_starts_from_weights_of_another_base(
    whole: Learnt, config: JediConfig, base_folder: Callable[[str], Path]
) -> None:
    config = replace(config, steps=1, learning_rate=0.0, start_from=whole.weights.parent)
    for base in ("sd-v-zero", "sd-v"):
        made = pretrain_jedi(replace(config, base=str(base_folder(base)), out=config.out / base))
        start, end = load_file(whole.weights), load_file(made.weights)
        assert all(torch.equal(end[name], value) for name, value in start.items())
    with pytest.raises(BadOption, match="holds a run of another --start-from"):
        pretrain_jedi(replace(config, out=config.out / "sd-v-zero", start_from=None))
    with pytest.raises(BadOption, match="to start from"):
        pretrain_jedi(replace(config, start_from=config.out))


def test_accumulated_batches_are_one_large_one(whole: Learnt, config: JediConfig) -> None:
    made = pretrain_jedi(replace(config, batch=1, accumulate=2))
    one, other = load_file(whole.weights), load_file(made.weights)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-2, atol=2e-4)


def test_where_memory_is_too_small_it_says_how_to_go_on(config: JediConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(completion: Completion, slots: Any, total: int) -> torch.Tensor:
        if len(slots) > 1:
            raise RuntimeError("CUDA out of memory")
        return learn(completion, slots, total)

    learn = Completion.loss
    monkeypatch.setattr(Completion, "loss", loss)
    config = replace(config, steps=1)
    with pytest.raises(NoMemory, match="with --batch 1 --accumulate 2: it takes the same steps"):
        pretrain_jedi(config)
    assert pretrain_jedi(replace(config, batch=1, accumulate=2)).weights.exists()


@processes.needs_fork
def test_two_processes_are_one_with_the_doubled_batch(whole: Learnt, config: JediConfig) -> None:
    processes.forked(partial(pretrain_jedi, replace(config, batch=1)))
    made = load_file(config.out / "weights" / whole.weights.name)
    for name, value in load_file(whole.weights).items():
        torch.testing.assert_close(made[name], value, rtol=1e-2, atol=2e-4)


def test_the_rate_warms_up_stays_and_falls() -> None:
    rates = [share(step, 1000) for step in range(1000)]
    assert rates[0] < 0.02
    assert rates[200] == rates[600] == max(rates) == 1
    assert sorted(rates[670:], reverse=True) == rates[670:]
    assert 0 < rates[-1] < 0.03
    assert share(0, 1) > 0


@pytest.fixture
def completion(whole: Learnt, config: JediConfig, data: Path, monkeypatch: pytest.MonkeyPatch) -> Completion:
    monkeypatch.setattr("persona.pretrain.jedi.SHOWN", 4)  # what is left to learn from are sets of three
    base = families.load(config.base, device="cpu")
    sets = WebSets(data, whole.weights.parent.parent / "latents")
    return Completion(JeDi(base), sets, seed=0)


def test_it_learns(whole: Learnt, completion: Completion) -> None:
    def losses() -> list[float]:
        return [completion.loss(range(2 * step, 2 * step + 2), 2).item() for step in range(6)]

    before = losses()
    STORE.start(completion.jedi.base, whole.weights.parent, completion.jedi)
    assert all(one < other for one, other in zip(losses(), before, strict=True))


# What is drawn for a step


def test_what_a_set_draws_depends_on_its_slot_alone(completion: Completion) -> None:
    for known in range(3):
        one, other = (completion._draw(7, 3, known, together=False) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
        assert one[3] == other[3]
        assert torch.equal(one[4], torch.ones_like(one[0][:, 0]))  # nobody knows where the subject is
        assert not torch.equal(one[1], completion._draw(8, 3, known, together=False)[1])


def test_references_are_told_what_they_show_and_the_others_what_to_draw(completion: Completion) -> None:
    prompts = [completion._draw(slot, 3, 2, together=False)[3] for slot in range(60)]
    assert all(len(one) == 3 for one in prompts)
    assert {one[0].startswith("a photo of a ") for one in prompts} == {True, False}
    assert all(one[0] and one[1] for one in prompts)
    dropped = [one[2] for one in prompts if not one[2]]
    assert 1 <= len(dropped) <= 20
    together = [completion._draw(slot, 3, 0, together=True) for slot in range(60)]
    assert all(len(set(times.tolist())) == 1 for _, _, times, *_ in together)
    assert {sum(map(bool, one[3])) for one in together} == {0, 3}  # dropped for all of a set


def test_all_numbers_of_references_are_practised(completion: Completion, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def loss(sets: Any) -> torch.Tensor:
        seen.add((sets.known, sets.together))
        return torch.zeros(len(sets.latents), len(sets.latents[0]) - sets.known)

    monkeypatch.setattr(completion.jedi, "loss", loss)
    for step in range(30):
        completion.loss(range(2 * step, 2 * step + 2), 2)
    assert seen == {(0, False), (0, True), (1, False), (1, True), (2, False)}


def test_a_set_of_two_pictures_leaves_the_others_as_large_as_they_are(
    completion: Completion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "0.tar", sets=1, pictures=2)
    write_shard(tmp_path / "1.tar", sets=5, pictures=4, first=1)
    sets = WebSets(tmp_path, tmp_path / "latents")
    monkeypatch.setattr(sets, "latents", lambda number: 10 * number + torch.randn(sets.sizes[number], 4, 8, 8))
    mixed, seen = Completion(completion.jedi, sets, seed=0), set()

    def loss(drawn: Any) -> torch.Tensor:
        seen.add((drawn.latents.shape[1], drawn.known))
        if drawn.latents.shape[1] == 4:
            assert drawn.latents.mean() > 5  # none is of the small one
        return torch.zeros(len(drawn.latents), drawn.latents.shape[1] - drawn.known)

    monkeypatch.setattr(mixed.jedi, "loss", loss)
    for step in range(40):
        mixed.loss(range(2 * step, 2 * step + 2), 2)
    assert seen == {(2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3)}


def test_a_picture_that_is_there_twice_teaches_no_copying(completion: Completion) -> None:
    sets = completion.sets
    same = torch.stack([sets.latents(number)[0] for number in range(len(sets))])
    rounded = [one + 0.05 * one.std() * torch.randn_like(one) for one in (same, same, same)]  # encoded anew

    def learnt(pictures: list[torch.Tensor]) -> float:
        sets.latents = lambda number: torch.stack([one[number] for one in pictures])  # type: ignore[method-assign]
        return sum(completion.loss(range(2 * step, 2 * step + 2), 2).item() for step in range(6))

    assert learnt(rounded) == 0
    assert learnt([same, same.flip(-1), rounded[0]]) > 0


def test_what_is_shown_was_never_learnt_from(completion: Completion) -> None:
    shown = {tuple(completion.sets.latents(number).flatten()[:4].tolist()) for number in range(5, 9)}
    learnt = set()
    for slot in range(2 * len(completion.sets)):
        latents = completion._draw(slot, 3, 1, together=False)[0]
        learnt |= {tuple(one.flatten()[:4].tolist()) for one in latents}
    assert not shown & learnt


# Data


def test_sets_of_several_shards_keep_their_pictures(whole: Learnt, data: Path) -> None:
    sets = WebSets(data, whole.weights.parent.parent / "latents")
    assert len(sets) == 9
    assert sets.sizes == [3] * 5 + [4] * 4
    assert [len(sets.latents(number)) for number in (0, 4, 5, 8)] == [3, 3, 4, 4]
    assert sets.noun(5) == "beach"
    assert sets.captions(6, default_rng(0))[3] == "a red dog 3"
    spread = torch.stack([sets.latents(number)[:3].std(0).mean() for number in range(9)]).mean()
    across = torch.stack([sets.latents(number)[0] for number in range(9)]).std(0).mean()
    assert spread < across, "pictures of a set are alike"


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files by /proc")
def test_latents_keep_no_files_open(data: Path, tmp_path: Path) -> None:
    coded = np.arange(16 * 4 * 2 * 2, dtype=np.float16).reshape(16, 4, 2, 2)
    np.save(tmp_path / "00001.npy", coded)
    assert torch.equal(WebSets(data, tmp_path).latents(6), torch.from_numpy(coded[4:8]).float())
    assert not opened_in(tmp_path)


def test_pictures_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "whole.tar", sets=2, pictures=12)
    packed_anew(whole, tmp_path / "sorted.tar")  # 10 before 2
    sets = WebSets(tmp_path, tmp_path / "latents")
    one, other = ([picture.tobytes() for picture in sets._read(shard)] for shard in ("whole", "sorted"))
    assert one == other


@pytest.mark.parametrize(
    "spoil", ["empty", "nothing", "cut", "no captions", "no picture", "no number", "single pictures"]
)
def test_data_that_cannot_be_learnt_from_are_refused(config: JediConfig, tmp_path: Path, spoil: str) -> None:
    folder = tmp_path / "data"
    match spoil:
        case "empty":
            folder.mkdir()
        case "cut":
            path = write_shard(folder / "0.tar", sets=2, pictures=2)
            path.write_bytes(path.read_bytes()[:700])
        case "no captions":
            path = write_shard(folder / "0.tar", sets=2, pictures=2)
            path.write_bytes(path.read_bytes().replace(b'"captions"', b'"passages"'))
        case "no picture" | "no number":
            path = write_shard(tmp_path / "whole.tar", sets=2, pictures=3)
            folder.mkdir()
            with tarfile.open(path) as whole, tarfile.open(folder / "0.tar", "w") as tar:
                for member in whole:
                    file = whole.extractfile(member)
                    if member.name == "000000.2.png" and spoil == "no number":
                        member.name = "000000.x.png"
                    if member.name != "000000.2.png":
                        tar.addfile(member, file)
        case "single pictures":
            write_shard(folder / "0.tar", sets=2, pictures=2)
            write_shard(folder / "1.tar", sets=1, pictures=1, first=2)
    with pytest.raises(BadOption) as error:
        pretrain_jedi(replace(config, data=folder))
    assert "\n" not in str(error.value)
    assert spoil != "single pictures" or "a set in shard 1 has fewer than two images" in str(error.value)
    assert not config.out.exists()


def test_a_damaged_picture_is_a_mistake_of_the_data(config: JediConfig, tmp_path: Path) -> None:
    path = write_shard(tmp_path / "data" / "0.tar", sets=2, pictures=2)
    path.write_bytes(path.read_bytes().replace(b"PNG", b"GNP"))
    with pytest.raises(BadOption, match=r"0\.tar is damaged"):
        pretrain_jedi(replace(config, data=path.parent))


def test_other_bases_than_clay_need_data(config: JediConfig) -> None:
    with pytest.raises(BadOption, match="--data SHARDS"):
        pretrain_jedi(replace(config, data=None))


def test_what_is_fetched_is_announced(config: JediConfig) -> None:
    events: list[Event] = []
    with pytest.raises(BadBase, match="cannot be fetched"):
        pretrain_jedi(replace(config, base="sd15"), events.append)
    assert any(isinstance(event, Note) and "Fetching" in event.text for event in events)


def test_what_is_refused_leaves_nothing_behind(
    whole: Learnt, config: JediConfig, base_folder: Callable[[str], Path]
) -> None:
    for mistake, message in (
        (replace(config, base=str(base_folder("sd3"))), "no U-Net"),
        (replace(config, targets=("attn7",)), "attn7"),
        (
            replace(config, targets=("attn2",), start_from=whole.weights.parent),
            "with --target attn1. Give the same",
        ),
    ):
        with pytest.raises((BadBase, BadOption), match=message):
            pretrain_jedi(mistake)
        assert not config.out.exists()


@pytest.mark.parametrize(
    ("how", "before"),
    [
        ({"batch": 3}, "with 2 examples a step (--batch times --accumulate times processes)."),
        ({"seed": 1}, "with --seed 0."),
        ({"renoised": True}, "without --renoised."),
        ({"learning_rate": 0.5}, "with --learning-rate 0.001."),
        ({"targets": ("attn2",)}, "with --target attn1."),
    ],
)
def test_other_settings_need_another_folder(
    whole: Learnt, config: JediConfig, how: dict[str, Any], before: str
) -> None:
    with pytest.raises(BadOption, match=re.escape(f"holds a run {before} Choose another --out.")):
        pretrain_jedi(replace(config, out=whole.weights.parent.parent, **how))


def test_a_run_is_not_passed_off_as_a_shorter_one(whole: Learnt, config: JediConfig) -> None:
    with pytest.raises(BadOption, match=r"--steps 5: .* holds a training of 6 steps"):
        pretrain_jedi(replace(config, out=whole.weights.parent.parent, steps=5))


def test_the_same_base_and_data_may_be_called_otherwise_and_lie_elsewhere(
    whole: Learnt, config: JediConfig, tmp_path: Path
) -> None:
    assert config.data is not None
    base = shutil.copytree(config.base, tmp_path / "base")
    data = shutil.copytree(config.data, tmp_path / "data")
    for stray in (".DS_Store", "sheets/00000.png"):
        (data / stray).parent.mkdir(exist_ok=True)
        (data / stray).write_bytes(b"no data")
    out = shutil.copytree(whole.weights.parent.parent, tmp_path / "run")
    again = pretrain_jedi(replace(config, base=str(base), data=data, out=out))
    assert again.weights.read_bytes() == whole.weights.read_bytes()


def test_other_data_need_another_folder(whole: Learnt, config: JediConfig, tmp_path: Path) -> None:
    assert config.data is not None
    grown = shutil.copytree(config.data, tmp_path / "grown")
    shutil.copyfile(grown / "00000.tar", grown / "99999.tar")
    with pytest.raises(BadOption, match="holds a run of another --data: 3 files"):
        pretrain_jedi(replace(config, data=grown, out=whole.weights.parent.parent))


def test_clays_scenes_are_sets(tmp_path: Path) -> None:
    render_records(tmp_path, 2, 0, seed=3)
    sets = ClaySets(tmp_path, tmp_path / "latents")
    assert len(sets) == 2
    assert sets.sizes == [4, 4]
    random = default_rng(0)
    said = [" ".join(sets.captions(0, random)) for _ in range(40)]
    assert all(sets.noun(0) in one for one in said)
    assert len(set(said)) > 30
    pictures = list(sets._read("00000"))
    assert len(pictures) == 8
    assert np.asarray(pictures[0]).shape == (128, 128, 3)
    masks = sets.masks(1, (16, 16))
    assert masks.shape == (4, 16, 16)
    for mask, scene in zip(masks, sets._scenes[4:], strict=True):
        shown = render(scene).masks[0].reshape(16, 8, 16, 8).mean((1, 3))
        assert np.abs(mask.numpy() - shown).max() < 1e-6


def test_a_subject_counts_more_than_the_rest_and_a_picture_as_much_as_another() -> None:
    masks = torch.zeros(2, 8, 8)
    masks[0, 2:5, 2:5] = 1
    weights = emphasis(masks)
    assert weights.mean((1, 2)).tolist() == pytest.approx([1, 1])
    assert (weights[0, 3, 3] / weights[0, 0, 0]).item() == pytest.approx(4)


@pytest.mark.parametrize("velocity", [False, True])
def test_times_are_drawn_as_often_as_they_count(velocity: bool) -> None:
    noise = Diffusion(torch.linspace(0.999, 0.001, 1000), velocity=velocity)
    drawn = times(noise, 20_000, torch.Generator().manual_seed(0))
    weights = noise.weights(torch.arange(1000), 5).sqrt().clamp(min=0.15).view(10, 100).mean(1)
    shares = torch.histc(drawn.float(), 10, 0, 999) / len(drawn)
    torch.testing.assert_close(shares, weights / weights.sum(), rtol=0.12, atol=0.002)
