"""A rehearsal without data against the same with data; the parts of well-known bases; plans."""

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matrix
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from typer.testing import CliRunner

import persona
from persona import families
from persona.cli import app
from persona.config import PlanConfig, TrainConfig
from persona.errors import BadBase
from persona.families import known
from persona.families.parts import CONFIGS
from persona.methods.settings import Settings
from persona.plan import plan
from persona.train import speed
from persona.train.ledger import Ledger
from persona.train.rehearsal import (
    DRAWING,
    LOADING,
    PICTURES,
    PROMPTS,
    TRAINING,
    Rehearsal,
    _like,
    networks,
    perform,
    prepare,
    rehearse,
)

Folder = Callable[[str], Path]
PHOTOS = 3


def config(base: Path | str, **changed: Any) -> TrainConfig:
    given: dict[str, Any] = {"batch": 4, "prior": "none", "resolution": 64}
    return TrainConfig(photos=Path("photos"), class_noun="dog", base=str(base), **given | changed)


seen: dict[Any, Rehearsal] = {}


def once(base: families.Family, asked: TrainConfig, settings: Settings, **how: Any) -> Rehearsal:
    """Rehearse what was not rehearsed yet: it takes seconds, and comes to the same."""
    case = (asked, settings, *sorted(how.items(), key=str))
    seen[case] = seen.get(case) or rehearse(base, asked, settings, **how)
    return seen[case]


def rehearsed(
    asked: TrainConfig, dtype: torch.dtype = torch.float32, device: str = "cpu", photos: int = PHOTOS
) -> Rehearsal:
    base = families.outline(asked.base)
    return once(base, asked, Settings.of(asked, base, photos), photos=photos, dtype=dtype, device=device)


def weights(base: families.Family) -> list[torch.Tensor]:
    return [one for part in networks(base).values() for one in (*part.parameters(), *part.buffers())]


def performed(asked: TrainConfig, dtype: torch.dtype, stage: Any, ledger: Any = nullcontext()) -> int:  # noqa: B008
    """Do the same with weights, and return the bytes of those that are there in the end."""
    base = families.load(asked.base, dtype=dtype, device="cpu")
    settings = Settings.of(asked, base, PHOTOS)
    prepare(base, asked, settings, dtype)
    gc.collect()  # or what other tests have left would be let go of while it is counted
    with ledger:
        for one in weights(base):
            one.detach()  # the ledger knows of what it has seen
        perform(base, asked, settings, PHOTOS, stage, lambda network, there: None)
    return sum(one.nbytes for one in weights(base))


CASES = [
    {},
    {"gradient_checkpointing": True},
    {"quantize": "nf4"},
    {"optimizer": "adamw", "prior": "self"},
    {"quantize": "int8", "text_encoder": True, "adapter": "dora"},
    {"adapter": "loha"},
    {"adapter": "lokr"},
]
BASES = ["sd-eps", "sd3", "sdxl", "flux"]
STEPS = matrix.sparse(11, CASES, [torch.float32, torch.bfloat16], BASES)
SMALL = CASES[1], "sdxl"
"""Kernels take over a tenth of so small a step for themselves; a ledger with data counts the same (the test below)."""


@pytest.mark.parametrize(("case", "dtype", "name"), [step for step in STEPS if step.values[::2] != SMALL])
def test_a_step_takes_what_was_rehearsed(
    base_folder: Folder, case: dict[str, Any], dtype: torch.dtype, name: str
) -> None:
    """Against the allocator's own record: what comes and goes in kernels, which no rehearsal sees, is in there too."""
    taken, held = dict[str, int](), 0

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        nonlocal held
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            yield
        for event in record.profiler.kineto_results.events():
            held += event.nbytes() if event.name() == "[memory]" else 0
            taken[name] = max(taken.get(name, 0), held)

    asked = config(base_folder(name), **case)
    left = performed(asked, dtype, stage)
    assert taken[TRAINING] == pytest.approx(rehearsed(asked, dtype).stages[TRAINING] - left, rel=0.1)


