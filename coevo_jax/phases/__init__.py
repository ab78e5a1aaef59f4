"""The phases of a run: prepare, warm start, explore, learn, evaluate."""
