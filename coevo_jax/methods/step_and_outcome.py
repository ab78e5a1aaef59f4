"""Pairs of an expert and what the agent did from its states, by step rewards and outcomes: IPR."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from coevo_jax.methods.branches import distinct, name_of, parent_of, same_step
from coevo_jax.methods.material import Material, Preference
from coevo_jax.methods.ranges import Gap, Turn
from coevo_jax.trajectory import Trajectory

Values = Mapping[tuple[object, int], list[float]]  # rewards of roll-outs by episode and turns replayed of it


def step_and_outcome(
    material: Material,
    *,
    only: Literal["both", "steps", "outcomes"] = "both",
    tau: Gap = 0.01,
    agent_wins: bool = False,
    first: Turn = 1,
    same_steps: bool = False,
) -> Iterator[Preference]:
    """Pairs of Iterative step-level Process Refinement (IPR, arXiv 2406.11176, sections 3.2 and 3.3).

    The first collection is what the agent played from the experts' states, the second the roll-outs of a
    scorer from behind the turns of both. A turn's step reward is the mean final reward of the roll-outs from
    behind it, and the final reward where it ends its episode. From a state before turn t there is a step pair
    where one side's step reward exceeds the other's by more than tau and its final reward is higher, too:
    both sides from turn t on, to their ends. Of what was played from the task's start there is an outcome
    pair by the final rewards. A step without a finished roll-out has no step reward, and makes no pair.

    Args:
      only: steps or outcomes leaves out the other kind of pair.
      tau: gap of step rewards that a step pair has to exceed; 0.01 is WebShop's, 0.1 InterCode SQL's, 0.5
        ALFWorld's.
      agent_wins: pairs that prefer the agent, too; the paper's never do, the official code allows them.
      first: step pairs before this turn are left out: at the task's start the outcome pair stands, as in the
        official code.
      same_steps: step pairs whose first turns are the same action, which roll-outs tell apart by chance
        alone. Leaving them out is ours.
    """
    own, rollouts = material.played
    values = _values(rollouts)
    for branch in distinct(own):
        left, expert = branch.branch, material.expert(branch.task_id)
        if left is None or expert is None or left.collection != "expert":
            continue
        gap = round(expert.reward - branch.reward, 9)
        if gap == 0 or (gap < 0 and not agent_wins):
            continue
        turn, sides = left.turns, (expert, branch) if gap > 0 else (branch, expert)
        if turn == 0 and only != "steps":
            yield Preference(*sides)
        if turn < first or only == "outcomes" or (same_step(branch, expert, turn) and not same_steps):
            continue
        chosen, rejected = (_step_reward(side, turn, values) for side in sides)
        if chosen is not None and rejected is not None and round(chosen - rejected, 9) > tau:
            yield Preference(*sides, turn, turn)


def _values(rollouts: Sequence[Trajectory]) -> Values:
    found: dict[tuple[object, int], list[float]] = {}
    for one in rollouts:
        if one.finished:
            found.setdefault((parent_of(one), one.first_own_turn), []).append(one.reward)
    return found


def _step_reward(one: Trajectory, turn: int, values: Values) -> float | None:
    """The mean final reward from behind a turn; None where nothing was played from there to an end."""
    if turn == len(one.turns) - 1:
        return one.reward
    rewards = values.get((name_of(one), turn + 1), [])
    return sum(rewards) / len(rewards) if rewards else None
