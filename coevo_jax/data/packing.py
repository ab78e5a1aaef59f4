"""From trajectories and pairs to microbatches of one fixed shape, with every weight of the loss folded in.

B rows of T tokens hold up to S trajectories each; trajectory s (from 0) of row b is n = b * S + s. One
microbatch is one optimizer step. With k pairs in the step, and e trajectories learned from without a pair:

    weight[p]     = dpo[kind p] / k
    sft_weight[n] = (sum over pairs p with chosen n of sft[kind p] / k  +  extra[n] / (k or e)) / tokens[n]

where tokens[n] is the number of trained tokens for the reduction "mean", and 1 for "sum". A step of nothing
but supervised fine-tuning (`pack_sft`) has sft_weight[n] = 1 / (trained tokens of the step): the token mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from coevo_jax.batch import PreferenceBatch, TokenBatch
from coevo_jax.config import BatchConfig, PairWeights
from coevo_jax.data.pairing import PairSet
from coevo_jax.trajectory import PAIR_KINDS, PreferencePair, Trajectory

# Groups among which a microbatch chooses: more leave less padding, fewer keep more of the shuffle.
WINDOW = 32
LAYOUT_ATTEMPTS = 12  # orders in which a microbatch's trajectories are laid into rows


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Every microbatch of a phase. An epoch visits all of them, in the order of `epoch_order`."""

    batches: list[PreferenceBatch]  # numpy arrays
    # Of each trajectory: its places (batch, n); () if dropped.
    locations: tuple[tuple[tuple[int, int], ...], ...]
    too_long: tuple[str, ...]  # trajectories longer than a row, dropped with their pairs
    dropped_pairs: int  # pairs of those, and pairs whose two sides do not fit into one microbatch
    padding: float  # share of all token places that hold no token


@dataclass(frozen=True, kw_only=True)
class _Group:
    """What must not be torn apart: trajectories (by index) and the pairs among them."""

    members: tuple[int, ...]
    pairs: tuple[PreferencePair, ...] = ()

    def __add__(self, other: "_Group") -> "_Group":
        members = tuple(dict.fromkeys((*self.members, *other.members)))
        return _Group(members=members, pairs=(*self.pairs, *other.pairs))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A group that fills a microbatch, and where its members lie."""

    group: _Group
    rows: list[list[int]]  # members of each row


def pack(
    pair_set: PairSet,
    *,
    batch: BatchConfig,
    pair_weights: PairWeights,
    sft_extra: Mapping[int, float],
    sft_reduction: Literal["mean", "sum"],
    pad_id: int,
    seed: int,
) -> BatchPlan:
    """Pack pairs and their trajectories; `sft_extra` maps an index to its weight of SFT without a pair.

    A task's trajectories go into one microbatch, each once. Only a task that is too large for one is split,
    by pairs; a trajectory in both parts is then repeated, and its extra weight counts in the first.
    """
    trajectories = pair_set.trajectories
    usable = [len(trajectory.tokens) <= batch.row_length for trajectory in trajectories]
    units: dict[str, list[_Group]] = {}
    for pair in pair_set.pairs:
        if usable[pair.chosen] and usable[pair.rejected]:
            unit = _Group(members=(pair.chosen, pair.rejected), pairs=(pair,))
            units.setdefault(pair.task_id, []).append(unit)
    for index in sorted(sft_extra):
        if usable[index]:
            units.setdefault(trajectories[index].task_id, []).append(_Group(members=(index,)))
    lengths = [len(trajectory.tokens) for trajectory in trajectories]
    groups = [group for task_id in sorted(units) for group in _merge(units[task_id], lengths, batch)]
    steps = _assign(groups, lengths, batch, seed)
    extra = dict(sft_extra)
    batches = []
    for step in steps:
        own_extra = {index: extra.pop(index) for index in step.group.members if index in extra}
        weights = _sft_weights(step.group, own_extra, pair_weights, sft_reduction, trajectories)
        batches.append(_build(step, trajectories, weights, pair_weights, batch, pad_id))
    return _plan(batches, steps, trajectories, len(pair_set.pairs), batch)


def pack_sft(trajectories: Sequence[Trajectory], *, batch: BatchConfig, pad_id: int, seed: int) -> BatchPlan:
    """Pack trajectories for supervised fine-tuning: a step's loss is its token mean, and P is all padding."""
    lengths = [len(trajectory.tokens) for trajectory in trajectories]
    groups = [_Group(members=(index,)) for index, length in enumerate(lengths) if length <= batch.row_length]
    steps = _assign(groups, lengths, batch, seed)
    batches = []
    for step in steps:
        total = sum(int(trajectories[index].agent_mask.sum()) for index in step.group.members)
        weights = dict.fromkeys(step.group.members, 1 / max(total, 1))
        batches.append(_build(step, trajectories, weights, PairWeights(), batch, pad_id))
    return _plan(batches, steps, trajectories, 0, batch)


