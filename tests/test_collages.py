"""Sets made of collages: each filter on pictures of which the truth is known, all of it on a tiny base."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from accelerate import Accelerator
from bases import SIZE
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw
from tiny_networks import save as save_networks
from torch import Tensor
from torch.nn.functional import normalize
from typer.testing import CliRunner

from persona import families
from persona.cli import app
from persona.config import SetsConfig
from persona.errors import BadOption, BadPrompt
from persona.events import Event, Note, Progress
from persona.families import Family
from persona.families.inpainting import inpaint
from persona.metrics import Mask
from persona.photos import middle
from persona.pretrain.collages import run as collecting
from persona.pretrain.collages.background import SHARE, set_down
from persona.pretrain.collages.panels import panels
from persona.pretrain.collages.prompts import plans
from persona.pretrain.collages.run import NO_PANELS, Collected, gen_sets
from persona.pretrain.collages.sieve import ALONE, MISSING, OTHER, POOR, SAME, Sieve, alone
from persona.pretrain.sets import WebSets

# Panels


def scenery(random: Generator, width: int, height: int) -> Image.Image:
    """Return a picture of one colour with soft clouds in it, as a photo's background is."""
    colour = random.integers(30, 225, 3)
    clouds = np.clip(colour + random.normal(0, 25, (5, 5, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(clouds).resize((width, height), Image.Resampling.BICUBIC)


def collage(random: Generator, columns: Sequence[int], rows: Sequence[int], gutter: int) -> Image.Image:
    """Return a collage of panels of these widths and heights; a gutter goes around it, too."""
    page = Image.new("RGB", (sum(columns) + gutter * (len(columns) + 1), sum(rows) + gutter * (len(rows) + 1)), "white")
    top = gutter
    for height in rows:
        left = gutter
        for width in columns:
            page.paste(scenery(random, width, height), (left, top))
            left += width + gutter
        top += height + gutter
    return page


@pytest.mark.parametrize("gutter", [0, 3, 12])
@pytest.mark.parametrize(("columns", "rows"), [((256, 256), (256, 256)), ((220, 292), (400,)), ((170,) * 3, (230,))])
def test_a_collage_falls_into_its_panels(columns: tuple[int, ...], rows: tuple[int, ...], gutter: int) -> None:
    for seed in range(3):
        found = panels(collage(default_rng(seed), columns, rows, gutter))
        assert len(found) == len(columns) * len(rows)
        for panel, size in zip(found, sorted((w, h) for w in columns for h in rows), strict=True) if not seed else ():
            assert all(0 <= true - side <= 8 for true, side in zip(size, panel.size, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_single_picture_has_one_panel(seed: int) -> None:
    picture = scenery(default_rng(seed), 300, 300)
    ImageDraw.Draw(picture).ellipse((80, 60, 230, 250), "#7a5230")
    assert [panel.size for panel in panels(picture)] == [(300, 300)]


def test_strips_are_no_panels() -> None:
    found = panels(collage(default_rng(0), (512,), (100, 400), 0))
    assert [panel.size[1] > 300 for panel in found] == [True]


# Prompts


def test_templates_give_each_collage_its_own_subject() -> None:
    told = plans(None, 0)
    some = [told(number) for number in range(50)]
    assert some == [plans(None, 0)(number) for number in range(50)]
    assert len({plan.subject for plan in some}) > 45
    assert all(plan.noun in plan.subject and plan.subject in plan.collage for plan in some)
    assert all(len(set(plan.scenes)) == len(plan.scenes) >= 4 for plan in some)
    assert all(plan.subject not in plan.caption(0) and plan.noun in plan.caption(0) for plan in some)
    assert plans(None, 1)(0) != told(0)


def test_a_file_of_prompts_is_taken_in_turn(tmp_path: Path) -> None:
    lines = [{"class": noun, "subject": f"red {noun}", "scenes": ["on a hill", "at home"]} for noun in ("ox", "yak")]
    (tmp_path / "prompts").write_text("\n\n".join(map(json.dumps, lines)))
    told = plans(tmp_path / "prompts", 0)
    assert [told(number).noun for number in range(3)] == ["ox", "yak", "ox"]
    assert told(1).caption(1) == "a photo of a yak at home"


GOOD = {"class": "ox", "subject": "red ox", "scenes": ["on a hill", "at home"]}


@pytest.mark.parametrize(
    "line", ["a dog", "[]", *(json.dumps(GOOD | spoilt) for spoilt in (
        {"class": ""}, {"subject": 3}, {"scenes": "at home"}, {"scenes": ["at home"]}, {"scenes": ["a", 1]},
    ))],
)  # fmt: skip
def test_what_is_no_plan_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "prompts").write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(BadPrompt, match=r"line 2 is no plan.*\"class\"") as error:
        plans(tmp_path / "prompts", 0)
    assert "\n" not in str(error.value)


# Filters: the subject is a disc of one colour, and networks that know the truth stand in for the real ones

PLACES = ("#203040", "#d0c090", "#608060", "#a0a0c0")


def disc(colour: str, place: str, *, at: int = 0, radius: int = 18) -> Image.Image:
    """Return a picture of a subject of a colour somewhere before a background of another, with a bright corner."""
    picture = Image.new("RGB", (64, 64), place)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((at, 0, at + 20, 10), "#f0f0f0")
    if radius:
        pen.ellipse((14 + at, 30 - radius // 2, 14 + at + radius, 30 + radius // 2), colour)
    return picture


class Truth:
    """Finds what is red or blue, sees its colour, and takes for good what is not dark."""

    def masks(self, pictures: Sequence[Image.Image], noun: str) -> list[Mask]:
        seen = [np.asarray(picture.convert("RGB"), np.int64) for picture in pictures]
        return [np.abs(pixels[..., 0] - pixels[..., 2]) > 100 for pixels in seen]

    def embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        means = [np.asarray(picture.convert("RGB"), np.float32).mean((0, 1)) - 127 for picture in pictures]
        return normalize(torch.tensor(np.array(means)), dim=1)

    def texts(self, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([[1.0, 1, 1], [-1, -1, -1]]) / 3**0.5


def sieve(*, similarity: float = 0.9, quality: float = 0.0) -> Sieve:
    return Sieve(Truth(), Truth(), Truth(), similarity, quality)


def test_what_shows_one_subject_is_kept() -> None:
    pictures = [disc("#e02020", place, at=10 * number) for number, place in enumerate(PLACES)]
    sifted = sieve().sift(pictures, "ball")
    assert list(sifted.kept) == [0, 1, 2, 3]
    assert not sifted.dropped


def test_each_filter_drops_what_it_is_for() -> None:
    subject = [disc("#e02020", place, at=10 * number) for number, place in enumerate(PLACES)]
    missing, other = disc("#e02020", PLACES[0], radius=0), disc("#2020e0", PLACES[1], at=15)
    sifted = sieve().sift([subject[0], missing, subject[1], other, subject[1].copy(), subject[2]], "ball")
    assert list(sifted.kept) == [0, 2, 5]
    assert sifted.dropped == {1: MISSING, 3: OTHER, 4: SAME}
    dark = disc("#a01010", "#101010")
    poor = sieve(quality=0.5).sift([disc("#ff5050", "#f0f0f0"), dark, disc("#ff5050", "#d0ffd0", at=30)], "ball")
    assert poor.dropped == {1: POOR}


def test_two_of_a_kind_are_needed() -> None:
    sifted = sieve().sift([disc("#e02020", PLACES[0]), disc("#2020e0", PLACES[1], at=20)], "ball")
    assert not sifted.kept
    assert sorted(sifted.dropped.values()) == sorted([OTHER, ALONE])


def test_the_place_of_a_subject_does_not_count() -> None:
    picture = disc("#e02020", PLACES[1], at=20)
    (mask,) = Truth().masks([picture], "ball")
    shown = np.asarray(alone(picture, mask))
    assert shown.shape[0] == shown.shape[1] == 19
    assert set(map(tuple, shown.reshape(-1, 3))) == {(127, 127, 127), (224, 32, 32)}


# New places


@pytest.mark.parametrize("seed", range(4))
def test_a_subject_is_set_down_whole(seed: int) -> None:
    picture = disc("#e02020", PLACES[seed], at=10 * seed)
    (mask,) = Truth().masks([picture], "ball")
    canvas, hole = set_down(picture, mask, 128, default_rng(seed))
    assert canvas.size == hole.size == (128, 128)
    kept = np.asarray(hole) == 0
    share = np.sqrt(kept.sum() / (np.pi / 4)) / 128  # its diameter
    assert SHARE[0] - 0.05 < share < SHARE[1] + 0.05
    assert np.abs(np.asarray(canvas)[kept].mean(0) - (224, 32, 32)).max() < 20


@pytest.mark.parametrize("name", ["sd-eps", "sdxl"])
def test_what_is_kept_of_a_picture_is_put_back(base_folder: Callable[[str], Path], name: str) -> None:
    base = families.load(str(base_folder(name)), device="cpu")
    picture = disc("#e02020", PLACES[1]).resize((SIZE, SIZE))

    latents = base.encode_images(middle(picture, picture.size)[None], torch.Generator().manual_seed(0))
    before = np.asarray(base.decode_latents(latents)[0], np.int64)

    def changed(colour: str) -> np.ndarray[Any, Any]:
        hole = Image.new("L", picture.size, colour)
        after: np.ndarray[Any, Any] = np.asarray(inpaint(base, ["a dog"], [1], [picture], [hole], steps=2)[0], np.int64)
        return np.abs(after - before)

    assert changed("black").max() <= 1
    assert changed("white").mean() > 10


# All of it


@pytest.fixture
def config(base_folder: Callable[[str], Path], tmp_path: Path) -> SetsConfig:
    return SetsConfig(base=str(base_folder("sd-eps")), out=tmp_path / "sets", n=3, steps=2)


@pytest.fixture
def collages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the base draw collages whose panels are known, every third of them none; drawing anew is its own."""

    def draw(self: Family, prompts: Sequence[str], seeds: Sequence[int], **_: Any) -> list[Image.Image]:
        return [four(seed) if seed % 3 else Image.new("RGB", (256, 256), "#808080") for seed in seeds]

    def four(seed: int) -> Image.Image:
        page = Image.new("RGB", (256, 256))
        for number, place in enumerate(PLACES):
            panel = disc("#e02020", place, at=10 * number, radius=14 + seed).resize((128, 128))
            page.paste(panel, (number % 2 * 128, number // 2 * 128))
        return page

    monkeypatch.setattr(Family, "draw", draw)


@pytest.fixture
def known(collages: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them be sifted by networks that know the truth."""

    class Middle(Truth):
        def masks(self, pictures: Sequence[Image.Image], noun: str) -> list[Mask]:
            found = [np.zeros(picture.size[::-1], bool) for picture in pictures]
            for mask in found:
                mask[len(mask) // 4 : -len(mask) // 4, len(mask) // 4 : -len(mask) // 4] = True
            return found

    monkeypatch.setattr(collecting, "BLOCK", 2)
    monkeypatch.setattr(collecting, "_check", lambda config: None)
    monkeypatch.setattr(collecting, "_sieve", lambda config, device: Sieve(Truth(), Truth(), Middle(), -1, 0))


@pytest.mark.usefixtures("known")
def test_sets_can_be_learnt_from(config: SetsConfig, tmp_path: Path) -> None:
    made = gen_sets(config)
    sets = WebSets(config.out, tmp_path / "latents")
    assert made.figures["collages"] == 3
    assert len(sets) == made.figures["sets"] == 2
    assert made.figures["panels"] == 8
    assert made.dropped[NO_PANELS] == 1
    sets.encoded.encode(families.load(config.base, device="cpu"), Accelerator(cpu=True), lambda event: None)
    told = [sets.captions(number, default_rng(0)) for number in range(2)]
    assert sum(map(len, told)) == made.figures["pictures"]
    assert all(len(sets.latents(number)) == len(set(captions)) for number, captions in enumerate(told))
    assert all(sets.noun(number) in caption for number, captions in enumerate(told) for caption in captions)
    assert json.loads((config.out / "figures.json").read_text()) == {**made.figures, "dropped": made.dropped}
    for path in made.sheets:
        with Image.open(path) as image:
            assert image.height > SIZE


@pytest.mark.usefixtures("known")
def test_the_command_says_what_was_made(config: SetsConfig) -> None:
    options = ["--base", config.base, "--out", str(config.out), "-n", "2", "--steps", "2"]
    result = CliRunner().invoke(app, ["gen-sets", *options, "--json"], env={"COLUMNS": "1000"})
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["folder"], told["collages"], told["sets"]) == (str(config.out), 2, 1)
    assert told["dropped"][NO_PANELS] == 1
    assert all(Path(sheet).is_file() for sheet in told["sheets"])
    assert f"1 sets of {told['pictures']} images in {config.out}" in result.stderr
    assert f"persona pretrain jedi --base {config.base} --data {config.out}" in result.stderr


@processes.needs_fork
@pytest.mark.usefixtures("known")
def test_a_killed_run_goes_on_to_the_same_bytes(config: SetsConfig, tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=gen_sets, args=(config, listen))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL
    first = (config.out / "00000.tar").stat()
    events: list[Event] = []
    gen_sets(config, events.append)
    assert {event.done for event in events if isinstance(event, Progress)} == {2, 3}, "the first shard was there"
    assert (config.out / "00000.tar").stat() == first
    whole = gen_sets(replace(config, out=tmp_path / "whole"))
    assert contents(whole.folder) == contents(config.out)
    more = gen_sets(replace(config, n=5))
    assert more.figures["collages"] == 5


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("0*")) if path.is_file()}


@pytest.mark.usefixtures("known")
def test_other_settings_need_another_folder(config: SetsConfig) -> None:
    gen_sets(replace(config, n=1))
    with pytest.raises(BadOption, match="holds a run with --seed 0"):
        gen_sets(replace(config, n=1, seed=1))


@pytest.mark.usefixtures("known")
def test_fewer_sets_than_there_are_leave_them(config: SetsConfig) -> None:
    gen_sets(replace(config, n=2))
    before = contents(config.out)
    gen_sets(replace(config, n=1))
    assert contents(config.out) == before


@pytest.mark.usefixtures("known")
def test_other_prompts_need_another_folder(config: SetsConfig, tmp_path: Path) -> None:
    gen_sets(replace(config, n=1))
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps(GOOD) + "\n")
    with pytest.raises(BadOption, match="holds a run without --prompts"):
        gen_sets(replace(config, n=1, prompts=own))


@pytest.mark.usefixtures("collages")
def test_real_networks_filter(config: SetsConfig, tmp_path: Path) -> None:
    """They are random: what they let through is decided by the thresholds."""
    names = ("dino-vits16", "clip-vit-base-patch32", "clipseg-rd64-refined")
    networks = save_networks(tmp_path / "nets", *names)
    events: list[Event] = []

    def filtered(name: str, similarity: float, quality: float) -> Collected:
        settings = replace(config, n=2, networks=networks, out=config.out / name)
        return gen_sets(replace(settings, similarity=similarity, quality=quality), events.append)

    def warned() -> list[str]:
        return [event.text for event in events if isinstance(event, Note) and event.warning]

    lax = filtered("lax", similarity=-1.0, quality=0.0)
    assert lax.figures["sets"] == 1
    assert not lax.dropped.keys() & {POOR, OTHER, ALONE}
    assert not warned()
    assert filtered("alike", similarity=1.0, quality=0.0).dropped.keys() == {NO_PANELS, OTHER, ALONE}
    assert filtered("good", similarity=-1.0, quality=1.0).dropped.keys() == {NO_PANELS, POOR}
    assert [said.count("Nothing passed the filters") for said in warned()] == [1, 1]


def test_a_damaged_network_is_named(config: SetsConfig, tmp_path: Path) -> None:
    names = ("dino-vits16", "clip-vit-base-patch32", "clipseg-rd64-refined")
    networks = save_networks(tmp_path / "nets", *names)
    (networks / names[0] / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(BadOption, match=r"dino-vits16 holds no Dino that can be read. Type: hf download") as error:
        gen_sets(replace(config, networks=networks))
    assert "\n" not in str(error.value)
    assert not config.out.exists()


def test_without_networks_it_says_what_to_type(config: SetsConfig, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="hf download facebook/dino-vits16") as error:
        gen_sets(replace(config, networks=tmp_path))
    assert "\n" not in str(error.value)
    assert not config.out.exists()


def test_clay_needs_none() -> None:
    with pytest.raises(BadOption, match="Name another --base"):
        gen_sets(SetsConfig(base="clay"))


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("variable", "kind"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "Deep")])
def test_weights_are_not_shared_out_in_silence(
    config: SetsConfig, monkeypatch: pytest.MonkeyPatch, variable: str, kind: str
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(BadOption, match=f"{kind}.* cannot share out weights"):
        gen_sets(config)
    assert not config.out.exists()
