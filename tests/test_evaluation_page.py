"""The page of an evaluation, as a file and as a real browser shows it."""

import base64
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser, browser
from pages import EVIL, Page
from PIL import Image

from persona.report import Cell, Column, Plot, Row, Shot, write_evaluation

COLUMNS = [
    Column("DINO", "Likeness to the photos."),
    Column("CLIP-T", "Likeness to the prompt."),
    Column("memorisation", "Likeness to the nearest photo.", -1),
]
in_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")


def cell(mean: float) -> Cell:
    return Cell(mean, mean - 0.02, mean + 0.03)


def picture(folder: Path, seed: int, side: int = 64) -> Path:
    path = folder / f"{seed}.png"
    if not path.exists():
        colours = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return path


def shots(folder: Path, n: int = 12) -> list[Shot]:
    return [
        Shot(
            picture(folder, k), f"scale {1 + k % 2}", "a dog", f"a [V] dog, {k // 4}", k % 4,
            {"DINO": 0.3 + 0.04 * k, "CLIP-T": 0.3 - 0.01 * k, "memorisation": 0.5 + 0.03 * (k * 5 % n)},
        )
        for k in range(n)
    ]  # fmt: skip


def written(path: Path, **changed: object) -> str:
    arguments: dict[str, object] = {
        "title": "Three scales",
        "columns": COLUMNS,
        "rows": [
            Row("real photos", {"DINO": cell(0.774)}),
            Row("scale 1", {"DINO": cell(0.6), "CLIP-T": cell(0.31), "memorisation": cell(0.4)}, "scales"),
            Row("scale 2", {"DINO": cell(0.7), "CLIP-T": cell(0.28), "memorisation": cell(0.6)}, "scales", best=True),
        ],
        "plot": Plot("CLIP-T", "DINO"),
        "notes": ["DIV (LPIPS) is left out."],
        "published": ("Compare with care.", [["method", "DINO"], ["DreamBooth", ".668"], ["JeDi", "~.679"]]),
        "worst": ["DINO", "memorisation"],
        "used": ["scale 1", "scale 2"],
        "photos": {"a dog": [("garden.jpg", Image.new("RGB", (32, 24), "green"))]},
        "shots": shots(path.parent),
        "settings": {"seed": 0, "n": 4},
    }
    write_evaluation(path, **{**arguments, **changed})  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def test_holds_everything(tmp_path: Path) -> None:
    page = Page(written(tmp_path / "report.html"))
    sections = ["scores", "trade-off", "published", "worst-cases", "images", "settings"]
    assert [a["id"] for a in page.all("section")] == sections
    for shown in (
        "0.774",
        "0.580 to 0.630",
        "(best)",
        "DIV (LPIPS) is left out.",
        "Compare with care.",
        "JeDi",
        "seed 3",
    ):
        assert shown in page.text
    alternatives = [str(a["alt"]) for a in page.all("img")]
    assert sum("a [V] dog" in text for text in alternatives) == 12 + 2 * 8  # all of them, and the worst of two kinds
    assert alternatives.count("reference garden.jpg") == 1 + 2 * 8  # each worst case stands beside them


def test_the_worst_come_first(tmp_path: Path) -> None:
    text = written(tmp_path / "report.html")
    worst = re.search(r'id="worst-cases".*?</section>', text, re.DOTALL)
    assert worst
    lowest, highest = worst[0].split("<h3>")[1:]
    assert re.findall(r"DINO ([\d.]+)</b>", lowest) == ["0.30", "0.34", "0.38", "0.42", "0.46", "0.50", "0.54", "0.58"]
    values = [float(value) for value in re.findall(r"memorisation ([\d.]+)</b>", highest)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.83)


def test_the_worst_are_of_those_that_are_used(tmp_path: Path) -> None:
    text = written(tmp_path / "report.html", worst=["DINO"], used=["scale 2"])
    worst = re.search(r'id="worst-cases".*?</section>', text, re.DOTALL)
    assert worst
    assert "scale 2: a [V] dog" in worst[0]
    assert "scale 1: a [V] dog" not in worst[0]


def test_near_copies_are_marked(tmp_path: Path) -> None:
    first, second = shots(tmp_path, 2)
    marked = [replace(first, scores={"DINO": 0.9, "copies": 1.0}), replace(second, scores={"DINO": 0.8, "copies": 0.0})]
    text = written(tmp_path / "report.html", shots=marked, worst=[])
    assert [one.count("near-copy of a photo") for one in text.split("<figure>") if "[V] dog" in one] == [1, 0]


