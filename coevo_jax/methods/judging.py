"""The steps that a discriminator tells apart: an agent's own turns, and the turns of experts."""

from collections.abc import Sequence
from dataclasses import dataclass

from coevo_jax.methods.material import Material, cut_turns
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class JudgedStep:
    """One turn of an episode, which ends with it or goes on."""

    trajectory: int  # index into the episodes
    turn: int  # from 0
    by_expert: bool


@dataclass(frozen=True, kw_only=True)
class JudgedSteps:
    """The episodes of a round that are judged, and their steps task by task, those of one state together.

    Of a task, an own step is followed by the expert's of the same turn, where that has not come before.
    """

    episodes: Sequence[Trajectory]
    steps: Sequence[JudgedStep]
    without_expert: int  # own turns that are left out, for their task has no expert


def steps_to_judge(material: Material) -> JudgedSteps:
    """Every own turn of the episodes, and the experts' of their tasks: what D learns to tell apart.

    StepAgent (arXiv 2411.03817), inverse reinforcement learning: D(s, a) is 1 for an expert's step, 0 for the
    agent's own. Of a task whose episodes all leave its expert, the expert's steps are those at the states
    where they do; else they are all of its turns. Each counts once, however often the agent was there, and
    equal own steps all count, an expert's own words among them: they are drawn from the agent. The paper's
    text was not to be had, so that all of this is inferred.
    """
    tasks: dict[str, list[Trajectory]] = {}
    for played in material.played:
        for one in played:
            if one.finished and one.first_own_turn < len(turn_starts(one)):
                tasks.setdefault(one.task_id, []).append(one)
    episodes: list[Trajectory] = []
    steps: list[JudgedStep] = []
    alone = 0
    for task_id in sorted(tasks):
        expert, own = material.expert(task_id), sorted(tasks[task_id], key=_place)
        if expert is None:
            alone += sum(len(turn_starts(one)) - one.first_own_turn for one in own)
            continue
        turns = _turns_of_expert(expert, own)
        place = len(episodes)
        episodes += [cut_turns(expert, max(turns) + 1), *own]
        drawn = [
            (turn, place + 1 + number)
            for number, one in enumerate(own)
            for turn in range(one.first_own_turn, len(turn_starts(one)))
        ]
        waiting = sorted(turns)
        for turn, number in sorted(drawn):
            steps.append(JudgedStep(trajectory=number, turn=turn, by_expert=False))
            while waiting and waiting[0] <= turn:
                steps.append(JudgedStep(trajectory=place, turn=waiting.pop(0), by_expert=True))
        steps += [JudgedStep(trajectory=place, turn=turn, by_expert=True) for turn in waiting]
    return JudgedSteps(episodes=episodes, steps=steps, without_expert=alone)


def _place(trajectory: Trajectory) -> tuple[int, str, str, int]:
    return trajectory.first_own_turn, trajectory.collection, trajectory.agent, trajectory.sample


def _turns_of_expert(expert: Trajectory, own: Sequence[Trajectory]) -> set[int]:
    """The turns of an expert that stand against own ones."""
    count, left = len(turn_starts(expert)), [one.branch for one in own]
    if all(branch is not None and branch.collection == expert.agent for branch in left):
        same = {branch.turns for branch in left if branch is not None and branch.turns < count}
        return same or set(range(count))
    return set(range(count))
