"""What a discriminator learns and thinks, derived again: its steps and weights, its first loss, its logits.

Of every task with an expert, own steps are all turns that the agent played itself; the expert's are those at
which its episodes left the expert, or all where some did not leave it. In an optimizer step with E of experts
and O own ones, a step weighs 1 / 2E or 1 / 2O, and with the logit x its loss is log(1 + exp(-x)) of an
expert's, log(1 + exp(x)) of an own one; x is the head's answer at the turn's last
token, or its mean over the turn's tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.audit.check import Check, differs, far, judge, same
from coevo_jax.audit.forward import JUDGE, Agents, in_rows, per_token, sample
from coevo_jax.audit.nonfinite import counted_steps
from coevo_jax.audit.numbers import RATE_ROUNDING, warmup_steps
from coevo_jax.audit.order import Phase, finished
from coevo_jax.audit.plans import ROUNDING, side_problems, size_problems
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.round import round_of
from coevo_jax.audit.rows import fit_rows, trained_places, turns_of_tokens
from coevo_jax.audit.sides import Side, cut
from coevo_jax.config.options import of_round

UNDECIDED = 4  # a logit's own noise, in tokens' log-probabilities: states are summed over their width


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedSide:
    """The turns of an episode that are judged, in a plan's place of it."""

    side: Side
    turns: Sequence[int]
    by_expert: bool


def judged_check(files: RunFiles, phase: Phase, agents: Agents, scored: int | None) -> Iterator[Check]:
    """One phase in which the discriminator learned."""
    told: dict[str, int] = {}
    words = "steps, their weights, judgements and counts"
    yield judge(
        f"plan/{phase.name}",
        plan_problems(files, phase, told),
        lambda: ", ".join(f"{count} {what}" for what, count in told.items()) + f": {words}",
    )
    if files.records[phase.name]["position"] == 0:
        return
    yield judge(f"rates/{phase.name}", rate_problems(files, phase), lambda: f"{told.get('steps', 0)} steps")
    yield judge(f"adam/{phase.name}", adam_problems(files, phase, agents), lambda: "counted every step")
    problems = loss_problems(files, phase, agents)
    yield judge(f"loss/{phase.name}", problems, lambda: "the first step's, in float64")
    problems = logit_problems(files, phase, agents, scored, told)
    yield judge(f"judgements/{phase.name}", problems, lambda: f"{told['scored']} logits scored again")


@lru_cache(maxsize=2)
def derive_judged(files: RunFiles, phase: Phase) -> tuple[list[JudgedSide], int]:
    """The judged episodes in a plan's order, and the own turns of tasks without an expert.

    Raises:
      NotCheckable: a collection is not there.
    """
    assert phase.judging is not None
    found = round_of(files, phase)
    tasks: dict[str, list[Side]] = {}
    for side in (one for played in found.played(phase.judging) for one in played):
        if side.episode.finished and side.episode.replayed_turns < side.turns:
            tasks.setdefault(side.episode.task_id, []).append(side)
    sides: list[JudgedSide] = []
    alone = 0
    for task in sorted(tasks):
        own = sorted(
            tasks[task],
            key=lambda s: (s.episode.replayed_turns, s.source, s.episode.agent, s.episode.sample),
        )
        turns = [range(side.episode.replayed_turns, side.turns) for side in own]
        expert = found.expert_of.get(task)
        if expert is None:
            alone += sum(map(len, turns))
            continue
        left = [side.episode.branch for side in own]
        known = list(range(expert.turns))
        if all(one is not None and one["collection"] == "expert" for one in left):
            places = {side.episode.replayed_turns for side in own} & set(known)
            known = sorted(places) or known
        sides.append(JudgedSide(side=cut(expert, known[-1] + 1), turns=known, by_expert=True))
        sides += [
            JudgedSide(side=side, turns=list(each), by_expert=False)
            for side, each in zip(own, turns, strict=True)
        ]
    return sides, alone


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """What a phase's plan is to be: fitted sides, and its views by trajectory and turn."""

    judged: Sequence[JudgedSide]
    sides: Sequence[Side]
    cut: int
    plan: Mapping[str, Any]

    def turn(self, view: Mapping[str, Any]) -> int:
        """The turn that a view is of: the one whose weight is 1."""
        return list(view.get("turns", [1.0])).index(1.0)

    def tokens(self, number: int, turn: int) -> np.ndarray:
        """Where the trained tokens of a turn stand; the last one ends it."""
        side = self.sides[number]
        return trained_places(side)[turns_of_tokens(side) == turn]


