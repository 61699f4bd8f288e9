"""Records: a picture with one or two subjects, where each is, and a reference of each that is cut out.

On disk they are WebDataset shards, ``*.tar``: ``KEY.json`` with ``captions`` and ``entities``, each of them with its
``noun`` and ``box``, then ``KEY.png``, the masks ``KEY.0.png`` and ``KEY.1.png``, and the references ``KEY.ref0.png``
and ``KEY.ref1.png``. In a caption :data:`MARKS` stand before the nouns of the entities.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from persona.errors import BadOption
from persona.metrics import Mask
from persona.placing import Box, named

MARKS = ("[V]", "[W]")
"""What stands for each entity in a caption, before its noun."""


@dataclass(frozen=True)
class Entity:
    """A subject in a picture.

    Attributes:
        noun: what it is, one word of the captions.
        box: where it is.
    """

    noun: str
    box: Box


@dataclass(frozen=True, eq=False)
class Record:
    """One picture to learn from.

    Attributes:
        captions: one or more, in which each entity is marked.
        entities: one or two.
        picture: RGB, square.
        masks: where each entity is, of the picture's size.
        references: each entity cut out, RGBA of any size: of this picture, or better of another one.
    """

    captions: Sequence[str]
    entities: Sequence[Entity]
    picture: Image.Image
    masks: Sequence[Mask]
    references: Sequence[Image.Image]


@dataclass(frozen=True)
class _Place:
    """Where a record is, and what is known of it without its pictures."""

    shard: Path
    captions: list[str]
    entities: list[Entity]
    parts: dict[str, tuple[int, int]]
    """Offset and length in bytes of each picture in the shard, by the last part of its name."""


def shards(folder: Path) -> list[Path]:
    """Return the shards of a folder in their order, without what a kill or a file manager has hidden there."""
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))


class Records:
    """The records of a folder, in a fixed order; nothing but captions and boxes is held in memory.

    Attributes:
        of_the_same: whether references may be cut out of the very picture that is learnt from them.
    """

    of_the_same = True

    def __init__(self, data: Path) -> None:
        """List them.

        Raises:
            BadOption: there are none, or a shard is damaged.
        """
        self.data = data
        self._places = list(self._list())
        if not self._places:
            raise BadOption(f"{data} holds no records. Make some: persona gen-sdd PICTURES")

    def __len__(self) -> int:
        return len(self._places)

    def _list(self) -> Iterable[Any]:
        for path in shards(self.data):
            try:
                yield from _listed(path)
            except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
                raise BadOption(f"{path} is no shard of records, or is damaged: {error}. Make it again.") from error

    def first(self, number: int) -> int:
        """Return the first of the records that show the same subjects as one: they follow each other."""
        return number

    def record(self, number: int) -> Record:
        """Return a record, read from disk: always the same for its number.

        Raises:
            BadOption: its pictures are damaged.
        """
        place: _Place = self._places[number]
        try:
            with place.shard.open("rb") as file:

                def opened(part: str, mode: str) -> Image.Image:
                    offset, length = place.parts[f"{part}png"]
                    file.seek(offset)
                    return Image.open(io.BytesIO(file.read(length))).convert(mode)

                numbers = range(len(place.entities))
                picture, masks = opened("", "RGB"), [np.asarray(opened(f"{one}.", "L")) > 127 for one in numbers]
                if {picture.size, *(mask.shape for mask in masks)} != {(picture.width, picture.width)}:
                    raise ValueError("an image is not square, or a mask is not of its size")
                references = [opened(f"ref{one}.", "RGBA") for one in numbers]
                return Record(place.captions, place.entities, picture, masks, references)
        except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError) as error:
            raise BadOption(f"{place.shard} is damaged ({error}). Make it again.") from error


def _listed(path: Path) -> Iterator[_Place]:
    """Yield the records of a shard."""
    told: dict[str, dict[str, Any]] = {}
    parts: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")  # it may be ./0001.json, as tar -cf SHARD . makes it
            stem, _, part = name.partition(".")
            key = folder + slash + stem
            if part == "json" and (file := tar.extractfile(member)):
                told[key] = json.load(file)
            else:
                parts.setdefault(key, {})[part] = (member.offset_data, member.size)
    for key, one in told.items():
        entities, captions = _entities(one["entities"]), one["captions"]
        if not (isinstance(captions, list) and captions and all(isinstance(text, str) for text in captions)):
            raise ValueError(f"the captions of {key} are no list of texts")
        wanted = {"png", *(f"{part}{n}.png" for n in range(len(entities)) for part in ("", "ref"))}
        if lost := wanted - parts.get(key, {}).keys():
            raise ValueError(f"{key}.{min(lost)} is missing")
        marks = MARKS[: len(entities)]
        if strange := [name for text in captions for name in named(text) if f"[{name}]" not in marks]:
            raise ValueError(f"a caption of {key} names [{strange[0]}], which is none of its entities")
        yield _Place(path, captions, entities, parts[key])


def _entities(told: list[dict[str, Any]]) -> list[Entity]:
    entities = []
    for one in told:
        left, top, right, bottom = (float(side) for side in one["box"])
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(f"the box {one['box']} is not within its image")
        entities.append(Entity(str(one["noun"]), (left, top, right, bottom)))
    if len(entities) not in (1, 2):
        raise ValueError(f"{len(entities)} entities instead of one or two")
    return entities


def write(path: Path, records: Iterable[tuple[str, Record]]) -> int:
    """Write a shard, and return how many records it has.

    Args:
        path: of the shard.
        records: each with its key, which must have no dot.

    Raises:
        OSError: the disk is full.
    """
    number = 0
    with tarfile.open(path, "w") as tar:
        for key, record in records:
            number += 1
            told = {"captions": list(record.captions), "entities": [asdict(entity) for entity in record.entities]}
            add(tar, f"{key}.json", json.dumps(told).encode())
            add(tar, f"{key}.png", png(record.picture))
            for n, (mask, reference) in enumerate(zip(record.masks, record.references, strict=True)):
                add(tar, f"{key}.{n}.png", png(Image.fromarray(mask.astype(np.uint8) * 255)))
                add(tar, f"{key}.ref{n}.png", png(reference))
    return number


def png(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a shard."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def marked(caption: str, nouns: Sequence[str]) -> str:
    """Put a mark before the first word of a caption that is each noun."""
    for mark, noun in zip(MARKS, nouns, strict=False):
        caption = re.sub(rf"\b{re.escape(noun)}\b", rf"{mark} \g<0>", caption, count=1)
    return caption
