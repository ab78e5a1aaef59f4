"""Prefix trees of trajectories: what several have in common stands once in a row.

In the order of their tokens, trajectories are the leaves of their tree from left to right: each adds what it
does not share with the one before it, and the row is the tree in depth-first order. So a tree needs no nodes,
only the number of tokens that each trajectory shares with its predecessor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coevo_jax.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class EncodedRow:
    """The used part of a row: U tokens, of which J are scored."""

    tokens: np.ndarray  # int32 [U]
    positions: np.ndarray  # int32 [U], along the path from the root
    visible_until: np.ndarray  # int32 [U]: where the subtree of the token's node ends
    source: np.ndarray  # int32 [J]: place of the scored token's parent
    target: np.ndarray  # int32 [J]
    place: np.ndarray  # int32 [J]: of the scored token itself
    entries: tuple[np.ndarray, ...]  # of each trajectory: the entry j of each of its scored tokens


def scored_tokens(trajectory: Trajectory) -> np.ndarray:
    """The places of the tokens that are scored: the agent's, but never the first, which nothing predicts."""
    return scored_places(trajectory.agent_mask)


def scored_places(agent_mask: np.ndarray) -> np.ndarray:
    """The same of a mask, bool [L]."""
    places = np.flatnonzero(agent_mask)
    return places[places > 0]


def token_codes(trajectory: Trajectory) -> np.ndarray:
    """Token and mask of every place in one number, big-endian [L]: the bytes sort as the tokens do."""
    return (trajectory.tokens.astype(np.int64) * 2 + trajectory.agent_mask).astype(">i8")


def common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    """Number of leading elements in which two arrays agree."""
    length = min(len(first), len(second))
    differs = np.flatnonzero(first[:length] != second[:length])
    return int(differs[0]) if len(differs) else length


def encode_row(trajectories: Sequence[Trajectory], shared: Sequence[int]) -> EncodedRow:
    """Lay trajectories into a row, depth first.

    Args:
      shared: of each trajectory, how many of its first tokens it shares with the one before it; 0 begins a
        tree. Along the order of the tokens this makes a prefix tree, any smaller numbers share less.
    """
    size = sum(len(one.tokens) - common for one, common in zip(trajectories, shared, strict=True))
    tokens, positions, visible_until, parent = (np.zeros(size, np.int32) for _ in range(4))
    is_scored = np.zeros(size, bool)
    path = np.zeros(0, np.int32)  # places of the last trajectory's tokens
    paths = []
    start = 0
    for trajectory, common in zip(trajectories, shared, strict=True):
        visible_until[path[common:]] = start  # the branches left behind end here
        added = np.arange(start, start + len(trajectory.tokens) - common, dtype=np.int32)
        path = np.concatenate([path[:common], added])
        tokens[added] = trajectory.tokens[common:]
        positions[added] = np.arange(common, len(trajectory.tokens))
        parent[path[1:]] = path[:-1]
        is_scored[path[scored_tokens(trajectory)]] = True
        paths.append(path)
        start += len(added)
    visible_until[path] = size
    places = np.flatnonzero(is_scored)
    entry_at = np.cumsum(is_scored) - 1
    return EncodedRow(
        tokens=tokens,
        positions=positions,
        visible_until=visible_until,
        source=parent[places],
        target=tokens[places],
        place=places.astype(np.int32),
        entries=tuple(
            entry_at[path[scored_tokens(one)]] for one, path in zip(trajectories, paths, strict=True)
        ),
    )
