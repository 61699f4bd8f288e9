"""``sample`` and ``interpolate``: pictures, series, and what leads from one to the other."""

from collections.abc import Sequence
from pathlib import Path

from persona.cli.following import given, typed
from persona.cli.options import command
from persona.config import InterpolateConfig, SampleConfig
from persona.config.drawing import MOST_FRAMES


@command(SampleConfig)
def sample(config: SampleConfig, json: bool) -> None:
    """Draw images of your subject."""
    from persona.cli.display import Display, Outcome

    with Display() as display:
        if config.base is None and (config.reference or config.subject or config.together):
            display.name_base("clay")
        _find([config.persona] if config.persona else [], config.reference)
        from persona.sample import sample

        pictures = sample(config, display)
    display.close(
        "sample",
        Outcome(
            f"{len(pictures)} image{'s' * (len(pictures) > 1)} in {config.out}",
            [f"{picture.path.name}: {picture.prompt}" for picture in pictures[:: config.n]],
            _after(config, pictures[0].prompt),
            {
                "folder": str(config.out),
                "pictures": [{"path": str(p.path), "prompt": p.prompt, "seed": p.seed} for p in pictures],
                "drawn_with": dict(pictures[0].facts),
            },
        ),
        as_json=json,
    )


@command(InterpolateConfig)
def interpolate(config: InterpolateConfig, json: bool) -> None:
    """Draw a smooth series between two things.

    Two prompts, two personas or two seeds; with one of each, from the base to the persona.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        if config.base is None and config.subject:
            display.name_base("clay")
        _find(config.persona)
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
            _finer(config),
            {
                "folder": str(series.folder),
                "between": series.what,
                "frames": [str(path) for path in series.paths],
                "places": list(series.places),
                "distances": list(series.distances),
                "strip": str(series.strip),
                "animations": [str(path) for path in series.animations],
                "drawn_with": dict(series.facts),
            },
        ),
        as_json=json,
    )


def _find(personas: Sequence[Path], photos: Path | None = None) -> None:
    """Make sure that what was named is there before what takes seconds to load.

    Raises:
        BadPersona: a persona is missing or damaged.
        BadPhotos: the folder of the references cannot be read.
    """
    from persona.folder import Persona

    for folder in personas:
        Persona.open(folder)
    if photos:
        from persona.photos import files

        files(photos)


def _after(config: SampleConfig, prompt: str) -> str:
    """Say what to type after pictures: a series between them, or a training on the references for a better likeness."""
    if config.reference is not None:
        return typed("train", [config.reference], {"--class": config.class_noun, "--base": config.base})
    if config.together or config.checkpoint is not None:  # a series draws the chosen checkpoint alone
        return ""
    told = given(config, InterpolateConfig, but=("out", "batch") if config.subject else ("out",))
    if not config.subject:
        return typed("interpolate", [prompt], {"--seed": [config.seed, config.seed + 1], **told})
    about = {
        flag: [one for one in some if f"[{one.partition('=')[0]}]".lower() in prompt.lower()]
        for flag, some in {"--subject": config.subject, "--mask": config.mask}.items()
    }
    return typed("interpolate", [prompt], {**told, **about, "--seed": config.seed or None})


def _finer(config: InterpolateConfig) -> str:
    """Say what to type after a series: the same one with twice as many steps, where that is not too many.

    One of two frames may have no more: some adapters can only be on or off.
    """
    if not 2 < config.frames <= MOST_FRAMES // 2:
        return ""
    return typed("interpolate", config.prompts, {**given(config, InterpolateConfig), "--frames": 2 * config.frames - 1})
