import errno
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from results import pixels

from persona import families, priors
from persona.config import PriorsConfig, TrainConfig
from persona.drawing import number_format
from persona.errors import BadOption, BadPrompt, NoSpace
from persona.events import Event, Note, Progress
from persona.families import Family
from persona.train.material import given_pictures


@pytest.fixture(scope="module")
def base(base_folder: Callable[..., Path]) -> Family:
    return families.load(str(base_folder("sd-v-zero")), device="cpu")


@pytest.fixture
def config(tmp_path: Path) -> PriorsConfig:
    return PriorsConfig(class_noun="dog", n=5, steps=2, store=tmp_path / "store")


def test_no_subject_is_named_in_what_shows_any_of_its_class() -> None:
    for prompt in ("a [v] dog", "a [W] dog"):
        with pytest.raises(BadPrompt, match=r"\[[VW]\] stands for a subject"):
            PriorsConfig(class_noun="dog", prompt=("a dog", prompt))


def test_what_a_base_does_not_read_of_prompts_is_told(
    base: Family, config: PriorsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priors, "open_base", lambda *_: base)
    monkeypatch.setattr(base, "unknown_words", lambda prompt: [word for word in prompt.split() if word == "plutonium"])
    events: list[Event] = []
    priors.gen_priors(replace(config, n=1, prompt=("a dog of plutonium",)), events.append)
    assert "plutonium: not in the vocabulary" in " ".join(event.text for event in events if isinstance(event, Note))


def test_pictures_are_drawn_once_and_found_again(base: Family, config: PriorsConfig) -> None:
    events: list[Event] = []
    drawn = priors.ensure(config, base, events.append)
    assert [path.name for path in drawn] == [f"{seed}.png" for seed in range(5)]
    assert events[-1] == Progress("Drawing class images", 5, 5)
    times = [path.stat().st_mtime_ns for path in drawn]

    again: list[Event] = []
    assert priors.ensure(config, base, again.append) == drawn
    assert [path.stat().st_mtime_ns for path in drawn] == times
    assert again == [Note("5 of 5 class images were there already.")]


def test_each_has_its_own_seed_and_depends_on_nothing_else(base: Family, config: PriorsConfig, tmp_path: Path) -> None:
    together = priors.ensure(config, base)
    alone = priors.ensure(replace(config, n=1, seed=3, batch=1, store=tmp_path / "other"), base)
    assert abs(pixels(together[3]) - pixels(alone[0])).max() <= 1  # sums of floats in another order
    assert abs(pixels(together[3]) - pixels(together[4])).max() > 1


def test_they_are_drawn_by_the_ancestral_sampler(base: Family, config: PriorsConfig) -> None:
    (first, *_) = priors.ensure(config, base)
    (wanted,) = base.draw(["a dog"], [0], steps=2, ancestral=True)
    (other,) = base.draw(["a dog"], [0], steps=2)
    assert abs(pixels(first) - np.asarray(wanted, int)).max() <= 1
    assert abs(pixels(first) - np.asarray(other, int)).max() > 1


