"""Measure how well subjects are drawn: personas, checkpoints, strengths and methods on one table, by one evaluator."""

from persona.evaluate.pairs import compare
from persona.evaluate.run import Evaluation, evaluate

__all__ = ["Evaluation", "compare", "evaluate"]
