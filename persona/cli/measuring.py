"""``evaluate`` and ``compare``: the table in the terminal, and pictures beside each other where it can show them."""

import os
import sys
from typing import TYPE_CHECKING, Any

from persona.cli.following import real, typed
from persona.cli.options import command
from persona.config import CompareConfig, EvaluateConfig
from persona.placing import named

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from persona.evaluate import Evaluation
    from persona.report import Row, Shot

_SHOWN = 4
"""Pairs of pictures that a terminal is shown."""
_WIDEST = 72  # columns of such a pair


@command(EvaluateConfig)
def evaluate(config: EvaluateConfig, json: bool) -> None:
    """Measure personas and methods.

    Checkpoints, strengths and methods on the same prompts and seeds, by one evaluator: identity, prompt, and
    near-copies. If interrupted, run the same command again to resume.
    """
    from persona.cli.display import Display

    with Display() as display:
        from persona.evaluate import evaluate

        found = evaluate(config, display)
    _close(display, "evaluate", found, _more(config, found), json=json)


@command(CompareConfig)
def compare(config: CompareConfig, json: bool) -> None:
    """Compare personas or methods side by side.

    Two of them, on the same prompts and seeds, in the terminal and on a page, with the difference between the two.
    If interrupted, run the same command again to resume.
    """
    from persona.cli.display import Display, terminal

    with Display() as display:
        from persona.evaluate import compare

        found = compare(config, display)
    _preview(terminal(), found)
    _close(display, "compare", found, "", json=json)


def _more(config: EvaluateConfig, found: "Evaluation") -> str:
    """Return the command that draws more with the first persona that was measured; empty where there was none."""
    from persona.evaluate.methods import METHODS
    from persona.folder import folder_of

    folders = [folder for name in config.names if name not in METHODS and (folder := folder_of(name))]
    prompts = [shot.prompt for shot in found.shots if _is_about(shot)]
    if not folders or not prompts:
        return ""
    return typed("sample", prompts[:1], {"--persona": folders[0], "--base": real(config.base), "-n": 8})


def _close(display: Any, command: str, found: "Evaluation", then: str, *, json: bool) -> None:
    from persona.cli.display import Outcome, terminal
    from persona.evaluate.tables import as_json

    terminal().print(_table(found))
    best = next((row.label for row in found.rows if row.best), None)
    display.close(
        command,
        Outcome(
            str(found.folder),
            [*([f"The best trade-off: {best}."] if best else []), f"Look at it: {found.report}"],
            then,
            {
                "folder": str(found.folder),
                "report": str(found.report),
                "table": str(found.table),
                "best": best,
                "rows": as_json(found.rows),
            },
        ),
        as_json=json,
    )


def _table(found: "Evaluation") -> "Table":
    """Return the columns that say most; the page has all."""
    from rich.table import Table
    from rich.text import Text

    wanted = [found.fidelity, found.prompt, "drift", "copies"]
    names = [column.name for column in found.columns if column.name in wanted]
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    for row in found.rows:
        label = Text(f"{row.label} (best)" if row.best else row.label, "bold" if row.best else "")
        table.add_row(label, *(_cell(row, name) for name in names))
    return table


def _cell(row: "Row", name: str) -> "Text":
    from rich.text import Text

    if name not in row.cells:
        return Text("-", "dim")
    cell = row.cells[name]
    return Text(f"{cell.mean:.3f} ").append(f"{cell.low:.2f} to {cell.high:.2f}", "dim")


def _preview(console: "Console", found: "Evaluation") -> None:
    """Show the first pairs of pictures; a pipe, a log and a terminal without colours are spared."""
    if not console.is_terminal or console.no_color or not all(one and one.isatty() for one in (sys.stdin, sys.stdout)):
        return
    if not os.get_terminal_size(sys.stdout.fileno()).columns:  # a terminal that does not know itself
        return
    import logging

    logging.getLogger("textual_image").setLevel(logging.ERROR)
    from PIL import Image
    from rich.text import Text
    from textual_image.renderable import Image as Shown  # asks the terminal what it can show

    from persona.sheet import Row, sheet

    for pair in _pairs(found):
        console.print(Text(f"{pair[0].prompt}: {pair[0].label} (left), {pair[1].label} (right)", "dim"))
        row = Row("", [(Image.open(shot.path), "") for shot in pair])
        console.print(Shown(sheet([row]), width=min(_WIDEST, console.width), height="auto"))


def _pairs(found: "Evaluation") -> "list[list[Shot]]":
    """Return pictures of one subject, prompt and seed by both, of a prompt each."""
    pairs: dict[tuple[str, str], list[Shot]] = {}
    for shot in found.shots:
        same = pairs.setdefault((shot.subject, shot.prompt), [])
        if not same or (len(same) == 1 and same[0].label != shot.label and same[0].seed == shot.seed):
            same.append(shot)
    return [same for same in pairs.values() if len(same) == 2 and _is_about(same[0])][:_SHOWN]


def _is_about(shot: "Shot") -> bool:
    """Tell whether the subject was asked for; in which case it was typed is no matter."""
    return "V" in named(shot.prompt)
