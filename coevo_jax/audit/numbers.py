"""The numbers of learning: references, first losses, learning rates, betas, and the steps Adam counted."""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from coevo_jax.audit.check import Check, NotCheckable, differs, far, judge
from coevo_jax.audit.draws import weak_checkpoint
from coevo_jax.audit.forward import Agents, Scored, per_token, sample
from coevo_jax.audit.mixed_forward import score_together
from coevo_jax.audit.nonfinite import counted_steps
from coevo_jax.audit.order import Phase, lead_in, learn_options, learned_before
from coevo_jax.audit.plans import warm_start_sides
from coevo_jax.audit.pulls import pull_check
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.rows import fit_rows, trained_places
from coevo_jax.audit.step_plan import StepPlan, Weighed, course_of
from coevo_jax.audit.steps import Place, pair_losses, pairs_of, views_of
from coevo_jax.audit.surrogates import surrogate_metrics
from coevo_jax.audit.whose import Tasks
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.options import of_round

RATE_ROUNDING = 1e-6  # relative: rates and betas are float32


def number_checks(
    files: RunFiles, phase: Phase, tasks: Tasks, agents: Agents, scored: int | None
) -> Iterator[Check]:
    """A phase that learned; `scored` views at most are scored again."""
    if files.records[phase.name]["position"] == 0:
        return  # it took no step, which the plan's check looks at
    yield judge(f"rates/{phase.name}", rate_problems(files, phase), lambda: _rate_words(files, phase))
    yield judge(f"adam/{phase.name}", adam_problems(files, phase, agents), lambda: "counted every step")
    if phase.kind == "warm_start":
        problems = first_imitation_problems(files, phase, tasks, agents)
        yield judge(f"loss/{phase.name}", problems, lambda: "the first step's, from the initial model")
        return
    told: dict[str, str] = {}
    tied = phase.reinforces and learn_options(files.config, phase).surrogate.kl > 0
    if phase.prefers_or_imitates or tied:
        problems = reference_problems(files, phase, agents, scored, told)
        yield judge(f"references/{phase.name}", problems, lambda: "; ".join(told.values()))
    problems = first_loss_problems(files, phase, agents)
    yield judge(f"loss/{phase.name}", problems, lambda: "the first step's, in float64")
    if phase.prefers_or_imitates:
        yield pull_check(files, phase)


def _prefix(phase: Phase) -> str:
    return "warm_start" if phase.kind == "warm_start" else phase.agent


def _rate_words(files: RunFiles, phase: Phase) -> str:
    steps = files.steps(phase.name, _prefix(phase))
    return f"{len(steps)} steps" + ("" if phase.kind == "warm_start" else f", beta {steps[0][2]['beta']:.6g}")


def rate_problems(files: RunFiles, phase: Phase) -> Iterator[str]:
    """A learning rate, and a beta, of the config's schedule at every step; the steps follow each other."""
    steps, total = files.steps(phase.name, _prefix(phase)), files.records[phase.name]["position"]
    yield from differs(f"metrics.jsonl: steps of {phase.name}", len(steps), total)
    if steps and "learning_rate" not in steps[0][2]:
        raise NotCheckable("the log has no learning_rate: made by an earlier version")
    plan = files.json(phase.plan)
    pairs = [sum(p["weight"] > 0 for micro in step for p in micro["pairs"]) for step in plan["steps"]]
    order = [place for epoch in plan["order"] for place in epoch]
    for position, (line, number, values) in enumerate(steps[: len(order)]):
        where = f"metrics.jsonl:{line}"
        yield from differs(f"{where}: step", number, steps[0][1] + position)
        rate = expected_rate(files, phase, position, total)
        yield from far(f"{where}: learning_rate", values["learning_rate"], rate, RATE_ROUNDING * rate)
        yield from differs(f"{where}: pairs", values["pairs"], pairs[order[position]])
        if phase.kind == "learn":
            beta = of_round(learn_options(files.config, phase).beta, phase.round)
            yield from far(f"{where}: beta", values["beta"], beta, RATE_ROUNDING * beta)
            yield from far(f"{phase.plan}: beta", plan["beta"], beta, RATE_ROUNDING * beta)


