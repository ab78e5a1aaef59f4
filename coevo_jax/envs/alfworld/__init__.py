"""ALFWorld: its downloaded text games as tasks, one environment per split of the download.

Dev is the seen split (folder valid_seen: rooms that training has, other tasks), test the unseen one (folder
valid_unseen: rooms that training has not).
"""

from coevo_jax.envs.alfworld.environment import AlfWorldEnv, make_alfworld
from coevo_jax.envs.alfworld.options import AlfWorldOptions

__all__ = ["AlfWorldEnv", "AlfWorldOptions", "make_alfworld"]
