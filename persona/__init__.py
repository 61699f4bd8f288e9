"""Teach a text-to-image model your subject from a few photos, and draw it anywhere.

from pathlib import Path

import persona

dog = persona.train(persona.TrainConfig(photos=Path("photos"), class_noun="dog"))
persona.sample(persona.SampleConfig(prompts=("a [V] dog on the beach",), persona=dog.path))
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from persona.config import (
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    InterpolateConfig,
    PlanConfig,
    PriorsConfig,
    SampleConfig,
    TrainConfig,
)
from persona.errors import PersonaError
from persona.events import Event, Listener, Note, Progress

if TYPE_CHECKING:
    from persona.evaluate import Evaluation, compare, evaluate
    from persona.export import Exported, export
    from persona.folder import Persona
    from persona.import_lora import import_lora
    from persona.interpolate import Frames, interpolate
    from persona.plan import Plan, plan
    from persona.priors import gen_priors
    from persona.sample import Picture, sample
    from persona.train import train

__version__ = "0.1.0"

__all__ = [
    "CompareConfig",
    "EvaluateConfig",
    "Evaluation",
    "Event",
    "ExportConfig",
    "Exported",
    "Frames",
    "ImportConfig",
    "InterpolateConfig",
    "Listener",
    "Note",
    "Persona",
    "PersonaError",
    "Picture",
    "Plan",
    "PlanConfig",
    "PriorsConfig",
    "Progress",
    "SampleConfig",
    "TrainConfig",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "gen_priors",
    "import_lora",
    "interpolate",
    "plan",
    "sample",
    "train",
]

_LAZY = {
    "Evaluation": "evaluate",
    "Exported": "export",
    "Frames": "interpolate",
    "Persona": "folder",
    "Picture": "sample",
    "Plan": "plan",
    "compare": "evaluate",
    "evaluate": "evaluate",
    "export": "export",
    "gen_priors": "priors",
    "import_lora": "import_lora",
    "interpolate": "interpolate",
    "plan": "plan",
    "sample": "sample",
    "train": "train",
}


class _Public(ModuleType):
    """The package, whose functions bear the names of their modules and keep them.

    Importing ``persona.sample`` would put the module in the function's place, for whoever imports it.
    """

    def __getattr__(self, name: str) -> object:
        """Import what needs torch when it is first asked for, so that ``persona --help`` answers at once."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return __all__


sys.modules[__name__].__class__ = _Public
