"""What a corrector learns from, and what is kept of what it played."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from coevo_jax.methods.distortion import OPERATIONS, Operation, suggestions
from coevo_jax.methods.hints import WORDING, retold
from coevo_jax.methods.material import Imitation, Material, by_task
from coevo_jax.methods.ranges import Count, Reward, Share
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import SOLVED_REWARD, Trajectory


def corrections(
    material: Material,
    *,
    share: Share = 0.3,
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)] = OPERATIONS,
    wording: str = WORDING,
    copies: Count = 2,
    plain_weight: Share = 1.0,
) -> Iterator[Imitation]:
    """The experts of the tasks that were played, each turn behind a suggestion that may be distorted.

    The corrector of adversarial imitation with augmentation and correction (CAT, arXiv 2103.13887), as a text
    port: it is told the distorted action beside what an agent is told, and learns by cross-entropy what the
    expert did, where the paper has a discriminator and TRPO. Everything of the port is inferred.

    Args:
      share: the probability that a turn's suggestion is distorted.
      operations: what distorts it (`methods.distortion`), in a drawn order until one can.
      wording: how the suggestion stands in the text.
      copies: of every expert, each distorted anew.
      plain_weight: weight of the turns whose suggestion is the expert's action: 1 learns to keep what is
        right, 0 learns from distorted turns alone.
    """
    explored = {trajectory.task_id for played in material.played for trajectory in played}
    for task_id in sorted(explored):
        expert = material.expert(task_id)
        if expert is None or len(turn_starts(expert)) != len(expert.turns):
            continue
        for copy in range(copies):
            made = suggestions(
                expert,
                share=share,
                operations=operations,
                seed=material.seed,
                phase=material.phase,
                sample=copy,
                offered=material.offered,
            )
            told = retold(expert, [one.action for one in made], wording, material)
            weights = tuple(1.0 if one.operation else plain_weight for one in made)
            yield Imitation(replace(told, sample=copy, collection="corrections"), weights)


def kept_corrections(
    material: Material,
    *,
    threshold: Reward = SOLVED_REWARD,
    repeats: bool = False,
) -> Iterator[Trajectory]:
    """What a corrector played live and solved, as if nothing had been suggested to it.

    The synthetic experts of DAugGI (arXiv 2103.13887), which discards the roll-outs of its frozen corrector
    that did not succeed. Here they are told again without the suggestions, and imitated.

    Args:
      threshold: the least reward of what is kept; 1 is success (the paper: a flag of success, or a return).
      repeats: keep, too, what did at every turn what the expert did (inferred: left out, for beside the
        experts it would count twice).
    """
    for played in material.played:
        for task_id, episodes in by_task(played).items():
            expert = material.expert(task_id)
            for one in episodes:
                repeated = expert is not None and same_actions(one, expert)
                if one.reward >= threshold and (repeats or not repeated):
                    yield retold(one, (), "", material)


def same_actions(one: Trajectory, other: Trajectory) -> bool:
    """Whether two trajectories did the same at every turn."""
    return [turn.action for turn in one.turns] == [turn.action for turn in other.turns]