def case_of(files: RunFiles, phase: Phase) -> Case:
    """The plan of a phase with the episodes that the recipe gives it."""
    judged, _ = derive_judged(files, phase)
    sides, count = fit_rows([one.side for one in judged], files.config.batch)
    return Case(judged=judged, sides=sides, cut=count, plan=files.json(phase.plan))


def able_turns(case: Case, number: int, row_length: int) -> list[int]:
    """The turns of an episode that can be judged: those that are left in its row, with a trained token."""
    side = case.sides[number]
    if side.length > row_length:
        return []
    trained = set(turns_of_tokens(side).tolist())
    return [turn for turn in case.judged[number].turns if turn in trained]


def plan_problems(files: RunFiles, phase: Phase, told: dict[str, int]) -> Iterator[str]:
    """Every step that fits stands in one optimizer step, with its side's weight; counts and file agree."""
    record, position = files.record(phase.name), files.records[phase.name]["position"]
    judged, alone = derive_judged(files, phase)
    yield from differs(f"{phase.name}: without_expert", record["without_expert"], alone)
    if position == 0:
        fitted, _ = fit_rows([one.side for one in judged], files.config.batch)
        if any(side.length <= files.config.batch.row_length for side in fitted):
            yield f"{phase.name}: found no optimizer step, expected some"
        return
    case, batch = case_of(files, phase), files.config.batch
    yield from side_problems(phase.plan, case.plan, case.sides)
    able = [(n, turn) for n in range(len(case.sides)) for turn in able_turns(case, n, batch.row_length)]
    seen: list[tuple[int, int]] = []
    for number, step in enumerate(case.plan["steps"]):
        views = [view for micro in step for view in micro["views"]]
        experts = sum(case.judged[view["trajectory"]].by_expert for view in views)
        for view in views:
            place = view["trajectory"], case.turn(view)
            by_expert = case.judged[place[0]].by_expert
            where = f"{phase.plan}: step {number}: n {view['n']} ({case.sides[place[0]].episode.name})"
            name, other = ("expert_weight", "own_weight") if by_expert else ("own_weight", "expert_weight")
            weight = 0.5 / (experts if by_expert else len(views) - experts)
            yield from far(f"{where}: {name}", view.get(name, 0.0), weight, ROUNDING * weight)
            yield from far(f"{where}: {other}", view.get(other, 0.0), 0.0, 0.0)
            tokens = int(np.sum(turns_of_tokens(case.sides[place[0]]) == place[1]))
            yield from differs(f"{where}: tokens of its turn", view["tokens"], tokens)
            seen.append(place)
    if sorted(seen) != able:
        yield f"{phase.plan}: found {len(seen)} steps, expected {len(able)}, each turn that fits a row once"
    yield from size_of_step_problems(phase.plan, case, batch.step_episodes)
    taken = files.config.judge.epochs * len(case.plan["steps"])
    yield from size_problems(phase, case.plan, files, taken)
    total = sum(len(one.turns) for one in judged)
    counts = {
        "own": sum(not case.judged[n].by_expert for n, _ in able),
        "expert": sum(case.judged[n].by_expert for n, _ in able),
        "tasks": len({case.sides[n].episode.task_id for n, _ in able}),
        "left_out": total - len(able),
        "cut": case.cut,
    }
    for name, value in counts.items():
        yield from differs(f"{phase.name}: {name}", record[name], value)
    told |= {"steps": taken, "own": counts["own"], "of experts": counts["expert"]}
    yield from file_problems(files, phase, case, able)


