"""A round's learning: which pairs, which references, and the optimizer steps (METHOD, steps 3 and 5)."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coevo_jax.config import LearnConfig, of_round
from coevo_jax.data.packing import BatchPlan, pack
from coevo_jax.data.pairing import PairSet, add_trajectories, failure_pairs, target_pairs
from coevo_jax.files import write_whole
from coevo_jax.learning.optimizer import constant_rate
from coevo_jax.models.transformer import Params
from coevo_jax.progress import say
from coevo_jax.run_folder.collection import read_collection
from coevo_jax.run_folder.run import Run
from coevo_jax.schedule import Phase, find_phase
from coevo_jax.training.feed import put_batch
from coevo_jax.training.optimize import Course, optimize
from coevo_jax.training.pace import Pace
from coevo_jax.training.references import References
from coevo_jax.trajectory import PAIR_KINDS, Trajectory
from coevo_jax.world import World


def learn(run: Run, world: World, phase: Phase) -> None:
    """One round's learning of one agent: pairs, references once, then the optimizer steps."""
    config = _learn_config(run, phase.agent)
    record = run.begin(phase.name)
    pair_set, extras = _round_pairs(run, world, phase, config)
    plan = pack(
        pair_set,
        batch=run.config.batch,
        pair_weights=config.pairs,
        sft_extra=extras,
        sft_reduction=config.sft_reduction,
        pad_id=world.chat.pad_id,
        seed=phase.seed(run.config.seed),
        ld_alpha=config.ld_alpha,
        turn_discount=config.turn_discount,
    )
    pairs_path = run.folder / "pairs" / f"round-{phase.round:02d}-{phase.agent}.jsonl"
    if run.leads:
        _write_pairs(pairs_path, phase, pair_set)
    records: dict[str, Any] = {
        "pairs": _pair_counts(pair_set),
        "trajectories": len(pair_set.trajectories),
        "too_long": list(plan.too_long),
        "cut": plan.cut,
        "dropped_pairs": plan.dropped_pairs,
        "padding": plan.padding,
        "shared": plan.shared,
    }
    record = replace(record, records=records)
    if not plan.batches:
        run.commit(record, files=[pairs_path], states_changed=False, finished=True)
        say(record, "nothing to learn from in this round: no pairs; the agent stays as it is")
        return
    if record.position == 0 and not config.keep_optimizer:
        state = run.agents[phase.agent]
        run.agents[phase.agent] = world.learner.fresh(state.params, int(state.step))
    planned = {f"{phase.agent}/plan/{k}": float(v) for k, v in _plan_counts(plan).items()}
    if record.position == 0:
        run.log.write(int(run.agents[phase.agent].step), phase.name, planned)
    references = References(
        run.folder / "references",
        f"round-{phase.round:02d}-{phase.agent}",
        plan.batches,
        every=config.reference_every,
        score=lambda params, batch: world.score(params, run.frozen, put_batch(world.mesh, batch)),
        first=lambda: _reference_params(run, world, phase.agent, config),
        processes=run.processes,
    )
    peak = of_round(config.learning_rate, phase.round)
    course = Course(
        plan=plan,
        batches_at=references.batches_at,
        epochs=config.epochs,
        beta=of_round(config.beta, phase.round),
        rate=lambda step, steps: constant_rate(step, steps, peak, config.warmup_fraction),
        files=lambda: [pairs_path, *references.files()],
    )
    pace = Pace(world.learner, plan, world.mesh)
    record = optimize(run, world, world.programs[phase.agent], phase, record, course, pace)
    run.commit(record, files=[pairs_path, *references.files()], states_changed=True, finished=True)
    kinds = ", ".join(f"{kind['count']} {kind['kind']}" for kind in records["pairs"]) or "no pairs"
    words = f"{kinds}; {record.position} steps, padding {plan.padding:.1%}, shared {plan.shared:.1%}"
    say(record, ", ".join(filter(None, (words, pace.words()))))


