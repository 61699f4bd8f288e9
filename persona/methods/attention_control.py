"""Attention control: the words for a subject shall look where it is (FastComposer; Xiao et al., 2305.10431).

The cross-attention of a U-Net's middle levels is written out where training asks for it; otherwise it is computed as
before, by a kernel that never holds it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from persona.methods.levels import grid_of


class AttentionMaps:
    """Keeps the cross-attention maps of a denoiser's middle levels."""

    def __init__(self, denoiser: Any) -> None:
        """Take the place of its processors."""
        self.maps: list[Tensor] | None = None
        self._before = {layer: layer.processor for layer in _middle(denoiser)}
        for layer, processor in self._before.items():
            layer.set_processor(_Kept(self, processor))

    @contextmanager
    def keeping(self) -> Iterator[list[Tensor]]:
        """Yield a list that the next forward pass puts its maps in, each (rows, heads, places, tokens), float32."""
        maps: list[Tensor] = []
        self.maps = maps
        try:
            yield maps
        finally:
            self.maps = None

    def remove(self) -> None:
        """Put back what was there before."""
        for layer, processor in self._before.items():
            layer.set_processor(processor)


def _middle(denoiser: Any) -> Iterator[Any]:
    """Yield the cross-attention of all levels but the finest, where a subject is too many places to find."""
    finest = re.compile(rf"down_blocks\.0\.|up_blocks\.{len(denoiser.up_blocks) - 1}\.")
    for name, module in denoiser.named_modules():
        if isinstance(module, Attention) and name.endswith(".attn2") and not finest.match(name):
            yield module


class _Kept:
    """The attention processor of one layer."""

    def __init__(self, owner: AttentionMaps, before: Any) -> None:
        self.owner, self.before = owner, before

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *given: Any, **named: Any
    ) -> Any:
        """Return (rows, places, channels), shaped like the hidden states."""
        if self.owner.maps is None or encoder_hidden_states is None:
            return self.before(attn, hidden_states, encoder_hidden_states, *given, **named)

        def heads(states: Tensor) -> Tensor:
            return states.view(*states.shape[:-1], attn.heads, -1).transpose(1, 2)

        query, key = heads(attn.to_q(hidden_states)), heads(attn.to_k(encoder_hidden_states))
        value = heads(attn.to_v(encoder_hidden_states))
        weights = (query @ key.mT * attn.scale).float().softmax(dim=-1)
        self.owner.maps.append(weights)
        seen = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](seen))


def control(maps: Sequence[Tensor], words: Tensor, masks: Tensor) -> Tensor:
    """Return how much more the words for subjects look beside them than at them, (rows,), from -1 to 1.

    Args:
        maps: cross-attention, each (rows, heads, places, tokens); the places are a grid shaped like the masks.
        words: (rows, subjects, tokens), one where a token is a subject's; a subject without any does not count, and a
            row without any, such as one whose text was dropped, is 0 and has no gradient.
        masks: (rows, subjects, h, w) in [0, 1], one where the subject is.
    """
    said = words.sum(-1)
    shares = words / said.clamp(min=1)[..., None]
    rates = []
    for seen in maps:
        inside = adaptive_avg_pool2d(masks, grid_of(seen.shape[2], masks.shape[-2:])).flatten(2)[:, None]
        looks = torch.einsum("rhpt,rst->rhsp", seen, shares)
        rates.append((_mean(looks, 1 - inside) - _mean(looks, inside)).mean(1))
    there = (said > 0).float()
    rate: Tensor = torch.stack(rates).mean(0)
    return (rate * there).sum(-1) / there.sum(-1).clamp(min=1)


def _mean(looks: Tensor, weights: Tensor) -> Tensor:
    return (looks * weights).sum(-1) / weights.sum(-1).clamp(min=torch.finfo(weights.dtype).eps)
