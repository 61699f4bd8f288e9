"""The networks of the papers: how pictures are put before them, and what is said where they cannot be had."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_networks
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel, CLIPSegForImageSegmentation, ViTModel

from persona import networks as networks_of_papers
from persona import score
from persona.families import Family
from persona.networks import DINO, Networks

NAMES = ("dino-vits16", "clip-vit-base-patch32", "clipseg-rd64-refined")
SIZES = [(300, 200), (64, 64), (224, 500)]


def pictures() -> list[Image.Image]:
    colours = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    return [
        Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one, size in zip(colours, SIZES, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_networks.save(tmp_path_factory.mktemp("networks"), *NAMES)


@pytest.fixture(scope="module")
def networks(folder: Path) -> Networks:
    return Networks.find(folder)


def test_what_is_no_folder_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name is that of a repository to transformers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks_of_papers, "Dino", lambda *_: pytest.fail("it was asked for"))
    assert Networks.find(Path("nowhere")).dino is None


def by_hand(picture: Image.Image, side: int, mean: list[float], deviation: list[float]) -> torch.Tensor:
    """Scale the shorter side, cut 224 from the middle, take off the mean: as the networks' authors do."""
    scale = side / min(picture.size)
    wide = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (wide.width - 224) // 2, (wide.height - 224) // 2
    pixels = np.asarray(wide.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return torch.from_numpy(((pixels - mean) / deviation).astype(np.float32)).permute(2, 0, 1)[None]


def test_dino_reads_the_class_token_of_the_middle(networks: Networks, folder: Path) -> None:
    assert networks.dino
    net = ViTModel.from_pretrained(folder / "dino-vits16", add_pooling_layer=False)
    found = networks.dino.embed(pictures())
    assert found.shape == (3, 16)
    for row, picture in zip(found, pictures(), strict=True):
        pixels = by_hand(picture, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        with torch.no_grad():
            token = net(pixel_values=pixels).last_hidden_state[0, 0]
        assert torch.allclose(row, token / token.norm(), atol=1e-5)


def test_clip_reads_pictures_and_texts(networks: Networks, folder: Path) -> None:
    assert networks.clip
    net = CLIPModel.from_pretrained(folder / "clip-vit-base-patch32")
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    pixels = torch.cat([by_hand(picture, 224, mean, deviation) for picture in pictures()])
    tokens = networks.clip._tokenizer(["a dog", "a red cat in the snow"], padding=True, return_tensors="pt")
    with torch.no_grad():
        out = net(pixel_values=pixels, **tokens)
    assert torch.allclose(networks.clip.embed(pictures()), out.image_embeds, atol=1e-5)
    assert torch.allclose(networks.clip.texts(["a dog", "a red cat in the snow"]), out.text_embeds, atol=1e-5)
    assert networks.clip.texts(["a dog " * 500]).isfinite().all()


def test_what_is_seen_does_not_depend_on_the_batch(networks: Networks) -> None:
    assert networks.dino
    many = pictures() * 12  # more than are seen at a time
    assert torch.allclose(networks.dino.embed(many)[-3:], networks.dino.embed(pictures()), atol=1e-5)


def test_masks_have_the_sizes_of_their_pictures(networks: Networks) -> None:
    assert networks.segmenter
    masks = networks.segmenter.masks(pictures(), "dog")
    assert [mask.shape for mask in masks] == [size[::-1] for size in SIZES]
    assert all(mask.dtype == bool for mask in masks)


def test_masks_are_where_clipseg_says_yes(networks: Networks, folder: Path) -> None:
    assert networks.segmenter
    picture = pictures()[0].resize((352, 352))  # as large as its answer
    (mask,) = networks.segmenter.masks([picture], "dog")
    net = CLIPSegForImageSegmentation.from_pretrained(folder / "clipseg-rd64-refined")
    tokens = AutoTokenizer.from_pretrained(folder / "clipseg-rd64-refined")(["dog"], return_tensors="pt")
    pixels = (np.asarray(picture, np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        said = net(**tokens, pixel_values=torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]).logits
    assert (mask == (said.view(352, 352).numpy() > 0)).mean() > 0.99
    assert 0.1 < mask.mean() < 0.9


def test_what_cannot_be_had_is_said_with_how_to_have_it(tmp_path: Path) -> None:
    found = Networks.find(tiny_networks.save(tmp_path, "clip-vit-base-patch32"))
    assert found.clip
    assert (found.dino, found.segmenter) == (None, None)
    parts = '--include "*.json" --include "*.txt" --include "*.safetensors"'
    how = f"hf download {DINO} --revision refs/pr/1 {parts} --local-dir dino-vits16"
    told = f"DINO is not available here, and left out. To get it, type in the folder of --networks: {how}"
    assert told in found.missing  # it is kept with the figures, and names no path
    assert not any(note.startswith("CLIP-") for note in found.missing)


def test_other_weights_have_another_mark(networks: Networks, tmp_path: Path) -> None:
    folder = tiny_networks.save(tmp_path, *NAMES)
    assert Networks.find(folder).mark == networks.mark
    shutil.rmtree(folder / "dino-vits16")
    assert Networks.find(folder).mark != networks.mark


def test_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    weights = tiny_networks.save(tmp_path, "dino-vits16") / "dino-vits16" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    found = Networks.find(tmp_path)
    assert found.dino is None
    assert "DINO is not available here" in found.missing[0]


def test_damaged_ones_judge_nothing(one: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = tiny_networks.save(tmp_path, "dino-vits16")
    (networks / "dino-vits16" / "model.safetensors").write_bytes(b"cut off")
    monkeypatch.setattr(score, "folder_of", lambda name: networks / name.partition("/")[2])
    assert score.odd_ones(one, pictures(), "dog") == []
    assert score.scorer_for(one, pictures(), "dog", (32, 32)) is None
