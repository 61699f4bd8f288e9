"""What a method has learnt for a base, in a safetensors file that says how it was made."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from persona.errors import BadBase
from persona.families import Family
from persona.families.place import flaw
from persona.methods.channels import first_convolution
from persona.methods.shards import whole


class Joined(Protocol):
    """A method that was joined to a base."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Return what it learns, by name."""

    def remove(self) -> None:
        """Leave the base as it was."""


M = TypeVar("M", bound=Joined)


@dataclass(frozen=True)
class Store:
    """Where the weights of a method are, and what is said of them.

    Attributes:
        title: what the method is called.
        name: of its folder beside a base, its option and its pretraining.
        facts: beside the base, what has to be known of how they were made.
    """

    title: str
    name: str
    facts: frozenset[str]

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.name}.safetensors"

    def write(self, base: Family, made: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> bytes:
        """Return parameters as the bytes of a file, in float16."""
        halves = {name: whole(tensor.detach()).half().cpu().contiguous() for name, tensor in parameters.items()}
        return to_bytes(halves, {self.name: json.dumps({"base_hash": base.hash, **made})})

    def check(self, base: Family, folder: Path | None = None) -> None:
        """Make sure that there are weights, before their base is fetched or loaded.

        Args:
            base: its blueprint does.
            folder: where they are; beside the base's own when left out.

        Raises:
            BadBase: there are none, or the base is no U-Net.
        """
        first_convolution(base, self.title)
        self._path(base, folder)

    def load(self, base: Family, folder: Path | None, join: Callable[[dict[str, Any]], M]) -> M:
        """Return a method with its weights.

        Args:
            base: that they were made for.
            folder: where they are; beside the base's own when left out.
            join: joins the method to the base, as it was made.

        Raises:
            BadBase: there are none, or they are damaged or another base's. The base stays as it was.
        """
        path = self._path(base, folder)
        made, tensors = self._read(path, self._other(base))
        if made["base_hash"] != base.hash:
            raise BadBase(f"{path} was made for another base than {base.name}. {self._other(base)}")
        method = join(made)
        if not _put(tensors, method.parameters):
            method.remove()
            raise BadBase(f"{path} does not fit {base.name}. {self._other(base)}")
        return method

    def start(self, base: Family, folder: Path, method: Joined) -> None:
        """Put weights into a method that is to learn on, even where they were made for another version of its base.

        Raises:
            BadBase: there are none, or they are damaged or of another shape.
        """
        path = folder / self.file
        made, tensors = self._read(path, "Name another folder, or leave --start-from out.")
        if not _put(tensors, method.parameters):
            how = " ".join(f"--target {one}" for one in made["targets"])
            how += f" --encoder {made['encoder']}" if made.get("encoder") else ""
            hint = f"It was made with {how}. Give the same, or leave --start-from out."
            raise BadBase(f"{path} does not fit what {base.name} is to learn. {hint}")

    def _read(self, path: Path, hint: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return how weights were made, and the tensors, float32."""
        try:
            with safe_open(path, "pt") as file:
                made: dict[str, Any] = json.loads((file.metadata() or {})[self.name])
                tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  # it is no mapping
            if not {"base_hash", *self.facts} <= set(made):
                raise KeyError
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BadBase(f"{path} cannot be read: it is damaged, or not written by persona. {hint}") from error
        return made, tensors

    def _path(self, base: Family, folder: Path | None) -> Path:
        """Return the file that is there."""
        path = (folder or base.folder / self.name) / self.file
        if not path.is_file():
            where = f"{folder} holds no" if folder else f"Unlike the built-in clay, {base.name} has no"
            raise BadBase(f"{where} {self.title} weights. {self._other(base)}")
        return path

    def _other(self, base: Family) -> str:
        """Say how to have weights; where a base is not here yet, they cannot be put beside it."""
        here = base.file or not flaw(base.folder)
        some = "a folder that has some"
        name = f"Copy {some} to {base.folder / self.name}, or name it" if here else f"Name {some}"
        train = f"persona pretrain {self.name} --base {base.name} --data SHARDS"
        return f"{name} with persona sample --{self.name}, or train some: {train}"


@torch.no_grad()
def _put(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> bool:
    """Copy tensors into parameters, unless their names or shapes differ; tell whether they did not."""
    if {name: p.shape for name, p in parameters.items()} != {name: t.shape for name, t in tensors.items()}:
        return False
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
    return True
