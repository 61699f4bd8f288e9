"""How other programs call a base and its modules; what is exported for them, and imported from them, follows it."""

from typing import Any, ClassVar, Literal


class Named:
    """What a family says of its names elsewhere; most need no more than ``original`` and ``labels``."""

    pipeline: ClassVar[str]
    original: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Modules of the denoiser by their names in its authors' code, and those here that make up the rows of each, in
    their order; ``*`` is the number of a block. Where there are none, others call modules as diffusers does."""
    only_read: ClassVar[dict[str, tuple[str, ...]]] = {}
    """More of these, which are understood in files but not written: few programs adapt them."""
    kohya: ClassVar[dict[str, str]] = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    """What the keys of kohya's files begin with for each text encoder."""
    comfyui: ClassVar[Literal["diffusers", "kohya"]] = "diffusers"
    """Whose keys ComfyUI reads for this family."""

    @property
    def denoiser(self) -> Any:
        """The network that predicts."""
        raise NotImplementedError

    def originals(self) -> dict[str, tuple[str, ...]]:
        """Return ``original`` with a number in the place of each ``*``, for all the blocks that there are."""
        return self._numbered(self.original)

    def readable(self) -> dict[str, tuple[str, ...]]:
        """Return the same with ``only_read``."""
        return self.originals() | self._numbered(self.only_read)

    def _numbered(self, modules: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        names = {name for name, _ in self.denoiser.named_modules()}
        numbers = sorted({part for name in names for part in name.split(".") if part.isdigit()}, key=int)
        return {
            theirs.replace("*", number): members
            for theirs, ours in modules.items()
            for number in numbers
            if names.issuperset(members := tuple(one.replace("*", number) for one in ours))
        }

    def labels(self) -> dict[str, str]:
        """Return the metadata by which other programs know for which base an adapter is."""
        return {"modelspec.architecture": f"{self.pipeline}/lora", "modelspec.implementation": "diffusers"}
