from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from persona import families
from persona.errors import BadToken
from persona.events import Event, Note, Progress
from persona.identity import bare, caption, check, choose, fill, mentions, renamed

WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)


class Painter:
    """A base for which some words have a colour, and the others mean nothing."""

    def __init__(self, *tokenizers: Any, colours: dict[str, str] | None = None, loud: dict[str, float] | None = None):
        self.tokenizers = list(tokenizers)
        self.colours = colours or {}
        self.loud = loud or {}
        self.drawn: list[str] = []

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], *, steps: int | None = None, size: Any = None
    ) -> list[Image.Image]:
        self.drawn += prompts
        images = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            colour = next((self.colours[word] for word in prompt.split() if word in self.colours), "grey")
            image = Image.new("RGB", (32, 32), colour)
            image.paste((80 * seed, 0, 0), (0, 0, 8, 8))
            images.append(image)
        return images

    def conditioning(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        words = [prompt.replace("dog", "").split()[1:] for prompt in prompts]
        loud = [sum(self.loud.get(word, 1.0) for word in one) for one in words]
        return {"states": torch.tensor([[1.0, one] for one in loud])}


def tokenizer(*words: str, unknown: bool = False) -> Any:
    """Return CLIP's tokenizer that knows these words, the last the rarest."""
    from transformers import CLIPTokenizer

    tokens = [*bases.BYTES, *(f"{byte}</w>" for byte in bases.BYTES)]
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1] + ("</w>" if end == len(word) else ""))
            if pair not in merges:
                merges.append(pair)
                tokens.append("".join(pair))
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=16)


def test_the_word_that_means_least_is_chosen_and_the_evidence_kept() -> None:
    base = Painter(tokenizer("dog", "red", "sun", "zwx", "qvy"), colours={"red": "red", "sun": "yellow", "qvy": "blue"})
    events: list[Event] = []
    token = choose(base, "dog", events.append)
    assert token.text == "zwx"
    assert token.ids == ((base.tokenizers[0].get_vocab()["zwx</w>"],),)
    assert token.evidence["zwx"] == 0
    assert set(token.evidence) == {"red", "sun", "zwx", "qvy"}
    assert min(pull for word, pull in token.evidence.items() if word != "zwx") > 0.05
    assert events[-1] == Progress("Choosing a token", 5, 5)


def test_a_word_that_is_hardly_heard_is_not_chosen_for_changing_little() -> None:
    colours = {"zwx": "#808078", "qvy": "#808070"}
    words = tokenizer("dog", "zwx", "qvy")
    assert choose(Painter(words, colours=colours), "dog").text == "zwx"
    assert choose(Painter(words, colours=colours, loud={"zwx": 0.2}), "dog").text == "qvy"


def test_of_the_rarest_those_that_are_heard_are_looked_at() -> None:
    words = [f"{first}{last}" for first in "bcdfghjklmnpqrstvw" for last in "qx"]
    loud = words[:2] + words[-30::4]
    base = Painter(tokenizer(*words), loud=dict.fromkeys(loud, 2.0))
    assert set(choose(base, "dog").evidence) == set(loud[2:])
    assert len(set(base.drawn)) == 9


def test_a_word_must_be_one_token_of_each_tokenizer() -> None:
    base = Painter(tokenizer("dog", "zwx", "qvy"), tokenizer("dog", "zwx", "foo"))
    assert set(choose(base, "dog").evidence) == {"zwx"}


def test_a_base_without_rare_words_is_told_to_name_one() -> None:
    with pytest.raises(BadToken, match="--token"):
        choose(Painter(tokenizer("dog")), "dog")


def test_choice_from_a_real_pipeline_is_reproducible(base_folder: Callable[..., Path]) -> None:
    base = families.load(str(base_folder()))
    token = choose(base, "dog")
    assert token == choose(base, "dog")
    assert token.text in bases.WORDS
    assert token.text != "dog"
    assert len(token.ids[0]) == 1


@pytest.mark.parametrize(
    ("token", "advice"),
    [("zwx", None), ("abcd", "splits into a + b + c + d"), ("dog", "class noun")],
)
def test_advice_on_a_given_token(token: str, advice: str | None) -> None:
    found, notes = check(Painter(tokenizer("dog", "zwx")), token, "dog")
    assert found.text == token
    assert found.evidence == {}
    if advice is None:
        assert notes == []
    else:
        (note,) = notes
        assert note.warning
        assert advice in note.text
        assert "--token" in note.text


def test_words_that_a_base_has_read_about_get_a_hint() -> None:
    class Clip:
        unk_token_id = 49407

        def __len__(self) -> int:
            return 49408

        def encode(self, word: str, add_special_tokens: bool) -> list[int]:
            return [{"sks": 48136, "sun": 1500}.get(word, 47000)]

    assert "rifle" in check(Painter(Clip()), "sks", "dog")[1][0].text
    assert check(Painter(Clip()), "zwx", "dog")[1] == []
    assert "common word" in check(Painter(Clip()), "sun", "dog")[1][0].text
    assert check(Painter(tokenizer("dog", "sks")), "sks", "dog")[1] == []


