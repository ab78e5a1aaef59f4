"""Trajectories that are imitated without a pair."""

from collections.abc import Iterator

from coevo_jax.methods.material import Material
from coevo_jax.trajectory import Trajectory


def successes(material: Material) -> Iterator[Trajectory]:
    """The trajectories that solved their task: rejection-sampling fine-tuning (RFT, arXiv 2308.01825)."""
    for played in material.played:
        yield from (trajectory for trajectory in played if trajectory.success)


def experts(material: Material) -> Iterator[Trajectory]:
    """The expert of every task that was played, whether or not the agent solved it."""
    explored = {trajectory.task_id for played in material.played for trajectory in played}
    yield from (expert for task_id, expert in material.experts.items() if task_id in explored)
