import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import processes
import pytest
import tiny_networks
import torch
import trainings
from PIL.Image import Image, fromarray
from PIL.Image import open as open_image
from results import notes
from safetensors.torch import load as from_bytes
from torch import Tensor
from transformers import PreTrainedModel

from persona import checkpoints, score
from persona.config import TrainConfig
from persona.errors import BadOption, BadPersona, BadPhotos, Busy, Diverged, NoSpace
from persona.events import Event, Progress
from persona.families import Family
from persona.folder import Persona
from persona.methods.dreambooth import DreamBooth
from persona.photos import Photo, reading
from persona.score import Scores
from persona.train import train, watch
from persona.train.loop import flatten, make_optimizer, steps
from persona.train.material import given_pictures

Folder = Callable[[str], Path]


@pytest.fixture
def config(base_folder: Folder, photo_folder: Path, tmp_path: Path) -> TrainConfig:
    return trainings.short(base_folder("sd-eps"), photo_folder, tmp_path / "out")


@pytest.fixture(scope="module")
def finished(base_folder: Folder, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Persona:
    """Return what these settings make. Do not change it."""
    return train(trainings.short(base_folder("sd-eps"), photo_folder, tmp_path_factory.mktemp("finished") / "out"))


@pytest.fixture
def done(finished: Persona, config: TrainConfig) -> Persona:
    """Return the same where a test may do what it likes with it."""
    assert config.out
    return Persona.open(shutil.copytree(finished.path, config.out))


def weights(made: Persona) -> dict[str, Tensor]:
    return from_bytes((made.path / "adapter.safetensors").read_bytes())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def losses(events: Sequence[Event]) -> list[float]:
    return [e.loss for e in events if isinstance(e, Progress) and e.loss is not None]


@pytest.mark.parametrize(
    ("prior", "text_encoder"), [("generated", True), ("self", False), ("none", True), ("folder", False)]
)
def test_photos_become_a_persona(
    config: TrainConfig, base_folder: Folder, photo_folder: Path, prior: str, text_encoder: bool
) -> None:
    prior = f"folder:{photo_folder}" if prior == "folder" else prior
    events: list[Event] = []
    made = train(replace(config, prior=prior, text_encoder=text_encoder, batch=2), events.append)
    assert (made.token, made.class_noun, made.step) == ("sks", "dog", 6)
    assert made.photos
    assert len(losses(events)) == 6
    told = any(isinstance(event, Progress) and event.stage == "Encoding class images" for event in events)
    assert told == (prior not in ("self", "none"))
    keys = {key.split(".")[0] for key in weights(made)}
    assert keys == ({"unet", "text_encoder"} if text_encoder else {"unet"})
    assert (made.path / "report.html").stat().st_size > 1000
    for file in (made.path / "report.html", *made.path.rglob("*.json")):
        assert str(photo_folder) not in file.read_text()
        assert config.base not in file.read_text()
    assert not (made.path / checkpoints.LOCK).exists()


def test_nothing_is_drawn_of_the_class_unless_asked(
    base_folder: Folder, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given: dict[str, Any] = {"photos": photo_folder, "class_noun": "dog", "token": "sks", "steps": 1}
    made = train(TrainConfig(base=str(base_folder("sd-eps")), out=tmp_path / "out", **given))
    assert (made.settings["prior"], made.settings["priors"]) == ("self", 0)
    assert not (tmp_path / "cache" / "persona" / "priors").exists()
    asked = TrainConfig(base=str(base_folder("sd-eps")), out=tmp_path / "other", prior="generated", **given)
    assert train(asked).settings["priors"] == len([*(tmp_path / "cache" / "persona" / "priors").rglob("*.png")]) == 4


def test_it_learns(config: TrainConfig) -> None:
    events: list[Event] = []
    train(replace(config, steps=60, learning_rate=0.01, batch=4, precision="fp32"), events.append)
    found = losses(events)
    assert sum(found[-20:]) < 0.95 * sum(found[:20])


@pytest.mark.parametrize(("name", "learning"), [("sd3", 2), ("flux", 1)])
def test_text_encoders_that_learn_nothing_are_freed(
    config: TrainConfig, base_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, learning: int
) -> None:
    """And what is learnt is the same as with them, to the bit."""
    config = replace(config, base=str(base_folder(name)), prior="self", text_encoder=True, steps=2, batch=2)
    real, there = DreamBooth.loss, set[int]()

    def loss(self: DreamBooth, slots: Sequence[int], total: int) -> Tensor:
        encoders = self.base.text_encoders.values()
        there.add(sum(isinstance(encoder, PreTrainedModel) for encoder in encoders))
        return real(self, slots, total)

    monkeypatch.setattr(DreamBooth, "loss", loss)
    freed = weights(train(config))
    assert there == {learning}
    monkeypatch.setattr(Family, "free_frozen_text_encoders", lambda *_: None)
    assert same(weights(train(replace(config, out=tmp_path / "kept"))), freed)
    assert there == {learning, learning + 1}


@pytest.mark.parametrize("adapter", ["lora", "dora", "rslora", "loha", "lokr", "oft"])
def test_every_kind_of_adapter_trains(config: TrainConfig, adapter: Any) -> None:
    made = train(replace(config, adapter=adapter, steps=2, checkpoint_every=1))
    first, second = (from_bytes(one.adapter.read_bytes()) for one in checkpoints.every(made.path))
    assert not same(first, second)


@pytest.mark.parametrize("adapter", ["dora", "oft"])
def test_kinds_of_adapter_that_are_more_than_a_product_go_on(config: TrainConfig, tmp_path: Path, adapter: Any) -> None:
    config = replace(config, adapter=adapter, steps=2)
    halves = replace(config, out=tmp_path / "halves")
    train(replace(halves, steps=1))
    assert same(weights(train(halves)), weights(train(config)))


def test_going_on_is_the_same_as_never_having_stopped(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, optimizer="adamw", precision="fp32", prior="self", text_encoder=True)
    straight, halves = list[Event](), list[Event]()
    whole = train(config, straight.append)
    train(replace(config, out=tmp_path / "two", steps=2), halves.append)
    resumed = train(replace(config, out=tmp_path / "two"), halves.append)
    assert "Resuming from step 2" in notes(halves)
    assert losses(halves) == losses(straight)
    assert same(weights(whole), weights(resumed))


def test_what_is_kept_is_an_average_and_what_goes_on_the_weights_themselves(config: TrainConfig) -> None:
    def values(path: Path, *ends: str) -> Tensor:
        found = from_bytes(path.read_bytes())
        return torch.cat([value.flatten() for name, value in found.items() if name.endswith(ends)]).sort()[0]

    for step, alike in ((1, True), (2, False)):
        made = train(replace(config, steps=step))
        checkpoint = made.path / "checkpoints" / f"step-{step:06d}"
        assert same(weights(made), from_bytes((checkpoint / "adapter.safetensors").read_bytes()))
        drawn_with = values(checkpoint / "adapter.safetensors", ".weight")
        assert torch.equal(drawn_with, values(checkpoint / "optimizer.safetensors", ".weights")) == alike


def test_a_run_goes_on_with_the_optimizer_that_it_began_with(
    config: TrainConfig, finished: Persona, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where 8 bits were not to be had at first, and are now; or were, and are not any more."""
    plain, packed = (replace(config, out=tmp_path / name) for name in ("plain", "packed"))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "bitsandbytes", None)
        straight = train(config)
        train(replace(plain, steps=2))
    assert straight.settings["optimizer"] == "adamw"
    assert finished.settings["optimizer"] == "adamw8bit"
    assert finished.settings["precision"] in ("bf16", "fp32")
    events: list[Event] = []
    assert same(weights(train(plain, events.append)), weights(straight))
    assert "Going on with plain AdamW" in notes(events)
    assert not same(weights(straight), weights(finished))
    train(replace(packed, steps=2))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert train(packed, events.append).step == 6
    assert "which begins anew" in notes(events)


@processes.needs_fork
@pytest.mark.parametrize("moment", ["between", "writing"])
def test_a_killed_run_goes_on_to_the_bit(config: TrainConfig, finished: Persona, tmp_path: Path, moment: str) -> None:
    config = replace(config, out=tmp_path / "killed")

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "Training":
            if moment == "between" and event.done == 5:
                die()
            if moment == "writing" and event.done == 4:
                checkpoints._pack = die  # type: ignore[assignment]  # the adapter is written by then

    child = multiprocessing.get_context("fork").Process(target=train, args=(config, listen))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    latest = checkpoints.latest(tmp_path / "killed")
    assert latest is not None
    assert latest.step == (4 if moment == "between" else 2)
    with pytest.raises(BadPersona):
        Persona.open(tmp_path / "killed")
    assert same(weights(train(config)), weights(finished))
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))


@processes.needs_fork
@pytest.mark.parametrize("prior", ["generated", "self"])
def test_two_processes_are_one_with_the_doubled_batch(config: TrainConfig, tmp_path: Path, prior: str) -> None:
    config = replace(config, prior=prior, precision="fp32", optimizer="adamw", steps=4, text_encoder=True)
    events: list[Event] = []
    alone = train(replace(config, batch=2), events.append)

    def share() -> None:
        heard: list[Event] = []
        train(replace(config, batch=1, out=tmp_path / "shared"), heard.append)
        (tmp_path / f"told-{os.environ['RANK']}").write_text(json.dumps(losses(heard)))

    processes.forked(share)
    told = [json.loads((tmp_path / f"told-{rank}").read_text()) for rank in (0, 1)]
    torch.testing.assert_close(torch.tensor(told[0]), torch.tensor(losses(events)), rtol=1e-4, atol=1e-5)
    assert told[1] == []  # only the first process tells
    for key, value in weights(Persona.open(tmp_path / "shared")).items():
        torch.testing.assert_close(value, weights(alone)[key], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_accelerate_launches_processes_that_share_a_run(config: TrainConfig) -> None:
    given = ["--class", "dog", "--token", "sks", "--base", config.base, "--out", str(config.out), "--steps", "4"]
    command = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "persona", "train"]
    for last in ("2", "4"):  # launched again, it goes on
        given[-1] = last
        line = [sys.executable, "-m", *command, str(config.photos), *given, "--prior", "none", "--json"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1, "one process speaks for both"
        assert json.loads(done.stdout)["persona"] == str(config.out)
    assert "Resuming from step 2" in done.stderr


def test_a_class_that_the_base_never_saw_is_told_and_learnt(config: TrainConfig, tmp_path: Path) -> None:
    base = shutil.copytree(config.base, tmp_path / "base")
    (base / "words.json").write_text('["a", "dog"]')
    events: list[Event] = []
    made = train(replace(config, base=str(base), class_noun="okapi", steps=2), events.append)
    assert "okapi: not in the vocabulary of" in notes(events)
    assert made.class_noun == "okapi"


@pytest.mark.parametrize(("number", "advice"), [(1, "One photo works"), (51, "a dozen varied ones")])
def test_any_number_of_photos_trains_with_a_word_of_advice(
    config: TrainConfig, tmp_path: Path, number: int, advice: str
) -> None:
    (tmp_path / "photos").mkdir()
    for place in range(number):
        picture = np.random.default_rng(place).integers(0, 255, (48, 48, 3), np.uint8)
        fromarray(picture).save(tmp_path / f"photos/{place}.png")
    events: list[Event] = []
    made = train(replace(config, photos=tmp_path / "photos", steps=2), events.append)
    assert len(made.photos) == number
    assert advice in notes(events)


def test_a_caption_teaches_other_words(config: TrainConfig, photo_folder: Path, tmp_path: Path) -> None:
    plain = train(replace(config, steps=2))
    captioned = shutil.copytree(photo_folder, tmp_path / "captioned")
    for photo in captioned.glob("*.png"):
        photo.with_suffix(".txt").write_text("a [V] dog on a sofa")
    photo.with_suffix(".txt").write_text("a photo of a [V] dog " + "in the deep snow " * 40)
    events: list[Event] = []
    told = train(replace(config, steps=2, photos=captioned, out=tmp_path / "told"), events.append)
    assert notes(events).count("is cut") == 1
    assert not same(weights(plain), weights(told))


@pytest.fixture(scope="module")
def plain(base_folder: Folder, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Return the losses of two steps in which every option below could play its part."""
    events: list[Event] = []
    train(
        _with_all(trainings.short(base_folder("sd-eps"), photo_folder, tmp_path_factory.mktemp("plain") / "out")),
        events.append,
    )
    return losses(events)


def _with_all(config: TrainConfig) -> TrainConfig:
    return replace(config, steps=2, prior="self", text_encoder=True, batch=2, precision="fp32")


@pytest.mark.parametrize(
    ("changed", "alike"),
    [
        ({"prior_weight": 3.0}, 1),
        ({"snr_gamma": 1.0}, 0),
        ({"flip": False}, 0),
        ({"crops": 1}, 0),
        ({"learning_rate": 0.05}, 1),
        ({"text_learning_rate": 0.05}, 1),
        ({"alpha": 40.0}, 1),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_said_reaches_the_loss(
    config: TrainConfig, plain: list[float], changed: dict[str, Any], alike: int
) -> None:
    """Though not that of the first step where it is the adapter that it is about: a new one changes nothing."""
    events: list[Event] = []
    train(replace(_with_all(config), **changed), events.append)
    found = losses(events)
    assert found[:alike] == plain[:alike]
    assert found != plain


def test_checkpoints_are_kept_as_often_as_is_said(config: TrainConfig, tmp_path: Path) -> None:
    for often, kept in ((1, [1, 2, 3, 4]), (3, [3, 4])):
        made = train(replace(config, steps=4, checkpoint_every=often, out=tmp_path / str(often)))
        assert [one.step for one in checkpoints.every(made.path)] == kept


def test_accumulated_batches_are_one_large_one(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, precision="fp32", steps=4, prior="self")
    large, small = list[Event](), list[Event]()
    train(replace(config, batch=4), large.append)
    train(replace(config, batch=2, accumulate=2, out=tmp_path / "small"), small.append)
    torch.testing.assert_close(torch.tensor(losses(small)), torch.tensor(losses(large)), rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_no_loss(config: TrainConfig, tmp_path: Path) -> None:
    plain, frugal = list[Event](), list[Event]()
    train(replace(config, precision="fp32", steps=3), plain.append)
    frugally = replace(config, precision="fp32", steps=3, gradient_checkpointing=True, out=tmp_path / "frugal")
    train(frugally, frugal.append)
    torch.testing.assert_close(torch.tensor(losses(frugal)), torch.tensor(losses(plain)))


def test_a_finished_run_is_only_opened(config: TrainConfig, done: Persona) -> None:
    stamp = (done.path / "persona.json").stat().st_mtime_ns
    events: list[Event] = []
    again = train(config, events.append)
    assert again == done
    assert "trained already" in notes(events)
    assert "--fresh" in notes(events)
    assert (done.path / "persona.json").stat().st_mtime_ns == stamp


def test_fresh_takes_a_link_away_and_leaves_what_lies_elsewhere(config: TrainConfig, tmp_path: Path) -> None:
    """Checkpoints may be on a larger disk; what is there is not ours to delete."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "own.txt").touch()
    made = train(config)
    shutil.rmtree(made.path / "previews", ignore_errors=True)
    (made.path / "previews").symlink_to(tmp_path / "large")
    train(replace(config, fresh=True))
    assert (tmp_path / "large" / "own.txt").exists()
    assert not (made.path / "previews").is_symlink()


def test_fresh_begins_anew_and_then_goes_on_like_any_other(config: TrainConfig) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "Training" and event.done == 3:
            raise KeyboardInterrupt

    events: list[Event] = []
    fresh = replace(config, fresh=True)
    with pytest.raises(KeyboardInterrupt):
        train(config, stop)
    for before in ("a run that was stopped", "a finished persona"):
        events.clear()
        made = train(fresh, events.append)
        assert len(losses(events)) == 6, before
    with pytest.raises(KeyboardInterrupt):
        train(fresh, stop)
    events.clear()
    assert same(weights(train(fresh, events.append)), weights(made))
    assert "Resuming from step 2" in notes(events)


@pytest.mark.parametrize("change", [{"rank": 2}, {"seed": 1}, {"prior": "self"}, {"class_noun": "cat"}])
def test_the_folder_of_another_run_is_refused(config: TrainConfig, done: Persona, change: dict[str, Any]) -> None:
    before = {path: path.read_bytes() for path in done.path.rglob("*") if path.is_file()}
    with pytest.raises(BadOption, match="--fresh"):
        train(replace(config, **change))
    assert {path: path.read_bytes() for path in done.path.rglob("*") if path.is_file()} == before


def test_the_folder_of_another_run_may_be_discarded(config: TrainConfig, done: Persona) -> None:
    assert train(replace(config, steps=1, fresh=True, rank=2)).step == 1


def test_a_folder_with_other_files_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(BadOption, match=r"thesis\.tex"):
        train(replace(config, fresh=True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_what_a_killed_run_and_a_file_manager_left_is_in_nobodys_way(config: TrainConfig) -> None:
    made = train(replace(config, steps=2))
    (made.path / "previews").mkdir(exist_ok=True)
    for name in (".1234567890123456789-persona.json", "previews/.1234567890123456789-a-dog.png", ".DS_Store"):
        (made.path / name).touch()
    assert train(config).step == 6
    assert [path.name for path in made.path.rglob(".*")] == [".DS_Store"]


def test_a_folder_of_class_pictures_is_read_before_the_base(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("persona.families.load")
    with pytest.raises(BadPhotos, match="Put class images in one"):
        train(replace(config, prior=f"folder:{tmp_path / 'nowhere'}"))


@pytest.mark.parametrize(("asked", "used"), [(None, 4), (2, 2), (9, 6)])
def test_no_more_class_pictures_are_read_than_are_used(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, used: int
) -> None:
    (tmp_path / "dogs").mkdir()
    for number in range(6):
        fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(tmp_path / "dogs" / f"{number}.png")
        (tmp_path / "dogs" / f"{number}.txt").write_text("a dog")
    opened: list[str] = []
    real = reading._photo

    def noted(path: Path, side: int) -> Photo:
        opened.append(path.name)
        return real(path, side)

    monkeypatch.setattr(reading, "_photo", noted)
    events: list[Event] = []
    train(replace(config, prior=f"folder:{tmp_path / 'dogs'}", priors=asked, steps=1), events.append)
    assert [name for name in opened if name.endswith("png")][3:] == [f"{number}.png" for number in range(used)]
    assert ("of 6 class images are used; --priors N takes more." in notes(events)) == (used < 6)
    assert "Skipped" not in notes(events)


def test_captions_of_class_pictures_name_no_subject(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    for number, caption in enumerate(("an old [V] dog", "[V]", "a [red] dog", "a SKS dog")):
        fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(tmp_path / "dogs" / f"{number}.png")
        (tmp_path / "dogs" / f"{number}.txt").write_text(caption)
    events: list[Event] = []
    found = given_pictures(replace(config, prior=f"folder:{tmp_path / 'dogs'}"), events.append)
    assert [picture.caption for picture in found] == ["an old dog", "", "a [red] dog", "a dog"]
    assert "0.png, 1.png, 3.png: [V] and the token are left out" in notes(events)


def test_no_fewer_pixels_of_a_picture_are_kept_than_are_trained_on(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dogs").mkdir()
    fromarray(np.zeros((1700, 1700), np.uint8)).save(tmp_path / "dogs" / "0.png")
    config = replace(config, prior=f"folder:{tmp_path / 'dogs'}", resolution=1600)
    (found,) = given_pictures(config, print)
    assert found.image.size == (1600, 1600)

    def read(*given: object) -> None:
        raise LookupError(given[2])

    monkeypatch.setattr(sys.modules["persona.train"], "read", read)
    with pytest.raises(LookupError, match="1600"):
        train(config)


def test_a_folder_in_use_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    with checkpoints.held(tmp_path / "out"), pytest.raises(Busy):
        train(config)


def test_a_loss_that_is_no_number_is_refused(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DreamBooth.loss

    def loss(self: DreamBooth, slots: Sequence[int], total: int) -> Tensor:
        return real(self, slots, total) * (float("nan") if slots[0] == 3 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(DreamBooth, "loss", loss)
        with pytest.raises(Diverged, match=r"--learning-rate .* another --out"):
            train(config)
    assert train(config).step == 6  # nothing of it was kept


def test_a_full_disk_is_refused_and_the_run_goes_on_later(
    config: TrainConfig, finished: Persona, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.fsync, [4]

    def fsync(file: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(NoSpace, match="Make room"):
            train(config)
    assert same(weights(train(config)), weights(finished))


@pytest.mark.parametrize("before", [False, True], ids=["first", "trained on"])
def test_what_fails_at_the_end_of_a_run_is_made_when_it_goes_on(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """Be there no persona yet, or that of fewer steps."""
    assert config.out
    if before:
        train(replace(config, steps=4))
        (config.out / "report.html").unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("persona.report.write", full)
        with pytest.raises(NoSpace, match="Make room"):
            train(config)
    assert not (config.out / "report.html").exists()
    events: list[Event] = []
    assert train(config, events.append).step == 6
    assert "trained already" not in notes(events)
    assert (config.out / "report.html").is_file()


def test_without_bitsandbytes_plain_adamw_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    events: list[Event] = []
    made = make_optimizer("adamw8bit", [([torch.nn.Parameter(torch.zeros(1))], 0.1)], events.append)
    assert type(made) is torch.optim.AdamW
    assert "plain AdamW" in notes(events)


def test_where_bitsandbytes_has_no_kernels_plain_adamw_is_used() -> None:
    """Apple's GPUs would only say so at the first step; like them, `meta` is none of those it has any for."""
    events: list[Event] = []
    made = make_optimizer("adamw8bit", [([torch.nn.Parameter(torch.zeros(1, device="meta"))], 0.1)], events.append)
    assert type(made) is torch.optim.AdamW
    assert "bitsandbytes has none for meta" in notes(events)


def test_without_bitsandbytes_own_library_plain_adamw_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported and made all the same, and what stands in for the library raises at the first step."""

    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("\nCUDA VERSION MISMATCH\nand a page of advice")

    monkeypatch.setattr("bitsandbytes.functional.optimizer_update_8bit_blockwise", missing)
    events: list[Event] = []
    made = make_optimizer("adamw8bit", [([torch.nn.Parameter(torch.zeros(1))], 0.1)], events.append)
    assert type(made) is torch.optim.AdamW
    assert "(CUDA VERSION MISMATCH)" in notes(events)


def test_flat_parameters_learn_as_they_would_alone() -> None:
    alone = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    views = [torch.nn.Parameter(parameter.detach().clone()) for parameter in alone]
    optimizers = [torch.optim.AdamW(alone), torch.optim.AdamW([flatten(views)])]
    for _ in range(3):
        for parameters, optimizer in zip((alone, views), optimizers, strict=True):
            torch.autograd.backward(parameters[0].square().sum() + parameters[1].exp().sum())
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
    for one, view in zip(alone, views, strict=True):
        torch.testing.assert_close(view, one)


def test_without_a_token_one_is_chosen_and_kept(config: TrainConfig) -> None:
    made = train(replace(config, token=None, steps=2))
    assert made.settings["evidence"]
    events: list[Event] = []
    longer = train(replace(config, token=None, steps=4), events.append)
    assert longer.token == made.token
    assert longer.settings["evidence"] == made.settings["evidence"]
    assert "Resuming" in notes(events)


class FakeScorer:
    """Finds the second look the best."""

    wanted: ClassVar = dict.fromkeys(("a [V] {class}", "a {class}"), (0, 1))
    totals = (0.3, 0.8, 0.5, 0.4, 0.9, 0.95)

    def __init__(self) -> None:
        self.seen = 0

    def score(self, drawn: dict[str, list[Image]], photos: list[Image]) -> Scores:
        assert set(drawn) == set(self.wanted)
        assert len(photos) == 3
        self.seen += 1
        return Scores(0, 0, 0, 0, total=self.totals[self.seen - 1])


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "scorer_for", lambda *_: FakeScorer())


def test_the_best_checkpoint_is_kept_and_training_stops_once_it_has_passed(config: TrainConfig, scored: None) -> None:
    made = train(replace(config, steps=12, score_every=2))
    assert made.step == 4
    assert made.scores["total"] == 0.8
    assert [one["step"] for one in made.history] == [2, 4, 6, 8]
    best = from_bytes((made.path / "checkpoints" / "step-000004" / "adapter.safetensors").read_bytes())
    assert same(weights(made), best)
    assert len(list((made.path / "previews").rglob("*.png"))) == 4 * 2 * 2
    events: list[Event] = []
    assert train(replace(config, steps=12, score_every=2), events.append) == made
    assert "trained already" in notes(events)


def test_the_best_of_the_checkpoints_that_are_left_is_taken(config: TrainConfig, scored: None) -> None:
    """Where the user made room, and trains on."""
    made = train(replace(config, score_every=2))
    assert made.step == 4
    shutil.rmtree(made.path / "checkpoints" / "step-000004")
    for _ in range(2):  # the second time it is only opened
        made = train(replace(config, steps=8, score_every=2))
        assert (made.step, made.scores["total"]) == (6, 0.5)
        assert [one["step"] for one in made.history] == [2, 4, 6, 8]


def test_what_was_trained_on_without_a_scorer_is_kept(
    config: TrainConfig, scored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it that the end of the run could not be written at first."""
    assert train(replace(config, score_every=2)).step == 4
    monkeypatch.setattr(watch, "scorer_for", lambda *_: None)
    longer, events = replace(config, steps=8, score_every=2), list[Event]()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("persona.report.write", full)
        with pytest.raises(NoSpace):
            train(longer)
    made = train(longer)
    assert (made.step, made.scores) == (8, {})
    assert [one["step"] for one in made.history] == [2, 4, 6]
    assert train(longer, events.append) == made
    assert "trained already" in notes(events)


def test_previews_are_shown_under_their_own_prompts(tmp_path: Path) -> None:
    names = ("a-photo-of-a-v-class-0", "a-photo-of-a-v-class-in-the-snow-0")  # the latter of when there was a scorer
    (tmp_path / "previews/step-000100").mkdir(parents=True)
    for name in names:
        fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"previews/step-000100/{name}.png")
    base: Any = None
    shown = watch.Watch(base, (8, 8), [], "sks", "dog", 0, tmp_path, print).previews()
    assert [prompt for prompt, _ in shown["Step 100"]] == ["a photo of a sks dog"]


def test_previews_have_the_size_that_is_trained(config: TrainConfig) -> None:
    """Which is what memory was planned for."""
    made = train(replace(config, steps=2, score_every=2, resolution=48))
    sizes = set()
    for path in (made.path / "previews").rglob("*.png"):
        with open_image(path) as image:
            sizes.add(image.size)
    assert sizes == {(48, 48)}


def test_a_run_that_has_learnt_nothing_yet_goes_on(
    config: TrainConfig, scored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeScorer, "totals", (0, 0, 0, 0, 0.2, 0.1))
    made = train(replace(config, steps=12, score_every=2))
    assert [one["step"] for one in made.history] == [2, 4, 6, 8, 10, 12]
    assert made.step == 10


def test_photographs_are_scored_by_dino_and_clip_where_they_are_here(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = tiny_networks.save(tmp_path / "networks", "dino-vits16", "clip-vit-base-patch32")
    monkeypatch.setattr(score, "folder_of", lambda name: networks / name.partition("/")[2])
    made = train(replace(config, steps=4, score_every=2))
    assert [one["step"] for one in made.history] == [2, 4]
    assert made.step == max(made.history, key=lambda one: one["total"])["step"]
    for one in made.history:
        assert -1 <= one["identity"] <= 1
        assert -1 <= one["prompt"] <= 1
        assert 0 <= one["drift"] <= 1
        assert -1 <= one["memorisation"] <= 1


def test_dino_and_clip_take_no_memory_of_the_bases_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = tiny_networks.save(tmp_path / "networks", "dino-vits16", "clip-vit-base-patch32")
    monkeypatch.setattr(score, "folder_of", lambda name: networks / name.partition("/")[2])
    grey = fromarray(np.full((32, 32, 3), 128, np.uint8))
    base: Any = types.SimpleNamespace(folder=tmp_path, device=torch.device("meta"), draw=lambda *_, size: [grey, grey])
    events: list[Event] = []
    scorer = score.scorer_for(base, [grey], "dog", (32, 32), events.append)
    assert scorer
    assert events == [Progress("Drawing previews", 0, 1), Progress("Drawing previews", 1, 1)]
    drawn = {template: [grey for _ in seeds] for template, seeds in scorer.wanted.items()}
    assert scorer.score(drawn, [grey]).identity == pytest.approx(1)  # reading what is on meta would raise


def test_previews_leave_no_trace_in_training(config: TrainConfig, scored: None, tmp_path: Path) -> None:
    plain, watched = list[Event](), list[Event]()
    train(replace(config, text_encoder=True), plain.append)
    train(replace(config, text_encoder=True, score_every=3, out=tmp_path / "watched"), watched.append)
    assert losses(watched) == losses(plain)


def test_without_a_scorer_the_last_checkpoint_is_kept_and_said_so(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "scorer_for", lambda *_: None)
    events: list[Event] = []
    made = train(replace(config, score_every=2), events.append)
    assert made.step == 6
    assert "the last checkpoint is kept" in notes(events)
    assert len(list((made.path / "previews").iterdir())) == 1


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_refused(config: TrainConfig, done: Persona, name: str) -> None:
    file = done.path / "checkpoints" / "step-000006" / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadPersona, match=r"step-000006 is damaged.*--fresh"):
        train(replace(config, steps=8))


def test_a_damaged_checkpoint_may_be_discarded(config: TrainConfig, done: Persona) -> None:
    (done.path / "checkpoints/step-000006/optimizer.safetensors").write_bytes(b"cut off")
    assert train(replace(config, steps=1, fresh=True)).step == 1


@pytest.mark.parametrize("name", ["adapter.safetensors", "persona.json"])
def test_a_damaged_persona_is_made_again_of_its_checkpoints(config: TrainConfig, done: Persona, name: str) -> None:
    before = (done.path / name).read_bytes()
    (done.path / name).write_bytes(before[:-9])
    assert train(config) == done
    assert (done.path / name).read_bytes() == before


def test_the_record_of_a_run_is_plain_json(config: TrainConfig) -> None:
    made = train(replace(config, steps=2))
    record = json.loads((made.path / "checkpoints" / "step-000002" / "state.json").read_text())
    assert record["token"] == "sks"
    assert len(record["losses"]) == 2
    assert not list(made.path.rglob("*.pt")) + list(made.path.rglob("*.bin"))


def test_the_loop_copies_nothing_and_waits_for_nothing(base_folder: Folder) -> None:
    """A step is a forward, a backward and an update: no host value is read in it."""

    class OneNumber:
        def __init__(self) -> None:
            self.parameter = torch.nn.Parameter(torch.ones(2, device="meta"))

        def loss(self, slots: Sequence[int], total: int) -> Tensor:
            return (self.parameter * len(slots) / total).sum()

    method = OneNumber()
    one = types.SimpleNamespace(num_processes=1, process_index=0)
    made: Any = torch.optim.SGD([method.parameter])
    loop = steps(method, made, one, first=0, last=3, batch=2, accumulate=1)
    assert [step.number for step in loop] == [1, 2, 3]  # reading a value of the meta device would raise


@processes.needs_fork
def test_processes_look_at_the_same_steps_though_one_alone_has_a_judge(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines have disks of their own; who waited for a look that another does not take would wait for ever."""
    monkeypatch.setattr(watch, "scorer_for", lambda *_: FakeScorer() if os.environ["RANK"] == "0" else None)
    shared = replace(config, steps=4, score_every=2, checkpoint_every=100)
    processes.forked(lambda: train(shared))
    assert [one["step"] for one in Persona.open(config.out or Path()).history] == [2, 4]
