"""Settings are checked when they are made, and each is declared completely."""

import json
import math
from dataclasses import MISSING, FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona import config as declared
from persona.config import InterpolateConfig, PlanConfig, PriorsConfig, SampleConfig, TrainConfig
from persona.config.option import Config, settings
from persona.errors import BadOption, BadPrompt, BadToken, PersonaError

CONFIGS: list[type[Config]] = [
    kind for kind in map(vars(declared).get, declared.__all__) if isinstance(kind, type) and issubclass(kind, Config)
]
PHOTOS = Path("photos")


def train(**changed: Any) -> TrainConfig:
    return TrainConfig(**{"photos": PHOTOS, "class_noun": "dog", **changed})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_option_says_what_it_means(config: type[Config]) -> None:
    for setting in settings(config):
        text = setting.option.help
        assert text[0].isupper(), setting.name
        assert text.endswith("."), setting.name
        assert len(text) <= 100, setting.name


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_flags_are_used_once(config: type[Config]) -> None:
    flags = [setting.flag for setting in settings(config)]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_defaults_are_within_their_own_bounds(config: type[Config]) -> None:
    needed: dict[str, Any] = {
        "photos": PHOTOS, "class_noun": "dog", "prompts": ("a [V] dog",), "persona": Path("rex"), "base": "sdxl",
        "file": Path("rex.safetensors"), "names": ("rex", "base"), "pictures": PHOTOS,
        "out": Path("pretraining"), "targets": ("attn1",),
    }  # fmt: skip
    config(
        **{
            s.name: needed[s.name]
            for s in settings(config)
            if s.default is MISSING or (s.name in ("prompts", "names") and s.default == ())
        }
    )


def test_configs_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        train().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        ({"rank": 0}, "--rank"),
        ({"steps": -1}, "--steps"),
        ({"learning_rate": math.nan}, "--learning-rate"),
        ({"prior_weight": math.inf}, "--prior-weight"),
        ({"seed": -1}, "--seed"),
        ({"adapter": "full"}, "--adapter"),
        ({"prior": "some"}, "--prior"),
        ({"prior": "folder:"}, "--prior"),
        ({"prior": "none:x"}, "--prior"),
    ],
)
def test_refusals_name_the_option_as_it_is_typed(changed: dict[str, Any], flag: str) -> None:
    with pytest.raises(BadOption, match=f"^{flag} "):
        train(**changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"photos": "photos"}, "PHOTOS takes Path, not 'photos'."),
        ({"rank": "4"}, "--rank takes int or nothing, not '4'."),
        ({"rank": True}, "--rank takes int or nothing, not True."),
        ({"prior_weight": None}, "--prior-weight takes float or int, not None."),
        ({"targets": "to_q"}, "--target takes a tuple of str or nothing, not 'to_q'."),
    ],
)
def test_types_are_checked_for_notebooks(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption) as refusal:
        train(**changed)
    assert str(refusal.value) == said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prior": "none", "prior_weight": 2.0}, "--prior-weight has no effect"),
        ({"prior": "none", "priors": 9}, "--priors counts"),
        ({"priors": 9}, "--prior self takes none. Add --prior generated"),
        ({"prior_weight": 0.0}, "--prior-weight 0 would switch prior preservation off"),
        ({"learning_rate": 0.0}, "--learning-rate 0 learns nothing"),
        ({"learning_rate": 0.0, "text_encoder": True, "text_learning_rate": 0.0}, "--learning-rate 0 learns nothing"),
    ],
)
def test_what_would_have_no_effect_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        train(**changed)
    assert train(prior="self", prior_weight=2.0, learning_rate=0.0, text_encoder=True)


def test_an_empty_base_is_not_taken_for_none() -> None:
    for kind in (SampleConfig, InterpolateConfig):
        with pytest.raises(BadOption, match=r"--base is empty\. Name one, or leave it out"):
            kind(prompts=("a dog",), base="")


def test_a_lone_prompt_is_no_row_of_letters() -> None:
    with pytest.raises(BadOption, match="takes a tuple"):
        SampleConfig(prompts="a [V] dog")  # type: ignore[arg-type]


@pytest.mark.parametrize("noun", ["", "  ", "\n", "a" * 100, "[V]"])
def test_classes_that_are_none(noun: str) -> None:
    with pytest.raises(BadToken, match="--class"):
        train(class_noun=noun)
    with pytest.raises(BadToken, match="--class"):
        PriorsConfig(class_noun=noun)


@pytest.mark.parametrize("token", ["", "two words", "tab\t", "../up", "a" * 50, ".hidden", "[V]", "nul\0"])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(BadToken, match="--token"):
        train(token=token)


@given(st.text(max_size=40))
def test_any_token_is_taken_or_refused_in_a_sentence(token: str) -> None:
    try:
        train(token=token)
    except PersonaError as refusal:
        lines = str(refusal).splitlines()
        assert len(lines) == 1
    else:
        assert not set(token) & set(" /\\")


