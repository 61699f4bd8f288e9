"""The whole life of a persona on each family: learnt, interrupted, gone on with, drawn, and led to another place."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bases
import matrix
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from persona.config import InterpolateConfig, SampleConfig, TrainConfig
from persona.folder import Persona
from persona.interpolate import interpolate
from persona.sample import sample
from persona.train import train


def weights(made: Persona) -> dict[str, bytes]:
    with safe_open(made.path / "adapter.safetensors", "np") as file:
        return {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118  # it is no mapping


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, int)


@pytest.mark.parametrize(
    ("prior", "text_encoder", "precision", "name"),
    matrix.sparse(12, ["generated", "self", "none"], [False, True], ["fp32", "bf16"], bases.BASES),
)
def test_a_persona_lives_on_each_family(
    base_folder: Callable[[str], Path],
    photo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prior: str,
    text_encoder: bool,
    precision: Any,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).symlink_to(base_folder(name))  # personas remember no path, only what the base is called
    config = TrainConfig(
        photos=photo_folder,
        class_noun="dog",
        token="sks",
        base=name,
        out=Path("straight"),
        steps=4,
        learning_rate=0.05,
        batch=2,
        prior=prior,
        text_encoder=text_encoder,
        precision=precision,
        gradient_checkpointing=True,
    )
    straight = train(config)
    stopped = replace(config, out=Path("stopped"))
    train(replace(stopped, steps=2))
    assert weights(train(stopped)) == weights(straight)
    assert any(key.startswith("text_encoder") for key in weights(straight)) == text_encoder
    frames = interpolate(InterpolateConfig(prompts=("a [V] dog", "a cat"), persona=(straight.path,), frames=3))
    assert len(frames.paths) == 3
    (bare,) = sample(SampleConfig(prompts=("a [V] dog",), persona=straight.path, n=1, scale=0))
    assert np.abs(pixels(frames.paths[0]) - pixels(bare.path)).max() > 2  # rows of a batch differ by one
