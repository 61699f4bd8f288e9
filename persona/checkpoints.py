"""Where a run has come to, kept so that a killed one goes on as if nothing had happened.

Each checkpoint is a folder ``checkpoints/step-000100`` with the adapter, the optimizer's state and a record. The
adapter is what is drawn with, an average; the weights of that very step are kept with the optimizer's state. All of it
is written beside and renamed, so a checkpoint that is there is complete. Nothing of it is a pickle.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.optim import Optimizer

from persona.atomic import scratch
from persona.errors import Busy
from persona.folder import ADAPTER, step_name, step_of

OPTIMIZER, RECORD = "optimizer.safetensors", "state.json"
WEIGHTS = "weights"  # key of the parameters in the optimizer's file
LOCK = ".lock"
KEPT = 10
"""How many of the newest checkpoints stay beside those that were scored."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        step: training steps done.
        path: its folder.
    """

    step: int
    path: Path

    @property
    def adapter(self) -> Path:
        """The weights to draw with."""
        return self.path / ADAPTER

    @property
    def resumable(self) -> bool:
        """Whether training can go on from here; only the newest keeps its optimizer's state."""
        return (self.path / OPTIMIZER).is_file()

    @property
    def in_8_bits(self) -> bool:
        """Whether its optimizer was bitsandbytes' own; where that could not be had, it was plain AdamW."""
        with safe_open(self.path / OPTIMIZER, "pt") as file:
            return any(key.endswith(".state1") for key in file.keys())  # noqa: SIM118  # it is no mapping

    @property
    def record(self) -> dict[str, Any]:
        """What was recorded with it."""
        record: dict[str, Any] = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        return record

    @property
    def damaged(self) -> bool:
        """Whether a file of it is missing or cut off, so that training cannot go on from here."""
        try:
            json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            for name in (ADAPTER, OPTIMIZER):
                with safe_open(self.path / name, "pt"):
                    pass
        except (OSError, ValueError, SafetensorError):
            return True
        return False


def every(run: Path) -> list[Checkpoint]:
    """Return the checkpoints of a run in the order of their steps."""
    found = (step_of(path.name) for path in (run / "checkpoints").glob("*"))
    return [_at(run, step) for step in sorted(step for step in found if step is not None)]


def latest(run: Path) -> Checkpoint | None:
    """Return the checkpoint that training goes on from, if there is one."""
    return next((one for one in reversed(every(run)) if one.resumable), None)


def save(
    run: Path, step: int, *, adapter: bytes, optimizer: Optimizer, record: Mapping[str, Any], keep: Iterable[int]
) -> Checkpoint:
    """Write a checkpoint, in the place of one of the same step, then delete what it makes superfluous.

    Args:
        run: folder of the run.
        step: training steps done.
        adapter: bytes of the adapter's file.
        optimizer: its state and its parameters are kept to the bit.
        record: JSON values to find again.
        keep: steps whose weights stay whatever their age.

    Raises:
        OSError: the disk is full, or the folder may not be written to; earlier checkpoints are as they were.
    """
    made = _at(run, step)
    with scratch(made.path) as part:
        part.mkdir()
        _write(part / ADAPTER, adapter)
        _write(part / OPTIMIZER, _pack(optimizer))
        _write(part / RECORD, json.dumps(dict(record)).encode())
        if made.path.exists():  # its weights are the same, but there is more to say of them
            for file in part.iterdir():
                file.replace(made.path / file.name)
        else:
            part.rename(made.path)
    _thin(run, {*keep, step})
    return made


def restore_weights(checkpoint: Checkpoint, optimizer: Optimizer) -> None:
    """Give the parameters of an optimizer the values that they had, to the bit, whatever optimizer it was."""
    with safe_open(checkpoint.path / OPTIMIZER, "pt") as file:
        kept = set(file.keys())
        for number, parameter in enumerate(_parameters(optimizer)):
            if (key := f"{number}.{WEIGHTS}") in kept:  # else they were not averaged, and are those of the adapter
                parameter.data.copy_(file.get_tensor(key))


def restore(checkpoint: Checkpoint, optimizer: Optimizer) -> None:
    """Give an optimizer the state that it had, and its parameters the values, to the bit."""
    restore_weights(checkpoint, optimizer)
    with safe_open(checkpoint.path / OPTIMIZER, "pt") as file:
        numbers: dict[str, dict[str, Any]] = json.loads(file.metadata()["numbers"])
        keys = [key for key in file.keys() if not key.endswith(f".{WEIGHTS}")]  # noqa: SIM118  # it is no mapping
        tensors = {key: file.get_tensor(key).clone() for key in keys}
    for number, parameter in enumerate(_parameters(optimizer)):
        state: dict[str, Any] = numbers[str(number)]
        for key in (key for key in tensors if key.startswith(f"{number}.")):
            name = key.partition(".")[2]
            state[name] = tensors[key] if name == "step" else tensors[key].to(parameter.device)
        optimizer.state[parameter] = state


def _pack(optimizer: Optimizer) -> bytes:
    """Return each parameter and its state as it is: ``state_dict`` would wrap, and loading it cast, 8-bit states."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[int, dict[str, float]] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        state = optimizer.state[parameter]
        # Cloned, since the 8-bit states share their table and safetensors refuses shared memory.
        tensors |= {f"{number}.{key}": value.cpu().clone() for key, value in state.items() if _is_tensor(value)}
        tensors[f"{number}.{WEIGHTS}"] = parameter.detach().cpu().clone()
        numbers[number] = {key: value for key, value in state.items() if not _is_tensor(value)}
    return to_bytes(tensors, {"numbers": json.dumps(numbers)})


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _parameters(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold the folder of a run, so that no other run writes there; a killed run holds nothing.

    Raises:
        Busy: another run holds it.
        OSError: the folder cannot be made.
    """
    existed = run.exists()
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise Busy(f"Another run is writing to {run}. Wait for it, stop it, or choose another --out.") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open; what stays there locks nobody out
            (run / LOCK).unlink(missing_ok=True)
        lock.release()
        if not existed and not any(run.iterdir()):
            run.rmdir()


def _at(run: Path, step: int) -> Checkpoint:
    return Checkpoint(step, run / "checkpoints" / step_name(step))


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _thin(run: Path, keep: set[int]) -> None:
    """Keep one optimizer's state, and of the weights the newest and those that are asked for."""
    *older, _ = every(run)
    for checkpoint in older:
        (checkpoint.path / OPTIMIZER).unlink(missing_ok=True)
    for checkpoint in older[: max(0, len(older) + 1 - KEPT)]:
        if checkpoint.step not in keep:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