def with_reference(batch: PreferenceBatch, logps: np.ndarray) -> PreferenceBatch:
    """Store the reference's summed log-probabilities, float32 [N], with a microbatch."""
    reference = np.asarray(logps, np.float32).reshape(batch.reference_logps.shape)
    return replace(batch, reference_logps=reference)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Order int64 [count] in which an epoch visits the microbatches; a function of its arguments alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _merge(units: list[_Group], lengths: Sequence[int], batch: BatchConfig) -> list[_Group]:
    """Join a task's units into as few groups as fit a microbatch each; a unit that fits none is left out."""
    groups: list[_Group] = []
    for unit in units:
        if _fill(unit, lengths, batch) is None:
            continue
        if groups and _fill(groups[-1] + unit, lengths, batch) is not None:
            groups[-1] = groups[-1] + unit
        else:
            groups.append(unit)
    return groups


def _assign(groups: Sequence[_Group], lengths: Sequence[int], batch: BatchConfig, seed: int) -> list[_Step]:
    """Shuffle the groups; a microbatch takes the first one left and those of a window that fill it best."""
    waiting = [groups[index] for index in np.random.default_rng([seed]).permutation(len(groups))]
    capacity = batch.rows * batch.row_length
    steps: list[_Step] = []
    while waiting:
        window = waiting[:WINDOW]
        sizes = [sum(lengths[index] for index in group.members) for group in window]
        for share in np.linspace(1, 0, 101):  # ask for less until it can be laid into rows
            room = max(int(capacity * share) - sizes[0], 0)
            taken = [0, *(1 + i for i in _best_subset(sizes[1:], room))]
            group = window[0]
            for index in taken[1:]:
                group = group + window[index]
            rows = _fill(group, lengths, batch)
            if rows is not None:
                break
        else:
            raise AssertionError("every group fits a microbatch by construction")
        steps.append(_Step(group=group, rows=rows))
        waiting = [group for index, group in enumerate(window) if index not in taken] + waiting[WINDOW:]
    return steps


def _fill(group: _Group, lengths: Sequence[int], batch: BatchConfig) -> list[list[int]] | None:
    """Lay a group's trajectories into rows, one row after the other; None if they do not fit.

    The first attempt starts each row with the longest left, the others with one of the longest.
    """
    if (
        len(group.pairs) > batch.pairs
        or len(group.members) > batch.rows * batch.segments_per_row
        or sum(lengths[index] for index in group.members) > batch.rows * batch.row_length
    ):
        return None
    for attempt in range(LAYOUT_ATTEMPTS):
        noise = np.random.default_rng([attempt]).uniform(1 - 0.2 * (attempt > 0), 1, len(group.members))
        order = np.argsort([-lengths[index] for index in group.members] * noise, kind="stable")
        rest = [group.members[i] for i in order]
        rows: list[list[int]] = []
        for _ in range(batch.rows):
            row = _best_row(rest, lengths, batch)
            rows.append(row)
            rest = [index for index in rest if index not in row]
        if not rest:
            return rows
    return None


def _best_row(rest: list[int], lengths: Sequence[int], batch: BatchConfig) -> list[int]:
    """Choose the first of `rest` and those others that fill its row best."""
    if not rest or lengths[rest[0]] > batch.row_length:
        return []
    room = batch.row_length - lengths[rest[0]]
    others = _best_subset([lengths[index] for index in rest[1:]], room)
    return [rest[0], *(rest[1 + i] for i in others)][: batch.segments_per_row]


def _best_subset(sizes: Sequence[int], room: int) -> list[int]:
    """Indices of those sizes whose sum comes closest to `room` without exceeding it (subset sum)."""
    within = (1 << (room + 1)) - 1
    reachable = [1]  # bit s of reachable[i]: some of the first i sizes add up to s
    for size in sizes:
        reachable.append((reachable[-1] | reachable[-1] << size) & within)
    total = reachable[-1].bit_length() - 1
    chosen = []
    for i in range(len(sizes) - 1, -1, -1):
        if not reachable[i] >> total & 1:
            chosen.append(i)
            total -= sizes[i]
    return chosen


def _kind_weights(pair_weights: PairWeights) -> dict[str, Any]:
    return {
        "expert_target": pair_weights.expert_target,
        "expert_failure": pair_weights.expert_failure,
        "failure_failure": pair_weights.failure_failure,
    }


