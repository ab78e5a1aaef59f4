"""A microbatch's arrays, from groups and the rows in which their parts lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coevo_jax.batch import PreferenceBatch, TokenBatch
from coevo_jax.config.options import BatchConfig
from coevo_jax.config.recipe import KindWeights
from coevo_jax.data.packing.groups import Group, TreePart
from coevo_jax.data.packing.prefix_tree import EncodedRow, encode_row
from coevo_jax.data.packing.views import Link, View
from coevo_jax.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Microbatch:
    """Groups, their parts and the row of each of these."""

    groups: tuple[Group, ...]
    parts: tuple[tuple[TreePart, ...], ...]
    rows: tuple[tuple[int, ...], ...]

    @property
    def links(self) -> list[Link]:
        """The pairs, in the order of their places p."""
        return [link for group in self.groups for link in group.links]

    def row_parts(self, row: int) -> list[tuple[int, TreePart]]:
        """The parts of a row with the number of their group."""
        return [
            (number, part)
            for number, (parts, rows) in enumerate(zip(self.parts, self.rows, strict=True))
            for part, place in zip(parts, rows, strict=True)
            if place == row
        ]

    def tokens_of(self, row: int) -> int:
        """The token places that a row uses: its parts, and once what all trajectories of the plan share."""
        parts = [part for _, part in self.row_parts(row)]
        return sum(part.size for part in parts) + (parts[0].shared[0] if parts else 0)

    @property
    def tokens(self) -> int:
        """The token places that all rows use."""
        return sum(self.tokens_of(row) for row in {row for rows in self.rows for row in rows})

    def places(self, batch: BatchConfig) -> dict[tuple[int, View], int]:
        """The index n of every view, by the number of its group."""
        return {
            (number, view): row * batch.views_per_row + s
            for row in range(batch.rows)
            for s, (number, view) in enumerate(
                (number, view) for number, part in self.row_parts(row) for view in part.views
            )
        }


@dataclass(frozen=True, kw_only=True)
class StepWeights:
    """The factors of a microbatch's terms; the denominators are those of its optimizer step."""

    sft: Mapping[int, float]  # by n
    kinds: Mapping[str, KindWeights]
    order: Sequence[str]  # of the kinds that the agent's loss knows: their numbers on the devices
    pairs: int  # of the step
    first: bool  # of the step's microbatches


def build(
    micro: Microbatch,
    weights: StepWeights,
    trajectories: Sequence[Trajectory],
    batch: BatchConfig,
    pad_id: int,
) -> PreferenceBatch:
    """Write a microbatch's arrays; shapes and types are those of `coevo_jax.batch`."""
    views = batch.rows * batch.views_per_row
    view_weight = np.zeros((batch.rows, batch.views_per_row, batch.row_length), np.float32)
    tokens = _token_arrays(micro, trajectories, batch, pad_id, view_weight)
    sft_weight, reward = np.zeros(views, np.float32), np.zeros(views, np.float32)
    token_count = np.zeros(views, np.int32)
    places = micro.places(batch)
    for (_, view), n in places.items():
        reward[n] = trajectories[view.trajectory].reward
        token_count[n] = view.token_count
    for n, weight in weights.sft.items():
        sft_weight[n] = weight
    chosen, rejected, kind = (np.zeros(batch.pairs, np.int32) for _ in range(3))
    weight = np.zeros(batch.pairs, np.float32)
    links = [(number, link) for number, group in enumerate(micro.groups) for link in group.links]
    for p, (number, link) in enumerate(links):
        chosen[p], rejected[p] = places[number, link.chosen], places[number, link.rejected]
        weight[p] = weights.kinds[link.pair.kind].dpo / weights.pairs
        kind[p] = weights.order.index(link.pair.kind)
    return PreferenceBatch(
        tokens=tokens,
        view_weight=view_weight,
        reference_logps=np.zeros(views, np.float32),
        sft_weight=sft_weight,
        reward=reward,
        token_count=token_count,
        chosen=chosen,
        rejected=rejected,
        weight=weight,
        kind=kind,
        step_share=np.asarray(weights.first, np.float32),
    )


def encoded(micro: Microbatch, row: int, trajectories: Sequence[Trajectory]) -> tuple[list[View], EncodedRow]:
    """The views of a row in the order of their places s, and its tokens."""
    parts = [part for _, part in micro.row_parts(row)]
    views = [view for part in parts for view in part.views]
    shared = [common for part in parts for common in part.shared]
    lengths = [0, *shared[1:]][: len(views)]
    return views, encode_row([trajectories[view.trajectory] for view in views], lengths)


def _token_arrays(
    micro: Microbatch,
    trajectories: Sequence[Trajectory],
    batch: BatchConfig,
    pad_id: int,
    view_weight: np.ndarray,
) -> TokenBatch:
    """Encode the rows; writes the views' weights into `view_weight` [B, S, K]."""
    shape = (batch.rows, batch.row_length)
    tokens = np.full(shape, pad_id, np.int32)
    positions, source, target = (np.zeros(shape, np.int32) for _ in range(3))
    visible_until = np.tile(np.arange(1, batch.row_length + 1, dtype=np.int32), (batch.rows, 1))
    scored = np.zeros(batch.rows, np.int32)
    for b in range(batch.rows):
        views, row = encoded(micro, b, trajectories)
        used, count = slice(0, len(row.tokens)), len(row.source)
        tokens[b, used], positions[b, used] = row.tokens, row.positions
        visible_until[b, used] = row.visible_until
        source[b, :count], target[b, :count], scored[b] = row.source, row.target, count
        for s, (view, entries) in enumerate(zip(views, row.entries, strict=True)):
            view_weight[b, s, entries] = view.token_weights
    return TokenBatch(
        tokens=tokens,
        positions=positions,
        visible_until=visible_until,
        source=source,
        target=target,
        scored=scored,
    )
