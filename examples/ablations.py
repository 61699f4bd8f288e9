"""The ablations of the DreamBooth paper (2208.12242, section 4.4 and appendix), on clay, as Markdown.

    python examples/ablations.py [OUT] [--subjects N] [-n N]

For each of some subjects that no training of clay saw: with prior preservation, by class images as in the paper, and
without; with the right class noun, a wrong one and none; with one to five photos. All of them draw the 25 prompts of
the protocol and are read by clay's judge. Written to OUT/ablations.md, with OUT/report.html beside it. If interrupted,
run the same command again to resume.
"""

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import persona
from persona.evaluate import Evaluation, clay
from persona.evaluate.entrants import Entrant, Studio, of_persona
from persona.evaluate.run import measure
from persona.evaluate.subjects import Prompt, Subject
from persona.evaluate.tables import as_markdown

FULL = "all five photos, right class, prior preservation"
CLASS_IMAGES = "class images drawn by the base, as in the paper"
NO_PRIOR, NO_CLASS, WRONG_CLASS = "no prior preservation", "no class noun", "wrong class noun"


def main() -> None:
    """Train what is missing, measure, and write OUT/ablations.md."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", nargs="?", type=Path, default=Path("build/ablations"))
    options.add_argument("--subjects", default="6", help="how many of clay's classes, or their names with commas")
    options.add_argument("-n", type=int, default=2, help="images of each prompt, at least 2")
    given = options.parse_args()
    if given.n < 2:
        options.error("-n 2 or more: one image of a prompt says nothing of their diversity")
    config = persona.EvaluateConfig(dreambench="clay", subjects=given.subjects, n=given.n, out=given.out)
    studio = Studio(given.out, "clay", 0, print)
    subjects = clay.subjects(given.out / "subjects", given.subjects)
    entrants = [one for subject in subjects for one in ablated(subject, studio)]
    found = measure(config, sorted(entrants, key=lambda one: one.label != FULL), print)
    text = as_markdown(found.rows, found.columns) + "\n" + "\n".join(verdicts(found)) + "\n"
    (given.out / "ablations.md").write_text(text, encoding="utf-8")
    print(text)


def ablated(subject: Subject, studio: Studio) -> Iterator[Entrant]:
    """Train the subject in every way that is compared."""
    wrong = "dog" if subject.class_noun == "car" else "car"
    photos = studio.out / "subjects" / subject.name
    yield learnt(FULL, photos, subject, studio)
    yield learnt(CLASS_IMAGES, photos, subject, studio, prior="generated")
    yield learnt(NO_PRIOR, photos, subject, studio, prior="none")
    yield learnt(WRONG_CLASS, photos, subject, studio, class_noun=wrong)
    nameless = learnt(NO_CLASS, chosen(photos, 5, studio.out, caption="a [V]"), subject, studio)
    yield replace(nameless, text=lambda prompt: nameless.text(without_class(prompt)))
    for number in range(1, 5):
        yield learnt(photos_of(number), chosen(photos, number, studio.out), subject, studio)


def photos_of(number: int) -> str:
    """Name what is learnt from so many photos."""
    return FULL if number == 5 else f"{number} photo{'s' * (number > 1)}"


def learnt(label: str, photos: Path, subject: Subject, studio: Studio, **settings: Any) -> Entrant:
    """Train with nothing but the token and what is compared, unless that was done before."""
    noun = settings.pop("class_noun", subject.class_noun)
    out = studio.out / "personas" / f"{subject.name}, {label}"
    config = persona.TrainConfig(photos=photos, class_noun=noun, token="sks", out=out, **settings)
    made = persona.Persona.open(out) if (out / "persona.json").exists() else persona.train(config, studio.listener)
    return of_persona(made, subject, studio, label=label)[0]


def chosen(photos: Path, number: int, out: Path, caption: str = "") -> Path:
    """Return a folder with the first photos of another, each with a caption where one is given."""
    folder = out / "subjects" / f"{photos.name}, {number} {caption or 'photos'}"
    folder.mkdir(parents=True, exist_ok=True)
    for photo in sorted(photos.glob("*.png"))[:number]:
        shutil.copyfile(photo, folder / photo.name)
        if caption:
            (folder / photo.name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    return folder


def without_class(prompt: Prompt) -> Prompt:
    """Leave the class noun out of a prompt about the subject."""
    return replace(prompt, template=prompt.template.replace("[V] {class}", "[V]"))


def verdicts(found: Evaluation) -> Iterator[str]:
    """Say where the signs are those of the paper."""
    means = {row.label: {name: cell.mean for name, cell in row.cells.items()} for row in found.rows}
    full, bare = means[FULL], means[NO_PRIOR]
    identity = {label: scores.get("identity", 0.0) for label, scores in means.items()}
    by_photos = [identity[photos_of(number)] for number in range(1, 6)]
    signs = {
        "Prior preservation lowers PRES.": full["PRES (judge)"] < bare["PRES (judge)"],
        "Prior preservation raises DIV.": full["DIV (judge)"] > bare["DIV (judge)"],
        "Identity is best with the right class noun, then with a wrong one, then with none.": (
            identity[FULL] > identity[WRONG_CLASS] > identity[NO_CLASS]
        ),
        "More photos show more of the identity (four or five against one).": max(by_photos[3:]) > by_photos[0],
    }
    for sentence, holds in signs.items():
        yield f"* {'As in the paper' if holds else 'Not as in the paper'}: {sentence}"


if __name__ == "__main__":
    main()
