"""The examples that measure a step, on a tiny base: they use what is inside persona, and follow where it goes."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="they read memory as Linux counts it")
@pytest.mark.parametrize(
    ("script", "options", "found"),
    [
        *(("bench_step.py", ["--steps", "1", "--loop", loop], "seconds") for loop in ("persona", "plain", "bare")),
        ("plan_check.py", ["--measure", "all three"], "training"),
    ],
    ids=["persona", "plain", "bare", "plan"],
)
def test_a_step_is_measured(
    script: str, options: list[str], found: str, base_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", [script, str(base_folder()), "--resolution", "32", *options])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert json.loads(capsys.readouterr().out)[found] > 0
