"""All combinations of what a test is run with: some of them by default, all with the slow tests."""

from collections.abc import Iterable, Iterator
from itertools import combinations, product
from typing import Any

import pytest


def sparse(every: int, *choices: Iterable[Any]) -> list[Any]:
    """Return all combinations, of which all but one in ``every`` are slow.

    Those that are left meet each choice of each kind, for which they may be a few more, and as many pairs of choices as
    can be met by so few.
    """
    kinds = [list(kind) for kind in choices]
    cases = list(product(*(range(len(kind)) for kind in kinds)))
    kept = set(_kept(cases, max(-(-len(cases) // every), *map(len, kinds))))
    return [
        pytest.param(
            *(kind[place] for kind, place in zip(kinds, case, strict=True)),
            marks=[] if case in kept else [pytest.mark.slow],
        )
        for case in cases
    ]


def _kept(cases: list[tuple[int, ...]], number: int) -> Iterator[tuple[int, ...]]:
    """Take the case again and again that meets the most choices which none before has met, then the most pairs."""
    left, chosen, pairs = list(cases), set[Any](), set[Any]()
    for _ in range(number):
        if all(_pairs(case) <= pairs for case in left):
            pairs.clear()  # all are met: a second round
        case = max(left, key=lambda one: (len(set(enumerate(one)) - chosen), len(_pairs(one) - pairs)))
        chosen |= set(enumerate(case))
        pairs |= _pairs(case)
        left.remove(case)
        yield case


def _pairs(case: tuple[int, ...]) -> set[Any]:
    return set(combinations(enumerate(case), 2))
