"""TextWorld: text games made offline or read from a folder, their walkthroughs as experts, score as reward.

Dev is the seen split: other games of the same families and sizes. Test is unseen: other games too, and food
and recipes that no training game has. Whether a game is of a split is decided by its content, so no two
splits share one.
"""

from coevo_jax.envs.textworld.environment import TextWorldEnv, make_textworld
from coevo_jax.envs.textworld.generate import generate_textworld
from coevo_jax.envs.textworld.options import TextWorldOptions

__all__ = ["TextWorldEnv", "TextWorldOptions", "generate_textworld", "make_textworld"]
