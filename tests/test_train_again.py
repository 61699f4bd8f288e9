"""The same command typed again: what it goes on with, and what it is refused for before anything large is loaded."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from results import notes

from persona.config import TrainConfig
from persona.errors import BadOption
from persona.events import Event
from persona.train import train

Folder = Callable[[str], Path]


@pytest.fixture
def config(
    base_folder: Folder, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainConfig:
    monkeypatch.chdir(tmp_path)
    return TrainConfig(
        photos=photo_folder,
        class_noun="dog",
        token="sks",
        base=str(base_folder("sd-eps")),
        out=tmp_path / "out",
        steps=2,
        prior="none",
    )


def test_class_pictures_are_known_by_what_they_show_not_by_how_their_folder_is_spelt(
    config: TrainConfig, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dogs = shutil.copytree(photo_folder, tmp_path / "dogs")
    train(replace(config, prior="folder:dogs"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # as Windows calls it
    for number, spelt in enumerate(("./dogs", str(dogs), "~/dogs")):
        events: list[Event] = []
        train(replace(config, prior=f"folder:{spelt}", steps=3 + number), events.append)
        assert "Going on" in notes(events)
    (dogs / "0.txt").write_text("a dog on a sofa")
    with pytest.raises(BadOption, match="other photos or settings"):
        train(replace(config, prior="folder:dogs"))


def test_a_persona_without_checkpoints_is_said_to_be_good_for_drawing(config: TrainConfig) -> None:
    made = train(config)
    shutil.rmtree(made.path / "checkpoints")
    with pytest.raises(BadOption, match=r"without checkpoints.* drawn with.*--fresh"):
        train(config)
