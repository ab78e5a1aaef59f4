"""From trajectories and pairs to microbatches of one fixed shape, with every weight of the loss folded in.

B rows of T tokens hold prefix trees; view s (from 0) of row b is n = b * S + s. An optimizer step is one
microbatch, or as many as its pairs take (`batch.step_pairs`). With k pairs in the step, and e trajectories
learned from without a pair:

    weight[p]     = dpo[kind p] / k
    sft_weight[n] = (sum over pairs p with chosen n of sft[kind p] / k  +  extra[n] / (k or e)) / tokens[n]

where tokens[n] is the number of trained tokens for the reduction "mean", and 1 for "sum". A step of nothing
but supervised fine-tuning (`pack_sft`) has sft_weight[n] = 1 / (trained tokens of the step): the token mean.
All of a task's trajectories lie in one microbatch, unless they fit none, or a step takes part of its pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.config import BatchConfig, KindWeights, PairWeights
from coevo_jax.data.bins import Shape, assemble
from coevo_jax.data.groups import Group, Planter, Unit
from coevo_jax.data.microbatch import Microbatch, StepWeights, build
from coevo_jax.data.pairing import PairSet
from coevo_jax.data.records import cut_to_rows, name_of, pair_problem, trajectory_problem
from coevo_jax.data.views import Link, View, link_pair, plain_view
from coevo_jax.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Every microbatch of a phase. An epoch visits all its steps, in the order of `epoch_order`."""

    batches: list[PreferenceBatch]  # numpy arrays
    steps: tuple[tuple[int, ...], ...]  # microbatches of every optimizer step
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
    pair_weights: PairWeights,
    sft_extra: Mapping[int, float],
    sft_reduction: Literal["mean", "sum"],
    pad_id: int,
    seed: int,
    ld_alpha: float = 1.0,
    turn_discount: float = 1.0,
) -> BatchPlan:
    """Pack pairs and their trajectories; `sft_extra` maps an index to its weight of SFT without a pair.

    A task too large for a microbatch is split by pairs; a trajectory in both parts is then repeated, and its
    extra weight counts in the first. Raises ValueError that names the record for input that is broken.
    """
    kinds = kind_weights(pair_weights)
    check(pair_set, kinds, sft_extra)
    trajectories, cut, usable = cut_to_rows(pair_set.trajectories, batch.row_length, batch.too_long)
    units: dict[str, list[Unit]] = {}
    for pair in pair_set.pairs:
        if not (usable[pair.chosen] and usable[pair.rejected]):
            continue
        link = link_pair(
            pair,
            trajectories[pair.chosen],
            trajectories[pair.rejected],
            imitated=kinds[pair.kind].sft > 0,
            ld_alpha=ld_alpha,
            turn_discount=turn_discount,
        )
        views = [view for view in (link.imitated, link.chosen, link.rejected) if view is not None]
        if cut and _is_empty(link, trajectories):
            continue
        unit = Unit(task_id=pair.task_id, views=tuple(views), link=link)
        units.setdefault(pair.task_id, []).append(unit)
    extra = {index: sft_extra[index] for index in sorted(sft_extra) if usable[index]}
    for index in extra:
        task_id = trajectories[index].task_id
        view = plain_view(index, trajectories[index], turn_discount)
        units.setdefault(task_id, []).append(Unit(task_id=task_id, views=(view,)))
    planter = _planter(trajectories, units, batch)
    groups = [group for task_id in sorted(units) for group in planter.groups(units[task_id])]
    rng = np.random.default_rng([seed])
    groups = [groups[index] for index in rng.permutation(len(groups))]
    steps = [[micro] for micro in lay_out(groups, planter.shape)]
    batches: list[PreferenceBatch] = []
    for step in steps:
        count = sum(len(group.links) for micro in step for group in micro.groups)
        own = [_take_extra(micro, extra) for micro in step]
        denominator = count or sum(len(weights) for weights in own)
        for micro, weights in zip(step, own, strict=True):
            terms = _sft_terms(micro, weights, kinds, batch)
            sft = {n: weight / denominator for n, weight in terms.items()}
            if sft_reduction == "mean":
                sizes = {n: view.token_count for (_, view), n in micro.places(batch).items()}
                sft = {n: weight / max(sizes[n], 1) for n, weight in sft.items()}
            step_weights = StepWeights(sft=sft, kinds=kinds, pairs=max(count, 1), microbatches=len(step))
            batches.append(build(micro, step_weights, trajectories, batch, pad_id))
    return _plan(batches, steps, trajectories, usable, cut, len(pair_set.pairs), batch)


