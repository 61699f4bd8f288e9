"""The loss against a plain reading of the paper, one example at a time, with diffusers' own parts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bases
import matrix
import pytest
import reference
import torch
from PIL import Image
from torch import Tensor

from persona import adapter, families
from persona.families import Family
from persona.methods.dreambooth import Cut, Draw, DreamBooth, Example, Half, encode, without
from persona.photos import Photo

Folder = Callable[[str], Path]
WEIGHT = 0.7


def examples(base: Family, *, captions: bool, seed: int = 0, sides: Sequence[int] = (8, 8, 8)) -> list[Example]:
    random = torch.Generator().manual_seed(seed)
    channels = base.pipe.vae.config.latent_channels
    words = ("a sks dog", "a sks dog in the snow", "a red sks dog") if captions else ("a sks dog",) * 3
    return [
        Example(torch.randn(2, channels, 8, side, generator=random), prompt)
        for side, prompt in zip(sides, words, strict=True)
    ]


def trained(base: Family, *, text_encoder: bool) -> list[torch.nn.Parameter]:
    """Attach an adapter that has learnt something, so that the teacher and the adapted text encoder differ."""
    make = adapter.Make(
        rank=4, alpha=4.0, targets=base.recipe.targets, text_targets=base.text_targets if text_encoder else ()
    )
    parameters = [p for part in adapter.attach(base, make).values() for p in part]
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
    return parameters


def method(base: Family, prior: str, *, captions: bool = False, gamma: float = 0.0, **other: Any) -> DreamBooth:
    subject = examples(base, captions=captions, **other)
    halves = {
        "none": [],
        "generated": [
            Half([Example(e.latents, "a dog") for e in examples(base, captions=False, seed=1)], weight=WEIGHT)
        ],
        "self": [Half(without("sks", "dog", subject), weight=WEIGHT, taught=True)],
    }[prior]
    return DreamBooth(base, [Half(subject), *halves], gamma=gamma)


def paper(term: Draw, adapted: Any, untouched: Any, gamma: float) -> Tensor:
    """Return one term of the paper's sum, written with the parts of the pipelines."""
    x, eps, t = term.x[None], term.eps[None], term.time
    noisy, target = reference.corrupt(adapted, x, eps, t)
    if term.half.taught:
        with torch.no_grad():
            target = reference.predict(untouched, noisy, t, term.prompt)
    said = reference.predict(adapted, noisy, t, term.prompt)
    return (said - target).pow(2).mean() * reference.weight(adapted, t, gamma)


def wanted_loss(method: DreamBooth, slots: Sequence[int], untouched: Any) -> Tensor:
    """Mean over the subject's examples, plus the weighted mean over those that preserve its class."""
    terms = method.draws(slots)
    total = torch.zeros(())
    for half in method.halves:
        own = [paper(term, method.base.pipe, untouched, method.gamma) for term in terms if term.half is half]
        total = total + half.weight * torch.stack(own).mean()
    return total


