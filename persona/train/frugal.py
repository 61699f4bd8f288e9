"""A base, and doing things with it again with less memory wherever that runs out."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from accelerate import Accelerator

from persona import families
from persona.config import TrainConfig
from persona.drawing import Size, size_of
from persona.errors import NoMemory, out_of_memory
from persona.events import Listener, Note
from persona.families import Bits, Family
from persona.families.family import release
from persona.methods.settings import Settings
from persona.train.rehearsal import PREVIEWS
from persona.train.thrift import LOADED, Choice, kept, relieve, sides, unsaid, words

T = TypeVar("T")
_TOO_LITTLE = (
    "There is less memory than when the run began, and too little to go on. Free some, or choose another --out."
)


class Leaner(Exception):
    """What was being done has to be done again with a base that is loaded anew, for another choice."""

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.choice = choice


class Frugal:
    """A base that is loaded anew, and used otherwise, as memory demands.

    Attributes:
        asked: what the user said.
        choice: what was chosen beside it for the memory that there is.
        base: as it was last loaded.
    """

    base: Family

    def __init__(
        self, asked: TrainConfig, dtype: torch.dtype, photos: int, accelerator: Accelerator, listener: Listener
    ) -> None:
        """Take what is known before there is a base.

        Args:
            asked: what the user said.
            dtype: number format of the frozen weights.
            photos: how many there are.
            accelerator: knows the device, and the other processes.
            listener: told what is fetched, and what is chosen otherwise.
        """
        self.asked = asked
        self.choice: Choice = {}
        self._dtype, self._photos = dtype, photos
        self._accelerator, self._listener = accelerator, listener

    @property
    def config(self) -> TrainConfig:
        """What the user said, and what was chosen beside it."""
        return replace(self.asked, **self.choice)

    @property
    def settings(self) -> Settings:
        """The same with nothing left open."""
        return Settings.of(self.config, self.base, self._photos)

    @property
    def _wanted(self) -> Settings:
        """What they would be with memory without end."""
        return Settings.of(self.asked, self.base, self._photos)

    @property
    def size(self) -> Size:
        """Of the pictures that are drawn on the way."""
        return size_of(self.base, self.settings.resolution)

    def load(self, choice: Choice) -> None:
        """Load the base for a choice, without what was freed of it before and what it wore."""
        self.__dict__.pop("base", None)  # it is gone already where one did not fit
        release()
        self.choice = choice
        self.base = self._loaded()

    def fits(self, choice: Choice) -> bool:
        """Load the base for a choice, and tell whether there was memory for it.

        Raises:
            NoMemory: there was not, and none of several processes goes on otherwise alone.
        """
        try:
            self.load(choice)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if self._accelerator.num_processes > 1:
                raise NoMemory(_TOO_LITTLE) from error
            return False
        return True

    def follow(self, choice: Choice) -> None:
        """Choose as a run did before it was stopped, but for what the user says, as long as there is memory for it.

        Raises:
            NoMemory: there is too little.
        """
        self.asked, choice = unsaid(self.asked, choice), kept(self.asked, choice)
        before, today = self.choice, {name: value for name, value in self.choice.items() if name in LOADED}
        if all(choice.get(name) == today.get(name) for name in LOADED):
            self._change(choice)
        elif not (self.fits(choice) or self.fits({**choice, **today})):
            raise NoMemory(_TOO_LITTLE)
        how = words(self._wanted, self.settings)
        if how or self.choice != before:
            self._listener(Note(f"Resuming with {how or 'no settings that save memory'}."))

    def within(self, stage: str, action: Callable[[], T]) -> T:
        """Do something; where memory runs out, need less of it and do it again.

        Raises:
            Leaner: the base has to be loaded anew for that; see :meth:`anyhow`.
            NoMemory: nothing is left that could be done.
        """
        while True:
            try:
                return action()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            self._lean(stage)  # out here, where the error does not hold on to what was too much

    def anyhow(self, action: Callable[[], T]) -> T:
        """Do something; where the base has to be loaded anew to need less memory, load it and do it again.

        Nothing else may hold on to the base then.
        """
        while True:
            try:
                return action()
            except Leaner as short:
                choice = short.choice
            self.load(choice)

    def _lean(self, stage: str) -> None:
        release()
        smaller = sides(self.base, self._wanted.resolution)
        now = replace(self.settings, tiling=self.base.pipe.vae.use_tiling)
        change = relieve(self.asked, now, stage, self._accelerator, smaller, self._listener)
        if stage == PREVIEWS and "tiling" in change:  # not chosen for the run: the photos were encoded whole
            self.base.tile()
            return
        choice = {**self.choice, **change}
        if change.keys() & LOADED:
            raise Leaner(choice)
        self._change(choice)

    def _change(self, choice: Choice) -> None:
        """Choose otherwise for the base that is loaded."""
        self.choice = choice
        self.base.tile(tiled=self.settings.tiling)

    def _loaded(self) -> Family:
        config = self.config
        bits: dict[str, Bits] = {"nf4": "nf4", "int8": "int8"}
        base = families.load(
            config.base,
            dtype=self._dtype,
            device=self._accelerator.device,
            bits=bits.get(config.quantize),
            offload=bool(config.offload),
            listener=self._listener,
        )
        if config.tiling:
            base.tile()
        return base
