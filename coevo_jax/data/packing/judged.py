"""Steps of a discriminator as microbatches: a view for each turn that is judged.

With E experts' steps and O own ones in an optimizer step, an expert's step weighs 1 / 2E and an own one
1 / 2O: the cross-entropy is the mean of both sides' means, whichever has more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coevo_jax.batch import PreferenceBatch, Steps
from coevo_jax.config.options import BatchConfig
from coevo_jax.data.packing.checks import cut_to_rows
from coevo_jax.data.packing.groups import Unit
from coevo_jax.data.packing.microbatch import Microbatch, StepWeights, build, encoded
from coevo_jax.data.packing.plan import BatchPlan, lay_steps, plan_of, tree_builder
from coevo_jax.data.packing.views import turn_count, turn_view
from coevo_jax.methods.judging import JudgedStep
from coevo_jax.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class JudgedPlan:
    """Microbatches of steps, and where each of them stands."""

    plan: BatchPlan
    places: tuple[tuple[int, int] | None, ...]  # of every step: microbatch and n; None where it is left out


def pack_judged(
    episodes: Sequence[Trajectory],
    steps: Sequence[JudgedStep],
    *,
    batch: BatchConfig,
    pad_id: int,
    seed: int,
) -> JudgedPlan:
    """Pack the steps of both sides; `batch.step_episodes` own ones make an optimizer step.

    Experts' steps ride along with the own ones of their task. A step whose episode does not fit a row, or
    whose turn is cut off, is left out.

    Args:
      steps: task by task.
    """
    trajectories, cut, usable = cut_to_rows(episodes, batch.row_length, batch.too_long)
    tasks: dict[str, list[Unit]] = {}
    numbers = {}
    for number, step in enumerate(steps):
        trajectory = trajectories[step.trajectory]
        count = turn_count(trajectory)
        if not usable[step.trajectory] or step.turn >= count:
            continue
        own = tuple(float(turn == step.turn) for turn in range(count))
        view = turn_view(step.trajectory, trajectory, own)
        if not view.token_count:
            continue
        numbers[view] = number
        unit = Unit(task_id=trajectory.task_id, views=(view,), counts=not step.by_expert)
        tasks.setdefault(trajectory.task_id, []).append(unit)
    planter = tree_builder(trajectories, tasks.values(), batch)
    laid = lay_steps([tasks[task_id] for task_id in sorted(tasks)], planter, seed, batch.step_episodes)
    batches: list[PreferenceBatch] = []
    places: list[tuple[int, int] | None] = [None] * len(steps)
    for micros in laid:
        found = [
            {n: numbers[view] for (_, view), n in micro.places(batch).items() if view in numbers}
            for micro in micros
        ]
        experts = sum(steps[number].by_expert for own in found for number in own.values())
        total = sum(map(len, found))
        weights = {True: 0.5 / max(experts, 1), False: 0.5 / max(total - experts, 1)}
        for place, (micro, own) in enumerate(zip(micros, found, strict=True)):
            terms = StepWeights(sft={}, kinds={}, order=(), pairs=1, first=place == 0)
            built = build(micro, terms, trajectories, batch, pad_id)
            for n, number in own.items():
                places[number] = len(batches), n
            sides = {n: steps[number].by_expert for n, number in own.items()}
            batches.append(replace(built, steps=_arrays(micro, sides, weights, trajectories, batch)))
    plan = plan_of(batches, laid, trajectories, usable, cut, (), batch)
    return JudgedPlan(plan=plan, places=tuple(places))


def _arrays(
    micro: Microbatch,
    sides: dict[int, bool],
    weights: dict[bool, float],
    trajectories: Sequence[Trajectory],
    batch: BatchConfig,
) -> Steps:
    """The places and weights of a microbatch's steps; `sides` has by n whether a step is an expert's."""
    place = np.zeros((batch.rows, batch.row_length), np.int32)
    for b in range(batch.rows):
        _, row = encoded(micro, b, trajectories)
        place[b, : len(row.place)] = row.place
    expert, own = (np.zeros(batch.rows * batch.views_per_row, np.float32) for _ in range(2))
    for n, by_expert in sides.items():
        (expert if by_expert else own)[n] = weights[by_expert]
    return Steps(place=place, expert=expert, own=own)
