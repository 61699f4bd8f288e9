"""``export`` and ``import``: personas for other programs, and from them."""

from persona.cli.following import sample_command, typed
from persona.cli.options import command
from persona.config import ExportConfig, ImportConfig


@command(ExportConfig)
def export(config: ExportConfig, json: bool) -> None:
    """Write a persona for other programs.

    The file is verified before it is saved; what the other program would ignore is refused.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.export import export

        made = export(config, display)
    lines = [f"Write {made.trigger!r} in the prompt; strength {made.strength:g}."]
    test = typed("sample", [f"a {made.trigger}"], {"--base": made.path})
    record = {"path": str(made.path), "to": config.to, "trigger": made.trigger, "strength": made.strength}
    display.close("export", Outcome(str(made.path), lines, test if config.merge else "", record), as_json=json)


@command(ImportConfig)
def import_lora(config: ImportConfig, json: bool) -> None:
    """Make a persona of another tool's LoRA."""
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.import_lora import import_lora

        made = import_lora(config, display)
    display.close(
        "import",
        Outcome(
            str(made.path),
            [f"Your {made.class_noun}'s token is {made.token}; base: {made.base}."],
            sample_command(f"a [V] {made.class_noun}", made.path, config.base or made.base),
            {"persona": str(made.path), "token": made.token, "class": made.class_noun, "base": made.base},
        ),
        as_json=json,
    )
