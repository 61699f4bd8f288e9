"""What a subject looks like in detail, seen by every transformer block through a gate (GLIGEN; Li et al., 2301.07093).

Between self- and cross-attention a picture's tokens attend to those of the subjects, which say what they show and where
they belong. The gates are closed at the start, so that nothing has changed yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock, GatedSelfAttentionDense
from torch import Tensor, nn

from persona.families.attention import choose_kernels

FREQUENCIES, HOTTEST = 8, 100.0
"""Of the code of a box; their ratio, all in all."""
CODE = 4 * 2 * FREQUENCIES
"""Numbers that a box is told by."""


def fourier(boxes: Tensor) -> Tensor:
    """Return the codes (..., CODE) of boxes (..., 4), their sides in [0, 1]: sines and cosines of growing frequency."""
    powers = torch.arange(FREQUENCIES, device=boxes.device) / FREQUENCIES
    angles = boxes[..., None] * HOTTEST**powers
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


class Slots(nn.Module):
    """Two places for subjects: what is in them becomes tokens for the blocks to look at.

    Which place a subject has makes no difference; an empty one has tokens of its own, which are learnt.
    """

    def __init__(self, tokens: int, width: int, out: int) -> None:
        """Make the tokens of subjects that an encoder tells by ``tokens`` patches of a width."""
        super().__init__()
        self.nothing = nn.Parameter(torch.randn(tokens, width))
        self.nowhere = nn.Parameter(torch.randn(CODE))
        both = width + CODE
        self.told = nn.Sequential(nn.LayerNorm(both), nn.Linear(both, out), nn.GELU(), nn.Linear(out, out))

    def forward(self, patches: Tensor, boxes: Tensor, present: Tensor) -> Tensor:
        """Return the tokens of the subjects, (rows, slots * tokens, out).

        Args:
            patches: (rows, slots, tokens, width), float32.
            boxes: (rows, slots, 4), their sides in [0, 1].
            present: (rows, slots), false where there is none.
        """
        here = present[..., None, None]
        seen = torch.where(here, patches, self.nothing)
        where = torch.where(here, fourier(boxes)[..., None, :], self.nowhere)
        both = torch.cat([seen, where.expand(*seen.shape[:-1], -1)], dim=-1)
        told: Tensor = self.told(both)
        return told.flatten(1, 2)


class Gates:
    """Gated self-attention in every transformer block of a U-Net, where diffusers keeps that of GLIGEN."""

    def __init__(self, denoiser: Any, width: int) -> None:
        """Add closed gates for tokens of a width to a network, on its device."""
        self._denoiser = denoiser
        self._tokens: Tensor | None = None
        self.adapters = nn.ModuleDict()
        for name, block in denoiser.named_modules():
            if isinstance(block, BasicTransformerBlock):
                own = block.attn1
                adapter = GatedSelfAttentionDense(own.query_dim, width, own.heads, own.inner_dim // own.heads)
                block.fuser = adapter.to(own.to_q.weight.device)
                self.adapters[name.replace(".", "-")] = block.fuser
        choose_kernels(denoiser)
        denoiser.position_net = nn.Identity()  # the tokens know already where they belong
        self._handle = denoiser.register_forward_pre_hook(self._tell, with_kwargs=True)

    @contextmanager
    def given(self, tokens: Tensor) -> Iterator[None]:
        """Let the next forward passes see tokens (rows, n, width); without them the gates are not there."""
        self._tokens = tokens
        try:
            yield
        finally:
            self._tokens = None

    def remove(self) -> None:
        """Leave the network as it was."""
        self._handle.remove()
        del self._denoiser.position_net
        for block in self._denoiser.modules():
            if isinstance(block, BasicTransformerBlock):
                del block.fuser

    def _tell(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if self._tokens is None:
            return None
        return given, {**named, "cross_attention_kwargs": {"gligen": {"input": self._tokens}}}
