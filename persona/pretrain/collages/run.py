"""Sets of pictures of one subject, out of a base that draws it but once (JeDi's data; Zeng et al., 2407.06187).

Asked for a collage, a base draws one subject several times; from one picture to the next it would not. The panels are
cut apart, what does not show the same subject well is dropped, and each subject is set into another place.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.random import default_rng
from PIL import Image
from safetensors import SafetensorError

from persona import checkpoints
from persona.atomic import beside, digest
from persona.config import SetsConfig
from persona.drawing import check_output, open_base, size_of
from persona.errors import BadOption
from persona.events import Listener, Note, Progress, silent
from persona.families import Family
from persona.networks import CLIP, CLIPSEG, DINO, Clip, Dino, Segmenter, absent, folder_of, how_to_fetch
from persona.pretrain.collages.background import repaint
from persona.pretrain.collages.panels import panels
from persona.pretrain.collages.prompts import Plan, plans
from persona.pretrain.collages.sieve import Sieve
from persona.pretrain.sets import write_set
from persona.pretrain.state import settle
from persona.sheet import Row, sheet
from persona.train.processes import agree, launched

BLOCK = 32
"""Collages whose sets make a shard; of what is being made, no more than that is lost to a kill."""
SHOWN = 8
"""Pictures of each kind that were dropped, on a contact sheet."""
NO_PANELS, AGAIN = "no panels", "in its new place: "
"""Why a collage is dropped, and what is said before a reason for which a picture is after its place was changed."""

Told = Callable[[int], Plan]
"""Gives the plan of a collage by its number."""


@dataclass(frozen=True)
class Collected:
    """What was made.

    Attributes:
        folder: of the shards.
        figures: how many ``collages`` there were with how many ``panels``, and how many ``sets`` came of them with how
            many ``pictures``.
        dropped: how many collages or panels each filter dropped.
        sheets: what was kept and what was dropped, a contact sheet for each shard.
    """

    folder: Path
    figures: Mapping[str, int]
    dropped: Mapping[str, int]
    sheets: Sequence[Path]


@dataclass(frozen=True)
class _Made:
    """What became of a collage."""

    number: int
    plan: Plan
    panels: int
    pictures: Sequence[Image.Image]
    captions: Sequence[str]
    dropped: Sequence[tuple[str, Image.Image]]


def gen_sets(config: SetsConfig, listener: Listener = silent) -> Collected:
    """Make sets of pictures of one subject for :func:`persona.pretrain.jedi.pretrain_jedi` to learn from.

    The same call goes on where an earlier one was stopped, and with more collages it adds to them; under
    ``accelerate launch`` the processes share the work.

    Args:
        config: what draws, what of, and how much.
        listener: told how far it is.

    Raises:
        BadOption: the networks that filter are not here, or the folder holds sets of other settings.
        BadPrompt: the file of prompts cannot be read.
        BadBase: the base cannot be found, or is damaged.
        Busy: another run holds the folder.
        OSError: the disk is full.
    """
    check_output(config.out)
    told = plans(config.prompts, config.seed)
    _check(config)
    accelerator = launched()
    if not accelerator.is_main_process:
        listener = silent
    sieve = _sieve(config, accelerator.device)
    base = open_base(config.base, listener=listener)
    size = size_of(base, config.resolution)
    settings = config.record() | {"base": base.hash[:12], "resolution": size[0]}
    settings["prompts"] = digest(config.prompts) if config.prompts else None
    settings.pop("n")
    with ExitStack() as stack:
        agree(accelerator, lambda: stack.enter_context(checkpoints.held(config.out)))
        agree(accelerator, lambda: settle(config.out, config, settings))
        work = _Work(config, base, sieve, told, listener)
        for block in range(accelerator.process_index, -(-config.n // BLOCK), accelerator.num_processes):
            work.do(block)
        accelerator.wait_for_everyone()
        return agree(accelerator, lambda: _concluded(config, listener))


def _check(config: SetsConfig) -> None:
    if config.base == "clay":
        raise BadOption("clay renders its own sets when it is pretrained. Name another --base, such as sdxl.")
    if missing := absent(config.networks):
        how = "; ".join(how_to_fetch(name, config.networks) for name in missing)
        raise BadOption(f"The filters need networks that are not here. Type: {how}")


def _sieve(config: SetsConfig, device: torch.device) -> Sieve:
    def net(kind: Callable[[Path, torch.device], Any], name: str) -> Any:
        folder = folder_of(name, config.networks)
        try:
            return kind(folder, device)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            how = f"{how_to_fetch(name, config.networks)} --force-download"
            raise BadOption(f"{folder} holds no {kind.__name__} that can be read. Type: {how}") from error

    networks = net(Dino, DINO), net(Clip, CLIP), net(Segmenter, CLIPSEG)
    return Sieve(*networks, similarity=config.similarity, quality=config.quality)


class _Work:
    """Makes shards."""

    def __init__(self, config: SetsConfig, base: Family, sieve: Sieve, told: Told, listener: Listener) -> None:
        self.config, self.base, self.sieve, self.told, self.listener = config, base, sieve, told, listener
        self.size = size_of(base, config.resolution)
        self.how: dict[str, Any] = {"steps": config.steps, "guidance": config.guidance}

    def do(self, block: int) -> None:
        """Make a shard, unless it is there; its figures come last, and say that it is."""
        numbers = range(block * BLOCK, min((block + 1) * BLOCK, self.config.n))
        figures = _figures(self.config.out, block)
        if figures.exists() and json.loads(figures.read_text())["collages"] >= len(numbers):
            return
        made = list(self._collages(numbers))
        _write(self.config.out, block, [one for one in made if one.pictures])
        with beside(_sheet(self.config.out, block)) as part:
            _shown(made).save(part)
        with beside(figures) as part:
            part.write_text(json.dumps(_counted(made)) + "\n", encoding="utf-8")

    def _collages(self, numbers: range) -> Iterator[_Made]:
        batch = self.base.batch_of(self.size)
        for first in range(0, len(numbers), batch):
            part = numbers[first : first + batch]
            told = [self.told(number) for number in part]
            seeds = [self.config.seed + number for number in part]
            collages = self.base.draw([plan.collage for plan in told], seeds, size=self.size, **self.how)
            for number, plan, collage in zip(part, told, collages, strict=True):
                self.listener(Progress("Making sets", number, self.config.n))
                yield self._made(number, plan, collage)

    def _made(self, number: int, plan: Plan, collage: Image.Image) -> _Made:
        """Make a set of a collage, if it can be made of it."""
        cut = panels(collage)
        if len(cut) < 2:
            return _Made(number, plan, 0, [], [], [(NO_PANELS, collage)])
        random = default_rng((self.config.seed, 2, number))
        sifted = self.sieve.sift(cut, plan.noun)
        dropped = [(why, cut[place]) for place, why in sifted.dropped.items()]
        scenes = random.permutation(len(plan.scenes))[: len(sifted.kept)].tolist()
        shown = sifted.kept[: len(scenes)]
        if not shown:
            return _Made(number, plan, len(cut), [], [], dropped)
        captions = [plan.caption(scene) for scene in scenes]
        masks = [sifted.masks[place] for place in shown]
        painted = repaint(self.base, captions, [cut[place] for place in shown], masks, self.size[0], random, **self.how)
        again = self.sieve.sift(painted, plan.noun)
        dropped += [(AGAIN + why, painted[place]) for place, why in again.dropped.items()]
        kept = again.kept
        return _Made(number, plan, len(cut), [painted[p] for p in kept], [captions[p] for p in kept], dropped)


def _write(out: Path, block: int, made: Sequence[_Made]) -> None:
    """Write a shard, if there is anything in it."""
    if not made:
        return
    with beside(out / f"{block:05}.tar") as part, tarfile.open(part, "w") as tar:
        for one in made:
            told = {"class": one.plan.noun, "captions": one.captions, "subject": one.plan.subject}
            write_set(tar, f"{one.number:08}", told, one.pictures)


def _shown(made: Sequence[_Made]) -> Image.Image:
    """Show the sets, and after them some of what each filter dropped."""
    rows = [Row(one.plan.subject, list(zip(one.pictures, one.captions, strict=True))) for one in made if one.pictures]
    reasons: dict[str, list[Image.Image]] = {}
    for why, picture in (lost for one in made for lost in one.dropped):
        reasons.setdefault(why, []).append(picture)
    rows += [Row(f"{why}: {len(lost)} dropped", [(one, "") for one in lost[:SHOWN]]) for why, lost in reasons.items()]
    return sheet(rows)


def _counted(made: Sequence[_Made]) -> dict[str, Any]:
    return {
        "collages": len(made),
        "panels": sum(one.panels for one in made),
        "sets": sum(bool(one.pictures) for one in made),
        "pictures": sum(len(one.pictures) for one in made),
        "dropped": Counter(why for one in made for why, _ in one.dropped),
    }


def _concluded(config: SetsConfig, listener: Listener) -> Collected:
    blocks = range(-(-config.n // BLOCK))
    counted = [json.loads(_figures(config.out, block).read_text()) for block in blocks]
    dropped: Counter[str] = sum((Counter(one.pop("dropped")) for one in counted), Counter())
    figures: Counter[str] = sum((Counter(one) for one in counted), Counter())
    total = {name: figures[name] for name in ("collages", "panels", "sets", "pictures")}
    with beside(config.out / "figures.json") as part:
        part.write_text(json.dumps(total | {"dropped": dropped}, indent=1) + "\n", encoding="utf-8")
    listener(Progress("Making sets", config.n, config.n))
    if not total["sets"]:
        why = dropped.most_common(1)[0][0]
        listener(
            Note(f"Nothing passed the filters; most images were dropped for: {why}. Look at the sheets.", warning=True)
        )
    return Collected(config.out, total, dict(dropped), [_sheet(config.out, block) for block in blocks])


def _figures(out: Path, block: int) -> Path:
    return out / "figures" / f"{block:05}.json"


def _sheet(out: Path, block: int) -> Path:
    return out / "sheets" / f"{block:05}.png"
