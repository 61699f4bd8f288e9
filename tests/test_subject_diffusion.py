"""Subject-Diffusion on tiny U-Nets: what must hold whatever it learns, and that it learns."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import SHAPE, noise, predict
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_encoder import Eye
from torch import Tensor, nn

from persona import encoder, families
from persona.errors import BadBase
from persona.families import Conditioning, Family
from persona.methods.attention_control import _middle, control
from persona.methods.casting import Cast, Portrait, cast, inside
from persona.methods.fusion import words_of
from persona.methods.gated import Gate, Told, fourier
from persona.methods.guidance import IMAGE_GUIDANCE, IMAGE_GUIDANCE_OF_TWO, heard
from persona.methods.subject_diffusion import Scenes, SubjectDiffusion, _strengths
from persona.methods.telling import STORE

LEFT, RIGHT = (0.0, 0.2, 0.5, 1.0), (0.5, 0.2, 1.0, 1.0)


@pytest.fixture(autouse=True)
def eye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "load", lambda *_: Eye())


@torch.no_grad()
def learnt(base: Family) -> SubjectDiffusion:
    """Return one whose weights have moved somewhere, and whose gates are open."""
    method = SubjectDiffusion(base)
    for number, (_, parameter) in enumerate(sorted(method.parameters.items())):
        parameter.add_(0.2 * noise(*parameter.shape, seed=number))
    return method


def portrait(colour: str, box: Any = LEFT) -> Portrait:
    return Portrait(Eye().encode([Image.new("RGB", (8, 8), colour)])[0], box)


TWO = {"V": portrait("red"), "W": portrait("lime", RIGHT)}
BOTH = "a [V] dog on the [W] cat"


def drawn(method: SubjectDiffusion, *prompts: str, seed: int = 0, **how: Any) -> Any:
    how = {"portraits": TWO, "steps": 3, "size": (32, 32), **how}
    pictures = method.draw(prompts, [seed] * len(prompts), **how)
    return np.stack([np.asarray(picture, np.int64) for picture in pictures])


def scenes(**changed: Any) -> Scenes:
    prompts = ["a [V] dog on the [W] cat", "a [V] dog in the snow"]
    given = Scenes(
        latents=noise(2, *SHAPE, seed=1),
        noise=noise(2, *SHAPE, seed=2),
        times=torch.tensor([100, 700]),
        prompts=prompts,
        nouns=[["dog", "cat"], ["dog"]],
        cast=cast(prompts, TWO),
        masks=inside(torch.tensor([[LEFT, RIGHT]] * 2), (8, 8)),
        placed=torch.tensor([True, True]),
    )  # fmt: skip
    return replace(given, **changed)


# What must hold


def test_before_it_has_learnt_it_is_the_base(base: Family) -> None:
    latents = noise(2, *SHAPE)
    before = predict(base, latents)
    method = SubjectDiffusion(base)
    assert torch.equal(predict(base, latents), before)
    with torch.no_grad(), method.told(cast([BOTH] * 2, TWO), torch.tensor([True, True]), SHAPE[1:]):
        assert torch.equal(predict(base, latents), before)
    with torch.no_grad(), method.maps.keeping() as maps:
        torch.testing.assert_close(predict(base, latents), before, rtol=0, atol=1e-5)
    assert maps


def test_what_it_has_learnt_can_be_put_aside_and_taken_off(base: Family) -> None:
    latents, names = noise(2, *SHAPE), dict(base.denoiser.named_parameters()).keys()
    before, told = predict(base, latents), base.conditioning(["a dog"])
    method = learnt(base)
    assert not torch.equal(predict(base, latents), before)
    with method.plainly():
        assert torch.equal(predict(base, latents), before)
    method.remove()
    assert torch.equal(predict(base, latents), before)
    for key, value in base.conditioning(["a dog"]).items():
        assert torch.equal(value, told[key])
    assert dict(base.denoiser.named_parameters()).keys() == names


def test_two_subjects_may_be_swapped_with_their_boxes(base: Family) -> None:
    method = learnt(base)
    swapped = {"V": TWO["W"], "W": TWO["V"]}
    assert np.array_equal(drawn(method, BOTH), drawn(method, "a [W] dog on the [V] cat", portraits=swapped))
    assert np.abs(drawn(method, BOTH) - drawn(method, BOTH, portraits=swapped)).max() > 1, "who is who matters"
    latents, who = noise(1, *SHAPE), cast([BOTH], TWO)
    turned = replace(who, features=who.features.flip(1), boxes=who.boxes.flip(1))
    said = []
    for one in (who, turned):
        with torch.no_grad(), method.told(one, torch.tensor([True]), SHAPE[1:]):
            said.append(predict(base, latents))
    torch.testing.assert_close(*said, rtol=0, atol=1e-4)  # the slots themselves make no difference


@pytest.mark.parametrize("part", ["whole", "details", "box in the slots", "box in the channel", "empty slot"])
def test_each_part_is_seen(one: Family, part: str) -> None:
    method, latents = learnt(one), noise(1, *SHAPE)
    who, placed = cast(["a [V] dog"], TWO), torch.tensor([True])
    features = who.features.clone()
    with torch.no_grad():
        if part == "whole":
            features[:, :, 0, 1] += 1
            plain, other = (method.read(["a [V] dog"], replace(who, features=f)) for f in (who.features, features))
            seen = other["encoder_hidden_states"] - plain["encoder_hidden_states"]
            assert seen[:, :2].abs().max() == 0, "what comes before it cannot know"
            assert seen[:, 2].abs().max() > 1e-3
            return
        features[:, :, 1:] += 1
        changed, told = {
            "details": (replace(who, features=features), placed),
            "box in the slots": (replace(who, boxes=who.boxes * 0.5), torch.tensor([False])),
            "box in the channel": (who, torch.tensor([False])),
            "empty slot": (replace(who, present=torch.tensor([[False, False]])), torch.tensor([False])),
        }[part]
        before = torch.tensor([part in ("details", "box in the channel")])
        with method.told(who, before, SHAPE[1:]):
            said = predict(one, latents)
        with method.told(changed, told, SHAPE[1:]):
            assert (predict(one, latents) - said).abs().max() > 1e-3


@pytest.mark.parametrize(("present", "placed"), [(False, True), (True, False)])
@torch.no_grad()
def test_the_channel_shows_no_box_of_who_is_not_there_or_not_placed(one: Family, present: bool, placed: bool) -> None:
    method, latents = learnt(one), noise(1, *SHAPE)
    who = replace(cast(["a [V] dog"], TWO), present=torch.tensor([[present, False]]))
    said = []
    for shown in (1, 0):
        method.channels.weight.mul_(shown)
        with method.told(who, torch.tensor([placed]), SHAPE[1:]):
            said.append(predict(one, latents))
    assert torch.equal(*said)


def test_a_place_sees_the_subjects_in_whose_boxes_it_lies() -> None:
    gate, places = Gate(16, 4, 2, 8), noise(1, 32, 16)
    nn.init.eye_(gate.attn.to_out[0].weight)
    told = Told(noise(1, 6, 4, seed=1), inside(torch.tensor([[LEFT, RIGHT]]), (8, 16)))
    other = Told(torch.cat([told.tokens[:, :3] + 1, told.tokens[:, 3:]], dim=1), told.where)
    moved = (gate(places, told) - gate(places, other)).abs().amax(-1).view(4, 8)
    within = inside(torch.tensor([[LEFT]]), (8, 16))[0, 0].view(4, 2, 8, 2).amax((1, 3)).bool()
    assert moved[within].min() > 0
    assert moved[~within].max() == 0


def test_all_blocks_and_heads_of_a_level_keep_one_mask(base: Family) -> None:
    method, who, kept = learnt(base), cast([BOTH] * 2, TWO), dict[int, Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.isinf().any():
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    conditioning = base.conditioning([BOTH] * 2)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, method.told(who, torch.tensor([True, True]), SHAPE[1:]):
        base.predict(noise(2, *SHAPE), torch.tensor([500, 500]), conditioning)
    assert [tuple(mask.shape) for mask in kept.values()] == [(2, 1, 16, 16 + 8)]  # of the only level with attention


def test_a_gate_looks_as_attention_does() -> None:
    gate, places = Gate(16, 4, 2, 8), noise(1, 32, 16)
    nn.init.eye_(gate.attn.to_out[0].weight)
    told = Told(noise(1, 6, 4, seed=1), inside(torch.tensor([[LEFT, RIGHT]]), (8, 16)))
    both = gate.norm1(torch.cat([places, gate.linear(told.tokens)], dim=1))
    looked = gate.attn(both[:, :32], both, attention_mask=told.mask(32, torch.float32)[:, 0])
    torch.testing.assert_close(gate(places, told), places + looked)


def test_prompts_without_subjects_are_read_as_before(base: Family) -> None:
    wanted = base.conditioning(["a dog"])
    before = base.unwanted("red", wanted)
    method = learnt(base)
    for key, value in method.unwanted("red", wanted).items():
        assert torch.equal(value, before[key])


# Interpolation


def test_one_gives_way_to_the_other_from_step_to_step_and_from_frame_to_frame() -> None:
    for steps in (1, 2, 25):
        places = np.linspace(0, 1, 9)
        shares = np.array([[heard(place, number, steps) for number in range(steps)] for place in places])
        assert (shares[0] == 0).all()
        assert (shares[-1] == 1).all()
        assert (np.diff(shares, axis=0) >= 0).all()
        assert (np.diff(shares, axis=1) <= 0).all()
        assert (np.diff(shares.mean(1)) > 0).all(), "no frame is another's"


def between(method: SubjectDiffusion, ends: tuple[str, str], place: float) -> Any:
    picture = method.between(ends, 0, place, portraits=TWO, steps=3, size=(32, 32))
    return np.asarray(picture, np.int64)


def test_the_ends_are_the_customized_picture_and_the_bases(base: Family) -> None:
    prompt = "a dog in the snow"
    alone = np.asarray(base.draw([prompt], [0], steps=3, size=(32, 32))[0], np.int64)
    method = learnt(base)
    ends = "a [V] dog in the snow", prompt
    assert np.array_equal(between(method, ends, 0), drawn(method, ends[0])[0])
    assert np.array_equal(between(method, ends, 1), alone)
    assert np.abs(between(method, ends, 0) - alone).max() > 1
    assert np.abs(between(method, ends, 1e-6) - between(method, ends, 0)).max() <= 1, "it leads there"
    assert np.abs(between(method, ends, 1 - 1e-6) - alone).max() <= 1


def test_a_series_has_no_steps_of_its_own(one: Family) -> None:
    """Three steps of the sampler, but a frame wherever it is asked for."""
    method = learnt(one)
    frames = [between(method, ("a [V] dog", "a [W] cat"), place) for place in np.linspace(0, 1, 9)]
    moved = [np.abs(after - before).mean() for before, after in pairwise(frames)]
    assert min(moved) > 0
    assert np.array_equal(frames[0], drawn(method, "a [V] dog")[0])
    assert np.array_equal(frames[-1], drawn(method, "a [W] cat")[0])


# Drawing


def test_a_picture_depends_on_its_own_prompt_and_seed_alone(one: Family) -> None:
    method = learnt(one)
    both = drawn(method, "a [V] dog", BOTH)
    assert np.abs(both[:1] - drawn(method, "a [V] dog")).max() <= 1
    assert np.abs(both[1:] - drawn(method, BOTH)).max() <= 1
    assert np.abs(both[:1] - drawn(method, "a [V] dog", seed=1)).max() > 1


def test_strengths_and_negative_prompts_count(one: Family) -> None:
    method = learnt(one)
    plain = drawn(method, BOTH)
    for how in ({"negative": "red"}, {"guidance": 1.0}, {"image_guidance": 1.0}, {"image_guidance": 1.5}):
        assert np.abs(plain - drawn(method, BOTH, **how)).max() > 1, how
    assert np.array_equal(drawn(method, BOTH, guidance=0.5), drawn(method, BOTH, guidance=1.0)), "as the base draws"


@pytest.mark.parametrize("strength", [None, 1.0, 2.0])
@torch.no_grad()
def test_guidance_leads_to_the_references_and_from_there_to_the_prompt(base: Family, strength: float | None) -> None:
    method, prompts, latents, times = learnt(base), [BOTH, "a [V] dog"], noise(2, *SHAPE), torch.tensor([500, 500])
    known, seen = cast(prompts, TWO), torch.tensor([True, True])
    wanted = method.read(prompts, known)
    unwanted = method.unwanted("red", wanted)

    def said(who: Cast, placed: Tensor, told: Conditioning) -> Tensor:
        with method.told(who, placed, SHAPE[1:]):
            return base.predict(latents, times, told)

    nothing = said(replace(known, present=torch.zeros_like(known.present)), ~seen, unwanted)
    shown, asked = said(known, seen, unwanted), said(known, seen, wanted)
    image = _strengths(strength, known)
    expected = nothing + image * (shown - nothing) + 4 * (asked - shown)
    led = method._guided(prompts, TWO, strength, "red")(latents, times, 4.0)
    torch.testing.assert_close(led, expected, rtol=1e-4, atol=1e-4)


# Learning


def test_two_subjects_are_followed_more_than_one() -> None:
    known = cast([BOTH, "a [V] dog"], TWO)
    assert _strengths(None, known).tolist() == [[[[IMAGE_GUIDANCE_OF_TWO]]], [[[IMAGE_GUIDANCE]]]]
    assert _strengths(2.0, known).tolist() == [[[[2.0]]]] * 2


def test_the_loss_is_that_of_the_denoiser_and_its_attention(one: Family) -> None:
    method, given = learnt(one), scenes()
    with torch.no_grad():
        told = method.read(given.prompts, given.cast)
        noisy, target = one.noise.corrupt(given.latents, given.noise, given.times)
        with method.told(given.cast, given.placed, SHAPE[1:]), method.maps.keeping() as maps:
            said = one.predict(noisy, given.times, told)
        assert {seen.shape for seen in maps} == {(2, 8, 16, 16)}  # rows, heads, places of the coarser level, tokens
        attention = control(maps, method._words(given, 16), given.masks)
        expected = (said - target).square().flatten(1).mean(1) + 0.01 * attention
        torch.testing.assert_close(method.loss(given, 0.01), expected)


def test_everything_that_may_learn_gets_a_gradient(base: Family) -> None:
    method = learnt(base)
    method.loss(scenes(), 0.01).sum().backward()  # type: ignore[no-untyped-call]
    learning = {id(p) for module in method.modules.values() for p in module.parameters() if p.requires_grad}
    assert learning == {id(parameter) for parameter in method.parameters.values()}
    silent = [name for name, p in method.parameters.items() if p.grad is None or not p.grad.abs().max()]
    # Keys have no bias that counts; a second text encoder's last layer may not be read.
    assert not [name for name in silent if "k_proj.bias" not in name and "layers.1" not in name], silent


def test_dropped_text_has_no_attention_loss(one: Family) -> None:
    method = learnt(one)
    dropped = scenes(prompts=["", ""])
    words = method._words(dropped, 16)
    assert not words.any()
    maps = [noise(2, 4, 16, 16).softmax(-1).requires_grad_()]
    rates = control(maps, words, dropped.masks)
    rates.sum().backward()  # type: ignore[no-untyped-call]
    assert not rates.any()
    assert not maps[0].grad.any()  # type: ignore[union-attr]
    half = control(maps, method._words(scenes(prompts=["", "a [V] dog"]), 16), dropped.masks)
    assert half[0] == 0
    assert half[1] != 0


def test_a_dropped_text_is_read_by_the_bases_own_encoder(base: Family) -> None:
    given = scenes(prompts=["", ""])
    method = learnt(base)
    alone = method.loss(given, 0.01)
    for difference in method.writing.values():
        for parameter in difference.parameters.values():
            parameter.data.zero_()
    assert torch.equal(alone, method.loss(given, 0.01))


def test_the_empty_prompt_is_read_where_there_is_one(one: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    method, read = learnt(one), list[str]()
    unwanted = method.unwanted

    def listen(negative: str, wanted: Any) -> Any:
        read.append(negative)
        return unwanted(negative, wanted)

    monkeypatch.setattr(method, "unwanted", listen)
    method.loss(scenes(), 0.01)
    assert not read
    method.loss(scenes(prompts=["a [V] dog on the [W] cat", ""]), 0.01)
    assert read == [""]


def test_attention_is_led_to_where_the_subject_is() -> None:
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :, :2], masks[0, 1, :, 2:] = 1, 1
    words = torch.zeros(1, 2, 3)
    words[0, 0, 1], words[0, 1, 2] = 1, 1
    seen = torch.zeros(1, 1, 2, 2, 3)
    seen[..., 0, 1], seen[..., 1, 2] = 1, 1
    assert control([seen.flatten(2, 3)], words, masks).item() == -1
    assert control([seen.flip(3).flatten(2, 3)], words, masks).item() == 1
    words[0, 1] = 0  # one subject alone
    assert control([seen.flatten(2, 3)], words, masks).item() == -1
    everywhere = torch.ones_like(masks)
    assert control([seen.flatten(2, 3)], words, everywhere).isfinite().all()


def test_attention_is_led_on_all_levels_but_the_finest() -> None:
    u_net = UNet2DConditionModel(
        block_out_channels=(4, 4, 4),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=4,
        attention_head_dim=1,
        norm_num_groups=2,
    )
    led = set(_middle(u_net))
    levels = Counter(name.partition(".attentions")[0] for name, module in u_net.named_modules() if module in led)
    assert levels == {"down_blocks.1": 1, "down_blocks.2": 1, "mid_block": 1, "up_blocks.0": 2, "up_blocks.1": 2}


def test_the_words_for_a_subject_are_found(one: Family) -> None:
    read = one.tokenizers[0]
    words = words_of(
        read, ["a zwx dog on the sks cat", "the zwx red dog"], ["zwx", "sks"], [["dog", "cat"], ["dog"]], 16
    )
    assert words.nonzero().tolist() == [[0, 0, 2], [0, 0, 3], [0, 1, 6], [0, 1, 7], [1, 0, 2]]
    assert not words_of(read, ["a photo of a zwx dog"], ["zwx"], [["dog"]], 5).any()  # cut off


def test_boxes_have_codes_and_places() -> None:
    codes = fourier(torch.tensor([LEFT, RIGHT]))
    assert codes.shape == (2, 64)
    assert (codes[0] - codes[1]).abs().max() > 0.1
    boxes = torch.tensor([[LEFT, RIGHT]])
    assert inside(boxes, (10, 4))[0, 0].tolist() == [[0] * 4] * 2 + [[1, 1, 0, 0]] * 8
    half_a_cell_on = torch.tensor([[(0.125, 0.25, 0.625, 0.75)]])
    assert inside(half_a_cell_on, (4, 4))[0, 0].tolist() == [[0] * 4, [1, 1, 0, 0], [1, 1, 0, 0], [0] * 4]


SIDES = (
    st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)).map(sorted).filter(lambda ends: ends[0] < ends[1])
)


@given(SIDES, SIDES, st.integers(1, 128), st.integers(1, 128))
def test_a_box_has_its_centres_and_a_thin_one_the_cell_around_it(
    along: list[float], down: list[float], height: int, width: int
) -> None:
    shown = inside(torch.tensor([[(along[0], down[0], along[1], down[1])]]), (height, width))[0, 0]
    for (start, end), cells, found in ((down, height, shown.amax(1)), (along, width, shown.amax(0))):
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        held = (start <= centres) & (centres < end)
        if held.any():
            assert np.array_equal(found.numpy(), held)
        else:
            assert found.sum() == 1
            assert abs(centres[int(found.argmax())] - (start + end) / 2) <= 0.501 / cells


def test_a_subject_is_found_in_its_reference(one: Family) -> None:
    """The picture is as dark or bright as its reference is red or blue: only who looks at it can predict it."""
    torch.manual_seed(0)
    method = SubjectDiffusion(one)
    optimizer = torch.optim.Adam(method.parameters.values(), lr=3e-3)

    def loss(step: int, *, seen: bool) -> Tensor:
        bright = torch.rand(4, generator=torch.Generator().manual_seed(step)).round()
        features = torch.stack([bright, 0 * bright, 1 - bright], dim=-1)[:, None, None].expand(4, 2, 5, 3)
        who = replace(cast(["a [V] dog"] * 4, TWO), features=features)
        who = replace(who, present=who.present & seen)
        latents = (4 * bright - 2).view(4, 1, 1, 1).expand(4, *SHAPE)
        prompts, around = ["a [V] dog" if seen else ""] * 4, noise(4, *SHAPE, seed=step + 10**6)
        return method.loss(Scenes(
            latents, around, torch.full((4,), 900), prompts, [["dog"]] * 4, who, torch.ones(4, 2, 8, 8),
            torch.ones(4).bool(),
        ), 0.01)  # fmt: skip

    for step in range(60):
        optimizer.zero_grad()
        loss(step, seen=step % 4 > 0).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        rates = [
            torch.stack([loss(step, seen=seen).mean() for step in range(1000, 1008)]).mean() for seen in (True, False)
        ]
    assert rates[0] < 0.9 * rates[1]


# Weights


@pytest.fixture
def saved(one: Family, tmp_path: Path) -> Path:
    method = learnt(one)
    (tmp_path / STORE.file).write_bytes(method.save())
    method.remove()
    return tmp_path


def test_weights_come_back(one: Family, saved: Path) -> None:
    method = learnt(one)
    before = drawn(method, BOTH)
    method.remove()
    again = SubjectDiffusion.load(one, saved)
    assert np.abs(drawn(again, BOTH) - before).max() <= 4  # they are kept in float16


def test_a_base_without_weights_says_how_to_get_some(one: Family) -> None:
    with pytest.raises(
        BadBase, match=r"no Subject-Diffusion weights.*persona pretrain subject-diffusion --base"
    ) as error:
        SubjectDiffusion.load(one)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spoil", ["cut", "another base", "fewer"])
def test_weights_that_do_not_fit_are_refused(
    one: Family, saved: Path, spoil: str, base_folder: Callable[[str], Path]
) -> None:
    path, base = saved / STORE.file, one
    match spoil:
        case "cut":
            path.write_bytes(path.read_bytes()[:-10])
        case "another base":
            base = families.load(str(base_folder("sd-eps")), device="cpu")
        case "fewer":
            method = SubjectDiffusion(one, "eye", ("attn2.to_k",))
            method.targets = ("attn2.to_k", "attn2.to_v")
            path.write_bytes(method.save())
            method.remove()
    before = predict(base, noise(1, *SHAPE))
    with pytest.raises(BadBase) as error:
        SubjectDiffusion.load(base, saved)
    assert "\n" not in str(error.value)
    assert torch.equal(predict(base, noise(1, *SHAPE)), before)


def test_an_image_encoder_that_was_a_folder_is_looked_for_beside_the_weights(
    one: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, asked = SubjectDiffusion(one, "eye"), list[str]()
    (tmp_path / STORE.file).write_bytes(method.save())
    method.remove()

    def load(name: str, *_: Any) -> Eye:
        asked.append(name)
        return Eye()

    monkeypatch.setattr(encoder, "load", load)
    SubjectDiffusion.load(one, tmp_path).remove()
    (tmp_path / "eye").mkdir()
    SubjectDiffusion.load(one, tmp_path).remove()
    assert asked == ["eye", str(tmp_path / "eye")]
