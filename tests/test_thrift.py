"""What a run does to need less memory: before it begins, and when memory runs out in its middle."""

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trainings
from hypothesis import given
from hypothesis import strategies as st
from results import notes
from safetensors.torch import load as from_bytes
from torch import Tensor

from persona import checkpoints, families
from persona.config import TrainConfig
from persona.errors import BadOption, NoMemory
from persona.events import Event, Progress
from persona.families import Family
from persona.methods.dreambooth import DreamBooth
from persona.methods.settings import Settings
from persona.score import Scores
from persona.train import thrift, train, watch
from persona.train.processes import agree
from persona.train.rehearsal import DRAWING, PICTURES, TRAINING

Folder = Callable[[str], Path]


@pytest.fixture
def config(base_folder: Folder, photo_folder: Path, tmp_path: Path) -> TrainConfig:
    return trainings.short(base_folder("sd-eps"), photo_folder, tmp_path / "out", batch=4, precision="fp32")


@pytest.fixture(scope="module")
def whole(base_folder: Folder, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Return the losses of the same run where memory is never short."""
    events: list[Event] = []
    train(
        trainings.short(
            base_folder("sd-eps"), photo_folder, tmp_path_factory.mktemp("whole") / "out", batch=4, precision="fp32"
        ),
        events.append,
    )
    return losses(events)


def losses(events: Sequence[Event]) -> dict[int, float]:
    told = [e for e in events if isinstance(e, Progress) and e.loss is not None]
    found = {event.done: event.loss for event in told if event.loss is not None}
    assert len(found) == len(told)  # no step is taken twice
    return found


# Before a run


@cache
def outline(folder: Path) -> Family:
    return families.outline(str(folder))


def settings(base_folder: Folder, config: TrainConfig) -> Settings:
    return Settings.of(config, outline(base_folder("sd-eps")), 3)


def taking(stage: str, cost: Callable[[Settings], float]) -> Callable[[Settings], Any]:
    return lambda one: SimpleNamespace(most=cost(one), worst=stage)


def training_cost(one: Settings) -> float:
    kept = 0.3 if one.gradient_checkpointing else 1.0
    weights = 0.25 if one.quantize == "nf4" else 1.0
    return 100 * weights + one.batch * kept * one.resolution**2 / 10


def test_what_costs_least_comes_first(base_folder: Folder, config: TrainConfig) -> None:
    asked = settings(base_folder, replace(config, batch=6, resolution=32))
    seen = []
    for room in (800, 410, 210, 140, 60, 50):
        found, _ = thrift.fit(config, asked, room, taking(TRAINING, training_cost), "cpu", [24, 16])
        assert training_cost(found) <= room or room == 50
        seen.append(thrift.words(asked, found))
    assert seen == [
        "",
        "batches of 3, 2 to a step",
        "batches of 1, 6 to a step",
        "batches of 1, 6 to a step, gradient checkpointing",
        "batches of 1, 6 to a step, gradient checkpointing, the base in nf4",
        "batches of 1, 6 to a step, gradient checkpointing, the base in nf4, 24 pixels instead of 32",
    ]


@pytest.mark.parametrize(
    ("multiple", "resolution", "smaller"),
    [(64, 512, [384, 256]), (64, 768, [576, 384]), (16, 512, [384, 288, 256]), (64, 64, [])],
)
def test_resolutions_that_are_told_are_those_that_are_trained(
    multiple: int, resolution: int, smaller: list[int]
) -> None:
    base: Any = SimpleNamespace(granularity=multiple)
    assert thrift.sides(base, resolution) == smaller


def test_a_resolution_that_is_said_is_recorded_as_it_is_trained(base_folder: Folder, config: TrainConfig) -> None:
    assert settings(base_folder, replace(config, resolution=35)).resolution == 32


def test_on_a_gpu_idle_networks_are_put_aside_first(base_folder: Folder, config: TrainConfig) -> None:
    asked = settings(base_folder, config)
    cost = taking(PICTURES, lambda one: 10 if one.offload else 20)
    assert thrift.fit(config, asked, 15, cost, "cuda", [])[0].offload
    assert not thrift.fit(config, asked, 15, cost, "cpu", [])[0].offload


@given(
    batch=st.integers(1, 32),
    said=st.fixed_dictionaries(
        {},
        optional={
            "gradient_checkpointing": st.booleans(),
            "quantize": st.sampled_from(["none", "nf4", "int8"]),
            "resolution": st.integers(2, 64).map(lambda side: 8 * side),
            "optimizer": st.sampled_from(["adamw", "adamw8bit"]),
            "tiling": st.booleans(),
        },
    ),
    stage=st.sampled_from([TRAINING, DRAWING]),
)
def test_what_the_user_said_is_not_touched(base_folder: Folder, batch: int, said: dict[str, Any], stage: str) -> None:
    config = TrainConfig(photos=Path("x"), class_noun="dog", batch=batch, **said)
    asked = settings(base_folder, config)
    found, _ = thrift.fit(config, asked, 0, taking(stage, lambda one: 1), "cuda", [16])
    assert {name: getattr(found, name) for name in said} == said
    assert found.batch * found.accumulate == batch
    assert stage != TRAINING or found.batch == 1


def test_memory_is_measured_before_a_run(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config, needs = replace(config, batch=64), 64 * 2**20
    cost = taking(TRAINING, lambda one: one.batch * 2**20)
    monkeypatch.setattr(thrift, "rehearse", lambda base, config, settings, **how: cost(settings))
    events: list[Event] = []

    def chosen(room: float) -> dict[str, Any]:
        monkeypatch.setattr(thrift, "free", lambda _: int(room / thrift.SHARE) + 1)
        return dict(thrift.choose(config, 3, torch.float32, torch.device("cpu"), 1, events.append)[0])

    assert chosen(1e12) == {}
    assert notes(events) == ""
    monkeypatch.setattr(thrift, "AMPLE", 1e12)
    assert chosen(needs) == {}
    assert "training" in notes(events)
    assert "with" not in notes(events)
    assert chosen(0.6 * needs) == {"batch": 32, "accumulate": 2}
    assert "with batches of 32, 2 to a step" in notes(events)
    config = replace(config, batch=1, quantize="none", gradient_checkpointing=False, tiling=False, resolution=32)
    with pytest.raises(NoMemory, match="--base") as refusal:
        chosen(1000)
    assert len(str(refusal.value).splitlines()) <= 2


def test_far_larger_pictures_than_the_bases_own_are_measured(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(file.stat().st_size for file in Path(config.base).glob("*/*.safetensors"))
    monkeypatch.setattr(thrift, "free", lambda _: 2 * thrift.AMPLE * size)
    asked = replace(config, batch=1, quantize="none", gradient_checkpointing=False, tiling=False)
    assert thrift.choose(asked, 3, torch.float32, torch.device("cpu"), 1, print) == ({}, None)
    with pytest.raises(NoMemory):
        thrift.choose(replace(asked, resolution=4096), 3, torch.float32, torch.device("cpu"), 1, print)


def test_a_run_does_what_was_chosen(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = {"quantize": "int8", "gradient_checkpointing": True, "offload": True, "tiling": True}
    tiled: list[Family] = []
    asked: list[tuple[object, object]] = []
    load = families.load

    def loaded(*given: Any, **how: Any) -> Family:
        asked.append((how["bits"], how["offload"]))
        return load(*given, **how)

    monkeypatch.setattr(families, "load", loaded)
    monkeypatch.setattr(Family, "tile", lambda self: tiled.append(self))
    monkeypatch.setattr(sys.modules["persona.train"], "choose", lambda *_: (choice, None))
    made = train(config)
    assert {name: made.settings[name] for name in choice} == choice
    assert len(tiled) == 1
    assert asked == [("int8", True)]


# When memory runs out


Fits = Callable[[DreamBooth, Sequence[int]], bool]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Fits], None]:
    """Return a function after which, from a slot on, a loss raises what torch raises unless it fits."""
    real = DreamBooth.loss

    def limit(first: int, fits: Fits) -> None:
        def loss(self: DreamBooth, slots: Sequence[int], total: int) -> Tensor:
            whole = real(self, slots, total)
            if slots[-1] >= first and not fits(self, slots):
                raise torch.OutOfMemoryError("out of memory: tried to allocate 2.00 GiB")
            return whole

        monkeypatch.setattr(DreamBooth, "loss", loss)

    return limit


def checkpointed(base: Family) -> bool:
    return bool(base.denoiser.is_gradient_checkpointing)


def side(method: DreamBooth) -> int:
    return int(method.halves[0].examples[0].latents.shape[-1])


@pytest.mark.parametrize(
    ("fits", "said", "near"),
    [
        (lambda _, slots: len(slots) <= 2, "batches of 2, 2 to a step", 1e-5),
        (lambda method, slots: checkpointed(method.base), "gradient checkpointing", 1e-5),
        (lambda method, slots: method.base.bits == "nf4", "the base in nf4", 0.2),
        (lambda method, slots: side(method) < 8, "24 pixels instead of 32", None),
    ],
)
def test_a_run_goes_on_with_less_and_loses_no_step(
    config: TrainConfig,
    whole: dict[int, float],
    limited: Callable[[int, Fits], None],
    fits: Fits,
    said: str,
    near: float | None,
) -> None:
    short = list[Event]()
    limited(4 * 3 + 2, fits)  # in the middle of the fourth step, the third of which is not a checkpoint
    made = train(config, short.append)
    assert made.step == 6
    assert said in notes(short)
    found = losses(short)
    assert list(found) == [1, 2, 3, 4, 5, 6]
    assert [found[step] for step in (1, 2, 3)] == [whole[step] for step in (1, 2, 3)]
    if near:
        pair = [torch.tensor(list(one.values())) for one in (found, whole)]
        torch.testing.assert_close(*pair, rtol=near, atol=near)


def test_a_run_that_went_on_with_less_does_so_after_it_was_stopped(
    config: TrainConfig, tmp_path: Path, limited: Callable[[int, Fits], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(4, lambda method, _: method.base.bits == "nf4")
    whole = train(replace(config, out=tmp_path / "whole"))
    train(replace(config, steps=3))
    monkeypatch.undo()
    events: list[Event] = []
    made = train(config, events.append)
    assert "Resuming from step 3" in notes(events)
    assert made.settings["quantize"] == "nf4"
    found, wanted = (from_bytes((one.path / "adapter.safetensors").read_bytes()) for one in (made, whole))
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_what_is_said_on_going_on_is_not_overridden(
    config: TrainConfig, limited: Callable[[int, Fits], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was chosen when memory was short is not what the user wants now, or would be another run without it."""
    limited(4, lambda method, _: checkpointed(method.base) and method.base.bits == "nf4")
    made = train(replace(config, steps=3))
    assert made.settings["gradient_checkpointing"]
    monkeypatch.undo()
    with pytest.raises(BadOption, match="Leave --quantize out to resume"):
        train(replace(config, quantize="none"))
    train(replace(config, steps=4, quantize="nf4"))  # which says no more than what was chosen
    made = train(replace(config, gradient_checkpointing=False))
    assert (made.step, made.settings["quantize"]) == (6, "nf4")
    assert not made.settings["gradient_checkpointing"]


def test_a_run_that_goes_on_is_not_measured_again(
    config: TrainConfig, limited: Callable[[int, Fits], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(4, lambda method, _: checkpointed(method.base))
    train(replace(config, steps=3))
    monkeypatch.undo()
    monkeypatch.setattr(sys.modules["persona.train"], "choose", None)  # which would take minutes with a large base
    events: list[Event] = []
    assert train(config, events.append).step == 6
    assert "Resuming with batches of 1, 4 to a step, gradient checkpointing" in notes(events)
    assert train(config).step == 6


def test_what_is_chosen_today_is_undone_where_a_run_began_without(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(replace(config, steps=3))
    monkeypatch.setattr(sys.modules["persona.train"], "_begun", lambda _: None)  # as where its folder is not known yet
    tiled: list[bool] = []
    real = Family.encode_images

    def encode(self: Family, *given: Any) -> Tensor:
        tiled.append(self.pipe.vae.use_tiling)
        return real(self, *given)

    monkeypatch.setattr(Family, "encode_images", encode)
    monkeypatch.setattr(sys.modules["persona.train"], "choose", lambda *_: ({"tiling": True}, None))
    events: list[Event] = []
    made = train(config, events.append)
    assert tiled
    assert not any(tiled)
    assert made.settings["tiling"] is False
    assert "Resuming with no settings that save memory" in notes(events)


def test_a_run_goes_on_as_it_began_only_if_there_is_memory_for_it(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(replace(config, steps=3))
    load = families.load

    def short(*given: Any, **how: Any) -> Family:
        if how["bits"] != "nf4":
            raise torch.OutOfMemoryError("out of memory: tried to allocate 2.00 GiB")
        return load(*given, **how)

    monkeypatch.setattr(families, "load", short)
    monkeypatch.setattr(sys.modules["persona.train"], "choose", lambda *_: ({"quantize": "nf4"}, None))
    events: list[Event] = []
    made = train(config, events.append)
    assert (made.step, made.settings["quantize"]) == (6, "nf4")
    assert "Resuming with the base in nf4" in notes(events)


def test_a_gradient_that_was_begun_is_forgotten(config: TrainConfig, limited: Callable[[int, Fits], None]) -> None:
    config = replace(config, accumulate=2)  # memory runs out in the second batch of the second step
    whole, short = list[Event](), list[Event]()
    train(replace(config, out=config.out.parent / "whole" if config.out else None), whole.append)
    limited(12, lambda _, slots: len(slots) < 4)
    train(config, short.append)
    pair = [torch.tensor(list(losses(events).values())) for events in (short, whole)]
    torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


def test_where_nothing_helps_it_is_said_and_what_was_learnt_stays(
    config: TrainConfig, limited: Callable[[int, Fits], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, batch=1, quantize="none", resolution=32)  # gradient checkpointing is left
    limited(3, lambda *_: False)
    with pytest.raises(NoMemory, match="a smaller --base") as refusal:
        train(config)
    assert len(str(refusal.value).splitlines()) <= 2
    monkeypatch.undo()
    events: list[Event] = []
    assert train(config, events.append).step == 6
    assert "Resuming from step 3" in notes(events)


def test_other_errors_are_not_taken_for_it(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(*_: object) -> Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(DreamBooth, "loss", loss)
    with pytest.raises(RuntimeError, match="a bug"):
        train(config)


def test_previews_are_drawn_with_less_too(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Family.decode_latents

    def decode(self: Family, latents: Tensor) -> list[Any]:
        if not self.pipe.vae.use_tiling:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")
        return real(self, latents)

    monkeypatch.setattr(watch, "scorer_for", lambda *_: None)
    monkeypatch.setattr(Family, "decode_latents", decode)
    events: list[Event] = []
    made = train(replace(config, score_every=6), events.append)
    assert "images in tiles" in notes(events)
    assert len(list((made.path / "previews").rglob("*.png"))) > 0
    # The photos were encoded whole, and would be in tiles if a run that is resumed remembered it.
    assert made.settings["tiling"] is False


@pytest.mark.parametrize("look", [1, 2])
def test_previews_that_memory_ran_out_over_are_drawn_by_the_base_that_is_loaded_for_them(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    looks = itertools.count(1)
    real = Family.draw

    def draw(self: Family, *prompts: Any, **how: Any) -> list[Any]:
        if not self.bits and next(looks) >= look:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 2.00 GiB")
        return real(self, *prompts, **how)

    def score(*_: object) -> Scores:
        return Scores(0, 0, 0, 0, total=0)

    judge = SimpleNamespace(wanted={"a [V] {class}": (0, 1)}, score=score)
    monkeypatch.setattr(watch, "scorer_for", lambda *_: judge)
    monkeypatch.setattr(Family, "draw", draw)
    events: list[Event] = []
    made = train(replace(config, score_every=3), events.append)
    assert "the base in nf4" in notes(events)
    assert [one["step"] for one in made.history] == [3, 6]
    newest = checkpoints.latest(made.path)
    assert newest
    assert newest.record["history"] == list(made.history)
    assert list(losses(events)) == [1, 2, 3, 4, 5, 6]
    assert len(list((made.path / "previews").rglob("*.png"))) == 2 * 2


@pytest.mark.parametrize(
    ("changed", "packed"),
    [
        ({"token": None}, True),
        ({"prior": "generated"}, True),
        ({"prior": "generated"}, False),
        ({"score_every": 6}, True),
    ],
)
def test_what_is_drawn_before_the_training_is_drawn_with_less_too(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], packed: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no class is drawn yet
    real = Family.draw

    def draw(self: Family, *prompts: Any, **how: Any) -> list[Any]:
        if not (self.bits == "nf4" if packed else how["size"][0] < 32):
            raise torch.OutOfMemoryError("out of memory: tried to allocate 2.00 GiB")
        return real(self, *prompts, **how)

    monkeypatch.setattr(Family, "draw", draw)

    def scorer_for(base: Family, photos: object, class_noun: str, size: tuple[int, int], _: object) -> None:
        base.draw([class_noun], [0], size=size)

    monkeypatch.setattr(watch, "scorer_for", scorer_for)
    events: list[Event] = []
    made = train(replace(config, **changed, quantize="auto" if packed else "none"), events.append)
    assert ("the base in nf4" if packed else "24 pixels instead of 32") in notes(events)
    assert list(losses(events)) == [1, 2, 3, 4, 5, 6]
    assert made.settings["quantize"] == ("nf4" if packed else "none")


def test_processes_that_wait_for_one_hear_that_it_has_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    def short() -> None:
        raise torch.OutOfMemoryError("out of memory: tried to allocate 2.00 GiB")

    for processes, error in ((1, torch.OutOfMemoryError), (2, NoMemory)):
        with pytest.raises(error):
            agree(SimpleNamespace(num_processes=processes, is_main_process=True), short)


def test_none_of_several_processes_draws_its_share_again_alone(config: TrainConfig) -> None:
    now = Settings.of(config, families.outline(config.base), 3)
    for processes, stage in ((1, DRAWING), (2, TRAINING)):
        where: Any = SimpleNamespace(num_processes=processes, device=torch.device("cpu"))
        assert thrift.relieve(config, now, stage, where, [16], print)
    with pytest.raises(NoMemory, match="another --out, and --quantize nf4 or a smaller --res"):
        thrift.relieve(config, now, DRAWING, where, [16], print)


def test_what_was_done_already_is_not_advised(config: TrainConfig) -> None:
    now = Settings.of(replace(config, quantize="nf4", resolution=16, tiling=True), families.outline(config.base), 3)
    alone: Any = SimpleNamespace(num_processes=1, device=torch.device("cpu"))
    with pytest.raises(NoMemory, match="and a smaller --base"):
        thrift.relieve(config, now, DRAWING, alone, [16], print)
