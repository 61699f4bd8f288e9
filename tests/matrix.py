"""All combinations of what a test is run with: some of them by default, all with the slow tests."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def sparse(every: int, *choices: Iterable[Any]) -> list[Any]:
    """Return all combinations, of which all but one in ``every`` are slow.

    Those that are left meet each choice of each kind, where ``every`` shares no factor with how many there are.
    """
    slow = [pytest.mark.slow]
    return [
        pytest.param(*values, marks=[] if number % every == 0 else slow)
        for number, values in enumerate(product(*choices))
    ]
