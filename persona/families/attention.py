"""Which attention kernel is fast on this device, chosen for each layer by its size."""

from contextlib import nullcontext
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

SMALL = 32 * 1024
"""Queries times keys up to which the plain kernel is faster in a bf16 training step on a CPU.

Forward and backward in ms on one core (heads x width 4 x 32, batch 8): 64 by 64 tokens 2.0 plain and 5.8 fused;
256 by 77 7.4 and 15.2; 256 by 256 22 and 18; with 8 x 80, 1024 by 1024 378 and 113. The fused kernel's backward is to
blame: its forward, and all of it in fp32, is never slower.
"""


class _SizedAttention(AttnProcessor2_0):  # type: ignore[misc]  # diffusers is untyped
    """The usual attention, with the plain kernel where the fused one's backward would be slow."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if torch.is_grad_enabled() and hidden_states.shape[1] * keys.shape[1] <= SMALL:
            with sdpa_kernel(SDPBackend.MATH):
                return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return what queries (B, heads, tokens, width) find among keys and values, by the kernel that is fast for them.

    A mask (B or 1, heads or 1, queries, keys) is added to their scores.
    """
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    plain = slow and query.shape[2] * key.shape[2] <= SMALL
    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        return scaled_dot_product_attention(query, key, value, mask)


def choose_kernels(denoiser: nn.Module, device: torch.device) -> None:
    """Let each attention layer of a bf16 denoiser that computes on a CPU choose its kernel; leave all others alone."""
    if device.type != "cpu" or next(denoiser.parameters()).dtype != torch.bfloat16:
        return
    for module in denoiser.modules():
        if isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0:
            module.set_processor(_SizedAttention())
