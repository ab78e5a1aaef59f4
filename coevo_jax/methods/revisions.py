"""Bad paths that are revised in the middle: cut at their first bad action, and spliced to a good path."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import chain, zip_longest
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from coevo_jax.methods.material import Chat, Imitation, Material, Noted, cut_turns
from coevo_jax.methods.pairs_of_paths import (
    ALPHA,
    BETA,
    Alpha,
    BadPath,
    bad_paths,
    good_ones,
    paths_by_task,
    shared_turns,
)
from coevo_jax.methods.ranges import Count, Gap
from coevo_jax.methods.tree import search_trees
from coevo_jax.methods.turns import turn_starts
from coevo_jax.methods.verdicts import found_bad, seen_by
from coevo_jax.trajectory import Trajectory, Turn

Text = Annotated[str, Field(min_length=1)]
Reward = Annotated[float, Field(ge=0, le=1)]
THOUGHTS = (
    "That step was a mistake. I go back to where I was and try something else.",
    "What I did last does not help with the task. I start again from before it.",
    "I see that I went wrong here. Another way should be better.",
    "This leads nowhere, so I give up this way and take another one.",
)


class Splice(NamedTuple):
    """Where a bad path is cut, and the good one that goes on."""

    bad: Trajectory
    cut: int  # turns of the bad path that are kept
    good: Trajectory
    shared: int  # turns of the good one that are left out, for both begin with them


IsBad = Callable[[Trajectory, int], bool]
"""Whether a path's turn is a bad one."""


def revisions(
    material: Material,
    *,
    transition: Literal["actor", "reward", "direct"] = "actor",
    threshold: Reward = 0.5,
    alpha: Alpha = ALPHA,
    beta: Gap = BETA,
    per_task: Count | None = None,
    thoughts: Annotated[tuple[Text, ...], Field(min_length=1)] = THOUGHTS,
    action: Text = "wait",
    answer: Text = "ok.",
    draw_seed: int = 42,
) -> Iterator[Imitation | Noted]:
    """Bad paths up to their first bad action, then a thought that it was one, then a good path of the task.

    Agent-R (arXiv 2501.11425, its revision trajectories). A path is paired with every good one of its task
    whose reward is more than `beta` above its own. What both begin with is left out of the good path's part;
    its answers are those of where it was played, and know nothing of the bad actions. The bad turns weigh 0;
    the thought with its action, and the good turns, weigh 1.

    The transition point is the first bad turn behind what both paths share (inferred: what the good path did
    as well is not taken for a mistake), and is kept. A pair without one is dropped. The same revision is made
    once, whatever the bad path did after the cut.

    Args:
      transition: which turn is bad: actor, one that an answer to `good_or_bad` calls Bad; reward, one behind
        which episodes earn less than `threshold` on average; direct, the last one, so that the whole bad path
        is kept (the paper's ablation Direct-Revision).
      threshold: of `reward`; inferred.
      alpha: a good path's reward is above this, or 1. A value for every round, the last one repeats; that
        they rise between rounds is the paper's, the values are inferred.
      beta: how much more than the bad path a good one earns at least; inferred.
      per_task: most revisions of a task, of every bad path the best good one first; inferred: all.
      thoughts: of which one is drawn for every revision, in words of ours.
      action, answer: what the agent does with its thought, and what it is told; the authors' code has these.
      draw_seed: of the drawing; inferred.
    """
    chat = material.chat
    assert chat is not None  # a phase that learns gives one
    is_bad = _judge(material, transition, threshold)
    tasks: dict[str, list[list[Splice | None]]] = {}
    for bad in bad_paths(material, alpha, beta):
        tasks.setdefault(bad.path.task_id, []).append(_splices(bad, is_bad))
    for own in tasks.values():
        pairs = list(chain.from_iterable(own))
        found = [one for one in chain.from_iterable(zip_longest(*own)) if one is not None]
        made = {(one.bad.turns[: one.cut], id(one.good)): one for one in reversed(found)}  # the first of each
        kept = [one for one in found if made[one.bad.turns[: one.cut], id(one.good)] is one][:per_task]
        yield from [Noted("pairs")] * len(pairs)
        yield from [Noted("no bad action")] * (len(pairs) - len(found))
        yield from [Noted("the same again")] * (len(found) - len(made))
        yield from [Noted("more than per_task")] * (len(made) - len(kept))
        for splice in kept:
            thought = thoughts[_lot(splice, draw_seed) % len(thoughts)]
            turn = Turn(response=f"Thought: {thought}\nAction: {action}", action=action, observation=answer)
            yield Noted(f"cut behind turn {splice.cut}")
            yield revised(splice, turn, chat)


