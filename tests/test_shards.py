"""Weights that processes share out: two of them, on gloo, learn what one does that has all of them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers.integrations.fsdp import is_fsdp_enabled
from webdata import write_shard

from persona.config import JediConfig
from persona.errors import BadOption
from persona.pretrain import learning
from persona.pretrain.jedi import pretrain_jedi
from persona.pretrain.state import Run

pytestmark = processes.needs_fork


@pytest.fixture(scope="module")
def config(base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> JediConfig:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "data" / "00000.tar", sets=5, pictures=3)
    return JediConfig(
        base=str(base_folder("sdxl")), data=folder / "data", out=folder / "one", steps=4, batch=2, save_every=4,
        learning_rate=1e-3, precision="fp32", targets=("attn1", "conv_norm_out"),
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_sheet() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "SHEETS", 1)
        patch.setattr("persona.pretrain.jedi.SHOWN", 1)
        yield


@pytest.fixture(scope="module")
def one(config: JediConfig) -> Path:
    """What one process leaves."""
    pretrain_jedi(config)
    return config.out


def share_out(config: JediConfig) -> None:
    """Learn in a process of several, and write down how much of the weights it was ever given to keep."""
    kept: set[float] = set()
    count = Run.count

    def watched(run: Run, started: float) -> None:
        count(run, started)
        weights = list(run.modules["denoiser"].parameters())
        held = sum(p.to_local().numel() for p in weights if isinstance(p, DTensor))
        kept.add(held / sum(p.numel() for p in weights))
        for name, parameter in run.parameters():
            if name.startswith("denoiser."):
                hanging = [parameter, parameter.grad, run.average[name], run.optimizer.state[parameter]["exp_avg"]]
                assert all(isinstance(one, DTensor) for one in hanging)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "count", watched)
        pretrain_jedi(config)
    assert not is_fsdp_enabled()  # by transformers' understanding, in which only the first process loads weights
    (config.out / f"kept-{torch.distributed.get_rank()}.json").write_text(json.dumps(sorted(kept)))


@pytest.fixture(scope="module")
def two(config: JediConfig, one: Path) -> Path:
    """What two processes leave that share out the weights."""
    out = config.out.with_name("two")
    processes.forked(partial(share_out, replace(config, batch=1, out=out)), **processes.FSDP)
    return out


def same(one: Path, other: Path) -> None:
    """Make sure that two runs are at the same step, with the same losses and the same state up to rounding."""
    states = [folder / "state" / "state.safetensors" for folder in (one, other)]
    positions = []
    for state in states:
        with safe_open(state, "pt") as file:
            positions.append(json.loads(file.metadata()["position"]))
    assert positions[0]["step"] == positions[1]["step"]
    assert [loss for _, loss in positions[0]["curve"]] == pytest.approx(
        [loss for _, loss in positions[1]["curve"]], rel=1e-5
    )
    expected, found = map(load_file, states)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-5)
    weights = [load_file(folder / "weights" / "jedi.safetensors") for folder in (one, other)]
    assert all(value.shape == weights[1][name].shape for name, value in weights[0].items())


def test_they_learn_what_one_does(one: Path, two: Path) -> None:
    same(one, two)
    assert (two / "samples" / "step-000004.png").exists()
    assert (two / "report.html").exists()


def test_each_holds_its_part_alone(two: Path) -> None:
    parts = [json.loads((two / f"kept-{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(part) for part in parts] == [1, 1]
    assert sum(part[0] for part in parts) == pytest.approx(1)
    assert all(0.4 < part[0] < 0.6 for part in parts)


def test_deepspeed_is_refused(config: JediConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(BadOption, match="--use_fsdp"):
        pretrain_jedi(config)


def test_either_goes_on_from_the_state_of_the_other(config: JediConfig, one: Path, two: Path, tmp_path: Path) -> None:
    longer = replace(config, steps=6)
    for source, name in ((one, "one"), (two, "two"), (one, "three")):
        shutil.copytree(source, tmp_path / name)
    for name in ("one", "two"):
        pretrain_jedi(replace(longer, out=tmp_path / name))
    processes.forked(partial(pretrain_jedi, replace(longer, batch=1, out=tmp_path / "three")), **processes.FSDP)
    same(tmp_path / "one", tmp_path / "two")
    same(tmp_path / "one", tmp_path / "three")
