"""Drawing from references, and one new subject together: tiny bases with JeDi weights that have moved somewhere."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pictures import grain
from PIL import Image
from processes import forked, needs_fork
from results import apart, facts, notes
from typer.testing import CliRunner

from persona import families, score
from persona.clay.judge import WEIGHTS as JUDGE
from persona.clay.judge import Judge
from persona.cli import app
from persona.config import SampleConfig
from persona.errors import BadBase, BadOption, BadPhotos, BadPrompt, BadToken, NoMemory
from persona.events import Event, Note, Progress
from persona.families import Family
from persona.methods.guidance import IMAGE_GUIDANCE
from persona.methods.jedi import STORE, JeDi
from persona.photos import Photo
from persona.references import prepare, tell_odd
from persona.sample import sample


@pytest.fixture(scope="module")
def weights(base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    jedi = JeDi(families.load(str(base_folder("sd-v-zero")), device="cpu"))
    random = torch.Generator().manual_seed(0)
    for parameter in (*jedi.difference.parameters.values(), jedi.channels.weight):
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=random)
    folder = tmp_path_factory.mktemp("weights")
    (folder / STORE.file).write_bytes(jedi.save())
    return folder


@pytest.fixture
def here(
    weights: Path, photo_folder: Path, base_folder: Callable[[str], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:  # fmt: skip
    """Work in a folder that has three references, a base, and weights that draw from references."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photo_folder, "refs")
    Path("sd-v-zero").symlink_to(base_folder("sd-v-zero"))
    Path("weights").symlink_to(weights)
    return tmp_path


def config(*prompts: str, **options: Any) -> SampleConfig:
    common = {"base": "sd-v-zero", "jedi": Path("weights"), "n": 1, "steps": 2}
    return SampleConfig(prompts=prompts or ("a [V] dog in the snow",), **{**common, **options})


def shown(*prompts: str, **options: Any) -> SampleConfig:
    return config(*prompts, **{"reference": Path("refs"), "class_noun": "dog", **options})


# From references


def test_references_show_the_subject(here: Path) -> None:
    ((mine,), (new,)) = sample(shown()), sample(config("a dog in the snow", together=True))
    assert apart(mine.path, new.path) > 1, "references must be seen"
    (Path("refs") / "2.png").unlink()
    (fewer,) = sample(shown())
    assert apart(mine.path, fewer.path) > 1, "all of them"
    told = facts(mine.path)
    assert (told["method"], told["class"], told["image guidance"]) == ("jedi", "dog", str(IMAGE_GUIDANCE))
    assert len(told["references"].split()) == 3
    assert "persona" not in told
    assert str(here) not in str(told)


def test_the_slot_is_no_more_than_the_class_noun(here: Path) -> None:
    events: list[Event] = []
    slot, plain, alone = sample(shown("a [V] dog in the snow", "a dog in the snow", "a [V] in the snow"), events.append)
    assert max(apart(slot.path, plain.path), apart(alone.path, plain.path)) <= 1
    assert not any(event.warning for event in events if isinstance(event, Note))
    sample(shown("a car"), events.append)
    assert "does not say dog. Write [V] dog" in notes(events)


def test_each_picture_can_be_drawn_again_alone(here: Path) -> None:
    many = sample(shown(n=3, batch=2))
    (again,) = sample(shown(seed=2))
    assert apart(many[2].path, again.path) <= 1  # sums of floats in another order
    assert apart(many[1].path, again.path) > 1


def test_strength_changes_the_picture(here: Path) -> None:
    (plain,), (more,) = (sample(shown(image_guidance=strength)) for strength in (1.0, 4.0))
    assert apart(plain.path, more.path) > 1
    (balanced,) = sample(shown(image_guidance=4.0, balanced=True))
    assert apart(more.path, balanced.path) > 1
    assert facts(balanced.path)["balanced"] == "yes"


def test_references_are_told_by_their_captions_and_masked_by_their_alpha(
    base_folder: Callable[[str], Path],
) -> None:
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    image, alpha = grain((48, 32), 80), Image.new("L", (48, 32))
    alpha.paste(255, (0, 0, 24, 32))
    whole, cut = Photo("a", image, "a [V] dog, asleep", "a"), Photo("b", image, None, "b", alpha)
    known = prepare(base, [whole, cut], "dog", (32, 32))
    assert known.prompts == ["a dog, asleep", "a photo of a dog"]
    assert known.latents.shape == (2, 4, 8, 8)
    assert known.masks is not None
    assert known.masks[0].all()
    assert known.masks[1][:, :5].all()  # of 32 pixels from the left, where the subject is
    assert not known.masks[1][:, 7:].any()
    assert torch.equal(known.latents[1], prepare(base, [cropped(cut, (0, 0, 32, 32))], "dog", (32, 32)).latents[0])
    assert prepare(base, [whole], "dog", (32, 32)).masks is None


