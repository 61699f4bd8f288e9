"""What a pretraining run needs to go on after a kill: weights, their average, optimizer, position; safetensors only."""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from persona.atomic import beside, digest_of, sweep
from persona.config.option import Config
from persona.config.option import settings as declared
from persona.errors import BadOption, Diverged
from persona.methods.shards import gather_state, part, share_state, shared, whole

STATE = "state.safetensors"
RECORD = "run.json"


@dataclass
class Run:
    """A model being trained, with its exponential moving average and its learning curve.

    Everything that a step draws at random comes from a generator seeded by (seed, step), so that a resumed run sees
    what an uninterrupted one would have seen.

    Attributes:
        folder: where the state is kept.
        modules: what is trained, by name: those of their parameters that ask for a gradient.
        optimizer: over these parameters, in the same order, or over one that they are views of.
        decay: of the average, for each step.
        step: how many were done.
        seconds: how long they took.
        curve: (step, loss).
        average: of each parameter, by name.
    """

    folder: Path
    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    decay: float = 0.999
    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    average: dict[str, Tensor] = field(default_factory=dict)

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the value of everything that is trained."""
        for name, module in self.modules.items():
            for key, parameter in module.named_parameters():
                if parameter.requires_grad:
                    yield f"{name}.{key}", parameter

    def advance(self, loss: Tensor, rate: float, started: float) -> None:
        """Make a step down the gradient of a loss.

        Args:
            loss: scalar.
            rate: learning rate of this step.
            started: when the step began, by ``time.perf_counter``.

        Raises:
            Diverged: the loss is NaN or infinite.
        """
        if not loss.isfinite():
            raise Diverged(
                f"The loss is NaN or infinite at step {self.step} of {self.folder}. Take another --seed and --out."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([parameter for _, parameter in self.parameters()], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.count(started)

    def count(self, started: float) -> None:
        """Take a step into account that the optimizer has made; it began at a time by ``time.perf_counter``."""
        self.step += 1
        self._update_average()
        self.seconds += time.perf_counter() - started

    def _update_average(self) -> None:
        """Move the average towards the weights; faster while it is young, as TensorFlow's averages do."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        names, live = zip(*self.parameters(), strict=True)
        if not self.average:
            self.average = {name: p.detach().clone() for name, p in zip(names, live, strict=True)}
        torch._foreach_lerp_([part(self.average[name]) for name in names], [part(p) for p in live], 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights into the modules."""
        for name, parameter in self.parameters():
            parameter.copy_(self.average[name])

    @contextmanager
    @torch.no_grad()
    def averaged(self) -> Iterator[None]:
        """Let the modules have the averaged weights for a while, and then their own again, to the bit."""
        own = {name: parameter.clone() for name, parameter in self.parameters()}
        self.use_average()
        try:
            yield
        finally:
            for name, parameter in self.parameters():
                parameter.copy_(own[name])

    def save(self) -> None:
        """Write the whole state; what stood there stays until it is complete.

        Raises:
            OSError: the disk is full.
        """
        self.write(self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, by name; where weights are shared out, all processes have to ask for it together."""
        parameters = dict(self.parameters())
        tensors = {f"weight/{name}": whole(p.detach()) for name, p in parameters.items()}
        tensors |= {f"average/{name}": whole(p) for name, p in self.average.items()}
        state: dict[int, dict[str, Any]] = self.optimizer.state_dict()["state"]
        if _are_shared(parameters):
            state = {0: gather_state(self.optimizer, list(parameters.values()))}
        tensors |= {
            f"optimizer/{i}/{key}": torch.as_tensor(value) for i, slots in state.items() for key, value in slots.items()
        }
        return tensors

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write what :meth:`tensors` returns, and how far it is; see :meth:`save`."""
        position = {"step": self.step, "seconds": self.seconds, "curve": self.curve}
        # Copies on the device would take as much again as all that is trained.
        plain = {
            name: tensor.to("cpu", copy=True, memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        with beside(self.folder / STATE) as part:
            save_file(plain, part, {"position": json.dumps(position)})

    @torch.no_grad()
    def resume(self) -> bool:
        """Go on from the state on disk, if there is one."""
        if not (self.folder / STATE).exists():
            return False
        parameters = dict(self.parameters())
        numbered = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        with safe_open(self.folder / STATE, "pt") as file:
            self._go_to(json.loads(file.metadata()["position"]))
            for key in file.keys():  # noqa: SIM118  # it is no mapping
                kind, _, name = key.partition("/")
                value = file.get_tensor(key)
                if kind == "weight":
                    parameters[name].copy_(shared(value, parameters[name]))
                elif kind == "average":
                    self.average[name] = _laid_out_as(parameters[name], shared(value, parameters[name]))
                else:
                    number, _, slot = name.partition("/")
                    slots.setdefault(int(number), {})[slot] = _laid_out_as(numbered[int(number)], value)
        if _are_shared(parameters):
            share_state(self.optimizer, list(parameters.values()), slots[0])
        else:
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})
        return True

    def _go_to(self, position: dict[str, Any]) -> None:
        self.step, self.seconds = position["step"], position["seconds"]
        self.curve = [(step, loss) for step, loss in position["curve"]]


def _are_shared(parameters: Mapping[str, Tensor]) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in parameters.values())


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a value in the memory format of its parameter: kernels round differently in another."""
    return torch.empty_like(parameter).copy_(value) if parameter.shape == value.shape else value


def cosine(highest: float, step: int, steps: int, *, warm_up: int, least: float) -> float:
    """Return the learning rate of a step: it warms up, then falls as a cosine.

    Args:
        highest: learning rate.
        step: from 0.
        steps: of all the training.
        warm_up: steps that it takes.
        least: share of the highest rate that it falls to.
    """
    fall = least + (1 - least) * 0.5 * (1 + math.cos(math.pi * step / steps))
    return highest * min(1.0, (step + 1) / warm_up) * fall


def compare(folder: Path, config: Config, settings: Mapping[str, Any]) -> None:
    """Make sure that the folder of a run is for these settings, and leave it as it is.

    Args:
        folder: of the run.
        config: whose options the settings come from.
        settings: JSON values by the names of these options.

    Raises:
        BadOption: it holds a run with others.
    """
    path = folder / RECORD
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if before.get(name) != json.loads(json.dumps(value)):
                raise BadOption(f"{folder} holds a run {_told(config, name, before.get(name))}. Choose another --out.")


def _told(config: Config, name: str, value: Any) -> str:
    """Say what a run was begun with, by the option as it is typed."""
    setting = next(one for one in declared(type(config)) if one.name == name)
    if value is None or value is False or value in ("", []):
        return f"without {setting.flag}"
    if name == "batch":  # of all processes: what decides is how many examples a step takes
        return f"with {value} examples a step (--batch times --accumulate times processes)"
    if name == "base" or Path in setting.classes:  # the value tells what was there, whatever it was called
        return f"of another {setting.flag}: {value}"
    if isinstance(value, list):
        return "with " + " ".join(f"{setting.flag} {one}" for one in value)
    return f"with {setting.flag}" if value is True else f"with {setting.flag} {value}"


def settle(folder: Path, config: Config, settings: Mapping[str, Any]) -> None:
    """Let the folder of a run be for these settings, and clear away what a kill has left half written.

    To be called once nothing can be refused any more: the folder is for no others then. See :func:`compare`.

    Raises:
        BadOption: it holds a run with others.
        OSError: it cannot be written to.
    """
    compare(folder, config, settings)
    with beside(folder / RECORD) as part:
        part.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    sweep(folder)


def listing(folder: Path, paths: Iterable[Path]) -> str:
    """Return what tells the files of a folder, and of those below it, from others: how many, their names and sizes."""
    files = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths if path.is_file())
    return f"{len(files)} files ({digest_of(files)[:12]})"


