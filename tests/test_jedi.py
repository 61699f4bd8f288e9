"""JeDi on tiny U-Nets: what must hold whatever it learns, and that it learns."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bases import SHAPE, noise, predict
from diffusers.models.attention_processor import Attention
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from persona import families
from persona.errors import BadBase, BadOption
from persona.families import Conditioning, Family
from persona.methods.coupling import Coupling, Memory, masked
from persona.methods.guidance import guide
from persona.methods.jedi import STORE, JeDi, References, Sets


@torch.no_grad()
def learnt(base: Family, *, renoised: bool = False) -> JeDi:
    """Return a JeDi whose weights have moved somewhere."""
    jedi = JeDi(base, renoised=renoised)
    for number, parameter in enumerate((*jedi.difference.parameters.values(), jedi.channels.weight)):
        parameter.copy_(0.2 * noise(*parameter.shape, seed=number))
    return jedi


def known(pictures: int, seed: int = 5) -> References:
    return References(noise(pictures, *SHAPE, seed=seed), [f"a photo of a {n}" for n in range(pictures)])


@torch.no_grad()
def remember(jedi: JeDi, references: References) -> Memory:
    rows = len(references.latents)
    conditioning = jedi.base.conditioning(references.prompts)
    return jedi._refer(references.latents, references.latents, torch.zeros(rows), conditioning, size=rows)


# What must hold


def test_before_it_has_learnt_it_is_the_base(base: Family) -> None:
    latents = noise(3, *SHAPE)
    before = predict(base, latents)
    jedi = JeDi(base)
    assert torch.equal(predict(base, latents), before)
    with jedi.channels.given(noise(3, SHAPE[0] + 1, *SHAPE[1:])):
        assert torch.equal(predict(base, latents), before)


def test_a_picture_alone_is_drawn_as_by_a_plain_network(base: Family) -> None:
    latents = noise(2, *SHAPE)
    jedi = learnt(base)
    with jedi.coupling.recalling({}, size=1):
        alone = predict(base, latents)
    jedi.coupling.remove()  # the same weights in a U-Net's own attention
    torch.testing.assert_close(alone, predict(base, latents), rtol=0, atol=1e-6)


def test_the_order_of_references_does_not_matter(base: Family) -> None:
    jedi, latents, order = learnt(base), noise(2, *SHAPE), [2, 0, 1]
    references = known(3)
    turned = References(references.latents[order], [references.prompts[one] for one in order])
    seen = []
    for shown in (references, turned):
        with jedi.coupling.recalling(remember(jedi, shown)):
            seen.append(predict(base, latents))
    torch.testing.assert_close(*seen, rtol=0, atol=1e-5)
    assert (seen[0] - predict(base, latents)).abs().max() > 1e-3, "references must be seen at all"


def test_masking_all_other_pictures_is_being_alone(base: Family) -> None:
    jedi, latents = learnt(base), noise(2, *SHAPE)
    memory = remember(jedi, known(3))
    with jedi.coupling.recalling(masked(memory, torch.zeros(3, 8, 8))):
        hidden = predict(base, latents)
    assert torch.equal(hidden, predict(base, latents))
    with jedi.coupling.recalling(masked(memory, torch.ones(3, 8, 8))):
        seen = predict(base, latents)
    with jedi.coupling.recalling(memory):
        assert torch.equal(seen, predict(base, latents))


def test_what_a_mask_hides_has_no_influence(one: Family) -> None:
    jedi = learnt(one)
    masks = torch.zeros(2, 8, 8)
    masks[1, :4] = 1
    kept = masked(remember(jedi, known(2)), masks)
    assert {len(key[0, 0]) for key, _ in kept.values()} == {2 * 4}  # of the level of 4 by 4 tokens


def test_blind_rows_see_no_references(base: Family) -> None:
    jedi, latents = learnt(base), noise(3, *SHAPE)
    memory = remember(jedi, known(2))
    with jedi.coupling.recalling(memory):
        seeing = predict(base, latents)
    with jedi.coupling.recalling(memory, blind=1):
        mixed = predict(base, latents)
    torch.testing.assert_close(mixed[:1], predict(base, latents)[:1], rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed[1:], seeing[1:], rtol=0, atol=1e-6)


def test_sets_in_a_batch_do_not_see_each_other(one: Family) -> None:
    jedi, latents = learnt(one), noise(4, *SHAPE)
    with jedi.coupling.recalling({}, size=2):
        before = predict(one, latents)
        changed = latents.clone()
        changed[3] = noise(*SHAPE, seed=9)
        after = predict(one, changed)
    torch.testing.assert_close(after[:2], before[:2], rtol=0, atol=1e-6)
    assert (after[2] - before[2]).abs().max() > 1e-3, "the other of its set"


def test_removed_the_base_is_what_it_was(base: Family) -> None:
    latents, names = noise(2, *SHAPE), dict(base.denoiser.named_parameters()).keys()
    before = predict(base, latents)
    learnt(base).remove()
    assert torch.equal(predict(base, latents), before)
    assert dict(base.denoiser.named_parameters()).keys() == names


def test_coupled_attention_is_attention_over_all_tokens() -> None:
    torch.manual_seed(0)
    block = nn.ModuleDict({"attn1": Attention(16, heads=2, dim_head=8)})
    layer = nn.ModuleDict({"block": block})
    states = noise(6, 5, 16)
    plain = torch.cat([block["attn1"](one.reshape(1, 15, 16)).view(3, 5, 16) for one in torch.split(states, 3)])
    coupling = Coupling(layer)
    with coupling.recalling({}, size=3):
        torch.testing.assert_close(block["attn1"](states), plain)
    # A picture among references is one of a set in which only it is asked for.
    with coupling.keeping(2) as memory:
        block["attn1"](torch.cat([states[:2], states[3:5]]))
    with coupling.recalling(memory):
        seen = block["attn1"](states[[2, 5]])
    torch.testing.assert_close(seen, plain[[2, 5]])


# Guidance

NUMBERS = st.floats(-5, 5, width=32)


@given(NUMBERS, NUMBERS, NUMBERS, st.floats(0, 10), st.booleans())
def test_without_image_guidance_it_is_classifier_free_guidance(
    a: float, b: float, c: float, text: float, balanced: bool
) -> None:
    nothing, shown, asked = (torch.full((1, 1, 1, 1), value) for value in (a, b, c))
    led = guide(shown, shown, asked, image=1, text=text, balanced=False)
    torch.testing.assert_close(led, shown + text * (asked - shown))
    led = guide(nothing, shown, asked, image=0, text=0, balanced=False)
    torch.testing.assert_close(led, nothing, atol=1e-5, rtol=0)
    led = guide(nothing, shown, asked, image=1, text=1, balanced=balanced)
    longest = min(abs(asked - shown), abs(shown - nothing)) if balanced else abs(asked - shown)
    torch.testing.assert_close(led, shown + (asked - shown).sign() * longest)


def test_balanced_differences_are_equally_long() -> None:
    nothing, shown, asked = noise(2, *SHAPE), noise(2, *SHAPE, seed=1), 9 * noise(2, *SHAPE, seed=2)
    apart = [
        guide(nothing, shown, asked, image=image, text=text, balanced=True) - shown for image, text in ((2, 0), (1, 1))
    ]
    lengths = [difference.flatten(1).norm(dim=1) for difference in apart]
    torch.testing.assert_close(*lengths)
    torch.testing.assert_close(lengths[0], (shown - nothing).flatten(1).norm(dim=1))  # the shorter one is kept


# Learning


def sets(known: int, *, together: bool = False, pictures: int = 3, rows: int = 2) -> Sets:
    return Sets(
        latents=noise(rows, pictures, *SHAPE, seed=1),
        noise=noise(rows, pictures, *SHAPE, seed=2),
        times=torch.arange(100, 100 + rows * pictures).view(rows, pictures),
        prompts=["a dog", "a red cat", "the beach"] * rows if pictures == 3 else ["a dog"] * rows * pictures,
        known=known,
        together=together,
    )


def test_alone_the_loss_is_that_of_the_base(base: Family) -> None:
    given = sets(0)
    rows = [part.flatten(0, 1) for part in (given.latents, given.noise, given.times)]
    noisy, target = base.noise.corrupt(*rows)
    said = base.predict(noisy, rows[2], base.conditioning(given.prompts))
    expected = (said - target).square().flatten(1).mean(1).view(2, 3)
    torch.testing.assert_close(JeDi(base).loss(given), expected)


def test_no_prompt_is_learnt_as_what_guidance_leads_away_from(base: Family) -> None:
    jedi = learnt(base)
    told = jedi._told(["a dog", ""])
    wanted = base.conditioning(["a dog"])
    for key, value in told.items():
        torch.testing.assert_close(value[:1], wanted[key])
        torch.testing.assert_close(value[1:], base.unwanted("", wanted)[key])


@pytest.mark.parametrize("renoised", [False, True])
def test_the_loss_is_of_the_missing_pictures(one: Family, renoised: bool) -> None:
    jedi, given = learnt(one, renoised=renoised), sets(2)
    loss = jedi.loss(given)
    assert loss.shape == (2, 1)
    references = References(given.latents[1, :2], given.prompts[3:5])
    x, eps, times = (part[1, 2:] for part in (given.latents, given.noise, given.times))
    noisy, target = one.noise.corrupt(x, eps, times)
    conditioning = one.conditioning(references.prompts)
    memory = jedi._refer(references.latents, given.noise[1, :2], given.times[1, :2], conditioning, size=2)
    with jedi.coupling.recalling(memory):
        said = one.predict(noisy, times, one.conditioning(given.prompts[5:]))
    torch.testing.assert_close(loss[1], (said - target).square().mean()[None])


def test_places_count_as_they_are_said_to(one: Family) -> None:
    jedi, given = learnt(one), sets(2)
    left, right = torch.zeros(2, 2, 3, *SHAPE[1:])
    left[..., :2], right[..., 2:] = 1, 1
    parts = [jedi.loss(replace(given, emphasis=part)) for part in (left, right, 2 * left)]
    torch.testing.assert_close(parts[0] + parts[1], jedi.loss(given))
    torch.testing.assert_close(parts[2], 2 * parts[0])


def test_everything_that_may_learn_gets_a_gradient(base: Family) -> None:
    jedi = learnt(base)
    jedi.loss(sets(2)).sum().backward()  # type: ignore[no-untyped-call]
    learning = [p for module in jedi.modules.values() for p in module.parameters() if p.requires_grad]
    assert len(learning) == len(jedi.difference.parameters) + 1
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in learning)


def test_a_subject_is_found_in_its_references(one: Family) -> None:
    """The missing picture is the reference in disguise: only who looks at it can predict it."""
    torch.manual_seed(0)
    jedi = JeDi(one, ("attn1", "attn2", "ff"))
    learning = [p for module in jedi.modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=1e-2)

    def loss(step: int, known: int) -> Tensor:
        whole = noise(4, 1, SHAPE[0], 1, 1, seed=step).expand(4, 2, *SHAPE).clone()
        times = torch.full((4, 2), 900)
        return jedi.loss(Sets(whole, noise(4, 2, *SHAPE, seed=step + 10**6), times, ["a dog"] * 8, known, False))

    for step in range(90):
        optimizer.zero_grad()
        loss(step, 1).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        seen = torch.stack([loss(step, 1).mean() for step in range(1000, 1008)]).mean()
        unseen = torch.stack([loss(step, 0).mean() for step in range(1000, 1008)]).mean()
    assert seen < 0.93 * unseen


# Drawing


def drawn(jedi: JeDi, seeds: list[int], **how: object) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    pictures = jedi.draw(["a dog"] * len(seeds), seeds, size=(32, 32), **how)  # type: ignore[arg-type]
    return np.stack([np.asarray(picture, np.int64) for picture in pictures])


def test_without_references_an_untrained_one_draws_as_the_base(base: Family) -> None:
    before = [np.asarray(one, np.int64) for one in base.draw(["a dog"] * 2, [0, 1], size=(32, 32))]
    assert np.abs(drawn(JeDi(base), [0, 1]) - before).max() <= 1


@pytest.mark.parametrize("renoised", [False, True])
def test_a_picture_depends_on_its_own_seed_alone(one: Family, renoised: bool) -> None:
    jedi, references = learnt(one, renoised=renoised), known(2)
    both = drawn(jedi, [3, 4], references=references)
    alone = drawn(jedi, [4], references=references)
    assert np.abs(both[1:] - alone).max() <= 1
    assert np.abs(both[:1] - alone).max() > 1
    assert np.abs(alone - drawn(jedi, [4], references=known(2, seed=6))).max() > 1


@pytest.mark.parametrize("number", [1, 8])
def test_any_number_of_references_will_do(base: Family, number: int) -> None:
    assert drawn(learnt(base), [0], references=known(number), image_guidance=3.0, balanced=True).shape == (1, 32, 32, 3)


def test_balance_is_no_reason_to_forget_the_prompt(one: Family) -> None:
    jedi = learnt(one)
    assert np.array_equal(drawn(jedi, [0], balanced=True), drawn(jedi, [0]))
    how = {"references": known(2), "image_guidance": 1.0, "balanced": True}
    strong, weak = (drawn(jedi, [0], guidance=guidance, **how) for guidance in (9.0, 0.0))
    assert np.abs(strong - weak).max() > 1


def test_pictures_drawn_together_see_each_other(one: Family) -> None:
    jedi = learnt(one)
    together, others = drawn(jedi, [1, 2], together=True), drawn(jedi, [1, 5], together=True)
    assert np.abs(together[0] - others[0]).max() > 1
    assert np.abs(together[0] - drawn(jedi, [1])[0]).max() > 1


def test_negative_prompts_and_strengths_count(one: Family) -> None:
    jedi, references = learnt(one), known(2)
    plain = drawn(jedi, [0], references=references)
    for how in ({"negative": "red"}, {"guidance": 1.0}, {"image_guidance": 1.0}, {"balanced": True}):
        assert np.abs(plain - drawn(jedi, [0], references=references, **how)).max() > 1, how
    less, least = (drawn(jedi, [0], references=references, guidance=guidance) for guidance in (0.5, 1.0))
    assert np.array_equal(less, least), "as the base itself draws"


def test_the_prompt_is_followed_more_from_where_guidance_starts(
    base_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The references are from the first step on."""
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    jedi, how = learnt(base), {"references": known(2), "steps": 4}
    monkeypatch.setattr(base, "recipe", replace(base.recipe, guidance_start=1.0))
    never = drawn(jedi, [0], guidance=9.0, **how)
    monkeypatch.setattr(base, "recipe", replace(base.recipe, guidance_start=0.5))
    late = drawn(jedi, [0], guidance=9.0, **how)
    monkeypatch.setattr(base, "recipe", replace(base.recipe, guidance_start=0.0))
    assert np.array_equal(never, drawn(jedi, [0], guidance=1.0, **how))
    assert min(np.abs(late - other).max() for other in (never, drawn(jedi, [0], guidance=9.0, **how))) > 1


