"""``gen-priors``, ``gen-sets`` and ``gen-sdd``: what is made before a training."""

from persona.cli.following import real, typed
from persona.cli.options import command
from persona.config import PriorsConfig, SddConfig, SetsConfig


@command(PriorsConfig)
def gen_priors(config: PriorsConfig, json: bool) -> None:
    """Draw class images with the frozen base.

    With --prior generated they keep the class as it was while a subject is learned, and all subjects of a class share
    them.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        display.name_base(config.base)
        from persona.placing import any_of
        from persona.priors import gen_priors

        pictures = gen_priors(config, display)
    folders = sorted({str(picture.parent) for picture in pictures})
    # A training finds the plain ones where it would draw them, and takes others from one folder.
    noun, base, side = config.class_noun, config.base, config.resolution
    plain = PriorsConfig(class_noun=noun, base=base, resolution=side, n=config.n, batch=config.batch)
    prior = "generated" if config == plain else f"folder:{folders[0]}"
    told = {"--class": noun, "--base": real(base), "--prior": prior, "--priors": config.n, "--resolution": side}
    several = ["A training takes one folder: --prior folder:DIR, with one of these or with copies of all in it."]
    display.close(
        "gen-priors",
        Outcome(
            f"{len(pictures)} images of {any_of(noun)}",
            folders if len(folders) == 1 else [*folders, *several],
            typed("train", ["PHOTOS"], told) if len(folders) == 1 else "",
            {"class": noun, "base": base, "folders": folders, "pictures": list(map(str, pictures))},
        ),
        as_json=json,
    )


@command(SetsConfig)
def gen_sets(config: SetsConfig, json: bool) -> None:
    """Make training data for JeDi.

    Sets of images of one subject. If interrupted, run the same command again to resume.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        display.name_base(config.base)
        from persona.pretrain.collages.run import gen_sets

        made = gen_sets(config, display)
    display.close(
        "gen-sets",
        Outcome(
            f"{made.figures['sets']} sets of {made.figures['pictures']} images in {made.folder}",
            [
                f"Of {made.figures['collages']} collages with {made.figures['panels']} panels.",
                *(f"{number} dropped: {why}" for why, number in made.dropped.items()),
                f"Look at them: {made.sheets[0].parent}",
            ],
            typed("pretrain jedi", options={"--base": config.base, "--data": made.folder})
            if made.figures["sets"]
            else "",
            {
                "folder": str(made.folder),
                **made.figures,
                "dropped": dict(made.dropped),
                "sheets": list(map(str, made.sheets)),
            },
        ),
        as_json=json,
    )


@command(SddConfig)
def gen_sdd(config: SddConfig, json: bool) -> None:
    """Make training data for Subject-Diffusion.

    Records of which subjects images show, and where. If interrupted, run the same command again to resume.
    """
    from persona.cli.display import Display, Outcome

    with Display() as display:
        from persona.pretrain.sdd import gen_sdd

        made = gen_sdd(config, display)
    display.close(
        "gen-sdd",
        Outcome(
            f"{made.records} records of {made.pictures} images in {made.folder}",
            [
                *(f"{number} dropped: {reason}" for reason, number in made.dropped.items()),
                *([f"Look at them: {made.sheet}"] if made.sheet else []),
            ],
            typed("pretrain subject-diffusion", options={"--base": "sd15", "--data": made.folder})
            if made.records
            else "",
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