@pytest.mark.parametrize(
    ("name", "prior", "text_encoder", "captions", "batch"),
    matrix.sparse(7, bases.BASES, ["generated", "self", "none"], [False, True], [False, True], [1, 2, 3]),
)
def test_loss_and_gradient_are_those_of_the_paper(
    base_folder: Folder, name: str, prior: str, text_encoder: bool, captions: bool, batch: int
) -> None:
    base = families.load(str(base_folder(name)), device="cpu")
    untouched = families.load(str(base_folder(name)), device="cpu").pipe
    dreambooth = method(base, prior, captions=captions, gamma=5.0 if captions else 0.0)
    if not text_encoder:
        base.remember(dreambooth.prompts)
    parameters = trained(base, text_encoder=text_encoder)
    slots = range(5, 5 + batch)
    loss, wanted = dreambooth.loss(slots, batch), wanted_loss(dreambooth, slots, untouched)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    # The last layer of some text encoders is not read.
    got, wished = (torch.autograd.grad(one, parameters, materialize_grads=True) for one in (loss, wanted))
    for mine, theirs in zip(got, wished, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("prior", ["generated", "self", "none"])
def test_batches_of_a_step_add_up_to_it(base_folder: Folder, prior: str) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    dreambooth = method(base, prior, captions=True)
    trained(base, text_encoder=False)
    with torch.no_grad():
        whole = dreambooth.loss(range(8, 12), 4)
        for parts in ((range(8, 10), range(10, 12)), [(slot,) for slot in range(8, 12)]):
            torch.testing.assert_close(torch.stack([dreambooth.loss(part, 4) for part in parts]).sum(), whole)


def test_pictures_of_different_shapes_share_a_step(base_folder: Folder) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    untouched = families.load(str(base_folder("sd-eps")), device="cpu").pipe
    for prior in ("generated", "self"):
        dreambooth = method(base, prior, sides=(8, 12, 8))
        loss = dreambooth.loss(range(3), 3)
        torch.testing.assert_close(loss, wanted_loss(dreambooth, range(3), untouched))


def test_each_example_and_each_half_has_its_own_time_and_noise(base_folder: Folder) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    for prior in ("generated", "self"):
        drawn = method(base, prior).draws(range(50))
        noises = {tuple(draw.eps.flatten()[:4].tolist()) for draw in drawn}
        assert len(noises) == len(drawn) == 100
        times = torch.cat([draw.time for draw in drawn]).float()
        assert torch.corrcoef(times.view(2, 50))[0, 1].abs() < 0.4


def test_every_photo_is_seen_in_every_round(base_folder: Folder) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    dreambooth = method(base, "none", captions=True)
    rounds = [[draw.prompt for draw in dreambooth.draws(range(3 * k, 3 * k + 3))] for k in range(8)]
    assert all(len(set(one)) == 3 for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_the_seed_decides_all_draws(base_folder: Folder) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    one, same, other = (
        DreamBooth(base, [Half(examples(base, captions=False))], seed=seed).draws(range(4)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a.eps, b.eps) and torch.equal(a.time, b.time) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a.eps, b.eps) for a, b in zip(one, other, strict=True))


def test_an_untrained_adapter_is_its_own_teacher(base_folder: Folder) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    subject = examples(base, captions=False)
    dreambooth = DreamBooth(base, [Half(without("sks", "dog", subject), taught=True)])
    adapter.attach(base, adapter.Make(rank=4, alpha=4.0, targets=base.recipe.targets))
    assert dreambooth.loss(range(3), 3).item() == 0


def test_what_is_transparent_is_not_learnt(base_folder: Folder) -> None:
    """Of a cut-out the loss is the mean over its subject, beside whole pictures of the same shape in one step."""
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    inside = torch.zeros(2, 8, 8, dtype=torch.bool)
    inside[:, 2:6, 1:4] = True
    cut, whole, _ = examples(base, captions=True)
    cut = replace(cut, emphasis=inside / inside.float().mean((1, 2), keepdim=True))
    dreambooth = DreamBooth(base, [Half([cut, whole])])
    wanted = []
    for term in dreambooth.draws(range(2)):
        noisy, target = reference.corrupt(base.pipe, term.x[None], term.eps[None], term.time)
        wrong = (reference.predict(base.pipe, noisy, term.time, term.prompt) - target).pow(2)
        wanted.append(wrong.mean() if term.emphasis is None else wrong[..., inside[0]].mean())
    torch.testing.assert_close(dreambooth.loss(range(2), 2), torch.stack(wanted).mean())


def test_a_photo_that_was_cut_out_is_learnt_where_its_subject_is(base_folder: Folder, photos: list[Photo]) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    mask = Image.new("L", photos[0].image.size)
    mask.paste(255, (0, 0, mask.width // 2, mask.height))
    cut = Cut(32, flip=True)
    half, empty, whole = (
        encode(base, [replace(photos[0], mask=one)], lambda photo: "a dog", cut, stage="Encoding")[0].emphasis
        for one in (mask, Image.new("L", mask.size), None)
    )
    assert whole is None
    assert half is not None
    torch.testing.assert_close(half.mean((1, 2)), torch.ones(2))
    assert (half[0, :, 0] > 1.5).all()
    assert (half[0, :, -1] == 0).all()
    assert torch.equal(half[1], half[0].flip(-1))
    assert empty is not None
    assert (empty == 1).all()


def test_no_bucket_is_longer_than_the_base_knows_places(base_folder: Folder, photos: list[Photo]) -> None:
    base = families.load(str(base_folder("sd3")), device="cpu")
    wide = [replace(photos[0], image=Image.new("RGB", (200, 100)))]
    for resolution, shape in ((64, (12, 22)), (100, (20, 30)), (128, (32, 32))):
        (example,) = encode(base, wide, lambda photo: "a dog", Cut(resolution), stage="Encoding")
        assert example.latents.shape[-2:] == shape


def test_the_class_is_what_is_left_without_the_token() -> None:
    latents = torch.zeros(1, 4, 8, 8)

    def left(token: str, class_noun: str, *prompts: str) -> list[str]:
        given = [Example(latents, prompt) for prompt in prompts]
        return [example.prompt for example in without(token, class_noun, given)]

    assert left("sks", "dog", "a sks dog", "a dog, sks", "a sksy dog and sks") == ["a dog", "a dog,", "a sksy dog and"]
    assert left("sks", "owl", "a sks owl", "a sks", "sks on the sofa") == ["an owl", "an owl", "owl on the sofa"]
    assert left("dog", "dog", "a dog dog") == ["a dog"]
    assert left("car", "toy car", "a car toy car on a rug") == ["a toy car on a rug"]


def test_photos_are_encoded_once_with_their_crops_and_mirror_images(base_folder: Folder, photos: list[Photo]) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu")
    cut = Cut(32, crops=3, flip=True)
    encoded = encode(base, photos, lambda photo: f"a {photo.name}", cut, stage="Encoding")
    assert sorted(example.prompt for example in encoded) == [f"a {photo.name}" for photo in photos]
    assert {example.latents.shape[0] for example in encoded} == {6}
    assert all(example.latents.isfinite().all() and not example.latents.requires_grad for example in encoded)
