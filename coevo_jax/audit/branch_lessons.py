"""What is learned of branches, derived again.

    verified_branch      a branch that reached success over the failure that it left, from its first own turn;
                         not where it did there what the failure did
    step_and_outcome     a task's expert and what the agent played from its states: from the start by the
                         final rewards alone, from later turns on where the step rewards are `tau` apart, too
    beneficial_segments  the shortest success through a task's start, and through each state of the expert
                         from which the agent failed after it had succeeded from the one before; the expert's
                         turns between these two weigh 0

The step reward of a turn is the mean final reward of the roll-outs from behind it, or the final reward of the
episode that it ends.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from coevo_jax.audit.sides import Imitated, Pair, Side

Options = Mapping[str, Any]
Left = tuple[str, str, int]  # collection, task and sample of an episode


def left_by(side: Side) -> Left | None:
    """The episode that a branch left."""
    branch = side.episode.branch
    return None if branch is None else (branch["collection"], side.episode.task_id, branch["sample"])


def once_each(sides: Sequence[Side]) -> Iterator[Side]:
    """What can teach, by tasks and samples; the same tokens again where they leave something elsewhere."""
    seen = set()
    for side in sorted(sides, key=lambda s: (s.episode.task_id, s.episode.sample)):
        name = (side.key, left_by(side), side.episode.replayed_turns)
        if side.episode.finished and len(side.episode.run_ends) and name not in seen:
            seen.add(name)
            yield side


def alike(one: Side, other: Side, turn: int) -> bool:
    """Whether both did the same at a turn; where neither did anything, whether both said the same."""
    turns = [side.episode.turns[turn] for side in (one, other) if turn < len(side.episode.turns)]
    if len(turns) < 2:
        return False
    said = ["action"] if turns[0]["action"] else ["action", "response"]
    return all(turns[0][what] == turns[1][what] for what in said)


def verified(played: Sequence[Sequence[Side]], options: Options, kind: str) -> list[Pair]:
    """Branches over the failures that they left, failure by failure; of each as many as the recipe says."""
    failures = {
        (side.source, side.episode.task_id, side.episode.sample): side
        for sides in played
        for side in sides
        if side.episode.failure
    }
    branches: dict[Left, dict[int, list[Side]]] = defaultdict(lambda: defaultdict(list))
    for sides in played:
        for side in once_each(sides):
            name, turn = left_by(side), side.episode.replayed_turns
            if name in failures and _is_verified(side, failures[name], options) and name is not None:
                branches[name][turn].append(side)
    pairs, most = [], options.get("per_failure")
    for name, by_turn in branches.items():
        rounds = max(map(len, by_turn.values()))
        dealt = [own[n] for n in range(rounds) for _, own in sorted(by_turn.items()) if n < len(own)]
        for side in dealt[:most]:
            pairs.append(_from_turn(kind, side, failures[name], side.episode.replayed_turns))
    return pairs


def _from_turn(kind: str, chosen: Side, rejected: Side, turn: int) -> Pair:
    return Pair(kind=kind, chosen=chosen, rejected=rejected, chosen_from=turn, rejected_from=turn)


def _is_verified(branch: Side, failure: Side, options: Options) -> bool:
    reward = branch.episode.reward
    enough = reward >= options.get("threshold", 1) and reward > failure.episode.reward
    return enough and not alike(branch, failure, branch.episode.replayed_turns)


def refined(
    played: Sequence[Sequence[Side]], experts: Mapping[str, Side], options: Options, kind: str
) -> Iterator[Pair]:
    """The expert and what was played from its states; the one with more reward is chosen."""
    own, rollouts = played
    rewards: dict[tuple[Any, int], list[float]] = defaultdict(list)
    for side in rollouts:
        if side.episode.finished:
            rewards[left_by(side), side.episode.replayed_turns].append(side.episode.reward)

    def worth(side: Side, turn: int) -> float:
        """A turn's step reward; NaN where it has none."""
        if turn == len(side.episode.turns) - 1:
            return side.episode.reward
        name = (side.source, side.episode.task_id, side.episode.sample)
        found = rewards.get((name, turn + 1))
        return float(np.mean(found)) if found else float("nan")

    only, tau = options.get("only", "both"), options.get("tau", 0.01)
    for side in once_each(own):
        expert, turn = experts.get(side.episode.task_id), side.episode.replayed_turns
        if expert is None or side.episode.branch is None or side.episode.branch["collection"] != "expert":
            continue
        worse, better = sorted((side, expert), key=lambda one: one.episode.reward)
        tie = abs(better.episode.reward - worse.episode.reward) < 1e-9
        if tie or (better is side and not options.get("agent_wins", False)):
            continue
        if turn == 0 and only in ("both", "outcomes"):
            yield Pair(kind=kind, chosen=better, rejected=worse)
        same = alike(side, expert, turn) and not options.get("same_steps", False)
        if only == "outcomes" or turn < options.get("first", 1) or same:
            continue
        if round(worth(better, turn) - worth(worse, turn), 9) > tau:
            yield _from_turn(kind, better, worse, turn)


def segments(
    played: Sequence[Sequence[Side]], experts: Mapping[str, Side], options: Options
) -> Iterator[Imitated]:
    """Solutions of the start, and of the states of the expert that need recovery."""
    tasks: dict[str, list[Side]] = defaultdict(list)
    for sides in played:
        for side in once_each(sides):
            if side.episode.branch is None or side.episode.branch["collection"] == "expert":
                tasks[side.episode.task_id].append(side)
    trains_experts = options.get("beneficial", True)
    for task in sorted(tasks):
        solved = {side.episode.replayed_turns for side in tasks[task] if side.episode.success}
        states = sorted({side.episode.replayed_turns for side in tasks[task]})
        bad = [
            (before, state) for before, state in pairwise(states) if before in solved and state not in solved
        ]
        starts = [(side, side.episode.replayed_turns) for side in tasks[task] if side.episode.success]
        expert = experts.get(task)
        if expert is not None and expert.episode.success and options.get("experts", True) and trains_experts:
            starts.append((expert, len(expert.episode.run_ends)))
        for state in (0, *(state for _, state in bad)):
            through = sorted(
                (one for one in starts if one[1] >= state), key=lambda one: len(one[0].episode.turns)
            )
            most = None if options.get("solutions", "shortest") == "all" else 1
            for side, start in through[:most]:
                turns = np.ones(len(side.episode.run_ends))
                turns[:start] = trains_experts
                for before, recovered in bad:
                    turns[before : min(recovered, start)] = 0
                yield Imitated(side=side, turns=tuple(turns.tolist()))