@pytest.mark.parametrize(("case", "name"), matrix.sparse(7, CASES, BASES))
def test_tensors_without_data_count_as_those_with(base_folder: Folder, case: dict[str, Any], name: str) -> None:
    ledger, stages = Ledger(), dict[str, tuple[int, int]]()
    asked = config(base_folder(name), **case)
    performed(asked, torch.float32, lambda name: ledger.stage(stages, name), ledger)
    without = rehearsed(asked)
    assert without.operations == stages[TRAINING][1]
    assert {name: most for name, (most, _) in stages.items() if name != LOADING} == pytest.approx(
        {name: most for name, most in without.stages.items() if name != LOADING}, rel=0.02
    )


def test_what_is_done_to_need_less_memory_does(base_folder: Folder) -> None:
    plain = rehearsed(config(base_folder("sd-eps")))

    def less(stage: str, **changed: Any) -> float:
        other = rehearsed(config(base_folder("sd-eps"), **changed))
        assert other.operations >= plain.operations  # of a whole step, however it is divided
        return other.stages[stage] / plain.stages[stage]

    assert less(TRAINING, gradient_checkpointing=True) < 0.6
    assert less(TRAINING, batch=1, accumulate=4) < 0.5
    assert less(PROMPTS, offload=True) < 0.5


def test_packed_weights_are_smaller(base_folder: Folder) -> None:
    def loaded(quantize: Any) -> int:
        asked = config(base_folder("sd-eps"), quantize=quantize)
        base = families.outline(asked.base)
        prepare(base, asked, Settings.of(asked, base, PHOTOS), torch.float32)
        return sum(one.nbytes for one in weights(base))

    assert loaded("nf4") < loaded("int8") < loaded("none")


def test_class_images_are_rehearsed_where_they_are_drawn(base_folder: Folder) -> None:
    base = str(base_folder("sd-eps"))
    none, taught, drawn = (rehearsed(config(base, prior=one)).stages for one in ("none", "self", "generated"))
    assert none[DRAWING] == taught[DRAWING] < drawn[DRAWING]
    asked = {one: PlanConfig(base=base, precision="fp32", prior=one) for one in ("self", "generated")}
    disk = {one: plan(what)[0].disk for one, what in asked.items()}
    assert disk["self"] < disk["generated"]


