"""The pairs of a recipe, derived again: which trajectory is preferred over which, and in which order.

A source of a learning names who makes its pairs, out of which collections of the round:

    expert_over         a task's expert and every trajectory of it, the one with more reward preferred
    expert_step_over    an expert's step and an agent's own at its state (`own_steps`)
    better_over_worse   two trajectories of one task, failures or all, the one with more reward preferred;
                        `across` never takes both out of one collection
    expert_over_at_parting, success_over_failure_at_parting
                        the first, and those of the second that prefer a success over a failure, from the
                        turn on in which both sides part (`parting`)

Ties teach nothing. With `max_extra_turns`, what the rejected side did beyond the turns of its task's expert
and as many more is cut off. Of each kind and task as many pairs are kept as the agent's options say, by their
order. The same tokens, counted from the same turns on, stand in a pair once, under the kind that comes first
and the name of the first trajectory that has them. Beside the pairs stand what is imitated: `successes`,
`experts` of what was played, or all of it, `graded` (`audit.marks`); `revisions` and `good_paths`
(`audit.revised`). What is learned of branches, `branch_lessons` and `own_steps` derive, and what of
suggestions, `hints`; what a function of the user's own makes is not derived.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, combinations, product
from typing import Any

import numpy as np

from coevo_jax.audit.branch_lessons import refined, segments, verified
from coevo_jax.audit.check import Check, NotCheckable, differs, judge, same
from coevo_jax.audit.draws import counts_of, drawn_extras
from coevo_jax.audit.hints import corrections, kept_corrections
from coevo_jax.audit.keeping import order, spread
from coevo_jax.audit.lessons import Lesson
from coevo_jax.audit.marks import graded
from coevo_jax.audit.order import Phase, asked_of, kind_of, learn_options
from coevo_jax.audit.own_steps import foretold, reasoned, step_pairs
from coevo_jax.audit.parting import at_parting
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.refused import of_one_task
from coevo_jax.audit.reinforced import derive_reinforced
from coevo_jax.audit.revised import good_paths, revisions
from coevo_jax.audit.round import Round, round_of
from coevo_jax.audit.rows import teachable
from coevo_jax.audit.sides import Imitated, Key, Pair, Side, Turns, by_task, cut, weights_of_turns
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import ImitationSource, PairSource

# Where a source does not say.
EXTRA_TURNS = {"expert_over": 5, "better_over_worse": None, "expert_over_at_parting": 5}


@lru_cache(maxsize=1)  # the checks of a phase follow each other
def derive(files: RunFiles, phase: Phase) -> Lesson:
    """What a recipe lets a learning phase learn from, out of the run's trajectories.

    Raises:
      NotCheckable: a function of the user's own makes it; or under a budget, where it is not known which
        pairs fit a microbatch.
    """
    found = derive_all(files, phase)
    if phase.beside is None or phase.beside.sampling is None or not found.extras:
        return found
    return replace(found, extras=drawn_extras(found.extras, counts_of(files, phase)))


def derive_all(files: RunFiles, phase: Phase) -> Lesson:
    """The same before trajectories are drawn, where a learning draws them.

    Raises:
      NotCheckable: as in `derive`.
    """
    pairs = derive_pairs(files, phase)
    found, imitations = round_of(files, phase), []
    for source in phase.sources:
        if isinstance(source, ImitationSource):
            name = source.imitate
            if name not in IMITATED:
                raise NotCheckable(f"no independent derivation of what {name} imitates")
            imitations.append((source.weight, IMITATED[name](source, found)))
    yielded = derive_reinforced(files, phase)
    return replace(lesson(pairs, imitations), reinforced=[one for own in yielded for one in own.learned])


@lru_cache(maxsize=1)
def derive_pairs(files: RunFiles, phase: Phase) -> list[Pair]:
    """The pairs alone, after cuts, limits and budget.

    Raises:
      NotCheckable: as in `derive`.
    """
    config = learn_options(files.config, phase)
    sources = [source for source in phase.sources if isinstance(source, PairSource)]
    own = [source for source in sources if source.pairs not in PAIRED]
    if own:
        raise NotCheckable(f"no independent derivation of the pairs of {own[0].pairs} ({kind_of(own[0])})")
    pairs = _kept(_made(files, phase)[0], config, files.config.seed)
    asked = asked_of(files.config, phase, "pairs")
    if asked is not None:
        pairs = _within_budget(lesson(pairs, []), asked, config, files.config)
    return lesson(pairs, []).pairs


@lru_cache(maxsize=1)
def _made(files: RunFiles, phase: Phase) -> tuple[list[list[Pair]], dict[str, int]]:
    """The pairs of every kind before limits, without those of two tasks, and how many those are."""
    found = round_of(files, phase)
    sources = [source for source in phase.sources if isinstance(source, PairSource)]
    return of_one_task(
        files, phase, {kind_of(source): PAIRED[source.pairs](source, found) for source in sources}
    )


def _within_budget(made: Lesson, asked: int, config: AgentConfig, run: Config) -> list[Pair]:
    usable = teachable(made.pairs, made.sides, run.batch, config.ld_alpha < 1)
    if usable is None:
        raise NotCheckable(
            "which pairs fit a microbatch, packing alone knows; the budget is spread over those"
        )
    return spread(made.pairs, usable, asked, config.pairs_kept, run.seed)


def lesson(pairs: list[Pair], imitations: Sequence[tuple[float, Sequence[Imitated]]]) -> Lesson:
    """Give every side one place; what is imitated alike for two reasons has the sum of both weights."""
    found: dict[Key, Side] = {}
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            found.setdefault(side.key, side)
    pairs = [
        replace(pair, chosen=found[pair.chosen.key], rejected=found[pair.rejected.key]) for pair in pairs
    ]
    extras: dict[tuple[Key, Turns], float] = {}
    for weight, imitated in imitations:
        wanted: dict[tuple[Key, Turns], Side] = {}
        for one in imitated:
            written = len(one.side.episode.run_ends)
            if written and (one.turns is None or any(one.turns)):
                wanted.setdefault((one.side.key, weights_of_turns(one.turns, written)), one.side)
        for key, side in wanted.items():
            found.setdefault(key[0], side)
            extras[key] = extras.get(key, 0.0) + weight
    return Lesson(pairs=pairs, sides=list(found.values()), extras=extras)


def _expert_over(source: PairSource, found: Round) -> list[Pair]:
    pairs: list[Pair] = []
    for played in found.played(source):
        for task, sides in by_task(played).items():
            expert = found.expert_of.get(task)
            couples = [] if expert is None else [(expert, side) for side in sides]
            pairs += _preferences(source, couples, expert)
    return pairs


def _better_over_worse(source: PairSource, found: Round) -> list[Pair]:
    options = source.options
    collections = [by_task(played) for played in found.played(source)]
    pairs: list[Pair] = []
    for task in sorted(set(chain(*collections))):
        able = [[side for side in own.get(task, []) if _counts(side, options)] for own in collections]
        if options.get("across", False):
            couples = [couple for one, other in combinations(able, 2) for couple in product(one, other)]
        else:
            couples = list(combinations(chain(*able), 2))
        pairs += _preferences(source, couples, found.expert_of.get(task))
    return pairs


def _expert_step_over(source: PairSource, found: Round) -> list[Pair]:
    return step_pairs(kind_of(source), source.options, found.played(source), found.expert_of)


def _next_observations(source: ImitationSource, found: Round) -> list[Imitated]:
    return foretold(source.options, found.played(source), found.expert_of, found.rendering)


def _reflections(source: ImitationSource, found: Round) -> list[Imitated]:
    return reasoned(source.options, found.played(source), found.expert_of, found.rendering)


def _expert_over_at_parting(source: PairSource, found: Round) -> list[Pair]:
    return list(at_parting(_expert_over(source, found), found.is_error, source.options))


def _success_over_failure_at_parting(source: PairSource, found: Round) -> list[Pair]:
    """Of all trajectories of a task that were played, in the order in which the collections are named."""
    tasks: dict[str, list[Side]] = defaultdict(list)
    for played in found.played(source):
        for task, sides in by_task(played).items():
            tasks[task] += [side for side in sides if side.episode.agent != "expert"]
    pairs: list[Pair] = []
    for task in sorted(tasks):
        for couple in combinations(tasks[task], 2):
            better, worse = sorted(couple, key=lambda side: not side.episode.success)
            if better.episode.success and worse.episode.failure:
                pairs.append(Pair(kind=kind_of(source), chosen=better, rejected=worse))
    return list(at_parting(pairs, found.is_error, source.options))


def _counts(side: Side, options: Mapping[str, Any]) -> bool:
    """Whether a trajectory may stand in a pair: any of them may where a source says all."""
    return side.episode.failure or options.get("only", "failures") == "all"


def _preferences(
    source: PairSource, couples: Sequence[tuple[Side, Side]], expert: Side | None
) -> Iterator[Pair]:
    """The couples as pairs, the rejected side cut where the source says so and the task has an expert."""
    extra = source.options.get("max_extra_turns", EXTRA_TURNS.get(source.pairs))
    for one, other in couples:
        worse, better = sorted((one, other), key=lambda side: side.episode.reward)
        if worse.episode.reward < better.episode.reward:
            most = None if extra is None or expert is None else expert.turns + extra
            rejected = worse if most is None else cut(worse, most)
            yield Pair(kind=kind_of(source), chosen=better, rejected=rejected)


def _kept(kinds: Sequence[Sequence[Pair]], config: AgentConfig, seed: int) -> list[Pair]:
    """Task by task, the first pairs of every kind; none that repeats another of its task."""
    tasks: dict[str, list[list[Pair]]] = defaultdict(lambda: [[] for _ in kinds])
    for place, pairs in enumerate(kinds):
        for pair in pairs:
            tasks[pair.chosen.episode.task_id][place].append(pair)
    kept: list[Pair] = []
    for task in sorted(tasks):
        seen: set[tuple[Key, Key, int, int, Turns]] = set()
        for pairs in tasks[task]:
            left = config.max_pairs_per_kind
            for pair in order(config.pairs_kept, seed)(pairs):
                if left and pair.chosen.key != pair.rejected.key and pair.key not in seen:
                    seen.add(pair.key)
                    kept.append(pair)
                    left -= 1
    return kept


def _successes(source: ImitationSource, found: Round) -> list[Imitated]:
    return [Imitated(side=side) for played in found.played(source) for side in played if side.episode.success]


def _experts(source: ImitationSource, found: Round) -> list[Imitated]:
    """The experts of every task that was played, whatever came of it."""
    tasks = {side.episode.task_id for played in found.played(source) for side in played}
    return [Imitated(side=side) for side in found.experts if side.episode.task_id in tasks]


def _best_rollouts(source: ImitationSource, found: Round) -> list[Imitated]:
    """Of each task the trajectory of an agent with most reward, if that is above the limit."""
    best: list[Imitated] = []
    for sides in by_task(chain(*found.played(source))).values():
        own = [side for side in sides if side.episode.agent != "expert"]
        most = max((side.episode.reward for side in own), default=0.0)
        if most > source.options.get("above", 0.0):
            best.append(Imitated(side=next(side for side in own if side.episode.reward == most)))
    return best


def _verified_branch(source: PairSource, found: Round) -> list[Pair]:
    return verified(found.played(source), source.options, kind_of(source))


def _step_and_outcome(source: PairSource, found: Round) -> list[Pair]:
    return list(refined(found.played(source), found.expert_of, source.options, kind_of(source)))


def _beneficial_segments(source: ImitationSource, found: Round) -> list[Imitated]:
    return list(segments(found.played(source), found.expert_of, source.options))


def _graded(source: ImitationSource, found: Round) -> list[Imitated]:
    return [Imitated(side=side) for side in graded(source, found.played(source), found.rendering)]


def _revisions(source: ImitationSource, found: Round) -> list[Imitated]:
    return revisions(found.played(source), source.options, found.number, found.rendering)[0]


def _good_paths(source: ImitationSource, found: Round) -> list[Imitated]:
    return good_paths(found.played(source), source.options, found.number)


PAIRED: dict[str, Callable[[PairSource, Round], list[Pair]]] = {
    "expert_over": _expert_over,
    "better_over_worse": _better_over_worse,
    "expert_step_over": _expert_step_over,
    "verified_branch": _verified_branch,
    "step_and_outcome": _step_and_outcome,
    "expert_over_at_parting": _expert_over_at_parting,
    "success_over_failure_at_parting": _success_over_failure_at_parting,
}
IMITATED: dict[str, Callable[[ImitationSource, Round], list[Imitated]]] = {
    "successes": _successes,
    "best_rollouts": _best_rollouts,
    "experts": _experts,
    "next_observations": _next_observations,
    "reflections": _reflections,
    "beneficial_segments": _beneficial_segments,
    "graded": _graded,
    "corrections": corrections,
    "kept_corrections": kept_corrections,
    "revisions": _revisions,
    "good_paths": _good_paths,
}


def pair_check(files: RunFiles, phase: Phase) -> Check:
    """A learning phase's stored pairs against those derived, line by line; and the counts recorded."""
    told: dict[str, int] = {}
    return judge(f"pairs/{phase.name}", pair_problems(files, phase, told), lambda: _words(told))


