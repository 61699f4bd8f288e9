"""SDD: records out of any pictures, as Subject-Diffusion's own data were made (2307.11410).

A picture is captioned (BLIP-2), the nouns of the caption are found in it (Grounding DINO) and cut out (SAM), and what
passes the filters becomes a record. Of a noun that is found several times a caption cannot say which one is meant, so
that such things are left out, where the authors wrote their number into the caption.
"""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import default_rng
from PIL import Image, ImageDraw

from persona import checkpoints
from persona.atomic import beside
from persona.config import SddConfig
from persona.errors import BadOption, BadPhotos
from persona.events import Listener, Progress, silent
from persona.hub import fetched
from persona.labelling import Captioner, Detector, Found, Sam, Tagger
from persona.metrics import Mask
from persona.photos.cutouts import cut, pixels_of
from persona.photos.reading import DAMAGE, FORMATS, SUFFIXES, rgb, upright
from persona.placing import Box
from persona.pretrain.filters import APART, LONGEST, NOUNS, THINGS, Candidate, choose, on_white, overlap
from persona.pretrain.records import Entity, Record, Records, marked, shards, write
from persona.pretrain.state import compare, listing, outside, settle
from persona.sheet import Row, sheet
from persona.train.processes import agree, launched

PART = 256
"""Pictures that a shard is made of: what a kill may cost."""
SHOWN = 24
"""Records on the contact sheet."""
_NETWORKS = ("captioner", "tagger", "detector", "segmenter")
_FIXED = ("resolution", *_NETWORKS)  # what all records of a folder have in common
_DAMAGE = (*DAMAGE, Image.DecompressionBombError)


@dataclass(frozen=True)
class Made:
    """What became of the pictures.

    Attributes:
        folder: of the records' shards.
        pictures: how many there were.
        records: how many were made.
        dropped: how many pictures and things were dropped, by the reason.
        sheet: some of the records side by side; ``None`` where there are none.
    """

    folder: Path
    pictures: int
    records: int
    dropped: Mapping[str, int]
    sheet: Path | None


@dataclass(frozen=True)
class _Source:
    """A picture as bytes: a file, or a part of a shard."""

    path: Path
    offset: int = 0
    length: int = -1


def gen_sdd(config: SddConfig, listener: Listener = silent) -> Made:
    """Make records of pictures, or go on where an earlier call was stopped.

    Under ``accelerate launch`` the processes share the work.

    Args:
        config: where the pictures are, and by which networks they are looked at.
        listener: told what is fetched, and how far it is.

    Raises:
        BadPhotos: there are no pictures.
        BadOption: a network cannot be had, the folder holds a run with other settings or the pictures, or the processes
            are to share out weights.
        Busy: another run holds the folder.
        OSError: the disk is full.
    """
    if config.out.resolve() == config.pictures.resolve():  # shards there would be taken for those that were made
        raise BadOption(f"{config.out} is the folder of the images itself. Name another --out, such as one inside it.")
    accelerator = launched()
    listener = listener if accelerator.is_main_process else silent
    sources = _sources(config)
    parts = [sources[first : first + PART] for first in range(0, len(sources), PART)]
    with ExitStack() as stack:
        agree(accelerator, lambda: stack.enter_context(checkpoints.held(config.out)))
        settings = {name: getattr(config, name) for name in _FIXED} | {
            "pictures": listing(config.pictures, {one.path for one in sources})
        }
        agree(accelerator, lambda: compare(config.out, config, settings))
        missing = agree(
            accelerator, lambda: [part for part in range(len(parts)) if not _shard(config.out, part).exists()]
        )
        if missing:
            names = [getattr(config, name) for name in _NETWORKS]
            labels = _Labels(agree(accelerator, lambda: fetched(names, listener)), accelerator.device)
        agree(accelerator, lambda: settle(config.out, config, settings))
        for part in missing[accelerator.process_index :: accelerator.num_processes]:
            _make(part, parts[part], labels, config, _telling(listener, part * PART, len(sources)))
        accelerator.wait_for_everyone()
        return agree(accelerator, lambda: _conclude(config.out, len(parts), len(sources)))