def test_text_encoders_that_learn_nothing_are_not_there_in_a_step(
    base_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(base_folder("sd3"), text_encoder=True, prior="self")
    freed = rehearsed(asked)
    monkeypatch.setattr(families.Family, "free_frozen_text_encoders", lambda *_: None)
    seen.clear()
    size = sum(one.nbytes for one in families.outline(asked.base).text_encoders["text_encoder_3"].parameters())
    # So small an encoder is not much more than what it says.
    assert rehearsed(asked).stages[TRAINING] - freed.stages[TRAINING] > 0.5 * size
    seen.clear()


def test_tiles_take_less(base_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persona.families.family.TILE", 32)
    whole, tiled = (rehearsed(config(base_folder("sd-eps"), **how)).stages for how in ({}, {"tiling": True}))
    assert tiled[PICTURES] - tiled[LOADING] < 0.6 * (whole[PICTURES] - whole[LOADING])


@pytest.mark.parametrize("layer", [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.Softmax(-1)], ids=repr)
def test_what_autocast_widens_on_a_gpu_is_widened(layer: nn.Module) -> None:
    with _like("cuda"), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.zeros(2, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_gpu_keeps_more_in_float32(base_folder: Folder) -> None:
    asked, layer_norm = config(base_folder("flux")), torch.nn.functional.layer_norm
    cpu, gpu = (rehearsed(asked, torch.bfloat16, device).stages[TRAINING] for device in ("cpu", "cuda"))
    assert gpu > cpu
    asked = config(base_folder("sd-eps"))
    assert rehearsed(asked, device="cuda").stages[TRAINING] == rehearsed(asked).stages[TRAINING]
    assert torch.nn.functional.layer_norm is layer_norm  # nothing of a rehearsal stays
    assert type(torch.zeros(1)) is torch.Tensor


def test_without_8_bits_there_the_plain_optimizer_is_rehearsed(base_folder: Folder) -> None:
    asked = config(base_folder("sd-eps"))
    apple, plain = (rehearsed(one, device="mps").stages for one in (asked, replace(asked, optimizer="adamw")))
    assert apple[TRAINING] == plain[TRAINING] > rehearsed(asked).stages[TRAINING]


# What is known without a download

SIZES = {
    "sd15": {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863},
    "sd21": {"unet": 865_910_724, "text_encoder": 340_387_840, "vae": 83_653_863},
    "sdxl": {"unet": 2_567_463_684, "text_encoder_2": 694_659_840},
    "sd3-medium": {"transformer": 2_028_328_000, "text_encoder_3": 4_762_310_656, "vae": 83_819_683},
    "sd35-medium": {"transformer": 2_243_171_520},
    "sd35-large": {"transformer": 8_056_627_520},
    "flux-dev": {"transformer": 11_901_408_320, "text_encoder_2": 4_762_310_656},
    "flux-schnell": {"transformer": 11_891_178_560},
}
"""How many weights the published models have."""


def test_all_short_names_are_known() -> None:
    assert {*SIZES, "flux-krea"} == set(known())
    assert CONFIGS["flux-krea"] == CONFIGS["flux-dev"]


@pytest.mark.parametrize("name", SIZES)
def test_well_known_bases_have_their_sizes(name: str) -> None:
    base = families.blueprint(name)
    assert base.resolution == {"sd15": 512, "sd21": 768}.get(name, 1024)
    found = {key: sum(weights.numel() for weights in part.parameters()) for key, part in networks(base).items()}
    assert {key: found[key] for key in SIZES[name]} == SIZES[name]


def test_well_known_bases_are_known_by_their_repositories_too() -> None:
    assert families.blueprint(known()["sd15"].repo).pipeline == "StableDiffusionPipeline"


def test_a_base_that_nobody_knows_is_refused() -> None:
    for name in ("nothing", "someone/something"):
        with pytest.raises(BadBase):
            families.blueprint(name)


# Plans


@pytest.fixture(autouse=True)
def rehearsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["persona.plan"], "rehearse", once)


def eight(base_folder: Folder) -> TrainConfig:
    """Return what a plan of rank 8 rehearses."""
    more: dict[str, Any] = {"batch": None, "prior": "self", "resolution": None}
    return config(base_folder("sd-eps"), rank=8, precision="fp32", **more)


def test_a_plan_says_what_a_training_takes(
    base_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing was timed yet
    told: list[persona.Event] = []
    (made,) = plan(PlanConfig(base=str(base_folder("sd-eps")), precision="fp32", rank=8), told.append)
    asked = eight(base_folder)
    behind = rehearsed(asked, photos=4)
    assert (made.memory, made.parameters) == (behind.most, behind.parameters)
    assert made.settings == Settings.of(asked, families.outline(asked.base), 4)
    assert (made.device, made.how, made.download, made.fits) == ("cpu", "", 0, True)
    assert made.adapter == 4 * made.parameters
    assert made.disk > made.adapter
    assert made.step_seconds is None
    assert told


REPOSITORY = """
50 unet/diffusion_pytorch_model-00001-of-00002.safetensors
50 unet/diffusion_pytorch_model-00002-of-00002.safetensors
30 unet/diffusion_pytorch_model.fp16.safetensors
99 unet/diffusion_pytorch_model.non_ema.safetensors
10 text_encoder/model.safetensors
2 text_encoder/model.fp16.safetensors
10 text_encoder/pytorch_model.bin
1 vae/diffusion_pytorch_model.safetensors
12 safety_checker/model.safetensors
111 all-in-one.safetensors
"""


@pytest.mark.parametrize(("gone", "fetched"), [("of-00002", 33), ("nothing", 111)])
def test_no_more_is_told_than_is_fetched(
    base_folder: Folder, monkeypatch: pytest.MonkeyPatch, gone: str, fetched: int
) -> None:
    """The parts that are loaded, in one variant; fp16, where one part has no other."""
    listed = [line.split() for line in REPOSITORY.strip().splitlines() if gone not in line]
    told = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=int(size)) for size, name in listed])
    module = sys.modules["persona.plan"]
    monkeypatch.setattr(module, "model_info", lambda *_, **how: told)
    monkeypatch.setattr(module, "here", lambda base: None)
    monkeypatch.setattr(module, "blueprint", lambda *_: families.outline(str(base_folder("sd-eps"))))
    (made,) = plan(PlanConfig(base="somebody/base", precision="fp32"))
    assert made.download == fetched


