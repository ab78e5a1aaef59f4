"""What a user types: each module reads a command line and says what came out."""

import os

# Read when transformers is imported, which would warn that there is no PyTorch; none is needed.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
