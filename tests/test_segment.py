"""Subjects cut out of references: by what is said, and by themselves."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_networks
import torch
from numpy.random import default_rng
from PIL import Image
from safetensors.torch import save
from torch.nn.functional import cross_entropy

from persona import encoder, segment
from persona.clay import world
from persona.clay.encoder import Encoder
from persona.clay.judge import as_tensor
from persona.clay.segmenter import Segmenter
from persona.errors import BadBase, BadOption
from persona.events import Event, Note
from persona.photos.cutouts import cut
from persona.pretrain.clay.encoding import as_patches

SIZE = (60, 40)
OTHERS = {"encoder": "{}", "segmenter": '{"classes": []}'}
"""How networks were made whose weights have other names."""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a base that ships nothing, on a machine without anything that cuts out."""
    monkeypatch.setattr(segment, "find_spec", lambda name: None)
    monkeypatch.setattr(segment, "here", lambda name: None)
    return SimpleNamespace(folder=tmp_path, device="cpu")


def picture() -> Image.Image:
    return Image.fromarray(default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8))


def mask(*box: int, mode: str = "L") -> Image.Image:
    page = Image.new("L", SIZE)
    if box:
        page.paste(255, (box[0], box[1], box[2], box[3]))
    return page.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_a_mask_says_where_the_subject_is(base: Any, mode: str) -> None:
    cutout = segment.cut_out(picture(), base=base, mask=mask(10, 5, 50, 30, mode=mode))
    assert cutout.mode == "RGBA"
    assert cutout.size == (44, 29)  # with a margin of a twentieth
    alpha = np.asarray(cutout.getchannel("A"))
    assert alpha[2:27, 2:42].min() == 255
    assert (alpha > 0).sum() == 40 * 25
    assert cutout.convert("RGB").tobytes() == picture().crop((8, 3, 52, 32)).tobytes()


def test_a_box_holds_the_subject(base: Any) -> None:
    told: list[Event] = []
    whole = segment.find(picture(), base=base, box=(0.5, 0, 1, 0.5), listener=told.append)
    assert np.array_equal(whole, np.asarray(mask(30, 0, 60, 20)) > 0)
    assert "all of its box counts as the subject" in str(told[0])
    masked = segment.find(picture(), base=base, mask=mask(10, 5, 50, 30), box=(0.5, 0, 1, 0.5))
    assert np.array_equal(masked, np.asarray(mask(30, 5, 50, 20)) > 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mask": mask(0, 0, 9, 9), "box": (0.5, 0.5, 1, 1)}, "in its box. Give another box."),
        ({"mask": mask()}, "in its image. Give another image."),
    ],
)
def test_a_subject_that_is_not_there_is_refused(base: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=f"^There is nothing of the subject {said}$"):
        segment.cut_out(picture(), base=base, **given)


# By themselves


def test_without_anything_it_is_the_whole_picture_and_a_warning(base: Any) -> None:
    told: list[Event] = []
    assert segment.cut_out(picture(), base=base, listener=told.append).size == SIZE
    assert [event.warning for event in told if isinstance(event, Note)] == [True]
    assert "--mask" in str(told[0])


def test_rembg_cuts_where_it_is_installed(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "find_spec", lambda name: True)
    module = SimpleNamespace(remove=lambda given, *, only_mask: mask(10, 5, 50, 30) if only_mask else None)
    monkeypatch.setitem(sys.modules, "rembg", module)
    assert segment.find(picture(), base=base).sum() == 40 * 25

    def broken(given: Image.Image, *, only_mask: bool) -> Image.Image:
        raise RuntimeError("no network")

    monkeypatch.setattr(module, "remove", broken)
    told: list[Event] = []
    assert segment.find(picture(), base=base, listener=told.append).all()
    assert "RuntimeError" in str(told[-1])
    monkeypatch.setitem(sys.modules, "rembg", None)
    assert segment.find(picture(), base=base, listener=told.append).all()
    assert "rembg failed (ModuleNotFoundError)" in str(told[-1])


def test_a_rembg_without_its_runtime_is_left_alone(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "find_spec", lambda name: name == "rembg")
    monkeypatch.setitem(sys.modules, "rembg", None)
    told: list[Event] = []
    segment.find(picture(), base=base, listener=told.append)
    assert 'pip install "rembg[cpu]"' in str(told)


