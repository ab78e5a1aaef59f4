"""Co-evolving agents that learn from failures, in JAX."""

__version__ = "0.1.0"
