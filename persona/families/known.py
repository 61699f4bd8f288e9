"""Well-known bases: what there is to know of one before it is fetched."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A base on the hub that has a short name.

    Attributes:
        repo: its id on the hub.
        gigabytes: how much is fetched, in 10^9 bytes.
        licence: of its weights.
        gated: whether the hub gives it only to those who logged in and agreed to the licence.
        single: what diffusers calls a single file with the same parts; empty where another base stands for them.
    """

    repo: str
    gigabytes: float
    licence: str
    gated: bool = False
    single: str = ""

    def __str__(self) -> str:
        """Return what to know before fetching it, in one line."""
        gate = ", gated: accept it on its page and run `hf auth login` first" if self.gated else ""
        return f"{self.repo}, {self.gigabytes:.1f} GB, licence {self.licence}{gate}"
