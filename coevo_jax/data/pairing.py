"""Sets of pairs from preferences: limits per task, no pair twice, and within a budget.

Which trajectory is preferred over which, builders say (`coevo_jax.methods`). Everything is a function of the
set of trajectories, not of the order in which they come.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.packing.checks import imitation_problem, name_of
from coevo_jax.data.packing.views import plain_turns
from coevo_jax.methods.material import Imitation, Preference, as_imitation
from coevo_jax.trajectory import PreferencePair, Trajectory


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Pairs, and the trajectories they name: each trajectory stands once, and only if a pair names it."""

    trajectories: tuple[Trajectory, ...]
    pairs: tuple[PreferencePair, ...]


_Key = tuple[str, bytes, bytes]  # of a trajectory


class Extra(NamedTuple):
    """A trajectory of a set that is imitated without a pair."""

    trajectory: int  # its index
    turns: tuple[float, ...] | None = None  # the weight of every turn; None is 1 each


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    kind: str
    preference: Preference

    @property
    def chosen(self) -> Trajectory:
        return self.preference.chosen

    @property
    def rejected(self) -> Trajectory:
        return self.preference.rejected

    @property
    def key(self) -> tuple[_Key, _Key, int, int, tuple[float, ...] | None]:
        """Equal for pairs of the same tokens, from the same turns on, weighed alike."""
        chosen, rejected, chosen_from, rejected_from, turns = self.preference
        return _key(chosen), _key(rejected), chosen_from, rejected_from, plain_turns(turns)

    @property
    def gap(self) -> float:
        """Difference of the rewards; rounded, so that equal gaps are equal (0.8 - 0.5 and 0.5 - 0.2)."""
        return round(self.chosen.reward - self.rejected.reward, 9)


def draw(
    seed: int,
    kind: str,
    chosen: Trajectory,
    rejected: Trajectory,
    chosen_from: int = 0,
    rejected_from: int = 0,
) -> str:
    """A pair's hash, which decides whether it is kept: it depends on the seed and the pair's names alone."""

    def name(side: Trajectory, first_turn: int) -> str:
        return f"{side.agent}-{side.sample}" + (f"-from-{first_turn}" if first_turn else "")

    sides = f"{name(chosen, chosen_from)}/{name(rejected, rejected_from)}"
    return hashlib.sha256(f"{seed}/{kind}/{chosen.task_id}/{sides}".encode()).hexdigest()


# What of too many pairs is kept: those that come first by these keys. Equal ones stay in their order.
KEPT: dict[str, Callable[[_Candidate, int], float | str]] = {
    "largest_gap": lambda one, _seed: -one.gap,
    "smallest_gap": lambda one, _seed: one.gap,
    "drawn": lambda one, seed: draw(seed, one.kind, *one.preference[:4]),
}


@dataclass(frozen=True, kw_only=True)
class Keep:
    """The rule by which pairs are kept where there are too many."""

    by: str = "largest_gap"  # a key of KEPT
    seed: int = 0  # of the run; for what is drawn

    def key(self, candidate: _Candidate) -> Any:
        return KEPT[self.by](candidate, self.seed)


def collect_pairs(
    found: Mapping[str, Iterable[Preference]], *, max_per_kind: int, keep: Keep = Keep()
) -> PairSet:
    """Collect what builders found as pairs, by kind: at most `max_per_kind` of each kind and task.

    A pair of the same tokens, counted alike, stands once, under the first of its kinds.
    """
    by_task: dict[str, dict[str, list[_Candidate]]] = {}
    for kind, preferences in found.items():
        for preference in preferences:
            one = _Candidate(kind=kind, preference=preference)
            by_task.setdefault(one.chosen.task_id, {}).setdefault(kind, []).append(one)
    candidates: list[_Candidate] = []
    for task_id in sorted(by_task):
        selected: list[_Candidate] = []
        for kind in found:
            selected += _select(by_task[task_id].get(kind, []), selected, max_per_kind, keep)
        candidates += selected
    return _collect(candidates)


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
    first = pair.chosen_from, pair.rejected_from
    preference = Preference(chosen, rejected, *first, pair.rejected_turns)
    return _Candidate(kind=pair.kind, preference=preference)


def add_trajectories(pair_set: PairSet, extra: Iterable[Trajectory]) -> tuple[PairSet, list[int]]:
    """Add trajectories; returns the set and their indices in it.

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


def add_imitations(
    pair_set: PairSet, found: Iterable[Trajectory | Imitation], builder: str
) -> tuple[PairSet, list[Extra]]:
    """Add what a builder lets imitate without a pair; returns the set, and each once as its weights are.

    What has no turn with a token of the agent and a weight above 0 is left out.

    Raises:
      ConfigError: the weights of turns do not fit a trajectory; the message names it and the builder.
    """
    wanted: list[Imitation] = []
    for one in found:
        imitation = as_imitation(one)
        problem = imitation_problem(imitation)
        if problem:
            raise ConfigError(f"builder {builder}: trajectory {name_of(imitation.trajectory)}: {problem}")
        if imitation.turns is None or any(imitation.turns):
            wanted.append(imitation)
    wanted = [one for one in wanted if one.trajectory.agent_mask.any()]
    extended, _ = add_trajectories(pair_set, (one.trajectory for one in wanted))
    places = {_key(trajectory): index for index, trajectory in enumerate(extended.trajectories)}
    extras = [Extra(places[_key(one.trajectory)], plain_turns(one.turns)) for one in wanted]
    return extended, list(dict.fromkeys(extras))


def _select(found: Iterable[_Candidate], taken: list[_Candidate], count: int, keep: Keep) -> list[_Candidate]:
    """The `count` candidates that `keep` puts first, none that repeats one or `taken`.

    Equal gaps keep the order of the samples (the sort is stable).
    """
    seen = {one.key for one in taken}
    selected: list[_Candidate] = []
    for candidate in sorted(found, key=keep.key):
        chosen, rejected, *_ = key = candidate.key
        if chosen != rejected and key not in seen and len(selected) < count:
            seen.add(key)
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
            chosen_from=one.preference.chosen_from,
            rejected_from=one.preference.rejected_from,
            rejected_turns=one.preference.rejected_turns,
        )
        for one in candidates
    )
    return replace(pair_set, pairs=pairs)


def _key(trajectory: Trajectory) -> _Key:
    """Equal for trajectories of a task with the same tokens, of which the same are the agent's."""
    return trajectory.task_id, trajectory.tokens.tobytes(), trajectory.agent_mask.tobytes()
