"""Pretraining Subject-Diffusion on tiny bases: what is drawn for a step, and what a run leaves."""

import json
import multiprocessing
import os
import signal
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
from safetensors.torch import load_file
from tiny_encoder import Eye
from typer.testing import CliRunner

from persona import encoder, families
from persona.cli import app
from persona.config import SubjectDiffusionConfig
from persona.errors import BadBase, BadOption
from persona.events import Event, Progress
from persona.methods.casting import Portrait
from persona.methods.gated import Gate
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.pretrain import learning
from persona.pretrain.clay.data import render_records
from persona.pretrain.clay.records import ClayRecords
from persona.pretrain.learning import Learnt
from persona.pretrain.records import Entity, Record, Records, write
from persona.pretrain.subject_diffusion import Depiction, _aslant, _varied, encoded, pretrain_subject_diffusion

LOAD = encoder.load


@pytest.fixture(scope="module", autouse=True)
def two_sheets() -> Iterator[None]:
    """Let runs draw no more sheets of samples than one on the way and one in the end, and small ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "SHEETS", 2)
        patch.setattr("persona.pretrain.subject_diffusion.SHOWN", 1)
        yield


LEFT, RIGHT = (0.0, 0.25, 0.5, 1.0), (0.5, 0.25, 1.0, 1.0)


def record(number: int) -> Record:
    """Return a record of one subject or two; its caption names the second one first."""
    random, boxes = default_rng(number), (LEFT, RIGHT)[: 1 + number % 2]
    picture, masks, references = Image.new("RGB", (32, 32)), [], []
    for left, top, right, bottom in boxes:
        colour = tuple(int(one) for one in random.integers(0, 255, 3))
        mask = np.zeros((32, 32), bool)
        mask[int(32 * top) : int(32 * bottom), int(32 * left) : int(32 * right)] = True
        picture.paste(colour, (int(32 * left), int(32 * top), int(32 * right), int(32 * bottom)))
        masks.append(mask)
        references.append(Image.new("RGBA", (16, 24), (*colour, 255)))
    captions = ["a [V] dog", "a red [V] dog"] if len(boxes) == 1 else ["a [W] cat on the [V] dog"]
    entities = [Entity(noun, box) for noun, box in zip(("dog", "cat"), boxes, strict=False)]
    return Record(captions, entities, picture, masks, references)


@pytest.fixture(autouse=True)
def eye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "load", lambda *_: Eye())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for shard in range(2):
        numbers = range(shard * 6, shard * 6 + 6)
        write(folder / f"{shard:05}.tar", ((f"{number:06}", record(number)) for number in numbers))
    return folder


def settings(base_folder: Callable[[str], Path], data: Path, out: Path) -> SubjectDiffusionConfig:
    return SubjectDiffusionConfig(
        base=str(base_folder("sd-v-zero")), data=data, out=out, steps=6, batch=2, save_every=2, learning_rate=1e-3,
        precision="fp32", encoder="eye",
    )  # fmt: skip


@pytest.fixture
def config(base_folder: Callable[[str], Path], data: Path, tmp_path: Path) -> SubjectDiffusionConfig:
    return settings(base_folder, data, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(base_folder: Callable[[str], Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """What an uninterrupted run of the settings above leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "load", lambda *_: Eye())
        return pretrain_subject_diffusion(settings(base_folder, data, tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture
def depiction(whole: Learnt, config: SubjectDiffusionConfig, data: Path) -> Depiction:
    records = Records(data)
    latents = encoded(whole.weights.parent.parent / "encoded", records)
    return Depiction(SubjectDiffusion(families.load(config.base, device="cpu"), "eye"), records, latents, 0, 0.01)


# What a run leaves


def test_a_run_leaves_weights_that_draw(whole: Learnt, config: SubjectDiffusionConfig) -> None:
    method = SubjectDiffusion.load(families.load(config.base, device="cpu"), whole.weights.parent)
    adapters = [adapter for adapter in method.gates.adapters.values() if isinstance(adapter, Gate)]
    gates = [gate for adapter in adapters for gate in adapter.closing]
    assert gates
    assert all(gate.weight.abs().max() > 0 for gate in gates)
    assert method.channels.weight.abs().max() > 0
    portrait = Portrait(Eye().encode([Image.new("RGB", (8, 8), "red")])[0], LEFT)
    assert method.draw(["a [V] dog"], [0], portraits={"V": portrait}, size=(32, 32))[0].size == (32, 32)
    assert "step-000006" in whole.report.read_text()
    assert str(whole.weights.parent.parent).encode() not in whole.weights.read_bytes()


def test_the_command_says_what_was_made(whole: Learnt, config: SubjectDiffusionConfig, data: Path) -> None:
    out = whole.weights.parent.parent
    told = ["--steps=6", "--batch=2", "--save-every=2", "--learning-rate=0.001", "--precision=fp32", "--encoder=eye"]
    result = CliRunner().invoke(
        app,
        [
            "pretrain",
            "subject-diffusion",
            "--base",
            config.base,
            "--data",
            str(data),
            "--out",
            str(out),
            *told,
            "--json",
        ],
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["weights"] == str(whole.weights)


@processes.needs_fork
def test_a_killed_run_ends_with_the_same_bytes(whole: Learnt, config: SubjectDiffusionConfig) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "Learning" and event.done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=pretrain_subject_diffusion, args=(config, listen))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL
    events: list[Event] = []
    again = pretrain_subject_diffusion(config, events.append)
    assert sum(isinstance(event, Progress) and event.stage == "Learning" for event in events) == 2
    assert again.weights.read_bytes() == whole.weights.read_bytes()


def test_a_run_starts_from_weights_of_another_base(
    whole: Learnt, config: SubjectDiffusionConfig, base_folder: Callable[[str], Path]
) -> None:
    config = replace(config, steps=1, learning_rate=0.0, start_from=whole.weights.parent)
    made = pretrain_subject_diffusion(replace(config, base=str(base_folder("sd-v"))))
    start, end = load_file(whole.weights), load_file(made.weights)
    assert all(torch.equal(end[name], value) for name, value in start.items())
    with pytest.raises(BadBase, match=r"made with --target attn2\.to_k --target attn2\.to_v --encoder eye\. Give"):
        pretrain_subject_diffusion(replace(config, out=config.out / "other", targets=("attn1.to_q",)))


def test_what_is_asked_for_is_what_learns(config: SubjectDiffusionConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    given, seen_by, loss = list[Any](), list[str](), SubjectDiffusion.loss

    def named(name: str, *_: Any) -> Eye:
        seen_by.append(name)
        return Eye()

    def watched(method: SubjectDiffusion, scenes: Any, control: float) -> torch.Tensor:
        given.append((control, scenes.emphasis))
        return loss(method, scenes, control)

    monkeypatch.setattr(SubjectDiffusion, "loss", watched)
    monkeypatch.setattr(encoder, "load", named)
    made = pretrain_subject_diffusion(
        replace(config, steps=1, attention_control=0.5, targets=("attn1.to_q",), encoder="")
    )
    assert {control for control, _ in given} == {0.5}
    assert all(shown.amin() < 1 < shown.amax() for _, shown in given)  # subjects count more than the rest
    learnt = {name.rsplit(".", 3)[-3] for name in load_file(made.weights) if name.startswith("denoiser.")}
    assert learnt == {"attn1"}, learnt
    assert set(seen_by) == {encoder.CLIP}  # as the base has none of its own


# What is drawn for a step


def test_accumulated_batches_are_one_large_one(depiction: Depiction) -> None:
    parts = [depiction.loss(slots, 4) for slots in (range(2), range(2, 4))]
    torch.testing.assert_close(sum(parts), depiction.loss(range(4), 4))


def test_what_a_slot_draws_depends_on_it_alone(depiction: Depiction) -> None:
    one, other, next_one = (depiction._draw(slot) for slot in (7, 7, 8))
    assert torch.equal(one.noise, other.noise)
    assert one.prompt == other.prompt
    assert [a.tobytes() for a in one.references] == [b.tobytes() for b in other.references]
    assert not torch.equal(one.noise, next_one.noise)


def test_subjects_are_in_the_order_of_their_prompt(depiction: Depiction) -> None:
    drawn = [depiction._draw(slot) for slot in range(60)]
    for one in drawn:
        two = len(one.references) == 2
        assert one.nouns == (["cat", "dog"] if two else ["dog"])
        assert torch.equal(one.boxes[0], torch.tensor(RIGHT if two else LEFT))
        assert one.masks[0, 2:, 4:].all() == two
        assert one.masks[int(two), 2:, :4].all()
    assert {len(one.references) for one in drawn} == {1, 2}


def test_conditions_are_dropped(depiction: Depiction) -> None:
    drawn = [depiction._draw(slot) for slot in range(400)]
    kinds = [(bool(one.prompt), bool(one.present.any()), one.placed) for one in drawn]
    shares = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    assert shares.keys() == {(True, True, True), (False, True, True), (False, False, False), (True, True, False)}
    assert 0.8 < shares[True, True, True] < 0.9
    assert all(share > 0.02 for share in shares.values())


def test_who_is_shown_of_clays_world_was_never_learnt(depiction: Depiction, tmp_path: Path) -> None:
    render_records(tmp_path, 3, 3, seed=1)
    records = ClayRecords(tmp_path)
    learning = Depiction(depiction.method, records, depiction.latents, 0, 0.01)._learning
    sets = [place.subjects() for place in records._places]
    assert 1 < learning < len(records)
    assert not set(sets[:learning]) & set(sets[learning:])
    assert {kind for kind, *_ in sets} == {"sets", "pairs"}
    assert [first for first, one in enumerate(sets) if one not in sets[:first]] == sorted(
        {records.first(number) for number in range(len(records))}
    )


def test_a_single_record_is_shown_although_it_is_learnt(depiction: Depiction, tmp_path: Path) -> None:
    write(tmp_path / "0.tar", [("0", record(0))])
    alone = Depiction(depiction.method, Records(tmp_path), depiction.latents, 0, 0.01)
    assert alone._draw(0).prompt in {"", *record(0).captions}
    before = torch.get_rng_state()
    assert alone.show().height > 32
    assert torch.equal(torch.get_rng_state(), before)


def test_references_vary_but_stay_cut_out() -> None:
    reference = Image.new("RGBA", (16, 24), (200, 0, 0, 255))
    seen = [_varied(reference, default_rng(number), aslant=number % 2 > 0) for number in range(8)]
    assert len({one.size for one in seen}) > 1
    assert all(one.mode == "RGBA" for one in seen)
    assert any(one.getpixel((0, 0))[3] == 0 for one in seen)  # type: ignore[index]  # what turning has uncovered


def test_half_of_the_references_of_the_same_picture_are_seen_aslant(
    depiction: Depiction, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Image.new("RGBA", (40, 60), (200, 0, 0, 255))
    plain, seen = (
        [_varied(reference, default_rng(n), aslant=one).tobytes() for n in range(100)] for one in (False, True)
    )
    assert 35 < sum(one != other for one, other in zip(plain, seen, strict=True)) < 65
    aslant = [_aslant(reference, default_rng(number)) for number in range(4)]
    assert [one.tobytes() for one in aslant] == [_aslant(reference, default_rng(n)).tobytes() for n in range(4)]
    for one in aslant:
        shown = np.asarray(one)[..., 3] > 127
        assert shown[15:45, 10:30].all(), "no corner comes farther"
        assert 0.4 < shown.mean() < 1
    drawn = {}
    for same in (True, False):
        monkeypatch.setattr(depiction.records, "of_the_same", same, raising=False)
        drawn[same] = [depiction._draw(slot).references[0].tobytes() for slot in range(8)]
    assert drawn[True] != drawn[False]
    assert not ClayRecords.of_the_same, "they are of other pictures"


def test_the_encoder_sees_each_subject_in_its_slot(depiction: Depiction, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def loss(scenes: Any, control: float) -> torch.Tensor:
        given.append(scenes)
        return torch.zeros(4)

    monkeypatch.setattr(depiction.method, "loss", loss)
    depiction.loss(range(4), 4)
    for row, slot in enumerate(range(4)):
        one = depiction._draw(slot)
        seen = Eye().encode(one.references)
        torch.testing.assert_close(given[0].cast.features[row, : len(seen)], seen)
        assert not given[0].cast.features[row, len(seen) :].any()


# What is refused


def test_bad_input_is_refused_and_leaves_nothing_behind(
    config: SubjectDiffusionConfig,
    base_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder, "load", LOAD)
    (tmp_path / "nothing").mkdir()
    for mistake, message in (
        (replace(config, data=None), "--data SHARDS"),
        (replace(config, data=tmp_path / "nothing"), "holds no records"),
        (replace(config, base=str(base_folder("sd3"))), "no U-Net"),
        (replace(config, encoder=str(tmp_path / "nothing")), r"no model\.safetensors"),
    ):
        with pytest.raises((BadBase, BadOption), match=message):
            pretrain_subject_diffusion(mistake)
        assert not config.out.exists()


@processes.needs_fork
def test_processes_that_share_out_the_weights_learn_what_one_does(
    config: SubjectDiffusionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "SHEETS", 1)
    one, two = (replace(config, steps=2, out=config.out / name) for name in ("one", "two"))
    expected = load_file(pretrain_subject_diffusion(one).weights)
    processes.forked(partial(pretrain_subject_diffusion, replace(two, batch=1)), **processes.FSDP)
    found = load_file(two.out / "weights" / "subject-diffusion.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-4)
