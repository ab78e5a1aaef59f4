"""Search trees: what was played of a task as paths from its start, and the state from which to play on next.

A state is the turns that led there, () the task's start. Everything is derived from the played episodes, so
a search that was interrupted goes on where it stood.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import fsum, log, sqrt

from coevo_jax.methods.branches import episodes_by_name, parent_of
from coevo_jax.methods.material import Material
from coevo_jax.methods.points import Point
from coevo_jax.methods.ranges import Count, Gap
from coevo_jax.trajectory import Trajectory, Turn

State = tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """What was played of one task."""

    paths: tuple[Trajectory, ...]  # finished episodes, in the order of collections and samples
    left: frozenset[State] = frozenset()  # states from which a search has played on: the expanded nodes

    def through(self, state: State) -> list[Trajectory]:
        """The paths that begin with a state's turns: its visits."""
        return [one for one in self.paths if one.turns[: len(state)] == state]

    def beyond(self, state: State) -> list[Trajectory]:
        """Those of them that go on from there."""
        return [one for one in self.through(state) if len(one.turns) > len(state)]

    def children(self, state: State) -> list[State]:
        """The states one turn later, each once: two turns of the same text and answer are one."""
        return list(dict.fromkeys(one.turns[: len(state) + 1] for one in self.beyond(state)))

    def value(self, state: State) -> float:
        """The mean reward of the paths through a state, which back-propagation gives it; NaN without any."""
        rewards = [one.reward for one in self.through(state)]
        return fsum(rewards) / len(rewards) if rewards else float("nan")


def promising_nodes(
    material: Material, *, exploration: Gap = 0.25, depth: Count | None = 10
) -> Iterator[Point]:
    """The state of every task's search tree that is worth the most to play on from: Monte Carlo tree search.

    Agent-R (arXiv 2501.11425, its collection of trajectories). From the task's start down, among the children
    of a state that the phase has played on from, the one with the largest Q + c sqrt(ln N_parent / N) is
    taken: N counts the episodes through a state, Q is the mean of their rewards. The first state that the
    phase has not played on from is the point. What is played from there is at once its new children and
    their simulations, so none is unvisited. Episodes of the named collections are paths of the tree, too.

    States that end an episode, or lie too deep, are never points. Where everything below a state is done, it
    is not descended to again (inferred: no visit is spent on what teaches nothing). Of equal ones the child
    that was played first is taken.

    Args:
      exploration: the factor c; 0.25 is that of the authors' code.
      depth: states behind so many turns are not played on from, 10 in the authors' code; null for none.
    """
    for tree in search_trees(material).values():
        state = most_promising(tree, exploration=exploration, depth=depth)
        if state is not None:
            yield Point(tree.beyond(state)[0], len(state))


def search_trees(material: Material) -> dict[str, Tree]:
    """The tree of every task, of all collections and of what the phase itself has played."""
    known = episodes_by_name(material)
    paths: dict[str, list[Trajectory]] = {}
    left: dict[str, set[State]] = {}
    for played in (*material.played, material.branches):
        for one in sorted(played, key=lambda one: (one.task_id, one.sample)):
            if one.finished and one.agent_mask.any():
                paths.setdefault(one.task_id, []).append(one)
    for branch in material.branches:  # one that was lost has left its state, too
        name = parent_of(branch)
        if name is not None and name in known:
            left.setdefault(branch.task_id, set()).add(known[name].turns[: branch.first_own_turn])
    return {
        task_id: Tree(paths=tuple(own), left=frozenset(left.get(task_id, ())))
        for task_id, own in sorted(paths.items())
    }


def most_promising(tree: Tree, *, exploration: float, depth: int | None) -> State | None:
    """The state to play on from; None where the tree holds none any more."""
    if not _open(tree, (), depth):
        return None
    state: State = ()
    while state in tree.left:
        parent = len(tree.through(state))
        state = max(
            (child for child in tree.children(state) if _open(tree, child, depth)),
            key=lambda child: upper_bound(tree.value(child), len(tree.through(child)), parent, exploration),
        )
    return state


def upper_bound(value: float, visits: int, parent_visits: int, exploration: float) -> float:
    """UCT: a child's value, and what is added for the little that is known of it."""
    return value + exploration * sqrt(log(parent_visits) / visits)


def _open(tree: Tree, state: State, depth: int | None) -> bool:
    """Whether a state, or one below it, can still be played on from."""
    if state in tree.left:
        return any(_open(tree, child, depth) for child in tree.children(state))
    return (depth is None or len(state) < depth) and bool(tree.beyond(state))


def tree_counts(trees: Mapping[str, Tree]) -> dict[str, int]:
    """The size of a round's search trees, for the phase's record.

    Trees, states that were played on from (`expanded`), their children (`nodes`), the deepest of these in
    turns (`depth`), and the paths.
    """
    nodes = [child for tree in trees.values() for child in set(chain(*map(tree.children, tree.left)))]
    return {
        "trees": len(trees),
        "expanded": sum(len(tree.left) for tree in trees.values()),
        "nodes": len(nodes),
        "depth": max(map(len, nodes), default=0),
        "paths": sum(len(tree.paths) for tree in trees.values()),
    }
