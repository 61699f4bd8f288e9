"""Commands, as they are typed on a narrow terminal."""

from typer.testing import CliRunner, Result

from persona.cli import app


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(
        app, list(arguments), prog_name="persona", terminal_width=60, env={"COLUMNS": "60", **environment}
    )
