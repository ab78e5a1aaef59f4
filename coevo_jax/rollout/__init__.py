"""Plays episodes: environments x engine -> trajectories."""

from coevo_jax.rollout.force import force
from coevo_jax.rollout.play import Cast, play, play_together

__all__ = ["Cast", "force", "play", "play_together"]
