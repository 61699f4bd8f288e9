"""Records of any pictures: discs whose colours are the truth, looked at by stand-ins that know it."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import processes
import pytest
import tiny_networks
from pictures import exif_of
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from persona.cli import app
from persona.config import SddConfig
from persona.errors import BadOption, BadPhotos
from persona.events import Event, Progress
from persona.labelling import Found
from persona.metrics import Mask
from persona.photos.cutouts import box_of, pixels_of
from persona.placing import Box
from persona.pretrain import sdd
from persona.pretrain.records import Entity, Record, Records
from persona.pretrain.sdd import filled, gen_sdd, square_around

COLOURS = {"dog": (200, 30, 30), "cat": (30, 30, 200), "ball": (30, 200, 30)}
LEFT, RIGHT = (0.05, 0.2, 0.4, 0.9), (0.5, 0.2, 0.85, 0.9)


def draw(things: Sequence[tuple[str, Box]], size: tuple[int, int] = (96, 80), ground: str = "#444") -> Image.Image:
    page = Image.new("RGB", size, ground)
    for noun, box in things:
        left, top, right, bottom = pixels_of(box, size)
        ImageDraw.Draw(page).ellipse((left, top, right - 1, bottom - 1), fill=COLOURS[noun])
    return page


GOOD = draw([("dog", LEFT), ("cat", RIGHT)])
DROPPED = {
    "too small an image": GOOD.resize((60, 50)),
    "on white": draw([("dog", LEFT), ("cat", RIGHT)], ground="white"),
    "too few or too many nouns": draw([]),
    "too few or too many things": draw([("dog", LEFT)]),
    "one of several": draw([("dog", LEFT), ("dog", (0.5, 0.1, 0.7, 0.4)), ("cat", RIGHT)]),
    "too small or too large": draw([("dog", LEFT), ("ball", (0.6, 0.6, 0.7, 0.7))]),
    "without a subject": draw([("dog", (0.1, 0.1, 0.2, 0.2)), ("ball", (0.6, 0.6, 0.7, 0.7))]),
    "too wide for a square": draw([("dog", (0, 0.1, 0.3, 0.9)), ("cat", (0.7, 0.1, 1, 0.9))], size=(160, 80)),
}


class Knowing:
    """Stands in for all networks: it knows the colours."""

    def __init__(self, *_: object) -> None:
        pass

    def captions(self, pictures: Sequence[Image.Image]) -> list[str]:
        return [" on ".join(f"a {noun}" for noun in self._shown(picture)) or "nothing" for picture in pictures]

    def nouns(self, texts: Sequence[str]) -> list[list[str]]:
        known = [[word for word in text.split() if word in COLOURS] for text in texts]
        return [[*words, "light", "ground"] if words else words for words in known]

    def find(self, picture: Image.Image, nouns: Sequence[str]) -> list[Found]:
        found = []
        for score, noun in enumerate(nouns):
            mask = self._where(picture, noun)
            halves = [mask & side for side in self._sides(picture)] if noun == "dog" else [mask]
            found += [Found(noun, 0.9 - 0.1 * score, box_of(half)) for half in halves if half.any()]
        return [*found, *found[:1]]  # the first thing twice, as detectors do

    def masks(self, picture: Image.Image, boxes: Sequence[Box]) -> list[Mask]:
        coloured = np.logical_or.reduce([self._where(picture, noun) for noun in COLOURS])
        masks = []
        for box in boxes:
            left, top, right, bottom = pixels_of(box, picture.size)
            mask = np.zeros_like(coloured)
            mask[top:bottom, left:right] = coloured[top:bottom, left:right]
            middle = (top + bottom) // 2, (left + right) // 2
            mask[middle] = False  # a hole
            masks.append(mask)
        return masks

    def _shown(self, picture: Image.Image) -> list[str]:
        return [noun for noun in COLOURS if self._where(picture, noun).any()]

    @staticmethod
    def _where(picture: Image.Image, noun: str) -> Mask:
        found: Mask = (np.asarray(picture) == COLOURS.get(noun, (1, 2, 3))).all(2)
        return found

    @staticmethod
    def _sides(picture: Image.Image) -> list[Mask]:
        left = np.zeros((picture.height, picture.width), bool)
        left[:, : int(0.45 * picture.width)] = True
        return [left, ~left]


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Captioner", "Tagger", "Detector", "Sam"):
        monkeypatch.setattr(sdd, name, Knowing)
    monkeypatch.setattr(sdd, "fetched", lambda names, listener: [Path(name) for name in names])
    monkeypatch.setattr(sdd, "PART", 4)


@pytest.fixture
def config(tmp_path: Path) -> SddConfig:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, picture in enumerate((GOOD, *DROPPED.values())):
        picture.save(folder / ("more" if number % 2 else ".") / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return SddConfig(pictures=folder, out=tmp_path / "records", resolution=64, batch=3)


def test_a_good_picture_becomes_a_record(knowing: None, config: SddConfig, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    GOOD.save(folder / "good.png")
    made = gen_sdd(replace(config, pictures=folder))
    assert (made.pictures, made.records, dict(made.dropped)) == (1, 1, {})
    record = Records(made.folder).record(0)
    assert record.captions == ["a [V] dog on a [W] cat"]
    assert [entity.noun for entity in record.entities] == ["dog", "cat"]
    assert record.picture.size == (64, 64)
    for entity, mask, reference in zip(record.entities, record.masks, record.references, strict=True):
        assert np.allclose(entity.box, box_of(mask), atol=2 / 64)
        assert filled(mask).sum() == mask.sum()  # the hole is gone
        pixels = np.asarray(reference)
        inside = pixels[pixels[..., 3] > 0][:, :3].astype(int)
        assert np.median(np.abs(inside - COLOURS[entity.noun]).max(1)) == 0
    assert made.sheet is not None
    with Image.open(made.sheet) as page:
        assert page.width > 64


def test_odd_metadata_of_a_sideways_picture_is_let_pass(knowing: None, config: SddConfig, tmp_path: Path) -> None:
    sideways, exif = GOOD.transpose(Image.Transpose.ROTATE_90), exif_of((0x0112, 3, 6), (0x011A, 2, 0))
    found = []
    for name, picture, metadata in (("plain", GOOD, b""), ("odd", sideways, exif)):
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "good.png", exif=metadata)
        made = gen_sdd(replace(config, pictures=tmp_path / name, out=tmp_path / f"{name}-records"))
        found.append(Records(made.folder).record(0).picture.tobytes())
    assert found[0] == found[1]


def test_what_each_filter_drops_is_counted(knowing: None, config: SddConfig) -> None:
    made = gen_sdd(config)
    assert made.pictures == 2 + len(DROPPED)
    assert set(DROPPED) | {"unreadable"} <= set(made.dropped)
    for reason in ("unreadable", "too small an image", "on white", "too few or too many nouns",
                   "too few or too many things", "too wide for a square"):  # fmt: skip
        assert made.dropped[reason] == 1, reason
    assert made.dropped["one of several"] == 2
    assert made.records == len(Records(made.folder)) == 3


def test_shards_of_pictures_are_read_as_folders_are(knowing: None, config: SddConfig, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    files = sorted(path for path in config.pictures.rglob("*") if path.is_file())
    for number, part in enumerate((files[:5], files[5:])):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for path in part:
                entry = tarfile.TarInfo(path.name)
                entry.size = path.stat().st_size
                tar.addfile(entry, io.BytesIO(path.read_bytes()))
            tar.addfile(tarfile.TarInfo("0.txt"))
    one, other = gen_sdd(config), gen_sdd(replace(config, pictures=folder, out=tmp_path / "other"))
    assert (one.pictures, one.records, one.dropped) == (other.pictures, other.records, other.dropped)


def test_pictures_of_phones_are_read(knowing: None, config: SddConfig, tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    folder.mkdir()
    for name in ("1.HEIC", "2.avif"):
        GOOD.save(folder / name, format="HEIF" if name == "1.HEIC" else "AVIF")
    made = gen_sdd(replace(config, pictures=folder))
    assert made.pictures == 2
    assert "unreadable" not in made.dropped


@processes.needs_fork
def test_a_killed_run_goes_on(knowing: None, config: SddConfig, tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.done >= 7:
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=gen_sdd, args=(config, listen))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL
    first = (config.out / "00000.tar").stat().st_mtime_ns
    assert not (config.out / "00001.tar").exists()
    again, whole = gen_sdd(config), gen_sdd(replace(config, out=tmp_path / "whole"))
    assert (config.out / "00000.tar").stat().st_mtime_ns == first
    assert (again.records, again.dropped) == (whole.records, whole.dropped)
    for path in sorted(whole.folder.glob("*.tar")):
        assert (config.out / path.name).read_bytes() == path.read_bytes()


def test_records_may_lie_among_their_pictures(
    knowing: None, config: SddConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = replace(config, out=config.pictures / "records")
    once = gen_sdd(inside)
    assert once.sheet is not None
    monkeypatch.chdir(config.pictures)
    again = gen_sdd(replace(inside, pictures=Path("../pictures")))
    assert (again.pictures, again.records) == (once.pictures, once.records)
    assert gen_sdd(replace(inside, out=Path("records"))).pictures == once.pictures
    with pytest.raises(BadOption, match="the folder of the images itself"):
        gen_sdd(replace(config, out=Path()))
    other = replace(inside, out=config.pictures / "smaller", resolution=32)
    assert gen_sdd(other).pictures == once.pictures  # sheets of other records are no images
    assert gen_sdd(inside).pictures == once.pictures


def test_pictures_may_lie_among_their_records(knowing: None, config: SddConfig) -> None:
    assert gen_sdd(replace(config, out=config.pictures.parent)).pictures == gen_sdd(config).pictures


def test_what_is_transparent_is_white(knowing: None, config: SddConfig, tmp_path: Path) -> None:
    cut = GOOD.convert("RGBA")
    cut.putalpha(0)
    (tmp_path / "cut").mkdir()
    cut.save(tmp_path / "cut" / "0.png")
    assert gen_sdd(replace(config, pictures=tmp_path / "cut")).dropped == {"on white": 1}


def test_other_settings_need_another_folder_before_networks_are_fetched(
    knowing: None, config: SddConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen_sdd(config)
    (config.out / "00000.tar").unlink()
    monkeypatch.setattr(sdd, "fetched", lambda *_: pytest.fail("fetched"))
    with pytest.raises(BadOption, match="holds a run with --resolution 64"):
        gen_sdd(replace(config, resolution=32))


def test_a_network_that_cannot_be_had_leaves_nothing_behind(config: SddConfig, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"no model\.safetensors"):
        gen_sdd(replace(config, captioner=str(tmp_path), tagger=str(tmp_path)))
    assert not config.out.exists()


def test_other_pictures_need_another_folder(knowing: None, config: SddConfig, tmp_path: Path) -> None:
    gen_sdd(config)
    others = shutil.copytree(config.pictures, tmp_path / "others")
    one = next(path for path in sorted(others.iterdir()) if path.is_file())
    one.rename(others / f"other{one.suffix}")
    with pytest.raises(BadOption, match="holds a run of another PICTURES: 10 files"):
        gen_sdd(replace(config, pictures=others))


def test_folders_without_pictures_are_refused(config: SddConfig, tmp_path: Path) -> None:
    with pytest.raises(BadPhotos, match="no images"):
        gen_sdd(replace(config, pictures=tmp_path / "nowhere"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.tar").write_bytes(b"no archive at all")
    with pytest.raises(BadPhotos, match="damaged"):
        gen_sdd(replace(config, pictures=tmp_path / "bad"))


@pytest.mark.parametrize("sharing", ["DEEPSPEED", "FSDP"])
def test_weights_are_not_shared_out(config: SddConfig, monkeypatch: pytest.MonkeyPatch, sharing: str) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{sharing}", "true")
    with pytest.raises(BadOption, match="cannot share out weights here"):
        gen_sdd(config)
    assert not config.out.exists()


def test_the_real_networks_work_together(config: SddConfig, tmp_path: Path) -> None:
    folder = tiny_networks.save(tmp_path / "networks", "blip2", "tagger", "detector", "sam")
    named = [f"--{kind}={folder / name}" for kind, name in (
        ("captioner", "blip2"), ("tagger", "tagger"), ("detector", "detector"), ("segmenter", "sam"))]  # fmt: skip
    result = CliRunner().invoke(
        app, ["gen-sdd", str(config.pictures), "--out", str(config.out), "--resolution=64", *named, "--json"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["pictures"] == 2 + len(DROPPED)
    assert told["dropped"]["on white"] == 1
    assert ("Next: persona pretrain" in result.stderr) == bool(told["records"])
    pictures = ("unreadable", "too small an image", "on white", "too few or too many nouns",
                "too few or too many things", "without a subject", "too wide for a square")  # fmt: skip
    assert sum(told["dropped"].get(reason, 0) for reason in pictures) + told["records"] == told["pictures"]


# Pieces


def test_squares_hold_all_boxes() -> None:
    assert square_around([(0, 0, 0.2, 1)], (200, 100), 1.0) == (0, 0, 100, 100)
    assert square_around([(0.5, 0, 0.7, 1)], (200, 100), 0.0) == (40, 0, 140, 100)
    assert square_around([(0.5, 0, 0.7, 1)], (200, 100), 1.0) == (100, 0, 200, 100)
    assert square_around([(0, 0, 0.2, 1), (0.8, 0, 1, 1)], (200, 100), 0.5) is None


def test_boxes_are_drawn_on_the_sheet_where_they_end() -> None:
    mask, reference = np.ones((64, 64), bool), Image.new("RGBA", (8, 8))
    entities = [Entity("dog", (0.25, 0.25, 0.5, 0.5)), Entity("cat", (0.5, 0.5, 1, 1))]
    record = Record(["a [V] dog on a [W] cat"], entities, Image.new("RGB", (64, 64)), [mask] * 2, [reference] * 2)
    shown = np.asarray(sdd._row(record).pictures[0][0])
    for colour, first, last in (((255, 59, 48), 16, 31), ((10, 132, 255), 32, 63)):
        rows, columns = np.nonzero((shown == colour).all(2))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (first, last, first, last)


def test_holes_are_filled_and_bays_are_not() -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:35, 5:45] = True
    whole = mask.copy()
    mask[10:20, 10:20] = False  # a hole
    mask[25:40, 30:35] = whole[25:40, 30:35] = False  # a bay, open below
    assert np.array_equal(filled(mask), whole)
    assert not filled(np.zeros((4, 4), bool)).any()
    spiral = np.array([[one == "#" for one in row] for row in ("#####", "#...#", "#.#.#", "#.###", "#....")])
    assert np.array_equal(filled(spiral), spiral)  # a way out, however long
    spiral[4, 4] = spiral[4, 1] = True
    assert filled(spiral).sum() == spiral.sum() + 5 + 1
