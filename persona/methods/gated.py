"""What a subject looks like in detail, seen by every transformer block through a gate (GLIGEN; Li et al., 2301.07093).

Between self- and cross-attention a picture's tokens attend to those of the subjects, which say what they show and where
they belong. The gates are closed at the start, so that nothing has changed yet.

Two things are ours. A gate is a matrix, the adapter's last, instead of a number: behind a number near zero nothing
learns in which direction to open it (clay's stood at 0.07 after 3,700 steps), a matrix at zero learns at once (Zhang et
al., 2302.05543). And a place sees only the subjects in whose boxes it lies: the code of a box tells as much, but which
places it means has to be learnt first, and until then two subjects are blended everywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from persona.families.attention import attend
from persona.methods.levels import grid_of

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


@dataclass(frozen=True)
class Told:
    """What a network's places can see of the subjects.

    Attributes:
        tokens: of all subjects, one after the other, (rows, slots * n, width).
        where: the places that see each, (rows, slots, h, w) in {0, 1}, on the grid of the latents.
    """

    tokens: Tensor
    where: Tensor
    _masks: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    def mask(self, places: int, dtype: torch.dtype) -> Tensor:
        """Return what is added to the attention of so many places, (rows, 1, places, places + slots * n): 0 or -inf.

        All blocks with so many places share it, and all their heads: learning keeps it, and it can be gigabytes.
        """
        if (places, dtype) not in self._masks:
            seen = adaptive_max_pool2d(self.where, grid_of(places, self.where.shape[-2:])).flatten(2).mT.bool()
            shown = seen.repeat_interleave(self.tokens.shape[1] // seen.shape[2], dim=2)
            everywhere = shown.new_ones(len(shown), places, places)  # each place sees the picture itself
            hidden = ~torch.cat([everywhere, shown], dim=2)[:, None]
            self._masks[places, dtype] = torch.zeros_like(hidden, dtype=dtype).masked_fill(hidden, -torch.inf)
        return self._masks[places, dtype]


class Gate(nn.Module):
    """That of one block: a look at the subjects, and what is made of it."""

    def __init__(self, width: int, told: int, heads: int, head: int) -> None:
        """Make a closed one, for a block of a width and heads, and tokens of the width that subjects are told in."""
        super().__init__()
        self.linear = nn.Linear(told, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads=heads, dim_head=head)
        self.ff = FeedForward(width, activation_fn="geglu")
        for gate in self.closing:
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)

    @property
    def closing(self) -> tuple[Any, Any]:
        """The linear layers that close it where they are zero."""
        return self.attn.to_out[0], self.ff.net[-1]

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """Return a picture's tokens (rows, places, width) after a look at its subjects."""
        places, attn = x.shape[1], self.attn
        both = self.norm1(torch.cat([x, self.linear(told.tokens)], dim=1))

        def heads(states: Tensor) -> Tensor:
            return states.view(*states.shape[:-1], attn.heads, -1).transpose(1, 2)

        query, key, value = heads(attn.to_q(both[:, :places])), heads(attn.to_k(both)), heads(attn.to_v(both))
        # Attention's own forward would make a mask for each head.
        seen = attend(query, key, value, told.mask(places, query.dtype))
        x = x + attn.to_out[0](seen.transpose(1, 2).flatten(2))
        made: Tensor = x + self.ff(self.norm2(x))
        return made


class Gates:
    """Gated self-attention in every transformer block of a U-Net, where diffusers keeps that of GLIGEN."""

    def __init__(self, denoiser: Any, width: int) -> None:
        """Add closed gates for tokens of a width to a network, on its device."""
        self._denoiser = denoiser
        self._told: Told | None = None
        self.adapters = nn.ModuleDict()
        for name, block in denoiser.named_modules():
            if isinstance(block, BasicTransformerBlock):
                own = block.attn1
                adapter = Gate(own.query_dim, width, own.heads, own.inner_dim // own.heads)
                block.fuser = adapter.to(own.to_q.weight.device)
                self.adapters[name.replace(".", "-")] = block.fuser
        denoiser.position_net = nn.Identity()  # what is told knows already where it belongs
        self._handle = denoiser.register_forward_pre_hook(self._tell, with_kwargs=True)

    @contextmanager
    def given(self, told: Told) -> Iterator[None]:
        """Let the next forward passes see subjects; without them the gates are not there."""
        self._told = told
        try:
            yield
        finally:
            self._told = None

    def remove(self) -> None:
        """Leave the network as it was."""
        self._handle.remove()
        del self._denoiser.position_net
        for block in self._denoiser.modules():
            if isinstance(block, BasicTransformerBlock):
                del block.fuser

    def _tell(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if self._told is None:
            return None
        return given, {**named, "cross_attention_kwargs": {"gligen": {"input": self._told}}}
