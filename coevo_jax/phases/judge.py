"""The learning of a discriminator, and what it thinks of the round's steps afterwards (arXiv 2411.03817).

`judgements/round-01-rewards.json` holds of every step that was judged, in the order of `methods.judging`:

    source, task_id, sample    of its episode; "expert" is the source of experts' steps
    turn                       from 0
    logit                      x of D = sigmoid(x), after the phase's last step
    probability                D
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from coevo_jax.config.options import of_round
from coevo_jax.data.packing.judged import JudgedPlan, pack_judged
from coevo_jax.files import write_whole
from coevo_jax.learning.judge import Judging
from coevo_jax.learning.optimizer import constant_rate
from coevo_jax.learning.train_state import Agents
from coevo_jax.methods.judged_steps import step_reward
from coevo_jax.methods.judging import JudgedSteps, steps_to_judge
from coevo_jax.methods.material import Material
from coevo_jax.phases.lesson_counts import plan_counts
from coevo_jax.phases.material import judgements_path, read_round
from coevo_jax.phases.world import World
from coevo_jax.progress import say
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.checkpoint import JUDGE
from coevo_jax.run_folder.run import Run
from coevo_jax.training.feed import put_batch
from coevo_jax.training.optimize import optimize
from coevo_jax.training.pace import Pace
from coevo_jax.training.plan_file import PLANS, learned_tokens, write_plan
from coevo_jax.training.step_plan import StepArguments, StepPlan
from coevo_jax.training.watched import kept_files, skipped_words
from coevo_jax.trajectory import Trajectory

# The discriminator's state, and what its backbone's adapters adapt.
STATE = StepArguments(
    take=lambda agents: (agents[JUDGE], agents.frozen),
    give=lambda agents, state: agents.having(JUDGE, state),
)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What a round gives the discriminator to judge."""

    found: JudgedSteps
    packed: JudgedPlan
    steps: int  # optimizer steps that are taken
    seed: int

    def records(self) -> dict[str, Any]:
        """What the phase's record says of it."""
        plan, placed = self.packed.plan, self.packed.places
        kept = [one for one, place in zip(self.found.steps, placed, strict=True) if place is not None]
        return {
            "own": sum(not one.by_expert for one in kept),
            "expert": sum(one.by_expert for one in kept),
            "tasks": len({self.found.episodes[one.trajectory].task_id for one in kept}),
            "left_out": placed.count(None),
            "without_expert": self.found.without_expert,
            "too_long": list(plan.too_long),
            "cut": plan.cut,
            "padding": plan.padding,
            "shared": plan.shared,
            "learned_tokens": learned_tokens(plan, self.steps, self.seed),
        }


