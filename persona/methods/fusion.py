"""Prompts of words and of subjects: what a reference shows as a whole takes the place of a word."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """Puts a subject in the place of a word's embedding, before the text encoders read the prompt.

    At the start every subject is the mean of all words, which says nothing yet.

    Attributes:
        words: that stand for the subjects in prompts: one token each, of every tokenizer.
    """

    def __init__(
        self, encoders: Mapping[str, nn.Module], tokenizers: Sequence[Any], words: Sequence[str], width: int
    ) -> None:
        """Join the subjects to text encoders, on their devices.

        Args:
            encoders: by their names; each has a tokenizer, in the same order.
            tokenizers: read the words.
            words: see the class.
            width: of what an image encoder says of a whole picture.
        """
        super().__init__()
        self.words = tuple(words)
        self.says = nn.ModuleDict()
        self._given: Tensor | None = None
        self._handles = []
        for (name, encoder), tokenizer in zip(encoders.items(), tokenizers, strict=True):
            table: Any = encoder.get_input_embeddings()  # type: ignore[operator]  # of transformers' own models
            self.says[name] = _says(width, table.weight)
            ids = [tokenizer.encode(word, add_special_tokens=False)[0] for word in words]
            self._handles.append(table.register_forward_hook(partial(self._put, name, ids)))

    @contextmanager
    def given(self, subjects: Tensor) -> Iterator[None]:
        """Let prompts that are read, one row each, speak of subjects (rows, words, width)."""
        self._given = subjects
        try:
            yield
        finally:
            self._given = None

    def remove(self) -> None:
        """Let words be words again."""
        for handle in self._handles:
            handle.remove()

    def _put(self, name: str, ids: list[int], _: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if self._given is None:
            return out
        says = self.says[name]
        here = next(says.parameters()).device  # an idle text encoder may wait elsewhere
        said = says(self._given.to(here)).to(out.device, out.dtype)
        for place, number in enumerate(ids):
            out = torch.where((given[0] == number)[..., None], said[:, place, None], out)
        return out


def _says(width: int, table: Tensor) -> nn.Sequential:
    """Return what turns a subject into an embedding like those of a table (words, width of the text encoder)."""
    last = nn.Linear(table.shape[1], table.shape[1])
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(table.float().mean(0))
    layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, table.shape[1]), nn.GELU(), last)
    return layers.to(table.device)


def words_of(
    tokenizer: Any, prompts: Sequence[str], words: Sequence[str], nouns: Sequence[Sequence[str]], length: int
) -> Tensor:
    """Return which tokens speak of each subject, (prompts, words, length): 1 for its word and the noun behind it.

    Args:
        tokenizer: reads the prompts as the text encoder does.
        prompts: a subject whose word is not in one, or was cut off, has no token there.
        words: of the subjects.
        nouns: what the subjects of each prompt are, in the order of the words.
        length: tokens of a prompt.
    """
    told = torch.zeros(len(prompts), len(words), length)
    for row, prompt in enumerate(prompts):
        ids = tokenizer(prompt, truncation=True, max_length=length).input_ids
        for place, (word, noun) in enumerate(zip(words, nouns[row], strict=False)):
            sign, *behind = tokenizer(f"{word} {noun}", add_special_tokens=False).input_ids
            for at in (at for at, number in enumerate(ids) if number == sign):
                end = at + 1 + len(behind)
                told[row, place, at : end if ids[at + 1 : end] == behind else at + 1] = 1
    return told
