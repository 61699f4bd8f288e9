"""``plan``: what training would need, of one base as sentences, of all as a table."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from persona.cli.following import given, real, typed
from persona.cli.options import command
from persona.config import PlanConfig, TrainConfig

if TYPE_CHECKING:
    from rich.table import Table

    from persona.plan import Plan


@command(PlanConfig)
def plan(config: PlanConfig, json: bool) -> None:
    """Estimate what training would need.

    Memory, disk, download and time, with networks of their real sizes; without a GPU, and before a download.
    """
    from persona.cli.display import Display, Outcome, terminal

    with Display() as display:
        from persona.plan import plan

        plans = plan(config, display)
    records = [_record(one) for one in plans]
    if config.every:
        terminal().print(_table(plans))
        outcome = Outcome(f"{len(plans)} bases", [_machine(plans[0])], "", {"plans": records})
    else:
        (one,) = plans
        told = {"--class": "CLASS", "--base": real(one.base), **given(config, TrainConfig, but=("base", "photos"))}
        drawn = "class images and previews come" if config.prior == "generated" else "previews come"
        then = typed("train", ["PHOTOS"], told) if one.fits else ""
        outcome = Outcome(one.base, [_machine(one), *_lines(one, drawn)], then, records[0])
    display.close("plan", outcome, as_json=json)


def _machine(one: "Plan") -> str:
    where = "this CPU" if one.device == "cpu" else "a GPU"
    room = f", which has {_gib(one.room)} for it" if one.room is not None else ""
    return f"On {where}{room}."


def _lines(one: "Plan", drawn: str) -> list[str]:
    steps, millions, megabytes = one.settings.steps, one.parameters / 1e6, one.adapter / 1e6
    fits = "" if one.fits else "It does not fit. "
    how = f", with {one.how}" if one.how else ""
    fetched = "nothing" if one.download == 0 else _gb(one.download)
    time = "Time: unknown until a large base has been trained on this device."
    if one.step_seconds:
        takes = f"A step takes {one.step_seconds:.1f} s, the {steps} steps {one.step_seconds * steps / 60:.0f} minutes"
        time = f"{takes}; {drawn} on top."
    return [
        f"{fits}It takes {_gib(one.memory)} at most, for {one.stage}{how}.",
        f"Main memory: {_gib(one.ram)}. Disk: {_gb(one.disk)}. To fetch: {fetched}.",
        f"{millions:.1f} million parameters in {steps} steps, a file of {megabytes:.0f} MB. {time}",
    ]


def _table(plans: "list[Plan]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1))
    table.add_column("base")
    for name in ("memory", "RAM", "fetched", "disk", "trained", "file"):
        table.add_column(name, justify="right")
    table.add_column("with", overflow="fold")
    for one in plans:
        table.add_row(
            one.base,
            Text(_gib(one.memory), "" if one.fits else "red"),
            _gib(one.ram),
            _gb(one.download),
            _gb(one.disk),
            f"{one.parameters / 1e6:.1f} M",
            f"{one.adapter / 1e6:.0f} MB",
            one.how if one.fits else f"does not fit{one.how and f', even with {one.how}'}",
        )
    return table


def _record(one: "Plan") -> dict[str, Any]:
    return asdict(one) | {"fits": one.fits}


def _gib(size: int | None) -> str:
    return f"{size / 2**30:.1f} GiB" if size is not None else "?"


def _gb(size: int | None) -> str:
    return f"{size / 1e9:.1f} GB" if size is not None else "?"
