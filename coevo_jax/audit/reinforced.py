"""What is reinforced, derived again: the advantage of every turn, and how a step weighs its tokens.

    grpo     A = (r - mean r) / d over the trajectories of a task
    gigpo    A + omega * (R - mean R) / d, the second over all turns of the task in the same state, of their
             returns R = gamma ** (turns that follow) * r

    judged_steps
             (R - mean R) / d over own turns with the same tokens before them, of the task or of the round, of
             R = sum over k of gamma ** k * the reward of the k-th turn from there. With the discriminator's
             logit x, that is log(1 + exp(x)) for `gail`, x for `airl`

d is 1 for the norm `mean`, else the deviation with n - 1 (`sample_std`) or n (`population_std`) below the sum
of squares, and 1e-6 more. A state is the text that was shown last, or all tokens before the turn. With
`over: turns` the mean and deviation of r count an episode once a turn. What is all the same has no advantage.
Faults, and trajectories in which the agent wrote nothing, are in no group.

With w the weight of the source, a token weighs w / (tokens of the step's reinforced trajectories), or
w / (their turns * tokens of its turn), or w / (their number * tokens of its trajectory).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.order import Phase, expected_phases, learn_options
from coevo_jax.audit.reading import Episode, RunFiles, read_episodes
from coevo_jax.audit.rows import trained_places
from coevo_jax.audit.sides import Side
from coevo_jax.config.recipe import ReinforceSource

DEFAULTS = {
    "grpo": {"norm": "sample_std"},
    "gigpo": {"norm": "mean", "omega": 1.0, "gamma": 0.95, "anchor": "observation", "over": "episodes"},
    "judged_steps": {"reward": "gail", "among": "state", "norm": "mean", "gamma": 0.0},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reinforced:
    """A side with the advantages of its turns, and the weight of the source that it is from."""

    side: Side
    advantages: np.ndarray  # float64 [turns], of the whole episode
    sizes: np.ndarray  # int [turns] of the anchor groups; empty where there are none
    weight: float
    first: int = 0  # turn from which on it is reinforced


@dataclass(frozen=True, kw_only=True, eq=False)
class Yielded:
    """What a source is to yield, and what of it is learned from."""

    source: ReinforceSource
    found: Sequence[Reinforced]
    learned: Sequence[Reinforced]


@lru_cache(maxsize=1)  # the checks of a phase follow each other
def derive_reinforced(files: RunFiles, phase: Phase) -> list[Yielded]:
    """What every source of a learning reinforces.

    Raises:
      NotCheckable: a function of the user's own yields it.
    """
    skips, yielded = learn_options(files.config, phase).surrogate.skip_zero, []
    for source in phase.sources:
        if not isinstance(source, ReinforceSource):
            continue
        if source.reinforce not in (*REINFORCED, "judged_steps"):
            raise NotCheckable(f"no independent derivation of what {source.reinforce} reinforces")
        if source.reinforce == "judged_steps":
            judged = [one for name in source.of for one in _judged(files, phase.round, name)]
            found = judged_steps(source, judged)
        else:
            played = [side for name in source.of for side in _collection(files, phase.round, name)]
            found = [one for group in _groups(played) for one in REINFORCED[source.reinforce](source, group)]
        learned = [one for one in found if not skips or one.advantages[one.first :].any()]
        yielded.append(Yielded(source=source, found=found, learned=learned))
    return yielded


def _collection(files: RunFiles, number: int, name: str) -> list[Side]:
    paths = files.collection(number, name)
    if not paths:
        raise NotCheckable(f"no committed shards of {name} in round {number}")
    columns = ("tokens", "agent_mask", "logps", "prompt", "turns")
    episodes = (episode for path in paths for episode in read_episodes(path, columns))
    explorations = [phase for phase in expected_phases(files.config) if phase.kind == "explore"]
    mark = {phase.collection: phase.mark for phase in explorations}.get(name, "")
    return [Side(source=name, episode=e, length=len(e.tokens), mark=mark) for e in episodes]


def _judged(files: RunFiles, number: int, into: str) -> list[tuple[Side, dict[int, float]]]:
    """The episodes that a phase judged, with the logits of their turns."""
    phases = expected_phases(files.config)
    phase = next(one for one in phases if (one.kind, one.round, one.collection) == ("judge", number, into))
    assert phase.judging is not None
    logits: dict[tuple[str, str, int], dict[int, float]] = {}
    for one in files.json(phase.judgements)["steps"]:
        own = logits.setdefault((one["source"], one["task_id"], one["sample"]), {})
        own[one["turn"]] = one["logit"]
    sides = [side for name in phase.judging.of for side in _collection(files, number, name)]
    return [
        (side, logits.get((side.source, side.episode.task_id, side.episode.sample), {})) for side in sides
    ]


def judged_steps(
    source: ReinforceSource, judged: Sequence[tuple[Side, Mapping[int, float]]]
) -> list[Reinforced]:
    """Judged episodes with the advantages of their turns, by reward, return and group."""
    able = [(side, logits) for side, logits in judged if side.episode.finished and logits]
    able.sort(
        key=lambda one: (one[0].episode.task_id, one[0].source, one[0].episode.agent, one[0].episode.sample)
    )
    gamma, among = _option(source, "gamma"), _option(source, "among")
    keys: list[Hashable] = []
    values: list[float] = []
    for side, logits in able:
        for turn in sorted(logits):
            later = [other for other in sorted(logits) if other >= turn]
            powers = gamma ** np.arange(len(later), dtype=np.float64)
            rewards = [_reward(logits[other], _option(source, "reward")) for other in later]
            values.append(float(np.dot(powers, rewards)))
            before = tuple(side.episode.tokens[: side.episode.run_starts[turn]].tolist())
            task = side.episode.task_id
            keys.append({"state": (task, before), "task": task, "round": None}[among])
    numbers: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        numbers.setdefault(key, []).append(place)
    shares, counts = np.zeros(len(values)), np.ones(len(values), int)
    for own in numbers.values():
        shares[own] = _centred(np.array(values)[own], _option(source, "norm"))
        counts[own] = len(own)
    found, place = [], 0
    for side, logits in able:
        advantages, sizes = np.zeros(side.turns), np.ones(side.turns, int)
        for turn in sorted(logits):
            advantages[turn], sizes[turn] = shares[place], counts[place]
            place += 1
        found.append(
            Reinforced(
                side=side,
                advantages=advantages,
                sizes=sizes if among == "state" else np.zeros(0, int),
                weight=source.weight,
                first=side.episode.replayed_turns,
            )
        )
    return found


def _reward(logit: float, kind: str) -> float:
    return float(np.logaddexp(0.0, logit)) if kind == "gail" else logit


def _groups(played: Sequence[Side]) -> list[list[Side]]:
    able = [side for side in played if side.episode.finished and side.turns]
    able.sort(key=lambda side: (side.episode.task_id, side.episode.agent, side.episode.sample))
    return [list(group) for _, group in groupby(able, key=lambda side: side.episode.task_id)]


def _centred(values: np.ndarray, norm: str) -> np.ndarray:
    if np.ptp(values) == 0:
        return np.zeros(len(values))
    if norm == "mean":
        return values - values.mean()
    return (values - values.mean()) / (values.std(ddof=1 if norm == "sample_std" else 0) + 1e-6)


def _option(source: ReinforceSource, name: str) -> Any:
    return source.options.get(name, DEFAULTS[source.reinforce][name])


def _grpo(source: ReinforceSource, group: Sequence[Side]) -> list[Reinforced]:
    by_turns = source.reinforce == "gigpo" and _option(source, "over") == "turns"
    times = [side.turns if by_turns else 1 for side in group]
    rewards = np.repeat([side.episode.reward for side in group], times)
    shares = _centred(rewards, _option(source, "norm"))[np.cumsum(times) - 1]
    return [
        Reinforced(
            side=side,
            advantages=np.full(side.turns, share),
            sizes=np.zeros(0, int),
            weight=source.weight,
        )
        for side, share in zip(group, shares, strict=True)
    ]


def _gigpo(source: ReinforceSource, group: Sequence[Side]) -> list[Reinforced]:
    gamma, norm = _option(source, "gamma"), _option(source, "norm")
    states = [state for side in group for state in _states(side.episode, _option(source, "anchor"))]
    values = np.concatenate([side.episode.reward * gamma ** np.arange(side.turns)[::-1] for side in group])
    step, sizes = np.zeros(len(values)), np.zeros(len(values), int)
    for state in dict.fromkeys(states):
        own = np.array([other == state for other in states])
        step[own], sizes[own] = _centred(values[own], norm), own.sum()
    ends = np.cumsum([side.turns for side in group])[:-1]
    return [
        Reinforced(
            side=one.side,
            advantages=one.advantages + _option(source, "omega") * part,
            sizes=size,
            weight=source.weight,
        )
        for one, part, size in zip(
            _grpo(source, group), np.split(step, ends), np.split(sizes, ends), strict=True
        )
    ]


def _states(episode: Episode, anchor: str) -> list[Hashable]:
    if anchor == "history":
        return [tuple(episode.tokens[:start].tolist()) for start in episode.run_starts]
    shown = [episode.prompt, *(turn["observation"] for turn in episode.turns)]
    return list(shown[: len(episode.run_starts)])


REINFORCED: dict[str, Callable[[ReinforceSource, Sequence[Side]], list[Reinforced]]] = {
    "grpo": _grpo,
    "gigpo": _gigpo,
}


def places_of(side: Side, first: int) -> np.ndarray:
    """Where the tokens stand that are reinforced: the trained ones of turns from the first on."""
    places = trained_places(side)
    return places[np.searchsorted(side.episode.run_ends, places, side="right") >= first]


def turns_of(side: Side, first: int) -> np.ndarray:
    """The turn of each of these tokens, counted from 0."""
    return np.searchsorted(side.episode.run_ends, places_of(side, first), side="right")


def own_weights(side: Side, reduction: str, first: int) -> np.ndarray:
    """What differs within a side: 1 for every reinforced token, or a share of its turn's."""
    turns = turns_of(side, first)
    return 1 / np.bincount(turns)[turns] if reduction == "turn" and len(turns) else np.ones(len(turns))


def step_weights(
    sides: Mapping[int, Side], credits: Mapping[int, Reinforced], reduction: str
) -> dict[int, float]:
    """By what a step multiplies the weights of each of its reinforced trajectories."""
    own = {number: turns_of(side, credits[number].first) for number, side in sides.items()}
    tokens = {number: len(places) for number, places in own.items()}
    turns = sum(len(set(places.tolist())) for places in own.values())
    below = {"token": sum(tokens.values()), "turn": turns, "trajectory": len(sides)}[reduction]
    return {
        number: credits[number].weight / (max(below, 1) * (max(count, 1) if reduction == "trajectory" else 1))
        for number, count in tokens.items()
    }
