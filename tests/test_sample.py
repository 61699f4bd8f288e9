import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import personas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from processes import forked, needs_fork
from results import apart, facts, notes, pixels

from persona import families
from persona.config import InterpolateConfig, SampleConfig
from persona.errors import BadBase, BadOption, BadPersona, BadPrompt
from persona.events import Event, Note, Progress
from persona.families import Family
from persona.families.vocabulary import unknown
from persona.folder import Persona
from persona.interpolate import interpolate
from persona.prompts import tell_unknown
from persona.sample import Picture, sample


@pytest.fixture(scope="module")
def persona(base_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Persona:
    return personas.make(tmp_path_factory.mktemp("personas") / "dog-zwx", base_folder("sd-v-zero"))


@pytest.fixture
def here(persona: Persona, base_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that has the persona, and its base under the name that it remembers."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(persona.path, tmp_path / "personas" / "dog-zwx")
    Path("sd-v-zero").symlink_to(base_folder("sd-v-zero"))
    return tmp_path


def config(*prompts: str, **options: Any) -> SampleConfig:
    return SampleConfig(prompts=prompts or ("a [V] dog on the beach",), **{"n": 2, "steps": 2, **options})


def test_the_newest_persona_is_drawn_and_named(here: Path) -> None:
    events: list[Event] = []
    pictures = sample(config(), events.append)
    assert [(picture.path.name, picture.seed) for picture in pictures] == [
        ("a-v-dog-on-the-beach-0.png", 0),
        ("a-v-dog-on-the-beach-1.png", 1),
    ]
    assert all(picture.prompt == "a [V] dog on the beach" for picture in pictures)
    assert "personas/dog-zwx on sd-v-zero: [V] dog is zwx dog" in notes(events)
    assert Progress("Drawing", 2, 2) in events
    assert not any(event.warning for event in events if isinstance(event, Note))
    assert Path("pictures/grid.png").exists()


def test_pictures_carry_what_draws_them_again(here: Path) -> None:
    (_, picture) = sample(config(seed=4, guidance=3.0, negative="grass", scale=0.5))
    with Image.open(picture.path) as image:
        facts = image.info
    assert facts["prompt"] == "a [V] dog on the beach"
    assert facts["negative"] == "grass"
    assert (facts["seed"], facts["steps"], facts["guidance"], facts["scale"]) == ("5", "2", "3.0", "0.5")
    assert (facts["sampler"], facts["size"]) == ("DDIMScheduler", "32x32")
    assert facts["precision"] in ("float32", "bfloat16")
    assert (facts["persona"], facts["token"], facts["class"], facts["step"]) == ("dog-zwx", "zwx", "dog", "2")
    assert facts["base"] == "sd-v-zero"
    assert len(facts["base hash"]) == 64
    assert str(here) not in str(facts)
    assert facts.items() == {"prompt": picture.prompt, "seed": "5", **picture.facts}.items()


@pytest.mark.usefixtures("exact")
def test_pictures_carry_where_guidance_starts(here: Path) -> None:
    recipe = Path(shutil.copytree("sd-v-zero", "late"), "recipe.json")
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), "guidance_start": 0.5}))
    (early,) = sample(config("a cat", base="sd-v-zero", n=1, guidance=9.0))
    (late,) = sample(config("a cat", base="late", n=1, guidance=9.0))
    assert "guidance start" not in early.facts
    assert late.facts["guidance start"] == "0.5"
    assert np.abs(pixels(early.path) - pixels(late.path)).max() > 2


@pytest.mark.usefixtures("exact")
def test_guidance_and_what_shall_not_be_shown_reach_the_base(here: Path, one: Family) -> None:
    how: dict[str, Any] = {"guidance": 3.0, "negative": "a red dog in the snow"}
    (picture,) = sample(config("a cat", base="sd-v-zero", n=1, **how))

    def away(**asked: Any) -> int:
        (drawn,) = one.draw(["a cat"], [0], steps=2, **asked)
        return int(abs(pixels(picture.path) - np.asarray(drawn, int)).max())

    assert away(**how) <= 1
    assert min(away(guidance=how["guidance"]), away(negative=how["negative"])) > 2