def _words(told: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in told.items()) or "no pairs, and none could be made"


def pair_problems(files: RunFiles, phase: Phase, told: dict[str, int]) -> Iterator[str]:
    """The file has the derived pairs in their order, and the record their numbers by kind."""
    derived = derive_pairs(files, phase)
    if phase.pairs not in files.files:
        raise NotCheckable(f"{phase.pairs} is not among the committed files")
    stored = (files.folder / phase.pairs).read_text(encoding="utf-8").splitlines()
    names = [_named(pair) for pair in derived]
    told |= {kind: sum(pair.kind == kind for pair in derived) for kind in phase.kinds}
    for unused in [kind for kind, count in told.items() if not count]:
        del told[unused]
    found = [json.loads(line) for line in stored]
    for number, (one, wanted) in enumerate(zip(found, names, strict=False), start=1):
        if one != wanted:
            yield f"{phase.pairs}:{number}: found {_short(one)}, expected {_short(wanted)}"
    yield from differs(f"{phase.pairs}: pairs", len(found), len(names))
    recorded, wanted = files.record(phase.name)["pairs"], counts(derived, phase)
    if not same(recorded, wanted):
        yield f"{phase.name}: recorded pairs: found {recorded}, expected {wanted}"
    refused = files.record(phase.name).get("refused_pairs", {})
    yield from differs(f"{phase.name}: refused pairs", refused, _made(files, phase)[1])


