"""Measures subjects of one reference each on clay, and writes the tables as Markdown.

    python examples/subject_diffusion.py [OUT] [--pairs N] [--seeds N] [--only one|two|series ...] [--whole]
        [--weights DIR] [--uncontrolled DIR]

For each pair of subjects that no training saw, half of them two of one class: each alone, both beside each other, and
the way from the one to what the text alone shows. Every reference is a fresh render, cut out by clay's own segmenter.
Identity is recovered identity by clay's judge, which looks at each half of an image of two alone. If interrupted, run
the same command again to resume. The ablations leave a component of the method out; attention control, which only
training knows, by other weights:

    persona pretrain subject-diffusion --attention-control 0 --out pretraining/uncontrolled
"""

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median

import numpy as np
from jedi import renders, timed
from PIL import Image
from table import STYLES, resumed

import persona
from persona import portraits
from persona.clay import weights_folder, world
from persona.clay.judge import Judge
from persona.clay.segmenter import Segmenter
from persona.clay.world.captions import CONTEXT_PHRASES, STYLE_PHRASES
from persona.drawing import open_base
from persona.families import Family
from persona.methods.casting import Portrait
from persona.methods.gated import Gate
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.photos import picture
from persona.photos.cutouts import box_of
from persona.placing import Box, plain
from persona.portraits import Reference
from persona.pretrain import filters

SEED = 1_000_003
"""Of subjects that no training draws."""
CLASSES = (("dog", "teapot"), ("cat", "car"), ("rabbit", "robot"), ("dog", "dog"), ("cat", "cat"), ("car", "car"))
ALONE: tuple[Box, ...] = ((0.1, 0.3, 0.6, 0.9), (0.4, 0.3, 0.9, 0.9), (0.2, 0.2, 0.8, 0.9))
CONTEXTS = ("jungle", "beach", "snow", "cobblestone street", "wooden floor", "city", "purple rug", "water")
BESIDE: tuple[Box, Box] = ((0.05, 0.35, 0.48, 0.9), (0.52, 0.35, 0.95, 0.9))
PRESENT = 0.5
"""Recovered identity from which a subject counts as present."""
FRAMES = 9
LEAP = 1 / 3
"""Share of the whole way that one frame may go at most."""
TIMED, RENDERS, SERIES = 3, 12, 2
FORMS = {
    "identity": ".2f", "both present": ".0%", "mix-ups": ".0%", "context": ".0%", "style": ".0%", "box": ".2f",
    "seconds": ".1f",
}  # fmt: skip
"""How the figures of a table are written."""
KEPT = ("context", "style")
"""Those that are told as shares of the base's."""
PARTS = ("one", "two", "series")
"""What is looked at: one subject, two of them, and the way from one to what the text alone shows."""


@dataclass(frozen=True)
class Pair:
    """Two subjects with a reference and fresh renders of each.

    Attributes:
        nouns: what they are.
        references: a picture of each.
        renders: what each looks like elsewhere.
        people: who they are.
    """

    nouns: tuple[str, str]
    references: tuple[Path, Path]
    renders: tuple[list[Image.Image], list[Image.Image]]
    people: tuple[world.Subject, world.Subject]

    @classmethod
    def of(cls, number: int, folder: Path) -> "Pair":
        rng = np.random.default_rng((SEED, 5, number))
        nouns, people = CLASSES[number], [world.random_subject(rng, noun) for noun in CLASSES[number]]
        folder.mkdir(parents=True, exist_ok=True)
        for place, who in enumerate(people):
            scene = world.random_scene(rng, (who,), style="photo", view="three-quarter", accessory=None, property=None)
            world.render(scene).image.save(folder / f"{place}.png")
        first, second = (renders(who) for who in people)
        return cls(nouns, (folder / "0.png", folder / "1.png"), (first, second), (people[0], people[1]))


@dataclass(frozen=True)
class Tools:
    """What draws, and what looks."""

    method: SubjectDiffusion
    judge: Judge
    segmenter: Segmenter

    @property
    def base(self) -> Family:
        return self.method.base

    def portraits(self, pair: Pair, boxes: Sequence[Box | None]) -> dict[str, Portrait]:
        """Return the subjects of a pair, [V] and [W], where they shall stand."""
        known = {
            name: Reference(picture(path), box=box)
            for name, path, box in zip("VW", pair.references, boxes, strict=False)
        }
        return portraits.paint(self.method, known, portraits.cut_out(known, self.base))