def expected_rate(files: RunFiles, phase: Phase, position: int, steps: int) -> float:
    """Linear warm-up; then a cosine to zero in the warm start, the peak in a round."""
    config = files.config.warm_start if phase.kind == "warm_start" else learn_options(files.config, phase)
    warm = warmup_steps(steps, config.warmup_fraction)
    if isinstance(config, AgentConfig):
        peak = of_round(config.learning_rate, phase.round)
        return peak * min(1.0, (position + 1) / warm) if warm else peak
    if position < warm:
        return config.learning_rate * (position + 1) / warm
    share = (position - warm + 1) / max(1, steps - warm + 1)
    return config.learning_rate * (1 + math.cos(math.pi * share)) / 2


def warmup_steps(steps: int, fraction: float) -> int:
    """The share of the steps, rounded up; the fraction is the decimal that a config says, not its float."""
    return math.ceil(steps * Fraction(str(fraction)))


def adam_problems(files: RunFiles, phase: Phase, agents: Agents) -> Iterator[str]:
    """Moments are fresh in every learning; where they are kept, those of the agent's earlier learnings."""
    number = files.recorded(phase.name, "checkpoint")
    taken, counted = agents.steps_taken(number, phase.agent)
    before = sum(counted_steps(files, p.name) for p in learned_before(files, phase))
    position = counted_steps(files, phase.name)
    if phase.kind == "warm_start":
        lora = files.config.model.lora
        fresh = lora is not None and lora.warm_start == "full"  # the adapters have not learned yet
        yield from differs(f"checkpoint {number}: {phase.agent}: steps", taken, position)
        wanted = 0 if fresh else position
        yield from differs(f"checkpoint {number}: {phase.agent}: Adam's count", counted, wanted)
        return
    warm = counted_steps(files, "warm_start")
    kept = learn_options(files.config, phase).keep_optimizer
    yield from differs(f"checkpoint {number}: {phase.agent}: steps", taken, warm + before + position)
    expected = position + (before if kept else 0)
    yield from differs(f"checkpoint {number}: {phase.agent}: Adam's count", counted, expected)


def logp(course: StepPlan, view: Weighed, scored: Scored) -> float:
    """A view's log-probability: the weighted sum over its trained tokens."""
    return float(view.weights @ scored.logps[trained_places(course.sides[view.side])])


def noise(files: RunFiles, view: Weighed) -> float:
    """How far such a sum may be from ours: roundings add up like a random walk, and partly in line."""
    tokens = max(view.tokens, 1)
    return per_token(files.config.model, files.devices) * (math.sqrt(tokens) * 4 + 0.05 * tokens)


def tokens_of(course: StepPlan, view: Weighed) -> np.ndarray:
    """The tokens of a view's trajectory, as far as the plan keeps them."""
    side = course.sides[view.side]
    return side.episode.tokens[: side.length]


def reference_problems(
    files: RunFiles, phase: Phase, agents: Agents, scored: int | None, told: dict[str, str]
) -> Iterator[str]:
    """The stored references are those of the checkpoint that the method names, at every refresh."""
    course = course_of(files, phase)
    weighed, steps = views_of(course)
    every = course.config.reference_every
    total = files.records[phase.name]["position"]
    used = range(0, total, every) if every else [0]
    gone: list[str] = []
    shape = (sum(map(len, steps)), course.batch.rows * course.batch.views_per_row)
    for refresh, position in enumerate(used):
        name = f"references/{phase.stem}{f'-{refresh:04d}' if refresh else ''}.npy"
        if name not in files.files:
            yield f"{name}: not among the committed files, expected the reference of step {position + 1}"
            continue
        stored = np.load(files.folder / name)
        yield from differs(f"{name}: shape", stored.shape, shape)
        try:
            number = reference_checkpoint(files, phase, position, agents)
            places = sample(weighed, lambda place: f"{phase.name} {place}", scored)
            found = agents.score(number[0], number[1], [tokens_of(course, weighed[p]) for p in places])
        except NotCheckable as reason:
            gone.append(f"{name}: {reason}")
            continue
        for (micro, n), ours in zip(places, found, strict=True):
            view = weighed[micro, n]
            where = f"{name}: view {n} of microbatch {micro} ({course.sides[view.side].episode.name})"
            yield from far(where, stored[micro, n], logp(course, view, ours), noise(files, view))
        told[name] = f"{len(places)} of {len(weighed)} views against {number[1]} of checkpoint {number[0]}"
    if gone and len(gone) == len(used):
        raise NotCheckable(gone[0])
    if gone:
        told["gone"] = f"{len(gone)} refreshes not checkable ({gone[0]})"


