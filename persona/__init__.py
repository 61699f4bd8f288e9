"""Teach a text-to-image model your subject from a few photos, and draw it anywhere.

import persona

dog = persona.train(persona.TrainConfig(photos="photos", class_noun="dog"))
persona.sample(persona.SampleConfig(prompts=("a [V] dog on the beach",)))
"""

from importlib import import_module
from typing import TYPE_CHECKING

from persona.config import InterpolateConfig, PriorsConfig, SampleConfig, TrainConfig
from persona.errors import PersonaError
from persona.events import Event, Listener, Note, Progress

if TYPE_CHECKING:
    from persona.folder import Persona
    from persona.interpolate import interpolate
    from persona.priors import gen_priors
    from persona.sample import sample
    from persona.train import train

__version__ = "0.1.0"

__all__ = [
    "Event",
    "InterpolateConfig",
    "Listener",
    "Note",
    "Persona",
    "PersonaError",
    "PriorsConfig",
    "Progress",
    "SampleConfig",
    "TrainConfig",
    "__version__",
    "gen_priors",
    "interpolate",
    "sample",
    "train",
]

_LAZY = {
    "Persona": "folder",
    "gen_priors": "priors",
    "interpolate": "interpolate",
    "sample": "sample",
    "train": "train",
}


def __getattr__(name: str) -> object:
    """Import what needs torch when it is first asked for, so that ``persona --help`` answers at once.

    All of it together: importing ``persona.interpolate`` would otherwise leave the module ``persona.sample`` where
    the function of that name belongs.
    """
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = {public: import_module(f"{__name__}.{module}") for public, module in _LAZY.items()}
    globals().update({public: getattr(module, public) for public, module in modules.items()})
    return globals()[name]
