"""Clay's own words: a byte-level BPE vocabulary in CLIP's format, built from the captions' words and rare tokens.

Each wanted word is given the merges that make it one token, in order, so that it stays one token whatever comes later; all
other text falls back to bytes, so that any prompt can be tokenized.
"""

from itertools import product
from pathlib import Path

from numpy.random import Generator, default_rng
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from persona.clay.world.captions import caption
from persona.clay.world.scene import random_scene

MAX_TOKENS = 48
_END = "</w>"


def rare_tokens() -> tuple[str, ...]:
    """Three letters that mean nothing, `sks` among them: what identifiers are taken from."""
    triples = ["".join(letters) for letters in product("bcdfghjklmnpqrstvwxz", repeat=3)]
    chosen = default_rng(0).choice(triples, 400, replace=False)
    return tuple(sorted({"sks", "zwx", *map(str, chosen)}))


def caption_words(samples: int = 20_000) -> tuple[str, ...]:
    """Every word that captions use, the commonest first."""
    counts: dict[str, int] = {}
    rng = default_rng(1)
    for _ in range(samples):
        for word in caption(random_scene(rng), rng).replace(",", " , ").replace("-", " - ").split():
            counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def merges_for(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Merges, in order of rank, under which each word (lower case, no spaces) is one token."""
    merges: list[tuple[str, str]] = []
    rank: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = [*word[:-1], word[-1] + _END]
        while len(pieces) > 1:
            pairs = list(zip(pieces, pieces[1:], strict=False))
            known = [pair for pair in pairs if pair in rank]
            pair = min(known, key=rank.__getitem__) if known else pairs[0]
            if not known:
                rank[pair] = len(merges)
                merges.append(pair)
            joined: list[str] = []
            for piece in pieces:
                if joined and (joined[-1], piece) == pair:
                    joined[-1] += piece
                else:
                    joined.append(piece)
            pieces = joined
    return merges


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Make clay's tokenizer and save it to a folder."""
    merges = merges_for((*caption_words(), *rare_tokens()))
    letters = sorted(ByteLevel.alphabet())
    tokens = [
        *letters,
        *(letter + _END for letter in letters),
        *dict.fromkeys(a + b for a, b in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=MAX_TOKENS
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def identifier(rng: Generator, rare: tuple[str, ...]) -> str | None:
    """Now and then a word that means nothing, so that such words start neutral: a rare token, or a string of letters."""
    draw = rng.random()
    if draw < 0.12:
        return rare[rng.integers(len(rare))]
    if draw < 0.15:
        return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(4, 9)))
    return None