def test_needs_no_network_and_runs_one_script_alone(tmp_path: Path) -> None:
    text = written(tmp_path / "report.html")
    page = Page(text)
    assert not re.search(r"https?://|url\(", text)
    assert all((a["src"] or "").startswith("data:image/webp;base64,") for a in page.all("img"))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(str(a["content"]) for a in page.all("meta") if "http-equiv" in a)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@pytest.mark.parametrize("where", ["title", "columns", "rows", "notes", "published", "photos", "shots", "settings"])
def test_escapes_everything(tmp_path: Path, where: str) -> None:
    evil: dict[str, object] = {
        "title": EVIL,
        "columns": [Column(EVIL, EVIL)],
        "rows": [Row(EVIL, {"DINO": cell(0.5), "CLIP-T": cell(0.3)}, EVIL)],
        "notes": [EVIL],
        "published": (EVIL, [[EVIL, EVIL], [EVIL, EVIL]]),
        "photos": {"a dog": [(EVIL, Image.new("RGB", (8, 8)))]},
        "shots": [Shot(picture(tmp_path, 0), EVIL, EVIL, EVIL, 0, {"DINO": 0.5})],
        "settings": {EVIL: EVIL},
    }
    text = written(tmp_path / "report.html", **{where: evil[where]})
    page = Page(text)
    assert text.count("<script") == 1
    assert EVIL in page.text
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_what_was_not_measured_is_left_open(tmp_path: Path) -> None:
    rows = [Row("one", {"DINO": cell(math.nan)}, "one"), Row("two", {}, "two")]
    text = written(tmp_path / "report.html", rows=rows, published=None, plot=None, shots=[])
    assert "nan" not in text
    assert [a["id"] for a in Page(text).all("section")] == ["scores", "settings"]


def test_points_and_bars_stay_inside(tmp_path: Path) -> None:
    rows = [Row(f"step {k}", {"DINO": cell(math.sin(k)), "CLIP-T": cell(k / 7)}, "run", best=k == 3) for k in range(30)]
    text = written(tmp_path / "report.html", rows=rows)
    for x, y in re.findall(r'cx="([^"]+)" cy="([^"]+)"', text):
        assert 0 <= float(x) <= 640
        assert 0 <= float(y) <= 400
    named = re.findall(r'text-anchor="(?:start|end)">(step [^<]*)<', text)
    assert named == ["step 0", "step 3 (best)", "step 29"]


# In a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


FIRST = "[...document.querySelectorAll('#scores tbody th')].map(th => th.textContent)"


@in_chromium
def test_the_table_is_sorted_by_keyboard(chromium: Browser, tmp_path: Path) -> None:
    written(tmp_path / "report.html")
    chromium.open(tmp_path / "report.html")
    chromium.ask("document.querySelectorAll('#scores th button')[1].focus()")
    chromium.press("Enter", 13)
    assert chromium.ask(FIRST) == ["real photos", "scale 2 (best)", "scale 1"]
    chromium.press("Enter", 13)
    assert chromium.ask(FIRST) == ["scale 1", "scale 2 (best)", "real photos"]
    assert chromium.ask("document.querySelectorAll('#scores th')[1].getAttribute('aria-sort')") == "ascending"
    chromium.ask("document.querySelectorAll('#scores th button')[3].click()")  # the lower the better
    assert chromium.ask(FIRST) == ["scale 1", "scale 2 (best)", "real photos"]  # what is not known comes last
    assert not chromium.complaints
    assert all(url.startswith(("file:", "data:", "about:")) for url in chromium.asked)


@in_chromium
def test_pictures_are_ordered_and_filtered(chromium: Browser, tmp_path: Path) -> None:
    written(tmp_path / "report.html")
    chromium.open(tmp_path / "report.html")
    choose = "(id, to) => { const e = document.getElementById(id); e.value = to; e.dispatchEvent(new Event('change')) }"
    shown = "[...document.querySelectorAll('.shots > li')].filter(li => li.checkVisibility())"
    values = f"{shown}.map(li => +li.dataset.s.split(' ')[{{}}])"
    chromium.ask(f"({choose})('order', '2')")
    copied = chromium.ask(values.format(2))
    assert copied == sorted(copied, reverse=True)
    chromium.ask(f"({choose})('order', '0')")
    chromium.ask(f"({choose})('show', '1')")
    likeness = chromium.ask(values.format(0))
    assert len(likeness) == 6
    assert likeness == sorted(likeness)


