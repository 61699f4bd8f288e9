"""The rendered world: the same picture each time, everything visible, and the truth about it true."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng
from numpy.typing import NDArray
from PIL import Image

from persona.clay import world
from persona.clay.world import Entity, Scene, Subject, compiled, drawing
from persona.clay.world.bodies import ROOT, Body
from persona.pretrain.clay.data import training_scene, training_set

GOLDEN = Path(__file__).parent / "golden"
MAGENTA = (0.95, 0.05, 0.95)


def subject(noun: str = "dog", seed: int = 0, **changed: Any) -> Subject:
    return replace(world.random_subject(default_rng(seed), noun), **changed)


def scene(who: Subject | None = None, *, context: str = "snow", view: str = "side", style: str = "photo",
          **entity: Any) -> Scene:  # fmt: skip
    return Scene((Entity(who or subject(), **entity),), context, view, style, seed=5)


def pixels(of: Scene) -> NDArray[np.float64]:
    return world.render(of).pixels.astype(float)


def apart(one: Scene, other: Scene) -> float:
    """Return the mean difference of two pictures, in levels of 255."""
    return float(np.abs(pixels(one) - pixels(other)).mean())


def test_the_pictures_are_those_that_clay_was_trained_on() -> None:
    """Compare with small pictures, since another CPU may round the last bit otherwise."""
    scenes = [world.from_dict(data) for data in json.loads((GOLDEN / "scenes.json").read_text())]
    known = np.asarray(Image.open(GOLDEN / "pictures.png"), float).reshape(-1, 32, 8, 32, 3).swapaxes(1, 2)
    drawn = np.stack([pixels(one).reshape(32, 4, 32, 4, 3).mean((1, 3)) for one in scenes])
    off = np.abs(drawn - known.reshape(-1, 32, 32, 3)).mean((1, 2, 3))
    assert off.max() < 0.5, [int(number) for number in np.flatnonzero(off >= 0.5)]


def test_three_lines_draw_a_picture_and_clay_alone_stays_light() -> None:
    program = """
import sys
import persona.clay
assert "numba" not in sys.modules and "torch" not in sys.modules
from numpy.random import default_rng
from persona.clay import world
assert world.render(world.random_scene(default_rng(0))).image.size == (128, 128)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_scene_is_the_same_bytes(seed: int) -> None:
    one = world.random_scene(default_rng(seed))
    again = world.from_dict(json.loads(json.dumps(world.to_dict(one))))
    assert again == one == world.random_scene(default_rng(seed))
    first, second = world.render(one), world.render(again)
    assert first.pixels.tobytes() == second.pixels.tobytes()
    assert all((a == b).all() for a, b in zip(first.masks, second.masks, strict=True))


def test_subjects_are_endless_and_distinct() -> None:
    rng = default_rng(0)
    assert len({world.random_subject(rng, "cat") for _ in range(200)}) == 200
    pictures = [pixels(scene(subject("cat", seed))) for seed in range(8)]
    assert min(np.abs(a - b).mean() for a, b in combinations(pictures, 2)) > 1


# Every word has a look


@pytest.mark.parametrize("noun", world.CLASSES)
def test_every_class_is_seen_from_every_side(noun: str) -> None:
    drawn = [world.render(scene(subject(noun), view=view)) for view in world.VIEWS]
    for one in drawn:
        assert 0.06 < one.masks[0].mean() < 0.75
    assert min(np.abs(a.pixels.astype(float) - b.pixels).mean() for a, b in combinations(drawn, 2)) > 1.5


def test_every_context_looks_different() -> None:
    drawn = [pixels(scene(context=context)) for context in world.CONTEXTS]
    assert min(np.abs(a - b).mean() for a, b in combinations(drawn, 2)) > 5


def test_every_style_looks_different() -> None:
    drawn = [pixels(scene(style=style)) for style in world.STYLES]
    assert min(np.abs(a - b).mean() for a, b in combinations(drawn, 2)) > 4


LATENT_CELL = 64  # pixels: the least that clay's latents can carry


