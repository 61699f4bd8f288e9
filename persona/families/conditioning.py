"""What a denoiser is told of prompts, each encoded but once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Conditioning = dict[str, Tensor]
"""What the denoiser is told beside the noisy latents: its forward arguments by name, the prompts along dimension 0."""


class Reader:
    """Encodes prompts, and remembers those that it is asked to."""

    def __init__(self, encode: Callable[[Sequence[str]], Conditioning]) -> None:
        """Take what encodes prompts, one row each."""
        self._encode = encode
        self._remembered: dict[str, Conditioning] = {}
        self._keeps = False

    @torch.no_grad()
    def remember(self, prompts: Sequence[str]) -> None:
        """Encode prompts once for all; they wait in main memory, as there may be a thousand, one a class image."""
        for prompt in prompts:
            if prompt not in self._remembered:
                self._remembered[prompt] = _move(self._encode([prompt]), "cpu")

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Remember meanwhile whatever is read."""
        before, self._keeps = dict(self._remembered), True
        try:
            yield
        finally:
            self._remembered, self._keeps = before, False

    def rows(self, prompts: Sequence[str], device: torch.device) -> Conditioning:
        """Return the conditioning of prompts, one row each: the remembered, or else encoded, each but once."""
        if self._keeps:
            self.remember(prompts)
        unique = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        fresh = [prompt for prompt in unique if prompt not in self._remembered]
        if not fresh:
            return _move(_stack([self._remembered[prompt] for prompt in prompts]), device)
        if len(fresh) < len(unique):
            known = self._remembered
            encoded = _stack([_move(known.get(prompt) or self._encode([prompt]), device) for prompt in unique])
        else:
            encoded = self._encode(list(unique))
        if len(unique) == len(prompts):
            return encoded
        if len(unique) == 1:
            return {key: value.expand(len(prompts), *value.shape[1:]) for key, value in encoded.items()}
        rows_of = torch.tensor([unique[prompt] for prompt in prompts], device=device)
        return {key: value[rows_of] for key, value in encoded.items()}


class Echo(nn.Module):
    """Stands in for a text encoder that learns nothing: of prompts it says again what that said of each.

    Attributes:
        prompts: that are being encoded.
    """

    def __init__(self, encoder: nn.Module, device: torch.device) -> None:
        """Be on a device and in a number format, as pipelines ask of an encoder."""
        super().__init__()
        self.dtype, self.device = encoder.dtype, device
        self.prompts: Sequence[str] = ()
        self._said: dict[str, Tensor] = {}

    def listen(self, encoder: nn.Module, given: object, said: Sequence[Tensor]) -> None:
        """Remember, as a forward hook of the encoder, what it says of each prompt; it waits in main memory."""
        self._said |= dict(zip(self.prompts, torch.split(said[0].cpu(), 1), strict=True))

    def forward(self, ids: Tensor, **_: object) -> tuple[Tensor]:
        """Return what was said of the prompts, (prompts, tokens, width)."""
        return (torch.cat([self._said[prompt] for prompt in self.prompts]).to(ids.device),)


def _move(conditioning: Conditioning, device: torch.device | str) -> Conditioning:
    return {key: value.to(device) for key, value in conditioning.items()}


def _stack(rows: Sequence[Conditioning]) -> Conditioning:
    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