def test_what_a_base_cannot_be_led_away_from_is_told_before_it_is_loaded(
    base_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("persona.families.load")
    given: dict[str, Any] = {"base": str(base_folder("flux")), "negative": "blurry"}
    with pytest.raises(BadOption, match="takes no negative prompt"):
        sample(config("a dog", **given))
    with pytest.raises(BadOption, match="takes no negative prompt"):
        interpolate(InterpolateConfig(prompts=("a dog", "a cat"), **given))


@pytest.mark.usefixtures("exact")
def test_what_shall_not_be_shown_may_be_the_subject(here: Path) -> None:
    named, filled, other = (
        sample(config("a cat and a zwx dog", n=1, negative=negative))[0].path
        for negative in ("a [V] dog", "a zwx dog", "a dog")
    )
    assert apart(named, filled) == 0
    assert apart(named, other) > 1
    with pytest.raises(BadPrompt, match="Name one with --persona"):
        sample(config("a cat", base="sd-v-zero", negative="a [V] dog"))


@pytest.mark.usefixtures("exact")
def test_each_picture_can_be_drawn_again_alone(here: Path) -> None:
    together = sample(config("a [V] dog", "a red [V] dog", n=3, batch=4))  # batches that are full, and one that is not
    (alone,) = sample(config("a red [V] dog", n=1, seed=2))
    assert apart(together[5].path, alone.path) <= 1  # sums of floats in another order
    assert apart(together[4].path, alone.path) > 1
    assert apart(together[2].path, alone.path) > 1


def test_strength_and_checkpoint_change_the_picture(here: Path) -> None:
    (whole,), (half,), (first,), (none,), (bare,) = (
        sample(config("a zwx dog", n=1, **options))
        for options in ({}, {"scale": 0.5}, {"checkpoint": 1}, {"scale": 0.0}, {"base": "sd-v-zero"})
    )
    assert min(apart(whole.path, other.path) for other in (half, first, bare)) > 1
    assert apart(none.path, bare.path) == 0


def test_nothing_that_exists_is_overwritten(here: Path) -> None:
    (first,) = sample(config(n=1))
    before = first.path.read_bytes()
    (second,) = sample(config(n=1))
    assert second.path.name == "a-v-dog-on-the-beach-0-2.png"
    assert first.path.read_bytes() == before


def test_what_another_run_draws_meanwhile_stays(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its names are free when a run begins; the other is done before the first of its own is."""
    whole = Family.draw

    def slow(self: Family, *given: Any, **how: Any) -> list[Image.Image]:
        monkeypatch.setattr(Family, "draw", whole)
        theirs.extend(sample(config("a dog", base="sd-v-zero", seed=0)))
        before.extend(picture.path.read_bytes() for picture in theirs)
        return whole(self, *given, **how)

    theirs: list[Picture] = []
    before: list[bytes] = []
    monkeypatch.setattr(Family, "draw", slow)
    ours = sample(config("a dog"))
    assert [picture.path.name for picture in ours] == ["a-dog-0-2.png", "a-dog-1-2.png"]
    assert [picture.path.read_bytes() for picture in theirs] == before
    assert "persona" in facts(ours[0].path)
    assert Path("pictures/grid-2.png").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])  # as Windows PowerShell 5 writes it
def test_prompts_from_a_file(here: Path, encoding: str) -> None:
    Path("prompts.txt").write_text("\ufeffa [V] dog in snow\n\n  a red [V] dog  \n", encoding=encoding)
    pictures = sample(SampleConfig(prompts=("a [V] dog",), prompts_file=Path("prompts.txt"), n=1, steps=1))
    assert [picture.prompt for picture in pictures] == ["a [V] dog", "a [V] dog in snow", "a red [V] dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("a [V] caf\xe9".encode("latin-1"), "it is no UTF-8 text. Save it as UTF-8"),
        (b"\n \n", "no prompt"),
        (b"x" * 10_000, "10000 char"),
    ],
)
def test_files_of_prompts_that_are_refused(here: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        Path("prompts.txt").write_bytes(content)
    with pytest.raises(BadPrompt, match=message):
        sample(SampleConfig(prompts_file=Path("prompts.txt")))
    assert not Path("pictures").exists()


@pytest.mark.parametrize(
    ("prompt", "advice"),
    [
        ("a [V] on the beach", "does not say dog"),
        ("a red car", "has no [V]"),
        ("a [V] dog " + "in the snow " * 20, "is cut"),
    ],
)
def test_prompts_that_get_a_word_of_advice(here: Path, prompt: str, advice: str) -> None:
    events: list[Event] = []
    sample(config(prompt, n=1, steps=1), events.append)
    assert advice in notes(events)


def test_a_token_of_several_parts_is_no_unknown_word() -> None:
    base: Any = SimpleNamespace(title="clay", unknown_words=lambda prompt: unknown(prompt, {"a", "dog"}))
    events: list[Event] = []
    tell_unknown(base, ["a Rex_01 dog", "a Rex_01 cat"], ["Rex_01"], events.append)
    assert notes(events).startswith("cat: not in the vocabulary of clay,")


@pytest.mark.parametrize("prompt", ["a \udcff dog", "a \0 dog", " ", "../../dog.png", "x" * 10_000])
def test_prompts_that_are_refused(prompt: str) -> None:
    with pytest.raises(BadPrompt):
        config(prompt)


loaded_once = cache(families.load)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80))
def test_whatever_is_no_refused_prompt_is_drawn_inside_the_folder(here: Path, prompt: str) -> None:
    out = Path("pictures")
    try:
        asked = config(prompt, n=1, steps=1, base="sd-v-zero")
    except BadPrompt:
        return
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(families, "load", loaded_once)
            (picture,) = sample(asked)
    except BadPrompt:
        assert "[" in prompt
        return
    assert picture.path.parent == out
    with Image.open(picture.path) as image:
        assert image.info["prompt"] == prompt


def test_a_bare_base_knows_no_subject(here: Path) -> None:
    with pytest.raises(BadPrompt, match="--persona"):
        sample(config("a [V] dog", base="sd-v-zero"))
    (picture,) = sample(config("a dog", base="sd-v-zero", n=1))
    with Image.open(picture.path) as image:
        assert "persona" not in image.info


def test_a_persona_of_another_base_is_refused(here: Path, base_folder: Callable[..., Path]) -> None:
    Path("sd-v-zero").unlink()
    Path("sd-v-zero").symlink_to(base_folder("sd-v"))
    with pytest.raises(BadPersona, match="was made for another base"):
        sample(config())
    Path("sd-v-zero").unlink()
    with pytest.raises(BadBase, match="needs the base sd-v-zero: say where it is with --base"):
        sample(config())
    elsewhere = str(base_folder("sd-v-zero"))
    assert len(sample(config(persona=Path("personas/dog-zwx"), base=elsewhere, out=Path("elsewhere")))) == 2
    assert not Path("pictures").exists()


def test_what_is_refused_before_the_base_is_loaded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "load", None)
    with pytest.raises(BadPersona, match="no checkpoint of step 7"):
        sample(config(checkpoint=7))
    Path("file").write_text("")
    with pytest.raises(BadOption, match="--out"):
        sample(config(out=Path("file/pictures")))
    shutil.rmtree("personas")
    with pytest.raises(BadPersona, match="persona train"):
        sample(config())


@needs_fork
def test_two_processes_share_the_work(here: Path) -> None:
    def share() -> None:
        events: list[Event] = []
        made = sample(config("a [V] dog", n=3, out=Path("shared")), events.append)
        most = max(event.total for event in events if isinstance(event, Progress))
        Path(f"told-{os.environ['RANK']}").write_text(f"{len(made)} of which {most}")

    forked(share)
    assert [Path(f"told-{rank}").read_text() for rank in (0, 1)] == ["3 of which 2", "3 of which 1"]
    shared = sorted(Path("shared").glob("a-*.png"))
    alone = sorted(picture.path for picture in sample(config("a [V] dog", n=3)))
    assert [path.name for path in shared] == [path.name for path in alone]
    assert max(map(apart, shared, alone)) <= 1
    assert Path("shared/grid.png").exists()