def main() -> None:
    """Measure, then write OUT/table.md."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", nargs="?", type=Path, default=Path("build/subject-diffusion"))
    options.add_argument("--pairs", type=int, default=len(CLASSES))
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what to look at")
    options.add_argument("--whole", action="store_true", help="leave out the ablations")
    options.add_argument("--weights", type=Path, help="folder of other weights than clay's own")
    options.add_argument("--uncontrolled", type=Path, help="folder of weights learned without attention control")
    given = options.parse_args()
    rows: dict[str, list[dict[str, float]]] = {}
    for number in range(given.pairs):
        for name, figures in measured(number, given).items():
            rows.setdefault(name, []).append(figures)
    table = as_markdown(rows)
    (given.out / "table.md").write_text(table, encoding="utf-8")
    print(table)


def measured(number: int, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the figures of a pair by what was left out, from the file of an earlier call where they are there."""
    folder = given.out / f"pair-{number}"
    pair = Pair.of(number, folder)
    seeds, parts = given.seeds, given.only
    jobs: dict[str, Callable[[], dict[str, float]]] = {"base": partial(of_base, pair, seeds, parts)}
    if "two" in parts:
        jobs["renders of both"] = partial(of_renders, pair)
    jobs["all of it"] = partial(of_method, pair, given.weights, seeds, nothing, parts)
    ablations = {"without the box channel": unplaced, "without details of the reference": undetailed}
    parts = [part for part in parts if part != "series"]
    for name, leave_out in ({} if given.whole else ablations).items():
        jobs[name] = partial(of_method, pair, given.weights, seeds, leave_out, parts)
    if given.uncontrolled:
        jobs["without attention control"] = partial(of_method, pair, given.uncontrolled, seeds, nothing, parts)
    asked = {"weights": str(given.weights), "uncontrolled": str(given.uncontrolled)}
    return resumed(folder, jobs, seeds=seeds, parts=list(given.only), **asked)


def nothing(method: SubjectDiffusion) -> None:
    """Leave nothing out."""


def unplaced(method: SubjectDiffusion) -> None:
    """Close the channel that says where subjects are; the gates and the codes of the boxes still do."""
    method.channels.weight.data.zero_()


def undetailed(method: SubjectDiffusion) -> None:
    """Close the gates that details pass."""
    for adapter in method.gates.adapters.values():
        assert isinstance(adapter, Gate)
        for gate in adapter.closing:
            gate.weight.data.zero_()
            gate.bias.data.zero_()


def of_base(pair: Pair, seeds: int, parts: Collection[str]) -> dict[str, float]:
    base, judge = open_base("clay"), Judge.load(weights_folder() / "judge")

    def draw(prompts: Sequence[str], numbers: Sequence[int]) -> list[Image.Image]:
        return base.draw([plain(prompt) for prompt in prompts], numbers)

    figures: dict[str, float] = {}
    for who, name in ((alone(pair), "one"), (both(pair), "two")):
        if name not in parts:
            continue
        prompts, numbers, _ = asked(who, seeds)
        figures |= kept(draw(prompts, numbers), draw, judge, who, name, seeds)
    return figures


def of_method(
    pair: Pair,
    weights: Path | None,
    seeds: int,
    leave_out: Callable[[SubjectDiffusion], None],
    parts: Collection[str],
) -> dict[str, float]:
    base = open_base("clay")
    folder = weights_folder()
    tools = Tools(
        SubjectDiffusion.load(base, weights), Judge.load(folder / "judge"), Segmenter.load(folder / "segmenter")
    )
    leave_out(tools.method)
    figures = of_one(tools, pair, seeds) if "one" in parts else {}
    figures |= of_two(tools, pair, seeds) if "two" in parts else {}
    return figures | (of_series(tools.judge, pair, weights) if "series" in parts else {})


def alone(pair: Pair) -> str:
    return f"a [V] {pair.nouns[0]}"


def both(pair: Pair) -> str:
    return f"a [V] {pair.nouns[0]} next to a [W] {pair.nouns[1]}"


