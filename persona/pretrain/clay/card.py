"""The model card: what clay is and is not, what it knows, and what was measured, with how to measure it again."""

from collections.abc import Iterable, Mapping, Sequence

from persona.clay.world import ACCESSORIES, CLASSES, COLOURS, CONTEXTS, PATTERNS, POSES, PROPERTIES, STYLES, VIEWS
from persona.config import PretrainConfig

_BARS = {
    "prompts: class": 0.90, "prompts: context": 0.90, "prompts: style": 0.90, "prompts: colour": 0.85,
    "prompts: view": 0.80, "prompts: accessory": 0.75, "autoencoder: renders, dB": 28, "autoencoder: photos, dB": 23,
    **{f"judge: {head}": 0.97 for head in ("class", "colour", "pattern", "context", "style", "view", "accessory")},
    "judge: identity": 0.95, "segmenter: overlap": 0.9, "encoder: identity": 0.8,
    "seconds a picture": 1.5, "megabytes": 60,
}  # fmt: skip
"""The target of each figure; the last two should stay below theirs."""
_LABELS = {
    "seconds a picture": "seconds an image, drawn alone, at most",
    "megabytes": "megabytes of pipeline and judge, at most",
}
"""What figures are called in the card, where their names do not say enough."""

_CARD = """# Clay

The small text-to-image model that ships inside persona, so that its commands run at once, offline, on two CPU cores. It
draws toys of a small world that persona renders itself, at 128x128, and nothing else: no people, no real places, no
photographs. For those, name a real base with `--base`.

It is an ordinary diffusers `StableDiffusionPipeline` (v-prediction, zero terminal SNR, 16x16 latents of 8 channels) and
loads without persona's code; to draw what persona draws, start guidance after two of 25 steps. All of its training data
was rendered: nobody's images and nobody's text are in it.

## What it knows

{words}

![samples](samples/step-{steps:06}.png)

## What was measured

Prompts are compositions of class, place and style that were held out from all training, as were the subjects; images
are drawn in 25 steps and read by the judge, a classifier; the judge itself is measured on held-out renders. In a
checkout `python examples/measure_clay.py --photos PHOTOS` measures the weights that ship. Weights and figures are made
again by

```sh
{command}
```
{lengthened}
{figures}

## How it was made

By that command, from scratch, on two CPU cores: {pictures:,} rendered scenes, {sets:,} sets of four scenes of one
subject for the judge and the encoder of references. Each stage took:

{times}

## What it is bad at

Photographs: it was shown none, and learns photographed subjects only roughly, in more steps and in more of its layers.
Words that it does not know: a warning names them. Two subjects in one image, counting, writing, and whatever else is
not listed above. It is a test bench for persona's methods, made to be measured, not a model to make art with.
"""

_LENGTHENED = """
It does not make these very weights: {}, and the learning rate had fallen already when training went on.
"""


def text(
    figures: Mapping[str, float],
    seconds: Mapping[str, float],
    config: PretrainConfig,
    lengths: Mapping[str, Sequence[int]],
) -> str:
    """Return the card as Markdown.

    Args:
        figures: what was measured, by the names that the evaluation gives it.
        seconds: how long each stage took.
        config: how the weights were made.
        lengths: how many steps each training was to take, by its option: several where it was made longer.
    """
    known = {
        "classes": CLASSES, "places": CONTEXTS, "styles": STYLES, "views": VIEWS, "poses": POSES, "colours": COLOURS,
        "patterns": PATTERNS, "clothes": ACCESSORIES, "properties": PROPERTIES,
    }  # fmt: skip
    usual = PretrainConfig().record()
    told = (f"{_flag(name)} {value}" for name, value in config.record().items() if value != usual[name])
    longer = [f"`{_flag(name)}` was {', then '.join(map(str, steps))}" for name, steps in lengths.items() if steps[1:]]
    return _CARD.format(
        words="\n".join(f"* {name}: {', '.join(words)}" for name, words in known.items()),
        command=" ".join(("persona pretrain clay", *told)),
        lengthened=_LENGTHENED.format("; ".join(longer)) if longer else "",
        steps=config.denoiser_steps,
        figures=measured(figures),
        pictures=config.pictures,
        sets=config.sets,
        times=_table(("stage", "minutes"), ((stage, f"{taken / 60:.0f}") for stage, taken in seconds.items())),
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def measured(figures: Mapping[str, float]) -> str:
    """Return what was measured beside its targets, as Markdown."""
    return _table(("figure", "measured", "target"), _rows(figures))


def _rows(figures: Mapping[str, float]) -> Iterable[tuple[str, ...]]:
    for name, value in figures.items():
        share = name.startswith(("prompts", "judge", "segmenter", "encoder"))
        yield (
            _LABELS.get(name, name),
            *(f"{number:.1%}" if share else f"{number:.3g}" for number in (value, _BARS[name])),
        )


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (heads, ("---",) * len(heads), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
