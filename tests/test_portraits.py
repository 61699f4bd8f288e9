"""Drawing and fading subjects of one picture each: a tiny base with weights that have moved somewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from results import apart, facts, notes
from tiny_encoder import Eye
from typer.testing import CliRunner

from persona import encoder, families
from persona.cli import app
from persona.config import InterpolateConfig, SampleConfig
from persona.errors import BadBase, BadOption, BadPhotos, BadPrompt
from persona.interpolate import interpolate
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.methods.telling import STORE
from persona.placing import read_subjects
from persona.portraits import read
from persona.sample import sample

if TYPE_CHECKING:
    from persona.events import Event


@pytest.fixture(autouse=True)
def eye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "load", lambda *_: Eye())


@pytest.fixture(scope="module")
def weights(base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "load", lambda *_: Eye())
        method = SubjectDiffusion(families.load(str(base_folder("sd-v-zero")), device="cpu"))
    random = torch.Generator().manual_seed(0)
    for name, parameter in sorted(method.parameters.items()):
        moved = 0.2 * torch.randn(parameter.shape, generator=random)
        parameter.data += torch.tensor(1.0) if "alpha" in name else moved
    folder = tmp_path_factory.mktemp("weights")
    (folder / STORE.file).write_bytes(method.save())
    return folder


@pytest.fixture
def here(weights: Path, base_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that has a cut-out dog, a cat that is not, a base, and weights that draw them."""
    monkeypatch.chdir(tmp_path)
    Path("sd-v-zero").symlink_to(base_folder("sd-v-zero"))
    Path("weights").symlink_to(weights)
    dog = Image.new("RGBA", (40, 30), (200, 30, 0, 0))
    dog.paste((200, 30, 0, 255), (10, 5, 30, 25))
    dog.save("dog.png")
    cat = Image.new("RGB", (32, 32), "white")
    cat.paste("teal", (0, 0, 16, 32))
    cat.save("cat.png")
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    mask.save("mask.png")
    return tmp_path


def config(*prompts: str, **options: Any) -> SampleConfig:
    common = {
        "base": "sd-v-zero", "subject_diffusion": Path("weights"), "n": 1, "steps": 2, "subject": ("V=dog.png",),
    }  # fmt: skip
    return SampleConfig(prompts=prompts or ("a [V] dog in the snow",), **{**common, **options})


BOTH = ("V=dog.png", "W=cat.png")


def test_a_subject_is_drawn_where_it_is_wanted(here: Path) -> None:
    events: list[Event] = []
    (picture,) = sample(config(), events.append)
    (placed,) = sample(config(subject=("V=dog.png@0.1,0.3,0.6,0.9",)))
    (other,) = sample(config(subject=("V=cat.png",), mask=("V=mask.png",)))
    assert apart(picture.path, placed.path) > 1
    assert apart(picture.path, other.path) > 1
    told = facts(placed.path)
    assert (told["method"], told["prompt"]) == ("subject-diffusion", "a [V] dog in the snow")
    assert told["subjects"].startswith("V ")
    assert told["subjects"].endswith(" at 0.1,0.3,0.6,0.9")
    assert str(here) not in str(told)
    assert not notes(events), "nothing is odd about a picture that is cut out"


def test_subjects_have_names_of_any_letters(here: Path) -> None:
    (picture,) = sample(config("a [犬] dog and a [Ж] cat", subject=("犬=dog.png", "ж=cat.png"), mask=("ж=mask.png",)))
    first, second = facts(picture.path)["subjects"].split("; ")
    assert (first[:2], second[:2]) == ("犬 ", "Ж ")


@pytest.mark.usefixtures("exact")
def test_two_subjects_are_drawn(here: Path) -> None:
    prompt = "a [V] dog on the [W] cat"
    one, two = sample(config(prompt, "a [W] cat", subject=BOTH, mask=("W=0,0,0.5,1",)))
    (again,) = sample(config("a [W] cat", subject=("W=cat.png",), mask=("W=mask.png",)))
    assert apart(two.path, again.path) <= 1, "the other does not show where it is not named"
    (turned,) = sample(config(prompt, subject=("W=dog.png", "V=cat.png"), mask=("V=0,0,0.5,1",)))
    assert apart(one.path, turned.path) > 1