@pytest.mark.parametrize("noun", world.LIVE)
@pytest.mark.parametrize("accessory", world.ACCESSORIES)
def test_every_accessory_shows_on_every_animal(accessory: str, noun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "SIDE", drawing.SIDE // 2)  # one sample a pixel instead of four is enough to count
    for seed in range(8):
        shown = scene(subject(noun, seed), context="water", view="three-quarter", accessory=accessory)
        _, owner, _, _, _ = shot(shown)
        assert (owner == drawing._WORN).sum() >= LATENT_CELL, seed


@given(st.floats(1e-9, 1e-4) | st.floats(-1e-4, -1e-9))
def test_a_limb_may_be_next_to_nothing(length: float) -> None:
    """The brim of a hat is, on a head of just the wrong size, and not a number made the whole picture black."""
    body = Body()
    body.limb(ROOT, "main", (0, 0, 0.03), (0, 0, 0.03 + length), 0.2, 0.2)
    assert np.isfinite(body.parts[0].frame.rotation).all()


def test_accessories_look_different() -> None:
    drawn = [pixels(scene(view="three-quarter", accessory=accessory)) for accessory in world.ACCESSORIES]
    assert min(np.abs(a - b).mean() for a, b in combinations(drawn, 2)) > 0.5


@pytest.mark.parametrize("noun", world.LIVE)
def test_every_pose_looks_different(noun: str) -> None:
    drawn = [pixels(scene(subject(noun), pose=pose)) for pose in world.POSES]
    assert min(np.abs(a - b).mean() for a, b in combinations(drawn, 2)) > 1


@pytest.mark.parametrize("noun", ["dog", "car"])
def test_every_property_shows(noun: str) -> None:
    drawn = [pixels(scene(subject(noun), property=kind)) for kind in (None, *world.PROPERTIES)]
    assert min(np.abs(a - b).mean() for a, b in combinations(drawn, 2)) > 0.4


@pytest.mark.parametrize("pattern", [name for name in world.PATTERNS if name != "plain"])
def test_every_pattern_shows(pattern: str) -> None:
    colours = ((0.95, 0.95, 0.95), (0.05, 0.05, 0.05), MAGENTA)
    plain = subject(colours=colours, pattern="plain")
    assert apart(scene(plain), scene(replace(plain, pattern=pattern))) > 1


def test_a_cross_is_between_its_classes() -> None:
    dog = subject("dog")
    both = replace(dog, cross="elephant")
    for name, value in both.proportions().items():
        ends = sorted([dog.proportions()[name], replace(dog, class_noun="elephant").proportions()[name]])
        assert ends[0] - 1e-9 <= value <= ends[1] + 1e-9
    assert apart(scene(dog), scene(both)) > 1


# The truth


@pytest.mark.parametrize("view", world.VIEWS)
def test_masks_are_where_the_subject_is(view: str) -> None:
    who = subject("pig", colours=(MAGENTA,) * 3, pattern="plain")
    drawn = world.render(scene(who, view=view))
    red, green, blue = drawn.pixels.astype(float).transpose(2, 0, 1)
    seen = (red > green + 35) & (blue > green + 35)
    assert (seen & drawn.masks[0]).sum() / (seen | drawn.masks[0]).sum() > 0.85


@pytest.mark.parametrize("seed", range(8))
def test_boxes_are_tight(seed: int) -> None:
    drawn = world.render(world.random_scene(default_rng(seed), view="side"))
    for mask, box in zip(drawn.masks, drawn.boxes, strict=True):
        assert box is not None
        left, top, right, bottom = (round(128 * end) for end in box)
        inside = np.zeros_like(mask)
        inside[top:bottom, left:right] = True
        assert not (mask & ~inside).any()
        assert all(edge.any() for edge in (mask[top], mask[bottom - 1], mask[:, left], mask[:, right - 1]))


@pytest.mark.parametrize("seed", range(len(world.CONTEXTS)))
def test_silhouettes_are_the_masks_of_the_picture(seed: int) -> None:
    context = list(world.CONTEXTS)[seed]
    kind = "transparent" if seed % 3 == 0 and context != "water" else None  # there they differ, at the water line
    people = tuple(subject(noun, seed) for noun in ("duck", "car")[: 1 + seed % 2])
    one = world.random_scene(default_rng(seed), people, context=context, property=kind)
    for seen, mask in zip(world.silhouettes(one)[0], world.render(one).masks, strict=True):
        assert np.array_equal(seen, mask)


def test_clothes_are_seen_apart_from_who_wears_them() -> None:
    bare = scene()
    dressed = replace(bare, entities=(replace(bare.entities[0], accessory="wizard outfit"),))
    (own,), worn = world.silhouettes(dressed)
    assert not world.silhouettes(bare)[1].any()
    assert worn.mean() > 0.05
    assert (worn & own).sum() < 0.05 * worn.sum()  # pixels of the seams, halved between them


def test_nothing_that_shows_has_no_box() -> None:
    empty = drawing.Render(scene(), np.zeros((128, 128, 3), np.uint8), (np.zeros((128, 128), bool),))
    assert empty.boxes == (None,)


@pytest.mark.parametrize(("relation", "sign"), [("to the left of", -1), ("to the right of", 1), ("next to", 0)])
def test_two_subjects_stand_as_they_are_said_to(relation: str, sign: int) -> None:
    pair = (Entity(subject("dog")), Entity(subject("car", 1)))
    first, second = world.render(Scene(pair, "snow", "side", relation=relation, seed=3)).masks
    assert not (first & second).any()
    middles = [np.flatnonzero(mask.any(0)).mean() for mask in (first, second)]
    assert sign == 0 or np.sign(middles[0] - middles[1]) == sign


@pytest.mark.parametrize("view", ["side", "three-quarter"])
def test_what_faces_left_is_known(view: str) -> None:
    """A rabbit's ears, the highest of it, are above where its head is."""
    facing = set()
    for seed in range(12):
        one = Scene((Entity(subject("rabbit")),), "white rug", view, seed=seed)
        ((mask,), _) = world.silhouettes(one)
        rows, columns = np.nonzero(mask)
        left = columns[rows < np.quantile(rows, 0.1)].mean() < columns.mean()
        assert world.faces_left(one) == left
        facing.add(left)
    assert facing == {True, False}


@pytest.mark.parametrize("noun", ["dog", "car", "elephant", "sneaker"])
@pytest.mark.parametrize("relation", ["next to", "to the right of"])
def test_two_subjects_side_by_side_keep_clear_of_each_other(
    noun: str, relation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extents: list[Any] = []
    put = drawing._put

    def noted(*given: Any) -> Any:
        extents.append(put(*given))
        return extents[-1]

    monkeypatch.setattr(drawing, "_put", noted)
    pair = (Entity(subject(noun)), Entity(subject(noun, 1), accessory="red hat" if noun in world.LIVE else None))
    drawing._built(Scene(pair, "snow", "side", relation=relation, seed=3))
    (_, end), (start, _) = sorted(extents, key=lambda one: float(one[0][0]))
    assert end[0] <= start[0] + 1e-9


def test_the_one_in_front_is_lower_in_the_picture() -> None:
    pair = (Entity(subject("dog")), Entity(subject("cat", 1)))
    first, second = world.render(Scene(pair, "snow", "side", relation="in front of", seed=3)).masks
    assert np.flatnonzero(first.any(1)).max() > np.flatnonzero(second.any(1)).max()


def shot(shown: Scene) -> tuple[Any, Any, Any, drawing._Standing, drawing._Camera]:
    """Return colours, owners and depths of the samples of a scene of one entity, the entity and the camera."""
    rng = default_rng(0)
    place, stage = world.CONTEXTS[shown.context](rng), drawing._Stage()
    standing = drawing._stand(shown.entities[0], shown, 0.0, rng)
    camera = drawing._camera(shown, *drawing._put(stage, shown.entities[0], 1, standing), rng)
    return *drawing._cast(stage, place, camera, rng), standing, camera


def surface(who: Subject, view: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the points (N, 3) of a subject that a view shows, in its own frame, and which of them are dark."""
    colours, owner, depth, standing, camera = shot(scene(who, view=view))
    v, u = np.nonzero(owner == 1)
    across, up = (u + 0.5) / len(owner) - 0.5, 0.5 - (v + 0.5) / len(owner)
    rays = camera.forward * drawing._FOCAL + across[:, None] * camera.right + up[:, None] * camera.up
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    points = camera.eye + depth[v, u][:, None] * rays
    return (points - standing.where.centre) @ standing.where.rotation, colours[v, u].mean(1) < 0.25


def agreement(one: Subject, other: Subject, views: tuple[str, str]) -> float:
    """Return how often two subjects have the same tone where two views see the same point of a surface."""
    (points, dark), (others, others_dark) = surface(one, views[0]), surface(other, views[1])
    cells = {tuple(cell): tone for cell, tone in zip((others * 50).astype(int), others_dark, strict=True)}
    same = [
        cells[cell] == tone
        for cell, tone in zip(map(tuple, (points * 50).astype(int)), dark, strict=True)
        if cell in cells
    ]
    assert len(same) > 300
    return float(np.mean(same))


@pytest.mark.parametrize("pattern", ["spotted", "striped", "patched", "two-tone"])
@pytest.mark.parametrize("views", [("side", "three-quarter"), ("three-quarter", "front"), ("side", "top")])
def test_a_pattern_stays_where_it_is_from_every_side(pattern: str, views: tuple[str, str]) -> None:
    white, black = (0.97, 0.97, 0.97), (0.02, 0.02, 0.02)
    who = subject("bear", colours=(white, black, white), pattern=pattern, pattern_scale=0.8)
    same = agreement(who, who, views)
    assert same > 0.93
    if pattern in ("spotted", "patched"):
        assert agreement(who, replace(who, pattern_seed=who.pattern_seed + 77), views) < same - 0.1


# What is kept from training


def test_every_other_training_scene_is_plain() -> None:
    for number in range(1, 200, 2):
        (entity,) = training_scene(0, number).entities
        assert (entity.pose, entity.accessory, entity.property) == ("standing", None, None)
    others = [entity for number in range(0, 200, 2) for entity in training_scene(0, number).entities]
    assert any(one.accessory for one in others)
    assert any(one.pose != "standing" for one in others)


def test_held_out_compositions_never_come_up_in_training() -> None:
    assert not any(world.held_out(training_scene(0, number)) for number in range(400))
    assert not any(world.held_out(one) for number in range(40) for one in training_set(0, number))


def test_a_cross_is_held_out_with_either_class() -> None:
    for context in world.CONTEXTS:
        alone = [world.held_out(Scene((Entity(subject(noun)),), context)) for noun in ("dog", "cat")]
        crossed = [subject("dog", cross="cat"), subject("cat", cross="dog")]
        assert [world.held_out(Scene((Entity(who),), context)) for who in crossed] == [any(alone)] * 2


def test_one_composition_in_ten_is_held_out() -> None:
    kept = [
        world.held_out(Scene((Entity(subject(noun)),), context, style=style))
        for noun in world.CLASSES
        for context in world.CONTEXTS
        for style in world.STYLES
    ]
    assert 0.08 < np.mean(kept) < 0.12


def test_what_is_fixed_stays_fixed() -> None:
    rng = default_rng(0)
    who = subject("rabbit")
    for _ in range(20):
        one = world.random_scene(
            rng, (who,), context="beach", style="mosaic", accessory=None, property="wet", pose="sleeping"
        )
        assert one.entities == (Entity(who, "sleeping", None, "wet"),)
        assert (one.context, one.style) == ("beach", "mosaic")


def test_things_neither_pose_nor_dress() -> None:
    rng = default_rng(0)
    for _ in range(20):
        (entity,) = world.random_scene(rng, (subject("teapot"),), pose="running", accessory="red hat").entities
        assert (entity.pose, entity.accessory) == ("standing", None)


def test_without_a_folder_for_it_machine_code_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(*, cache: bool = False, **_: bool) -> Callable[[Callable[[int], int]], Callable[[int], int]]:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: lambda number: -function(number)

    monkeypatch.setattr(compiled, "njit", njit)
    assert compiled.compiled(abs)(3) == -3