def _plan_counts(plan: BatchPlan) -> dict[str, float]:
    """What packing did with the round's trajectories, for the metrics log."""
    return {
        "too_long": len(plan.too_long),
        "cut": plan.cut,
        "dropped_pairs": plan.dropped_pairs,
        "padding": plan.padding,
        "shared": plan.shared,
        "microbatches": len(plan.batches),
    }


def _learn_config(run: Run, agent: str) -> LearnConfig:
    return run.config.target if agent == "target" else run.config.failure


def _round_pairs(
    run: Run, world: World, phase: Phase, config: LearnConfig
) -> tuple[PairSet, dict[int, float]]:
    """The pairs of a round, and the trajectories with an SFT weight of their own (METHOD, steps 3 and 5)."""
    target = _read_round(run, phase, "target")
    kinds = [kind for kind in PAIR_KINDS if getattr(config.pairs, kind) is not None]
    if phase.agent == "failure":
        pair_set = failure_pairs(
            target,
            _read_round(run, phase, "failure"),
            cross_agent_only=config.cross_agent_only,
            max_per_kind=config.max_pairs_per_kind,
        )
        return pair_set, {}
    pair_set = target_pairs(
        world.experts.values(),
        target,
        _read_round(run, phase, "hard_negatives") if run.config.failure.explore else [],
        kinds=kinds,
        max_per_kind=config.max_pairs_per_kind,
        max_extra_turns=config.max_extra_turns,
        cross_agent_only=config.cross_agent_only,
    )
    explored = {trajectory.task_id for trajectory in target}
    experts = [expert for task_id, expert in world.experts.items() if task_id in explored]
    successes = [trajectory for trajectory in target if trajectory.success]
    extras: dict[int, float] = {}
    for weight, imitated in ((config.sft_successes, successes), (config.sft_experts, experts)):
        if weight > 0:
            pair_set, indices = add_trajectories(pair_set, imitated)
            extras |= {index: extras.get(index, 0.0) + weight for index in indices}
    return pair_set, extras


def _read_round(run: Run, phase: Phase, name: str) -> list[Trajectory]:
    """The round's committed collection of a name: what one agent played in one exploration."""
    played = find_phase(run.config, f"round-{phase.round:02d}/explore_{name}")
    return read_collection(run.folder, run.manifest, played)


def _pair_counts(pair_set: PairSet) -> list[dict[str, Any]]:
    counts = []
    for kind in PAIR_KINDS:
        pairs = [pair for pair in pair_set.pairs if pair.kind == kind]
        if pairs:
            sides = [(pair_set.trajectories[p.chosen], pair_set.trajectories[p.rejected]) for p in pairs]
            gap = float(np.mean([chosen.reward - rejected.reward for chosen, rejected in sides]))
            tasks = len({pair.task_id for pair in pairs})
            counts.append({"kind": kind, "count": len(pairs), "tasks": tasks, "mean_reward_gap": gap})
    return counts


def _write_pairs(path: Path, phase: Phase, pair_set: PairSet) -> None:
    """Which trajectories were paired: for the report, and for whoever wants to look."""
    names = {"failure": "hard_negatives" if phase.agent == "target" else "failure"}

    def side(index: int) -> dict[str, Any]:
        trajectory = pair_set.trajectories[index]
        return {"source": names.get(trajectory.agent, trajectory.agent), "sample": trajectory.sample}

    lines = [
        json.dumps(
            {"task_id": p.task_id, "kind": p.kind, "chosen": side(p.chosen), "rejected": side(p.rejected)}
        )
        for p in pair_set.pairs
    ]
    write_whole(path, "".join(line + "\n" for line in lines))


def _reference_params(run: Run, world: World, agent: str, config: LearnConfig) -> Params:
    """The parameters that score the reference: the agent's own at the round's start, or the warm start."""
    if config.reference == "round_start":
        return run.agents[agent].params
    record = run.manifest.record("warm_start")
    assert record is not None  # the schedule puts the warm start first
    started = run.checkpoints.restore(record.records["checkpoint"], {"target": world.learner.abstract()})
    return started["target"].params
