"""Write the files of other programs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from persona.config import Format
from persona.errors import BadOption
from persona.exchange.names import Rows, fused, kohya, official, original
from persona.exchange.product import Module, Product
from persona.families import Family


def write(products: Mapping[Module, Product], base: Family, to: Format) -> dict[str, Tensor]:
    """Return the tensors of a file.

    Args:
        products: of the adapter, by module.
        base: that it was made for; an outline is enough.
        to: whose file; kohya's are read by A1111 and Forge too.

    Raises:
        BadOption: a module is adapted that the format has no name for.
    """
    keys = base.comfyui if to == "comfyui" else to
    if keys == "kohya":
        return _kohya(products, base)
    if to == "comfyui":
        _named(products, base, {one.module for rows in fused(base).values() for one in rows})
    return {
        f"{official(module)}.lora_{factor}.weight": tensor.contiguous()
        for module, product in products.items()
        for factor, tensor in (("A", product.down), ("B", product.up))
    }


def _kohya(products: Mapping[Module, Product], base: Family) -> dict[str, Tensor]:
    """Name modules as the authors of the denoiser do, fused where theirs are."""
    theirs = fused(base)
    if theirs:
        _named(products, base, {one.module for rows in theirs.values() for one in rows})
    written: dict[str, Product] = {}
    for name, rows in theirs.items():
        members = [(one, products[one.module]) for one in rows if one.module in products]
        if members:
            written[original(name)] = _fuse(members, rows[-1].end)
    apart = (module for module in products if not (theirs and module[0] == base.denoiser_name))
    written |= {kohya(base, module): products[module] for module in apart}
    tensors: dict[str, Tensor] = {}
    for name, product in written.items():
        tensors[f"{name}.lora_down.weight"] = product.down.contiguous()
        tensors[f"{name}.lora_up.weight"] = product.up.contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(float(product.rank))
    return tensors


def _fuse(members: list[tuple[Rows, Product]], rows: int) -> Product:
    """Return one product for several modules whose weights lie one below the other: each keeps ranks of its own."""
    if len(members) == 1 and members[0][0].shape[0] == rows:
        return members[0][1]
    up = torch.zeros(rows, sum(product.rank for _, product in members))
    column = 0
    for one, product in members:
        up[one.start : one.end, column : column + product.rank] = product.up
        column += product.rank
    return Product(torch.cat([product.down for _, product in members]), up)


def _named(products: Mapping[Module, Product], base: Family, known: set[Module]) -> None:
    """Refuse what would be dropped without a word by whoever reads the file."""
    for component, path in products:
        if component == base.denoiser_name and (component, path) not in known:
            raise BadOption(f"{path} is adapted, which has no name outside diffusers. Export it --to diffusers.")
