"""What a file says of itself to those who find it: the trigger word above all, and nothing of whoever made it.

By Stability's ModelSpec 1.0.1 (``modelspec.``) and kohya's keys (``ss_``), which other programs show and sort by, and
by our own (``persona.``), from which a persona can be made again.
"""

import base64
import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from safetensors.torch import save as to_bytes
from torch import Tensor

from persona import __version__
from persona.families import Family
from persona.folder import Persona, step_name

THUMBNAIL = 256
"""Side of the thumbnail in pixels, as ModelSpec recommends."""


def describe(tensors: Mapping[str, Tensor], persona: Persona, base: Family, step: int) -> dict[str, str]:
    """Return the metadata of a file.

    Args:
        tensors: that it holds.
        persona: whose they are.
        base: an outline of its base.
        step: training step of the weights.
    """
    subject = f"{persona.token} {persona.class_noun}"
    labels = base.labels()
    if any(".lora_A." in key for key in tensors):
        labels["modelspec.implementation"] = "diffusers"
    ranks = [len(tensor) for key, tensor in tensors.items() if key.endswith((".lora_down.weight", ".lora_A.weight"))]
    title = persona.path.resolve().name
    side = persona.settings.get("resolution") or base.resolution
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": title,
        "modelspec.date": datetime.now(UTC).date().isoformat(),
        "modelspec.hash_sha256": _hash(tensors),
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.trigger_phrase": subject,
        "modelspec.usage_hint": f'Write "a {subject}" in the prompt; strength {persona.recommended_scale:g}.',
        **labels,
        **_thumbnail(persona.path / "previews" / step_name(step)),
        "ss_output_name": title,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(max(ranks)),
        "ss_network_alpha": str(max(ranks)),
        "ss_sd_model_name": persona.base,
        "persona.version": __version__,
        "persona.token": persona.token,
        "persona.class": persona.class_noun,
        "persona.base": persona.base,
        "persona.base_hash": persona.base_hash,
        "persona.scale": f"{persona.recommended_scale:g}",
        "persona.step": str(step),
    }


def _hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of what follows the header of a file."""
    data = to_bytes(dict(tensors))
    header = 8 + int.from_bytes(data[:8], "little")
    return f"0x{hashlib.sha256(memoryview(data)[header:]).hexdigest()}"


def _thumbnail(previews: Path) -> dict[str, str]:
    """Return the first preview of the subject as a small JPEG, if there is one."""
    paths = sorted(previews.glob("*-v-*.png"))
    if not paths:
        return {}
    data = io.BytesIO()
    with Image.open(paths[0]) as picture:
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.save(data, "JPEG", quality=85)
    return {"modelspec.thumbnail": f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"}
