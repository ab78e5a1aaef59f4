"""The warm start: imitation of the experts, from which all agents begin (METHOD, step 1)."""

from dataclasses import replace

import numpy as np

from coevo_jax.data.packing.plan import pack_sft
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.learning.optimizer import cosine_rate
from coevo_jax.learning.train_state import Agents
from coevo_jax.phases.agents import leave_warm_start
from coevo_jax.phases.world import (
    IMPORTED_FILE,
    World,
    tasks_of,
)
from coevo_jax.progress import say
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.run import Run
from coevo_jax.training.optimize import optimize
from coevo_jax.training.pace import Pace
from coevo_jax.training.plan_file import PLANS, learned_tokens, write_plan
from coevo_jax.training.step_plan import StepPlan
from coevo_jax.training.watched import kept_files, skipped_words
from coevo_jax.trajectory import Trajectory


def whole_text(trajectory: Trajectory) -> Trajectory:
    """The trajectory as one stretch of tokens that are all learned, but the first, which nothing predicts."""
    return replace(trajectory, agent_mask=np.arange(len(trajectory.tokens)) > 0)


def warm_start(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """SFT of one shared checkpoint on the experts; all agents start from it, or from adapters of it."""
    config = run.config.warm_start
    record = run.begin(phase.name)
    if config.data is None:
        tasks = tasks_of(world.env, "train", config.tasks, "warm_start.tasks")
        experts = [world.experts[task.id] for task in tasks if task.id in world.experts]
    else:
        experts = read_trajectories([run.folder / IMPORTED_FILE])
    learned = experts if config.learn == "agent" else [whole_text(one) for one in experts]
    plan = pack_sft(
        learned, batch=run.config.batch, pad_id=world.chat.pad_id, seed=phase.seed(run.config.seed)
    )
    plan_path = run.folder / PLANS / "warm-start.json"
    seed, steps = phase.seed(run.config.seed), config.epochs * len(plan.steps)
    source = "expert" if config.data is None else "imported"
    sides = [{"source": source, "task_id": one.task_id, "sample": one.sample} for one in experts]
    if run.leads:
        write_plan(plan_path, plan, phase=phase.name, sides=sides, steps=steps, seed=seed, beta=None)
    course = StepPlan(
        plan=plan,
        batches_at=lambda _position, _state: plan.batches,
        steps=steps,
        beta=1.0,
        rate=lambda step, steps: cosine_rate(step, steps, config.learning_rate, config.warmup_fraction),
        files=lambda: [plan_path],
        sides=sides,
    )
    pace = Pace(world.warm_learner, plan, world.mesh)
    record, agents = optimize(run, world, world.warm_programs, agents, phase, record, course, pace)
    agents = leave_warm_start(run, world, agents)
    records = {
        "experts": len(experts),
        "checkpoint": run.next_checkpoint,
        "padding": plan.padding,
        "learned_tokens": learned_tokens(plan, steps, seed),
    }
    record = replace(record, records=record.records | records)
    files = [*course.files(), *kept_files(run, record)]
    run.commit(record, files=files, agents=agents, finished=True, with_base=bool(agents.frozen))
    words = f"{len(experts)} experts, {record.position} steps, padding {plan.padding:.1%}"
    say(record.name, record.seconds, ", ".join(filter(None, (words, skipped_words(record), pace.words()))))
    return agents