@pytest.mark.parametrize("strength", [1.0, 2.0])
@torch.no_grad()
def test_guidance_leads_to_the_references_and_from_there_to_the_prompt(base: Family, strength: float) -> None:
    jedi, references, latents, times = learnt(base), known(2), noise(2, *SHAPE), torch.tensor([500, 500])
    wanted = base.conditioning(["a dog", "a red cat"])
    unwanted = base.unwanted("red", wanted)

    def said(memory: Memory, told: Conditioning) -> Tensor:
        with jedi.coupling.recalling(memory):
            return base.predict(latents, times, told)

    memory = remember(jedi, references)
    nothing, shown, asked = said({}, unwanted), said(memory, unwanted), said(memory, wanted)
    expected = nothing + strength * (shown - nothing) + 4 * (asked - shown)
    lead = {"image": strength, "balanced": False}
    led = jedi._guided([unwanted, wanted], references, lead, together=False)(latents, times, 4.0)
    torch.testing.assert_close(led, expected, rtol=1e-4, atol=1e-4)


# Weights


@pytest.fixture
def saved(one: Family, tmp_path: Path) -> Path:
    jedi = learnt(one, renoised=True)
    (tmp_path / STORE.file).write_bytes(jedi.save())
    jedi.remove()
    return tmp_path


