"""``evaluate`` and ``compare`` on the command line; what they measure is a stand-in here."""

import importlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import run
from PIL import Image

from persona.cli.measuring import _more, _pairs
from persona.config import CompareConfig, EvaluateConfig
from persona.report import Cell, Column, Row, Shot

PREVIEW = """
import sys
from pathlib import Path
from types import SimpleNamespace
from persona.cli.display import terminal
from persona.cli.measuring import _preview

def shot(label, seed, prompt="a [V] dog"):
    return SimpleNamespace(path=Path(sys.argv[1]), label=label, subject="rex", prompt=prompt, seed=seed)

shots = [shot(label, seed, prompt) for label in ("rex", "base") for prompt in ("a [V] dog", "a dog") for seed in (0, 1)]
_preview(terminal(), SimpleNamespace(shots=shots))
"""


def found(folder: Path) -> SimpleNamespace:
    def cells(*means: float) -> dict[str, Cell]:
        return {name: Cell(m, m - 0.1, m + 0.1) for name, m in zip(("DINO", "CLIP-T", "PRES"), means, strict=False)}

    return SimpleNamespace(
        folder=folder,
        columns=[Column("DINO", ""), Column("CLIP-T", ""), Column("PRES", "", -1)],
        rows=[
            Row("photos", cells(0.774)),
            Row("rex", cells(0.65, 0.31, 0.4), best=True),
            Row("[base]", cells(0.3, 0.32, 0.3)),
        ],
        shots=[Shot(folder / "x.png", "rex", "dog", "a [V] dog in the snow", 0)],
        fidelity="DINO",
        prompt="CLIP-T",
        report=folder / "report.html",
        table=folder / "table.md",
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Let both commands note their settings, and find what :func:`found` says."""
    made: list[Any] = []

    def stand_in(config: Any, listener: Any) -> SimpleNamespace:
        made.append(config)
        return found(tmp_path)

    library = importlib.import_module("persona.evaluate")
    for name in ("evaluate", "compare"):
        monkeypatch.setattr(library, name, stand_in)
    return made


def test_evaluate_shows_a_table_and_says_it_to_machines(calls: list[Any], tmp_path: Path) -> None:
    result = run("evaluate", "rex", "base", "--photos", "a", "--photos", "b", "--scales", "--json", COLUMNS="100")
    assert result.exit_code == 0, result.output
    assert calls == [EvaluateConfig(names=("rex", "base"), photos=(Path("a"), Path("b")), scales=True)]
    made = json.loads(result.stdout)
    assert made["best"] == "rex"
    assert (made["rows"][2]["label"], made["rows"][2]["best"]) == ("[base]", False)
    assert made["rows"][2]["scores"]["DINO"] == pytest.approx([0.3, 0.2, 0.4])
    lines = result.stderr.splitlines()
    assert any(line.split()[:2] == ["DINO", "CLIP-T"] for line in lines)  # and what says less is on the page
    assert any(line.startswith("rex (best)") and "0.650 0.55 to 0.75" in line for line in lines)
    assert any(line.startswith("[base]") for line in lines)
    assert str(tmp_path / "report.html") in result.stderr.replace("\n", "")


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_help_speaks_of_its_own_options(command: str) -> None:
    assert "--persona" not in run(command, "--help").stdout


def test_compare_takes_two(calls: list[Any]) -> None:
    assert run("compare", "rex", "base").exit_code == 0
    assert calls == [CompareConfig(names=("rex", "base"))]
    refused = run("compare", "rex")
    assert (refused.exit_code, "Name the two" in refused.stderr) == (2, True)


def test_a_subject_may_be_typed_in_lower_case(tmp_path: Path) -> None:
    (tmp_path / "rex").mkdir()
    made: Any = found(tmp_path)
    made.shots = [Shot(tmp_path / "x.png", label, "dog", "a [v] dog", 0) for label in ("rex", "base")]
    assert _pairs(made) == [made.shots]
    assert "a [v] dog" in _more(EvaluateConfig(names=(str(tmp_path / "rex"),)), made)


def test_pictures_side_by_side_are_of_one_subject(tmp_path: Path) -> None:
    """Of two dogs the first persona draws one, JeDi both."""
    made: Any = found(tmp_path)
    both = [Shot(tmp_path / "x.png", "jedi", subject, "a [V] dog", 0) for subject in ("rex", "bob")]
    made.shots = [Shot(tmp_path / "x.png", "bob", "bob", "a [V] dog", 0), *both]
    assert [[shot.subject for shot in pair] for pair in _pairs(made)] == [["bob", "bob"]]


@pytest.mark.parametrize("width", ["60", "100"])
def test_the_table_fits_the_terminal(calls: list[Any], tmp_path: Path, width: str) -> None:
    lines = run("evaluate", "rex", COLUMNS=width).stderr.splitlines()
    assert max(len(line) for line in lines if line != str(tmp_path)) <= int(width)  # a path is never broken


def on_a_terminal(program: str, *arguments: str, columns: int, **environment: str) -> str:
    """Run a program on a terminal of its own, and return what was written there."""
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    how = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")} | environment
    child = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=inside, stdout=inside, stderr=inside, env=how
    )
    os.close(inside)
    said = b""
    try:
        while part := os.read(outside, 4096):
            said += part
    except OSError:  # the other side is closed
        pass
    os.close(outside)
    assert child.wait() == 0, said.decode()
    return said.decode()


def test_pictures_are_shown_where_the_terminal_can(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "red.png")
    terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    said = on_a_terminal(PREVIEW, str(tmp_path / "red.png"), columns=60, **terminal)
    assert "▀" in said
    assert "38;2;200;30;30" in said
    assert "▀" not in on_a_terminal(PREVIEW, str(tmp_path / "red.png"), columns=60, **terminal, NO_COLOR="1")
    assert "▀" not in on_a_terminal(PREVIEW, str(tmp_path / "red.png"), columns=0, **terminal)
    closed = f"import sys; sys.stdin = None  # as Python has it after <&-\n{PREVIEW}"
    assert "▀" not in on_a_terminal(closed, str(tmp_path / "red.png"), columns=60, **terminal)


def test_a_pipe_is_spared(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.open", lambda path: pytest.fail("nobody can see it"))
    assert run("compare", "rex", "base", FORCE_COLOR="1").exit_code == 0
