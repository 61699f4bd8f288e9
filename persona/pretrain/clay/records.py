"""Clay's records, straight from its shards of sets: masks are known, and a reference is cut from another picture.

A reference that is cut from the picture itself could be learnt to be pasted back; another one of the same subject, in
another place and often from another side, can not.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray
from PIL import Image

from persona.clay.world import Scene, caption
from persona.metrics import Mask
from persona.photos.cutouts import box_of, cut
from persona.pretrain.clay.data import MASKS, SET, mask_of, masks_of, pixels_of, scenes_of, shards_of
from persona.pretrain.clay.sets import LOOKS_SAID
from persona.pretrain.filters import Candidate, choose
from persona.pretrain.records import MARKS, Entity, Record, Records, shards

WORDINGS = 4
"""Captions of each picture."""
LEAST_REFERENCE = 0.03
"""Share of a picture that a subject has to cover to be a reference."""


def open_records(data: Path) -> Records:
    """Return the records of a folder, whatever its shards.

    Raises:
        BadOption: it has none, or one is damaged.
    """
    rendered = any(shards_of(data / masks) for masks in MASKS.values())
    return ClayRecords(data) if rendered and not shards(data) else Records(data)


@dataclass(frozen=True)
class _Place:
    """Where a record is: a picture of a shard, which of its entities count, and what may be a reference of each."""

    kind: str
    shard: int
    picture: int
    scene: Scene
    entities: tuple[int, ...]
    references: tuple[tuple[tuple[int, int], ...], ...]
    """For each entity, pictures of the same shard and the entity's number there."""

    def subjects(self) -> tuple[str, int, int]:
        """Return what tells its set, whose pictures show the same subjects, from others."""
        return self.kind, self.shard, self.picture // SET


class ClayRecords(Records):
    """The records of a folder as :func:`persona.pretrain.clay.data.render_records` fills it.

    Attributes:
        dropped: how many things the filters dropped, by the reason.
    """

    of_the_same = False

    def _list(self) -> Iterator[_Place]:
        self.dropped = Counter[str]()
        places = [
            place
            for kind, masks in MASKS.items()
            for shard in shards_of(self.data / masks)
            for place in self._listed(kind, shard)
        ]
        sets = [list(alike) for _, alike in groupby(places, _Place.subjects)]
        # Those of one and of two subjects mixed, so that the last ones, which are held back, are of both kinds.
        yield from (place for one in default_rng(0).permutation(len(sets)) for place in sets[one])

    def first(self, number: int) -> int:
        """See :class:`Records`; the pictures of a set show the same subjects."""
        alike = self._places[number].subjects()
        return next(one for one, place in enumerate(self._places) if place.subjects() == alike)

    def _listed(self, kind: str, shard: int) -> Iterator[_Place]:
        scenes, masks = scenes_of(self.data / kind, shard), masks_of(self.data / MASKS[kind], shard)
        large = masks.mean((2, 3)) > LEAST_REFERENCE
        for number, scene in enumerate(scenes):
            chosen = self._chosen(scene, masks[number])
            first = number // SET * SET
            others = [one for one in range(first, min(first + SET, len(scenes))) if one != number]
            references = [
                tuple(
                    (one, place)
                    for one in others
                    for place, entity in enumerate(scenes[one].entities)
                    if entity.subject == scene.entities[wanted].subject and large[one, place]
                )
                for wanted in chosen
            ]
            if chosen and all(references):
                yield _Place(kind, shard, number, scene, tuple(chosen), tuple(references))

    def _chosen(self, scene: Scene, masks: NDArray[np.bool_]) -> list[int]:
        """Return which entities of a scene pass the filters of real data."""
        nouns = [entity.subject.class_noun for entity in scene.entities]
        candidates = {
            place: Candidate(noun, 1.0, box_of(mask), mask)
            for place, (noun, mask) in enumerate(zip(nouns, masks, strict=False))
            if mask.any()
        }
        chosen = choose(" ".join(nouns), list(candidates.values()), self.dropped)
        return [place for place, candidate in candidates.items() if candidate in chosen]

    def record(self, number: int) -> Record:
        """See :class:`Records`."""
        place: _Place = self._places[number]
        random = default_rng((1, number))
        marks: list[str | None] = [None, None]
        for mark, entity in zip(MARKS, place.entities, strict=False):
            marks[entity] = mark
        looks = random.random() < LOOKS_SAID
        captions = [caption(place.scene, random, (marks[0], marks[1]), looks=looks) for _ in range(WORDINGS)]
        masks = [self._mask(place, place.picture, entity) for entity in place.entities]
        nouns = [place.scene.entities[entity].subject.class_noun for entity in place.entities]
        entities = [Entity(noun, box_of(mask)) for noun, mask in zip(nouns, masks, strict=True)]
        references = []
        for known in place.references:
            picture, entity = known[random.integers(len(known))]
            references.append(cut(self._picture(place, picture), self._mask(place, picture, entity)))
        return Record(captions, entities, self._picture(place, place.picture), masks, references)

    def _picture(self, place: _Place, picture: int) -> Image.Image:
        return Image.fromarray(np.asarray(pixels_of(self.data / place.kind, place.shard)[picture]))

    def _mask(self, place: _Place, picture: int, entity: int) -> Mask:
        return mask_of(self.data / MASKS[place.kind], place.shard, picture, entity)
