"""Pairs of a failure and a branch of it that came to success: Verified Critical Step Optimization."""

from collections import Counter
from collections.abc import Iterator, Sequence

from coevo_jax.methods.branches import Name, distinct, episodes_by_name, parent_of, same_step
from coevo_jax.methods.material import Material, Preference
from coevo_jax.methods.ranges import Count, Reward
from coevo_jax.trajectory import SOLVED_REWARD, Trajectory


def verified_branch(
    material: Material, *, threshold: Reward = SOLVED_REWARD, per_failure: Count | None = None
) -> Iterator[Preference]:
    """Pairs that prefer a branch that reached success to the failure that it left, from that turn on.

    A step is critical where another one is verified: the policy itself played on from it to success (CSO,
    arXiv 2602.03412, its verification of alternatives). Both sides count from the branch's first own turn.
    A branch that does there what the failure did tells nothing of that step, and makes no pair.

    Args:
      threshold: reward from which on a branch is a success. Below 1 is ours; a branch must have more reward
        than its failure whatever this is.
      per_failure: most pairs of a failure; inferred, as which these are: one of each turn, the earliest turn
        first, before a second one of any. null takes all.
    """
    known = episodes_by_name(material)
    verified: dict[Name, list[Trajectory]] = {}
    for played in material.played:
        for branch in distinct(played):
            name = parent_of(branch)
            failure = None if name is None else known.get(name)
            if name is None or failure is None or not failure.failure:
                continue
            better = branch.reward >= threshold and branch.reward > failure.reward
            if better and not same_step(branch, failure, branch.first_own_turn):
                verified.setdefault(name, []).append(branch)
    for name, branches in verified.items():
        for branch in _one_of_each_turn_first(branches)[:per_failure]:
            turn = branch.first_own_turn
            yield Preference(branch, known[name], turn, turn)


def _one_of_each_turn_first(branches: Sequence[Trajectory]) -> list[Trajectory]:
    """The first branch of every turn by turns, then the second of each that has one, and so on."""
    seen: Counter[int] = Counter()
    places: list[tuple[int, int, int]] = []
    for number, branch in enumerate(branches):
        turn = branch.first_own_turn
        places.append((seen[turn], turn, number))
        seen[turn] += 1
    return [branches[number] for _, _, number in sorted(places)]
