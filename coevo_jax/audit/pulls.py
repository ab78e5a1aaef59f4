"""How hard preferences and imitation pull on a step's chosen sides before the first step.

With the policy at the reference, the pull of the preferences is the mean over steps of

    sum over pairs of |d (weight * loss) / d log pi(chosen)|          dpo * beta / 2 for DPO, by source

and that of imitation the mean of the sum of the views' weights. Slopes are central differences in float64.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from coevo_jax.audit.check import Check, differs, far, judge, same
from coevo_jax.audit.losses import Pairs
from coevo_jax.audit.order import Phase
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.step_plan import StepPlan, course_of
from coevo_jax.audit.steps import Place, loss_terms, pair_losses, pairs_of, views_of
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.options import of_round
from coevo_jax.config.recipe import KindWeights

STEP = 1e-4  # nats
ROUNDING = 1e-4  # relative: what is recorded is a sum of float32
# These have no slope where the policy is the reference, or one that other pairs of the step decide.
WITHOUT_SLOPE = {"kto", "aot", "aot_unpaired", "dpop"}


def pull_check(files: RunFiles, phase: Phase) -> Check:
    """The pulls that a learning phase recorded and logged, derived from its plan and references."""
    told: list[str] = []
    return judge(f"pull/{phase.name}", pull_problems(files, phase, told), lambda: "; ".join(told))


def pull_problems(files: RunFiles, phase: Phase, told: list[str]) -> Iterator[str]:
    """Both pulls in the record, and the same ones in the log."""
    recorded = files.recorded(phase.name, "pull")
    course = course_of(files, phase)
    place = f"{phase.agent}/pull"
    logged = [(line, v) for line, _, v in files.metrics.get(phase.name, []) if f"{place}/sft" in v]
    yield from differs(f"metrics.jsonl: lines of {phase.name} with {place}", len(logged), 1)
    for line, values in logged:
        for term, value in recorded.items():
            if not same(values[f"{place}/{term}"], value):
                found = values[f"{place}/{term}"]
                yield f"metrics.jsonl:{line}: {place}/{term}: found {found}, expected {value}"
    steps = course.plan["steps"]
    weights = [view["sft_weight"] for step in steps for micro in step for view in micro["views"]]
    wanted = {"sft": sum(weights) / len(steps)}
    edges = sorted(
        {name for terms in loss_terms(course.config, course.kinds) for name, _ in terms} & WITHOUT_SLOPE
    )
    if edges:
        told.append(f"preferences as recorded, for {edges[0]} has no slope of a pair's own there")
    else:
        reference = np.load(files.folder / f"references/{phase.stem}.npy").astype(np.float64)
        beta = of_round(course.config.beta, phase.round)
        wanted["preference"] = preference_pull(course, reference, beta)
    for term, value in wanted.items():
        where = f"{phase.name}: pull of {term}"
        yield from far(where, recorded[term], value, ROUNDING * abs(value) + 1e-12)
    told.append(f"preferences {recorded['preference']:.3g}, imitation {recorded['sft']:.3g} a step")


def preference_pull(course: StepPlan, reference: np.ndarray, beta: float) -> float:
    """The mean over steps, from the reference's log-probabilities [microbatches, views]."""
    weighed, steps = views_of(course)
    policy: dict[Place, float] = {place: float(reference[place]) for place in weighed}
    total = 0.0
    for numbers, step in zip(steps, course.plan["steps"], strict=True):
        count = sum(len(micro["pairs"]) for micro in step)
        for number, micro in zip(numbers, step, strict=True):
            real = [(number, one) for one in micro["pairs"] if course.kind(one["pair"]).dpo > 0]
            if real:
                kinds = np.array([course.links[one["pair"]].kind for _, one in real])
                weights = np.array([course.kind(one["pair"]).dpo / count for _, one in real])
                pairs = pairs_of(course, real, weights, weighed, policy, reference)
                steep = np.abs(slopes(course.config, course.kinds, kinds, pairs, beta))
                total += float(np.sum(weights * steep))
    return total / len(steps)


def slopes(
    config: AgentConfig,
    weights_of: Mapping[str, KindWeights],
    kinds: np.ndarray,
    pairs: Pairs,
    beta: float,
) -> np.ndarray:
    """Each pair's loss, derived by its own chosen side's log-probability."""
    ends = [
        pair_losses(config, weights_of, kinds, replace(pairs, policy_chosen=pairs.policy_chosen + step), beta)
        for step in (STEP, -STEP)
    ]
    return (ends[0] - ends[1]) / (2 * STEP)
