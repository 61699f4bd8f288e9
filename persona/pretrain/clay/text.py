"""Clay's own words: a byte-level BPE vocabulary in CLIP's format, built from the captions' words and rare tokens.

Each wanted word is given the merges that make it one token, in order, so that it stays one token whatever comes later;
all other text falls back to bytes, so that any prompt can be tokenized.
"""

from functools import cache
from itertools import pairwise, product
from pathlib import Path

from numpy.random import Generator, default_rng
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from persona.atomic import folder_beside
from persona.clay.world import Scene, caption, random_scene

MAX_TOKENS = 48
DROPPED = 0.1
"""Share of prompts left empty, for guidance."""
_END = "</w>"


@cache
def rare_tokens() -> tuple[str, ...]:
    """Return three letters that mean nothing, `sks` among them, many times: what identifiers are taken from."""
    triples = ["".join(letters) for letters in product("bcdfghjklmnpqrstvwxz", repeat=3)]
    chosen = default_rng(0).choice(triples, 400, replace=False)
    return tuple(sorted({"sks", "zwx", *map(str, chosen)}))


@cache
def caption_words(samples: int = 20_000) -> tuple[str, ...]:
    """Return every word and mark that so many captions use, the commonest first."""
    counts: dict[str, int] = {}
    rng = default_rng(1)
    for _ in range(samples):
        for word in caption(random_scene(rng), rng).replace(",", " , ").replace("-", " - ").split():
            counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def merges_for(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return merges, in order of rank, under which each word (lower case, no spaces) is one token."""
    merges: list[tuple[str, str]] = []
    rank: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = [*word[:-1], word[-1] + _END]
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            known = [pair for pair in pairs if pair in rank]
            pair = min(known, key=rank.__getitem__) if known else pairs[0]
            if not known:
                rank[pair] = len(merges)
                merges.append(pair)
            pieces = _joined(pieces, pair)
    return merges


def _joined(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Make clay's tokenizer, and save it to a folder."""
    merges = merges_for((*caption_words(), *rare_tokens()))
    letters = sorted(ByteLevel.alphabet())
    pieces = dict.fromkeys(first + second for first, second in merges)
    tokens = [*letters, *(letter + _END for letter in letters), *pieces, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)
    with folder_beside(folder) as part:
        tokenizer.save_pretrained(part)
    return tokenizer


def prompt_of(scene: Scene, rng: Generator) -> str:
    """Return a caption of a scene, with an identifier now and then, or nothing at all."""
    if rng.random() < DROPPED:
        return ""
    return caption(scene, rng, (_identifier(rng), _identifier(rng)))


def _identifier(rng: Generator) -> str | None:
    """Return now and then a word that means nothing, so that such words start neutral: rare, or a string of letters."""
    draw = rng.random()
    if draw < 0.12:
        return rare_tokens()[rng.integers(len(rare_tokens()))]
    if draw < 0.15:
        return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(4, 9)))
    return None
