"""Functions in machine code, which later processes find again where there is a folder to keep it in."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function of numbers and arrays when it is first called; see numba's ``njit``."""
    how = {"nogil": True, "fastmath": True}
    try:
        return njit(cache=True, **how)(function)
    except RuntimeError:  # neither beside the code nor in the user's home may anything be written
        return njit(**how)(function)
