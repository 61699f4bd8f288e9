"""The command line: thin over the library, whose names it shares."""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from persona import __version__
from persona.cli import measuring, planning, pretraining
from persona.cli.boundary import Commands
from persona.cli.options import Command, Json, command
from persona.config import (
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    InterpolateConfig,
    PlanConfig,
    PriorsConfig,
    SampleConfig,
    SddConfig,
    SetsConfig,
    TrainConfig,
)

app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(pretraining.app, name="pretrain")


def main() -> None:
    """Run the program that is called ``persona``."""
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # other libraries' words to their own developers
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


app.command(cls=Command)(command(PlanConfig)(planning.plan))


@app.command("gen-priors", cls=Command)
@command(PriorsConfig)
def gen_priors(config: PriorsConfig, json: bool) -> None:
    """Draw class pictures with the frozen base.

    They keep the class as it was while a subject is learnt, and all subjects of a class share them.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        display.name_base(config.base)
        from persona.priors import gen_priors

        pictures = gen_priors(config, display)
    folders = sorted({str(picture.parent) for picture in pictures})
    display.close(
        "gen-priors",
        Outcome(
            f"{len(pictures)} pictures of a {config.class_noun}",
            folders,
            f"persona train PHOTOS --class {shlex.quote(config.class_noun)}{_base(config.base)}",
            {"class": config.class_noun, "base": config.base, "folders": folders, "pictures": list(map(str, pictures))},
        ),
        as_json=json,
    )


@app.command("gen-sets", cls=Command)
@command(SetsConfig)
def gen_sets(config: SetsConfig, json: bool) -> None:
    """Draw sets of pictures of one subject.

    A base learns JeDi from them. Stopped, the same command goes on where it was.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        display.name_base(config.base)
        from persona.pretrain.collages.run import gen_sets

        made = gen_sets(config, display)
    display.close(
        "gen-sets",
        Outcome(
            f"{made.figures['sets']} sets of {made.figures['pictures']} pictures in {made.folder}",
            [
                f"Of {made.figures['collages']} collages with {made.figures['panels']} panels.",
                *(f"{number} dropped: {why}" for why, number in made.dropped.items()),
                f"Look at them: {made.sheets[0].parent}",
            ],
            f"persona pretrain jedi --base {shlex.quote(config.base)} --data {shlex.quote(str(made.folder))}",
            {
                "folder": str(made.folder),
                **made.figures,
                "dropped": dict(made.dropped),
                "sheets": list(map(str, made.sheets)),
            },
        ),
        as_json=json,
    )


@app.command("gen-sdd", cls=Command)
@command(SddConfig)
def gen_sdd(config: SddConfig, json: bool) -> None:
    """Write down who is where in pictures.

    A base learns Subject-Diffusion from them. Stopped, the same command goes on where it was.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.pretrain.sdd import gen_sdd

        made = gen_sdd(config, display)
    display.close(
        "gen-sdd",
        Outcome(
            f"{made.records} records of {made.pictures} pictures in {made.folder}",
            [
                *(f"{number} dropped: {reason}" for reason, number in made.dropped.items()),
                *([f"Look at them: {made.sheet}"] if made.sheet else []),
            ],
            f"persona pretrain subject-diffusion --base sd15 --data {shlex.quote(str(made.folder))}",
            {
                "folder": str(made.folder),
                "pictures": made.pictures,
                "records": made.records,
                "dropped": dict(made.dropped),
                "sheet": str(made.sheet) if made.sheet else None,
            },
        ),
        as_json=json,
    )


@app.command(cls=Command)
@command(TrainConfig)
def train(config: TrainConfig, json: bool) -> None:
    """Teach a base your subject from photos.

    What it makes is a persona: a folder that holds all that the other commands need.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        display.name_base(config.base)
        from persona.train import train

        made = train(config, display)
    display.close(
        "train",
        Outcome(
            str(made.path),
            [
                f"A {made.class_noun} that is called {made.token}, for the base {made.base}.",
                *_scored(made.scores),
                f"Look at it: {made.path / 'report.html'}",
            ],
            f"persona sample {shlex.quote(f'a [V] {made.class_noun} on the beach')}{_where(made.path, config.base)}",
            {
                "persona": str(made.path),
                "token": made.token,
                "class": made.class_noun,
                "base": made.base,
                "scale": made.recommended_scale,
                "scores": dict(made.scores),
                "report": str(made.path / "report.html"),
            },
        ),
        as_json=json,
    )


