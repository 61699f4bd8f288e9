"""The command line: thin over the library, whose names it shares."""

import os
import signal
import sys
import warnings
from typing import Annotated

import typer

from persona import __version__
from persona.cli import drawing, exchanging, measuring, planning, preparing, pretraining, training
from persona.cli.boundary import ENDED, Commands
from persona.cli.options import ADVISED, Command, Json

app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(pretraining.app, name="pretrain")


def main() -> None:
    """Run the program that is called ``persona``."""
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # other libraries' words to their own developers
    if os.environ.get("WORLD_SIZE", "1") == "1":  # one that waits for others would hear of it when the wait ends
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))  # as by Ctrl-C, what is half-written is cleared away
    app(prog_name="persona")


def _version(asked: bool) -> None:
    if asked:
        print(f"persona {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Teach a text-to-image model your subject from a few photos, and draw it anywhere."""
    if context.invoked_subcommand is None:
        from persona.cli.home import welcome

        welcome()


def info(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A persona's folder, a base, or nothing for this machine.")
    ] = "",
    json: Json = False,
) -> None:
    """Describe a persona or a base."""
    from persona.cli.home import inform

    inform(what, as_json=json)


# In the order of --help.
for name, run in {
    "plan": planning.plan,
    "gen-priors": preparing.gen_priors,
    "gen-sets": preparing.gen_sets,
    "gen-sdd": preparing.gen_sdd,
    "train": training.train,
    "sample": drawing.sample,
    "interpolate": drawing.interpolate,
    "export": exchanging.export,
    "import": exchanging.import_lora,
    "evaluate": measuring.evaluate,
    "compare": measuring.compare,
    "info": info,
}.items():
    app.command(name, cls=Command, epilog=ADVISED if name in ("train", "plan") else None)(run)
