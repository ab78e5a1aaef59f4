"""From trajectories and pairs to microbatches of one fixed shape, with every weight of the loss folded in.

B rows of T tokens hold prefix trees; view s (from 0) of row b is n = b * S + s. An optimizer step is one
microbatch, or as many as its pairs take (`batch.step_pairs`). With k pairs in the step, and e trajectories
learned from without a pair, each term is a mean over what it is made of, so that their ratio is that of their
weights in every step:

    weight[p]     = dpo[kind p] / k
    sft_weight[n] = (sum over pairs p with chosen n of sft[kind p] / k  +  extra[n] / e) / tokens[n]

where tokens[n] is the number of trained tokens for the reduction "mean", and 1 for "sum": those of the turns
from which on a pair counts, or whose weight is above 0. A trajectory stands in as many views as there are
ways in which its turns are weighed, and e counts those that are learned from without a pair. A step of
nothing but supervised fine-tuning (`pack_sft`) has sft_weight[n] = 1 / (trained tokens of the step): the
token mean. What is reinforced has weights of its own (`packing.reinforced`). All of a task's trajectories lie
in one microbatch, unless they fit none, or a step takes part of its pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.config.options import BatchConfig
from coevo_jax.config.recipe import KindWeights
from coevo_jax.config.streams import stream
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.packing.bins import Shape
from coevo_jax.data.packing.checks import cut_to_rows, name_of, pair_problem, trajectory_problem
from coevo_jax.data.packing.groups import TreeBuilder, Unit
from coevo_jax.data.packing.microbatch import Microbatch, StepWeights, build
from coevo_jax.data.packing.prefix_tree import token_codes
from coevo_jax.data.packing.reinforced import Reduction, add_units, reinforcement, step_weights
from coevo_jax.data.packing.steps import counted_steps, one_microbatch_steps
from coevo_jax.data.packing.views import Link, PairViews, View, turn_view
from coevo_jax.data.pairing import Extra, PairSet
from coevo_jax.data.reinforced import Credit
from coevo_jax.trajectory import PreferencePair, Trajectory


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Every microbatch of a phase; an epoch visits all its steps, in the order of `epoch_order`."""

    batches: list[PreferenceBatch]  # numpy arrays
    steps: tuple[tuple[int, ...], ...]  # microbatches of every optimizer step
    tokens: tuple[int, ...]  # of every microbatch: token places of its rows that are no padding
    views: tuple[tuple[tuple[int, int], ...], ...]  # of every microbatch: (n, trajectory) of each view
    pairs: tuple[tuple[int, ...], ...]  # of every microbatch: the pairs at its places p, by their numbers
    lengths: tuple[int, ...]  # of each trajectory: its tokens, after a cut
    # Of every microbatch: by n, the weights of a view's turns, where they are not all 1.
    turns: tuple[dict[int, tuple[float, ...]], ...]
    # Of each trajectory: its places (batch, n), one for each microbatch it stands in; () if dropped.
    locations: tuple[tuple[tuple[int, int], ...], ...]
    too_long: tuple[str, ...]  # trajectories longer than a row, dropped with their pairs
    cut: int  # trajectories cut after a whole turn
    dropped_pairs: int  # pairs of those dropped or cut until nothing is left, and what fits no microbatch
    padding: float  # share of all token places that hold no token
    shared: float  # share of the trajectories' tokens that stand in a row only once because they are shared