def reference_checkpoint(files: RunFiles, phase: Phase, position: int, agents: Agents) -> tuple[int, str]:
    """The checkpoint and agent that is the reference from a step on."""
    began = files.recorded(phase.name, "began_with")
    if position == 0:
        if learn_options(files.config, phase).reference == "warm_start":
            return files.recorded("warm_start", "checkpoint"), lead_in(files.config)
        return began, phase.agent
    first, _ = agents.steps_taken(began, phase.agent)
    for number in range(began + 1, files.recorded(phase.name, "checkpoint")):
        if agents.has(number) and agents.steps_taken(number, phase.agent)[0] == first + position:
            return number, phase.agent
    raise NotCheckable(f"no checkpoint holds the agent after step {position}")


def first_loss_problems(files: RunFiles, phase: Phase, agents: Agents) -> Iterator[str]:
    """What the log says of the first step, from the stored references and the agent before it."""
    course = course_of(files, phase)
    weighed, steps = views_of(course)
    first = course.plan["order"][0][0]
    step = dict(zip(steps[first], course.plan["steps"][first], strict=True))
    expected = {"loss": 0.0}
    if phase.prefers_or_imitates:
        expected = pair_and_imitation_metrics(files, phase, agents, course, step, weighed)
    if phase.reinforces:
        began = files.recorded(phase.name, "began_with"), phase.agent
        tied_to = reference_checkpoint(files, phase, 0, agents)
        own = surrogate_metrics(course, step, agents, began, tied_to)
        expected |= own | {"loss": expected["loss"] + own["loss/surrogate"] + own.get("loss/kl", 0.0)}
    line, _, values = files.steps(phase.name, phase.agent)[0]
    slack = 20 * per_token(files.config.model, files.devices)
    for name, value in expected.items():
        where = f"metrics.jsonl:{line}: {phase.agent}/{name}"
        if name not in values:
            yield f"{where}: found none, expected {value:.9g}"
        else:
            yield from far(where, values[name], value, slack * (1 + abs(value)))


def pair_and_imitation_metrics(
    files: RunFiles,
    phase: Phase,
    agents: Agents,
    course: StepPlan,
    step: Mapping[int, Any],
    weighed: Mapping[Place, Weighed],
) -> dict[str, float]:
    """What the log is to say of a first step's pairs and imitated sides."""
    micros = set(step)
    reference = np.load(files.folder / f"references/{phase.stem}.npy").astype(np.float64)
    own = [place for place in weighed if place[0] in micros]
    policy = {place: reference[place] for place in own}
    beside: dict[str, Mapping[Place, float]] = {}
    if phase.beside is not None:
        beside = together(files, phase, course, {place: weighed[place] for place in own}, agents)
        policy = beside["mixed"]
    if phase.beside is None and (course.config.reference == "warm_start" or course.config.wpo):
        began = files.recorded(phase.name, "began_with")
        rows = [tokens_of(course, weighed[place]) for place in own]
        scored = dict(zip(own, agents.score(began, phase.agent, rows), strict=True))
        if course.config.reference == "warm_start":
            policy = {place: logp(course, weighed[place], scored[place]) for place in own}
    else:
        scored = {}
    expected = expected_metrics(files, phase, course, step, weighed, policy, reference, scored)
    for name in ("strong", "weak") if beside else ():
        alone = expected_metrics(files, phase, course, step, weighed, beside[name], reference, scored)
        expected[f"beside/{name}_token_logp"] = alone["sft/token_logp"]
    return expected


def together(
    files: RunFiles, phase: Phase, course: StepPlan, weighed: Mapping[Place, Weighed], agents: Agents
) -> dict[str, Mapping[Place, float]]:
    """The views' log-probabilities under mixed logits before the first step, and under either model alone."""
    assert phase.beside is not None
    strong = agents.loaded(files.recorded(phase.name, "began_with"), phase.agent)
    weak = agents.loaded(weak_checkpoint(files, phase), phase.agent)
    rows = [tokens_of(course, view) for view in weighed.values()]
    found = score_together(strong, weak, phase.beside.mix, rows)
    summed: dict[str, Mapping[Place, float]] = {}
    for name in ("mixed", "strong", "weak"):
        summed[name] = {
            place: float(view.weights @ vars(one)[name][trained_places(course.sides[view.side])])
            for (place, view), one in zip(weighed.items(), found, strict=True)
        }
    return summed


