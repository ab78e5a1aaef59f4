"""The hot loop of learning: steps over a fixed batch plan, with commits on the way."""

import time
from dataclasses import replace

import jax
import numpy as np

from coevo_jax.data.packing.plan import epoch_order
from coevo_jax.learning.finite import finite_leaves
from coevo_jax.learning.objective import Metrics
from coevo_jax.learning.programs import Learning
from coevo_jax.learning.train_state import Agents, TrainState
from coevo_jax.learning.train_step import StepPrograms, take_step
from coevo_jax.progress import Stopwatch
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.metrics import finalize
from coevo_jax.run_folder.run import Run
from coevo_jax.training.feed import put_batch, put_scalar
from coevo_jax.training.pace import Pace
from coevo_jax.training.step_plan import Step, StepPlan, alone
from coevo_jax.training.step_progress import StepProgress
from coevo_jax.training.step_trace import StepTrace
from coevo_jax.training.watched import Watched


def optimize(
    run: Run,
    learning: Learning,
    programs: StepPrograms,
    agents: Agents,
    phase: Phase,
    record: PhaseRecord,
    course: StepPlan,
    pace: Pace,
) -> tuple[PhaseRecord, Agents]:
    """Take every step of the phase that is not committed yet; leaves the last commit to the caller.

    States of commits on the way are written while the next steps go on.

    The devices never wait for the host: while they work on step n, the inputs of step n + 1 are put there,
    and only when that step is dispatched are the metrics of step n fetched. No other byte passes between host
    and devices, which the transfer guard sees to.

    Raises:
      LearningDiverged: a loss or gradient is not finite, and `optimizer.nonfinite` is stop; or skipping
        cannot help: the parameters are broken, or the loss alone is not finite.
      Stopped: the run was asked to end; the step that was under way is committed.
    """
    watch = Stopwatch(record.seconds)
    steps, every = course.steps, run.config.checkpoint.every_steps
    arguments = course.arguments or alone(phase.agent)
    state, frozen = arguments.take(agents)
    watched = Watched(run, learning, programs, phase, course, finite_leaves(state.params), record)
    # What the log calls the step at position 0: a step that was skipped has a number, and is not counted.
    first = int(state.step) + len(watched.skipped) - record.position + 1
    beta = put_scalar(learning.mesh, course.beta)

    def log(step: Step, metrics: Metrics) -> dict[str, float]:
        values = finalize(jax.device_get(metrics))
        values |= watched.look(first, step, values, state, frozen)
        values |= {"beta": course.beta} if phase.kind == "learn" else {}
        values |= pace.end(step.position, step.numbers) | run.take_saved()
        prefix = "warm_start" if phase.kind == "warm_start" else phase.agent
        run.log.write(first + step.position, phase.name, {f"{prefix}/{k}": v for k, v in values.items()})
        return values

    pending: tuple[Step, Metrics] | None = None
    trace = StepTrace(run.folder / "profile" / phase.name, run.traced_steps)
    shown = StepProgress(run, phase.name, steps, record.position, pace, watch)
    with shown, trace, jax.transfer_guard("disallow"):
        step = _put_step(run, learning, phase, course, record.position, state)
        pace.begin()
        while step is not None:
            number, done = first + step.position, step.position + 1
            trace.before(number, state)
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                state, metrics = take_step(programs, state, frozen, step.batches, beta, step.rate)
            trace.after(number, state)
            taken, step = (step, metrics | {"learning_rate": (step.rate, np.float32(1))}), None
            stops = run.stop.asked()
            commits = done < steps and (stops or done % every == 0)
            if not commits:
                began = time.monotonic()
                step = _put_step(run, learning, phase, course, done, state)
                if metrics["loss"][0].is_ready():  # pyright: ignore[reportAttributeAccessIssue]
                    pace.waited(done, time.monotonic() - began)
            if pending is not None:
                shown.show(done - 1, log(*pending))
            pending = taken
            run.settle_if_final()
            if commits:
                shown.show(done, log(*pending))
                pending = None
                agents = arguments.give(agents, state)
                record = watched.recorded(replace(record, position=done, seconds=watch.seconds))
                with jax.transfer_guard("allow"):
                    files = [*course.files(), *watched.files]
                    record = run.commit(record, files=files, agents=agents, finished=False)
                    if stops:
                        run.settle()
                        run.stop.end_if_asked()
                step = _put_step(run, learning, phase, course, done, state)
                pace.begin()
        if pending is not None:
            log(*pending)
    record = watched.recorded(replace(record, position=steps, seconds=watch.seconds))
    return record, arguments.give(agents, state)


def _put_step(
    run: Run, learning: Learning, phase: Phase, course: StepPlan, position: int, state: TrainState
) -> Step | None:
    """The step at a position, taken from `state`; None after the last one."""
    if position >= course.steps:
        return None
    epoch, place = divmod(position, len(course.plan.steps))
    order = epoch_order(len(course.plan.steps), phase.seed(run.config.seed), epoch)
    numbers = course.plan.steps[order[place]]
    batches = course.batches_at(position, state)
    return Step(
        position=position,
        numbers=numbers,
        batches=[put_batch(learning.mesh, batches[number]) for number in numbers],
        hosted=[batches[number] for number in numbers],
        rate=put_scalar(learning.mesh, course.rate(position, course.steps)),
    )
