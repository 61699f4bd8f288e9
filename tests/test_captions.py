"""Captions: what surprises is always said, in words of the vocabulary, in many ways.

And clay's tokenizer: every word that matters is one token, and every text at all has some.
"""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from transformers import CLIPTokenizer

from persona.clay import world
from persona.clay.world import Entity, Scene, random_subject
from persona.clay.world.captions import ACCESSORY_PHRASES, CONTEXT_PHRASES, STYLE_PHRASES, VIEW_PHRASES
from persona.pretrain.clay.text import (
    MAX_TOKENS,
    build_tokenizer,
    caption_words,
    merges_for,
    prompt_of,
    rare_tokens,
)

_RNG = default_rng(11)
SCENES = [world.random_scene(_RNG) for _ in range(1500)]
CAPTIONS = [world.caption(scene, _RNG) for scene in SCENES]
SAID = list(zip(SCENES, CAPTIONS, strict=True))
VIEW_UNSAID = [one for one, said in SAID if not any(phrase in said for phrase in VIEW_PHRASES[one.view])]


PLACES = [f"{phrase}, " for phrases in CONTEXT_PHRASES.values() for phrase in phrases]


def says(caption: str, template: str) -> bool:
    before, _, after = template.partition("{}")
    place = next((place for place in PLACES if caption.startswith(place)), "")
    return caption.removeprefix(place).startswith(before) and caption.endswith(after)


def test_every_word_has_its_phrases() -> None:
    assert set(CONTEXT_PHRASES) == set(world.CONTEXTS)
    assert set(STYLE_PHRASES) == set(world.STYLES)
    assert set(VIEW_PHRASES) == set(world.VIEWS)
    assert set(ACCESSORY_PHRASES) == set(world.ACCESSORIES)


def test_the_style_is_always_said() -> None:
    for scene, caption in SAID:
        assert any(says(caption, template) for template in STYLE_PHRASES[scene.style]), caption
        if scene.style == "photo":
            others = [phrases for style, phrases in STYLE_PHRASES.items() if style != "photo"]
            assert not any(says(caption, template) for phrases in others for template in phrases), caption


def test_a_place_that_comes_first_comes_before_all_else() -> None:
    first = [caption for caption in CAPTIONS if caption.startswith(tuple(PLACES))]
    assert len(first) > 0.05 * len(CAPTIONS)
    assert not any(f" of {place}" in caption for caption in CAPTIONS for place in PLACES)


def test_clothes_are_always_said_and_never_made_up() -> None:
    for scene, caption in SAID:
        worn = {entity.accessory for entity in scene.entities}
        for accessory, phrases in ACCESSORY_PHRASES.items():
            assert any(phrase in caption for phrase in phrases) == (accessory in worn), caption
    assert any(entity.accessory for scene in SCENES for entity in scene.entities)


def test_properties_are_always_said() -> None:
    for scene, caption in SAID:
        for entity in scene.entities:
            if entity.property:
                assert entity.property in caption
    assert any(scene.entities[0].property for scene in SCENES)


def test_every_view_but_the_usual_one_is_always_said() -> None:
    assert len(VIEW_UNSAID) > 100
    assert {one.view for one in VIEW_UNSAID} == {"three-quarter"}
    assert {one.view for one in SCENES} == set(world.VIEWS)


def test_the_usual_view_faces_right() -> None:
    assert not any(world.faces_left(one) for one in VIEW_UNSAID)
    assert any(world.faces_left(one) for one in SCENES if one.view == "three-quarter")


def test_poses_are_always_said() -> None:
    for scene, caption in SAID:
        for entity in scene.entities:
            assert entity.pose == "standing" or entity.pose in caption, caption


def test_classes_and_relations_are_always_said() -> None:
    for scene, caption in SAID:
        for entity in scene.entities:
            assert entity.subject.class_noun in caption
            assert entity.subject.cross is None or f"{entity.subject.cross}" in caption
        assert scene.relation is None or scene.relation in caption
    assert any(entity.subject.cross for scene in SCENES for entity in scene.entities)
    assert any(scene.relation for scene in SCENES)


def test_only_words_of_the_vocabulary_are_used() -> None:
    used = {word for caption in CAPTIONS for word in caption.replace(",", " , ").replace("-", " - ").split()}
    assert used <= set(caption_words())


def test_captions_are_english() -> None:
    for caption in CAPTIONS:
        assert not re.search(r"\ba a\b|\ban an\b|\ban [bcdfghjklmnpqrstvwxyz]|\ba [aeio]|  |^ | $", caption), caption


def test_one_scene_has_many_captions() -> None:
    scene = replace(SCENES[0], context="beach", style="watercolor")
    rng = default_rng(12)
    assert len({world.caption(scene, rng) for _ in range(300)}) > 100


def test_the_same_state_gives_the_same_caption() -> None:
    assert [world.caption(SCENES[0], default_rng(4)) for _ in range(3)] == [
        world.caption(SCENES[0], default_rng(4))
    ] * 3


@pytest.mark.parametrize("seed", range(10))
def test_identifiers_stand_before_their_nouns(seed: int) -> None:
    rng = default_rng(seed)
    pair = (world.random_subject(rng, "dog"), world.random_subject(rng, "car"))
    caption = world.caption(world.random_scene(rng, pair), rng, ("sks", "zwx"))
    assert "sks dog" in caption
    assert "zwx car" in caption


def test_looks_can_be_left_to_pictures() -> None:
    rng = default_rng(13)
    for _ in range(500):
        who = world.random_subject(rng)
        phrase = world.noun_phrase(world.Entity(who), rng, looks=False)
        assert phrase == who.class_noun


# The tokenizer


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
