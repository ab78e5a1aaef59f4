"""What two models of a run say of given tokens together: mixed logits, and the entropies of both.

The logits of the weak model count 1 - mix, those of the strong one mix (arXiv 2602.08222).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.audit.forward import chunk_size, in_rows
from coevo_jax.models.transformer import Transformer, output_head

Loaded = tuple[Transformer, Any]  # a model and its variables


@dataclass(frozen=True, kw_only=True, eq=False)
class Together:
    """Of each token of a row, float64 [L] each; 0 for the first."""

    mixed: np.ndarray  # its log-probability under the mixture, and under either model alone
    strong: np.ndarray
    weak: np.ndarray
    strong_entropy: np.ndarray  # of all tokens in its place
    weak_entropy: np.ndarray


def score_together(strong: Loaded, weak: Loaded, mix: float, rows: Sequence[np.ndarray]) -> list[Together]:
    """What both models say of rows of tokens."""
    program: Any = _program
    forward = program(strong[0], weak[0], mix)
    found = in_rows(lambda tokens: forward(strong[1], weak[1], tokens), rows)
    names = ("mixed", "strong", "weak", "strong_entropy", "weak_entropy")
    return [Together(**dict(zip(names, arrays, strict=True))) for arrays in found]


@lru_cache(maxsize=4)
def _program(strong: Any, weak: Any, mix: float) -> Any:
    @jax.jit
    def forward(strong_variables: Any, weak_variables: Any, tokens_BT: jax.Array) -> list[jax.Array]:
        rows, length = tokens_BT.shape
        places = jnp.broadcast_to(jnp.arange(length), tokens_BT.shape)
        following = jnp.concatenate([tokens_BT[:, 1:], jnp.zeros((rows, 1), jnp.int32)], axis=1)
        heads, hidden = [], []
        for model, variables in ((strong, strong_variables), (weak, weak_variables)):
            states: Any = model.apply(variables, tokens_BT, places, jnp.full_like(tokens_BT, length))
            heads.append(output_head(variables["params"]).astype(jnp.float32))
            hidden.append(states.astype(jnp.float32))
        size = chunk_size(rows * length, 2 * heads[0].shape[0])

        def chunk(part: Any) -> list[jax.Array]:
            ours, theirs = (states @ head.T for states, head in zip(part[:2], heads, strict=True))
            logps = [jax.nn.log_softmax(z) for z in (mix * ours + (1 - mix) * theirs, ours, theirs)]
            own = [jnp.take_along_axis(one, part[2][:, None], axis=1)[:, 0] for one in logps]
            return own + [-jnp.sum(jnp.exp(one) * one, axis=1) for one in logps[1:]]

        parts = *(one.reshape(-1, size, one.shape[-1]) for one in hidden), following.reshape(-1, size)
        scored = jax.lax.map(chunk, parts)
        return [jnp.roll(one.reshape(rows, length), 1, axis=1).at[:, 0].set(0.0) for one in scored]

    return forward