def expected_metrics(
    files: RunFiles,
    phase: Phase,
    course: StepPlan,
    step: Mapping[int, Any],
    weighed: Mapping[Place, Weighed],
    policy: Mapping[Place, float],
    reference: np.ndarray,
    scored: Mapping[Place, Scored],
) -> dict[str, float]:
    """The losses of a step and the means over its pairs, by the names of the log."""
    beta = of_round(course.config.beta, phase.round)
    listed = [(micro, one) for micro, content in step.items() for one in content["pairs"]]
    real = [(micro, one) for micro, one in listed if course.kind(one["pair"]).dpo > 0]
    kinds = np.array([course.links[one["pair"]].kind for _, one in real])
    weights = np.array([course.kind(one["pair"]).dpo / len(listed) for _, one in real])
    pairs = pairs_of(course, real, weights, weighed, policy, reference)
    values = pair_losses(course.config, course.kinds, kinds, pairs, beta)
    if course.config.wpo:
        values = values * _wpo_weights(course, real, weighed, scored)
    imitated = {(m, v["n"]): v["sft_weight"] for m, content in step.items() for v in content["views"]}
    imitation = -sum(weight * policy[place] for place, weight in imitated.items() if weight)
    preference = float(np.sum(weights * values))
    found = {"loss": preference + imitation, "loss/preference": preference, "loss/sft": imitation}
    tokens = sum(weight * weighed[place].tokens for place, weight in imitated.items())
    if tokens:
        found["sft/token_logp"] = -imitation / tokens
    measured = {
        "loss/pair": values,
        "rewards/chosen": beta * pairs.chosen,
        "rewards/rejected": beta * pairs.rejected,
        "rewards/margins": beta * pairs.margin,
        "logps/chosen": pairs.policy_chosen,
        "logps/rejected": pairs.policy_rejected,
    }
    for suffix, mask in ({"": kinds == kinds} | {f"/{kind}": kinds == kind for kind in course.kinds}).items():
        found |= {name + suffix: float(np.mean(v[mask])) for name, v in measured.items() if np.any(mask)}
    return found


def _wpo_weights(
    course: StepPlan,
    real: Sequence[tuple[int, Any]],
    weighed: Mapping[Place, Weighed],
    scored: Mapping[Place, Scored],
) -> np.ndarray:
    """How likely the policy itself would have written both sides, at most 1 (arXiv 2406.11827, eq. 2)."""

    def surplus(place: Place) -> float:
        view, found = weighed[place], scored[place]
        places = trained_places(course.sides[view.side])[view.weights > 0]
        return float(np.mean(found.logps[places] - found.collisions[places])) if len(places) else 0.0

    sums = [surplus((micro, one["chosen"])) + surplus((micro, one["rejected"])) for micro, one in real]
    return np.minimum(1.0, np.exp(sums))


def first_imitation_problems(files: RunFiles, phase: Phase, tasks: Tasks, agents: Agents) -> Iterator[str]:
    """The warm start's first loss is the initial model's mean over the trained tokens of the first step."""
    sides, _ = fit_rows(warm_start_sides(files, tasks), files.config.batch)
    plan = files.json(phase.plan)
    step = plan["steps"][plan["order"][0][0]]
    own = [sides[view["trajectory"]] for micro in step for view in micro["views"]]
    scored = agents.score_initial([side.episode.tokens[: side.length] for side in own])
    places = [trained_places(side) for side in own]
    total = sum(one.logps[place].sum() for one, place in zip(scored, places, strict=True))
    expected = -float(total) / max(1, sum(map(len, places)))
    line, _, values = files.steps(phase.name, "warm_start")[0]
    slack = 20 * per_token(files.config.model, files.devices) * (1 + abs(expected))
    for name, value in (("loss", expected), ("loss/sft", expected), ("sft/token_logp", -expected)):
        yield from far(f"metrics.jsonl:{line}: warm_start/{name}", values[name], value, slack)