def size_of_step_problems(path: str, case: Case, count: int | None) -> Iterator[str]:
    """Steps of an exact number of own steps, the last of what is left; or of one microbatch each."""
    steps = case.plan["steps"]
    for number, step in enumerate(steps):
        own = sum(not case.judged[v["trajectory"]].by_expert for micro in step for v in micro["views"])
        if count is None:
            yield from differs(f"{path}: step {number}: microbatches", len(step), 1)
        elif own > count or (own < count and number < len(steps) - 1):
            yield f"{path}: step {number}: found {own} own steps, expected {count}"


def file_problems(
    files: RunFiles, phase: Phase, case: Case, able: Sequence[tuple[int, int]]
) -> Iterator[str]:
    """The file has every step once, D is the logit's, and record and log have its means."""
    rows = files.json(phase.judgements)["steps"]
    wanted = sorted((*_named(case.sides[n]).values(), turn) for n, turn in able)
    found = sorted((one["source"], one["task_id"], one["sample"], one["turn"]) for one in rows)
    if found != wanted:
        yield f"{phase.judgements}: found {len(found)} steps, expected the plan's {len(wanted)}, each once"
    for number, one in enumerate(rows):
        where = f"{phase.judgements}: step {number}: probability"
        yield from far(where, one["probability"], _sigmoid(one["logit"]), 1e-12)
    expert = np.array([one["logit"] for one in rows if one["source"] == "expert"])
    own = np.array([one["logit"] for one in rows if one["source"] != "expert"])
    summary = {
        "accuracy": float(np.mean(expert > 0) + np.mean(own < 0)) / 2,
        "accuracy/expert": float(np.mean(expert > 0)),
        "accuracy/own": float(np.mean(own < 0)),
        "probability/expert": float(np.mean(_sigmoid(expert))),
        "probability/own": float(np.mean(_sigmoid(own))),
        "reward/own": float(np.mean(np.logaddexp(0.0, own))),
    }
    recorded = files.recorded(phase.name, "judged")
    if not same(recorded, summary):
        yield f"{phase.name}: judged: found {recorded}, expected {summary}"
    prefix = "judge/judged/"
    lines = [(n, v) for n, _, v in files.metrics.get(phase.name, []) if f"{prefix}accuracy" in v]
    yield from differs(f"metrics.jsonl: lines of {phase.name} with {prefix}", len(lines), 1)
    for line, values in lines:
        for name, value in summary.items():
            if not same(values[prefix + name], value):
                yield f"metrics.jsonl:{line}: {prefix}{name}: found {values[prefix + name]}, expected {value}"


def _named(side: Side) -> dict[str, Any]:
    return {"source": side.source, "task_id": side.episode.task_id, "sample": side.episode.sample}


def _sigmoid(x: Any) -> Any:
    return np.exp(-np.logaddexp(0.0, -np.asarray(x, np.float64)))


def rate_problems(files: RunFiles, phase: Phase) -> Iterator[str]:
    """A learning rate of the config's schedule at every step; the steps follow each other."""
    steps, total = files.steps(phase.name, "judge"), files.records[phase.name]["position"]
    yield from differs(f"metrics.jsonl: steps of {phase.name}", len(steps), total)
    config = files.config.judge
    peak, warm = of_round(config.learning_rate, phase.round), warmup_steps(total, config.warmup_fraction)
    for position, (line, number, values) in enumerate(steps):
        yield from differs(f"metrics.jsonl:{line}: step", number, steps[0][1] + position)
        rate = peak * min(1.0, (position + 1) / warm) if warm else peak
        where = f"metrics.jsonl:{line}: learning_rate"
        yield from far(where, values["learning_rate"], rate, RATE_ROUNDING * rate)


def adam_problems(files: RunFiles, phase: Phase, agents: Agents) -> Iterator[str]:
    """Moments are fresh in every phase; steps go on from the warm start's over all phases before."""
    number, position = files.recorded(phase.name, "checkpoint"), counted_steps(files, phase.name)
    taken, counted = agents.steps_taken(number, JUDGE)
    names = [one.name for one in finished(files, "judge")]
    before = sum(counted_steps(files, name) for name in names[: names.index(phase.name)])
    wanted = counted_steps(files, "warm_start") + before + position
    yield from differs(f"checkpoint {number}: {JUDGE}: steps", taken, wanted)
    yield from differs(f"checkpoint {number}: {JUDGE}: Adam's count", counted, position)


