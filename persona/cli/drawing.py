"""``sample`` and ``interpolate``: pictures, series, and what leads from one to the other."""

import shlex

from persona.cli.options import command
from persona.config import InterpolateConfig, SampleConfig


@command(SampleConfig)
def sample(config: SampleConfig, json: bool) -> None:
    """Draw pictures of your subject."""
    from persona.cli.display import Display, Outcome

    with Display() as display:
        if config.base is None and (config.reference or config.subject or config.together):
            display.name_base("clay")
        from persona.sample import sample

        pictures = sample(config, display)
    display.close(
        "sample",
        Outcome(
            f"{len(pictures)} picture{'s' * (len(pictures) > 1)} in {config.out}",
            [f"{picture.path.name}: {picture.prompt}" for picture in pictures[:: config.n]],
            _after(config, pictures[0].prompt),
            {
                "folder": str(config.out),
                "pictures": [{"path": str(p.path), "prompt": p.prompt, "seed": p.seed} for p in pictures],
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
