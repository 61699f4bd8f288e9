"""The example programs run, and the photos are those that they make."""

import importlib
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from persona.clay import world

EXAMPLES = Path(__file__).parent.parent / "examples"
SUBJECTS = sorted(path.name for path in (EXAMPLES / "photos").iterdir())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    runpy.run_path(str(EXAMPLES / "make_photos.py"))["main"](folder)
    return folder


def test_there_are_three_live_subjects_and_three_things() -> None:
    assert sum(noun in world.LIVE for noun in SUBJECTS) == 3
    assert len(SUBJECTS) == 6


@pytest.mark.parametrize("noun", SUBJECTS)
def test_photos_are_rendered_from_the_truth_beside_them(rendered: Path, noun: str) -> None:
    folder = EXAMPLES / "photos" / noun
    truth = json.loads((folder / "truth.json").read_text())
    assert truth == json.loads((rendered / noun / "truth.json").read_text())
    assert sorted(truth) == sorted(path.name for path in folder.glob("*.png"))
    scenes = [world.from_dict(one["scene"]) for one in truth.values()]
    assert len({scene.entities[0].subject for scene in scenes}) == 1
    assert scenes[0].entities[0].subject.class_noun == noun
    assert len({scene.context for scene in scenes}) == len(scenes) == 5
    for name in truth:
        photo, again = (np.asarray(Image.open(path / name), float) for path in (folder, rendered / noun))
        assert np.abs(photo - again).mean() < 0.5


def test_the_contact_sheet_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "contact_sheet.py"))["main"](tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 1000
    assert "sheet.png" in capsys.readouterr().out


@pytest.mark.slow
def test_every_cell_of_the_table_of_families_is_yes(tmp_path: Path) -> None:
    table = tmp_path / "families.md"
    subprocess.run([sys.executable, EXAMPLES / "families.py", table], check=True)
    rows = table.read_text(encoding="utf-8").splitlines()[2:]
    assert len(rows) == 6
    assert all(set(row.split(" | ")[1:]) <= {"yes", "yes |"} for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="they read memory as Linux counts it")
@pytest.mark.parametrize(
    ("script", "options", "found"),
    [
        *(("bench_step.py", ["--steps", "1", "--loop", loop], "seconds") for loop in ("persona", "plain", "bare")),
        ("plan_check.py", ["--measure", "all three"], "training"),
    ],
    ids=["persona", "plain", "bare", "plan"],
)
def test_a_step_is_measured(
    script: str, options: list[str], found: str, base_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", [script, str(base_folder()), "--resolution", "32", *options])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert json.loads(capsys.readouterr().out)[found] > 0


@pytest.mark.parametrize("noun", SUBJECTS)
def test_places_that_are_called_new_are_on_no_photo(noun: str) -> None:
    photos = EXAMPLES / "photos" / noun
    who, places = runpy.run_path(str(EXAMPLES / "table.py"))["subject_of"](photos)
    shown = {one["scene"]["context"] for one in json.loads((photos / "truth.json").read_text()).values()}
    assert who.class_noun == noun
    assert len(set(places) - shown) == 8


def test_figures_that_were_asked_for_otherwise_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    resumed = importlib.import_module("table").resumed
    assert resumed(tmp_path, {"one": lambda: 1}, seeds=1) == {"one": 1}
    assert resumed(tmp_path, {"one": lambda: 2, "two": lambda: 3}, seeds=1) == {"one": 1, "two": 3}
    with pytest.raises(SystemExit, match="asked for otherwise"):
        resumed(tmp_path, {"one": lambda: 2}, seeds=2)