@pytest.mark.parametrize("read", [[3], [9, 3]], ids=["unknown", "as T5 reads it"])
def test_a_token_that_cannot_be_read_is_refused(read: list[int]) -> None:
    class Words:
        unk_token_id = 3

        def encode(self, word: str, add_special_tokens: bool) -> list[int]:
            return read

    with pytest.raises(BadToken, match="cannot read 'zwx'"):
        check(Painter(Words()), "zwx", "dog")


@given(before=st.text(), after=st.text(), token=WORDS, noun=WORDS)
def test_filling_changes_nothing_but_the_slot(before: str, after: str, token: str, noun: str) -> None:
    prompt = f"{before}[V] {noun}{after}"
    filled = fill(prompt, token, noun)
    assert filled.lower().count("[v]") == 0 or "[v]" in (token + before + after).lower()
    if "[v]" not in (before + after).lower():
        assert filled == f"{before}{token} {noun}{after}"


@given(prompt=st.text().filter(lambda text: "[v]" not in text.lower()), token=WORDS, noun=WORDS)
def test_prompts_without_a_slot_stay_as_they_are(prompt: str, token: str, noun: str) -> None:
    assert fill(prompt, token, noun) == prompt


@pytest.mark.parametrize(
    ("prompt", "warned"),
    [
        ("a [V] dog swimming", False),
        ("two [v] dogs", False),
        ("a photo of [V]", True),
        ("a [V] hotdog", True),
        ("a sks on the beach", True),
        ("a [V] chasing another dog", True),
        ("a [V] dog and a [V]", True),
        ("a [V] little black dog and a [V]-dog", False),
        ("a [V] little, fluffy dog", False),
        ("a [V] asleep, dog toys around", True),
        ("a [V] chasing some dogs", True),
        ("a [V] beside dog toys", True),
        ("a [V] wearing dog ears", True),
        ("a dog", False),
        ("a red car", False),
    ],
)
def test_a_prompt_that_leaves_out_the_class_noun_gets_a_warning(prompt: str, warned: bool) -> None:
    events: list[Event] = []
    fill(prompt, "sks", "dog", events.append)
    assert [isinstance(event, Note) and event.warning for event in events] == [True] * warned


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a [V] dog on grass", "a dog on grass"),
        ("a [v], asleep", "a dog, asleep"),
        ("a [V] on grass", "a dog on grass"),
        ("a red car", "a red car"),
        ("a [V] chasing another dog", "a dog chasing another dog"),
        ("a [V] chasing some dogs", "a dog chasing some dogs"),
        ("a [V] little, fluffy dog", "a little, fluffy dog"),
        ("a [V] and a dog", "a dog and a dog"),
        ("a [V], a dog", "a dog, a dog"),
        ("a [V] little black dog and a [V]", "a little black dog and a dog"),
    ],
)
def test_where_pictures_tell_the_subject_its_class_noun_is_enough(before: str, after: str) -> None:
    assert bare(before, "dog") == after


@given(st.lists(st.sampled_from(["dog", "dogs", "Dog", "black", "and", "a", "the", "cat,", "[V]"]), max_size=6))
def test_the_class_noun_stands_where_the_subject_does(words: list[str]) -> None:
    said = bare(" ".join(["[V]", *words]), "dog").lower().split()
    assert any(word.startswith("dog") for word in said[:2])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a [V] dog on grass", "a [V] cat on grass"),
        ("a [v] little, fluffy Dog", "a [v] little, fluffy cat"),
        ("two [V] dogs, a [V]-dog", "two [V] cats, a [V]-cat"),
        ("a [V] dog chasing dog toys", "a [V] cat chasing dog toys"),
        ("a [V] hotdog and a dog", "a [V] hotdog and a dog"),
    ],
)
def test_the_class_noun_that_is_the_subjects_is_exchanged(before: str, after: str) -> None:
    assert renamed(before, "dog", "cat") == after


def test_captions_always_name_the_subject() -> None:
    assert caption(None, "sks", "dog") == "a sks dog"
    assert caption("a [V] dog on grass", "sks", "dog") == "a sks dog on grass"
    assert caption("asleep on a sofa", "sks", "dog") == "a sks dog, asleep on a sofa"
    assert caption("a photo of rex dog, as REX sleeps", "Rex", "dog") == "a photo of Rex dog, as Rex sleeps"


@given(token=WORDS)
def test_any_word_is_found_where_it_stands(token: str) -> None:
    assert mentions(f"a {token} dog", token)
    assert not mentions(f"x{token}x", token)
