"""Read what was written as those do for whom it is, and hold it against what was meant."""

from collections.abc import Mapping
from pathlib import Path

from peft.tuners.lora import LoraLayer

from persona.config import Format
from persona.errors import BadOption
from persona.exchange.product import Module, Product, difference
from persona.exchange.reading import read
from persona.families import Family

CLOSE = 1e-6
"""Relative difference between weights that are the same: what their norms lose to rounding, in double precision."""


def check(path: Path, products: Mapping[Module, Product], base: Family, to: Format) -> None:
    """Make sure that a file adds to the weights exactly what it should.

    Args:
        path: the file.
        products: what it should add.
        base: an outline, which may be changed.
        to: whose file it is; diffusers reads its own by its own loader.

    Raises:
        BadOption: it would be read otherwise.
    """
    readers = {"persona": read, **({"diffusers": loaded} if to == "diffusers" else {})}
    for name, reader in readers.items():
        apart = difference(products, reader(path, base))
        if apart > CLOSE:
            raise BadOption(
                f"{name} would read other weights than were learned (off by {apart:.1g}). Try another --to."
            )


def loaded(path: Path, base: Family) -> dict[Module, Product]:
    """Return the products that diffusers' own loader takes from a file, which it adds to the base."""
    base.pipe.load_lora_weights(path)
    return {
        (component, name): Product(
            layer.lora_A[own].weight.detach(), layer.lora_B[own].weight.detach() * layer.scaling[own]
        )
        for component, network in {base.denoiser_name: base.denoiser, **base.text_encoders}.items()
        for name, layer in network.named_modules()
        if isinstance(layer, LoraLayer)
        for own in layer.lora_A
    }
