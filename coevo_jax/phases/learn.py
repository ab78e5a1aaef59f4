"""The learning of a round: its pairs, references and optimizer steps (METHOD, steps 3 and 5)."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.options import of_round
from coevo_jax.config.recipe import LearnOptions
from coevo_jax.data.chat.marking import remark
from coevo_jax.data.packing.plan import BatchPlan, pack
from coevo_jax.data.packing.views import plain_turns
from coevo_jax.data.pairing import Extra, Keep, PairSet, add_imitations, collect_pairs, keep_pairs
from coevo_jax.data.reinforced import Credit
from coevo_jax.files import write_whole
from coevo_jax.learning.objective import AgentLoss
from coevo_jax.learning.optimizer import constant_rate
from coevo_jax.learning.pull import pulls
from coevo_jax.learning.train_state import Agents
from coevo_jax.methods.material import Imitation, Noted, as_imitation
from coevo_jax.models.transformer import Params
from coevo_jax.phases.beside import WeakModel, find_weak, weak_words, without_weak
from coevo_jax.phases.lesson_counts import (
    beside_counts,
    imitated_counts,
    imitated_words,
    kind_words,
    mark_counts,
    mark_words,
    noted_words,
    pair_counts,
    plan_counts,
)
from coevo_jax.phases.material import built
from coevo_jax.phases.proof import Refusals
from coevo_jax.phases.reinforced import find_reinforced
from coevo_jax.phases.world import World
from coevo_jax.progress import CONSOLE, say
from coevo_jax.recipe import Phase, schedule
from coevo_jax.run_folder.budget import Budget, asked_of, budget_words
from coevo_jax.run_folder.run import Run
from coevo_jax.sharding import kept
from coevo_jax.training.feed import put_batch
from coevo_jax.training.optimize import optimize
from coevo_jax.training.pace import Pace
from coevo_jax.training.plan_file import PLANS, learned_tokens, steps_of_budget, write_plan
from coevo_jax.training.references import NoReferences, References
from coevo_jax.training.step_plan import StepPlan
from coevo_jax.training.watched import kept_files, skipped_words
from coevo_jax.trajectory import PreferencePair, Trajectory


@dataclass(frozen=True, kw_only=True)
class _Lesson:
    """What a round teaches an agent."""

    kinds: tuple[str, ...]  # of pairs, whether there are any or not
    pair_set: PairSet
    extras: Sequence[Extra]  # what is imitated without a pair
    plan: BatchPlan
    steps: int  # that are taken, epoch after epoch
    seed: int  # of their order
    budget: Budget
    marks: list[dict[str, Any]]  # of what is imitated, and how often; none where no mark is learned
    beside: dict[str, Any]  # what the record says of a weak model beside the agent
    reinforced: list[dict[str, Any]]  # what each source yielded; none where no source reinforces
    noted: dict[str, dict[str, int]]  # what imitation builders met, by source; none where none tells
    refusals: Refusals

    def records(self) -> dict[str, Any]:
        """What the phase's record says of it."""
        plan = self.plan
        records: dict[str, Any] = {
            "pairs": pair_counts(self.pair_set, self.kinds),
            "trajectories": len(self.pair_set.trajectories),
            "too_long": list(plan.too_long),
            "cut": plan.cut,
            "dropped_pairs": plan.dropped_pairs,
            "padding": plan.padding,
            "shared": plan.shared,
            "learned_tokens": learned_tokens(plan, self.steps, self.seed),
        }
        records |= imitated_counts(self.extras)
        records |= {"marks": self.marks} if self.marks else {}
        records |= {"reinforced": self.reinforced} if self.reinforced else {}
        records |= {"noted": self.noted} if self.noted else {}
        records |= {"refused_pairs": self.refusals.counts} if self.refusals.counts else {}
        return records | self.beside | ({"budget": self.budget} if self.budget else {})

    def planned(self) -> dict[str, float]:
        """What the metrics log says of it, before the first step."""
        counts = {
            f"reinforced/{one['source']}/{name}": value
            for one in self.reinforced
            for name, value in one.items()
            if name != "source"
        }
        return plan_counts(self.plan) | beside_counts(self.beside) | counts

    def words(self) -> str:
        """What is learned from, for people."""
        counts = self.records()
        words = [*map(kind_words, counts["pairs"]), *imitated_words(counts)]
        words += [f"{one['learned']} {one['source']}" for one in self.reinforced]
        words += [*noted_words(self.noted), self.refusals.words()]
        return ", ".join(filter(None, words)) or "no pairs"


