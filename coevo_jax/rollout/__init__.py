"""Plays episodes: environments x engine -> trajectories."""

from coevo_jax.rollout.force import force
from coevo_jax.rollout.play import BranchPoint, BranchSet, EpisodeSet, play, play_together
from coevo_jax.rollout.questions import QuestionSet, TaskQuestion

__all__ = [
    "BranchPoint",
    "BranchSet",
    "EpisodeSet",
    "QuestionSet",
    "TaskQuestion",
    "force",
    "play",
    "play_together",
]
