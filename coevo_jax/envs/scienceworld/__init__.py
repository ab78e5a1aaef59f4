"""ScienceWorld: interactive science tasks in the real simulator, from the package index."""

from coevo_jax.envs.scienceworld.environment import ScienceWorld, make_scienceworld
from coevo_jax.envs.scienceworld.experts import generate_experts
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions

__all__ = ["ScienceWorld", "ScienceWorldOptions", "generate_experts", "make_scienceworld"]
