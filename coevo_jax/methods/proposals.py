"""Points at failures with a step that somebody else proposes there; the policy plays on from behind it."""

from collections.abc import Iterator

from coevo_jax.methods.branches import distinct, episodes_by_name, parent_of, same_step
from coevo_jax.methods.material import Material
from coevo_jax.methods.points import Point, failed_turns
from coevo_jax.methods.ranges import Count, Turn
from coevo_jax.trajectory import Ending


def expert_proposals(material: Material, *, count: Count | None = None, first: Turn = 0) -> Iterator[Point]:
    """The states along failures at which the task's expert would do something else, with what it would do.

    The expert proposes the alternative to a candidate step (CSO, arXiv 2602.03412). Where experts are
    demonstrations and cannot be asked at another state, its step there is that of the same number: inferred;
    what does not lead to success is sorted out by the verification.

    Args:
      count: number of states of each failure; null takes every one. Which are candidates is ours.
      first: states before this turn are left out.
    """
    for point in failed_turns(material, count=count, first=first):
        failure, expert = point.trajectory, material.expert(point.trajectory.task_id)
        if expert is None or point.turn >= len(expert.turns) or same_step(failure, expert, point.turn):
            continue
        yield point._replace(response=expert.turns[point.turn].response)


def agent_proposals(material: Material) -> Iterator[Point]:
    """The states along failures at which another agent played a step, with that step, each once.

    The collections are the failures and the branches of them in which the other agent played: one turn of
    its own is enough (`turns: 1`). A step that the failure took as well, or with no action, proposes nothing.
    """
    known = episodes_by_name(material)
    seen: set[tuple[object, ...]] = set()
    for played in material.played:
        for branch in distinct(played):
            name, turn = parent_of(branch), branch.first_own_turn
            failure = None if name is None else known.get(name)
            if failure is None or not failure.failure or turn >= len(branch.turns):
                continue
            cut = branch.ending is Ending.TOKEN_LIMIT and turn == len(branch.turns) - 1
            proposed = branch.turns[turn]
            place = (name, turn, proposed.response)
            if cut or not proposed.action or same_step(branch, failure, turn) or place in seen:
                continue
            seen.add(place)
            yield Point(failure, turn, proposed.response)