def pack_sft(trajectories: Sequence[Trajectory], *, batch: BatchConfig, pad_id: int, seed: int) -> BatchPlan:
    """Pack trajectories for supervised fine-tuning: a step's loss is its token mean, and P is all padding."""
    check(PairSet(trajectories=tuple(trajectories), pairs=()), {}, {})
    trajectories, cut, usable = cut_to_rows(trajectories, batch.row_length, batch.too_long)
    views = [plain_view(index, trajectories[index]) for index, fits in enumerate(usable) if fits]
    units = {
        str(view.trajectory): [Unit(task_id=trajectories[view.trajectory].task_id, views=(view,))]
        for view in views
    }
    planter = _planter(trajectories, units, batch)
    groups = [group for own in units.values() for group in planter.groups(own)]
    groups = [groups[index] for index in np.random.default_rng([seed]).permutation(len(groups))]
    steps = [[micro] for micro in lay_out(groups, planter.shape)]
    batches: list[PreferenceBatch] = []
    for step in steps:
        places = [micro.places(batch) for micro in step]
        total = sum(view.token_count for own in places for _, view in own)
        for micro, own in zip(step, places, strict=True):
            sft = dict.fromkeys(own.values(), 1 / max(total, 1))
            step_weights = StepWeights(sft=sft, kinds={}, pairs=1, microbatches=len(step))
            batches.append(build(micro, step_weights, trajectories, batch, pad_id))
    return _plan(batches, steps, trajectories, usable, cut, 0, batch)


def with_reference(batch: PreferenceBatch, logps: np.ndarray) -> PreferenceBatch:
    """Store the reference's summed log-probabilities, float32 [N], with a microbatch.

    Raises ValueError where they are not finite numbers, one for each view.
    """
    reference = np.asarray(logps, np.float32).reshape(batch.reference_logps.shape)
    if not np.isfinite(reference).all():
        n = int(np.flatnonzero(~np.isfinite(reference))[0])
        row, view = divmod(n, batch.view_weight.shape[1])
        raise ValueError(
            f"reference log-probabilities: view {view} of row {row} (n = {n}): found {reference[n]}, "
            "expected a finite number"
        )
    return replace(batch, reference_logps=reference)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Order int64 [count] in which an epoch visits the steps; a function of its arguments alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def kind_weights(pair_weights: PairWeights) -> dict[str, KindWeights]:
    """The weights of every kind of pair that is learned from."""
    weights = {
        "expert_target": pair_weights.expert_target,
        "expert_failure": pair_weights.expert_failure,
        "failure_failure": pair_weights.failure_failure,
    }
    return {kind: weight for kind, weight in weights.items() if weight is not None}


def check(pair_set: PairSet, kinds: Mapping[str, KindWeights], sft_extra: Mapping[int, float]) -> None:
    """Raise ValueError that names the first record that cannot be learned from, and why."""
    for trajectory in pair_set.trajectories:
        problem = trajectory_problem(trajectory)
        if problem:
            raise ValueError(f"trajectory {name_of(trajectory)}: {problem}")
    for number, pair in enumerate(pair_set.pairs):
        problem = pair_problem(pair, pair_set.trajectories, tuple(kinds))
        if problem:
            raise ValueError(f"pair {number} ({pair.kind} of task {pair.task_id}): {problem}")
    for index in sft_extra:
        if not 0 <= index < len(pair_set.trajectories):
            raise ValueError(
                f"sft_extra: found trajectory {index}, expected one of {len(pair_set.trajectories)}"
            )


