"""The names that modules go by in the files of other programs."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import cast

from diffusers.models.normalization import AdaLayerNormContinuous
from torch import Tensor, nn

from persona.exchange.product import Module
from persona.families import Family

DENOISER = "lora_unet"
"""What kohya's keys for any denoiser begin with."""


@dataclass(frozen=True)
class Rows:
    """The rows of another program's weight that one of our modules has.

    Attributes:
        module: ours.
        start: its first row.
        shape: of its own weight, (out, in) or (out, in, h, w).
        turned: whether its halves are there the other way round.
    """

    module: Module
    start: int
    shape: tuple[int, ...]
    turned: bool = False

    @property
    def end(self) -> int:
        """The row after its last."""
        return self.start + self.shape[0]


def official(module: Module) -> str:
    """Return a module's name with its component, as diffusers' files have it.

    They name the text model within a CLIP text encoder, which newer versions of transformers have no more.
    """
    component, path = module
    return f"{component}.text_model.{path}" if path.startswith("encoder.layers.") else f"{component}.{path}"


def kohya(base: Family, module: Module) -> str:
    """Return a module's name in kohya's files where its own code is diffusers'."""
    component, _, path = official(module).partition(".")
    prefix = DENOISER if component == base.denoiser_name else base.kohya[component]
    return f"{prefix}_{path.replace('.', '_')}"


def original(name: str) -> str:
    """Return the name in kohya's files of a module that the denoiser's authors call so."""
    return f"{DENOISER}_{name.replace('.', '_')}"


def fused(base: Family) -> dict[str, tuple[Rows, ...]]:
    """Return the modules of the denoiser as its authors call them, with ours that make up their rows, to be written."""
    return _composed(base, base.originals())


def _composed(base: Family, names: dict[str, tuple[str, ...]]) -> dict[str, tuple[Rows, ...]]:
    networks = dict(base.denoiser.named_modules())
    # In diffusers such a layer says a scale and then a shift, at the authors of SD3 and FLUX.1 the shift first.
    turned = {f"{path}.linear" for path, one in networks.items() if isinstance(one, AdaLayerNormContinuous)}
    return {
        name: tuple(_rows(base.denoiser_name, {path: networks[path] for path in members}, turned))
        for name, members in names.items()
        if all(_adaptable(networks[path]) for path in members)
    }


def table(base: Family) -> dict[str, tuple[Rows, ...]]:
    """Return every name that is known for a module of the base, and what it stands for."""
    names: dict[str, tuple[Rows, ...]] = {}
    for component, network in {base.denoiser_name: base.denoiser, **base.text_encoders}.items():
        for path, module in network.named_modules():
            if _adaptable(module):
                whole = tuple(_rows(component, {path: module}))
                names |= dict.fromkeys(_spellings(base, (component, path)), whole)
    for name, rows in _composed(base, base.readable()).items():
        names[f"diffusion_model.{name}"] = names[original(name)] = rows
    return names


def _spellings(base: Family, module: Module) -> Iterator[str]:
    yield ".".join(module)
    yield official(module)
    yield kohya(base, module)
    component, _, path = official(module).partition(".")
    flat = path.replace(".", "_")
    if component == base.denoiser_name:
        yield path
        yield f"lora_transformer_{flat}"
    else:
        yield f"lora_te{list(base.text_encoders).index(component) + 1}_{flat}"  # OneTrainer counts them


def _adaptable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _rows(component: str, members: dict[str, nn.Module], turned: Container[str] = ()) -> Iterator[Rows]:
    start = 0
    for path, module in members.items():
        shape: tuple[int, ...] = tuple(cast("Tensor", module.weight).shape)  # each has one, see _adaptable
        yield Rows((component, path), start, shape, path in turned)
        start += shape[0]