def pack(
    pair_set: PairSet,
    *,
    batch: BatchConfig,
    kinds: Mapping[str, KindWeights],
    order: Sequence[str],
    sft_extra: Mapping[Extra, float],
    sft_reduction: Literal["mean", "sum"],
    pad_id: int,
    seed: int,
    ld_alpha: float = 1.0,
    turn_discount: float = 1.0,
    reinforced: Mapping[int, Credit] | None = None,
    reduction: Reduction = "token",
) -> BatchPlan:
    """Pack pairs and their trajectories; `sft_extra` maps what is imitated without a pair to its weight.

    A task too large for a microbatch is split by pairs; a trajectory in both parts is then repeated, but its
    extra weight counts once.

    Args:
      kinds: the weights of every kind of pair.
      order: the kinds that the agent's loss knows, in its order.
      reinforced: the credit of every trajectory that is reinforced, by its index; None where nothing may be,
        which leaves those arrays out of the batches.
      reduction: of the surrogate of what is reinforced.

    Raises:
      ConfigError: a record is broken; the message names it.
    """
    check(pair_set, kinds, sft_extra)
    trajectories, cut, usable = cut_to_rows(pair_set.trajectories, batch.row_length, batch.too_long)
    views = PairViews(trajectories, ld_alpha=ld_alpha, turn_discount=turn_discount)
    tasks: dict[str, list[Unit]] = {}
    for pair in pair_set.pairs:
        if not (usable[pair.chosen] and usable[pair.rejected]):
            continue
        link = views.link(pair, imitated=kinds[pair.kind].sft > 0)
        if not (cut and _is_empty(link, trajectories)):
            tasks.setdefault(pair.task_id, []).append(Unit(task_id=pair.task_id, views=link.views, link=link))
    has_pairs = bool(tasks)
    extra = _extra_views(sft_extra, trajectories, usable, turn_discount)
    _add_extra(tasks, extra, trajectories)
    credits = {index: credit for index, credit in (reinforced or {}).items() if usable[index]}
    add_units(tasks, credits, trajectories, reduction)
    planter = tree_builder(trajectories, tasks.values(), batch)
    without_pairs = batch.step_demonstrations if reinforced is None else batch.step_episodes
    count = batch.step_pairs if has_pairs else without_pairs
    steps = lay_steps([tasks[task_id] for task_id in sorted(tasks)], planter, seed, count)
    batches: list[PreferenceBatch] = []
    for step in steps:
        pairs = sum(len(micro.links) for micro in step)
        own = [_own_extra(micro, extra) for micro in step]
        alone = sum(len(weights) for weights in own)
        shares = step_weights(step, credits, reduction, batch)
        for number, (micro, weights) in enumerate(zip(step, own, strict=True)):
            means = {view: weight / alone for view, weight in weights.items()}
            sft = _sft_weights(micro, means, kinds, sft_reduction, pairs, batch)
            terms = StepWeights(sft=sft, kinds=kinds, order=order, pairs=max(pairs, 1), first=number == 0)
            built = build(micro, terms, trajectories, batch, pad_id)
            if reinforced is not None:
                arrays = reinforcement(
                    micro, shares[number], np.asarray(built.view_weight), trajectories, batch
                )
                built = replace(built, reinforcement=arrays)
            batches.append(built)
    return plan_of(batches, steps, trajectories, usable, cut, pair_set.pairs, batch)


def pack_sft(trajectories: Sequence[Trajectory], *, batch: BatchConfig, pad_id: int, seed: int) -> BatchPlan:
    """Pack trajectories for supervised fine-tuning: a step's loss is its token mean, and P is all padding."""
    check(PairSet(trajectories=tuple(trajectories), pairs=()), {}, {})
    trajectories, cut, usable = cut_to_rows(trajectories, batch.row_length, batch.too_long)
    tasks = [
        [Unit(task_id=trajectory.task_id, views=(turn_view(index, trajectory),))]
        for index, trajectory in enumerate(trajectories)
        if usable[index]
    ]
    planter = tree_builder(trajectories, tasks, batch)
    steps = lay_steps(tasks, planter, seed, batch.step_demonstrations)
    batches: list[PreferenceBatch] = []
    for step in steps:
        places = [micro.places(batch) for micro in step]
        total = sum(view.token_count for own in places for _, view in own)
        for number, (micro, own) in enumerate(zip(step, places, strict=True)):
            sft = dict.fromkeys(own.values(), 1 / max(total, 1))
            terms = StepWeights(sft=sft, kinds={}, order=(), pairs=1, first=number == 0)
            batches.append(build(micro, terms, trajectories, batch, pad_id))
    return plan_of(batches, steps, trajectories, usable, cut, (), batch)