def learn(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """Train one agent for one round: collect pairs, score the references once, take the optimizer steps."""
    config = run.config.agents[phase.agent]
    record = run.begin(phase.name)
    weak = find_weak(run, world, agents, phase, record)
    lesson = _lesson(run, world, phase, config, weak)
    pair_set, plan, steps = lesson.pair_set, lesson.plan, lesson.steps
    pairs_path = run.folder / "pairs" / f"{phase.stem}.jsonl"
    if run.leads:
        _write_pairs(pairs_path, pair_set)
    # What a phase began with is known when it begins; one that goes on keeps what it recorded then.
    begun = record.records if record.position else {"began_with": run.manifest.checkpoint}
    records: dict[str, Any] = begun | lesson.records()
    record = replace(record, records=records)
    if not plan.batches:
        run.commit(record, files=[pairs_path], finished=True)
        words = f"nothing to learn from in this round: {lesson.words()}; the agent stays as it is"
        say(record.name, record.seconds, ", ".join(filter(None, (words, budget_words(lesson.budget)))))
        return agents
    if record.position == 0 and not (config.keep_optimizer and _has_learned(run, phase)):
        agents = agents.having(phase.agent, world.learner.renewed(agents[phase.agent]))
    beta = of_round(config.beta, phase.round)
    plan_path = run.folder / PLANS / f"{phase.stem}.json"
    sides = [_side(trajectory) for trajectory in pair_set.trajectories]
    if run.leads:
        write_plan(plan_path, plan, phase=phase.name, sides=sides, steps=steps, seed=lesson.seed, beta=beta)
    references = _references(run, world, agents, phase, config, plan)
    if record.position == 0:
        planned = lesson.planned()
        if _learning(phase).pairs or _learning(phase).imitations:
            batches = references.batches_at(0, agents[phase.agent])
            pull = _pull(batches, len(plan.steps), beta, world.losses[phase.agent])
            if all(map(math.isfinite, pull.values())):  # else the steps will say whose pull is not
                records["pull"] = pull
                planned |= {f"pull/{term}": one for term, one in pull.items()}
            CONSOLE.print(f"{phase.name}: {_pull_words(pull)}", soft_wrap=True)
        record = replace(record, records=records)
        planned = {f"{phase.agent}/{name}": float(value) for name, value in planned.items()}
        run.log.write(int(agents[phase.agent].step), phase.name, planned)
    peak = of_round(config.learning_rate, phase.round)
    course = StepPlan(
        plan=plan,
        batches_at=references.batches_at,
        steps=steps,
        beta=beta,
        rate=lambda step, steps: constant_rate(step, steps, peak, config.warmup_fraction),
        files=lambda: [pairs_path, plan_path, *references.files(), *(weak.files if weak else [])],
        arguments=None if weak is None else weak.arguments(),
        sides=sides,
    )
    pace = Pace(world.learner, plan, world.mesh, beside=None if weak is None else weak.beside_passes)
    programs = world.programs[phase.agent] if weak is None else weak.programs
    record, agents = optimize(run, world, programs, agents, phase, record, course, pace)
    agents = without_weak(agents)
    record = replace(record, records=record.records | {"checkpoint": run.next_checkpoint})
    files = [*course.files(), *kept_files(run, record)]
    run.commit(record, files=files, agents=agents, finished=True)
    words = f"{lesson.words()}; {record.position} steps, padding {plan.padding:.1%}, shared {plan.shared:.1%}"
    told = skipped_words(record), mark_words(lesson.marks), weak_words(records)
    say(
        record.name,
        record.seconds,
        ", ".join(filter(None, (words, *told, budget_words(lesson.budget), pace.words()))),
    )
    return agents


def _lesson(run: Run, world: World, phase: Phase, config: AgentConfig, weak: WeakModel | None) -> _Lesson:
    """The pairs and trajectories of a round as batches, within the budget where there is one."""
    refusals = Refusals(run, world, phase)
    paired = _paired(run, world, phase, config, refusals)
    pairs, budget = _within_budget(run, world, phase, config, paired)
    pair_set, extras, noted = _imitated(run, world, phase, pairs)
    beside: dict[str, Any] = {}
    if weak is not None:
        extras, beside = weak.drawn(
            pair_set, extras, lambda all_of_them: _pack(run, world, phase, config, pair_set, all_of_them)
        )
    marks = mark_counts(pair_set, extras)
    pair_set, credits, reinforced = find_reinforced(run, world, phase, pair_set)
    plan = _pack(run, world, phase, config, pair_set, extras, credits)
    seed, steps = phase.seed(run.config.seed), config.epochs * len(plan.steps)
    asked = asked_of(run.config, phase, "learned_tokens")
    if asked is not None:
        steps = steps_of_budget(plan, asked, seed)
        budget |= {"learned_tokens": {"asked": asked, "reached": learned_tokens(plan, steps, seed)}}
    kinds = tuple(_learning(phase).kinds)
    return _Lesson(
        kinds=kinds,
        pair_set=pair_set,
        extras=tuple(extras),
        plan=plan,
        steps=steps,
        seed=seed,
        budget=budget,
        marks=marks,
        beside=beside,
        reinforced=reinforced,
        noted=noted,
        refusals=refusals,
    )


def _within_budget(
    run: Run, world: World, phase: Phase, config: AgentConfig, pair_set: PairSet
) -> tuple[PairSet, Budget]:
    """As many pairs as the budget asks for, of those that packing has a place for."""
    asked = asked_of(run.config, phase, "pairs")
    if asked is None:
        return pair_set, {}
    plan = _pack(run, world, phase, config, pair_set, {})
    usable = [number for own in plan.pairs for number in own]
    kept = keep_pairs(pair_set, asked, Keep(by=config.pairs_kept, seed=run.config.seed), usable)
    return kept, {"pairs": {"asked": asked, "reached": len(kept.pairs)}}


def _pack(
    run: Run,
    world: World,
    phase: Phase,
    config: AgentConfig,
    pair_set: PairSet,
    extras: dict[Extra, float],
    credits: dict[int, Credit] | None = None,
) -> BatchPlan:
    return pack(
        pair_set,
        batch=run.config.batch,
        kinds=_learning(phase).kinds,
        order=world.losses[phase.agent].kinds,
        sft_extra=extras,
        sft_reduction=config.sft_reduction,
        pad_id=world.chat.pad_id,
        seed=phase.seed(run.config.seed),
        ld_alpha=config.ld_alpha,
        turn_discount=config.turn_discount,
        reinforced=credits,
        reduction=config.surrogate.reduction,
    )


def _has_learned(run: Run, phase: Phase) -> bool:
    """Whether the agent has taken a step in an earlier learning; those of the warm start do not count."""
    learnings = (other for other in schedule(run.config) if other.kind == "learn")
    own = {learning.name for learning in learnings if learning.agent == phase.agent}
    return any(record.name in own and record.position > 0 for record in run.manifest.done)


def _pull(batches: list[PreferenceBatch], steps: int, beta: float, loss: AgentLoss) -> dict[str, float]:
    """The mean pull of both terms on a step's chosen sides, before the first step."""
    pull = _jit_pulls(loss)
    sums = np.sum([jax.device_get(pull(batch, beta=np.float32(beta))) for batch in batches], axis=0)
    return {"preference": float(sums[0]) / steps, "sft": float(sums[1]) / steps}


@kept(8)
def _jit_pulls(loss: AgentLoss) -> Any:
    return jax.jit(partial(pulls, loss=loss))


def _pull_words(pull: dict[str, float]) -> str:
    """How preferences and imitation compare, for people."""
    words = f"preferences pull on the chosen sides with {pull['preference']:.2g}"
    words += f", imitation with {pull['sft']:.2g}"
    least = min(pull.values())
    return words if not least else f"{words} ({pull['preference'] / least:.3g} : {pull['sft'] / least:.3g})"


def _learning(phase: Phase) -> LearnOptions:
    assert phase.learning is not None  # a phase that learns has one
    return phase.learning


def _paired(run: Run, world: World, phase: Phase, config: AgentConfig, refusals: Refusals) -> PairSet:
    """The pairs that an agent can learn from in a round, as the recipe's builders find them."""
    found = {
        source.label: refusals.kept(source.label, built(run, world, phase, source, world.experts))
        for source in _learning(phase).pairs
    }
    keep = Keep(by=config.pairs_kept, seed=run.config.seed)
    return collect_pairs(found, max_per_kind=config.max_pairs_per_kind, keep=keep)


def _imitated(
    run: Run, world: World, phase: Phase, pair_set: PairSet
) -> tuple[PairSet, dict[Extra, float], dict[str, dict[str, int]]]:
    """The pairs with what is learned from without one, the SFT weights of this, and what builders noted."""
    extras: dict[Extra, float] = {}
    noted: dict[str, dict[str, int]] = {}
    for source in _learning(phase).imitations:
        made = list(built(run, world, phase, source, world.experts))
        met = Counter(one.what for one in made if isinstance(one, Noted))
        noted |= {source.label: dict(sorted(met.items()))} if met else {}
        found = [_as_learned(world, as_imitation(one)) for one in made if not isinstance(one, Noted)]
        pair_set, imitated = add_imitations(pair_set, found, source.imitate)
        extras |= {one: extras.get(one, 0.0) + source.weight for one in imitated}
    return pair_set, extras, noted


def _as_learned(world: World, imitation: Imitation) -> Imitation:
    """An imitation as the agent is to see it: its trajectory's prompt under its mark."""
    if not imitation.mark:
        return imitation
    shown = remark(world.chat, world.env.system_prompt, imitation.trajectory, imitation.mark)
    return imitation._replace(trajectory=shown)


def _references(
    run: Run, world: World, agents: Agents, phase: Phase, config: AgentConfig, plan: BatchPlan
) -> References | NoReferences:
    """The phase's microbatches with what their terms need of the reference; scored before the first step."""
    learning = _learning(phase)
    by_token = bool(learning.reinforcements) and config.surrogate.kl > 0
    if not (learning.pairs or learning.imitations or by_token):
        return NoReferences(plan.batches)
    score = world.token_score if by_token else world.score
    return References(
        run.folder / "references",
        phase.stem,
        plan.batches,
        every=config.reference_every,
        score=lambda params, batch: score(params, agents.frozen, put_batch(world.mesh, batch)),
        first=lambda: _reference_params(run, world, agents, phase, config),
        processes=run.processes,
        by_token=by_token,
    )


def _write_pairs(path: Path, pair_set: PairSet) -> None:
    """Which trajectories were paired, and the first turns that count: for the report, and whoever looks."""

    def side(index: int) -> dict[str, Any]:
        named = _side(pair_set.trajectories[index])
        return {key: named[key] for key in ("source", "sample")}

    def line(pair: PreferencePair) -> dict[str, Any]:
        first = {"chosen_from": pair.chosen_from, "rejected_from": pair.rejected_from}
        named = {"chosen": side(pair.chosen), "rejected": side(pair.rejected)}
        later = {key: turn for key, turn in first.items() if turn}
        turns = plain_turns(pair.rejected_turns)
        weighed = {} if turns is None else {"rejected_turns": list(turns)}
        return {"task_id": pair.task_id, "kind": pair.kind} | named | later | weighed

    lines = [json.dumps(line(pair)) for pair in pair_set.pairs]
    write_whole(path, "".join(line + "\n" for line in lines))


def _side(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory of a round's learning by its collection, task and sample, and its mark if it has one."""
    source = trajectory.collection or trajectory.agent
    named = {"source": source, "task_id": trajectory.task_id, "sample": trajectory.sample}
    return named | ({"mark": trajectory.mark} if trajectory.mark else {})


def _reference_params(run: Run, world: World, agents: Agents, phase: Phase, config: AgentConfig) -> Params:
    """The parameters that score the reference: the agent's own at the round's start, or the warm start."""
    if config.reference == "round_start":
        return agents[phase.agent].params
    record = run.manifest.record("warm_start")
    assert record is not None  # the schedule puts the warm start first
    number = record.records["checkpoint"]
    name = run.checkpoints.agents(number)[0]  # all of them agree there
    return run.checkpoints.restore_params(number, name, world.learner.abstract().params)
