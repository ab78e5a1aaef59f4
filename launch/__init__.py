"""The commands: train, evaluate, report."""

import os

# Read when transformers is imported, which would warn that there is no PyTorch; none is needed.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
