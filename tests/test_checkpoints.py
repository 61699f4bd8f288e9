import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.optim import AdamW8bit
from torch import nn
from torch.optim import AdamW, Optimizer

from persona import checkpoints
from persona.errors import Busy

Make = Callable[[list[nn.Parameter]], Optimizer]
OPTIMIZERS = pytest.mark.parametrize("make", [AdamW, AdamW8bit])


def learner(make: Make, seed: int = 0) -> tuple[list[nn.Parameter], Optimizer]:
    random = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=random)) for shape in ((96, 64), (8,))]
    return parameters, make(parameters)


def learn(parameters: list[nn.Parameter], optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.step()


def save(run: Path, step: int, optimizer: Optimizer, keep: tuple[int, ...] = (), **record: Any) -> None:
    checkpoints.save(run, step, adapter=b"weights", optimizer=optimizer, record=record, keep=keep)


@OPTIMIZERS
def test_an_optimizer_goes_on_to_the_bit(tmp_path: Path, make: Make) -> None:
    straight, optimizer = learner(make)
    learn(straight, optimizer, range(3))
    save(tmp_path, 3, optimizer)
    learn(straight, optimizer, range(3, 6))

    resumed, optimizer = learner(make, seed=1)
    latest = checkpoints.latest(tmp_path)
    assert latest is not None
    checkpoints.restore(latest, optimizer)
    learn(resumed, optimizer, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(straight, resumed, strict=True))


def test_weights_go_on_with_another_optimizer(tmp_path: Path) -> None:
    straight, optimizer = learner(AdamW8bit)
    learn(straight, optimizer, range(3))
    save(tmp_path, 3, optimizer)
    resumed, optimizer = learner(AdamW, seed=1)
    latest = checkpoints.latest(tmp_path)
    assert latest is not None
    checkpoints.restore_weights(latest, optimizer)
    assert all(torch.equal(one, other) for one, other in zip(straight, resumed, strict=True))


def test_the_latest_is_found_with_its_record(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    _, optimizer = learner(AdamW)
    for step in (5, 10, 1_000_000):
        save(tmp_path, step, optimizer, history=[step])
    latest = checkpoints.latest(tmp_path)
    assert latest is not None
    assert latest.step == 1_000_000
    assert latest.record == {"history": [1_000_000]}
    assert [one.step for one in checkpoints.every(tmp_path)] == [5, 10, 1_000_000]


def test_old_checkpoints_make_room_but_for_those_to_keep(tmp_path: Path) -> None:
    _, optimizer = learner(AdamW)
    for step in range(1, 21):
        save(tmp_path, step, optimizer, keep=(3,))
    there = checkpoints.every(tmp_path)
    assert [one.step for one in there] == [3, *range(11, 21)]
    assert [one.step for one in there if one.resumable] == [20]


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    _, optimizer = learner(AdamW)
    save(tmp_path, 1, optimizer)
    left = [writes]

    def fsync(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2, optimizer)
    latest = checkpoints.latest(tmp_path)
    assert latest is not None
    assert latest.step == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [latest.path.name]


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    with checkpoints.held(tmp_path / "run"):
        with pytest.raises(Busy, match="Another run"), checkpoints.held(tmp_path / "run"):
            pass
        (tmp_path / "run" / "weights").touch()
    with checkpoints.held(tmp_path / "run"):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["weights"]


def test_a_run_that_left_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with checkpoints.held(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_lock_that_cannot_be_removed_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which removes no file that is open."""
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == checkpoints.LOCK:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for _ in range(2):
        with checkpoints.held(tmp_path / "run"):
            pass
