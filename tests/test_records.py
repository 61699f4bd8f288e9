"""Records to learn subjects from: their shards, clay's own, and the filters that both have to pass."""

import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng
from PIL import Image, ImageDraw
from webdata import packed_anew

from persona.clay import world
from persona.errors import BadOption
from persona.metrics import Mask
from persona.photos.cutouts import box_of, cut, pixels_of, squared
from persona.placing import Box
from persona.pretrain.clay.data import SET, render_records, training_pair, training_set
from persona.pretrain.clay.records import ClayRecords, open_records
from persona.pretrain.filters import Candidate, choose, on_white, overlap
from persona.pretrain.records import Entity, Record, Records, add, marked, write

SIDE = 64


def disc(box: Box, side: int = SIDE) -> Mask:
    """Return an ellipse that touches all sides of a box."""
    page = Image.new("L", (side, side))
    left, top, right, bottom = pixels_of(box, page.size)
    ImageDraw.Draw(page).ellipse((left, top, right - 1, bottom - 1), fill=255)
    return np.asarray(page) > 0


def record(seed: int = 0, nouns: tuple[str, ...] = ("dog", "cat")) -> Record:
    random = default_rng(seed)
    picture = Image.fromarray(random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    boxes: list[Box] = [(0.1, 0.2, 0.45, 0.9), (0.5, 0.2, 0.95, 0.9)]
    masks = [disc(box) for box in boxes[: len(nouns)]]
    entities = [Entity(noun, box_of(mask)) for noun, mask in zip(nouns, masks, strict=True)]
    return Record([marked("a dog next to a cat", nouns)], entities, picture, masks, [cut(picture, m) for m in masks])


# Shards


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = {f"{number:06}": record(number, ("dog", "cat")[: 1 + number % 2]) for number in range(5)}
    (tmp_path / "data").mkdir()
    assert write(tmp_path / "data" / "00000.tar", list(made.items())[:3]) == 3
    assert write(tmp_path / "data" / "00001.tar", list(made.items())[3:]) == 2
    (tmp_path / "data" / ".1234567890123456789-00002.tar").write_bytes(b"half written")
    records = open_records(tmp_path / "data")
    assert len(records) == 5
    for number in (4, 0, 3, 1, 2):  # in any order
        read, wanted = records.record(number), list(made.values())[number]
        assert (read.captions, read.entities) == (wanted.captions, wanted.entities)
        assert read.picture.tobytes() == wanted.picture.tobytes()
        assert all(np.array_equal(a, b) for a, b in zip(read.masks, wanted.masks, strict=True))
        assert [one.tobytes() for one in read.references] == [one.tobytes() for one in wanted.references]


def test_shards_may_be_made_by_tar(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "0.tar", [("000007", record(1)), ("000008", record(2))])
    packed_anew(tmp_path / "0.tar", tmp_path / "data" / "1.tar")
    records = Records(tmp_path / "data")
    assert [records.record(number).picture.tobytes() for number in range(len(records))] == [
        record(seed).picture.tobytes() for seed in (1, 2)
    ]


@pytest.mark.parametrize("spoil", ["empty", "cut", "box", "entities", "picture", "captions", "names", "second"])
def test_damaged_records_are_refused(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "0.tar"
    if spoil != "empty":
        write(path, [("0", record())])
    match spoil:
        case "cut":
            path.write_bytes(path.read_bytes()[:700])
        case "box":
            path.write_bytes(path.read_bytes().replace(b'"box": [0.0', b'"box": [9.0'))
        case "entities":
            path.write_bytes(path.read_bytes().replace(b'"noun"', b'"name"'))
        case "picture":
            path.write_bytes(path.read_bytes().replace(b"0.1.png", b"0.7.png"))
        case "captions":
            path.write_bytes(path.read_bytes().replace(b'"captions"', b'"passages"'))
        case "names":
            write(path, [("0", replace(record(), captions=["a [V] dog and a [W] cat, [sale]"]))])
        case "second":
            write(path, [("0", replace(record(nouns=("dog",)), captions=["a [W] dog"]))])
    with pytest.raises(BadOption) as error:
        Records(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("captions", [[], "a [V] dog"])
def test_captions_are_a_list_of_texts(tmp_path: Path, captions: Any) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        entity = {"noun": "dog", "box": [0, 0, 1, 1]}
        add(tar, "0.json", json.dumps({"captions": captions, "entities": [entity]}).encode())
        for part in ("png", "0.png", "ref0.png"):
            add(tar, f"0.{part}", b"")
    with pytest.raises(BadOption, match="the captions of 0 are no list of texts"):
        Records(tmp_path)


def test_a_damaged_picture_is_a_mistake_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    write(path, [("0", record())])
    path.write_bytes(path.read_bytes().replace(b"PNG", b"GNP"))
    with pytest.raises(BadOption, match="damaged"):
        Records(tmp_path).record(0)


def test_pictures_are_square_and_masks_of_their_size(tmp_path: Path) -> None:
    made = record()
    long = replace(made, picture=made.picture.resize((SIDE, SIDE // 2)), masks=[mask[::2] for mask in made.masks])
    small = replace(made, masks=[made.masks[0], made.masks[1][::2, ::2]])
    write(tmp_path / "0.tar", [("0", long), ("1", small), ("2", made)])
    records = Records(tmp_path)
    for number in (0, 1):
        with pytest.raises(BadOption, match=r"0\.tar .*not square") as error:
            records.record(number)
        assert "\n" not in str(error.value)
    assert records.record(2).picture.size == (SIDE, SIDE)


def test_shards_are_what_webdataset_reads(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", [("000007", record())])
    with tarfile.open(tmp_path / "0.tar") as tar:
        names = tar.getnames()
        told = json.load(tar.extractfile("000007.json"))  # type: ignore[arg-type]
    assert {name.partition(".")[0] for name in names} == {"000007"}
    assert sorted(name.partition(".")[2] for name in names) == ["0.png", "1.png", "json", "png", "ref0.png", "ref1.png"]
    assert [entity["noun"] for entity in told["entities"]] == ["dog", "cat"]


def test_marks_stand_before_whole_words() -> None:
    assert marked("a doghouse, a dog and a dog", ["dog"]) == "a doghouse, a [V] dog and a dog"
    assert marked("a cat on a dog", ["dog", "cat"]) == "a [W] cat on a [V] dog"


# Cutouts


@given(
    st.integers(1, 80), st.integers(1, 80),
    st.tuples(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0.01, 1), st.floats(0.01, 1)),
)  # fmt: skip
def test_boxes_hold_what_they_are_of(width: int, height: int, sides: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = sides
    mask = np.zeros((height, width), bool)
    box = pixels_of((left, top, max(left, right), max(top, bottom)), (width, height))
    mask[box[1] : box[3], box[0] : box[2]] = True
    assert mask.any()
    assert pixels_of(box_of(mask), (width, height)) == box


def test_a_cutout_shows_nothing_but_the_subject() -> None:
    made = record()
    cutout = made.references[0]
    assert cutout.mode == "RGBA"
    alpha = np.asarray(cutout.getchannel("A"))
    assert (alpha > 0).sum() == made.masks[0].sum()
    assert cutout.height < SIDE
    square = squared(cutout, 96, (10, 20, 30))
    assert square.size == (96, 96)
    pixels = np.asarray(square)
    assert (pixels[pixels[..., 3] == 0][:, :3] == (10, 20, 30)).all()
    assert (pixels[..., 3] > 0).any(0).sum() < 96  # it is taller than wide, and keeps its shape


# Filters, on things whose truth is known


def thing(box: Box, noun: str = "dog", score: float = 0.9, mask: Mask | None = None) -> Candidate:
    return Candidate(noun, score, box, disc(box) if mask is None else mask)


GOOD = (0.1, 0.1, 0.6, 0.7)
HOLLOW = disc(GOOD) & ~disc((0.13, 0.13, 0.57, 0.67))
DROPPED = {
    "not one word of the caption": [thing(GOOD, "horse")],
    "unsure": [thing(GOOD, score=0.3)],
    "too small or too large": [thing((0.1, 0.1, 0.3, 0.3))],
    "too long or too tall": [thing((0.0, 0.1, 1.0, 0.35))],
    "not filling its box": [thing(GOOD, mask=HOLLOW)],
    "larger than its box": [thing(GOOD, mask=np.ones((SIDE, SIDE), bool))],
    "over another": [thing(GOOD), thing((0.1, 0.1, 0.58, 0.7), "cat", 0.8)],
    "a third subject": [
        thing((0.0, 0.0, 0.45, 0.45)), thing((0.5, 0.0, 1.0, 0.45), "cat", 0.8), thing((0.0, 0.5, 0.5, 1.0), "cat", 0.7)
    ],
    "among too many things": [thing(GOOD), *(
        thing((0.2 + 0.1 * n, 0.2, 0.25 + 0.1 * n, 0.25), "cat", 0.1) for n in range(4))],
}  # fmt: skip


@pytest.mark.parametrize("reason", DROPPED)
def test_each_filter_drops_what_it_is_for(reason: str) -> None:
    dropped = Counter[str]()
    chosen = choose("a dog and a cat", DROPPED[reason], dropped)
    assert dropped[reason] == 1
    assert len(chosen) == {"over another": 1, "a third subject": 2}.get(reason, 0)


def test_a_part_of_a_word_is_no_subject() -> None:
    dropped = Counter[str]()
    assert not choose("a parasol", [thing(GOOD, "para")], dropped)
    assert dropped["not one word of the caption"] == 1


def test_good_things_pass_the_surest_first() -> None:
    dropped = Counter[str]()
    one, other = thing((0.0, 0.1, 0.45, 0.7), score=0.5), thing((0.5, 0.1, 1.0, 0.7), "cat", 0.8)
    assert choose("a dog and a cat", [one, other], dropped) == [other, one]
    assert not dropped


def test_goods_on_white_are_known() -> None:
    page = Image.new("RGB", (40, 40), (120, 90, 60))
    page.paste("white", (0, 0, 40, 4))
    assert not on_white(page)
    page.paste("white", (0, 0, 40, 5))
    assert on_white(page)


def test_overlap_is_of_the_union_and_of_the_smaller() -> None:
    assert overlap((0, 0, 0.5, 1), (0.5, 0, 1, 1)) == (0, 0)
    assert overlap((0, 0, 1, 1), (0, 0, 0.5, 0.5)) == pytest.approx((0.25, 1))


# Clay's own


@pytest.fixture(scope="module")
def clay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clay")
    render_records(folder, 6, 6, seed=1)
    return folder


def test_clays_records_have_references_of_other_pictures(clay: Path) -> None:
    records = open_records(clay)
    assert isinstance(records, ClayRecords)
    assert {len(records.record(number).entities) for number in range(len(records))} == {1, 2}
    for number in range(len(records)):
        place, made = records._places[number], records.record(number)
        scenes = (training_set if place.kind == "sets" else training_pair)(1, place.picture // SET)
        assert scenes[place.picture % SET] == place.scene
        assert made.picture.tobytes() == world.render(place.scene).image.tobytes()
        for entity, reference, known in zip(place.entities, made.references, place.references, strict=True):
            who = place.scene.entities[entity].subject
            assert all(scenes[picture % SET].entities[one].subject == who for picture, one in known)
            assert place.picture not in {picture for picture, _ in known}
            assert reference.mode == "RGBA"
            assert np.asarray(reference.getchannel("A")).any()


def test_clays_captions_mark_each_entity_before_its_noun(clay: Path) -> None:
    records = ClayRecords(clay)
    for number in range(len(records)):
        made = records.record(number)
        for caption in made.captions:
            words = caption.split()
            assert words.count("[V]") == 1
            assert words.count("[W]") == len(made.entities) - 1
            for mark, entity in zip(("[V]", "[W]"), made.entities, strict=False):
                assert words[words.index(mark) + 1].strip(",") == entity.noun
        for entity, mask in zip(made.entities, made.masks, strict=True):
            assert entity.box == box_of(mask)
    assert records.record(0).captions == ClayRecords(clay).record(0).captions


def test_rendering_goes_on_and_changes_nothing(clay: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in clay.rglob("*.npy")}
    assert len(before) == 4
    render_records(clay, 6, 6, seed=1)
    assert {path: path.stat().st_mtime_ns for path in clay.rglob("*.npy")} == before