def test_time_is_told_where_the_machine_is_known(base_folder: Folder) -> None:
    operations = rehearsed(eight(base_folder), photos=4).operations
    speed.note(torch.device("cpu"), "torch.float32, none", 2 * operations, 3.0)
    (made,) = plan(PlanConfig(base=str(base_folder("sd-eps")), precision="fp32", rank=8))
    assert made.step_seconds == pytest.approx(1.5)


def test_a_card_that_is_too_small_is_told(base_folder: Folder) -> None:
    said: dict[str, Any] = {"batch": 1, "resolution": 2048, "quantize": "none", "gradient_checkpointing": False}
    more: dict[str, Any] = {"offload": False, "tiling": False, "optimizer": "adamw", "prior": "none"}
    (small,) = plan(PlanConfig(base=str(base_folder("sd-eps")), vram=1, **said, **more))
    (large,) = plan(PlanConfig(base=str(base_folder("sd-eps")), vram=1000, **said, **more))
    assert (small.device, large.device) == ("cuda", "cuda")
    assert not small.fits
    assert large.fits
    assert small.memory == large.memory > (small.room or 0)


def test_a_plan_is_of_the_size_that_is_trained(base_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families.Family, "granularity", 64)  # as that of Stable Diffusion
    small, trained = (rehearsed(config(base_folder("sd-eps"), resolution=side)) for side in (32, 64))
    assert small == trained


def test_all_that_have_short_names_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[str] = []
    monkeypatch.setattr(sys.modules["persona.plan"], "_plan", lambda name, *_: planned.append(name))
    assert len(plan(PlanConfig(every=True))) == len(planned)
    assert planned == ["clay", *known()]


def test_the_command_tells_a_plan(base_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    base = str(base_folder("sd-eps"))
    (made,) = plan(PlanConfig(base=base, precision="fp32", rank=8))

    def run(*options: str) -> Any:
        return CliRunner().invoke(app, ["plan", *options, "--json"], env={"COLUMNS": "1000"})

    result = run("--base", base, "--precision", "fp32", "--rank", "8")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    same = ("base", "device", "memory", "stage", "how", "download", "disk", "parameters", "adapter", "fits")
    assert {name: told[name] for name in same} == {name: getattr(made, name) for name in same}
    assert (told["settings"]["rank"], told["settings"]["steps"]) == (8, made.settings.steps)
    assert f"{made.parameters / 1e6:.1f} million parameters in {made.settings.steps} steps" in result.stderr
    assert f"persona train PHOTOS --class CLASS --base {base}" in result.stderr

    asked: list[bool] = []
    short = replace(made, base="huge", room=1, how="the base in nf4")

    def both(config: PlanConfig, listener: persona.Listener) -> list[persona.Plan]:
        asked.append(config.every)
        return [made, short]

    monkeypatch.setattr(sys.modules["persona.plan"], "plan", both)
    result = run("--all")
    assert asked == [True]
    assert [(one["base"], one["fits"]) for one in json.loads(result.stdout)["plans"]] == [(base, True), ("huge", False)]
    (fitting,) = (line for line in result.stderr.splitlines() if line.strip().startswith(base))
    (other,) = (line for line in result.stderr.splitlines() if line.strip().startswith("huge"))
    assert "does not fit" not in fitting
    assert "does not fit, even with the base in nf4" in other
