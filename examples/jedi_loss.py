"""Compares weights of JeDi on clay by what they learn: the error of an image that is missing from its set.

    python examples/jedi_loss.py OUT [WEIGHTS ...]

On sets of four images of subjects that no training drew, rendered once into OUT: beside one and three of them the
fourth is noised, at two times and with the same noise for all, and denoised. Beside folders of WEIGHTS, as `persona
pretrain jedi` leaves them, stand those that ship with clay, and clay before it learned any.
"""

import argparse
from pathlib import Path
from statistics import mean

import torch
from accelerate import Accelerator
from numpy.random import default_rng

from persona import families
from persona.events import silent
from persona.methods.jedi import JeDi, Sets
from persona.pretrain.clay.data import render_records
from persona.pretrain.clay.sets import ClaySets
from persona.pretrain.learning import emphasis

SETS, SEED, TIMES, AT_ONCE = 48, 777, (300, 700), 16


def main() -> None:
    """Print a line for each of the weights."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("weights", nargs="*", type=Path)
    given = options.parse_args()
    render_records(given.out, 2 * SETS, 0, SEED)
    base = families.load("clay", device="cpu")
    sets = ClaySets(given.out, given.out / "latents")
    sets.encoded.encode(base, Accelerator(cpu=True), silent)
    for name in ("none", "those that ship", *given.weights):
        weights = name if isinstance(name, Path) else None
        jedi = JeDi(base) if name == "none" else JeDi.load(base, weights)
        beside = {known: error(jedi, sets, known) for known in (1, 3)}
        size = sum(parameter.numel() for parameter in jedi.parameters.values()) * 2 / 1e6
        jedi.remove()
        print(f"{name}: {size:.1f} MB, {', '.join(f'{one:.4f} beside {known}' for known, one in beside.items())}")


@torch.no_grad()
def error(jedi: JeDi, sets: ClaySets, known: int) -> float:
    """Return the mean squared error of the last picture of each set, beside as many of the others."""
    chosen = [*range(3 - known, 3), 3]
    random = torch.Generator().manual_seed(SEED)
    errors = []
    for first in range(0, SETS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, SETS))
        latents = torch.stack([sets.latents(number)[chosen] for number in numbers])
        prompts = [sets.captions(number, default_rng(number))[one] for number in numbers for one in chosen]
        counted = torch.stack([emphasis(sets.masks(number, (16, 16)))[chosen] for number in numbers])
        noise = torch.randn(latents.shape, generator=random)
        for time in TIMES:
            when = torch.full((len(numbers), known + 1), time)
            errors.append(jedi.loss(Sets(latents, noise, when, prompts, known, False, counted)).mean().item())
    return mean(errors)


if __name__ == "__main__":
    main()
