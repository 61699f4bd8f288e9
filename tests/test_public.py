"""What `import persona` offers, and that it stays what it is whatever else is imported."""

import importlib
import inspect
import sys
from typing import get_args, get_type_hints

import pytest

import persona


def test_names_are_public_on_purpose() -> None:
    assert sorted(persona.__all__) == persona.__all__ == dir(persona)


@pytest.mark.parametrize("name", persona.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(persona, name)
    if isinstance(value, type) or inspect.isfunction(value):
        assert value.__doc__
        assert not value.__doc__.startswith(f"{name}(")  # which is what a dataclass says of itself


@pytest.mark.parametrize("name", [name for name in persona.__all__ if inspect.isfunction(getattr(persona, name))])
def test_what_functions_return_is_public_too(name: str) -> None:
    returned = get_type_hints(getattr(persona, name))["return"]
    for kind in (returned, *get_args(returned)):
        if kind.__module__.startswith("persona"):
            assert kind.__name__ in persona.__all__


@pytest.mark.parametrize("name", ["evaluate", "export", "interpolate", "plan", "sample"])
def test_functions_stay_functions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is imported becomes an attribute of its package, where the function of its name was."""
    monkeypatch.delitem(sys.modules, f"persona.{name}", raising=False)
    module = importlib.import_module(f"persona.{name}")
    assert getattr(persona, name) is vars(module)[name]


def test_other_names_are_no_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        persona.trian  # type: ignore[attr-defined]  # noqa: B018
