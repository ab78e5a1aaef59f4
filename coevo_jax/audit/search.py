"""Where a search plays on, derived again.

    promising_nodes  from a task's start down, of the children of a state that the phase has left, the one
                     with the largest Q + c sqrt(ln N of the state / N): N episodes pass it, Q is their mean
                     reward; the first state that the phase has not left

Episodes of the named collections and the phase's own of earlier iterations make the tree. States behind
`depth` turns, ends of episodes, and what only leads to such are passed over. All points of an iteration are
chosen before it is played; an iteration's blocks are of the same tasks as the next one's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum, log, sqrt
from pathlib import Path
from typing import Any

from coevo_jax.audit.order import Phase
from coevo_jax.audit.reading import Episode, read_episodes
from coevo_jax.audit.round import Round
from coevo_jax.audit.sides import Side

COLUMNS = ("agent_mask", "turns")
Place = tuple[str, str, int, int]  # task, source, sample, turn
Name = tuple[str, str, int]  # source, task, sample
Step = tuple[str, str, str]  # a turn's text, action and answer


class Node:
    """A state, by what was played through it."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.children: dict[Step, Node] = {}
        self.goes_on: Name | None = None  # the first episode with a turn from here
        self.left = False

    @property
    def value(self) -> float:
        return fsum(self.rewards) / len(self.rewards)

    def walk(self, turns: Sequence[Mapping[str, str]]) -> "Node | None":
        """The state behind some turns; None where nothing was played through it."""
        node: Node | None = self
        for turn in turns:
            node = None if node is None else node.children.get(step(turn))
        return node

    def add(self, name: Name, episode: Episode) -> None:
        """Let an episode pass: all its states are visited."""
        node = self
        node.rewards.append(episode.reward)
        for turn in episode.turns:
            node.goes_on = node.goes_on or name
            node = node.children.setdefault(step(turn), Node())
            node.rewards.append(episode.reward)

    def descend(self, c: float, depth: int | None) -> "tuple[Node, int] | None":
        """The state to play on from, and how many turns led there."""
        if not self.open(0, depth):
            return None
        node, level = self, 0
        while node.left:
            able = [child for child in node.children.values() if child.open(level + 1, depth)]
            bounds = [child.value + c * sqrt(log(len(node.rewards)) / len(child.rewards)) for child in able]
            node, level = able[bounds.index(max(bounds))], level + 1
        return node, level

    def open(self, level: int, depth: int | None) -> bool:
        """Whether the state itself, or one below it, can be left."""
        if self.left:
            return any(child.open(level + 1, depth) for child in self.children.values())
        return self.goes_on is not None and (depth is None or level < depth)


def step(turn: Mapping[str, str]) -> Step:
    """What a turn is told from others by."""
    return turn["response"], turn["action"], turn["observation"]


class Trees:
    """The trees of a phase's tasks, which grow as its iterations are read."""

    def __init__(self, collections: Iterable[tuple[str, Sequence[Episode]]]) -> None:
        self.roots: dict[str, Node] = {}
        self._known: dict[Name, Episode] = {}
        for source, episodes in collections:
            self.grow(source, episodes)

    def grow(self, source: str, episodes: Sequence[Episode], *, leave: bool = False) -> None:
        """Add episodes; with `leave`, the states that they begin from are left."""
        ordered = sorted(episodes, key=lambda one: (one.task_id, one.sample))
        for one in ordered:
            name = (source, one.task_id, one.sample)
            self._known[name] = one
            if one.finished and one.agent_mask.any():
                self.roots.setdefault(one.task_id, Node()).add(name, one)
        for one in ordered if leave else ():
            root, parent = self.roots.get(one.task_id), one.branch
            if root is not None and parent is not None:
                other = self._known.get((parent["collection"], one.task_id, parent["sample"]))
                node = None if other is None else root.walk(other.turns[: one.replayed_turns])
                if node is not None:
                    node.left = True

    def points(self, options: Mapping[str, Any]) -> list[Place]:
        """A place for every task that has one."""
        places: list[Place] = []
        for task, root in sorted(self.roots.items()):
            found = root.descend(options.get("exploration", 0.25), options.get("depth", 10))
            if found is not None and found[0].goes_on is not None:
                source, _, sample = found[0].goes_on
                places.append((task, source, sample, found[1]))
        return places

    def counts(self) -> dict[str, int]:
        """What the phase's record says of them."""
        states = [both for root in self.roots.values() for both in _levels(root, 0)]
        left = [(node, level) for node, level in states if node.left]
        return {
            "trees": len(self.roots),
            "expanded": len(left),
            "nodes": sum(len(node.children) for node, _ in left),
            "depth": max((level + 1 for node, level in left if node.children), default=0),
            "paths": sum(len(root.rewards) for root in self.roots.values()),
        }


def _levels(node: Node, level: int) -> Iterator[tuple[Node, int]]:
    yield node, level
    for child in node.children.values():
        yield from _levels(child, level + 1)


def search(
    phase: Phase, found: Round, paths: Sequence[Path], tasks: Sequence[str], size: int
) -> tuple[list[list[Place]], dict[str, int]]:
    """The points of every block of a search, and what is recorded of its trees.

    Args:
      paths: the phase's shards.
      tasks: those of the round.
      size: tasks of a block.
    """
    options = phase.branching
    assert options is not None  # a phase that branches has them
    trees = Trees(named_sides(options.of, found.played(options)))
    parts = blocks_of_tasks(tasks, size)
    blocks: list[list[Place]] = []
    for iteration in range(options.iterations):
        points = trees.points(options.options)
        blocks += [[point for point in points if point[0] in part] for part in parts]
        shards = paths[iteration * len(parts) : (iteration + 1) * len(parts)]
        played = [episode for path in shards for episode in read_episodes(path, COLUMNS)]
        trees.grow(phase.collection, played, leave=True)
    return blocks, trees.counts()


def named_sides(
    names: Sequence[str], collections: Sequence[Sequence[Side]]
) -> list[tuple[str, list[Episode]]]:
    """The episodes of collections with their names."""
    return [(name, [side.episode for side in sides]) for name, sides in zip(names, collections, strict=True)]


def blocks_of_tasks(tasks: Sequence[str], size: int) -> list[set[str]]:
    """So many tasks at a time, by their names."""
    ids = sorted(tasks)
    return [set(ids[start : start + size]) for start in range(0, len(ids), size)] or [set()]