@app.command(cls=Command)
@command(SampleConfig)
def sample(config: SampleConfig, json: bool) -> None:
    """Draw pictures of your subject."""
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.sample import sample

        pictures = sample(config, display)
    display.close(
        "sample",
        Outcome(
            f"{len(pictures)} pictures in {config.out}",
            [f"{picture.path.name}: {picture.prompt}" for picture in pictures[:: config.n]],
            _after(config, pictures[0].prompt),
            {
                "folder": str(config.out),
                "pictures": [{"path": str(p.path), "prompt": p.prompt, "seed": p.seed} for p in pictures],
            },
        ),
        as_json=json,
    )


@app.command(cls=Command)
@command(InterpolateConfig)
def interpolate(config: InterpolateConfig, json: bool) -> None:
    """Draw a smooth series between two things.

    Two prompts, two personas or two seeds; with one of each, from the base to the persona.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.interpolate import interpolate

        series = interpolate(config, display)
    display.close(
        "interpolate",
        Outcome(
            str(series.folder),
            [
                f"{len(series.paths)} frames, from {series.what}.",
                f"Look at it: {series.strip.name}, {', '.join(path.name for path in series.animations)}",
            ],
            "",
            {
                "folder": str(series.folder),
                "between": series.what,
                "frames": [str(path) for path in series.paths],
                "places": list(series.places),
                "distances": list(series.distances),
                "strip": str(series.strip),
                "animations": [str(path) for path in series.animations],
            },
        ),
        as_json=json,
    )


@app.command(cls=Command)
@command(ExportConfig)
def export(config: ExportConfig, json: bool) -> None:
    """Write a persona for other programs.

    The file is read back before it is there; what the other program would drop is refused.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.export import export

        made = export(config, display)
    lines = [f"Write {made.trigger!r} in the prompt; strength {made.strength:g}."]
    test = f"persona sample {shlex.quote(f'a {made.trigger}')} --base {shlex.quote(str(made.path))}"
    record = {"path": str(made.path), "to": config.to, "trigger": made.trigger, "strength": made.strength}
    display.close("export", Outcome(str(made.path), lines, test if config.merge else "", record), as_json=json)


@app.command("import", cls=Command)
@command(ImportConfig)
def import_lora(config: ImportConfig, json: bool) -> None:
    """Make a persona of another program's LoRA."""
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.import_lora import import_lora

        made = import_lora(config, display)
    display.close(
        "import",
        Outcome(
            str(made.path),
            [f"A {made.class_noun} that is called {made.token}, for the base {made.base}."],
            f"persona sample {shlex.quote(f'a [V] {made.class_noun}')}{_where(made.path, config.base or made.base)}",
            {"persona": str(made.path), "token": made.token, "class": made.class_noun, "base": made.base},
        ),
        as_json=json,
    )


app.command(cls=Command)(command(EvaluateConfig)(measuring.evaluate))
app.command(cls=Command)(command(CompareConfig)(measuring.compare))


@app.command(cls=Command)
def info(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A persona's folder, a base, or nothing for this machine.")
    ] = "",
    json: Json = False,
) -> None:
    """Show facts of a persona or a base."""
    from persona.cli.home import inform

    inform(what, as_json=json)


def _after(config: SampleConfig, prompt: str) -> str:
    """Say what to type after pictures: a series between them, or a training on the references for a better likeness."""
    if config.reference is not None:
        words: list[object] = ["train", config.reference, "--class", config.class_noun]
    elif config.together:
        return ""
    elif config.subject:
        words = ["interpolate", prompt]
        for flag, given in (("--subject", config.subject), ("--mask", config.mask)):
            there = [one for one in given if f"[{one.partition('=')[0]}]".lower() in prompt.lower()]
            words += [word for one in there for word in (flag, one)]
        words += ["--subject-diffusion", config.subject_diffusion] if config.subject_diffusion else []
    else:
        words = ["interpolate", prompt, "--seed", config.seed, "--seed", config.seed + 1]
        words += ["--persona", config.persona] if config.persona else []
    words += ["--base", config.base] if config.base else []
    return shlex.join(["persona", *map(str, words)])


def _base(base: str) -> str:
    return "" if base == "clay" else f" --base {shlex.quote(base)}"


def _where(folder: Path, base: str) -> str:
    """Say where a persona is, if not where it is looked for, and its base, if only this machine knows it."""
    local = Path(base).exists()
    named = f" --persona {shlex.quote(str(folder))}" if local or folder.parent != Path("personas") else ""
    return named + (f" --base {shlex.quote(base)}" if local else "")


def _scored(scores: Mapping[str, float]) -> list[str]:
    return ["  ".join(f"{name} {value:.3f}" for name, value in scores.items())] if scores else []
