"""Each number against its value worked out by hand, and what must hold whatever the pictures."""

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import normalize

from persona import metrics
from persona.evaluate.evaluator import copies


def rows(*vectors: tuple[float, ...]) -> Tensor:
    return normalize(torch.tensor(vectors, dtype=torch.float32), dim=1)


def noise(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def test_likeness_is_the_mean_cosine_with_all_photos() -> None:
    drawn, photos = rows((1, 0), (3, 4)), rows((1, 0), (0, 1))
    assert metrics.likeness(drawn, photos).tolist() == pytest.approx([0.5, 0.7])


def test_identical_pictures_score_one() -> None:
    one = rows((3, 4))
    assert metrics.likeness(one, one).tolist() == pytest.approx([1])
    assert metrics.agreement(one, one).tolist() == pytest.approx([1])
    assert metrics.drift(one, one).tolist() == pytest.approx([0])
    assert metrics.memorisation([noise(0)], [noise(1), noise(0)]) == pytest.approx(1, abs=1e-6)


def test_photos_among_themselves_leave_themselves_out() -> None:
    photos = rows((1, 0), (0, 1), (3, 4))
    assert metrics.among(photos).tolist() == pytest.approx([(0 + 0.6) / 2, (0 + 0.8) / 2, (0.6 + 0.8) / 2])


def test_recovered_is_one_for_photos_and_nothing_for_others() -> None:
    photos, others = rows((1, 0), (3, 4)), rows((0, 1))
    # Of others 0.4 on average, of photos among themselves 0.6.
    drawn = rows((1, 0), (0, 1))  # 0.8 and 0.4
    assert metrics.recovered(drawn, photos, others, 0.9).tolist() == pytest.approx([2, 0])
    assert metrics.recovered(photos[:1], photos[:1], rows((0, 1)), 0.5).tolist() == pytest.approx([2])  # by the ceiling


def test_drift_is_half_the_distance_of_cosines() -> None:
    before = rows((1, 0), (1, 0), (1, 0))
    assert metrics.drift(before, rows((1, 0), (0, 1), (-1, 0))).tolist() == pytest.approx([0, 0.5, 1])


def test_leak_is_what_the_adapter_added_above_any_of_the_class() -> None:
    before, after = torch.tensor([0.0, 0.3, -0.5, -0.2]), torch.tensor([0.4, 0.5, 0.2, -0.9])
    assert metrics.leak(before, after).tolist() == pytest.approx([0.4, 0.2, 0.2, 0])


def test_diversity_is_the_mean_distance_to_the_others() -> None:
    distances = torch.tensor([[0.0, 0.2, 0.4], [0.2, 0.0, 0.6], [0.4, 0.6, 0.0]])
    found = metrics.diversity(distances)
    assert found.tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert found.mean().item() == pytest.approx((0.2 + 0.4 + 0.6) / 3)  # that of all pairs


def test_memorisation_is_the_correlation_with_the_nearest_photo() -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, :32] = 200
    one, inverse = Image.fromarray(halves), Image.fromarray(200 - halves.transpose(1, 0, 2))
    darker = Image.fromarray(halves // 2)
    assert metrics.memorisation([one], [inverse]) == pytest.approx([0], abs=1e-6)  # top and bottom, left and right
    assert metrics.memorisation([one, inverse], [darker, noise(0)])[0] == pytest.approx(1)
    # Left half against left quarter: values 0 and 1, means 1/2 and 1/4, so cov 1/8 over sqrt(1/4 * 3/16).
    quarter = np.zeros((64, 64, 3), np.uint8)
    quarter[:, :16] = 255
    expected = (1 / 8) / math.sqrt(1 / 4 * 3 / 16)
    assert metrics.memorisation([one], [Image.fromarray(quarter)]) == pytest.approx([expected], abs=1e-6)


def test_a_copy_is_known_mirrored_cut_to_another_shape_and_a_little_closer() -> None:
    photo = noise(0, (96, 64)).resize((768, 512), Image.Resampling.BICUBIC)
    mirrored = ImageOps.mirror(photo)
    square = (128, 0, 640, 512)
    for copy in (photo.resize((512, 512)), mirrored, photo.crop(square), mirrored.crop(square)):
        assert metrics.memorisation([copy], [noise(1), photo])[0] > 0.99
    closer = photo.crop((152, 24, 616, 488))  # a tenth; others of the same cells are nowhere near
    assert metrics.memorisation([closer], [photo])[0] > metrics.COPY
    assert metrics.memorisation([noise(seed) for seed in range(2, 20)], [photo]).max() < 0.3


def test_masks_are_mirrored_and_cut_with_their_photo() -> None:
    photo, mask = with_subject(background=0, subject=1)
    mask[:, :32], wide = False, np.zeros((64, 96), bool)  # the right half of the subject alone
    wide[:, 16:80] = mask
    page = Image.new("RGB", (96, 64), "white")
    page.paste(photo, (16, 0))
    copy = np.where(mask[..., None], np.asarray(noise(2)), np.asarray(photo))
    drawn = Image.fromarray(copy[:, ::-1])
    assert metrics.background_memorisation([drawn], [page], [None], [wide])[0] == pytest.approx(1)


def test_a_flat_picture_is_no_copy() -> None:
    assert metrics.memorisation([Image.new("L", (9, 5), 128)], [noise(0)]) == pytest.approx([0])


def with_subject(background: int, subject: int) -> tuple[Image.Image, metrics.Mask]:
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    pixels = np.where(mask[..., None], np.asarray(noise(subject)), np.asarray(noise(background)))
    return Image.fromarray(pixels), mask


def test_the_background_is_compared_without_the_subject() -> None:
    photo, mask = with_subject(background=0, subject=1)
    copy, _ = with_subject(background=0, subject=2)
    moved, _ = with_subject(background=3, subject=1)
    drawn = metrics.background_memorisation([copy, moved], [photo], [None, None], [mask])
    assert drawn[0] == pytest.approx(1)
    assert drawn[1] < 0.2
    assert metrics.memorisation([copy], [photo])[0] < 0.95 < drawn[0]
    # The mask of the picture counts as much as the photo's.
    assert metrics.background_memorisation([copy], [photo], [mask], [None])[0] == pytest.approx(1)


def test_a_subject_that_fills_the_photo_leaves_nothing_to_compare() -> None:
    everything = np.ones((64, 64), bool)
    found = metrics.background_memorisation([noise(0)], [noise(0)], [None], [everything])
    assert np.isnan(found).all()
    found = metrics.background_memorisation([noise(0)], [noise(0), noise(1)], [None], [everything, None])
    assert found[0] < 0.5


def test_a_background_that_shows_nothing_does_not_hide_a_copy() -> None:
    def on_white(subject: int, grain: int) -> Image.Image:
        shown, mask = with_subject(background=0, subject=subject)
        white = 250 + np.random.default_rng(grain).normal(0, 2, (64, 64, 3))
        return Image.fromarray(np.where(mask[..., None], np.asarray(shown), white).clip(0, 255).astype(np.uint8))

    _, mask = with_subject(background=0, subject=1)
    photo, copy = on_white(1, 1), on_white(1, 2)
    elsewhere, _ = with_subject(background=3, subject=1)
    found = metrics.background_memorisation([copy, elsewhere], [photo], [None, None], [mask])
    assert np.isnan(found[0])
    assert abs(found[1]) < 0.2
    assert list(copies([copy, elsewhere], [photo], [None, None], [mask])["copies"]) == [1, 0]
    plain = Image.new("RGB", (64, 64), "white")
    assert metrics.memorisation([plain], [plain])[0] == 0


def test_the_trade_offs() -> None:
    assert metrics.trade_off_of_photos(0.6, 0.3, 0.1, 0.0) == pytest.approx(1.1)
    assert metrics.trade_off_of_judge(0.64, 1.0, 0.05, 0.0) == pytest.approx(0.8)
    assert metrics.trade_off_of_judge(0.64, 1.0, 0.3, 0.0) == pytest.approx(0.6)
    assert metrics.trade_off_of_judge(-0.5, 1.0, 0.0, 0.0) == 0
    assert metrics.trade_off_of_judge(0.64, 1.0, 0.0, 0.5) == pytest.approx(0.4)
    assert metrics.trade_off_of_photos(0.6, 0.3, 0.1, 1.0) == pytest.approx(-0.1)


def test_the_interval_of_one_group_is_that_of_its_mean() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = metrics.interval([values.tolist()])
    error = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.05)


def test_groups_are_drawn_anew_too() -> None:
    groups = [[number] * 50 for number in (0.0, 1.0)]
    low, high = metrics.interval(groups)
    assert (low, high) == (0, 1)
    assert metrics.interval([groups[0] + groups[1]])[1] < 0.7


@hypothesis.settings(max_examples=40)
@given(st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=9), min_size=1, max_size=9))
def test_intervals_hold_what_they_can(groups: list[list[float]]) -> None:
    low, high = metrics.interval(groups)
    assert (low, high) == metrics.interval(groups)
    assert min(map(min, groups)) - 1e-9 <= low <= high <= max(map(max, groups)) + 1e-9
    if len(groups) == len(groups[0]) == 1:
        assert low == high == groups[0][0]
