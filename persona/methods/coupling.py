"""Coupled self-attention: each picture of a set attends to the tokens of the others (JeDi; Zeng et al., 2407.06187).

It stands in the place of a U-Net's own self-attention and uses its weights, so that pictures that are alone are drawn
exactly as before. What is known of a subject, its references, goes through the network first: their keys and values are
kept, layer by layer, for the pictures to attend to. They do not depend on those pictures, so they are computed once for
all steps, prompts and seeds; the order of the references does not matter, nor how many there are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from persona.families.attention import attend
from persona.methods.levels import grid_of

Memory = Mapping["CoupledAttention", tuple[Tensor, Tensor]]
"""Keys and values (sets, heads, tokens, width) of references, by layer; empty where there are none."""


class Coupling:
    """Tells the self-attention layers of a denoiser which rows of the next batch belong together.

    Unless told otherwise, each row is alone.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        """Take the place of the self-attention of every transformer block."""
        self._before = {layer: layer.processor for layer in _self_attention(denoiser)}
        self.size, self.blind = 1, 0
        self.memory: Memory = {}
        self.kept: dict[CoupledAttention, tuple[Tensor, Tensor]] | None = None
        for layer in self._before:
            layer.set_processor(CoupledAttention(self))

    def remove(self) -> None:
        """Put back what was there before."""
        for layer, processor in self._before.items():
            layer.set_processor(processor)

    @contextmanager
    def keeping(self, size: int) -> Iterator[Memory]:
        """Let rows be references, ``size`` of a set one after the other, and yield what is kept of them."""
        self.size, self.kept = size, {}
        try:
            yield self.kept
        finally:
            self.size, self.kept = 1, None

    @contextmanager
    def recalling(self, memory: Memory, *, size: int = 1, blind: int = 0) -> Iterator[None]:
        """Let rows attend to references, and to one another.

        Args:
            memory: what was kept; each of its sets is for equally many groups, one after the other.
            size: rows of a group, one after the other, that attend to one another.
            blind: the first so many groups see no references.
        """
        self.memory, self.size, self.blind = memory, size, blind
        try:
            yield
        finally:
            self.memory, self.size, self.blind = {}, 1, 0


def _self_attention(denoiser: nn.Module) -> Iterator[Any]:
    for name, module in denoiser.named_modules():
        if isinstance(module, Attention) and name.endswith(".attn1"):
            yield module


class CoupledAttention:
    """The attention processor of one layer."""

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return (rows, tokens, channels), shaped like the hidden states."""
        shape, size = hidden_states.shape, self.coupling.size

        def heads(states: Tensor) -> Tensor:
            return states.reshape(shape[0] // size, size * shape[1], attn.heads, -1).transpose(1, 2)

        query, key, value = (heads(to(hidden_states)) for to in (attn.to_q, attn.to_k, attn.to_v))
        if self.coupling.kept is not None:
            self.coupling.kept[self] = key, value
        seen = self._look(query, key, value).transpose(1, 2).reshape(*shape[:2], -1)
        out: Tensor = attn.to_out[1](attn.to_out[0](seen))
        return out

    def _look(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend within each group, and to the references where it sees any."""
        if self not in self.coupling.memory:
            return attend(query, key, value)
        blind = self.coupling.blind
        sight = [
            torch.cat([known.repeat_interleave((len(own) - blind) // len(known), 0), own[blind:]], dim=2)
            for known, own in zip(self.coupling.memory[self], (key, value), strict=True)
        ]
        seen = attend(query[blind:], *sight)
        return torch.cat([attend(query[:blind], key[:blind], value[:blind]), seen]) if blind else seen


def masked(memory: Memory, masks: Tensor) -> Memory:
    """Forget what lies outside the masks.

    Args:
        memory: of one set of references.
        masks: (references, h, w), not zero where the subject is, at the resolution of the latents.
    """
    told = {}
    for layer, (key, value) in memory.items():
        grid = grid_of(key.shape[2] // len(masks), masks.shape[1:])
        inside = adaptive_max_pool2d(masks.float()[:, None], grid).flatten() > 0
        told[layer] = key[:, :, inside], value[:, :, inside]
    return told
