"""Optimizer steps: one microbatch each, or an exact number of pairs in as many microbatches as they take."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.data.packing.bins import assemble
from coevo_jax.data.packing.groups import Group, TreeBuilder, Unit
from coevo_jax.data.packing.microbatch import Microbatch

# Of so many draws of a step's tasks, the one that leaves least padding is taken.
DRAWS = 12
# A step draws its tasks from so many times what it needs: more leave less padding, fewer keep the shuffle.
REACH = 4

Step = list[Microbatch]


def one_microbatch_steps(tasks: Sequence[Sequence[Unit]], planter: TreeBuilder, seed: int) -> list[Step]:
    """Every microbatch is a step; a task's units stay together where they fit."""
    groups = [group for units in tasks for group in planter.groups(units)]
    order = stream("steps", seed).permutation(len(groups))
    return [[micro] for micro in lay_out([groups[index] for index in order], planter)]


def counted_steps(
    tasks: Sequence[Sequence[Unit]], planter: TreeBuilder, seed: int, *, count: int
) -> list[Step]:
    """Steps of `count` counting units each, the last one of what is left; other units join their task's step.

    Units that do not count, of tasks where none does, are spread evenly over the steps.
    """
    rng = stream("steps", seed)
    tasks = [[unit for unit in units if planter.holds(unit)] for units in tasks]
    if not any(unit.counts for units in tasks for unit in units):
        tasks = [[replace(unit, counts=True) for unit in units] for units in tasks if units]
    waiting = [units for units in tasks if any(unit.counts for unit in units)]
    waiting = [waiting[index] for index in rng.permutation(len(waiting))]
    spread = [unit for units in tasks if not any(unit.counts for unit in units) for unit in units]
    number = -(-sum(unit.counts for units in waiting for unit in units) // count)
    shares = np.array_split(rng.permutation(len(spread)), max(number, 1))
    steps: list[Step] = []
    while waiting:
        own = [[spread[index]] for index in shares[len(steps)]]
        reach = list(accumulate(sum(unit.counts for unit in units) for units in waiting))
        window = 1 + int(np.searchsorted(reach, REACH * count))
        best: tuple[float, Step, list[list[Unit]]] | None = None
        for draw in range(DRAWS):
            order = rng.permutation(len(waiting[:window])) if draw else range(len(waiting[:window]))
            taken, rest = _take([waiting[index] for index in order], count)
            step = _lay_step([*taken, *own], planter)
            fill = sum(micro.tokens for micro in step) / len(step)
            if best is None or fill > best[0]:
                best = (fill, step, rest)
        assert best is not None
        steps.append(best[1])
        waiting = best[2] + waiting[window:]
    return steps


def lay_out(
    groups: Sequence[Group], planter: TreeBuilder, *, attempts: int | None = None
) -> list[Microbatch]:
    """Lay groups into microbatches, as few as found."""
    bundles = [group.bundle for group in groups]
    fillings = (
        assemble(bundles, planter.shape) if attempts is None else assemble(bundles, planter.shape, attempts)
    )
    return [
        Microbatch(
            groups=tuple(groups[placed.bundle] for placed in filling),
            parts=tuple(groups[placed.bundle].layouts[placed.layout] for placed in filling),
            rows=tuple(placed.rows for placed in filling),
        )
        for filling in fillings
    ]


def _take(tasks: Sequence[list[Unit]], count: int) -> tuple[list[list[Unit]], list[list[Unit]]]:
    """The first `count` units that count, with the riders after each, by task; and what is left."""
    taken, rest = [], []
    for units in tasks:
        fits = [total <= count for total in accumulate(unit.counts for unit in units)]
        now = [unit for unit, fit in zip(units, fits, strict=True) if fit]
        later = units[len(now) :]
        count -= sum(unit.counts for unit in now)
        if now:
            taken.append(now)
        if later:
            rest.append(later)
    return taken, rest


def _lay_step(tasks: Sequence[Sequence[Unit]], planter: TreeBuilder) -> Step:
    by_task: dict[str, list[Unit]] = {}
    for units in tasks:
        for unit in units:
            by_task.setdefault(unit.task_id, []).append(unit)
    groups = [group for units in by_task.values() for group in planter.groups(units)]
    return lay_out(groups, planter, attempts=1)
