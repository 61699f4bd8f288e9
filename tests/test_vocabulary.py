"""Clay's tokenizer: every word that matters is one token, and every text at all has some."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from transformers import CLIPTokenizer

from persona.clay.world import Entity, Scene, random_subject
from persona.pretrain.clay.text import (
    MAX_TOKENS,
    build_tokenizer,
    caption_words,
    merges_for,
    prompt_of,
    rare_tokens,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    build_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


def test_words_and_rare_tokens_are_one_token_each(tokenizer: CLIPTokenizer) -> None:
    for word in (*caption_words(), *rare_tokens()):
        assert len(tokenizer.tokenize(word)) == 1, word
        assert len(tokenizer.tokenize(f"a {word} dog")) == 3, word


def test_rare_tokens_are_many_and_mean_nothing() -> None:
    rare = rare_tokens()
    assert len(rare) >= 400
    assert {"sks", "zwx"} <= set(rare)
    assert not set(rare) & set(caption_words())


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_text_has_tokens(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text, truncation=True, max_length=MAX_TOKENS).input_ids
    assert 2 <= len(ids) <= MAX_TOKENS
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert all(0 <= number < len(tokenizer) for number in ids)
    assert tokenizer.eos_token not in tokenizer.tokenize(text)  # nothing was unknown


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40))
@settings(deadline=None, max_examples=100)
def test_bytes_carry_what_no_word_does(tokenizer: CLIPTokenizer, word: str) -> None:
    pieces = tokenizer.tokenize(word)
    assert "".join(pieces).replace("</w>", "") == word.lower()


def test_the_tokenizer_is_the_same_after_a_trip_to_disk(folder: Path, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "again")
    again = CLIPTokenizer.from_pretrained(tmp_path / "again")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert (again.model_max_length, again.pad_token) == (MAX_TOKENS, tokenizer.pad_token)
    assert build_tokenizer(tmp_path / "anew").get_vocab() == tokenizer.get_vocab()
    assert (tmp_path / "anew" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_merges_keep_earlier_words_whole() -> None:
    words = ("dog", "do", "dogs", "og")
    rank = {pair: number for number, pair in enumerate(merges_for(words))}
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while pairs := [pair for pair in pairwise(pieces) if pair in rank]:
            first = pieces.index(min(pairs, key=rank.__getitem__)[0])
            pieces[first : first + 2] = ["".join(pieces[first : first + 2])]
        assert pieces == [word + "</w>"]


def test_prompts_hold_words_without_a_meaning_now_and_then() -> None:
    rng, known, rare = default_rng(0), set(caption_words()), set(rare_tokens())
    who = Scene((Entity(random_subject(rng, "dog")),), "snow")
    prompts = [prompt_of(who, rng) for _ in range(4000)]
    assert 0.08 < prompts.count("") / len(prompts) < 0.12
    strange = [set(re.findall(r"[a-z]+", prompt)) - known for prompt in prompts if prompt]
    assert 0.13 < sum(map(bool, strange)) / len(strange) < 0.17
    assert set().union(*strange) & rare
    assert set().union(*strange) - rare
