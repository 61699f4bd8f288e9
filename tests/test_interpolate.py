import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import personas
import pytest
from PIL import Image, ImageSequence
from results import facts, notes, pixels

from persona import adapter, families, film
from persona.between import slerp
from persona.config import InterpolateConfig, SampleConfig
from persona.errors import BadOption, BadPersona, BadPrompt
from persona.events import Event, Note
from persona.eye import distance
from persona.interpolate import Frames, interpolate
from persona.sample import sample

pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture(scope="module")
def two_personas(base_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    personas.make(folder / "dog-zwx", base_folder("sd-v-zero"), token="zwx", class_noun="dog", seed=1)
    personas.make(folder / "cat-sks", base_folder("sd-v-zero"), token="sks", class_noun="cat", seed=2)
    return folder


@pytest.fixture
def here(two_personas: Path, base_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that has two personas, and their base under the name that they remember."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(two_personas, tmp_path / "personas")
    Path("sd-v-zero").symlink_to(base_folder("sd-v-zero"))
    return tmp_path


def config(*prompts: str, **options: Any) -> InterpolateConfig:
    return InterpolateConfig(prompts=prompts, **{"frames": 4, "steps": 2, "linear": True, **options})


def drawn(prompt: str, **options: Any) -> Any:
    (picture,) = sample(SampleConfig(prompts=(prompt,), n=1, steps=2, **options))
    return pixels(picture.path)


def ends(frames: Frames) -> tuple[Any, Any]:
    return pixels(frames.paths[0]), pixels(frames.paths[-1])


def same(first: Any, second: Any) -> bool:
    return int(abs(first - second).max()) <= 2  # an arc's ends are exact to rounding


def test_two_prompts_move_the_embedding(here: Path) -> None:
    made = interpolate(config("a dog", "a red cat", base="sd-v-zero"))
    start, end = ends(made)
    assert same(start, drawn("a dog", base="sd-v-zero"))
    assert same(end, drawn("a red cat", base="sd-v-zero"))
    assert made.places == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert made.what == "a dog to a red cat"
    assert min(made.distances) > 0


def test_two_seeds_move_the_noise(here: Path) -> None:
    start, end = ends(interpolate(config("a dog", base="sd-v-zero", seeds=(3, 8))))
    assert same(start, drawn("a dog", base="sd-v-zero", seed=3))
    assert same(end, drawn("a dog", base="sd-v-zero", seed=8))


def test_what_shall_not_be_shown_may_be_the_subject(here: Path) -> None:
    how: dict[str, Any] = {"persona": (Path("dog-zwx"),), "guidance": 3.0}
    _, end = ends(interpolate(config("a zwx dog", negative="a [V] dog in the snow", **how)))
    assert same(end, drawn("a zwx dog", negative="a zwx dog in the snow", **(how | {"persona": Path("dog-zwx")})))
    with pytest.raises(BadPrompt, match="subject of one persona"):
        interpolate(config("a dog", "a cat", base="sd-v-zero", negative="a [V] dog"))


def test_what_is_cut_of_a_prompt_is_told_once(here: Path) -> None:
    events: list[Event] = []
    interpolate(config("a dog" + " in the snow" * 20, base="sd-v-zero", seeds=(3, 8), frames=2), events.append)
    assert sum("is cut" in event.text for event in events if isinstance(event, Note)) == 1


def test_guidance_and_what_shall_not_be_shown_reach_the_base(here: Path) -> None:
    how: dict[str, Any] = {"base": "sd-v-zero", "guidance": 3.0, "negative": "a red dog in the snow"}
    start, end = ends(interpolate(config("a cat", seeds=(3, 8), frames=2, **how)))
    assert same(start, drawn("a cat", seed=3, **how))
    assert same(end, drawn("a cat", seed=8, **how))
    for left_out in ("guidance", "negative"):
        rest = {name: value for name, value in how.items() if name != left_out}
        assert not same(start, drawn("a cat", seed=3, **rest)), left_out


def test_one_persona_grows_out_of_the_base(here: Path) -> None:
    made = interpolate(config("a [V] dog", persona=(Path("personas/dog-zwx"),), scale=0.8))
    start, end = ends(made)
    assert same(start, drawn("a zwx dog", base="sd-v-zero"))
    assert same(end, drawn("a [V] dog", persona=Path("personas/dog-zwx"), scale=0.8))
    assert made.what == "the base to dog-zwx"


def test_a_persona_is_worn_throughout_where_something_else_moves(here: Path) -> None:
    start, end = ends(interpolate(config("a [V] dog", "a red [V] dog", persona=(Path("personas/dog-zwx"),))))
    assert same(start, drawn("a [V] dog", persona=Path("personas/dog-zwx")))
    assert same(end, drawn("a red [V] dog", persona=Path("personas/dog-zwx")))


def test_one_persona_becomes_another(here: Path) -> None:
    events: list[Event] = []
    both = (Path("personas/dog-zwx"), Path("personas/cat-sks"))
    start, end = ends(interpolate(config("a [V] little dog", persona=both), events.append))
    assert same(start, drawn("a [V] little dog", persona=both[0]))
    assert same(end, drawn("a [V] little cat", persona=both[1]))
    assert not any(event.warning for event in events if isinstance(event, Note))


def test_half_way_between_personas_is_half_of_each_product(here: Path, base_folder: Callable[..., Path]) -> None:
    """The reference adds half of each ``B A`` to the weights themselves; a mean of the factors would fail."""
    both = (Path("personas/dog-zwx"), Path("personas/cat-sks"))
    made = interpolate(config("a dog", persona=both, frames=3))
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    deltas = []
    for path in both:
        adapter.load(base, path / "adapter.safetensors")
        deltas.append(personas.added(base))
        adapter.detach(base)
    modules = dict(base.denoiser.named_modules())
    for name in deltas[0]:
        weight = modules[name.removeprefix("unet.")].weight
        weight.data += (0.5 * deltas[0][name] + 0.5 * deltas[1][name]).view_as(weight)
    (wanted,) = base.draw(["a dog"], [0], steps=2)
    assert same(pixels(made.paths[1]), np.asarray(wanted, int))


def test_frames_are_spaced_as_the_eye_sees_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = lambda a, b, at: slerp(a, b, at**4)  # noqa: E731  # most of the way lies at the end
    monkeypatch.setattr(sys.modules["persona.moving"], "slerp", late)
    settings = config("a dog", base="sd-v-zero", seeds=(0, 1), frames=8)
    plain, spaced = interpolate(settings), interpolate(replace(settings, linear=False))

    def unevenness(made: Frames) -> float:
        return max(made.distances) / (sum(made.distances) / len(made.distances))

    assert unevenness(plain) > 2
    assert unevenness(spaced) < 1.25
    assert (spaced.places[0], spaced.places[-1]) == (0, 1)
    assert all(earlier < later for earlier, later in pairwise(spaced.places))
    assert all(same(a, b) for a, b in zip(ends(plain), ends(spaced), strict=True))


def test_a_spacing_that_is_less_even_is_not_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = sys.modules["persona.interpolate"]
    monkeypatch.setattr(spaced, "even", lambda *_: [(one / 3) ** 4 for one in range(4)])
    monkeypatch.setattr(spaced, "EVEN", 1.0)
    made = interpolate(config("a dog", base="sd-v-zero", seeds=(0, 1), linear=False))
    assert made.places == pytest.approx((0, 1 / 3, 2 / 3, 1))


def test_a_series_is_frames_a_strip_and_animations(here: Path) -> None:
    made = interpolate(config("a dog", "a cat", base="sd-v-zero", fps=4.0))
    assert made.folder == Path("series/a-dog-to-a-cat")
    assert [path.name for path in made.paths] == [f"frame-{number:04}.png" for number in range(4)]
    with Image.open(made.strip) as strip:
        assert strip.width > 4 * 32
    for path in made.animations[:2]:
        with Image.open(path) as animation:
            durations = [frame.copy().info["duration"] for frame in ImageSequence.Iterator(animation)]
            assert durations == [250] * 4
    with Image.open(made.paths[1]) as frame:
        assert frame.info["series"] == "a dog to a cat"
        assert frame.info["prompts"] == "a dog | a cat"
        assert float(frame.info["place"]) == pytest.approx(1 / 3, abs=1e-5)
        assert str(here) not in str(frame.info)
    assert made.distances == tuple(distance(Image.open(a), Image.open(b)) for a, b in pairwise(made.paths))


def test_the_newest_persona_is_named(here: Path) -> None:
    os.utime("personas/cat-sks/persona.json", (0, 0))
    events: list[Event] = []
    interpolate(config("a dog", "a [V] dog", frames=2), events.append)
    assert "Drawing personas/dog-zwx on sd-v-zero: [V] dog is zwx dog." in notes(events)
    assert "'a dog' has no [V]" in notes(events)


def test_frames_carry_whom_they_show(here: Path) -> None:
    os.utime("personas/cat-sks/persona.json", (0, 0))
    made = interpolate(config("a [V] dog", frames=2, scale=0.8))
    newest = facts(made.paths[0])
    assert made.facts.items() <= newest.items()
    assert (newest["persona"], newest["token"], newest["class"]) == ("dog-zwx", "zwx", "dog")
    assert (newest["step"], newest["scale"]) == ("2", "0.8")
    both = (Path("personas/dog-zwx"), Path("personas/cat-sks"))
    of_two = facts(interpolate(config("a [V] dog", persona=both, frames=2)).paths[0])
    assert (of_two["persona"], of_two["token"], of_two["scale"]) == ("dog-zwx | cat-sks", "zwx | sks", "1.0 | 1.0")
    assert "persona" not in facts(interpolate(config("a dog", base="sd-v-zero", seeds=(0, 1), frames=2)).paths[0])


def test_what_exists_stays_and_nothing_is_left_half_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = interpolate(config("a dog", "a cat", base="sd-v-zero"))
    second = interpolate(config("a dog", "a cat", base="sd-v-zero"))
    assert second.folder.name == first.folder.name + "-2"

    def full(*args: Any, **how: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(film, "write", full)
    with pytest.raises(OSError, match="No space"):
        interpolate(config("a dog", "a cat", base="sd-v-zero"))
    assert sorted(path.name for path in Path("series").iterdir()) == [first.folder.name, second.folder.name]


def test_a_series_that_another_run_draws_meanwhile_stays(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = film.write

    def slow(*args: Any) -> list[Path]:
        monkeypatch.setattr(film, "write", write)
        theirs.append(interpolate(config("a dog", "a cat", base="sd-v-zero")))
        return write(*args)

    theirs: list[Frames] = []
    monkeypatch.setattr(film, "write", slow)
    ours = interpolate(config("a dog", "a cat", base="sd-v-zero"))
    assert [made.folder.name for made in (*theirs, ours)] == ["a-dog-to-a-cat", "a-dog-to-a-cat-2"]
    assert all(path.exists() for made in (*theirs, ours) for path in (*made.paths, made.strip, *made.animations))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (config("a dog", base="sd-v-zero"), BadOption, "nothing to go between"),
        (config("a dog", "a dog", base="sd-v-zero"), BadOption, "both PROMPTS are the same"),
        (config("a dog", base="sd-v-zero", seeds=(3, 3)), BadOption, "both --seed are the same"),
        (config("a [V] dog", persona=(Path("dog-zwx"), Path("personas/dog-zwx"))), BadOption, "both --persona are the"),
        (config("a [V] dog", persona=(Path("dog-zwx"),), scale=0.0), BadOption, "with a --scale above 0"),
        (
            config("a dog", persona=(Path("dog-zwx"), Path("personas/cat-sks")), scale=0.0),
            BadOption,
            "with a --scale above 0",
        ),
        (config("a [V] dog", "a cat", base="sd-v-zero"), BadPrompt, "--persona"),
        (config("a dog", "a cat", persona=(Path("absent"),)), BadPersona, "There is no persona"),
        (config("a dog", "a cat", base="sd-v-zero", out=Path("sd-v-zero/recipe.json/x")), BadOption, "--out"),
    ],
)
def test_what_is_refused(here: Path, settings: InterpolateConfig, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        interpolate(settings)
    assert not Path("series").exists()


def test_several_processes_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["persona.interpolate"], "processes", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(BadOption, match="without accelerate launch"):
        interpolate(config("a dog", "a cat", base="sd-v-zero"))
    assert not Path("series").exists()


def test_personas_of_different_bases_are_refused(here: Path, base_folder: Callable[..., Path]) -> None:
    personas.make(here / "personas/other", base_folder("sd-v"))
    with pytest.raises(BadPersona, match="different bases"):
        interpolate(config("a [V] dog", persona=(Path("personas/dog-zwx"), Path("personas/other"))))


def test_what_is_only_on_or_off_has_nothing_between(here: Path) -> None:
    personas.make(here / "personas/turned", here / "sd-v-zero", kind="oft")
    with pytest.raises(BadOption, match=r"oft .* or --frames 2 to interpolate"):
        interpolate(config("a [V] dog", persona=(Path("personas/turned"),)))
    assert not Path("series").exists()
    assert len(interpolate(config("a [V] dog", persona=(Path("personas/turned"),), frames=2)).paths) == 2
