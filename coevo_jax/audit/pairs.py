"""METHOD's pairs, derived again: which trajectory is preferred over which, of every kind, and in which order.

    expert_target    a failure of the target and its task's expert      (METHOD, step 5 a)
    expert_failure   the same with what the failure agent re-rolled     (METHOD, step 5 b)
    failure_failure  two failures of one task, the better one chosen    (METHOD, steps 3 and 5 c)

Where an agent earned more than the expert it is the chosen side; ties teach nothing. What the rejected side
did beyond the expert's turns and `max_extra_turns` is cut off. The same tokens stand in a pair once, under
the name of the first trajectory that has them. The failure agent knows no expert, unless its config names a
kind with one: then its pairs are made as the target's are, of what it played before it learns.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import combinations, product
from typing import Any

import numpy as np

from coevo_jax.audit.check import Check, NotCheckable, differs, judge, same
from coevo_jax.audit.keeping import order, spread
from coevo_jax.audit.order import Phase, asked_of, learn_options
from coevo_jax.audit.reading import Episode, RunFiles, read_episodes
from coevo_jax.audit.rows import teachable
from coevo_jax.audit.sides import Pair, Side, by_task, cut
from coevo_jax.config.options import Config, LearnConfig

KINDS = ("expert_target", "expert_failure", "failure_failure")


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What a phase learns from: pairs, and sides with a weight of imitation of their own."""

    pairs: list[Pair] = field(default_factory=list)
    sides: list[Side] = field(default_factory=list)  # each once, in the order in which they come up
    extras: dict[tuple[str, bytes], float] = field(default_factory=dict)  # by key, in order

    @cached_property
    def places(self) -> dict[tuple[str, bytes], int]:
        return {side.key: place for place, side in enumerate(self.sides)}


@lru_cache(maxsize=1)  # the checks of a phase follow each other
def derive(files: RunFiles, phase: Phase) -> Lesson:
    """What METHOD lets a learning phase learn from, out of the run's trajectories.

    Raises:
      NotCheckable: under a budget, where it is not known which pairs fit a microbatch.
    """
    config = learn_options(files.config, phase)
    target = _played(files, phase, "target")
    others = _others(files, phase)
    kinds = [kind for kind in KINDS if dict(config.pairs)[kind] is not None]
    alone = phase.agent == "failure" and kinds == ["failure_failure"]
    experts = [Side(source="expert", episode=e, length=len(e.tokens)) for e in _experts(files)]
    pairs = _lessons([] if alone else experts, target, others, config, files.config.seed)
    asked = asked_of(files.config, phase, "pairs")
    if asked is not None:
        pairs = _within_budget(lesson(pairs, []), asked, config, files.config)
    explored = {side.episode.task_id for side in target}
    successes = [side for side in target if side.episode.success]
    imitated = [side for side in experts if side.episode.task_id in explored]
    return lesson(pairs, [(config.sft_successes, successes), (config.sft_experts, imitated)])


def _others(files: RunFiles, phase: Phase) -> list[Side]:
    """What the failure agent played last before a phase learns."""
    if not files.config.failure.explore:
        return []
    return _played(files, phase, "failure" if phase.agent == "failure" else "hard_negatives")


def _within_budget(made: Lesson, asked: int, config: LearnConfig, run: Config) -> list[Pair]:
    usable = teachable(made.pairs, made.sides, run.batch, config.ld_alpha < 1)
    if usable is None:
        raise NotCheckable(
            "which pairs fit a microbatch, packing alone knows; the budget is spread over those"
        )
    return spread(made.pairs, usable, asked, config.pairs_kept, run.seed)


def lesson(pairs: list[Pair], imitations: Sequence[tuple[float, Sequence[Side]]]) -> Lesson:
    """Give every side one place; a side imitated for two reasons has the sum of both weights."""
    found: dict[tuple[str, bytes], Side] = {}
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            found.setdefault(side.key, side)
    pairs = [
        Pair(kind=pair.kind, chosen=found[pair.chosen.key], rejected=found[pair.rejected.key])
        for pair in pairs
    ]
    extras: dict[tuple[str, bytes], float] = {}
    for weight, sides in imitations:
        wanted: dict[tuple[str, bytes], Side] = {}
        for side in sides if weight > 0 else ():
            if len(side.episode.run_ends):
                wanted.setdefault(side.key, side)
        for key, side in wanted.items():
            found.setdefault(key, side)
            extras[key] = extras.get(key, 0.0) + weight
    return Lesson(pairs=pairs, sides=list(found.values()), extras=extras)


def _experts(files: RunFiles) -> list[Episode]:
    path = files.folder / "trajectories/experts.parquet"
    return list(read_episodes(path, ("tokens", "agent_mask")))


def _played(files: RunFiles, phase: Phase, source: str) -> list[Side]:
    """What one agent played in one exploration of the phase's round."""
    paths = files.collection(phase.round, source)
    if not paths:
        raise NotCheckable(f"no committed shards of {source} in round {phase.round}")
    episodes = (e for path in paths for e in read_episodes(path, ("tokens", "agent_mask")))
    return [Side(source=source, episode=e, length=len(e.tokens)) for e in episodes]


