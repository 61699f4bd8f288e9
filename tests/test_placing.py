"""Subjects as they are typed, and where they stand when nobody says so."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import BadOption, BadPrompt
from persona.placing import (
    Subject,
    any_of,
    check,
    named,
    of_class,
    places,
    plain,
    read_box,
    read_masks,
    read_subjects,
    say,
)

SHAPES = st.floats(0.2, 5)


def test_subjects_are_read() -> None:
    read = read_subjects(["V=dog.png", "w=my cats/cat@home.png@0.1,0.3,0.6,0.9"])
    assert read == {
        "V": Subject("V", Path("dog.png")),
        "W": Subject("W", Path("my cats/cat@home.png"), (0.1, 0.3, 0.6, 0.9)),
    }
    masks = read_masks(["v=mask.png", "W=0,0,1,.5"], read)
    assert masks == {"V": Path("mask.png"), "W": (0, 0, 1, 0.5)}


def test_a_path_behind_an_equals_sign_may_be_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    read = read_subjects(["V=~/dog.png", "W=~no-such-user/cat.png"])
    assert [one.reference for one in read.values()] == [Path("/home/me/dog.png"), Path("~no-such-user/cat.png")]
    assert read_masks(["V=~/mask.png"], read) == {"V": Path("/home/me/mask.png")}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["dog.png"], "Write --subject V=dog.png"),
        (["V="], "Write --subject V=dog.png"),
        (["[V]=dog.png"], "Write --subject V=dog.png"),
        (["V=a.png", "v=b.png"], "given twice"),
        (["V=a.png", "W=b.png", "X=c.png"], "2 subjects at most; 3 were given"),
        (["V=a.png@0.1,0.2,0.3"], "needs four numbers"),
        (["V=a.png@0.1,0.2,0.3,x"], "needs four numbers"),
        (["V=a.png@0.1,0.2,1.3,0.4"], "not inside the image"),
        (["V=a.png@nan,0.2,0.3,0.4"], "not inside the image"),
        (["V=a.png@0.5,0.2,0.5,0.4"], "is empty"),
    ],
)
def test_subjects_that_cannot_be_read_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(BadOption, match=message) as error:
        read_subjects(texts)
    assert "\n" not in str(error.value)


def test_masks_belong_to_subjects() -> None:
    with pytest.raises(BadOption, match="no such subject"):
        read_masks(["W=mask.png"], read_subjects(["V=dog.png"]))
    with pytest.raises(BadOption, match="--mask V is given twice"):
        read_masks(["V=a.png", "v=b.png"], read_subjects(["V=dog.png"]))
    with pytest.raises(BadOption, match="not inside"):
        read_masks(["V=0,0,2,2"], read_subjects(["V=dog.png"]))


def test_prompts_and_subjects_belong_together() -> None:
    check(["a [V] dog", "a [v] dog and a [W] cat"], ["V", "W"])
    for prompts, subjects, error, message in (
        (["a [V] dog", "a [W] cat"], ["V"], BadPrompt, r"\[W\] has no reference"),
        (["a dog"], ["V"], BadPrompt, r"names no subject. Write \[V\]"),
        (["a [V] dog"], ["V", "W"], BadOption, "--subject W is in no prompt"),
    ):
        with pytest.raises(error, match=message):
            check(prompts, subjects)


def test_names_are_found_and_replaced() -> None:
    assert named("a [w] cat, the [V] dog and the [W] cat") == ["W", "V"]
    assert say("a [w] cat on a [V] dog", {"V": "zwx", "W": "sks"}) == "a sks cat on a zwx dog"
    assert plain("a [V] dog next to the [W] cat") == "a dog next to the cat"
    assert plain("A [V] elephant and an [W] owl on a [X] armchair") == "An elephant and an owl on an armchair"
    assert plain("an [V] dog, and a red [V] owl") == "a dog, and a red owl"


def test_templates_get_the_article_of_their_class() -> None:
    assert (
        of_class("a photo of a {class} beside a [V] {class}", "elephant")
        == "a photo of an elephant beside a [V] elephant"
    )
    assert of_class("a {class}", "dog") == any_of("dog") == "a dog"
    assert any_of("Owl") == "an Owl"


@given(SHAPES, SHAPES, st.sampled_from(["next to", "on top of", "to the right of", "below", "and"]))
def test_places_are_in_the_picture_and_apart(one: float, other: float, relation: str) -> None:
    first, second = places(f"a [V] dog {relation} a [W] cat", [(None, one), (None, other)])
    (alone,) = places("a [V] dog", [(None, one)])
    for box, shape in ((first, one), (second, other), (alone, one)):
        assert read_box(",".join(map(str, box)))
        assert (box[2] - box[0]) / (box[3] - box[1]) == pytest.approx(shape)
    match relation:
        case "on top of":
            assert first[3] <= second[1]
        case "below":
            assert first[1] >= second[3]
        case "to the right of":
            assert first[0] >= second[2]
        case _:
            assert first[2] <= second[0]


def test_a_part_of_a_word_says_nothing_of_places() -> None:
    first, second = places("a [V] dog covered in snow beside a [W] cat", [(None, 1.0), (None, 1.0)])
    assert first[2] <= second[0]


@pytest.mark.parametrize(
    ("between", "below"),
    [
        ("under a tree next to", False),
        ("on top of a wooden floor beside", False),
        ("over a puddle to the left of", False),
        ("next to a tree under", True),
        ("under a tree and", False),
        ("over a fence, with", False),
        ("below the window,", False),
        ("in a hat with a feather, under", True),
        ("under a black and white", True),
        ("below a big, round", True),
    ],
)
def test_the_last_relation_is_the_one_to_the_other(between: str, below: bool) -> None:
    for prompt in (f"a [V] dog {between} a [W] cat", f"a [V] dog {between} [W] cat"):
        first, second = places(prompt, [(None, 1.0), (None, 1.0)])
        assert first[1] >= second[3] if below else first[2] <= second[0]


def test_who_was_not_placed_keeps_clear_of_who_was() -> None:
    left, right = (0.0, 0.2, 0.45, 0.9), (0.55, 0.2, 1.0, 0.9)
    prompt = "a [V] dog and a [W] cat"
    for box in (left, right):
        kept, free = places(prompt, [(box, 1.0), (None, 1.0)])
        assert kept == box
        assert free[0] >= box[2] or free[2] <= box[0]
        free, kept = places(prompt, [(None, 1.0), (box, 1.0)])
        assert free[0] >= box[2] or free[2] <= box[0]
    assert places(prompt, [(left, 1.0), (right, 1.0)]) == [left, right]
