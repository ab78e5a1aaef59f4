"""What the steps of a phase reinforce: every trajectory once, by its turns' advantages; and its counts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np

from coevo_jax.audit.check import Check, differs, far, judge, same
from coevo_jax.audit.order import Phase
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.reinforced import (
    Reinforced,
    Yielded,
    derive_reinforced,
    own_weights,
    step_weights,
    turns_of,
)
from coevo_jax.audit.sides import Side
from coevo_jax.audit.step_plan import StepPlan, course_of

ROUNDING = 1e-5  # relative: weights are float32


def reinforced_check(files: RunFiles, phase: Phase) -> Check:
    """What a learning phase reinforced, against what is derived; and the counts recorded and logged."""
    told: list[str] = []
    return judge(f"reinforced/{phase.name}", _problems(files, phase, told), lambda: "; ".join(told))


def _problems(files: RunFiles, phase: Phase, told: list[str]) -> Iterator[str]:
    yielded = derive_reinforced(files, phase)
    for one in yielded:
        turns = sum(len(item.advantages) - item.first for item in one.learned)
        told.append(f"{len(one.learned)} trajectories of {one.source.reinforce}, {turns} turns")
    yield from count_problems(files, phase, yielded)
    if files.records[phase.name]["position"]:
        yield from plan_problems(phase.plan, course_of(files, phase))


def plan_problems(path: str, course: StepPlan) -> Iterator[str]:
    """Every reinforced trajectory that fits a row stands in one step, with its advantages and weight."""
    seen: Counter[int] = Counter()
    sides, credits, reduction = course.sides, course.reinforced, course.config.surrogate.reduction
    for number, step in enumerate(course.plan["steps"]):
        views = [view for micro in step for view in micro["views"]]
        given = [view for view in views if view["trajectory"] in credits]
        for view in views:
            if "reinforce_weight" in view and view["trajectory"] not in credits:
                yield f"{path}: step {number}: n {view['n']}: found it reinforced, expected it not to be"
        own = {view["trajectory"]: sides[view["trajectory"]] for view in given}
        weights = step_weights(own, credits, reduction)
        for view in given:
            side, credit = sides[view["trajectory"]], credits[view["trajectory"]]
            where = f"{path}: step {number}: n {view['n']} ({side.episode.name})"
            yield from _view_problems(where, view, side, credit, weights[view["trajectory"]], reduction)
            seen[view["trajectory"]] += 1
    for number in credits:
        left = not credits[number].first or len(turns_of(sides[number], credits[number].first))
        wanted = int(course.usable[number] and bool(left))
        yield from differs(f"{path}: {sides[number].episode.name}: times an epoch", seen[number], wanted)


def _view_problems(
    where: str, view: Mapping[str, Any], side: Side, credit: Reinforced, weight: float, reduction: str
) -> Iterator[str]:
    advantages = credit.advantages[turns_of(side, credit.first)].astype(np.float32).tolist()
    total = float(own_weights(side, reduction, credit.first).sum())
    found = view.get("advantages", [])
    yield from differs(f"{where}: trained tokens", view["tokens"], len(advantages))
    yield from far(f"{where}: weights of its tokens", view["weight"], total, ROUNDING * total)
    yield from far(f"{where}: sft_weight", view["sft_weight"], 0.0, 0.0)
    yield from far(f"{where}: reinforce_weight", view.get("reinforce_weight", 0.0), weight, ROUNDING * weight)
    yield from advantage_problems(where, found, advantages)


def advantage_problems(
    where: str, found: Sequence[Sequence[Any]], expected: Sequence[float]
) -> Iterator[str]:
    """What differs between the advantages of a view's tokens, in runs as a plan has them, and those derived.

    Tokens are compared and not runs: where two terms cancel, rounding makes several runs of one.

    Args:
      found: (advantage, number of tokens), one for each run.
      expected: one for each token.
    """
    told = [value for value, count in found for _ in range(count)]
    if len(told) != len(expected):
        runs = [[value, len(list(run))] for value, run in groupby(expected)]
        yield f"{where}: advantages: found {found}, expected {runs}"
        return
    problems = (
        problem
        for value, wanted in zip(told, expected, strict=True)
        for problem in far(f"{where}: advantage", value, wanted, ROUNDING * (abs(wanted) + 1e-3))
    )
    yield from islice(problems, 1)


def count_problems(files: RunFiles, phase: Phase, yielded: Sequence[Yielded]) -> Iterator[str]:
    """What the record and the log say of the sources."""
    recorded = files.record(phase.name).get("reinforced", [])
    wanted = [_counts(one) for one in yielded]
    if not same(recorded, wanted):
        yield f"{phase.name}: reinforced: found {recorded}, expected {wanted}"
    if files.records[phase.name]["position"] == 0:
        return
    for counts in wanted:
        prefix = f"{phase.agent}/reinforced/{counts['source']}"
        lines = [(line, v) for line, _, v in files.metrics.get(phase.name, []) if f"{prefix}/count" in v]
        yield from differs(f"metrics.jsonl: lines of {phase.name} with {prefix}", len(lines), 1)
        for line, values in lines:
            for name, value in counts.items():
                if name != "source" and not same(values[f"{prefix}/{name}"], float(value)):
                    found = values[f"{prefix}/{name}"]
                    yield f"metrics.jsonl:{line}: {prefix}/{name}: found {found}, expected {value}"


def _counts(one: Yielded) -> dict[str, Any]:
    values = np.concatenate([np.zeros(0), *(item.advantages[item.first :] for item in one.found)])
    sizes = np.concatenate([np.zeros(0), *(item.sizes[item.first :] for item in one.found)])
    counts = {
        "source": one.source.reinforce,
        "learned": len(one.learned),
        "count": len(one.found),
        "tasks": len({item.side.episode.task_id for item in one.found}),
        "turns": len(values),
        "advantage_mean": float(np.mean(values)) if len(values) else 0.0,
        "advantage_std": float(np.std(values)) if len(values) else 0.0,
    }
    if len(sizes):
        counts["anchored"] = float(np.sum((sizes > 1) / sizes) / np.sum(1 / sizes))
    return counts
