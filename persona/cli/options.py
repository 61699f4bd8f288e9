"""Command-line options out of the config dataclasses: each is declared once, in :mod:`persona.config`."""

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from persona.config.option import Config, Setting, settings

EXPERTS = "For experts"
ADVISED = "Options without a default take what suits the base: `persona info BASE` lists it."
"""What ``--help`` says below the options of commands that leave some to the base."""

_METAVARS = {bool: " ", int: "N", float: "X", Path: "PATH", str: "TEXT"}

C = TypeVar("C", bound=Config)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


class Command(TyperCommand):
    """Shows its options a panel at a time, in lines that fit the terminal."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and leave it for whoever tells how it ended."""
        ctx.meta["command"] = self
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in its usage: ``PHOTOS [OPTIONS]``."""
        places = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        names = [f"{place.metavar}..." if place.nargs == -1 else str(place.metavar) for place in places]
        named = zip(places, names, strict=True)
        return [*(name if place.required else f"[{name}]" for place, name in named), "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the panels of ``--help`` in their order, but for the empty ones."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], EXPERTS: []}
        for parameter in self.get_params(ctx):
            panel = "Arguments" if parameter.param_type_name == "argument" else "Options"
            names, text = parameter.get_help_record(ctx) or ("", "")
            names = names.split()[0] if panel == "Arguments" else names
            names = re.sub(r"--(\S+) +/ --no-\1 *", r"--[no-]\1", names)
            panels[getattr(parameter, "rich_help_panel", None) or panel].append((names.strip(), text))
        for title, rows in panels.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def command(config: type[C]) -> Callable[[Callable[[C, bool], None]], Callable[..., None]]:
    """Give a function of (config, json) the parameters that Typer turns into the options of a command."""

    def decorate(run: Callable[[C, bool], None]) -> Callable[..., None]:
        def call(*, json: bool, **given: Any) -> None:
            run(config(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}), json)

        call.__name__, call.__doc__ = run.__name__, run.__doc__
        parameters = [_parameter(setting) for setting in settings(config)]
        last = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
        call.__signature__ = inspect.Signature([*parameters, last])  # type: ignore[attr-defined]
        return call

    return decorate


def _parameter(setting: Setting) -> inspect.Parameter:
    default = inspect.Parameter.empty if setting.default is MISSING else setting.default
    if isinstance(default, tuple):
        default = list(default)
    declared = _argument(setting) if setting.option.positional else _option(setting)
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[_typer_kind(setting.kind), declared],
    )


def _argument(setting: Setting) -> Any:
    return typer.Argument(help=setting.option.help, show_default=False, metavar=setting.flag)


def _option(setting: Setting) -> Any:
    """Declare a named option; a switch that is not simply off by default can be turned off too."""
    names = setting.option.flag or (setting.flag,)
    if bool in setting.classes and setting.default is not False:
        names = (f"{setting.flag}/--no-{setting.flag[2:]}",)
    text = setting.option.help
    return typer.Option(
        *names,
        help=f"{text} One of: {', '.join(setting.choices)}." if setting.choices else text,
        metavar="NAME" if setting.choices else _METAVARS[setting.classes[0]],
        rich_help_panel=EXPERTS if setting.option.expert else None,
        show_default=not isinstance(setting.default, bool | None) and setting.default not in ("", ()),
    )


def _typer_kind(kind: Any) -> Any:
    """Return a field's type as Typer knows it: any number of values is a list."""
    if get_origin(kind) is tuple:
        return list[get_args(kind)[0]]  # type: ignore[misc]
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(_typer_kind(part) for part in get_args(kind))]  # noqa: UP007
    return kind
