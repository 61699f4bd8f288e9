"""The number format that clay's networks are trained in."""

import torch

from persona import drawing


def mixed() -> torch.autocast:
    """Compute in bf16 where the CPU does: where it only imitates it, that is up to seven times as slow as float32."""
    fast = drawing.number_format("auto", torch.device("cpu")) == torch.bfloat16
    return torch.autocast("cpu", torch.bfloat16, enabled=fast)