def judge(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """Train the discriminator on a round's steps, then let it judge them: an epoch, or several."""
    config, judging = run.config.judge, world.judging
    assert judging is not None  # a recipe with such a phase has one
    record = run.begin(phase.name)
    case = _case(run, world, phase)
    plan, steps = case.packed.plan, case.steps
    begun = record.records if record.position else {"began_with": run.manifest.checkpoint}
    record = replace(record, records=begun | case.records())
    path = run.folder / judgements_path(phase)
    if not plan.batches:
        run.processes.once("judgements", lambda: write_whole(path, json.dumps(_judgements(phase, case, []))))
        run.commit(record, files=[path], finished=True)
        say(record.name, record.seconds, f"nothing to judge in this round: {_words(record.records)}")
        return agents
    plan_path = run.folder / PLANS / f"{phase.stem}.json"
    if record.position == 0:
        agents = agents.having(JUDGE, judging.learner.renewed(agents[JUDGE]))
        counts = {f"judge/{name}": float(value) for name, value in plan_counts(plan).items()}
        run.log.write(int(agents[JUDGE].step), phase.name, counts)
    sides = [_side(one) for one in case.found.episodes]
    if run.leads:
        write_plan(plan_path, plan, phase=phase.name, sides=sides, steps=steps, seed=case.seed, beta=None)
    peak = of_round(config.learning_rate, phase.round)
    course = StepPlan(
        plan=plan,
        batches_at=lambda _position, _state: plan.batches,
        steps=steps,
        beta=0.0,  # which nothing reads
        rate=lambda step, steps: constant_rate(step, steps, peak, config.warmup_fraction),
        files=lambda: [plan_path],
        arguments=STATE,
        sides=sides,
    )
    pace = Pace(judging.learner, plan, world.mesh)
    record, agents = optimize(run, world, judging.programs, agents, phase, record, course, pace)
    made = _judgements(phase, case, _logits(world, judging, agents, case.packed))
    run.processes.once("judgements", lambda: write_whole(path, json.dumps(made)))
    records = record.records | {"judged": judged_counts(made["steps"]), "checkpoint": run.next_checkpoint}
    run.log.write(
        int(agents[JUDGE].step),
        phase.name,
        {f"judge/judged/{name}": value for name, value in records["judged"].items()},
    )
    record = replace(record, records=records)
    run.commit(record, files=[*course.files(), path, *kept_files(run, record)], agents=agents, finished=True)
    words = f"{_words(records)}; {record.position} steps, padding {plan.padding:.1%}"
    say(record.name, record.seconds, ", ".join(filter(None, (words, skipped_words(record), pace.words()))))
    return agents


def _case(run: Run, world: World, phase: Phase) -> _Case:
    options = phase.judging
    assert options is not None  # a phase that judges has them
    played = tuple(read_round(run, phase, name) for name in options.of)
    found = steps_to_judge(Material(played=played, experts=world.experts))
    seed = phase.seed(run.config.seed)
    packed = pack_judged(
        found.episodes, found.steps, batch=run.config.batch, pad_id=world.chat.pad_id, seed=seed
    )
    return _Case(
        found=found, packed=packed, steps=run.config.judge.epochs * len(packed.plan.steps), seed=seed
    )


def _logits(world: World, judging: Judging, agents: Agents, packed: JudgedPlan) -> list[float | None]:
    """The discriminator's logit of every step, on the very rows that it learned from."""
    params, frozen = agents[JUDGE].params, agents.frozen
    rows = [
        np.asarray(jax.device_get(judging.logits(params, frozen, put_batch(world.mesh, batch))))
        for batch in packed.plan.batches
    ]
    return [None if place is None else float(rows[place[0]][place[1]]) for place in packed.places]


def _judgements(phase: Phase, case: _Case, logits: Sequence[float | None]) -> dict[str, Any]:
    """What the file holds: every step that was judged."""
    lines = [
        _side(case.found.episodes[step.trajectory])
        | {"turn": step.turn, "logit": logit, "probability": probability(logit)}
        for step, logit in zip(case.found.steps, logits, strict=False)
        if logit is not None
    ]
    return {"phase": phase.name, "steps": lines}


def judged_counts(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How well the discriminator tells both sides apart, and GAIL's reward of own steps; from a file's steps.

    Accuracies are shares of a side's steps, and their mean; undecided is wrong.
    """
    expert = [one["logit"] for one in steps if one["source"] == "expert"]
    own = [one["logit"] for one in steps if one["source"] != "expert"]
    right = {"expert": _mean([x > 0 for x in expert]), "own": _mean([x < 0 for x in own])}
    return {
        "accuracy": (right["expert"] + right["own"]) / 2,
        "accuracy/expert": right["expert"],
        "accuracy/own": right["own"],
        "probability/expert": _mean([probability(x) for x in expert]),
        "probability/own": _mean([probability(x) for x in own]),
        "reward/own": _mean([step_reward(x, "gail") for x in own]),
    }


def probability(logit: float) -> float:
    """The logistic function, without overflow."""
    small = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else small) / (1.0 + small)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _side(trajectory: Trajectory) -> dict[str, Any]:
    source = trajectory.collection or trajectory.agent
    return {"source": source, "task_id": trajectory.task_id, "sample": trajectory.sample}


def _words(records: Mapping[str, Any]) -> str:
    """What was judged, for people."""
    words = f"{records['own']} own steps against {records['expert']} of experts"
    words += f", {records['left_out']} too long" if records["left_out"] else ""
    words += f", {records['without_expert']} of tasks without an expert" if records["without_expert"] else ""
    if "judged" not in records:
        return words
    found = records["judged"]
    told = f"told apart {found['accuracy']:.0%}, D {found['probability/expert']:.2f} of experts'"
    return f"{words}; {told} and {found['probability/own']:.2f} of own ones"
