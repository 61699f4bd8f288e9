"""The word that stands for the subject, and the prompts that use it.

A good word is one that the base knows how to read but has nothing to say about: a single token of each of its
tokenizers, so rare that its pictures are of nothing in particular (Ruiz et al., 2208.12242, section 3.2).
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from persona.errors import BadToken
from persona.events import Listener, Note, Progress, silent
from persona.eye import look
from persona.placing import any_of, plain

RAREST = 32
"""Rarest words that are listened to."""
CANDIDATES = 8
"""Of these, the most heard, that are looked at."""
SEEDS = (1, 2, 3)
"""Seeds of the pictures that a word is judged by."""
STEPS = 8
"""Sampling steps of these pictures: what a word means shows long before the details do."""
COMMON = 0.4
"""Position in a vocabulary, as a share of it, before which a word is common; they are in the order of frequency."""

_SHORT = 3  # letters; the paper takes no longer ones, which are likelier to be words
_SKS_IN_CLIP = 48136  # CLIP's id of "sks": bases with its tokenizer have read about the rifle of that name
OTHERS = (
    "a|an|the|this|that|these|those|another|other|one|two|some|any|no|each|every|many|my|your|his|her|its|our|their|"
    "and|or|with|without|of|in|into|inside|on|onto|at|by|near|to|beside|behind|under|below|over|above|around|between|"
    "through|across|along|against|from|for|than|like|as|wearing"
)
"""Words that a noun behind them does not share with what stands before them."""
_SLOT = re.compile(r"\[v\]", re.IGNORECASE)


class Base(Protocol):
    """What is asked of a base model here."""

    @property
    def tokenizers(self) -> list[Any]:
        """The tokenizer of each text encoder."""

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> list[Image]:
        """Draw one picture for each pair of prompt and seed."""

    def conditioning(self, prompts: Sequence[str]) -> Mapping[str, Tensor]:
        """Return what the denoiser is told of prompts, one row each."""


@dataclass(frozen=True)
class Token:
    """A word that may stand for the subject.

    Attributes:
        text: the word.
        ids: its ids in each tokenizer.
        evidence: for each word that was looked at, how far it pulls the pictures of the class to something of its
            own, from 0 (not at all), for what of it is heard; empty for a word that the user gave.
    """

    text: str
    ids: tuple[tuple[int, ...], ...]
    evidence: Mapping[str, float] = field(default_factory=dict)


def choose(
    base: Base,
    class_noun: str,
    listener: Listener = silent,
    size: tuple[int, int] | None = None,
    taken: Collection[str] = (),
) -> Token:
    """Choose the word that the base has the least to say about.

    The rarest words that are one token in each tokenizer stand before the class noun in a prompt. What changes the
    encoded prompt little is hardly heard, and what is not heard cannot be taught: so those go on that change it most.
    With each of them, and without any, the same seeds draw the prompt. What a word changes on all seeds alike is its
    own meaning, and the word is chosen that has the least for what is heard of it.

    Args:
        base: draws.
        class_noun: what the subject is.
        listener: told how far it is.
        size: of the pictures, width and height in pixels; the base's own when left out.
        taken: words that stand for other subjects, and are not chosen.

    Raises:
        BadToken: the base has no such word.
    """
    known = (word for word in rare(base.tokenizers) if word not in class_noun.lower() and word not in taken)
    words = {word: f"a {word} {class_noun}" for word in islice(known, RAREST)}
    if not words:
        raise BadToken("The base has no rare word that is a single token. Name one yourself: --token sks")
    unnamed = base.conditioning([any_of(class_noun)])
    heard = {word: _heard(unnamed, base.conditioning([prompt])) for word, prompt in words.items()}
    loudest = sorted(words, key=lambda word: -heard[word])[:CANDIDATES]

    def seen(prompt: str) -> NDArray[np.float64]:
        return np.stack([look(image) for image in base.draw([prompt] * len(SEEDS), SEEDS, steps=STEPS, size=size)])

    alone, pull = seen(any_of(class_noun)), {}
    for number, word in enumerate(loudest, 1):
        listener(Progress("Choosing a token", number, len(loudest) + 1))
        pull[word] = float(np.linalg.norm((seen(words[word]) - alone).mean(0))) / heard[word]
    listener(Progress("Choosing a token", len(loudest) + 1, len(loudest) + 1))
    best = min(pull, key=lambda word: pull[word])
    return Token(best, _ids(base.tokenizers, best), pull)


def _heard(told: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return how far what the denoiser is told of another prompt is from what it is told of one, as a share of that."""
    pairs = [(one.detach().float(), other[key].detach().float()) for key, one in told.items()]
    return sum(float((far - near).norm() / near.norm().clamp(min=1e-6)) for near, far in pairs) + 1e-6


def rare(tokenizers: list[Any]) -> Iterator[str]:
    """Yield the words that are one token in each tokenizer: those of up to three letters first, then the rarest."""
    known = [_words(tokenizer) for tokenizer in tokenizers]
    rarity = {word: min(words[word] for words in known) for word in set.intersection(*map(set, known))}
    for word in sorted(rarity, key=lambda word: (len(word) > _SHORT, -rarity[word], word)):
        if all(len(ids) == 1 for ids in _ids(tokenizers, word)):
            yield word


def _words(tokenizer: Any) -> dict[str, float]:
    """Return the whole words of a vocabulary with their positions in it, from 0 (common) to 1 (rare)."""
    found = {}
    for piece, number in tokenizer.get_vocab().items():
        # Byte-pair vocabularies mark where a word ends (</w>) or begins; pieces of words bear no mark.
        word = re.fullmatch(r"[▁Ġ]([a-z]{2,6})|([a-z]{2,6})</w>", piece)
        if word:
            found[word[1] or word[2]] = number / len(tokenizer)
    return found


