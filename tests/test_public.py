"""What `import persona` offers, and that it stays what it is whatever else is imported."""

import inspect
import subprocess
import sys

import pytest

import persona


def test_names_are_public_on_purpose() -> None:
    assert sorted(persona.__all__) == persona.__all__ == dir(persona)


@pytest.mark.parametrize("name", persona.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(persona, name)
    assert value.__doc__ or not (isinstance(value, type) or inspect.isfunction(value))


def test_functions_stay_functions() -> None:
    program = """
import persona.sample, persona.train, persona.interpolate
from persona.interpolate import interpolate
from persona import sample, train
assert all(callable(one) for one in (sample, train, persona.sample, persona.train, persona.interpolate))
assert persona.interpolate is interpolate
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_other_names_are_no_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        persona.trian  # type: ignore[attr-defined]  # noqa: B018