def _named(pair: Pair) -> dict[str, Any]:
    """A pair as the file has it."""
    names = {
        role: {"source": side.source, "sample": side.episode.sample}
        for role, side in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    first = {"chosen_from": pair.chosen_from, "rejected_from": pair.rejected_from}
    later = {key: turn for key, turn in first.items() if turn > 0}
    weights = {} if pair.rejected_turns is None else {"rejected_turns": list(pair.rejected_turns)}
    return {"task_id": pair.chosen.episode.task_id, "kind": pair.kind, **names, **later, **weights}


def _short(line: Mapping[str, Any]) -> str:
    sides = []
    for role in ("chosen", "rejected"):
        first = line.get(f"{role}_from")
        place = "" if first is None else f" from turn {first}"
        sides.append(f"{line[role]['source']} {line[role]['sample']}{place}")
    return f"{line['kind']} of {line['task_id']}: {' over '.join(sides)}"


def counts(pairs: Sequence[Pair], phase: Phase) -> list[dict[str, Any]]:
    """Pairs, tasks and the mean gap of the rewards by the kinds of a learning."""
    rows = []
    for kind in phase.kinds:
        own = [pair for pair in pairs if pair.kind == kind]
        if own:
            gaps = [pair.chosen.episode.reward - pair.rejected.episode.reward for pair in own]
            tasks = len({pair.chosen.episode.task_id for pair in own})
            gap = float(np.mean(gaps))
            row = {"kind": kind, "count": len(own), "tasks": tasks, "mean_reward_gap": gap}
            rows.append(row | _turn_counts(own))
    return rows


def _turn_counts(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Of pairs some of which count from a later turn on: how many from each, and of which rejected turns."""
    by_turn = Counter(pair.rejected_from for pair in pairs)
    if not any(pair.chosen_from or pair.rejected_from for pair in pairs):
        return {}
    rejected = {pair.rejected.key: pair.rejected.turns for pair in pairs}
    critical = {(pair.rejected.key, pair.rejected_from) for pair in pairs}
    share = len(critical) / sum(rejected.values())
    return {"by_turn": {str(n): by_turn[n] for n in sorted(by_turn)}, "critical_turn_share": share}