def with_reference(batch: PreferenceBatch, logps: np.ndarray) -> PreferenceBatch:
    """Store the reference's summed log-probabilities, float32 [N], with a microbatch.

    Raises:
      ConfigError: they are not finite numbers, one for each view.
    """
    reference, views = np.asarray(logps, np.float32), batch.reference_logps.size
    if reference.shape != (views,):
        raise ConfigError(f"reference log-probabilities: found shape {reference.shape}, expected ({views},)")
    if not np.isfinite(reference).all():
        n = int(np.flatnonzero(~np.isfinite(reference))[0])
        row, view = divmod(n, batch.view_weight.shape[1])
        raise ConfigError(
            f"reference log-probabilities: view {view} of row {row} (n = {n}): found {reference[n]}, "
            "expected a finite number"
        )
    return replace(batch, reference_logps=reference)


def with_token_reference(batch: PreferenceBatch, logps: np.ndarray) -> PreferenceBatch:
    """Store the reference's log-probability of every scored token, float32 [B, K], with a microbatch.

    Raises:
      ConfigError: they are not finite numbers, one for each place.
    """
    reference, shape = np.asarray(logps, np.float32), np.shape(batch.tokens.target)
    if reference.shape != shape or not np.isfinite(reference).all():
        finite = "all" if np.isfinite(reference).all() else "not all"
        raise ConfigError(
            f"reference log-probabilities of tokens: found shape {reference.shape}, {finite} finite, "
            f"expected {shape} finite numbers"
        )
    assert batch.reinforcement is not None
    return replace(batch, reinforcement=replace(batch.reinforcement, reference_logps=reference))


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Order int64 [count] in which an epoch visits the steps; a function of its arguments alone."""
    return stream("epoch", seed, epoch).permutation(count)


def check(pair_set: PairSet, kinds: Mapping[str, KindWeights], sft_extra: Mapping[Extra, float]) -> None:
    """Raise ConfigError that names the first record that cannot be learned from, and why."""
    for trajectory in pair_set.trajectories:
        problem = trajectory_problem(trajectory)
        if problem:
            raise ConfigError(f"trajectory {name_of(trajectory)}: {problem}")
    for number, pair in enumerate(pair_set.pairs):
        problem = pair_problem(pair, pair_set.trajectories, tuple(kinds))
        if problem:
            raise ConfigError(f"pair {number} ({pair.kind} of task {pair.task_id}): {problem}")
    for index, _ in sft_extra:
        if not 0 <= index < len(pair_set.trajectories):
            raise ConfigError(
                f"sft_extra: found trajectory {index}, expected one of {len(pair_set.trajectories)}"
            )


def lay_steps(
    tasks: Sequence[Sequence[Unit]], planter: TreeBuilder, seed: int, count: int | None
) -> list[list[Microbatch]]:
    """Lay tasks into optimizer steps of `count` counting units, or of one microbatch each."""
    if count is None:
        return one_microbatch_steps(tasks, planter, seed)
    return counted_steps(tasks, planter, seed, count=count)


def tree_builder(
    trajectories: Sequence[Trajectory], tasks: Iterable[Sequence[Unit]], batch: BatchConfig
) -> TreeBuilder:
    """What builds the prefix trees of the trajectories that units need."""
    used = {view.trajectory for units in tasks for unit in units for view in unit.views}
    shape = Shape(rows=batch.rows, tokens=batch.row_length, views=batch.views_per_row, pairs=batch.pairs)
    return TreeBuilder(trajectories, sorted(used), shape, batch.share_prefixes)


def _extra_views(
    sft_extra: Mapping[Extra, float],
    trajectories: Sequence[Trajectory],
    usable: Sequence[bool],
    turn_discount: float,
) -> dict[View, float]:
    """What is imitated without a pair, after cuts, and its weight; what became equal has the sum of both."""
    extra: dict[View, float] = {}
    for one in sorted(sft_extra, key=lambda one: (one.trajectory, one.turns or ())):
        view = turn_view(one.trajectory, trajectories[one.trajectory], one.turns, turn_discount)
        if usable[one.trajectory] and (one.turns is None or view.token_count):
            extra[view] = extra.get(view, 0.0) + sft_extra[one]
    return extra


def _add_extra(
    tasks: dict[str, list[Unit]], extra: Iterable[View], trajectories: Sequence[Trajectory]
) -> None:
    """Add a unit for every view learned from alone; one whose trajectory is in a pair follows that pair."""
    alone = not tasks
    for view in extra:
        task_id = trajectories[view.trajectory].task_id
        units = tasks.setdefault(task_id, [])
        unit = Unit(task_id=task_id, views=(view,), counts=alone)
        used = [i for i, other in enumerate(units) if view.trajectory in {v.trajectory for v in other.views}]
        units.insert(used[0] + 1 if used else len(units), unit)


def _is_empty(link: Link, trajectories: Sequence[Trajectory]) -> bool:
    """Whether cutting made both sides of a pair the same, or left one without a token that counts."""
    chosen, rejected = (token_codes(trajectories[view.trajectory]) for view in (link.chosen, link.rejected))
    return np.array_equal(chosen, rejected) or not (link.chosen.token_count and link.rejected.token_count)


def _own_extra(micro: Microbatch, extra: Mapping[View, float]) -> dict[tuple[int, View], float]:
    """The extra weights that count in this microbatch, by group and view."""
    return {
        (number, unit.views[0]): extra[unit.views[0]]
        for number, group in enumerate(micro.groups)
        for unit in group.units
        if unit.link is None and unit.views[0] in extra
    }


def _sft_weights(
    micro: Microbatch,
    extra: Mapping[tuple[int, View], float],
    kinds: Mapping[str, KindWeights],
    reduction: Literal["mean", "sum"],
    pairs: int,
    batch: BatchConfig,
) -> dict[int, float]:
    """The formula of the module's docstring, by n."""
    terms = dict(extra)
    for number, group in enumerate(micro.groups):
        for link in group.links:
            if link.imitated is not None:
                key = (number, link.imitated)
                terms[key] = terms.get(key, 0.0) + kinds[link.pair.kind].sft / pairs
    places = micro.places(batch)
    tokens = {key: max(key[1].token_count, 1) if reduction == "mean" else 1 for key in terms}
    return {places[key]: term / tokens[key] for key, term in terms.items()}


