"""What a pretraining run needs to go on after a kill: weights, averaged weights, optimizer, position; safetensors only."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass
class Run:
    """A model being trained, with its exponential moving average and its learning curve.

    Everything that a step draws at random comes from a generator seeded by (seed, step), so that a resumed run sees what an
    uninterrupted one would have seen.
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
        for name, module in self.modules.items():
            for key, parameter in module.named_parameters():
                yield f"{name}.{key}", parameter

    def update_average(self) -> None:
        """Move the average towards the weights; faster while it is young (Karras et al. 2022, warm-up of the EMA)."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        names, live = zip(*self.parameters(), strict=True)
        if not self.average:
            self.average = {name: p.detach().clone() for name, p in zip(names, live, strict=True)}
        torch._foreach_lerp_([self.average[name] for name in names], [p.detach() for p in live], 1 - decay)

    def use_average(self) -> None:
        """Put the averaged weights into the modules."""
        with torch.no_grad():
            for name, parameter in self.parameters():
                parameter.copy_(self.average[name])

    def save(self) -> None:
        """Write the whole state, in one rename."""
        tensors = {f"weight/{name}": p.detach() for name, p in self.parameters()}
        tensors |= {f"average/{name}": p for name, p in self.average.items()}
        state = self.optimizer.state_dict()["state"]
        tensors |= {
            f"optimizer/{i}/{key}": torch.as_tensor(value) for i, slots in state.items() for key, value in slots.items()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "state.partial"
        position = {"step": self.step, "seconds": self.seconds, "curve": self.curve}
        save_file(
            {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()},
            partial,
            {"position": json.dumps(position)},
        )
        os.replace(partial, self.folder / "state.safetensors")

    def load_average(self) -> None:
        """Put the averaged weights of the state on disk into the modules, without its optimizer."""
        with safe_open(self.folder / "state.safetensors", "pt") as file, torch.no_grad():
            position = json.loads(file.metadata()["position"])
            for name, parameter in self.parameters():
                parameter.copy_(file.get_tensor(f"average/{name}"))
        self.step, self.seconds = position["step"], position["seconds"]

    def resume(self) -> bool:
        """Go on from the state on disk, if there is one."""
        path = self.folder / "state.safetensors"
        if not path.exists():
            return False
        slots: dict[int, dict[str, Any]] = {}
        with safe_open(path, "pt") as file:
            position = json.loads(file.metadata()["position"])
            parameters = dict(self.parameters())
            with torch.no_grad():
                for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    kind, _, name = key.partition("/")
                    if kind == "weight":
                        parameters[name].copy_(file.get_tensor(key))
                    elif kind == "average":
                        self.average[name] = file.get_tensor(key)
                    else:
                        number, _, slot = name.partition("/")
                        slots.setdefault(int(number), {})[slot] = file.get_tensor(key)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})
        self.step, self.seconds = position["step"], position["seconds"]
        self.curve = [tuple(point) for point in position["curve"]]
        return True