@in_chromium
def test_of_two_one_prompts_pictures_stand_in_one_row(chromium: Browser, tmp_path: Path) -> None:
    one = [Shot(picture(tmp_path, k), "rex", "a dog", f"{k}", 0, {"DINO": 0.5}) for k in range(5)]
    other = [Shot(picture(tmp_path, k), "base", "a dog", f"{k}", 0, {"DINO": 0.4}) for k in (0, 2, 3)]
    written(tmp_path / "two.html", shots=[*one, *other])
    chromium.open(tmp_path / "two.html")
    placed = chromium.ask(
        "[...document.querySelectorAll('.shots > li')].map(li => [li.querySelector('img').alt, li.offsetTop,"
        " li.offsetLeft])"
    )
    rows: dict[str, set[int]] = {}
    for said, top, _ in placed:
        rows.setdefault(said.split(": ")[1], set()).add(top)
    assert len(rows) == 5
    assert all(len(tops) == 1 for tops in rows.values()), rows
    assert len({left for said, _, left in placed if said.startswith("base")}) == 1


@in_chromium
def test_nothing_from_outside_is_executed(chromium: Browser, tmp_path: Path) -> None:
    evil = '</script><img src=x onerror="window.hit=1"><script>window.hit=1</script>'
    written(
        tmp_path / "report.html", shots=[Shot(picture(tmp_path, 0), evil, evil, evil, 0, {"DINO": 0.5})], title=evil
    )
    chromium.open(tmp_path / "report.html")
    assert chromium.ask("window.hit === undefined")
    assert chromium.ask("document.querySelector('h1').textContent") == evil


@in_chromium
def test_a_telephone_scrolls_one_way_only(chromium: Browser, tmp_path: Path) -> None:
    photos = {"a dog": [(f"{n}.jpg", Image.new("RGB", (384, 384), "teal")) for n in range(8)]}
    written(tmp_path / "report.html", photos=photos)
    chromium("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    chromium.open(tmp_path / "report.html")
    assert chromium.ask("document.documentElement.scrollWidth") <= 390
    chromium("Emulation.clearDeviceMetricsOverride")


@in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_either_mode(chromium: Browser, tmp_path: Path, scheme: str) -> None:
    written(tmp_path / "report.html")
    chromium("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    chromium.open(tmp_path / "report.html")
    for element in ("body", ".soft", "a"):
        ink, paper = (
            _luminance(chromium.ask(f"getComputedStyle(document.querySelector('{where}')).{what}"))
            for where, what in ((element, "color"), ("body", "backgroundColor"))
        )
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, element  # WCAG 2.1, 1.4.3


def _luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@in_chromium
@pytest.mark.slow
def test_three_thousand_pictures_are_drawn_in_three_seconds(chromium: Browser, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((3000, 3))
    many = [
        Shot(
            picture(tmp_path, k % 100, 256), "DreamBooth", f"subject {k // 100}", f"a [V] dog, {k // 4 % 25}", k % 4,
            dict(zip(("DINO", "CLIP-T", "memorisation"), scores[k].tolist(), strict=True)),
        )
        for k in range(3000)
    ]  # fmt: skip
    photos = {f"subject {k}": [(f"{n}.jpg", Image.new("RGB", (384, 384), "teal")) for n in range(5)] for k in range(30)}
    written(tmp_path / "report.html", shots=many, photos=photos)
    chromium("Performance.enable", timeDomain="threadTicks")  # seconds of work: others may keep the machine busy
    before = seconds_of_work(chromium)
    chromium.open(tmp_path / "report.html")
    chromium.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert seconds_of_work(chromium) - before < 3
    assert chromium.ask("document.querySelectorAll('.shots img').length") == 3000


def seconds_of_work(chromium: Browser) -> float:
    """Return the processor's time that the page's process has taken, with all its threads."""
    metrics = {one["name"]: one["value"] for one in chromium("Performance.getMetrics")["metrics"]}
    return float(metrics["ProcessTime"])
