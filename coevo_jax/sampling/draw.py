"""Drawing one token per slot: filters of the distribution, and the Gumbel maximum over what they leave.

Nothing is sorted: a filter finds the score at which it cuts by bisecting the bits of float32, 32 passes over
the scores whatever the vocabulary. A sort of 8 x 32,000 scores takes about 20 times as long on a CPU.

Legend: S slots, V vocabulary.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from coevo_jax.sampling.gumbel import gumbel_noise

REMOVED = -jnp.inf  # score of a token that a filter takes out


@struct.dataclass
class Filters:
    """The filters that limit which tokens may be drawn; a field is a scalar or has one entry per slot [S]."""

    temperature: jax.Array  # float32; 0 takes the likeliest token
    top_k: jax.Array  # int32: so many of the likeliest tokens; 0 keeps all
    top_p: jax.Array  # float32 in (0, 1]: the nucleus (arXiv 1904.09751); 1 keeps all
    min_p: jax.Array  # float32 in [0, 1): least share of the likeliest token's probability (arXiv 2407.01082)


def filters(temperature: float, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Filters:
    """The same filters for every slot; by default nothing is filtered."""
    numbers = (np.float32(temperature), np.int32(top_k), np.float32(top_p), np.float32(min_p))
    return Filters(*numbers)  # pyright: ignore[reportArgumentType]  # on the host until a program takes them


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotSampling:
    """How tokens are drawn where every slot has filters of its own."""

    root: jax.Array  # typed key
    chosen: Filters  # each field [S]

    def filters(self) -> Filters:
        return self.chosen


def top_by_weight(scores_SV: jax.Array, weights_SV: jax.Array, limit_S: jax.Array) -> jax.Array:
    """Keep the tokens before which less than `limit` of the weight is taken by higher scores.

    With weights of 1 these are the `limit` likeliest tokens, with probabilities the nucleus. The likeliest
    token always stays; tokens of equal score stay or go together. Returns bool [S, V].
    """
    ranks_SV = _ordered_bits(scores_SV)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_S, high_S = bounds  # the cut lies in [low, high]
        middle_S = (low_S >> 1) + (high_S >> 1) + (low_S & high_S & 1)
        above_SV = ranks_SV > middle_S[:, None]
        enough_S = jnp.sum(jnp.where(above_SV, weights_SV, 0), axis=-1) < limit_S
        return jnp.where(enough_S, low_S, middle_S + 1), jnp.where(enough_S, middle_S, high_S)

    low_S, high_S = jnp.min(ranks_SV, axis=-1), jnp.max(ranks_SV, axis=-1)
    cut_S, _ = jax.lax.fori_loop(0, 32, halve, (low_S, high_S))
    return ranks_SV >= cut_S[:, None]


def _ordered_bits(x: jax.Array) -> jax.Array:
    """uint32 in the order of the float32 values; -0 and 0 are equal."""
    bits = jax.lax.bitcast_convert_type(x + 0.0, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def keep(scores_SV: jax.Array, chosen: Filters) -> jax.Array:
    """The scores after temperature, with what top-k, then top-p, then min-p filter out set to -inf."""
    S, V = scores_SV.shape
    top_k_S, top_p_S, min_p_S = (
        jnp.broadcast_to(x, (S,)) for x in (chosen.top_k, chosen.top_p, chosen.min_p)
    )

    def by_count(scores_SV: jax.Array) -> jax.Array:
        limit_S = jnp.where(top_k_S > 0, top_k_S, V)
        return _only(scores_SV, top_by_weight(scores_SV, jnp.ones_like(scores_SV, jnp.int32), limit_S))

    def by_mass(scores_SV: jax.Array) -> jax.Array:
        inside_SV = top_by_weight(scores_SV, jax.nn.softmax(scores_SV, axis=-1), top_p_S)
        return _only(scores_SV, inside_SV | (top_p_S >= 1)[:, None])

    def by_share(scores_SV: jax.Array) -> jax.Array:
        least_S1 = (jnp.max(scores_SV, axis=-1) + jnp.log(min_p_S))[:, None]
        return _only(scores_SV, scores_SV >= least_S1)

    for needed, apply in zip(_needed(chosen), (by_count, by_mass, by_share), strict=True):
        scores_SV = jax.lax.cond(needed, apply, lambda scores_SV: scores_SV, scores_SV)
    return scores_SV


def _needed(chosen: Filters) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether any slot has each of the filters."""
    return jnp.any(chosen.top_k > 0), jnp.any(chosen.top_p < 1), jnp.any(chosen.min_p > 0)


def _only(scores_SV: jax.Array, kept_SV: jax.Array) -> jax.Array:
    return jnp.where(kept_SV, scores_SV, REMOVED)


def first_maximum(scores_SV: jax.Array) -> jax.Array:
    """argmax over the last axis as two plain reductions, on a CPU several times as fast; int32 [S]."""
    V = scores_SV.shape[-1]
    best_S1 = jnp.max(scores_SV, axis=-1, keepdims=True)
    place_SV = jnp.where(scores_SV == best_S1, jnp.arange(V, dtype=jnp.int32), V)
    return jnp.minimum(jnp.min(place_SV, axis=-1), V - 1)  # scores without a maximum (NaN) name some token


def sample(logits_SV: jax.Array, keys_S: jax.Array, chosen: Filters) -> jax.Array:
    """Draw one token per slot.

    Args:
      logits_SV: float32 [S, V].
      keys_S: typed random keys [S].

    Returns:
      Tokens int32 [S]. All variants live in one program: what a call does not need is skipped on the device.
    """
    S, V = logits_SV.shape
    temperature_S = jnp.broadcast_to(chosen.temperature, (S,))
    draws_S1 = (temperature_S > 0)[:, None]

    def scaled() -> jax.Array:
        return logits_SV / jnp.where(draws_S1, temperature_S[:, None], 1.0)

    def draw() -> jax.Array:
        # One branch for all filters: each one that is skipped by itself would copy the scores.
        filtered = jnp.any(jnp.stack(_needed(chosen)))
        scores_SV = jax.lax.cond(filtered, lambda: keep(scaled(), chosen), scaled)
        # The Gumbel maximum moves to another token only where two perturbed scores tie within rounding.
        noise_SV = gumbel_noise(keys_S, V)
        return first_maximum(scores_SV + jnp.where(draws_S1, noise_SV, 0.0))

    return jax.lax.cond(jnp.any(temperature_S > 0), draw, lambda: first_maximum(logits_SV))


def logps_of(logits_SV: jax.Array, tokens_S: jax.Array) -> jax.Array:
    """Log-probabilities of given tokens at temperature 1, unfiltered; float32 [S]."""
    picked_S = jnp.take_along_axis(logits_SV, tokens_S[:, None], axis=-1)[:, 0]
    return picked_S - jax.nn.logsumexp(logits_SV, axis=-1)


def turn_keys(root: jax.Array, ids_S4: jax.Array) -> jax.Array:
    """Random key of each slot's turn: `root` folded with (phase, task, sample, turn); typed keys [S]."""

    def fold(ids_4: jax.Array) -> jax.Array:
        key = root
        for part in range(ids_S4.shape[-1]):
            key = jax.random.fold_in(key, ids_4[part])
        return key

    return jax.vmap(fold)(ids_S4)
