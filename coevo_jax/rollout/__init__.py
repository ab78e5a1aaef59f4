"""Plays episodes: environments x engine -> trajectories."""

from coevo_jax.rollout.force import force
from coevo_jax.rollout.play import EpisodeSet, play, play_together

__all__ = ["EpisodeSet", "force", "play", "play_together"]