def lay_out(groups: Sequence[Group], shape: Shape) -> list[Microbatch]:
    """Lay groups into microbatches, as many as they take."""
    return [
        Microbatch(groups=tuple(groups[i] for i, _ in filling), rows=tuple(rows for _, rows in filling))
        for filling in assemble([group.bundle for group in groups], shape)
    ]


def _planter(
    trajectories: Sequence[Trajectory], units: Mapping[str, Sequence[Unit]], batch: BatchConfig
) -> Planter:
    used = {view.trajectory for own in units.values() for unit in own for view in unit.views}
    shape = Shape(rows=batch.rows, tokens=batch.row_length, views=batch.views_per_row, pairs=batch.pairs)
    return Planter(trajectories, sorted(used), shape, batch.share_prefixes)


def _is_empty(link: Link, trajectories: Sequence[Trajectory]) -> bool:
    """Whether cutting made both sides of a pair the same, or left one without a token that counts."""
    chosen, rejected = (trajectories[view.trajectory].tokens for view in (link.chosen, link.rejected))
    return np.array_equal(chosen, rejected) or not (link.chosen.token_count and link.rejected.token_count)


def _take_extra(micro: Microbatch, extra: dict[int, float]) -> dict[tuple[int, View], float]:
    """The extra weights that count in this microbatch, by group and view; takes them out of `extra`."""
    return {
        (number, unit.views[0]): extra.pop(unit.views[0].trajectory)
        for number, group in enumerate(micro.groups)
        for unit in group.units
        if unit.link is None and unit.views[0].trajectory in extra
    }


def _sft_terms(
    micro: Microbatch,
    extra: Mapping[tuple[int, View], float],
    kinds: Mapping[str, KindWeights],
    batch: BatchConfig,
) -> dict[int, float]:
    """The numerators of the module's docstring, by n."""
    places = micro.places(batch)
    terms = {places[key]: weight for key, weight in extra.items()}
    for number, group in enumerate(micro.groups):
        for link in group.links:
            if link.imitated is not None:
                n = places[number, link.imitated]
                terms[n] = terms.get(n, 0.0) + kinds[link.pair.kind].sft
    return terms


def _plan(
    batches: list[PreferenceBatch],
    steps: Sequence[Sequence[Microbatch]],
    trajectories: Sequence[Trajectory],
    usable: Sequence[bool],
    cut: int,
    pair_count: int,
    batch: BatchConfig,
) -> BatchPlan:
    micros = [micro for step in steps for micro in step]
    locations: list[dict[int, int]] = [{} for _ in trajectories]
    used = plain = 0
    for number, micro in enumerate(micros):
        places = micro.places(batch)
        for (_, view), n in places.items():
            locations[view.trajectory].setdefault(number, n)
        plain += sum(len(trajectories[index].tokens) for index in {view.trajectory for _, view in places})
        used += sum(micro.tokens_of(row) for row in range(batch.rows))
    total = len(batches) * batch.rows * batch.row_length
    bounds = np.cumsum([0, *(len(step) for step in steps)])
    return BatchPlan(
        batches=batches,
        steps=tuple(tuple(range(start, end)) for start, end in pairwise(bounds)),
        locations=tuple(tuple(places.items()) for places in locations),
        too_long=tuple(
            name_of(trajectory) for trajectory, fits in zip(trajectories, usable, strict=True) if not fits
        ),
        cut=cut,
        dropped_pairs=pair_count - sum(len(group.links) for micro in micros for group in micro.groups),
        padding=1 - used / total if total else 0.0,
        shared=1 - used / plain if plain else 0.0,
    )