def test_weights_come_back(one: Family, saved: Path) -> None:
    latents = noise(2, *SHAPE)
    jedi = learnt(one)
    with jedi.coupling.recalling(remember(jedi, known(2))):
        before = predict(one, latents)
    jedi.remove()
    again = JeDi.load(one, saved)
    assert again.renoised
    again.renoised = False
    with again.coupling.recalling(remember(again, known(2))):
        torch.testing.assert_close(predict(one, latents), before, rtol=0, atol=5e-3)  # they are kept in float16


def test_a_base_without_weights_says_how_to_get_some(one: Family) -> None:
    with pytest.raises(BadBase, match=r"has no JeDi weights.*persona pretrain jedi --base") as error:
        JeDi.load(one)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spoil", ["cut", "text", "another base", "fewer"])
def test_weights_that_do_not_fit_are_refused(
    one: Family, saved: Path, spoil: str, base_folder: Callable[[str], Path]
) -> None:
    path, base = saved / STORE.file, one
    before = predict(base, noise(1, *SHAPE))
    match spoil:
        case "cut":
            path.write_bytes(path.read_bytes()[:-10])
        case "text":
            path.write_text("weights")
        case "another base":
            base = families.load(str(base_folder("sd-eps")), device="cpu")
        case "fewer":
            jedi = JeDi(one, ("attn1.to_q",))
            jedi.targets = ("attn1",)
            path.write_bytes(jedi.save())
            jedi.remove()
    with pytest.raises(BadBase) as error:
        JeDi.load(base, saved)
    assert "\n" not in str(error.value)
    assert torch.equal(predict(one, noise(1, *SHAPE)), before)


def test_modules_that_are_not_there_are_an_error(one: Family) -> None:
    for targets in (("nowhere",), ("attn1", "nowhere")):
        with pytest.raises(BadOption, match="no module named nowhere"):
            JeDi(one, targets)
