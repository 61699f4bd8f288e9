"""The one place where errors become messages and exit codes.

0 is done; 2 is for the user to fix; 1 is a bug of ours, with its traceback; 130 is Ctrl-C, 143 the system's SIGTERM.
"""

import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from persona.errors import NoSpace, PersonaError, out_of_memory, out_of_space

MENDABLE, BROKEN, STOPPED, ENDED = 2, 1, 130, 143

_ANEW = ("plan", "sample", "interpolate", "export", "import", "info")  # all others resume


class Commands(TyperGroup):
    """Runs a command and turns whatever it raises into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed.

        Raises:
            typer.Exit: with the exit code, once the message is shown.
        """
        as_json = "--json" in ctx.args
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say(f"stopped; {_again(ctx)}", everywhere=False)
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            known = _mendable(error, ctx)
            if known is None:
                if as_json and isinstance(error, TyperException):  # typer shows it to people
                    _print_json("UsageError", error.format_message())
                raise
            _show(known, as_json=as_json)
            raise typer.Exit(MENDABLE) from None

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the program; a bug keeps its traceback."""
        try:
            return super().main(*args, **extra)
        except Exception:
            traceback.print_exc()
            _say("persona broke: this is a bug. Please report it with the lines above.")
            sys.exit(BROKEN)


def _again(ctx: Any) -> str:
    """Say what happens to what was begun when the command is typed again."""
    return f"run the same command again to {'start over' if ctx.invoked_subcommand in _ANEW else 'resume'}"


def _smaller(ctx: Any) -> str:
    """Say what takes less memory, as far as the command that was typed leaves a choice."""
    flags = {flag for parameter in ctx.meta.get("command", ctx.command).params for flag in parameter.opts}
    choices = [f"a smaller {flag}" for flag in ("--batch", "--resolution") if flag in flags]
    return f"Try {', or '.join(choices)}." if choices else f"Close other programs and {_again(ctx)}."


def _mendable(error: Exception, ctx: Any) -> PersonaError | None:
    """Return an error as the user can mend it, or None if it is a bug."""
    if isinstance(error, PersonaError):
        return error
    if out_of_space(error):
        return NoSpace(f"The disk is full. Free some space and {_again(ctx)}.")
    if isinstance(error, OSError) and error.filename is not None:
        return PersonaError(f"{error.filename}: {str(error.strerror).lower()}. Choose another path, or fix this one.")
    if out_of_memory(error):
        return PersonaError(f"Out of memory. {_smaller(ctx)}")
    return None


def _show(error: PersonaError, *, as_json: bool) -> None:
    if not error.told:
        _say(str(error), "Error: ")
    if as_json:
        _print_json(type(error).__name__, str(error))


# What draws on the terminal is loaded when there is something to say: --help is made without it.


def _say(text: str, heading: str = "", *, everywhere: bool = True) -> None:
    """Say what went wrong, on whichever process it did."""
    from rich.text import Text

    from persona.cli.display import first_process, terminal

    whose = "" if first_process() else f"[process {os.environ['RANK']}] "
    terminal(everywhere=everywhere).print(Text.assemble(whose, (heading, "bold red"), text), soft_wrap=True)


def _print_json(kind: str, message: str) -> None:
    from persona.cli.display import print_json

    with suppress(OSError):  # where stdout goes may be what is full
        print_json({"error": {"kind": kind, "message": message}})
