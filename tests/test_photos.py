import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pictures import exif_of
from PIL import Image, ImageCms, ImageFilter, ImageOps

from persona.errors import BadPhotos
from persona.events import Event, Note
from persona.photos import Photo, advise, buckets, crops, masks, read
from persona.photos.advice import blur
from persona.photos.buckets import _crop


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Draw sharp patches of colour, another picture for each seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.NEAREST)


def photo(image: Image.Image, name: str = "a.png", sha256: str = "0" * 64) -> Photo:
    return Photo(name, image, None, sha256)


def told(folder: Path) -> tuple[list[Photo], list[Note]]:
    events: list[Event] = []
    photos = read(folder, events.append)
    return photos, [event for event in events if isinstance(event, Note)]


def texts(notes: list[Note]) -> str:
    return "\n".join(note.text for note in notes)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "JPG", "webp", "avif", "heic"])
def test_every_format_that_people_have(tmp_path: Path, suffix: str) -> None:
    picture().save(tmp_path / f"photo.{suffix}", {"jpg": "JPEG", "heic": "HEIF"}.get(suffix.lower()))
    (found,) = read(tmp_path)
    assert (found.image.mode, found.image.size) == ("RGB", (96, 64))
    seen, drawn = np.asarray(found.image, float), np.asarray(picture(), float)
    assert abs(seen - drawn).mean() < 12  # what lossy formats leave of hard edges


def test_what_was_cut_out_says_where_the_subject_is(tmp_path: Path) -> None:
    cut, alpha = picture(size=(2000, 1700)), Image.new("L", (2000, 1700))
    alpha.paste(255, (0, 0, 1000, 1700))
    cut.putalpha(alpha)
    cut.save(tmp_path / "a.png")
    opaque = picture()
    opaque.putalpha(255)
    opaque.save(tmp_path / "b.png")
    picture().quantize(8).save(tmp_path / "c.png", transparency=0)
    found, whole, indexed = read(tmp_path)
    assert found.mask is not None
    assert found.mask.size == found.image.size
    assert [found.mask.getpixel((x, 800)) for x in (100, 1700)] == [255, 0]
    assert whole.mask is None
    assert indexed.mask is not None


def test_both_pictures_of_a_stereo_camera_count_as_one(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[picture(1)])
    (found,) = read(tmp_path)
    assert found.image.size == (96, 64)


def test_wide_colours_are_brought_into_srgb(tmp_path: Path) -> None:
    linear = ImageCms.ImageCmsProfile(io.BytesIO(_linear_profile()))
    grey = Image.new("RGB", (8, 8), (55, 55, 55))
    grey.save(tmp_path / "linear.png", icc_profile=linear.tobytes())
    grey.save(tmp_path / "broken.png", icc_profile=b"no profile")
    broken, converted = read(tmp_path)
    assert broken.image.getpixel((0, 0)) == (55, 55, 55)
    assert converted.image.getpixel((0, 0)) == pytest.approx((128, 128, 128), abs=3)  # linear 0.216 is half to the eye