def _sources(config: SddConfig) -> list[_Source]:
    """Return the pictures of a folder in a fixed order: those in shards, or else those in files."""
    folder, found = config.pictures, list[_Source]()
    for path in shards(folder):
        try:
            with tarfile.open(path) as tar:
                pictures = (member for member in tar if Path(member.name).suffix.lower() in SUFFIXES)
                found += [_Source(path, member.offset_data, member.size) for member in pictures]
        except (tarfile.TarError, OSError) as error:
            raise BadPhotos(f"{path} is no shard of images, or is damaged: {error}. Take it out.") from error
    if not found:
        files = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)
        found = [_Source(path) for path in outside(config.out, folder, files)]
    if not found:
        raise BadPhotos(f"There are no images in {folder}, and no shards (*.tar) of them. Name a folder that has.")
    return found


def _shard(folder: Path, part: int) -> Path:
    return folder / f"{part:05}.tar"


def _telling(listener: Listener, before: int, total: int) -> Callable[[int], None]:
    return lambda done: listener(Progress("Looking at images", min(before + done, total), total))


def _make(
    part: int, sources: Sequence[_Source], labels: "_Labels", config: SddConfig, tell: Callable[[int], None]
) -> None:
    """Write what one part of the pictures gives: its counts, and then its shard."""
    dropped = Counter[str]()
    records: list[tuple[str, Record]] = []
    for first in range(0, len(sources), config.batch):
        tell(first)
        opened = {
            first + number: picture
            for number, source in enumerate(sources[first : first + config.batch])
            if (picture := _opened(source, config.resolution, dropped)) is not None
        }
        for number, (caption, nouns) in zip(opened, labels.captions(list(opened.values())), strict=True):
            random = default_rng((part, number))
            record = _record(opened[number], caption, nouns, labels, dropped, random.random(), config.resolution)
            records += [(f"{part * PART + number:08}", record)] if record else []
    tell(len(sources))
    with beside(_shard(config.out, part).with_suffix(".json")) as path:
        path.write_text(json.dumps({"records": len(records), "dropped": dropped}), encoding="utf-8")
    with beside(_shard(config.out, part)) as path:
        write(path, records)


def _opened(source: _Source, resolution: int, dropped: Counter[str]) -> Image.Image | None:
    """Return a picture, if it can be read, is large enough, and is not on white."""
    try:
        with source.path.open("rb") as file:
            file.seek(source.offset)
            stored = Image.open(io.BytesIO(file.read(source.length)), formats=FORMATS)
            picture = rgb(upright(stored))
    except _DAMAGE:
        dropped["unreadable"] += 1
        return None
    if max(picture.size) < LONGEST * resolution:
        dropped["too small an image"] += 1
    elif on_white(picture):
        dropped["on white"] += 1
    else:
        return picture
    return None


class _Labels:
    """The networks that look at pictures."""

    def __init__(self, folders: Sequence[Path], device: torch.device) -> None:
        captioner, tagger, detector, segmenter = folders
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._captioner, self._tagger = Captioner(captioner, device, dtype), Tagger(tagger, device)
        self._detector, self._sam = Detector(detector, device), Sam(segmenter, device)

    def captions(self, pictures: Sequence[Image.Image]) -> Iterator[tuple[str, list[str]]]:
        """Yield the caption of each picture, and its nouns."""
        captions = self._captioner.captions(pictures) if pictures else []
        yield from zip(captions, self._tagger.nouns(captions) if captions else [], strict=True)

    def find(self, picture: Image.Image, nouns: Sequence[str]) -> list[Found]:
        """Return what is found of nouns, each thing once."""
        kept: list[Found] = []
        for one in self._detector.find(picture, nouns):
            if all(overlap(one.box, other.box)[0] <= APART for other in kept):
                kept.append(one)
        return kept

    def cut(self, picture: Image.Image, found: Sequence[Found]) -> list[Candidate]:
        """Return what was found with its masks, which have no holes."""
        masks = self._sam.masks(picture, [one.box for one in found])
        return [Candidate(one.noun, one.score, one.box, filled(mask)) for one, mask in zip(found, masks, strict=True)]


