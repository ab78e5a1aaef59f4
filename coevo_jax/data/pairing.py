"""From trajectories to preference pairs, by reference: which failure teaches what, and to whom.

The rules are those of Co-Evolving Agents (arXiv 2511.22254) on top of ETO (arXiv 2403.02502):

    expert_target    (a) expert over a trajectory of the target agent
    expert_failure   (b) expert over a trajectory of the failure agent
    failure_failure  (c) a failure over another failure of the same task with less reward

A failure is a finished trajectory with reward < 1. An environment fault is never in a pair, nor is a tie,
nor an episode in which the agent wrote nothing (its prompt did not fit): there is nothing to learn from it.
Everything is a function of the set of trajectories, not of the order in which they come.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from coevo_jax.trajectory import PAIR_KINDS, Ending, PreferencePair, Trajectory


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Pairs, and the trajectories they name: each stands once, and only those in use."""

    trajectories: tuple[Trajectory, ...]
    pairs: tuple[PreferencePair, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    kind: str
    chosen: Trajectory
    rejected: Trajectory

    @property
    def gap(self) -> float:
        """Difference of the rewards; rounded, so that equal gaps are equal (0.8 - 0.5 and 0.5 - 0.2)."""
        return round(self.chosen.reward - self.rejected.reward, 9)


def draw(seed: int, kind: str, chosen: Trajectory, rejected: Trajectory) -> str:
    """The lot of a pair, by which it is kept or left out: anybody can draw it again from the pair's names."""
    sides = "/".join(f"{side.agent}-{side.sample}" for side in (chosen, rejected))
    return hashlib.sha256(f"{seed}/{kind}/{chosen.task_id}/{sides}".encode()).hexdigest()


# What of too many pairs is kept: those that come first by these keys. Equal ones stay in their order.
KEPT: dict[str, Callable[[_Candidate, int], float | str]] = {
    "largest_gap": lambda one, _seed: -one.gap,
    "smallest_gap": lambda one, _seed: one.gap,
    "drawn": lambda one, seed: draw(seed, one.kind, one.chosen, one.rejected),
}


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which pairs are kept where there are too many."""

    by: str = "largest_gap"  # a key of KEPT
    seed: int = 0  # of the run; for what is drawn

    def key(self, candidate: _Candidate) -> Any:
        return KEPT[self.by](candidate, self.seed)


def round_pairs(
    experts: Iterable[Trajectory],
    target: Iterable[Trajectory],
    failure: Iterable[Trajectory],
    *,
    kinds: Sequence[str] = PAIR_KINDS,
    max_per_kind: int,
    max_extra_turns: int | None = None,
    cross_agent_only: bool = False,
    keep: Keep = Keep(),
) -> PairSet:
    """Pairs of a round for an agent: of the `kinds` asked for, at most `max_per_kind` of each kind and task.

    Where an agent beats the expert, its trajectory is the chosen side (ETO). A rejected trajectory is cut to
    the turns of the task's expert plus `max_extra_turns`; None never cuts.
    """
    expert_of = {expert.task_id: expert for expert in experts if expert.agent_mask.any()}
    targets, failures = _by_task(target), _by_task(failure)
    candidates: list[_Candidate] = []
    for task_id in sorted({*targets, *failures}):
        ours, theirs = targets.get(task_id, []), failures.get(task_id, [])
        expert = expert_of.get(task_id)
        found = {
            "expert_target": _against_expert("expert_target", expert, ours),
            "expert_failure": _against_expert("expert_failure", expert, theirs),
            "failure_failure": _among_failures(ours, theirs, cross_agent_only=cross_agent_only),
        }
        limit = None if expert is None or max_extra_turns is None else len(expert.turns) + max_extra_turns
        selected: list[_Candidate] = []
        for kind in PAIR_KINDS:
            if kind in kinds:
                selected += _select(found[kind], selected, limit, max_per_kind, keep)
        candidates += selected
    return _collect(candidates)


def failure_pairs(
    target_failures: Iterable[Trajectory],
    failure_failures: Iterable[Trajectory],
    *,
    cross_agent_only: bool,
    max_per_kind: int,
    keep: Keep = Keep(),
) -> PairSet:
    """Pairs for the failure agent: better failure over worse failure, never an expert, never a success."""
    return round_pairs(
        [],
        target_failures,
        failure_failures,
        kinds=("failure_failure",),
        max_per_kind=max_per_kind,
        cross_agent_only=cross_agent_only,
        keep=keep,
    )


def keep_pairs(pair_set: PairSet, count: int, keep: Keep, usable: Iterable[int]) -> PairSet:
    """Keep `count` of the `usable` pairs, spread evenly over the tasks; fewer where there are not as many.

    Every task keeps its first pair by the order of `keep` before any keeps its second, and so on; of the
    last ones that are kept, those come first that `keep` puts first. The pairs stay in their places.

    Args:
      usable: numbers of the pairs that can be learned from.
    """
    candidates = {number: _candidate(pair_set, number) for number in sorted(usable)}
    places: list[tuple[int, Any, int]] = []
    seen: dict[str, int] = {}
    for number in sorted(candidates, key=lambda number: keep.key(candidates[number])):
        one = candidates[number]
        places.append((seen.get(one.chosen.task_id, 0), keep.key(one), number))
        seen[one.chosen.task_id] = places[-1][0] + 1
    kept = sorted(number for _, _, number in sorted(places)[:count])
    return _collect([candidates[number] for number in kept])


def _candidate(pair_set: PairSet, number: int) -> _Candidate:
    pair = pair_set.pairs[number]
    chosen, rejected = pair_set.trajectories[pair.chosen], pair_set.trajectories[pair.rejected]
    return _Candidate(kind=pair.kind, chosen=chosen, rejected=rejected)


def add_trajectories(pair_set: PairSet, extra: Iterable[Trajectory]) -> tuple[PairSet, list[int]]:
    """Add trajectories that are learned from without a pair; returns the set and their indices in it.

    One whose tokens are already in the set, or that comes twice, keeps one place; one without a token of
    the agent is left out.
    """
    trajectories = list(pair_set.trajectories)
    places = {_key(trajectory): index for index, trajectory in enumerate(trajectories)}
    indices = []
    for trajectory in extra:
        if not trajectory.agent_mask.any():
            continue
        index = places.setdefault(_key(trajectory), len(trajectories))
        if index == len(trajectories):
            trajectories.append(trajectory)
        indices.append(index)
    return replace(pair_set, trajectories=tuple(trajectories)), list(dict.fromkeys(indices))


def cut_turns(trajectory: Trajectory, turns: int) -> Trajectory:
    """Keep the first `turns` turns, tokens and text; what follows the last kept agent token goes.

    A turn is a run of agent tokens. The reward stays that of the whole episode.
    """
    starts = trajectory.agent_mask & ~np.concatenate([[False], trajectory.agent_mask[:-1]])
    if turns >= starts.sum():
        return trajectory
    kept = trajectory.agent_mask & (np.cumsum(starts) <= turns)
    end = int(np.flatnonzero(kept)[-1]) + 1 if kept.any() else 0
    return replace(
        trajectory,
        turns=trajectory.turns[:turns],
        tokens=trajectory.tokens[:end],
        agent_mask=trajectory.agent_mask[:end],
        logps=trajectory.logps[:end],
    )


def _by_task(trajectories: Iterable[Trajectory]) -> dict[str, list[Trajectory]]:
    """Group by task, in the order of the samples, without faults, silent agents and repeated tokens."""
    groups: dict[str, dict[bytes, Trajectory]] = {}
    for trajectory in sorted(trajectories, key=lambda t: (t.task_id, t.agent, t.sample)):
        if trajectory.ending is not Ending.FAULT and trajectory.agent_mask.any():
            groups.setdefault(trajectory.task_id, {}).setdefault(trajectory.tokens.tobytes(), trajectory)
    return {task_id: list(group.values()) for task_id, group in groups.items()}


def _against_expert(kind: str, expert: Trajectory | None, others: list[Trajectory]) -> Iterator[_Candidate]:
    if expert is None:
        return
    for other in others:
        if expert.reward > other.reward:
            yield _Candidate(kind=kind, chosen=expert, rejected=other)
        elif other.reward > expert.reward:
            yield _Candidate(kind=kind, chosen=other, rejected=expert)


def _among_failures(
    ours: list[Trajectory], theirs: list[Trajectory], *, cross_agent_only: bool
) -> Iterator[_Candidate]:
    ours, theirs = [[t for t in side if t.failure and t.agent != "expert"] for side in (ours, theirs)]
    if cross_agent_only:
        couples = [(our, their) for our in ours for their in theirs]
    else:
        couples = list(combinations([*ours, *theirs], 2))
    for first, second in couples:
        if first.reward != second.reward:
            chosen, rejected = (first, second) if first.reward > second.reward else (second, first)
            yield _Candidate(kind="failure_failure", chosen=chosen, rejected=rejected)


def _select(
    found: Iterable[_Candidate], taken: list[_Candidate], max_turns: int | None, count: int, keep: Keep
) -> list[_Candidate]:
    """The `count` candidates that `keep` puts first, rejected sides cut, none that repeats one or `taken`.

    Equal gaps keep the order of the samples (the sort is stable).
    """
    seen = {(_key(one.chosen), _key(one.rejected)) for one in taken}
    selected: list[_Candidate] = []
    for candidate in sorted(found, key=keep.key):
        if max_turns is not None:
            candidate = replace(candidate, rejected=cut_turns(candidate.rejected, max_turns))
        chosen, rejected = _key(candidate.chosen), _key(candidate.rejected)
        if chosen != rejected and (chosen, rejected) not in seen and len(selected) < count:
            seen.add((chosen, rejected))
            selected.append(candidate)
    return selected


def _collect(candidates: list[_Candidate]) -> PairSet:
    """Give every trajectory of the candidates one index."""
    empty = PairSet(trajectories=(), pairs=())
    sides = [side for one in candidates for side in (one.chosen, one.rejected)]
    pair_set, _ = add_trajectories(empty, sides)
    places = {_key(trajectory): index for index, trajectory in enumerate(pair_set.trajectories)}
    pairs = tuple(
        PreferencePair(
            task_id=one.chosen.task_id,
            kind=one.kind,
            chosen=places[_key(one.chosen)],
            rejected=places[_key(one.rejected)],
        )
        for one in candidates
    )
    return replace(pair_set, pairs=pairs)


def _key(trajectory: Trajectory) -> tuple[str, bytes]:
    return trajectory.task_id, trajectory.tokens.tobytes()
