"""Plays episodes: environments x engine -> trajectories."""

from coevo_jax.rollout.force import force
from coevo_jax.rollout.play import BranchPoint, BranchSet, EpisodeSet, play, play_together

__all__ = ["BranchPoint", "BranchSet", "EpisodeSet", "force", "play", "play_together"]
