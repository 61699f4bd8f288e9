"""The commands that make clay, and teach a base more methods."""

from typing import Any

import typer

from persona.cli.following import typed
from persona.cli.options import Command, command
from persona.config import JediConfig, PretrainConfig, SubjectDiffusionConfig

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def pretrain() -> None:
    """Make clay, or teach a base more methods."""


@app.command(cls=Command)
@command(PretrainConfig)
def clay(config: PretrainConfig, json: bool) -> None:
    """Train the built-in base from scratch.

    Its world is rendered, and taught to the base and its judge. It takes hours; if interrupted, run the same command
    again to resume.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.pretrain.clay.run import pretrain_clay

        made = pretrain_clay(config, display)
    display.close(
        "pretrain clay",
        Outcome(
            str(made.weights),
            [f"What it can do: {made.card}", f"Look at it: {made.report}"],
            typed("sample", ["a dog on the beach"], {"--base": made.weights}),
            {
                "weights": str(made.weights),
                "card": str(made.card),
                "report": str(made.report),
                "figures": dict(made.figures),
            },
        ),
        as_json=json,
    )


@app.command(cls=Command)
@command(JediConfig)
def jedi(config: JediConfig, json: bool) -> None:
    """Teach a base to draw from references.

    From images of a subject, without training on them. It takes hours; if interrupted, run the same command again to
    resume.
    """
    from persona.cli.display import Display

    with Display() as display:
        from persona.pretrain.jedi import pretrain_jedi

        made = pretrain_jedi(config, display)
    _close(display, "pretrain jedi", made, as_json=json)


@app.command("subject-diffusion", cls=Command)
@command(SubjectDiffusionConfig)
def subject_diffusion(config: SubjectDiffusionConfig, json: bool) -> None:
    """Teach a base to draw from one image.

    One or two subjects, each from one image, where they are wanted. It takes hours; if interrupted, run the same
    command again to resume.
    """
    from persona.cli.display import Display

    with Display() as display:
        from persona.pretrain.subject_diffusion import pretrain_subject_diffusion

        made = pretrain_subject_diffusion(config, display)
    _close(display, "pretrain subject-diffusion", made, as_json=json)


def _close(display: Any, name: str, made: Any, *, as_json: bool) -> None:
    """Say what a method has learned."""
    from persona.cli.display import Outcome

    record = {"weights": str(made.weights), "report": str(made.report)}
    display.close(name, Outcome(str(made.weights), [f"Look at it: {made.report}"], "", record), as_json=as_json)