def _sft_weights(
    group: _Group,
    extra: Mapping[int, float],
    pair_weights: PairWeights,
    reduction: Literal["mean", "sum"],
    trajectories: Sequence[Trajectory],
) -> dict[int, float]:
    """The formula of the module's docstring, by index of the trajectory."""
    kinds = _kind_weights(pair_weights)
    denominator = len(group.pairs) or len(extra)
    weights = {index: weight / denominator for index, weight in extra.items()}
    for pair in group.pairs:
        weights[pair.chosen] = weights.get(pair.chosen, 0.0) + kinds[pair.kind].sft / denominator
    if reduction == "mean":
        for index in weights:
            weights[index] /= max(int(trajectories[index].agent_mask.sum()), 1)
    return weights


def _build(
    step: _Step,
    trajectories: Sequence[Trajectory],
    sft_weights: Mapping[int, float],
    pair_weights: PairWeights,
    batch: BatchConfig,
    pad_id: int,
) -> PreferenceBatch:
    """Write a microbatch's arrays."""
    shape, slots = (batch.rows, batch.row_length), batch.rows * batch.segments_per_row
    tokens = np.full(shape, pad_id, np.int32)
    segment_ids = np.zeros(shape, np.int32)
    positions = np.zeros(shape, np.int32)
    loss_mask = np.zeros(shape, bool)
    token_weight = np.ones(shape, np.float32)
    sft_weight = np.zeros(slots, np.float32)
    reward = np.zeros(slots, np.float32)
    token_count = np.zeros(slots, np.int32)
    place = _places(step, batch)
    for b, row in enumerate(step.rows):
        start = 0
        for s, index in enumerate(row):
            trajectory = trajectories[index]
            span = slice(start, start + len(trajectory.tokens))
            tokens[b, span] = trajectory.tokens
            segment_ids[b, span] = s + 1
            positions[b, span] = np.arange(len(trajectory.tokens))
            loss_mask[b, span] = trajectory.agent_mask
            sft_weight[place[index]] = sft_weights.get(index, 0.0)
            reward[place[index]] = trajectory.reward
            token_count[place[index]] = trajectory.agent_mask.sum()
            start = span.stop
    reference = np.zeros(slots, np.float32)
    chosen, rejected, weight, kind = _pair_arrays(step.group.pairs, place, pair_weights, batch.pairs)
    return PreferenceBatch(
        tokens=TokenBatch(
            tokens=tokens,
            segment_ids=segment_ids,
            positions=positions,
            loss_mask=loss_mask,
            token_weight=token_weight,
        ),
        reference_logps=reference,
        sft_weight=sft_weight,
        reward=reward,
        token_count=token_count,
        chosen=chosen,
        rejected=rejected,
        weight=weight,
        kind=kind,
    )


def _pair_arrays(
    pairs: Sequence[PreferencePair], place: Mapping[int, int], pair_weights: PairWeights, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Indices and weights of the pairs, each [P]; padding points at n = 0 with weight 0."""
    kinds = _kind_weights(pair_weights)
    chosen, rejected, kind = (np.zeros(count, np.int32) for _ in range(3))
    weight = np.zeros(count, np.float32)
    for p, pair in enumerate(pairs):
        chosen[p], rejected[p] = place[pair.chosen], place[pair.rejected]
        weight[p] = kinds[pair.kind].dpo / len(pairs)
        kind[p] = PAIR_KINDS.index(pair.kind)
    return chosen, rejected, weight, kind


def _places(step: _Step, batch: BatchConfig) -> dict[int, int]:
    """Index n of every trajectory of a microbatch."""
    return {
        index: b * batch.segments_per_row + s
        for b, row in enumerate(step.rows)
        for s, index in enumerate(row)
    }


def _plan(
    batches: list[PreferenceBatch],
    steps: Sequence[_Step],
    trajectories: Sequence[Trajectory],
    pair_count: int,
    batch: BatchConfig,
) -> BatchPlan:
    locations: list[list[tuple[int, int]]] = [[] for _ in trajectories]
    for number, step in enumerate(steps):
        for index, n in _places(step, batch).items():
            locations[index].append((number, n))
    used = sum(len(trajectories[index].tokens) for step in steps for index in step.group.members)
    total = len(steps) * batch.rows * batch.row_length
    return BatchPlan(
        batches=batches,
        locations=tuple(tuple(places) for places in locations),
        too_long=tuple(
            f"{trajectory.task_id} ({trajectory.agent}, sample {trajectory.sample})"
            for trajectory in trajectories
            if len(trajectory.tokens) > batch.row_length
        ),
        dropped_pairs=pair_count - sum(len(step.group.pairs) for step in steps),
        padding=1 - used / total if total else 0.0,
    )
