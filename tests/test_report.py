"""The page of a run: complete, self-contained, escaped, and readable by those who do not see it."""

import itertools
import math
import re
from pathlib import Path

import pytest
from pages import EVIL, Page
from pictures import grain
from PIL import Image

from persona import report


def picture(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    return Image.new(mode, size)


def written(path: Path, **changed: object) -> str:
    arguments: dict[str, object] = {
        "title": "A dog",
        "photos": [("garden.jpg", picture())],
        "previews": {"step 100": [("a sks dog", picture())], "step 200": [("a sks dog", picture())]},
        "curves": {"loss": [(step, 1 / step) for step in range(1, 401)], "identity": [(100, 0.5), (200, 0.8)]},
        "settings": {"steps": 400, "flip": True, "out": None, "targets": ("to_q", "to_k"), "evidence": {"sks": 0.25}},
        "scores": {"identity": 0.8123456},
        "chosen": 200,
    }
    report.write(path, **{**arguments, **changed})  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def test_holds_everything(tmp_path: Path) -> None:
    text = written(tmp_path / "report.html")
    page = Page(text)
    assert [a["id"] for a in page.all("section")] == ["scores", "photos", "previews", "curves", "settings"]
    assert len(page.all("img")) == 3
    assert len(page.all("svg")) == 2
    assert page.text.count("kept") == 2
    for shown in ("A dog", "garden.jpg", "step 100", "0.8123", "to_q, to_k", "sks 0.25"):
        assert shown in page.text
    assert "out" not in re.findall(r'<th scope="row">(.*?)</th>', text)


def test_needs_no_network_and_no_script(tmp_path: Path) -> None:
    text = written(tmp_path / "report.html")
    page = Page(text)
    assert all((a["src"] or "").startswith("data:image/webp;base64,") for a in page.all("img"))
    assert not page.all("script")
    assert not page.all("link")
    assert not re.search(r"https?://|url\(", text)


@pytest.mark.parametrize("where", ["title", "photos", "previews", "curves", "settings", "scores"])
def test_escapes_everything(tmp_path: Path, where: str) -> None:
    points = [(1, 0.5), (2, 0.4)]
    evil: dict[str, object] = {
        "title": EVIL,
        "photos": [(EVIL, picture())],
        "previews": {EVIL: [(EVIL, picture())]},
        "curves": {EVIL: points},
        "settings": {EVIL: EVIL},
        "scores": {EVIL: 1.0},
    }
    text = written(tmp_path / "report.html", **{where: evil[where]})
    page = Page(text)
    assert "<script" not in text
    assert EVIL in page.text
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_can_be_heard_and_reached_by_keyboard(tmp_path: Path) -> None:
    page = Page(written(tmp_path / "report.html"))
    assert page.all("html")[0]["lang"] == "en"
    assert all(a["alt"] for a in page.all("img"))
    assert all(a["role"] == "img" and a["aria-label"] for a in page.all("svg"))
    assert {a["href"] for a in page.all("a")} == {"#" + str(a["id"]) for a in page.all("section")}
    assert len(page.all("details")) == 2  # each curve's values as a table
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_follows_the_reader_s_mode_and_prints(tmp_path: Path) -> None:
    text = written(tmp_path / "report.html")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_pictures_of_any_mode(tmp_path: Path, mode: str) -> None:
    assert len(Page(written(tmp_path / "report.html", photos=[("x", picture(mode))])).all("img")) == 3


def test_large_photos_are_made_small(tmp_path: Path) -> None:
    noise = grain((3000, 2000), 80)
    assert len(written(tmp_path / "report.html", photos=[("x", noise)])) < 400_000


@pytest.mark.parametrize(
    "points",
    [[(0, 0.0)], [(1, 2.0), (2, 2.0)], [(1, -1e-9), (2, 1e9)], [(k, math.sin(k)) for k in range(10_000)]],
    ids=["one", "flat", "wide", "many"],
)
def test_curves_of_any_shape_stay_inside(tmp_path: Path, points: list[tuple[float, float]]) -> None:
    text = written(tmp_path / "report.html", curves={"loss": points})
    drawn = [pair.split(",") for line in re.findall(r'points="([^"]+)"', text) for pair in line.split()]
    assert drawn
    for x, y in drawn:
        assert 0 <= float(x) <= 640
        assert 0 <= float(y) <= 240


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    text = written(
        tmp_path / "report.html", curves={"loss": [(1, math.nan), (2, math.inf), (3, 0.5)], "x": [(1, math.nan)]}
    )
    assert "nan" not in text
    assert "inf" not in re.sub('data:[^"]*', "", text)
    assert text.count("<svg") == 1


def test_what_is_empty_is_left_out(tmp_path: Path) -> None:
    text = written(tmp_path / "report.html", photos=[], previews={}, curves={}, scores={})
    assert [a["id"] for a in Page(text).all("section")] == ["settings"]


def test_a_failed_write_leaves_the_old_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    before = written(path)
    with pytest.raises(AttributeError):
        written(path, photos=[("x", None)])
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
