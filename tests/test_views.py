"""Views that JeDi draws of a subject, to be learnt beside its photos."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import ImageOps
from PIL.Image import open as open_image

from persona import families
from persona.config import TrainConfig
from persona.errors import BadBase
from persona.events import Event, Note
from persona.methods.jedi import STORE, JeDi
from persona.photos import Photo
from persona.train import train, views


@pytest.fixture(scope="module")
def able(base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny base that has JeDi weights."""
    folder = tmp_path_factory.mktemp("able") / "base"
    shutil.copytree(base_folder("sd-v-zero"), folder)
    jedi = JeDi(families.load(str(folder), device="cpu"))
    torch.nn.init.normal_(jedi.channels.weight, std=0.2)
    (folder / STORE.name).mkdir()
    (folder / STORE.name / STORE.file).write_bytes(jedi.save())
    return folder


def config(base: Path, photos: Path, out: Path, *, from_jedi: bool = True) -> TrainConfig:
    return TrainConfig(
        photos=photos, class_noun="dog", token="sks", base=str(base), out=out, steps=2, prior="none", precision="fp32",
        optimizer="adamw", from_jedi=from_jedi,
    )  # fmt: skip


def test_views_are_learnt_and_recorded(able: Path, photo_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    made = train(config(able, photo_folder, tmp_path / "with"), events.append)
    assert made.settings["from_jedi"] is True
    assert any(isinstance(event, Note) and "views that JeDi drew" in event.text for event in events)
    assert len(list((tmp_path / "with" / "views").rglob("*.png"))) == 3
    plain = train(config(able, photo_folder, tmp_path / "without", from_jedi=False))
    assert plain.settings["from_jedi"] is False
    assert not (tmp_path / "without" / "views").exists()
    weights = [(tmp_path / name / "adapter.safetensors").read_bytes() for name in ("with", "without")]
    assert weights[0] != weights[1]


def test_the_base_is_left_as_it_was(able: Path, photos: Sequence[Photo], tmp_path: Path) -> None:
    base = families.load(str(able), device="cpu")
    before = {name: value.clone() for name, value in base.denoiser.state_dict().items()}
    found = views.draw_views(base, photos, "dog", 32, 0, tmp_path, lambda event: None)
    after = base.denoiser.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(view.caption and "[V] dog" in view.caption for view in found)
    kept = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.png"))]
    views.draw_views(base, photos, "dog", 32, 0, tmp_path, lambda event: None)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.png"))] == kept


def test_a_run_that_was_stopped_leaves_its_views_to_none_but_itself(
    able: Path, photo_folder: Path, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Note) and "views that JeDi drew" in event.text:
            raise KeyboardInterrupt

    (tmp_path / "other").mkdir()
    for path in photo_folder.glob("*.png"):
        ImageOps.invert(open_image(path).convert("RGB")).save(tmp_path / "other" / path.name)

    def drawn(photos: Path) -> dict[Path, int]:
        with pytest.raises(KeyboardInterrupt):
            train(config(able, photos, tmp_path / "run"), stop)
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "views").rglob("*.png")}

    first = drawn(photo_folder)
    assert drawn(photo_folder) == first
    both = drawn(tmp_path / "other")
    assert first.items() < both.items()
    assert len(both) == 2 * len(first)


def test_a_base_without_weights_says_so_first(
    base_folder: Callable[[str], Path], photo_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadBase, match="has no JeDi weights"):
        train(config(base_folder("sd-v-zero"), photo_folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