def asked(who: str, seeds: int) -> tuple[list[str], list[int], list[str]]:
    """Return prompts of new places, a seed for each, and the places."""
    told = [(context, seed) for context in CONTEXTS for seed in range(seeds)]
    prompts = [f"a photo of {who} {CONTEXT_PHRASES[context][0]}" for context, _ in told]
    return prompts, [seed for _, seed in told], [context for context, _ in told]


def kept(
    placed: Sequence[Image.Image],
    draw: Callable[[Sequence[str], Sequence[int]], list[Image.Image]],
    judge: Judge,
    who: str,
    name: str,
    seeds: int,
) -> dict[str, float]:
    """Return the shares of the pictures that were asked for whose place is right, and of paintings whose style is."""
    _, _, contexts = asked(who, seeds)
    styles = [(style, seed) for style in STYLES for seed in range(seeds)]
    painted = draw([STYLE_PHRASES[style][0].format(who) for style, _ in styles], [seed for _, seed in styles])
    read = judge.read(placed)[0]["context"], judge.read(painted)[0]["style"]
    wanted = contexts, [style for style, _ in styles]
    right = [mean(a == b for a, b in zip(*pair, strict=True)) for pair in zip(read, wanted, strict=True)]
    return {f"{name}: context": right[0], f"{name}: style": right[1]}


def of_one(tools: Tools, pair: Pair, seeds: int) -> dict[str, float]:
    """Draw the first subject alone: where it is left to the method, and in boxes."""
    method, judge, noun = tools.method, tools.judge, pair.nouns[0]
    known = tools.portraits(pair, [None])

    def draw(prompts: Sequence[str], numbers: Sequence[int]) -> list[Image.Image]:
        return method.draw(prompts, numbers, portraits=known)

    prompts, numbers, _ = asked(alone(pair), seeds)
    drawn = draw(prompts, numbers)
    seen = judge.read(drawn)[1]
    agreed = []
    for box in ALONE:
        placed = method.draw(prompts, numbers, portraits=tools.portraits(pair, [box]))
        agreed += [overlap(box, mask) for mask in tools.segmenter.masks(placed)]
    return {
        "one: identity": judge.recovered(seen, judge.read(pair.renders[0])[1], noun).mean().item(),
        "one: box": mean(agreed),
        "one: seconds": median(timed(draw, prompts[0], seed) for seed in range(TIMED)),
        **kept(drawn, draw, judge, alone(pair), "one", seeds),
    }


def of_two(tools: Tools, pair: Pair, seeds: int) -> dict[str, float]:
    """Draw both beside each other, and look at each half of the pictures alone."""
    method, judge = tools.method, tools.judge
    known = tools.portraits(pair, BESIDE)

    def draw(prompts: Sequence[str], numbers: Sequence[int]) -> list[Image.Image]:
        return method.draw(prompts, numbers, portraits=known)

    prompts, numbers, _ = asked(both(pair), seeds)
    drawn = draw(prompts, numbers)
    masks = tools.segmenter.masks(drawn)
    agreed = [overlap(box, in_half(mask, place)) for place, box in enumerate(BESIDE) for mask in masks]
    return {
        **known_again([[half(one, box) for one in drawn] for box in BESIDE], judge, pair),
        "two: box": mean(agreed),
        "two: seconds": median(timed(draw, prompts[0], seed) for seed in range(TIMED)),
        **kept(drawn, draw, judge, both(pair), "two", seeds),
    }


def of_renders(pair: Pair) -> dict[str, float]:
    """Return what the judge would say of pictures that show both as they are: it has to look at parts of pictures."""
    rng = np.random.default_rng(12_345)
    shown: tuple[list[Image.Image], list[Image.Image]] = ([], [])
    while len(shown[0]) < RENDERS:
        scene = world.random_scene(
            rng, pair.people, style="photo", view="three-quarter", relation="next to", accessory=None, property=None
        )
        rendered = world.render(scene)
        for part, mask in zip(shown, rendered.masks, strict=True):
            part.append(half(rendered.image, box_of(mask)))
    return known_again(shown, Judge.load(weights_folder() / "judge"), pair)


