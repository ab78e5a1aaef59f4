"""Branches and the episodes that they left, as builders look at them."""

from collections.abc import Iterable, Iterator, Mapping

from coevo_jax.methods.material import Material
from coevo_jax.trajectory import Trajectory

Name = tuple[str, str, int]  # of an episode: collection, task, sample


def episodes_by_name(material: Material) -> Mapping[Name, Trajectory]:
    """What was played in the collections of a material, by the names that branches have for it.

    What the phase itself has played counts among it.
    """
    return {name_of(one): one for played in (*material.played, material.branches) for one in played}


def name_of(trajectory: Trajectory) -> Name:
    """The name of an episode: collection, task, sample."""
    return trajectory.collection or trajectory.agent, trajectory.task_id, trajectory.sample


def parent_of(branch: Trajectory) -> Name | None:
    """The name of the episode that a branch left; None where it was played from its task's start."""
    left = branch.branch
    return None if left is None else (left.collection, branch.task_id, left.sample)


def distinct(trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
    """Finished trajectories in the order of tasks and samples, none that repeats another from the same place.

    Two branches with the same tokens differ where the agent of the one played a turn that the other replayed:
    a greedy agent that does at one state what was replayed for the next one makes such branches.
    """
    seen: set[tuple[object, ...]] = set()
    for one in sorted(trajectories, key=lambda t: (t.task_id, t.agent, t.sample)):
        written = one.tokens.tobytes(), one.agent_mask.tobytes()
        place = (one.task_id, *written, parent_of(one), one.first_own_turn)
        if one.finished and one.agent_mask.any() and place not in seen:
            seen.add(place)
            yield one


def same_step(one: Trajectory, other: Trajectory, turn: int) -> bool:
    """Whether two trajectories do the same at a turn: the same action, or both none and the same words."""
    if turn >= min(len(one.turns), len(other.turns)):
        return False
    mine, theirs = one.turns[turn], other.turns[turn]
    return mine.action == theirs.action and (bool(mine.action) or mine.response == theirs.response)
