"""What it costs to round an agent's weights: its log-probabilities beside those of what is exported."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.batch import TokenBatch
from coevo_jax.config.options import BatchConfig, Config
from coevo_jax.data.packing.plan import pack_sft
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.learning.head import scored_logps
from coevo_jax.learning.logps import parent_states
from coevo_jax.models.lora import plain, whole_params
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.phases.agents import StoredAgent
from coevo_jax.phases.world import EXPERTS_FILE
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.collection import read_collection
from coevo_jax.run_folder.manifest import Manifest
from coevo_jax.trajectory import Trajectory

MOST = 8  # trajectories that are scored
PLAYED = ("explore", "branch", "evaluate")


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How far an export's log-probabilities of an agent's tokens lie from the agent's own, in nats."""

    trajectories: int
    tokens: int
    largest: float
    rms: float

    def words(self, form: str, dtype: str) -> str:
        """The cost, for whoever exports."""
        what = "a base" if form == "adapter" else "weights"
        return (
            f"{what} in {dtype}: log-probabilities of {self.tokens:,} stored tokens of {self.trajectories} "
            f"trajectories move by at most {self.largest:.2g}, root mean square {self.rms:.2g}"
        )


def rounding_cost(
    stored: StoredAgent,
    model: Transformer,
    played: Sequence[Trajectory],
    *,
    form: str,
    dtype: str,
    row_length: int,
    pad_id: int,
) -> Rounding | None:
    """Score trajectories with an agent as it was trained and as an export holds it, both in float32.

    Args:
      played: those that fit into `row_length` are scored; None is returned where there is none.
      form: "merged", all parameters in `dtype`; or "adapter", a base in `dtype` and adapters as they are.
    """
    played = [one for one in played if len(one.tokens) <= row_length and one.agent_mask[1:].any()]
    if not played:
        return None
    exact = model.clone(config=model.config.model_copy(update={"dtype": "float32"}))
    rows = [_row(one, row_length, pad_id) for one in played]
    if form == "adapter":
        parts = (exact, stored.params, _rounded(stored.frozen, dtype))
    else:
        whole = whole_params(stored.params, stored.frozen, model.config)
        parts = (plain(exact), _rounded(whole, dtype), {})
    own = exact if stored.frozen else plain(exact)
    before = np.concatenate([_logps(own, stored.params, stored.frozen, row) for row in rows])
    moved = np.concatenate([_logps(*parts, row) for row in rows]) - before
    return Rounding(
        trajectories=len(played),
        tokens=len(moved),
        largest=float(np.abs(moved).max()),
        rms=float(np.sqrt(np.mean(np.square(moved)))),
    )


def newest_played(folder: Path, manifest: Manifest, config: Config, agent: str) -> list[Trajectory]:
    """Some trajectories of the newest phase in which an agent played, or experts where it did not yet."""
    found: list[Trajectory] = []
    for phase in reversed(list(schedule(config))):
        plays = phase.kind in PLAYED and phase.agent == agent
        if plays and manifest.record(phase.name) is not None and not found:
            found = read_collection(folder, manifest, phase, config.model.vocab_size)
    if not found and (folder / EXPERTS_FILE).is_file():
        found = read_trajectories([folder / EXPERTS_FILE])
    return [found[place * len(found) // MOST] for place in range(MOST)] if len(found) > MOST else found


def _rounded(params: Params, dtype: str) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(dtype).astype(jnp.float32), params)


def _row(trajectory: Trajectory, row_length: int, pad_id: int) -> TokenBatch:
    shape = BatchConfig(rows=1, row_length=row_length, views_per_row=1, pairs=1)
    [batch] = pack_sft([trajectory], batch=shape, pad_id=pad_id, seed=0).batches
    return batch.tokens


def _logps(model: Transformer, params: Params, frozen: Params, row: TokenBatch) -> np.ndarray:
    """The log-probability of every token that the agent wrote."""
    scores = np.asarray(_scored(model, params, frozen, row))
    return scores[0, : int(np.asarray(row.scored)[0])]


@partial(jax.jit, static_argnums=0)
def _scored(model: Transformer, params: Params, frozen: Params, row: TokenBatch) -> jax.Array:
    head_VD, parents_BKD = parent_states(model, params, frozen, row)
    return scored_logps(head_VD, parents_BKD, row.target, row.scored)