def _linear_profile() -> bytes:
    """Return the sRGB profile with its curves replaced by straight lines."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag in range(int.from_bytes(profile[128:132], "big")):
        name = bytes(profile[132 + 12 * tag : 136 + 12 * tag])
        start = int.from_bytes(profile[136 + 12 * tag : 140 + 12 * tag], "big")
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[start : start + 16] = b"para" + bytes(8) + (1 << 16).to_bytes(4, "big")  # power law of power 1
    return bytes(profile)


def test_a_photo_that_may_not_be_read_is_skipped_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine.png", "theirs.png"):
        picture().save(tmp_path / name)
    opened = Image.open

    def guarded(path: Path, **how: Any) -> Image.Image:
        if path.name == "theirs.png":
            raise PermissionError(13, "Permission denied")
        return opened(path, **how)

    monkeypatch.setattr(Image, "open", guarded)
    photos, notes = told(tmp_path)
    assert [found.name for found in photos] == ["mine.png"]
    assert "theirs.png: damaged or unreadable" in texts(notes)


def test_a_file_is_known_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    picture().save(tmp_path / "really-a-jpeg.png", "JPEG")
    picture(1).save(tmp_path / "no-suffix", "PNG")
    assert [found.name for found in read(tmp_path)] == ["no-suffix", "really-a-jpeg.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_taken_sideways_stands_upright(tmp_path: Path, orientation: int) -> None:
    picture().save(tmp_path / "a.png", exif=exif_of((0x0112, 3, orientation)))
    (found,) = read(tmp_path)
    with Image.open(tmp_path / "a.png") as image:
        assert found.image.tobytes() == ImageOps.exif_transpose(image).tobytes()
    if orientation == 6:  # the camera was turned a quarter clockwise
        assert found.image.tobytes() == picture().rotate(-90, expand=True).tobytes()


@pytest.mark.parametrize(("kind", "value"), [(2, 0), (10, 38)], ids=["text", "negative"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "HEIF"])
def test_odd_metadata_of_a_sideways_photo_is_let_pass(tmp_path: Path, form: str, kind: int, value: int) -> None:
    """A resolution that is text, or below zero, is no reason to do without a sound photo."""
    picture().save(tmp_path / "a", form, exif=exif_of((0x0112, 3, 6), (0x011A, kind, value)))
    photos, notes = told(tmp_path)
    assert [found.image.size for found in photos] == [(64, 96)]
    assert "a:" not in texts(notes)


def deep() -> Image.Image:
    return Image.fromarray(np.full((8, 8), 0x8080, np.uint16))


@pytest.mark.parametrize(
    ("make", "colour"),
    [
        (lambda: Image.new("L", (8, 8), 200), (200, 200, 200)),
        (lambda: Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)),
        (lambda: Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (255, 255, 255)),
        (lambda: Image.new("RGBA", (8, 8), (255, 0, 0, 128)), (255, 127, 127)),
        (lambda: Image.new("1", (8, 8), 1), (255, 255, 255)),
        (lambda: Image.new("RGB", (8, 8), (9, 8, 7)).quantize(4), (9, 8, 7)),
        (deep, (128, 128, 128)),
    ],
    ids=["grey", "grey-alpha", "clear", "half-clear", "bits", "palette", "16-bit"],
)
def test_every_mode_becomes_rgb(tmp_path: Path, make: Callable[[], Image.Image], colour: tuple[int, int, int]) -> None:
    make().save(tmp_path / "a.png")
    (found,) = read(tmp_path)
    assert found.image.mode == "RGB"
    assert found.image.getpixel((0, 0)) == colour


def test_a_large_photo_is_kept_at_a_size_that_memory_bears(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 3000)).save(tmp_path / "a.jpg")
    (found,) = read(tmp_path)
    assert found.image.size == (2048, 1536)
    (found,) = read(tmp_path, side=2400)
    assert found.image.size == (3200, 2400)


def test_captions_lie_beside_the_photos(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(ord(name)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("\ufeffa [V] dog\n  on grass \n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("caf\xe9 [V] dog\r\n", encoding="utf-16")  # as Windows PowerShell 5 does
    (tmp_path / "c.txt").write_text("  \n")
    photos, notes = told(tmp_path)
    assert [found.caption for found in photos] == ["a [V] dog on grass", "caf\xe9 [V] dog", None]
    assert "txt" not in texts(notes)


def test_a_caption_that_is_no_text_is_not_learnt(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 dog")
    with pytest.raises(BadPhotos, match=r"a\.txt cannot be read: it is no UTF-8 text\. Save it as UTF-8\."):
        told(tmp_path)


def test_strays_are_skipped_with_a_word_and_damage_with_a_warning(tmp_path: Path) -> None:
    for seed in range(3):
        picture(seed).save(tmp_path / f"{seed}.png")
    good = tmp_path / "0.png"
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-60])
    (tmp_path / "wrong.jpg").write_bytes(b"no jpeg at all")
    (tmp_path / "notes.md").write_text("walked the dog")
    (tmp_path / "lonely.txt").write_text("a caption of nothing")
    (tmp_path / "1.Txt").write_text("a caption that is not read")
    (tmp_path / "older").mkdir()
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    photos, notes = told(tmp_path)
    assert [found.name for found in photos] == ["0.png", "1.png", "2.png"]
    word, warning = notes
    assert not word.warning
    assert all(name in word.text for name in ("lonely.txt", "1.Txt", "notes.md", "older"))
    assert warning.warning
    assert all(name in warning.text for name in ("cut.png", "wrong.jpg"))
    assert "DS_Store" not in texts(notes)


def giant_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    picture().save(tmp_path / "good.png")
    (tmp_path / "bomb.png").write_bytes(giant_png())
    with pytest.raises(BadPhotos, match=r"bomb\.png .* take it out"):
        read(tmp_path)


def test_folders_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPhotos, match="There is no folder"):
        read(tmp_path / "absent")
    with pytest.raises(BadPhotos, match="There are no photos"):
        read(tmp_path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(BadPhotos, match="Name the folder inside"):
        read(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BadPhotos, match=r"can be read \(a\.jpg\)"):
        read(tmp_path)
    with pytest.raises(BadPhotos, match="is a file"):
        read(tmp_path / "a.jpg")


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(BadPhotos, match=r"cannot be read: Permission denied"):
        read(tmp_path)


@settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "AVIF"]))
def test_damaged_bytes_never_break_the_run(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("photos")
    buffer = io.BytesIO()
    picture(size=(24, 16)).save(buffer, kind)
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged.jpg").write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    picture(1).save(folder / "good.png")
    try:
        photos, notes = told(folder)
    except BadPhotos:
        return  # the damage made a giant of it
    assert len(photos) == 2 or "damaged.jpg" in texts(notes)
    assert all(found.image.mode == "RGB" for found in photos)


def test_advice_names_copies_blur_and_one_background() -> None:
    sharp = [photo(picture(seed), f"{seed}.png", f"{seed:064}") for seed in range(4)]
    assert list(advise(sharp)) == []
    assert "twice" in texts(list(advise([*sharp, sharp[0]])))
    softer = photo(picture().filter(ImageFilter.GaussianBlur(1)), "soft.png", "f" * 64)
    assert "0.png ~ soft.png" in texts(list(advise([*sharp, softer])))
    blurred = photo(picture().filter(ImageFilter.GaussianBlur(4)), "blurred.png", "f" * 64)
    assert "blurred.png: blurred" in texts(list(advise([*sharp, blurred])))

    clear = replace(photo(Image.new("RGB", (96, 64), "white"), "clear.png", "e" * 64), mask=Image.new("L", (96, 64)))
    assert "clear.png: fully transparent" in texts(list(advise([*sharp, clear])))

    same_wall = []
    for seed in range(3):
        wall = Image.new("RGB", (96, 96), "tan")
        wall.paste(picture(seed, (40, 40)), (28, 28))
        same_wall.append(photo(wall, f"{seed}.png", f"{seed:064}"))
    assert "background is the same" in texts(list(advise(same_wall)))


def test_advice_on_how_many() -> None:
    assert "three to six" in texts(list(advise([photo(picture())])))
    many = [photo(picture(seed), f"{seed}.png", f"{seed:064}") for seed in range(60)]
    assert "60 photos" in texts(list(advise(many)))


def test_blur_is_known_whatever_the_size_and_of_a_blank() -> None:
    assert blur(Image.new("RGB", (3, 500))) == 0
    for size in ((120, 80), (1200, 800)):
        assert blur(picture(size=size)) < 0.5 < blur(picture(size=size).filter(ImageFilter.GaussianBlur(size[0] / 20)))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=12),
    resolution=st.sampled_from([64, 128, 512, 1024]),
    multiple_of=st.sampled_from([8, 16, 64]),
    widest=st.sampled_from([1.0, 1.5, 2.0]),
)
def test_no_photo_is_ever_dropped(
    sizes: list[tuple[int, int]], resolution: int, multiple_of: int, widest: float
) -> None:
    photos = [photo(Image.new("1", (1, 1)), str(number)) for number in range(len(sizes))]
    for one, size in zip(photos, sizes, strict=True):
        one.image._size = size
    found = buckets(photos, resolution, multiple_of, widest)
    assert sorted(one.name for bucket in found.values() for one in bucket) == sorted(one.name for one in photos)
    for (width, height), bucket in found.items():
        assert width % multiple_of == height % multiple_of == 0
        assert all((one.image.width >= one.image.height) == (width >= height) or width == height for one in bucket)
        if resolution >= 4 * multiple_of:
            assert 0.6 < width * height / resolution**2 < 1.5


def test_buckets_have_the_shape_of_the_photos_and_say_what_is_too_small() -> None:
    events: list[Event] = []
    wide, tall, square = photo(Image.new("L", (1600, 900))), photo(Image.new("L", (900, 1200))), photo(picture())
    found = buckets([wide, tall, square], 512, 8, listener=events.append)
    assert found == {(680, 384): [wide], (440, 592): [tall], (624, 416): [square]}
    (note,) = events
    assert isinstance(note, Note)
    assert "a.png (96x64): smaller than the 512 pixels" in note.text
    assert buckets([wide, tall], 128, 8, widest=1) == {(128, 128): [wide, tall]}


def test_masks_are_cut_as_their_photos_are() -> None:
    mask = Image.new("L", (300, 200))
    mask.paste(255, (40, 30, 170, 190))
    one = replace(photo(mask.convert("RGB")), mask=mask)
    how: dict[str, Any] = {"size": (96, 64), "count": 3, "flip": True, "seed": 5}
    shown = masks(one, **how)
    assert shown is not None
    torch.testing.assert_close(shown * 2 - 1, crops(one, **how)[:, 0])
    assert masks(photo(picture()), **how) is None


@pytest.mark.parametrize(
    ("subject", "share"), [((0, 20, 60, 80), 0.36), ((190, 20, 250, 80), 0.36), ((0, 0, 150, 100), 1.0)]
)
def test_each_crop_of_a_cut_out_shows_what_it_can_of_the_subject(
    subject: tuple[int, int, int, int], share: float
) -> None:
    """Be it all of it, which the middle of this picture does not show, or nothing else."""
    mask = Image.new("L", (250, 100), 20)  # with the haze that programs leave
    mask.paste(255, subject)
    one = replace(photo(mask.convert("RGB")), mask=mask)
    shown = masks(one, (64, 64), count=4, flip=True, seed=0)
    assert shown is not None
    assert ((shown > 0.5).float().mean((1, 2)) > 0.95 * share).all()


@given(
    size=st.tuples(st.integers(1, 1600), st.integers(1, 1600)),
    multiple_of=st.sampled_from([8, 16, 32, 64]),
    where=st.tuples(*[st.floats(0, 1)] * 3),
)
@example(size=(1200, 900), multiple_of=64, where=(0, 0.5, 0.5))  # whose crop would begin a hair above the picture
def test_a_photo_of_any_size_can_be_cut(
    size: tuple[int, int], multiple_of: int, where: tuple[float, float, float]
) -> None:
    one = photo(Image.new("RGB", size))
    (shape,) = buckets([one], 512, multiple_of)
    assert _crop(one.image, shape, 1 + where[0], *where[1:]).size == shape


def test_crops_are_reproducible_and_stay_on_the_photo() -> None:
    one = photo(picture(size=(300, 200)))
    first = crops(one, (96, 64), count=3, flip=True, seed=5)
    assert first.shape == (6, 3, 64, 96)
    assert first.dtype == torch.float32
    assert -1 <= first.min() < -0.5
    assert 0.5 < first.max() <= 1
    assert torch.equal(first, crops(one, (96, 64), count=3, flip=True, seed=5))
    assert not torch.equal(first[1], crops(one, (96, 64), count=3, flip=True, seed=6)[1])
    assert not torch.equal(first[1], first[2])
    assert torch.equal(first[3:], first[:3].flip(-1))
    whole = np.asarray(one.image.resize((96, 64), Image.Resampling.LANCZOS), np.float32)
    assert np.abs(first[0].permute(1, 2, 0).numpy() - whole / 127.5 + 1).max() < 0.1


def test_what_is_cut_out_has_no_background_to_vary() -> None:
    shown = []
    for seed in range(3):
        white, mask = Image.new("RGB", (96, 96), "white"), Image.new("L", (96, 96), 0)
        white.paste(picture(seed, (48, 48)).point(lambda value: value // 3), (24, 24))
        mask.paste(255, (24, 24, 72, 72))
        shown.append(replace(photo(white, f"{seed}.png", f"{seed:064}"), mask=mask))
    whole = texts(list(advise([replace(one, mask=None) for one in shown])))
    assert "Nearly the same" in whole
    assert "background is the same" in whole
    assert list(advise(shown)) == []