def loss_problems(files: RunFiles, phase: Phase, agents: Agents) -> Iterator[str]:
    """What the log says of the first step, under the discriminator as the phase began."""
    case = case_of(files, phase)
    step = case.plan["steps"][case.plan["order"][0][0]]
    views = [view for micro in step for view in micro["views"]]
    places = [(view["trajectory"], case.turn(view)) for view in views]
    x = judged_logits(agents, files.recorded(phase.name, "began_with"), case, places)
    by_expert = np.array([case.judged[number].by_expert for number, _ in places])
    expert, own = x[by_expert], x[~by_expert]
    means = [np.mean(np.logaddexp(0.0, -expert)), np.mean(np.logaddexp(0.0, own))]
    expected = {
        "loss": float(sum(means)) / 2,
        "probability/expert": float(np.mean(_sigmoid(expert))),
        "probability/own": float(np.mean(_sigmoid(own))),
    }
    line, _, values = files.steps(phase.name, "judge")[0]
    slack = 20 * per_token(files.config.model, files.devices)
    for name, value in expected.items():
        where = f"metrics.jsonl:{line}: judge/{name}"
        yield from far(where, values[name], value, slack * (1 + abs(value)))


def logit_problems(
    files: RunFiles, phase: Phase, agents: Agents, scored: int | None, told: dict[str, int]
) -> Iterator[str]:
    """The file's logits are those of the discriminator that the phase left."""
    case, rows = case_of(files, phase), files.json(phase.judgements)["steps"]
    numbers = {tuple(_named(side).values()): number for number, side in enumerate(case.sides)}
    own = sample(range(len(rows)), lambda place: f"{phase.name} {place}", scored)
    places = [
        (numbers[rows[place]["source"], rows[place]["task_id"], rows[place]["sample"]], rows[place]["turn"])
        for place in own
    ]
    found = judged_logits(agents, files.recorded(phase.name, "checkpoint"), case, places)
    slack = UNDECIDED * per_token(files.config.model, files.devices)
    for place, (number, turn), ours in zip(own, places, found, strict=True):
        where = f"{phase.judgements}: step {place} (turn {turn} of {case.sides[number].episode.name})"
        yield from far(f"{where}: logit", rows[place]["logit"], float(ours), slack * (1 + abs(float(ours))))
    told["scored"] = len(own)


def judged_logits(
    agents: Agents, checkpoint: int, case: Case, places: Sequence[tuple[int, int]]
) -> np.ndarray:
    """The logits of a checkpoint's discriminator for turns of episodes, float64 [N]: a plain forward pass.

    Raises:
      NotCheckable: the checkpoint is gone.
    """
    model, variables, head = agents.judge(checkpoint)
    if head is None:
        return np.zeros(len(places))
    program: Any = _program
    own = [case.tokens(number, turn) for number, turn in places]
    rows = [
        case.sides[number].episode.tokens[: tokens[-1] + 1]
        for (number, _), tokens in zip(places, own, strict=True)
    ]
    found = in_rows(lambda tokens: program(model)(variables, head, tokens), rows)
    read = agents.files.config.judge.read
    return np.array(
        [
            logits[-1] if read == "end" else logits[tokens].mean()
            for (logits,), tokens in zip(found, own, strict=True)
        ]
    )


@lru_cache(maxsize=4)
def _program(model: Any) -> Any:
    @jax.jit
    def forward(variables: Any, head: Any, tokens_BT: jax.Array) -> list[jax.Array]:
        length = tokens_BT.shape[1]
        places = jnp.broadcast_to(jnp.arange(length), tokens_BT.shape)
        hidden: Any = model.apply(variables, tokens_BT, places, jnp.full_like(tokens_BT, length))
        return [hidden.astype(jnp.float32) @ head["kernel"] + head["bias"]]

    return forward