@pytest.mark.parametrize(
    "changed",
    [{"prompt": ("a big dog",)}, {"steps": 3}, {"guidance": 2.0}, {"resolution": 64}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_settings_are_other_pictures(base: Family, config: PriorsConfig, changed: dict[str, Any]) -> None:
    config = replace(config, n=1)
    assert not set(priors.ensure(config, base)) & set(priors.ensure(replace(config, **changed), base))


def test_another_start_of_guidance_is_other_pictures(base: Family, config: PriorsConfig) -> None:
    config = replace(config, n=1)
    drawn = priors.ensure(config, base)
    base.recipe = replace(base.recipe, guidance_start=0.5)
    assert not set(priors.ensure(config, base)) & set(drawn)


def test_another_base_has_other_pictures(base: Family, config: PriorsConfig, base_folder: Callable[..., Path]) -> None:
    config = replace(config, n=1)
    other = families.load(str(base_folder("sd-eps")), device="cpu")
    assert not set(priors.ensure(config, base)) & set(priors.ensure(config, other))


def test_pictures_of_the_whole_base_serve_where_it_is_packed(
    base: Family, config: PriorsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory runs out late in a training, drawing them all again would take longer than the rest of it."""
    few, more = replace(config, n=2), replace(config, n=3)
    drawn = priors.ensure(few, base)
    with monkeypatch.context() as packed:
        packed.setattr(base, "bits", "nf4")
        assert priors.ensure(few, base) == drawn
        own = priors.ensure(more, base)
        assert not set(own) & set(drawn)  # but not half of them
    priors.ensure(more, base)
    monkeypatch.setattr(base, "bits", "nf4")
    assert priors.ensure(more, base) == own  # a run goes on with those that it began with


def test_what_is_named_is_the_same_as_what_is_left_out(base: Family, config: PriorsConfig) -> None:
    config = replace(config, n=1)
    named = replace(config, prompt=("a dog",), guidance=base.recipe.guidance, resolution=base.resolution)
    assert priors.ensure(config, base) == priors.ensure(named, base)


def test_a_run_that_was_killed_goes_on(base: Family, config: PriorsConfig) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        priors.ensure(replace(config, batch=1), base, stop)
    kept = sorted(config.store.rglob("*.png")) if config.store else []
    assert [path.name for path in kept] == ["0.png", "1.png"]
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(priors.ensure(config, base)) == 5
    assert [path.stat().st_mtime_ns for path in kept] == times


def test_the_disk_that_is_full_is_named(base: Family, config: PriorsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a training it is not that of its own folder."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NoSpace, match=r"The disk of .*store is full"):
        priors.ensure(config, base)


def test_a_store_that_cannot_be_is_refused_before_a_base_is_loaded(
    config: PriorsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priors, "open_base", lambda *_: pytest.fail("the base is loaded"))
    (tmp_path / "file").touch()
    with pytest.raises(BadOption, match=r"file: file exists\. Name another folder with --store\.$"):
        priors.gen_priors(replace(config, store=tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BadOption, match=r"not a directory.* set XDG_CACHE_HOME .* --prior self\.$"):
        priors.gen_priors(replace(config, store=None))


def test_a_store_that_may_only_be_read_serves_until_pictures_are_missing(
    base: Family, config: PriorsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = priors.ensure(replace(config, n=1), base)

    def refused(_: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(config.store))

    monkeypatch.setattr("os.fsync", refused)
    assert priors.ensure(replace(config, n=1), base) == drawn
    with pytest.raises(BadOption, match=r"read-only file system\. Name another folder with --store\."):
        priors.ensure(replace(config, n=2), base)


def test_a_damaged_picture_is_drawn_again(base: Family, config: PriorsConfig) -> None:
    config = replace(config, batch=1)  # on some CPUs a picture's last digits depend on those that are drawn with it
    first, second, *_ = priors.ensure(config, base)
    whole, sound = pixels(first), second.stat().st_mtime_ns
    first.write_bytes(first.read_bytes()[:-30])
    priors.ensure(config, base)
    assert np.array_equal(pixels(first), whole)
    assert second.stat().st_mtime_ns == sound


def test_prompts_share_the_number_and_more_pictures_add_to_those_there(base: Family, config: PriorsConfig) -> None:
    config = replace(config, prompt=("a dog", "a red dog"), n=3)
    few = priors.ensure(config, base)
    more = priors.ensure(replace(config, n=4), base)
    assert more[:3] == few
    assert [path.name for path in more[::2]] == ["0.png", "1.png"]
    assert len({path.parent for path in more}) == 2
    assert json.loads((few[1].parent / "about.json").read_text())["prompt"] == "a red dog"


def test_the_prompts_are_learnt_from_one_folder_with_copies_of_all(
    base: Family, config: PriorsConfig, tmp_path: Path
) -> None:
    prompts = ("a dog in the snow", "a red dog", "a dog")
    for path in priors.ensure(replace(config, prompt=prompts, n=6), base):
        shutil.copytree(path.parent, tmp_path / "all", dirs_exist_ok=True)
    asked = TrainConfig(photos=tmp_path, class_noun="dog", base=base.name, prior=f"folder:{tmp_path / 'all'}", priors=9)
    found = given_pictures(asked, lambda event: None)
    assert Counter(picture.caption or "a dog" for picture in found) == dict.fromkeys(prompts, 2)


def test_the_command_draws_what_a_training_will_look_for_in_the_users_cache(
    base_folder: Callable[..., Path], own_cache: Path
) -> None:
    config = PriorsConfig(class_noun="cat", base=str(base_folder("sd-v-zero")), n=1, steps=1)
    (path,) = priors.gen_priors(config)
    assert path.is_relative_to(own_cache / "persona" / "priors")
    trained = families.load(config.base, dtype=number_format("auto", torch.device("cpu")))
    assert priors.ensure(config, trained) == [path]
    other = torch.float32 if trained.dtype == torch.bfloat16 else torch.bfloat16
    assert priors.ensure(config, families.load(config.base, dtype=other)) != [path]
    assert str(base_folder("sd-v-zero")) not in (path.parent / "about.json").read_text()
