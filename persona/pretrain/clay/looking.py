"""What the trainings of the networks have in common that look at clay's pictures: judge, segmenter and encoder."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVarTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, log_softmax, pad

from persona.pretrain.clay.mixed import mixed
from persona.pretrain.state import Run, cosine

TEMPERATURE = 0.07
RATE = 2e-3
SETTLING = 24  # batches that the norms are measured on

Truth = TypeVarTuple("Truth")
"""What is true of a batch."""


def contrastive(embeddings: Tensor, groups: Tensor) -> Tensor:
    """Return the supervised contrastive loss (Khosla et al. 2020, eq. 2) of unit embeddings (B, D).

    Args:
        embeddings: each beside at least one other of its group.
        groups: subject numbers (B,).
    """
    likeness = embeddings @ embeddings.T / TEMPERATURE
    likeness.fill_diagonal_(-1e4)
    same = (groups[:, None] == groups[None]).float().fill_diagonal_(0)
    return -((log_softmax(likeness, 1) * same).sum(1) / same.sum(1)).mean()


def roughened(pictures: Tensor, step: int) -> Tensor:
    """Slight blur, noise and contrast, so that nothing lives on details that an autoencoder loses.

    Args:
        pictures: (B, C, H, W) in [-1, 1].
        step: whose randomness it is.
    """
    rng = torch.Generator().manual_seed(step)
    n = len(pictures)
    soft = avg_pool2d(pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pictures = torch.lerp(pictures, soft, torch.rand(n, 1, 1, 1, generator=rng))
    noise = torch.randn(1, *pictures.shape[1:], generator=rng)  # one for all: to draw it takes as long as a layer
    pictures = pictures + 0.08 * torch.rand(n, 1, 1, 1, generator=rng) * noise
    return (pictures * (1 + 0.1 * torch.randn(n, 1, 1, 1, generator=rng))).clamp(-1, 1)


def train(
    folder: Path,
    modules: dict[str, nn.Module],
    batch: Callable[[int], tuple[Tensor, *Truth]],
    losses: Callable[[Any, Tensor, *Truth], dict[str, Tensor]],
    steps: int,
    save_every: int,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train to `steps`, from the state in `folder` if there is one; yields (step, losses) now and then.

    In the end the modules have their averaged weights, and the network is ready to look.

    Args:
        folder: of the states.
        modules: what learns, by name: the network that looks, and then what else reads from what it sees.
        batch: returns the pictures of a step, (B, C, H, W), and what is true of them.
        losses: returns the losses of what the network sees of a batch, by name; their sum is what counts.
        steps: the last one.
        save_every: steps between states.
    """
    network = next(iter(modules.values()))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
    learning = [parameter for module in modules.values() for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=RATE, betas=(0.9, 0.98), weight_decay=0.02)
    run = Run(folder, modules, optimizer, decay=0.998)
    run.resume()
    while run.step < steps:
        started = time.perf_counter()
        drawn = batch(run.step)
        with mixed():
            seen = network(drawn[0].contiguous(memory_format=torch.channels_last))
        found = losses(seen, *drawn)
        rate = cosine(RATE, run.step, steps, warm_up=200, least=0.01)
        run.advance(sum(found.values(), torch.zeros(())), rate, started)
        if run.step % 50 == 0:
            told = {name: loss.item() for name, loss in found.items()}
            run.curve.append((run.step, sum(told.values())))
            yield run.step, told
        if run.step % save_every == 0 or run.step == steps:
            run.save()
    run.use_average()
    _settle_norms(network, (batch(step)[0] for step in range(SETTLING)))
    network.eval()


@torch.no_grad()
def _settle_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let the batch norms measure what the averaged weights make of pictures: training saw others' statistics."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over what follows
    for pictures in batches:
        network(pictures)
