"""What people see while a command works: bars, notes and a closing panel, all of it on stderr.

On a terminal the bars move; in a pipe or a log there is a line now and then. Stdout stays empty but for ``--json``.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from persona.events import Event, Note, Progress

_QUIET_SECONDS = 15.0  # between lines where bars cannot move
_NARROW = 72  # columns: below this there is no room for the bar and the loss


@dataclass(frozen=True)
class Outcome:
    """What a command made.

    Attributes:
        title: what was made, in a few words.
        lines: what there is to know about it.
        next: the command to type next, or empty.
        record: the same for machines, as JSON values.
    """

    title: str
    lines: Sequence[str]
    next: str
    record: Mapping[str, Any]


def terminal(*, everywhere: bool = False) -> Console:
    """Return stderr as rich sees it; only the first of several processes speaks, unless it is said everywhere."""
    return Console(stderr=True, highlight=False, emoji=False, quiet=not (everywhere or first_process()))


def first_process() -> bool:
    """Return whether this is the first, or the only, process of a launch."""
    return os.environ.get("RANK", "0") == "0"


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object on stdout, on one line; only the first of several processes does."""
    if first_process():
        print(json.dumps(value, default=str), flush=True)


class Display:
    """The listener of a command: draws the events of the library as they come."""

    def __init__(self) -> None:
        self._console = terminal()
        narrow = self._console.width < _NARROW
        bar = [] if narrow else [BarColumn(bar_width=None, table_column=Column(ratio=1))]
        column = Column(no_wrap=True, overflow="ellipsis", max_width=20)
        stage = TextColumn("{task.description}", markup=False, table_column=column)
        self._bars = Bars(stage, *bar, _Facts(loss=not narrow), console=self._console, expand=not narrow)
        self._stages: dict[str, TaskID] = {}
        self._notes: list[str] = []
        self._started = time.monotonic()
        self._spoke = self._started

    def __enter__(self) -> Self:
        if self._console.is_interactive:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_interactive:
            self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Draw an event."""
        if isinstance(event, Note):
            self._notes.append(event.text)
            style = "yellow" if event.warning else "dim"
            self._console.print(Text("! " if event.warning else "", style).append(event.text), soft_wrap=True)
        else:
            self._advance(event)

    def name_base(self, base: str) -> None:
        """Say once that clay is not the world, and how to name a base that knows more of it."""
        if base == "clay":
            self(Note("Base: clay, the small built-in world. Name a real model with --base, such as --base sd15"))

    def _advance(self, event: Progress) -> None:
        stage = self._stages.get(event.stage)
        if stage is None or self._task(stage).completed > event.done:
            if stage is not None:
                self._bars.remove_task(stage)
            stage = self._stages[event.stage] = self._bars.add_task(event.stage, total=event.total, loss=None)
        self._bars.update(stage, completed=event.done, total=event.total, loss=event.loss)
        if not self._console.is_interactive and self._is_time(event):
            self._spoke = time.monotonic()
            self._console.print(f"{event.stage}: {_facts(self._task(stage), loss=True)}", soft_wrap=True, markup=False)

    def _is_time(self, event: Progress) -> bool:
        return event.done >= event.total or time.monotonic() - self._spoke >= _QUIET_SECONDS

    def _task(self, stage: TaskID) -> Task:
        return next(task for task in self._bars.tasks if task.id == stage)

    def close(self, command: str, outcome: Outcome, *, as_json: bool) -> None:
        """Show what a command made, to people and, if asked for, to machines."""
        # What is copied, paths and commands, stands outside of the panel and is never broken.
        self._console.print(Text(outcome.title, "bold green"), soft_wrap=True)
        if outcome.lines:
            self._console.print(Panel(Text("\n".join(outcome.lines)), border_style="green"))
        if outcome.next:
            self._console.print(Text("Next: ").append(outcome.next, "bold cyan"), soft_wrap=True)
        if as_json:
            seconds = round(time.monotonic() - self._started, 1)
            print_json({"command": command, **outcome.record, "notes": self._notes, "seconds": seconds})


class _Facts(ProgressColumn):
    """How far, how fast, how long still, and in how much memory."""

    def __init__(self, *, loss: bool) -> None:
        super().__init__(Column(no_wrap=True, justify="right"))
        self._loss = loss

    def render(self, task: Task) -> Text:
        """Return the facts as one line."""
        return Text(_facts(task, loss=self._loss))


def _facts(task: Task, *, loss: bool) -> str:
    parts = [f"{task.completed:.0f}/{task.total or 0:.0f}"]
    if loss and task.fields["loss"] is not None:
        parts.append(f"loss {task.fields['loss']:.3f}")
    speed = task.finished_speed or task.speed
    if speed:
        parts.append(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")
    if task.finished:
        parts.append(f"in {_clock(task.finished_time or 0)}")
    elif task.time_remaining is not None:
        parts.append(f"{_clock(task.time_remaining)} left")
    return "  ".join([*parts, f"{_memory() / 2**30:.1f} GiB"])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _memory() -> int:
    """Return the bytes in use where the work is done: on the GPU once there is one in use, else in this process."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        return int(torch.cuda.memory_reserved())
    import psutil

    return int(psutil.Process().memory_info().rss)
