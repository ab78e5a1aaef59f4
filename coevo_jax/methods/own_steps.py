"""What an agent did of its own at the states of experts: the steps of branches that leave an expert."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Literal, NamedTuple

from coevo_jax.methods.material import Material, by_task
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Trajectory, Turn

Same = Literal["action", "response"]


class OwnStep(NamedTuple):
    """A turn that an agent played where an expert played another."""

    expert: Trajectory
    branch: Trajectory
    turn: int  # of both, from 0

    @property
    def experts(self) -> Turn:
        return self.expert.turns[self.turn]

    @property
    def own(self) -> Turn:
        return self.branch.turns[self.turn]

    def differs(self, same: Same) -> bool:
        """Whether the agent did otherwise than the expert, by its action or by the text that it wrote."""
        text: Callable[[Turn], str] = attrgetter(same)
        return text(self.experts).strip() != text(self.own).strip()


def own_steps(material: Material) -> Iterator[OwnStep]:
    """The first own turn of every branch that leaves an expert; the same tokens of a task stand once."""
    for played in material.played:
        for task_id, branches in by_task(played).items():
            expert = material.expert(task_id)
            for branch in branches:
                left = branch.branch
                if expert is None or left is None or left.collection != expert.agent:
                    continue
                if left.turns < min(len(expert.turns), len(turn_starts(branch))):
                    yield OwnStep(expert, branch, left.turns)