def test_a_sam_on_the_disk_cuts(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_networks.save(tmp_path, "sam") / "sam"
    monkeypatch.setattr(segment, "here", lambda name: folder if name == segment.SAMS[-1] else None)
    told: list[Event] = []
    assert segment.find(picture(), base=base, listener=told.append).shape == SIZE[::-1]
    assert "SAM" in str(told[0])


def test_a_sam_is_shown_the_box(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seeing(SimpleNamespace):
        def masks(self, seen: Image.Image, boxes: list[Any]) -> list[Any]:
            assert boxes == [(0.5, 0, 1, 0.5)]
            return [np.asarray(mask(20, 5, 50, 30)) > 0]

    monkeypatch.setattr(segment, "here", lambda name: tmp_path)
    monkeypatch.setattr("persona.labelling.Sam", lambda *_: Seeing())
    found = segment.find(picture(), base=base, box=(0.5, 0, 1, 0.5))
    assert np.array_equal(found, np.asarray(mask(30, 5, 50, 20)) > 0)


# Clay's own


def scenes(number: int) -> list[world.Render]:
    rng = default_rng(0)
    who = [world.random_subject(rng, noun) for noun in ("dog", "car") * number][:number]
    return [world.render(world.Scene((world.Entity(one),), "snow", "side", seed=seed)) for seed, one in enumerate(who)]


def test_a_segmenter_learns_and_cuts(base: Any, tmp_path: Path) -> None:
    rendered = scenes(6)
    pictures = as_tensor([one.image for one in rendered])
    torch.manual_seed(0)
    segmenter = Segmenter(["dog", "car"], widths=(16, 24))
    labels = torch.stack([torch.from_numpy(one.masks[0]).long() * (1 + n % 2) for n, one in enumerate(rendered)])
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=1e-2)
    for _ in range(40):
        cross_entropy(segmenter(pictures), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    segmenter.eval().save(tmp_path / "segmenter")
    again = Segmenter.load(tmp_path / "segmenter")
    assert not any(parameter.requires_grad for parameter in again.parameters())
    found = segment.find(rendered[0].image, base=base)  # the base ships it now
    true = rendered[0].masks[0]
    assert (found & true).sum() / (found | true).sum() > 0.6
    half = np.arange(128) < 64
    assert 0 < (found & half).sum() < found.sum()
    assert np.array_equal(segment.find(rendered[0].image, base=base, box=(0, 0, 0.5, 1)), found & half)
    large = rendered[0].image.resize((200, 160))
    assert again.masks([large])[0].shape == (160, 200)
    dog, car = (again.masks([rendered[0].image], noun)[0].sum() for noun in ("dog", "car"))
    assert dog > car
    assert again.masks([rendered[0].image], "giraffe")[0].sum() == found.sum()


def test_the_encoder_is_the_same_after_a_trip_to_disk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = Encoder(widths=(8, 12, 16), depth=1).eval()
    made.save(tmp_path / "encoder")
    loaded = encoder.load(str(tmp_path))
    one, other = (cut(render.image, render.masks[0]) for render in scenes(2))
    tokens = loaded.encode([one, other])
    assert tokens.shape == (2, 1 + loaded.tokens, loaded.width) == (2, 1 + 64, 16)
    assert tokens.dtype == torch.float32
    assert not tokens.requires_grad
    assert torch.allclose(tokens, made.encode([one, other]), atol=0.05)  # float16 on disk
    assert torch.allclose(tokens[:1], loaded.encode([one]), atol=1e-5)
    painted = Image.new("RGBA", one.size, (255, 0, 0, 0))
    painted.paste(one, mask=one.getchannel("A"))
    assert torch.equal(loaded.encode([painted]), loaded.encode([one]))  # what is transparent is not seen


@pytest.mark.parametrize("network", ["encoder", "segmenter"])
@pytest.mark.parametrize("made", [None, {}, {"encoder": "no sizes", "segmenter": "no sizes"}, OTHERS])
def test_a_damaged_network_is_refused(base: Any, tmp_path: Path, network: str, made: dict[str, str] | None) -> None:
    (tmp_path / network).mkdir()
    (tmp_path / network / f"{network}.safetensors").write_bytes(b"cut off" if made is None else save({}, made))
    with pytest.raises(BadBase, match=f"{network} in .* is damaged, or of another version. Fetch or copy") as error:
        encoder.load(str(tmp_path)) if network == "encoder" else segment.find(picture(), base=base)
    assert "\n" not in str(error.value)


def test_clay_without_an_encoder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persona.clay.weights_folder", lambda: tmp_path)
    with pytest.raises(BadOption, match="no image encoder"):
        encoder.load("clay")


def test_patches_tell_of_their_own_place() -> None:
    shown = torch.zeros(1, 4, 128, 128)
    shown[0, 0, 16:32, 32:48] = 1  # row 1, column 2 of the patches
    shown[0, 3, :16] = 1
    colours, where = as_patches(shown, 64, 8)
    assert colours.shape == where.shape == (1, 64, 192)
    assert colours.abs().sum(2).nonzero()[:, 1].tolist() == [8 + 2]
    assert where.amax(2).nonzero()[:, 1].tolist() == list(range(8))
