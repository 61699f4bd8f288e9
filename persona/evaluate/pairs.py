"""Two side by side: the same prompts, the same seeds, and what one is above the other."""

from dataclasses import fields

from persona.config import CompareConfig, EvaluateConfig
from persona.evaluate.run import evaluate
from persona.evaluate.showing import Evaluation
from persona.events import Listener, silent


def compare(config: CompareConfig, listener: Listener = silent) -> Evaluation:
    """Draw two personas or methods on the same prompts and seeds, and measure them.

    Args:
        config: which two, on what, and how.
        listener: told how far it is, and what cannot be measured here.

    Returns:
        What :func:`persona.evaluate.evaluate` returns, with a last row for what the first is above the second, prompt
        by prompt.

    Raises:
        PersonaError: whatever the user can mend; what was drawn and measured before is kept.
        OSError: the disk is full; likewise.
    """
    settings = EvaluateConfig(**{field.name: getattr(config, field.name) for field in fields(config)})
    return evaluate(settings, listener, versus=True)