def known_again(parts: Sequence[Sequence[Image.Image]], judge: Judge, pair: Pair) -> dict[str, float]:
    """Return how much of each subject its parts of the pictures show, and how often both are there, or one is another.

    Args:
        parts: for each subject, a part of every picture.
        judge: looks at them.
        pair: who they should be.
    """
    truth = [judge.read(renders)[1] for renders in pair.renders]
    identity, present, mixed = [], [], []
    for place, (noun, cut) in enumerate(zip(pair.nouns, parts, strict=True)):
        seen = judge.read(cut)[1]
        own, other = ((seen @ truth[which].T).mean(1).numpy() for which in (place, 1 - place))
        recovered = judge.recovered(seen, truth[place], noun).numpy()
        identity.append(float(recovered.mean()))
        present.append((own > other) & (recovered > PRESENT))
        mixed.append(other > own)
    return {
        "two: identity": mean(identity),
        "two: both present": float(np.logical_and(*present).mean()),
        "two: mix-ups": float(np.logical_or(*mixed).mean()),
    }


def half(drawn: Image.Image, box: Box) -> Image.Image:
    """Cut out the square around a box, as large as its longer side."""
    left, top, right, bottom = (round(side * drawn.width) for side in box)
    side = max(right - left, bottom - top)
    left = min(max(0, (left + right - side) // 2), drawn.width - side)
    return drawn.crop((left, bottom - side, left + side, bottom))


def in_half(mask: np.ndarray, place: int) -> np.ndarray:
    """Leave of a mask what is in one half of the picture."""
    middle, shown = mask.shape[1] // 2, np.zeros_like(mask)
    part = slice(None, middle) if place == 0 else slice(middle, None)
    shown[:, part] = mask[:, part]
    return shown


def overlap(box: Box, mask: np.ndarray) -> float:
    """Return the intersection over union of a box and that of a mask."""
    return filters.overlap(box, box_of(mask))[0] if mask.any() else 0.0


def of_series(judge: Judge, pair: Pair, weights: Path | None) -> dict[str, float]:
    """Go from the customized picture to what the text alone shows, and see whether each step goes on.

    Likeness to the text is that to what the text alone shows, which is the last frame.
    """
    good = []
    for seed in range(SERIES):
        prompt = f"a photo of {alone(pair)} {CONTEXT_PHRASES[CONTEXTS[seed]][0]}"
        made = persona.interpolate(
            persona.InterpolateConfig(
                prompts=(prompt,), subject=(f"V={pair.references[0]}",), base="clay", seeds=(seed,), frames=FRAMES,
                subject_diffusion=weights, out=pair.references[0].parent / f"series-{seed}",
            )
        )  # fmt: skip
        seen = judge.read([Image.open(path) for path in made.paths])[1]
        subject = judge.recovered(seen, judge.read(pair.renders[0])[1], pair.nouns[0]).numpy()
        good.append(onward(-subject) and onward((seen @ seen[-1]).numpy()))
    return {"series": mean(good)}


def onward(values: np.ndarray) -> bool:
    """Return whether values rise from frame to frame, up to a tenth of their way, and never leap."""
    way = values[-1] - values[0]
    steps = np.diff(values)
    return bool(way > 0 and (steps >= -0.1 * way).all() and (steps <= LEAP * way).all())


def as_markdown(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the tables: means over the pairs, with what was kept as a share of the bare base."""

    def cell(name: str, part: str, figure: str) -> str:
        key = f"{part}: {figure}"
        if key not in rows[name][0]:
            return ""
        value = mean(one[key] for one in rows[name])
        if figure in KEPT:
            value /= max(mean(one[key] for one in rows["base"]), 1e-6)
        return f"{value:{FORMS[figure]}}"

    known, lines = rows["all of it"][0], list[str]()
    for part, title in (("one", "one subject"), ("two", "two subjects")):
        figures = [figure for figure in FORMS if f"{part}: {figure}" in known]
        if figures:
            headings = [f"{figure} kept" if figure in KEPT else figure for figure in figures]
            lines += [f"| {title} | {' | '.join(headings)} |", "|---" * (len(figures) + 1) + "|"]
        for name in rows:
            cells = [cell(name, part, figure) for figure in figures]
            if any(cells) and name != "base":
                lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    if "series" in known:
        onwards = mean(one["series"] for one in rows["all of it"])
        lines += [f"Series that go on from frame to frame: {onwards:.0%} of {SERIES * len(rows['all of it'])}"]
    return "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    main()