def cropped(photo: Photo, box: tuple[int, int, int, int]) -> Photo:
    return replace(photo, image=photo.image.crop(box), mask=photo.mask and photo.mask.crop(box))


def test_what_is_masked_is_not_seen(here: Path) -> None:
    cut = grain((40, 40), 90)
    cut.paste("white", (20, 0, 40, 40))  # what is transparent is white too, so only the mask can make a difference
    for path in Path("refs").iterdir():
        path.unlink()
    cut.save("refs/a.png")
    (whole,) = sample(shown())
    alpha = Image.new("L", cut.size)
    alpha.paste(255, (0, 0, 20, 40))
    cut.putalpha(alpha)
    cut.save("refs/a.png")
    (half,) = sample(shown())
    assert apart(whole.path, half.path) > 1


# Together


def test_pictures_that_are_drawn_together_see_each_other(here: Path) -> None:
    events: list[Event] = []
    both = sample(config("a dog", "a red dog", together=True), events.append)
    (alone,) = sample(config("a dog", together=True))
    assert apart(both[0].path, alone.path) > 1
    assert [picture.prompt for picture in both] == ["a dog", "a red dog"]
    assert facts(both[0].path)["together"] == "2"
    assert Progress("Drawing", 2, 2) in events
    known = sample(shown("a dog", "a red dog", together=True))
    assert apart(known[0].path, both[0].path) > 1


@needs_fork
def test_together_is_not_split_among_processes(here: Path) -> None:
    def share() -> None:
        assert len(sample(config("a dog", n=3, together=True, out=Path("shared")))) == 3

    forked(share)
    alone = sorted(picture.path for picture in sample(config("a dog", n=3, together=True)))
    assert max(map(apart, sorted(Path("shared").glob("a-*.png")), alone)) <= 1


# What is told


class Full:
    """A memory that holds so many references, and pictures at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.most, self.draw = most, JeDi.draw
        monkeypatch.setattr(JeDi, "draw", lambda jedi, *given, **how: self.check(jedi, *given, **how))

    def check(self, jedi: JeDi, prompts: Any, seeds: Any, **how: Any) -> Any:
        if len(how["references"].latents if "references" in how else prompts) > self.most:
            raise torch.OutOfMemoryError
        return self.draw(jedi, prompts, seeds, **how)


def test_fewer_references_are_used_where_memory_is_short(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Full(monkeypatch, 1)
    events: list[Event] = []
    (picture,) = sample(shown(), events.append)
    assert "1 of the 3 references" in notes(events)
    assert len(facts(picture.path)["references"].split()) == 1


def test_a_decoder_that_memory_runs_out_of_decodes_in_tiles(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not fewer references, and no refusal: it sees none."""
    whole = Family.decode_latents

    def tight(self: Family, latents: torch.Tensor) -> Any:
        if not self.pipe.vae.use_tiling:
            raise torch.OutOfMemoryError
        return whole(self, latents)

    monkeypatch.setattr(Family, "decode_latents", tight)
    events: list[Event] = []
    (picture,) = sample(shown(), events.append)
    assert len(facts(picture.path)["references"].split()) == 3
    assert "references are used" not in notes(events)
    assert len(list(sample(config("a dog", n=2, together=True)))) == 2


def test_too_many_together_are_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Full(monkeypatch, 2)
    with pytest.raises(NoMemory, match="for 3 images that see each other"):
        sample(config("a dog", n=3, together=True))
    assert not Path("pictures").exists()


EMBEDDED = {"red": (1.0, 0.1, 0.0), "green": (0.0, 0.1, 1.0)}


def embed(pictures: list[Image.Image]) -> torch.Tensor:
    """See what colour a picture is."""
    names = ["red" if picture.getpixel((0, 0))[0] else "green" for picture in pictures]  # type: ignore[index]
    return torch.nn.functional.normalize(torch.tensor([EMBEDDED[name] for name in names]), dim=1)


