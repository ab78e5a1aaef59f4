"""Trajectories that are imitated without a pair."""

from collections.abc import Iterator
from itertools import chain

from coevo_jax.methods.material import Material, by_task
from coevo_jax.trajectory import Trajectory


def successes(material: Material) -> Iterator[Trajectory]:
    """The trajectories that solved their task: rejection-sampling fine-tuning (RFT, arXiv 2308.01825)."""
    for played in material.played:
        yield from (trajectory for trajectory in played if trajectory.success)


def best_rollouts(material: Material, *, above: float = 0.0) -> Iterator[Trajectory]:
    """The best of each task's roll-outs: what an agent imitates where there are no experts.

    Of equal ones the first counts. That one of each task is taken, and from which reward on, is ours; the
    idea is reward-ranked fine-tuning's (RAFT, arXiv 2304.06767), which takes the best of N answers.

    Args:
      above: the reward that one must exceed; inferred: what earned nothing shows nothing.
    """
    for group in by_task(chain(*material.played)).values():
        best = max((one for one in group if one.agent != "expert"), key=lambda one: one.reward, default=None)
        if best is not None and best.reward > above:
            yield best


def experts(material: Material) -> Iterator[Trajectory]:
    """The expert of every task that was played, whether or not the agent solved it."""
    explored = {trajectory.task_id for played in material.played for trajectory in played}
    yield from (expert for task_id, expert in material.experts.items() if task_id in explored)
