"""How fast this machine trains: noted by its runs, read by plans."""

import json
from pathlib import Path

import torch

from persona.atomic import beside, cache


def note(device: torch.device, how: str, operations: int, seconds: float) -> None:
    """Remember how long a step took; where it cannot be written down, do without.

    Args:
        device: that it was taken on.
        how: number formats that it was taken in.
        operations: floating-point operations that it had.
        seconds: that it took.
    """
    known = _known() | {_name(device, how): operations / seconds}
    try:
        with beside(_file()) as part:
            part.write_text(json.dumps(known), encoding="utf-8")
    except OSError:
        return


def seconds(device: torch.device, how: str, operations: int) -> float | None:
    """Return how long a step of so many operations would take; ``None`` where nothing was trained so far."""
    speed = _known().get(_name(device, how))
    return operations / speed if speed else None


def _name(device: torch.device, how: str) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {how}"
    return f"{device.type}, {torch.get_num_threads()} threads, {how}"


def _file() -> Path:
    return cache() / "speed.json"


def _known() -> dict[str, float]:
    try:
        return dict(json.loads(_file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