def _record(
    picture: Image.Image,
    caption: str,
    nouns: Sequence[str],
    labels: _Labels,
    dropped: Counter[str],
    at: float,
    resolution: int,
) -> Record | None:
    """Return the record that a picture gives, if it gives one; ``at`` is where it is cut, from 0 to 1."""
    if len(nouns) not in NOUNS:
        dropped["too few or too many nouns"] += 1
        return None
    found = labels.find(picture, nouns)
    if len(found) not in THINGS:
        dropped["too few or too many things"] += 1
        return None
    candidates = labels.cut(picture, found)
    times = Counter(one.noun for one in found)
    single = [one for one in candidates if times[one.noun] == 1]
    several = [one for one in candidates if times[one.noun] > 1]
    dropped["one of several"] += len(several)
    chosen = choose(caption, single, dropped, several)
    if not chosen:
        dropped["without a subject"] += 1
        return None
    square = square_around([one.box for one in chosen], picture.size, at)
    if square is None:
        dropped["too wide for a square"] += 1
        return None
    return _cropped(picture, caption, chosen, square, resolution)


def square_around(boxes: Sequence[Box], size: tuple[int, int], at: float) -> tuple[int, int, int, int] | None:
    """Return the largest square of a picture that holds all boxes, in pixels; none if there is no such square.

    Args:
        boxes: what it has to hold.
        size: width and height of the picture.
        at: where it lies in the room that there is, from 0 to 1.
    """
    inside = [pixels_of(box, size) for box in boxes]
    side = min(size)
    starts = []
    for axis in (0, 1):
        first = max(0, max(box[axis + 2] for box in inside) - side)
        last = min(size[axis] - side, min(box[axis] for box in inside))
        if first > last:
            return None
        starts.append(first + round(at * (last - first)))
    left, top = starts
    return left, top, left + side, top + side


def _cropped(
    picture: Image.Image,
    caption: str,
    chosen: Sequence[Candidate],
    square: tuple[int, int, int, int],
    resolution: int,
) -> Record:
    size, side = (resolution, resolution), square[2] - square[0]
    small = picture.resize(size, Image.Resampling.LANCZOS, box=square)
    entities, masks = [], []
    for one in chosen:
        left, top, right, bottom = (
            min(1.0, max(0.0, (share * picture.size[axis % 2] - square[axis % 2]) / side))
            for axis, share in enumerate(one.box)
        )
        entities.append(Entity(one.noun, (left, top, right, bottom)))
        masks.append(np.asarray(Image.fromarray(one.mask).resize(size, Image.Resampling.NEAREST, box=square)))
    references = [cut(small, mask) for mask in masks]
    return Record([marked(caption, [one.noun for one in chosen])], entities, small, masks, references)


def filled(mask: Mask) -> Mask:
    """Return a mask without holes: all that cannot be reached from beside it belongs to it."""
    free = np.pad(~mask, 1, constant_values=True)
    reached = np.zeros_like(free)
    reached[0] = True
    ways = [(reached, free), (reached.T, free.T), (reached[::-1], free[::-1]), (reached.T[::-1], free.T[::-1])]
    count = 0
    while count < (count := int(reached.sum())):
        for seen, space in ways:  # as far as it goes, down, right, up and left
            for row in range(1, len(seen)):
                seen[row] |= seen[row - 1] & space[row]
    inner: Mask = ~reached[1:-1, 1:-1]
    return inner


def _conclude(folder: Path, parts: int, pictures: int) -> Made:
    """Add up the counts of all parts, and draw some of what was made."""
    told = [json.loads(_shard(folder, part).with_suffix(".json").read_text()) for part in range(parts)]
    dropped = sum((Counter(one["dropped"]) for one in told), Counter[str]())
    made, path = sum(one["records"] for one in told), folder / "sheet.png"
    if made:
        records = Records(folder)
        rows = [_row(records.record(number)) for number in range(min(SHOWN, len(records)))]
        with beside(path) as part:
            sheet(rows).save(part)
    ranked = {reason: number for reason, number in dropped.most_common() if number}
    return Made(folder, pictures, made, ranked, path if made else None)


def _row(record: Record) -> Row:
    shown = record.picture.copy()
    pen = ImageDraw.Draw(shown)
    for entity, colour in zip(record.entities, ("#ff3b30", "#0a84ff"), strict=False):
        left, top, right, bottom = pixels_of(entity.box, shown.size)
        pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=max(1, shown.width // 128))
    references = []
    for entity, reference in zip(record.entities, record.references, strict=True):
        page = Image.new("RGB", reference.size, "white")
        page.paste(reference, mask=reference.getchannel("A"))
        references.append((page, entity.noun))
    return Row(record.captions[0], [(shown, ""), *references])