def _lessons(
    experts: Sequence[Side],
    target: Sequence[Side],
    others: Sequence[Side],
    config: LearnConfig,
    seed: int,
) -> list[Pair]:
    expert_of = {side.episode.task_id: side for side in experts if len(side.episode.run_ends)}
    ours, theirs = by_task(target), by_task(others)
    kept: list[Pair] = []
    for task in sorted({*ours, *theirs}):
        expert, own, other = expert_of.get(task), ours.get(task, []), theirs.get(task, [])
        found = {
            "expert_target": _against("expert_target", expert, own),
            "expert_failure": _against("expert_failure", expert, other),
            "failure_failure": _among(own, other, config.cross_agent_only),
        }
        most = None
        if expert is not None and config.max_extra_turns is not None:
            most = expert.turns + config.max_extra_turns
        own_pairs: list[Pair] = []
        for kind in KINDS:
            if dict(config.pairs)[kind] is not None:
                ordered = order(config.pairs_kept, seed)(found[kind])
                own_pairs += _kept(ordered, own_pairs, most, config.max_pairs_per_kind)
        kept += own_pairs
    return kept


def _against(kind: str, expert: Side | None, others: Sequence[Side]) -> list[Pair]:
    if expert is None:
        return []
    return [pair for other in others for pair in _better_over_worse(kind, expert, other)]


def _among(ours: Sequence[Side], theirs: Sequence[Side], cross_only: bool) -> list[Pair]:
    ours = [side for side in ours if side.episode.failure]
    theirs = [side for side in theirs if side.episode.failure]
    couples = product(ours, theirs) if cross_only else combinations([*ours, *theirs], 2)
    return [pair for one, other in couples for pair in _better_over_worse("failure_failure", one, other)]


def _better_over_worse(kind: str, one: Side, other: Side) -> list[Pair]:
    rewards = one.episode.reward, other.episode.reward
    if rewards[0] == rewards[1]:
        return []
    chosen, rejected = (one, other) if rewards[0] > rewards[1] else (other, one)
    return [Pair(kind=kind, chosen=chosen, rejected=rejected)]


def _kept(ordered: Sequence[Pair], taken: Sequence[Pair], most_turns: int | None, count: int) -> list[Pair]:
    """The first `count` pairs, after cuts; none that repeats another of its task."""
    seen = {(pair.chosen.key, pair.rejected.key) for pair in taken}
    kept: list[Pair] = []
    for pair in ordered:
        rejected = pair.rejected if most_turns is None else cut(pair.rejected, most_turns)
        keys = (pair.chosen.key, rejected.key)
        if len(kept) < count and keys[0] != keys[1] and keys not in seen:
            seen.add(keys)
            kept.append(Pair(kind=pair.kind, chosen=pair.chosen, rejected=rejected))
    return kept


def pair_check(files: RunFiles, phase: Phase) -> Check:
    """A learning phase's stored pairs against those derived, line by line; and the counts recorded."""
    told: dict[str, int] = {}
    return judge(f"pairs/{phase.name}", pair_problems(files, phase, told), lambda: _words(told))


def _words(told: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in told.items()) or "no pairs, and none could be made"


def pair_problems(files: RunFiles, phase: Phase, told: dict[str, int]) -> Iterator[str]:
    """The file has the derived pairs in their order, and the record their numbers by kind."""
    derived = derive(files, phase)
    if phase.pairs not in files.files:
        raise NotCheckable(f"{phase.pairs} is not among the committed files")
    stored = (files.folder / phase.pairs).read_text(encoding="utf-8").splitlines()
    names = [_named(pair) for pair in derived.pairs]
    told |= {kind: sum(pair.kind == kind for pair in derived.pairs) for kind in KINDS}
    for unused in [kind for kind, count in told.items() if not count]:
        del told[unused]
    found = [json.loads(line) for line in stored]
    for number, (one, wanted) in enumerate(zip(found, names, strict=False), start=1):
        if one != wanted:
            yield f"{phase.pairs}:{number}: found {_short(one)}, expected {_short(wanted)}"
    yield from differs(f"{phase.pairs}: pairs", len(found), len(names))
    recorded, wanted = files.record(phase.name)["pairs"], counts(derived.pairs)
    if not same(recorded, wanted):
        yield f"{phase.name}: recorded pairs: found {recorded}, expected {wanted}"


def _named(pair: Pair) -> dict[str, Any]:
    """A pair as the file has it."""
    names = {
        role: {"source": side.source, "sample": side.episode.sample}
        for role, side in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    return {"task_id": pair.chosen.episode.task_id, "kind": pair.kind, **names}


def _short(line: Mapping[str, Any]) -> str:
    sides = [f"{line[role]['source']} {line[role]['sample']}" for role in ("chosen", "rejected")]
    return f"{line['kind']} of {line['task_id']}: {' over '.join(sides)}"


def counts(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Pairs, tasks and the mean gap of the rewards by kind."""
    rows = []
    for kind in KINDS:
        own = [pair for pair in pairs if pair.kind == kind]
        if own:
            gaps = [pair.chosen.episode.reward - pair.rejected.episode.reward for pair in own]
            tasks = len({pair.chosen.episode.task_id for pair in own})
            gap = float(np.mean(gaps))
            rows.append({"kind": kind, "count": len(own), "tasks": tasks, "mean_reward_gap": gap})
    return rows
