"""The networks that say what pictures show, as tiny ones of the real classes, and where they are found."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hub_cache
import huggingface_hub
import numpy as np
import pytest
import tiny_networks
import torch
from numpy.random import default_rng
from PIL import Image
from transformers import GroundingDinoForObjectDetection

from persona import encoder, hub, labelling
from persona.errors import BadOption
from persona.events import Event, Note
from persona.labelling import Captioner, Detector, Sam, Tagger


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_networks.save(
        tmp_path_factory.mktemp("networks"), "blip2", "tagger", "detector", "sam", "clip-vit-base-patch32"
    )


def pictures(number: int = 2) -> list[Image.Image]:
    random = default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8)) for _ in range(number)]


def test_pictures_are_captioned(networks: Path) -> None:
    captioner = Captioner(networks / "blip2")
    captions = captioner.captions(pictures())
    assert len(captions) == 2
    assert captions[0] == captioner.captions(pictures(1))[0]
    assert all(caption == caption.lower().strip() and "<" not in caption for caption in captions)


def test_captions_have_no_names(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = Captioner(networks / "blip2")
    monkeypatch.setattr(captioner._processor, "batch_decode", lambda *_, **__: ["A sign that says [ SALE ] on [v]."])
    assert captioner.captions(pictures(1)) == ["a sign that says sale on v"]


def test_nouns_are_told_by_their_words(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagger = Tagger(networks / "tagger")
    assert tagger.nouns(["dog cat dog.", "a"]) == [["dog", "cat"], ["a"]]
    monkeypatch.setattr(tagger, "_noun", 0)
    assert tagger.nouns(["dog cat dog.", "a"]) == [[], []]


def test_things_are_found_with_their_boxes(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(networks / "detector")
    monkeypatch.setattr(labelling, "BOX_THRESHOLD", 0.0)
    monkeypatch.setattr(labelling, "TEXT_THRESHOLD", 0.0)
    (picture,) = pictures(1)
    found = detector.find(picture, ["dog", "cat"])
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    net = GroundingDinoForObjectDetection.from_pretrained(networks / "detector")
    with torch.no_grad():
        said = net(**detector._processor(images=picture, text="dog. cat.", return_tensors="pt")).pred_boxes[0]
    assert len(found) == len(said) > 0
    boxes = [(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2) for x, y, wide, high in said.tolist()]
    for one, box in zip(sorted(one.box for one in found), sorted(boxes), strict=True):
        assert one == pytest.approx(np.clip(box, 0, 1), abs=1e-4)


def test_boxes_and_the_middle_have_masks(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sam, (picture,) = Sam(networks / "sam"), pictures(1)
    asked: list[dict[str, Any]] = []
    seen = sam._seen

    def noted(*given: Any, **prompts: Any) -> torch.Tensor:
        asked.append(prompts)
        return seen(*given, **prompts)

    monkeypatch.setattr(sam, "_seen", noted)
    masks = sam.masks(picture, [(0.125, 0.25, 0.5, 0.75), (0.5, 0.25, 1, 0.5)])
    assert [(mask.shape, mask.dtype.kind) for mask in masks] == [((48, 64), "b")] * 2
    assert asked.pop()["input_boxes"] == [[[8, 12, 32, 36], [32, 12, 64, 24]]]  # left, top, right, bottom in pixels
    answers = np.zeros((1, 3, 48, 64), bool)
    # The first would be in the middle of a picture as high as this is wide; the last is, but next to nothing.
    answers[0, 0, 26:38, 18:30] = answers[0, 1, 18:30, 29:41] = answers[0, 2, 24, 32] = True
    seen = lambda *_, **__: torch.from_numpy(answers)  # noqa: E731
    subject = sam.subject(picture)
    assert subject is not None
    assert np.array_equal(subject, answers[0, 1])
    assert asked.pop()["input_points"] == [[[[32, 24]]]]


@pytest.mark.parametrize("kind", [Captioner, Tagger, Detector, Sam])
def test_other_folders_are_refused(kind: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(BadOption) as error:
        kind(tmp_path)
    assert "\n" not in str(error.value)


def test_a_damaged_clip_is_refused(networks: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(networks / "clip-vit-base-patch32", tmp_path / "clip")
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(BadOption, match="holds no CLIP"):
        encoder.load(str(folder))


def test_clip_looks_at_the_subject_alone(networks: Path) -> None:
    clip = encoder.load(str(networks / "clip-vit-base-patch32"))
    one, other = pictures()
    alpha = Image.new("L", one.size)
    alpha.paste(255, (10, 10, 40, 40))
    other.paste(one, mask=alpha)
    for picture in (one, other):
        picture.putalpha(alpha)
    tokens = clip.encode([one, other])
    assert tokens.shape == (2, 1 + clip.tokens, clip.width) == (2, 1 + 16, 16)
    assert np.allclose(tokens[0], tokens[1], atol=1e-5)
    one.putalpha(255)
    assert not np.allclose(clip.encode([one])[0], tokens[0], atol=1e-3)


# Where networks are


def test_what_is_fetched_is_told_with_its_size(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches: list[str] = []

    def snapshot_download(name: str, *, local_files_only: bool = False, **_: Any) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        fetches.append(name)
        return str(networks / "sam")

    files = [("model.safetensors", 2_000_000_000), ("pytorch_model.bin", 9_000_000_000), ("config.json", 1000)]
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in files])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    told: list[Event] = []
    folders = hub.fetched(["someone/blip", str(networks / "tagger"), "someone/sam"], told.append)
    assert folders == [networks / "sam", networks / "tagger", networks / "sam"]
    assert fetches == ["someone/blip", "someone/sam"]
    assert told == [Note("Fetching 4.0 GB: someone/blip (2.0 GB), someone/sam (2.0 GB).")]


def test_what_was_fetched_of_a_repository_is_found_again(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(networks / "sam", tmp_path / "copy")
    folder = hub_cache.fetched(monkeypatch, "someone/sam", copy, others=["pytorch_model.bin", "merges.txt"])
    assert hub.here("someone/sam") == folder
    (folder / "model.safetensors").rename(folder / "of_another_program.safetensors")
    assert hub.here("someone/sam") is None


def test_the_one_that_cannot_be_fetched_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def model_info(_: object, name: str, **__: Any) -> Any:
        if name == "someone/sam":
            raise OSError("it is gated")
        return SimpleNamespace(siblings=[])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    with pytest.raises(BadOption, match=r"^someone/sam .* it is gated\."):
        hub.fetched(["someone/blip", "someone/sam"])


@pytest.mark.parametrize("index", [b'{"weight_map": {"a": "model-0', b"\xff", b"[]", b"{}", b'{"weight_map": ["a"]}'])
def test_a_damaged_list_of_weights_is_told(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(BadOption, match=r"holds no model\.safetensors, or not all"):
        hub.fetched([str(tmp_path)])


def test_what_cannot_be_had_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"nobody/nothing is not on this disk and cannot be fetched: .*\. Try again"):
        hub.fetched(["nobody/nothing"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadOption, match=r"holds no model\.safetensors"):
        hub.fetched([str(tmp_path)])
