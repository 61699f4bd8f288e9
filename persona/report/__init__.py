"""Self-contained HTML pages: about a run of training, and about what was evaluated or compared.

A page needs no network: pictures are data URIs, curves inline SVG, and its own policy forbids the rest; the only script
is the one that sorts an evaluation, named by its hash. Everything that comes from outside is escaped. A page follows
the reader's dark mode, prints, and can be read by keyboard and by screen reader: each picture has a text, each curve a
table of its values.
"""

from persona.report.evaluation import Column, Shot, write_evaluation
from persona.report.plot import Cell, Plot, Row
from persona.report.training import write

__all__ = ["Cell", "Column", "Plot", "Row", "Shot", "write", "write_evaluation"]