def outside(run: Path, data: Path, paths: Iterable[Path]) -> list[Path]:
    """Return the paths below a folder of data that no run has made: neither this one, nor another that is there."""
    home = data.resolve()
    runs = {run.resolve(), *(record.resolve().parent for record in data.rglob(RECORD))}
    inside = {one for one in runs if home in one.parents}
    return [path for path in paths if inside.isdisjoint(path.resolve().parents)]


def average_of(folder: Path, module: str) -> dict[str, Tensor]:
    """Return the averaged weights of a module of the state in a folder, by the names of its parameters."""
    start = f"average/{module}."
    with safe_open(folder / STATE, "pt") as file:
        names = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118  # it is no mapping
        return {name.removeprefix(start): file.get_tensor(name) for name in names}


def position_of(folder: Path) -> dict[str, Any]:
    """Return ``step``, ``seconds`` and ``curve`` of the state in a folder; a run that has not begun is at 0."""
    if not (folder / STATE).exists():
        return {"step": 0, "seconds": 0.0, "curve": []}
    with safe_open(folder / STATE, "pt") as file:
        position: dict[str, Any] = json.loads(file.metadata()["position"])
    return position


def no_fewer(folder: Path, state: Path, flag: str, steps: int) -> None:
    """Make sure that a training is not passed off as a shorter one.

    Args:
        folder: of the run.
        state: folder of the training's state.
        flag: the option that says how long it is.
        steps: what it says.

    Raises:
        BadOption: it went farther.
    """
    done = position_of(state)["step"]
    if done > steps:
        there = f"{folder} holds a training of {done} steps"
        raise BadOption(f"{flag} {steps}: {there}. Give no fewer, or choose another --out.")