@pytest.fixture(params=["judge", "DINO", "nothing"])
def looking(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a base whose pictures are told apart by a judge, by DINO, or by nothing."""
    base = SimpleNamespace(folder=tmp_path, device="cpu")
    if request.param == "judge":
        (tmp_path / "judge").mkdir()
        (tmp_path / "judge" / JUDGE).touch()
        judge = Judge({}, widths=(4, 8), depths=(1, 1))
        judge.others, judge.ceiling = {"dog": torch.eye(3)}, 0.95
        monkeypatch.setattr(judge, "read", lambda pictures: ({}, embed(pictures)))
        monkeypatch.setattr(judge, "sure_of_place", lambda pictures: 1.0)
        monkeypatch.setattr(Judge, "load", lambda folder: judge)
    if request.param == "DINO":
        monkeypatch.setattr(score, "folder_of", lambda name: tmp_path)
        monkeypatch.setattr(score, "Dino", lambda folder, device: SimpleNamespace(embed=embed))
    return SimpleNamespace(base=base, can_tell=request.param != "nothing")


@pytest.mark.parametrize(
    ("colours", "odd"),
    [("red red red", ""), ("red green red", "1.png"), ("red green", "0.png, 1.png"), ("red", "")],
)
def test_references_of_something_else_are_named(looking: Any, colours: str, odd: str) -> None:
    photos = [Photo(f"{n}.png", Image.new("RGB", (8, 8), c), None, str(n)) for n, c in enumerate(colours.split())]
    events: list[Event] = []
    tell_odd(looking.base, photos, "dog", events.append)
    expected = f"{odd}: not the same dog" if odd and looking.can_tell else ""
    assert notes(events).startswith(expected)
    assert bool(events) == bool(expected)


def test_a_reference_that_is_transparent_all_over_is_named(base_folder: Callable[[str], Path]) -> None:
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    haze, events = Image.new("L", (8, 8), 100), list[Event]()
    tell_odd(base, [Photo("a.png", grain((8, 8), 1), None, "a", haze)], "dog", events.append)
    assert "a.png: fully transparent" in notes(events)


# What is refused


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"reference": Path("refs")}, BadOption, "--class dog"),
        ({"class_noun": "dog"}, BadOption, "--class goes with --reference"),
        ({"jedi": Path("weights")}, BadOption, "--jedi goes with"),
        ({"image_guidance": 2.0}, BadOption, "--image-guidance goes with"),
        ({"balanced": True}, BadOption, "--balanced goes with"),
        ({"together": True, "persona": Path("personas/dog")}, BadOption, "--persona is about"),
        ({"reference": Path("refs"), "class_noun": "dog", "scale": 0.5}, BadOption, "--scale is about"),
        ({"together": True, "checkpoint": 3}, BadOption, "--checkpoint is about"),
        ({"together": True, "image_guidance": 5.0}, BadOption, "--image-guidance goes with --reference"),
        ({"together": True, "batch": 2}, BadOption, "Leave --batch out"),
        ({"together": True, "class_noun": " "}, BadToken, "--class is empty"),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SampleConfig(prompts=("a dog",), **given)


def test_what_is_refused_before_the_base_is_loaded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "load", None)
    for how in ({"together": True}, {"reference": Path("refs"), "class_noun": "dog"}):
        for base in ("sd-v-zero", "sd15"):
            with pytest.raises(BadBase, match=f"{base} has no JeDi weights") as raised:
                sample(config("a dog", jedi=None, base=base, **how))
            assert ("Copy" in str(raised.value)) == (base != "sd15")  # which is not here: there is no place for any
        with pytest.raises(BadBase, match="nowhere holds no JeDi weights"):
            sample(config("a dog", jedi=Path("nowhere"), base="sd15", **how))
        with pytest.raises(BadBase, match="flux-dev is no U-Net"):
            sample(config("a dog", base="flux-dev", **how))
    with pytest.raises(BadPrompt, match="Name it with --class"):
        sample(config("a [V] dog", together=True))
    with pytest.raises(BadPhotos, match="no folder nowhere"):
        sample(shown(reference=Path("nowhere")))
    for path in Path("refs").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadPhotos, match=r"can be read .*0\.png"):
        sample(shown())
    shutil.rmtree("refs")
    Path("refs").mkdir()
    with pytest.raises(BadPhotos, match="no photos in refs"):
        sample(shown())
    assert not Path("pictures").exists()


def test_a_base_without_weights_says_how_to_get_some(here: Path) -> None:
    result = CliRunner().invoke(
        app, ["sample", "a [V] dog", "--reference", "refs", "--class", "dog", "--base", "sd-v-zero"]
    )
    assert result.exit_code == 2
    assert "Unlike the built-in clay, sd-v-zero has no JeDi weights" in result.stderr
    assert "with persona sample --jedi, or train some: persona pretrain jedi" in result.stderr
    with pytest.raises(BadBase, match="refs holds no JeDi weights"):
        sample(shown(jedi=Path("refs")))
    assert not Path("pictures").exists()
