"""Pairs of a better and a worse trajectory of one task, both played by agents."""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Literal

from coevo_jax.methods.material import Material, Preference, by_reward, by_task, cut_to_expert
from coevo_jax.trajectory import Trajectory


def better_over_worse(
    material: Material,
    *,
    only: Literal["failures", "all"] = "failures",
    across: bool = False,
    max_extra_turns: int | None = None,
) -> Iterator[Preference]:
    """Pairs that prefer a trajectory with more reward to one of the same task with less.

    Of failures alone, this is what the failure agent learns from (Co-Evolving Agents, arXiv 2511.22254):
    D_fail = {(u, e+, e-)}, both sides failures, never an expert.

    Args:
      only: failures leaves out what was solved; all prefers a success over a failure, too.
      across: pairs between two collections only, never within one.
      max_extra_turns: rejected trajectories are cut to the turns of the task's expert plus this many; null
        never cuts, and looks at no expert.
    """
    groups = [by_task(played) for played in material.played]
    for task_id in sorted({task_id for group in groups for task_id in group}):
        sides = [
            [
                one
                for one in group.get(task_id, [])
                if one.agent != "expert" and (only == "all" or one.failure)
            ]
            for group in groups
        ]
        expert = None if max_extra_turns is None else material.expert(task_id)
        for one, other in _couples(sides, across):
            preference = by_reward(one, other)
            if preference is not None:
                yield cut_to_expert(preference, expert, max_extra_turns)


def _couples(sides: list[list[Trajectory]], across: bool) -> Iterator[tuple[Trajectory, Trajectory]]:
    if not across:
        yield from combinations([trajectory for side in sides for trajectory in side], 2)
        return
    for first, second in combinations(sides, 2):
        yield from product(first, second)
