"""Measure how well subjects are drawn: personas, checkpoints, strengths and methods on one table, by one evaluator."""

from persona.evaluate.pairs import compare
from persona.evaluate.run import evaluate
from persona.evaluate.showing import Evaluation

__all__ = ["Evaluation", "compare", "evaluate"]