def good_paths(
    material: Material, *, alpha: Alpha = ALPHA, per_task: Count | None = None
) -> Iterator[Trajectory]:
    """The good paths themselves, which Agent-R (arXiv 2501.11425) imitates beside the revisions.

    Args:
      alpha: as in `revisions`.
      per_task: most paths of a task, those with the most reward, then the shortest, first; inferred: all.
    """
    for paths in paths_by_task(material).values():
        good = good_ones(paths, alpha, material.round)
        yield from sorted(good, key=lambda one: (-one.reward, len(one.turns)))[:per_task]


def revised(splice: Splice, turn: Turn, chat: Chat) -> Imitation:
    """The tokens and turns of a revision, with the weights of its turns; it keeps the bad path's name."""
    import numpy as np  # here: a config is checked by the builders' signatures, and needs no arrays

    bad, good, cut = splice.bad, splice.good, splice.cut
    before, first = cut_turns(bad, cut), int(turn_starts(good)[splice.shared])
    closing = [] if before.tokens[-1] == chat.end_id else [chat.end_id]
    told = [*closing, *chat.observation_ids(bad.turns[cut - 1].observation)]
    said, heard = chat.response_ids(turn.response), chat.observation_ids(turn.observation)
    middle = np.array([*told, *said, *heard], np.int32)
    wrote = np.arange(len(middle)) - len(told)
    tokens = np.concatenate([before.tokens, middle, good.tokens[first:]])
    trajectory = replace(
        bad,
        turns=(*bad.turns[:cut], turn, *good.turns[splice.shared :]),
        reward=good.reward,
        ending=good.ending,
        tokens=tokens,
        agent_mask=np.concatenate(
            [before.agent_mask, (wrote >= 0) & (wrote < len(said)), good.agent_mask[first:]]
        ),
        logps=np.zeros(len(tokens), np.float32),
        branch=None,
    )
    return Imitation(trajectory, (*[0.0] * cut, *[1.0] * (1 + len(good.turns) - splice.shared)))


def _splices(bad: BadPath, is_bad: IsBad) -> list[Splice | None]:
    """One for every good path; None where there is no bad turn, or nothing of the good path is left."""
    wrong = [is_bad(bad.path, turn) for turn in range(len(bad.path.turns))]
    splices: list[Splice | None] = []
    for good in bad.better:
        shared = shared_turns(bad.path, good)
        first = next((turn for turn, one in enumerate(wrong) if one and turn >= shared), None)
        if first is None or shared == len(good.turns):
            splices.append(None)
        else:
            splices.append(Splice(bad.path, first + 1, good, shared))
    return splices


def _judge(material: Material, transition: str, threshold: float) -> IsBad:
    """What says which turns are bad."""
    if transition == "direct":
        return lambda path, turn: turn == len(path.turns) - 1
    if transition == "actor":
        verdicts = found_bad(material)
        return lambda path, turn: verdicts.get(seen_by(path.task_id, path.turns[: turn + 1]), False)
    trees = search_trees(material)
    return lambda path, turn: trees[path.task_id].value(path.turns[: turn + 1]) < threshold


def _lot(splice: Splice, seed: int) -> int:
    """A number drawn for a revision, by the names of both paths."""
    sides = (f"{one.collection}/{one.sample}" for one in (splice.bad, splice.good))
    named = "/".join((str(seed), splice.bad.task_id, *sides))
    return int(sha256(named.encode()).hexdigest(), 16)
