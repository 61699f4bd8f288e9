"""The settings of each command, declared once: command-line options, Python arguments and the saved record.

``None`` stands for what the base recommends.
"""

from persona.config.drawing import InterpolateConfig, SampleConfig
from persona.config.exchanging import ExportConfig, Format, ImportConfig
from persona.config.measuring import CompareConfig, EvaluateConfig
from persona.config.preparing import PriorsConfig, SddConfig, SetsConfig
from persona.config.pretraining import JediConfig, PretrainConfig, PretrainMethodConfig, SubjectDiffusionConfig
from persona.config.training import PlanConfig, TrainConfig
from persona.config.words import check_prompts

__all__ = [
    "CompareConfig",
    "EvaluateConfig",
    "ExportConfig",
    "Format",
    "ImportConfig",
    "InterpolateConfig",
    "JediConfig",
    "PlanConfig",
    "PretrainConfig",
    "PretrainMethodConfig",
    "PriorsConfig",
    "SampleConfig",
    "SddConfig",
    "SetsConfig",
    "SubjectDiffusionConfig",
    "TrainConfig",
    "check_prompts",
]