def _rarity(tokenizers: list[Any], word: str) -> float:
    """Return how late the word stands in the vocabulary that knows it best, as a share of it."""
    return min(ids[-1] / len(tokenizer) for tokenizer, ids in zip(tokenizers, _ids(tokenizers, word), strict=True))


def _ids(tokenizers: list[Any], word: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tokenizer.encode(word, add_special_tokens=False)) for tokenizer in tokenizers)


def check(base: Base, token: str, class_noun: str) -> tuple[Token, list[Note]]:
    """Look at a word that the user gave.

    Returns:
        The word with its ids, and advice where another would do better.

    Raises:
        BadToken: the base cannot read it at all.
    """
    ids = _ids(base.tokenizers, token)
    if not all(ids) or any(t.unk_token_id in one for one, t in zip(ids, base.tokenizers, strict=True)):
        raise BadToken(f"The base cannot read {token!r}. Take plain letters, or leave --token out: one is chosen.")
    return Token(token, ids), list(_advice(base.tokenizers, token, ids, class_noun))


def _advice(tokenizers: list[Any], token: str, ids: tuple[tuple[int, ...], ...], class_noun: str) -> Iterator[Note]:
    instead = "Leave --token out, and a rare one is chosen."
    pieces = max(ids, key=len)
    if token.lower() in class_noun.lower().split():
        yield Note(f"The token {token} is the class noun too, so every {class_noun} changes. {instead}", warning=True)
    elif len(pieces) > 1:
        split = " + ".join(tokenizers[ids.index(pieces)].decode([one]).strip() for one in pieces)
        yield Note(f"The token {token} splits into {split}, each with a meaning of its own. {instead}", warning=True)
    elif (_SKS_IN_CLIP,) in ids and token.lower() == "sks":
        yield Note(f"In CLIP's training data sks is a rifle, which may show in the images. {instead}", warning=True)
    elif _rarity(tokenizers, token) < COMMON:
        yield Note(f"The token {token} is a common word, which must first be unlearned. {instead}", warning=True)


def fill(prompt: str, token: str, class_noun: str, listener: Listener = silent) -> str:
    """Put the token in the place of ``[V]``.

    Args:
        prompt: any text; ``[V]`` may stand in it any number of times, or not at all.
        token: the word that stands for the subject.
        class_noun: what the subject is.
        listener: warned when the prompt shows the subject without its class noun: subject fidelity (DINO) fell
            from 0.744 to 0.303 in the paper's own ablation.
    """
    filled = _SLOT.sub(lambda _: token, prompt)
    if _alone(rf"(?<!\w){re.escape(token)}(?!\w)", class_noun).search(filled):
        hint = f"Write [V] {class_noun}: without its class noun the subject is hardly recognized."
        listener(Note(f"{prompt[:60]!r} does not say {class_noun} after [V]. {hint}", warning=True))
    return filled


def bare(prompt: str, class_noun: str) -> str:
    """Return a prompt for whom pictures tell which subject is meant: ``[V]`` is no more than its class noun.

    Where the prompt says the noun behind it, nothing takes the place of ``[V]``.
    """
    return plain(_alone(_SLOT.pattern, class_noun).sub(lambda slot: f"{slot[0]} {class_noun}", prompt))


def renamed(prompt: str, class_noun: str, other: str) -> str:
    """Return a prompt with another class noun in the place of the subject's own, as it stands behind ``[V]``."""
    own = re.compile(rf"({_SLOT.pattern}){_behind(class_noun)}", re.IGNORECASE)
    return own.sub(lambda found: f"{found[1]}{found[2]}{other}{'s' if found[3] else ''}", prompt)


def _alone(name: str, class_noun: str) -> re.Pattern[str]:
    """Return what finds a name, a pattern, without its class noun behind it; elsewhere that may be another's."""
    return re.compile(rf"{name}(?!{_behind(class_noun)})", re.IGNORECASE)


def _behind(class_noun: str) -> str:
    """Return the pattern of a class noun behind a name; the groups are what stands between them, and the plural's end.

    Words that describe it may stand there: "a [V] little, black dog", but not "a [V] chasing another dog".
    """
    describing = rf"\s+(?:(?!(?:{OTHERS})\s)[^\s,;.]+,?\s+){{0,3}}?(?<!,\s)"
    return rf"({describing}|-?){re.escape(class_noun)}(s|es)?(?!\w)"


def caption(given: str | None, token: str, class_noun: str, listener: Listener = silent) -> str:
    """Return the training prompt of a photo: its own caption, or the paper's.

    A caption that does not name the subject gets it in front, or nothing would tie the photo to the token. One that
    spells the token in another case gets it as it is: to some text encoders the other is another word.
    """
    subject = f"a {token} {class_noun}"
    if given is None:
        return subject
    filled = replaced(fill(given, token, class_noun, listener), token, token)
    return filled if mentions(filled, token) else f"{subject}, {filled}"


def replaced(prompt: str, token: str, word: str) -> str:
    """Return a prompt with a word in the place of a token, in whatever case that is spelt."""
    return re.sub(rf"(?<!\w){re.escape(token)}(?!\w)", lambda _: word, prompt, flags=re.IGNORECASE)


def mentions(prompt: str, words: str) -> bool:
    """Tell whether a prompt contains a word or several in a row, alone or in the plural, in any case."""
    return re.search(rf"(?<!\w){re.escape(words)}(s|es)?(?!\w)", prompt, re.IGNORECASE) is not None