@pytest.mark.parametrize("prompt", ["", " ", "word " * 2000, "a [V] dog ../../etc"])
def test_prompts_that_are_none(prompt: str) -> None:
    for make in (SampleConfig, InterpolateConfig):
        with pytest.raises(BadPrompt):
            make(prompts=(prompt,))
    with pytest.raises(BadPrompt):
        PriorsConfig(class_noun="dog", prompt=(prompt,))


def test_what_shall_not_be_shown_is_text_or_nothing() -> None:
    for make in (SampleConfig, InterpolateConfig):
        assert make(prompts=("a dog",), negative="").negative == ""
        for negative in ("word " * 2000, "a\0b"):
            with pytest.raises(BadPrompt, match="--negative"):
                make(prompts=("a dog",), negative=negative)


@pytest.mark.parametrize(
    "how",
    [
        {"reference": Path("refs"), "class_noun": "dog"},
        {"together": True},
        {"subject": ("V=dog.png",)},
        {"subject": ("W=dog.png",), "negative": "a [w] dog in the snow"},
    ],
)
def test_only_what_was_learnt_can_be_led_away_from(how: dict[str, Any]) -> None:
    asked = {"prompts": ("a dog",), "negative": "a [V] dog in the snow", **how}
    for make in (SampleConfig, InterpolateConfig) if "subject" in how else (SampleConfig,):
        with pytest.raises(BadPrompt, match=r"--negative: \[[VW]\] can only stand for a persona's subject here"):
            make(**asked)
        make(**{**asked, "negative": "a dog in the snow"})


def test_nothing_leads_away_from_what_shall_not_be_shown_without_guidance() -> None:
    how: dict[str, Any] = {"prompts": ("a dog",), "negative": "blurry", "guidance": 1.0}
    for make in (SampleConfig, InterpolateConfig):
        with pytest.raises(BadOption, match="--negative has no effect at a --guidance of 1 or less"):
            make(**how)
        make(**how, subject=("V=dog.png",))
        make(**{**how, "guidance": 1.5})
    with pytest.raises(BadOption, match="--negative has no effect"):
        SampleConfig(**how, together=True)
    SampleConfig(**how, reference=Path("refs"), class_noun="dog")


def test_no_more_steps_are_drawn_with_than_samplers_have() -> None:
    for make in (SampleConfig, InterpolateConfig):
        assert make(prompts=("a dog",), steps=999).steps == 999
        with pytest.raises(BadOption, match=r"--steps .*999"):
            make(prompts=("a dog",), steps=1000)
    with pytest.raises(BadOption, match=r"--steps .*999"):
        PriorsConfig(class_noun="dog", steps=1000)
    assert train(steps=10_000).steps == 10_000


def test_sample_wants_something_to_draw() -> None:
    with pytest.raises(BadPrompt, match="persona sample"):
        SampleConfig()
    assert SampleConfig(prompts_file=Path("prompts.txt")).prompts == ()


@pytest.mark.parametrize("flag", ["scale", "checkpoint"])
def test_a_bare_base_has_no_strength_and_no_checkpoint(flag: str) -> None:
    persona = Path("rex")
    how: dict[str, Any] = {"prompts": ("a dog",), "base": "clay", flag: 2}
    with pytest.raises(BadOption, match=rf"^--{flag} is about a persona"):
        SampleConfig(**how)
    SampleConfig(**how, persona=persona)
    if flag == "scale":
        with pytest.raises(BadOption, match=r"^--scale is about a persona"):
            InterpolateConfig(**how, seeds=(0, 1))
        InterpolateConfig(**how, persona=(persona,))


def test_all_are_no_single_base() -> None:
    with pytest.raises(BadOption, match="Leave --base out, or --all"):
        PlanConfig(base="sd15", every=True)
    assert PlanConfig(every=True).base == "clay"


@pytest.mark.parametrize(
    "given_",
    [{"prompts": ("a", "b", "c")}, {"prompts": ()}, {"seeds": (1, 2, 3)}, {"persona": (PHOTOS, PHOTOS, PHOTOS)}],
)
def test_a_series_goes_between_two(given_: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="between two"):
        InterpolateConfig(**{"prompts": ("a [V] dog",), **given_})


def test_the_record_is_json_and_tells_no_path() -> None:
    config = train(out=Path("/home/someone/personas"), prior="folder:/home/someone/dogs", targets=("to_q", "to_v"))
    text = json.dumps(config.record())
    assert "someone" not in text
    assert json.loads(text)["targets"] == ["to_q", "to_v"]
    assert replace(config, seed=1).record()["seed"] == 1


def test_an_alpha_that_scales_nothing_is_refused() -> None:
    assert train(adapter="lora", alpha=8.0).alpha == 8
    with pytest.raises(BadOption, match="--alpha has no effect on oft"):
        train(adapter="oft", alpha=8.0)
    with pytest.raises(BadOption, match="--alpha 0 would switch the adapter off"):
        train(alpha=0.0)
