"""The same command typed again: what it goes on with, and what it is refused for before anything large is loaded."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from PIL import Image, ImageOps
from results import notes

from persona import checkpoints, families, identity
from persona.config import TrainConfig
from persona.drawing import number_format
from persona.errors import BadOption, PersonaError
from persona.events import Event
from persona.folder import ADAPTER, Persona
from persona.photos import read
from persona.train import train
from persona.train.material import given_pictures
from persona.train.resuming import fingerprint

Folder = Callable[[str], Path]


@pytest.fixture
def config(base_folder: Folder, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.chdir(tmp_path)
    return trainings.short(base_folder("sd-eps"), photo_folder, tmp_path / "out", steps=2)


def test_class_pictures_are_known_by_what_they_show_not_by_how_their_folder_is_spelt(
    config: TrainConfig, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dogs = shutil.copytree(photo_folder, tmp_path / "dogs")
    train(replace(config, prior="folder:dogs"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # as Windows calls it
    spelt = [replace(config, prior=f"folder:{name}") for name in ("./dogs", str(dogs), "~/dogs")]
    assert len({tuple(one.sha256 for one in given_pictures(asked, print)) for asked in spelt}) == 1
    events = list[Event]()
    train(replace(spelt[-1], steps=3), events.append)
    assert "Resuming" in notes(events)
    (dogs / "0.txt").write_text("a dog on a sofa")
    with pytest.raises(BadOption, match="other photos or settings"):
        train(replace(config, prior="folder:dogs"))


def test_a_run_of_another_number_of_processes_is_told_from_that_of_other_settings(config: TrainConfig) -> None:
    made = train(config)
    (state,) = made.path.glob("checkpoints/*/state.json")
    record = json.loads(state.read_text())
    assert record["processes"] == 1
    base = families.load(config.base, device="cpu", dtype=number_format("auto", torch.device("cpu")))
    run = fingerprint(config, base, read(config.photos), [], "sks", 2)
    state.write_text(json.dumps(record | {"run": run, "processes": 2}))
    with pytest.raises(BadOption, match=r"2 processes share, not 1\. Start as many"):
        train(config)


def test_a_persona_without_checkpoints_is_said_to_be_good_for_drawing(config: TrainConfig) -> None:
    made = train(config)
    shutil.rmtree(made.path / "checkpoints")
    with pytest.raises(BadOption, match=r"without checkpoints.* drawn with.*--fresh"):
        train(config)


def test_a_persona_of_the_same_name_elsewhere_is_not_taken_for_that_of_the_run(config: TrainConfig) -> None:
    there = train(replace(config, out=Path("personas/dog")))
    shutil.copytree(there.path, "dog")
    Path("dog/persona.json").unlink()  # as of a run that was stopped before the end was written down
    assert train(replace(config, out=Path("dog"))).path == Path("dog")
    assert Path("dog/persona.json").is_file()


def test_a_token_that_was_chosen_is_not_chosen_again(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is another, so is the size of what it is chosen by, and another folder would be begun."""
    config = replace(config, out=None, token=None)
    made = train(config)

    def choose(*_: object) -> None:
        raise LookupError("chosen again")

    monkeypatch.setattr(identity, "choose", choose)
    events = list[Event]()
    again = train(replace(config, steps=4), events.append)
    assert (again.path, again.settings["evidence"]) == (made.path, made.settings["evidence"])
    assert "Resuming from step 2" in notes(events)
    with pytest.raises(LookupError):
        train(replace(config, seed=1))


def test_a_second_subject_of_a_class_gets_a_word_of_its_own(config: TrainConfig, tmp_path: Path) -> None:
    """It was refused, once the base was loaded; with --fresh it took the place of the first."""
    config = replace(config, out=None, token=None)
    first = train(config)
    shutil.copytree(config.photos, tmp_path / "other")
    for photo in (tmp_path / "other").iterdir():
        ImageOps.mirror(Image.open(photo)).save(photo)
    other = replace(config, photos=tmp_path / "other")
    second = train(other)
    assert second.token != first.token
    assert second.path != first.path
    assert [train(one).path for one in (config, other)] == [first.path, second.path]
    assert train(replace(other, fresh=True)).path == second.path
    assert train(replace(config, fresh=True)).path == first.path
    with pytest.raises(BadOption, match="other photos or settings"):
        train(replace(config, rank=2))
    assert train(replace(other, out=first.path, fresh=True)).token == first.token


def test_an_imported_persona_keeps_its_word(config: TrainConfig) -> None:
    """It has neither checkpoints nor photos."""
    config = replace(config, out=None, token=None)
    friends = train(config)
    shutil.rmtree(friends.path / "checkpoints")
    replace(friends, photos=()).write(friends.path / ADAPTER)
    ours = train(config)
    assert ours.token != friends.token
    assert Persona.open(friends.path).photos == ()


def test_a_token_that_was_given_is_not_taken_for_chosen(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(*_: object) -> None:
        raise LookupError("chosen")

    train(replace(config, out=None))
    monkeypatch.setattr(identity, "choose", choose)
    with pytest.raises(LookupError):
        train(replace(config, out=None, token=None))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("file", "no folder that can be written to"),
        ("theirs", r"other files \(thesis"),
        ("held", "Another run"),
        ("caf\udce9", "is no text"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_before_the_base_is_loaded(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.tex").touch()
    monkeypatch.delattr("persona.families.load")
    with checkpoints.held(tmp_path / "held"), pytest.raises(PersonaError, match=told):
        train(replace(config, out=tmp_path / name))
    assert not (tmp_path / "out").exists()


def test_a_cache_that_cannot_be_is_told_before_the_base_is_loaded(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delattr("persona.families.load")
    with pytest.raises(BadOption, match=r"not a directory.* set XDG_CACHE_HOME .* --prior self\.$"):
        train(replace(config, prior="generated"))


@pytest.mark.parametrize(
    ("base", "given", "told"),
    [
        ("sd3", {"snr_gamma": 5.0}, "--snr-gamma has no effect on"),
        ("sd3", {"resolution": 256}, "up to 128 pixels"),
        ("sd-eps", {"text_learning_rate": 1e-5}, "goes with --text-encoder"),
        ("sd-eps", {"targets": ("to_q", "to_w")}, r"no module named to_w\. Leave"),
    ],
)
def test_what_would_have_no_effect_is_refused_before_the_base_is_loaded(
    config: TrainConfig,
    base_folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    given: dict[str, Any],
    told: str,
) -> None:
    monkeypatch.delattr("persona.families.load")
    with pytest.raises(BadOption, match=told):
        train(replace(config, base=str(base_folder(base)), **given))