def test_what_cannot_be_cut_out_is_used_whole_and_told(here: Path) -> None:
    events: list[Event] = []
    sample(config(subject=("V=cat.png",)), events.append)
    assert "all of the reference counts as the subject" in notes(events)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"prompts": ("a [V] dog and a [W] cat",)}, BadPrompt, r"\[W\] has no reference"),
        ({"prompts": ("a dog",)}, BadPrompt, "names no subject"),
        ({"subject": BOTH}, BadOption, "--subject W is in no prompt"),
        ({"subject": ("V=nowhere.png",)}, BadPhotos, "no image nowhere.png"),
        ({"subject": ("V=broken.png",)}, BadPhotos, "broken.png cannot be read"),
        ({"mask": ("V=small.png",)}, BadOption, "small.png has 8x8 pixels, dog.png 40x30"),
        ({"mask": ("V=large.png",)}, BadOption, "large.png has 1600x1700 pixels, dog.png 40x30"),
        ({"mask": ("V=empty.png",)}, BadOption, "The mask empty.png is empty"),
        ({"subject": ("V=clear.png",)}, BadOption, "clear.png is transparent all over"),
        ({"subject_diffusion": None}, BadBase, "sd-v-zero has no Subject-Diffusion weights"),
        ({"subject_diffusion": None, "base": "sd15"}, BadBase, "sd15 has no Subject-Diffusion weights"),
        ({"subject_diffusion": Path("nowhere")}, BadBase, "nowhere holds no Subject-Diffusion weights"),
        ({"base": "flux-dev"}, BadBase, "flux-dev is no U-Net"),
    ],
)
def test_what_is_refused_before_the_base_is_loaded(
    here: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    Path("broken.png").write_bytes(Path("dog.png").read_bytes()[:60])
    Image.new("L", (8, 8), 255).save("small.png")
    Image.new("L", (1600, 1700), 255).save("large.png")
    Image.new("L", (40, 30)).save("empty.png")
    Image.new("RGBA", (40, 30)).save("clear.png")
    monkeypatch.setattr(families, "load", None)
    with pytest.raises(error, match=message) as raised:
        sample(config(*given.pop("prompts", ()), **given))
    assert "\n" not in str(raised.value)
    assert not Path("pictures").exists()


def test_what_is_transparent_in_a_mask_is_none_of_the_subject(here: Path) -> None:
    drawn = Image.new("RGBA", (40, 30))
    drawn.paste("white", (0, 0, 20, 30))
    drawn.save("mask.png")
    subjects = read_subjects(("V=dog.png",))
    mask = read(subjects, {"V": Path("mask.png")})["V"].mask
    assert mask is not None
    assert np.asarray(mask).mean(0).tolist() == [255] * 20 + [0] * 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--subject", "V=dog.png", "--subject", "W=a.png", "--subject", "X=b.png"], "2 subjects at most"),
        (["--subject", "V=dog.png@0,0,2,1"], "not inside the image"),
        (["--subject", "V=dog.png@0.5,0,0.5,1"], "is empty"),
        (["--subject", "V=dog.png", "--mask", "V=empty.png"], "empty"),
        (["--subject", "V=dog.png", "--persona", "personas/dog"], "--persona does not go with --subject"),
        (["--subject", "V=dog.png", "--together"], "--together does not go with"),
        (["--mask", "V=mask.png"], "no such subject"),
        (["--subject-diffusion", "weights"], "goes with --subject"),
        (["--subject", "V=dog.png"], "has no Subject-Diffusion weights"),
    ],
)
def test_bad_input_ends_with_two(here: Path, given: list[str], message: str) -> None:
    Image.new("L", (40, 30)).save("empty.png")
    result = CliRunner().invoke(app, ["sample", "a [V] dog", "--base", "sd-v-zero", *given])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not Path("pictures").exists()


def test_a_second_subject_needs_a_reference(here: Path) -> None:
    with pytest.raises(BadPrompt, match=r"\[W\] has no reference"):
        sample(SampleConfig(prompts=("a dog and a [W] cat",), base="sd-v-zero"))


# Series


def series(*prompts: str, **options: Any) -> InterpolateConfig:
    common = {"base": "sd-v-zero", "subject_diffusion": Path("weights"), "steps": 2, "frames": 3, "linear": True}
    return InterpolateConfig(prompts=prompts, **{**common, "subject": ("V=dog.png",), **options})


def test_a_series_goes_from_the_subject_to_what_the_text_shows(here: Path) -> None:
    made = interpolate(series("a [V] dog on the beach"))
    (subject,) = sample(config("a [V] dog on the beach"))
    (alone,) = sample(SampleConfig(prompts=("a dog on the beach",), base="sd-v-zero", n=1, steps=2))
    assert len(made.paths) == 3
    assert apart(made.paths[0], subject.path) == 0
    assert apart(made.paths[-1], alone.path) == 0
    assert apart(made.paths[1], subject.path) > 0
    assert made.what == "a [V] dog on the beach to a dog on the beach"
    told = facts(made.paths[1])
    assert told["place"] == "0.500000"
    assert told["method"] == "subject-diffusion"


def test_a_series_goes_between_two_subjects(here: Path) -> None:
    cut = {"subject": BOTH, "mask": ("W=mask.png",)}
    made = interpolate(series("a [V] dog on the beach", "a [W] cat in the snow", **cut))
    for frame, prompt in ((made.paths[0], "a [V] dog on the beach"), (made.paths[-1], "a [W] cat in the snow")):
        name = prompt[3]
        only = tuple(one for one in BOTH if one.startswith(name))
        (picture,) = sample(config(prompt, subject=only, mask=tuple(m for m in cut["mask"] if m.startswith(name))))
        assert apart(frame, picture.path) <= 1


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        (("a dog", "a cat"), {}, "names no subject"),
        (("a [W] dog",), {}, r"\[W\] has no reference"),
        (("a [V] dog", "a [V] dog"), {}, "nothing to go between"),
        (("a [V] dog",), {"seeds": (1, 2)}, "--seed: a series with --subject"),
        (("a [V] dog",), {"persona": (Path("personas/dog"),)}, "--persona does not go with"),
        (("a [V] dog",), {"subject_diffusion": Path("nowhere")}, "no Subject-Diffusion weights"),
        (("a dog",), {"subject": (), "subject_diffusion": None, "image_guidance": 2.0}, "--image-guidance goes with"),
    ],
)
def test_series_that_cannot_be_are_refused(
    here: Path, prompts: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((BadOption, BadBase), match=message):
        interpolate(series(*prompts, **options))
    assert not Path("series").exists()
