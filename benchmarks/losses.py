"""Write docs/losses.md's table of losses from their docstrings and signatures: python -m benchmarks.losses"""

from benchmarks.methods import write_table
from coevo_jax.learning.loss_table import loss_markdown

if __name__ == "__main__":
    write_table("losses", loss_markdown())