def plan_of(
    batches: list[PreferenceBatch],
    steps: Sequence[Sequence[Microbatch]],
    trajectories: Sequence[Trajectory],
    usable: Sequence[bool],
    cut: int,
    pairs: Sequence[PreferencePair],
    batch: BatchConfig,
) -> BatchPlan:
    """Put microbatches together as a plan, with what is said of them.

    Args:
      steps: what the batches were built of, in their order.
      usable: of each trajectory, whether it fits a row.
      cut: trajectories that were cut.
    """
    micros = [micro for step in steps for micro in step]
    locations: list[dict[int, int]] = [{} for _ in trajectories]
    views: list[tuple[tuple[int, int], ...]] = []
    turns: list[dict[int, tuple[float, ...]]] = []
    plain = 0
    for number, micro in enumerate(micros):
        places = micro.places(batch)
        views.append(tuple((n, view.trajectory) for (_, view), n in places.items()))
        turns.append({n: view.turns for (_, view), n in places.items() if view.turns is not None})
        for n, trajectory in views[-1]:
            locations[trajectory].setdefault(number, n)
        plain += sum(len(trajectories[index].tokens) for index in {view.trajectory for _, view in places})
    tokens = tuple(micro.tokens for micro in micros)
    used, total = sum(tokens), len(batches) * batch.rows * batch.row_length
    numbers = {pair: number for number, pair in enumerate(pairs)}
    placed = tuple(tuple(numbers[link.pair] for link in micro.links) for micro in micros)
    bounds = np.cumsum([0, *(len(step) for step in steps)])
    return BatchPlan(
        batches=batches,
        tokens=tokens,
        views=tuple(views),
        turns=tuple(turns),
        pairs=placed,
        lengths=tuple(len(trajectory.tokens) for trajectory in trajectories),
        steps=tuple(tuple(range(start, end)) for start, end in pairwise(bounds)),
        locations=tuple(tuple(places.items()) for places in locations),
        too_long=tuple(
            name_of(trajectory) for trajectory, fits in zip(trajectories, usable, strict=True) if not fits
        ),
        cut=cut,
        dropped_pairs=len(pairs) - sum(len(own) for own in placed),
        padding=1 - used / total if total else 0.0,
        shared=1 - used / plain if plain else 0.0,
    )
