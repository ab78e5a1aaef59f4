"""Faults injected into small runs of every method, and what became of each: `python -m benchmarks.faults`."""
