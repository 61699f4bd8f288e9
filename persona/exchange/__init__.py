"""Adapters as files of other programs: theirs read, ours written, and both held against each other.

Whatever the file, an adapter is a product of two factors for each module. What a file says is looked up in one table
of the names that each module goes by; what is written is read back through it.
"""

from persona.exchange.product import Module, Product, of_adapter, to_adapter
from persona.exchange.reading import read
from persona.exchange.verifying import check
from persona.exchange.writing import write

__all__ = ["Module", "Product", "check", "of_adapter", "read", "to_adapter", "write"]
