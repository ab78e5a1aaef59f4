"""The hot loop of learning: steps over a fixed batch plan, with commits on the way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.data.packing import epoch_order
from coevo_jax.learning.objective import Metrics
from coevo_jax.learning.train_state import TrainState
from coevo_jax.learning.train_step import StepPrograms, take_step
from coevo_jax.manifest import PhaseRecord
from coevo_jax.metrics import finalize
from coevo_jax.progress import Stopwatch, progress_bar
from coevo_jax.run import Run
from coevo_jax.schedule import Phase


class LearningDiverged(Exception):
    """A step's loss or gradient is not finite: nothing after it would mean anything."""


# The microbatches as a step sees them, by the step's position in the phase and the state before it: their
# references may be refreshed on the way.
BatchSource = Callable[[int, TrainState], Sequence[PreferenceBatch]]


def optimize(
    run: Run,
    programs: StepPrograms,
    phase: Phase,
    record: PhaseRecord,
    plan_steps: Sequence[Sequence[int]],
    batches_at: BatchSource,
    *,
    epochs: int,
    beta: float,
    rate: Callable[[int, int], float],
    files: Callable[[], list[Path]],
) -> PhaseRecord:
    """Take every step of the phase that is not committed yet; leaves the last commit to the caller.

    Metrics of step n are fetched after step n + 1 is dispatched, so that the device never waits for the host.

    Args:
      plan_steps: microbatches of each step of an epoch.
      files: what a commit on the way records beside the state.
    """
    watch = Stopwatch(record.seconds)
    steps = epochs * len(plan_steps)
    state = run.agents[phase.agent]
    log_step = int(state.step) - record.position
    pending: tuple[int, Metrics] | None = None
    with progress_bar() as bar:
        task = bar.add_task(phase.name, total=steps, completed=record.position, words="")
        for position in range(record.position, steps):
            epoch, place = divmod(position, len(plan_steps))
            chosen = epoch_order(len(plan_steps), phase.seed(run.config.seed), epoch)[place]
            batches = batches_at(position, state)
            scale = np.float32(rate(position, steps))
            own = [batches[number] for number in plan_steps[chosen]]
            state, metrics = take_step(programs, state, run.frozen, own, np.float32(beta), scale)
            if pending is not None:
                bar.update(task, completed=position, words=_log(run, phase, log_step, *pending))
            pending = (position, metrics | {"learning_rate": (scale, np.float32(1))})
            done = position + 1
            if done % run.config.checkpoint.every_steps == 0 and done < steps:
                _log(run, phase, log_step, *pending)
                pending = None
                run.agents[phase.agent] = state
                record = replace(record, position=done, seconds=watch.seconds)
                record = run.commit(record, files=files(), states_changed=True, finished=False)
        if pending is not None:
            _log(run, phase, log_step, *pending)
    run.agents[phase.agent] = state
    return replace(record, position=steps, seconds=watch.seconds)


def _log(run: Run, phase: Phase, log_step: int, position: int, metrics: Metrics) -> str:
    """Write one step's metrics, prefixed by the agent; returns the words for the progress bar."""
    values = finalize(jax.device_get(metrics))
    for name in ("loss", "grad_norm"):
        if not np.isfinite(values[name]):
            raise LearningDiverged(
                f"{phase.name}, step {position + 1}: {name} is {values[name]}; lower the learning rate "
                f"({phase.agent}.learning_rate or warm_start.learning_rate) or optimizer.clip_norm"
            )
    prefix = "warm_start" if phase.kind == "warm_start" else phase.agent
    run.log.write(log_step + position + 1, phase.name, {f"{prefix}/{k}": v for k, v in values.items()})
    accuracy = values.get("rewards/accuracies")
    return f"loss {values['loss']:.3f}" + (f"  accuracy {accuracy:.2f}" if accuracy is not None else "")
