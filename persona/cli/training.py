"""``train``: a persona, how it scored, and how to draw with it."""

from collections.abc import Mapping

from persona.cli.following import sample_command
from persona.cli.options import command
from persona.config import TrainConfig


@command(TrainConfig)
def train(config: TrainConfig, json: bool) -> None:
    """Teach a base your subject from photos.

    The result is a persona: a folder with all that the other commands need. If interrupted, run the same command again
    to resume.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        display.name_base(config.base)
        from persona.photos import files

        files(config.photos)  # a name mistyped is told before what takes seconds to load
        from persona.train import train

        made = train(config, display)
    display.close(
        "train",
        Outcome(
            str(made.path),
            [
                f"Your {made.class_noun}'s token is {made.token}; base: {made.base}.",
                *_scored(made.scores),
                f"Look at it: {made.path / 'report.html'}",
            ],
            sample_command(f"a [V] {made.class_noun} on the beach", made.path, config.base),
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


def _scored(scores: Mapping[str, float]) -> list[str]:
    return ["  ".join(f"{name} {value:.3f}" for name, value in scores.items())] if scores else []
