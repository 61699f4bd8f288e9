import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.between import between, even, slerp

VECTORS = st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=8)


@given(a=VECTORS, b=VECTORS, at=st.floats(0, 1))
def test_an_arc_begins_and_ends_at_its_vectors_and_keeps_their_length(
    a: list[float], b: list[float], at: float
) -> None:
    width = min(len(a), len(b))
    start, end = torch.tensor(a[:width]), torch.tensor(b[:width])
    for place, wanted in ((0.0, start), (1.0, end)):
        torch.testing.assert_close(slerp(start, end, place), wanted, rtol=1e-3, atol=1e-2)
    on_the_way = slerp(start, end, at)
    assert on_the_way.isfinite().all()
    assert on_the_way.norm() <= 1.01 * max(start.norm(), end.norm()) + 1e-2


def test_an_arc_by_example() -> None:
    half = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0]), 0.5)
    torch.testing.assert_close(half, torch.tensor([3 / math.sqrt(2)] * 2))
    noise = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    assert slerp(noise[0], noise[1], 0.5).std() == pytest.approx(1, abs=0.05)


def test_masks_change_half_way_and_numbers_go_between() -> None:
    made = between({"mask": torch.tensor([[1, 0], [1, 1]]), "same": torch.ones(2, 3)}, [0.0, 0.4, 0.6])
    assert made["mask"].tolist() == [[1, 0], [1, 0], [1, 1]]
    torch.testing.assert_close(made["same"], torch.ones(3, 3))


@given(
    steps=st.lists(st.floats(0, 10), min_size=1, max_size=20),
    number=st.integers(2, 20),
)
def test_even_places_divide_the_path_into_equal_parts(steps: list[float], number: int) -> None:
    places = [one / len(steps) for one in range(len(steps) + 1)]
    found = even(steps, places, number)
    assert len(found) == number
    assert (found[0], found[-1]) == (0, 1)
    assert all(earlier <= later for earlier, later in pairwise(found))
    gone = np.interp(found[1:-1], places, np.concatenate([[0], np.cumsum(steps)]))
    if sum(steps) > 1e-3:
        assert gone == pytest.approx(sum(steps) * np.arange(1, number - 1) / (number - 1), abs=1e-6 * sum(steps))
