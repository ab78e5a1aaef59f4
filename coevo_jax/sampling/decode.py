"""Pure prefill and decode over the slots of a KV cache: the programs that `sampling.engine` compiles.

Legend: S slots, P prefilled rows, T new tokens, C cache length, K tokens of a decode block, V vocabulary.
"""

import jax
import jax.numpy as jnp
from flax import struct

from coevo_jax.config import ModelConfig
from coevo_jax.models.kv_cache import KVCache, forward_cached, init_cache
from coevo_jax.models.transformer import Params, Transformer, output_logits

REMOVED = -jnp.inf  # score of a token outside the nucleus


@struct.dataclass
class SlotState:
    """All that the device keeps between calls."""

    cache: KVCache
    logits: jax.Array  # float32 [S, V]: scores of each slot's next token


@struct.dataclass
class Decoded:
    """What a decode block produced. Entries of a row from its count on are meaningless."""

    tokens: jax.Array  # int32 [S, K]
    logps: jax.Array  # float32 [S, K]: at temperature 1, unfiltered
    counts: jax.Array  # int32 [S]: tokens produced
    ended: jax.Array  # bool [S]: the last produced token is the end token
    iterations: jax.Array  # int32 []: forward passes of the block


def init_state(config: ModelConfig, vocab_size: int, slots: int, length: int) -> SlotState:
    """Empty slots of at most `length` tokens each."""
    return SlotState(init_cache(config, slots, length), jnp.zeros((slots, vocab_size), jnp.float32))


def grow(state: SlotState, length: int) -> SlotState:
    """Lengthen every slot to `length` tokens; what the slots hold stays."""

    def pad(layer_SKCh: jax.Array) -> jax.Array:
        return jnp.pad(layer_SKCh, ((0, 0), (0, 0), (0, length - layer_SKCh.shape[2]), (0, 0)))

    keys, values = (
        tuple(pad(layer) for layer in layers) for layers in (state.cache.keys, state.cache.values)
    )
    return SlotState(KVCache(keys, values, state.cache.lengths), state.logits)


def nucleus(scores_SV: jax.Array, top_p_S: jax.Array) -> jax.Array:
    """Keep the smallest set of likeliest tokens whose probability reaches top_p (arXiv 1904.09751).

    The likeliest token always stays; tokens of equal score stay or go together. Returns scores [S, V], -inf
    outside the set.
    """
    ordered_SV = -jnp.sort(-scores_SV, axis=-1)
    p_SV = jax.nn.softmax(ordered_SV, axis=-1)
    inside_SV = jnp.cumsum(p_SV, axis=-1) - p_SV < top_p_S[:, None]
    least_S1 = jnp.min(jnp.where(inside_SV, ordered_SV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(scores_SV >= least_S1, scores_SV, REMOVED)


def sample(
    logits_SV: jax.Array, keys_S: jax.Array, temperature: jax.Array, top_p: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draw one token per slot.

    Args:
      logits_SV: float32 [S, V].
      keys_S: typed random keys [S].
      temperature: float32 [S] or scalar; 0 takes the likeliest token.
      top_p: float32 [S] or scalar in (0, 1]; the nucleus is taken after the temperature.

    Returns:
      Tokens int32 [S] and the log-probabilities float32 [S, V] at temperature 1, unfiltered. All three
      variants live in one program: what a call does not need is skipped on the device.
    """
    S, V = logits_SV.shape
    temperature_S = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (S,))
    top_p_S = jnp.broadcast_to(jnp.asarray(top_p, jnp.float32), (S,))

    def draw() -> jax.Array:
        scores_SV = logits_SV / jnp.where(temperature_S > 0, temperature_S, 1.0)[:, None]
        kept_SV = jax.lax.cond(jnp.any(top_p_S < 1), lambda: nucleus(scores_SV, top_p_S), lambda: scores_SV)
        # The Gumbel maximum moves to another token only where two perturbed scores tie within rounding.
        noise_SV = jax.vmap(lambda key: jax.random.gumbel(key, (V,)))(keys_S)
        return jnp.argmax(kept_SV + noise_SV, axis=-1).astype(jnp.int32)

    greedy_S = jnp.argmax(logits_SV, axis=-1).astype(jnp.int32)
    drawn_S = jax.lax.cond(jnp.any(temperature_S > 0), draw, lambda: greedy_S)
    return jnp.where(temperature_S > 0, drawn_S, greedy_S), jax.nn.log_softmax(logits_SV, axis=-1)


def turn_keys(root: jax.Array, ids_S3: jax.Array) -> jax.Array:
    """Random key of each slot's turn: `root` folded with (task, sample, turn). Returns typed keys [S]."""

    def fold(ids_3: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(root, ids_3[0]), ids_3[1]), ids_3[2])

    return jax.vmap(fold)(ids_S3)


def prefill(
    model: Transformer,
    params: Params,
    state: SlotState,
    rows_P: jax.Array,
    tokens_PT: jax.Array,
    valid_P: jax.Array,
    fresh_P: jax.Array,
) -> SlotState:
    """Append `valid[p]` tokens to slot `rows[p]`, and keep the scores of the token after them.

    Args:
      rows_P: int32 [P], distinct slots; S marks an unused row.
      tokens_PT: int32 [P, T].
      valid_P: int32 [P], 1 <= valid <= T in used rows; they must fit into the cache.
      fresh_P: bool [P]: the slot starts a new episode, what it held is forgotten.
    """
    slots = state.logits.shape[0]
    source_P = jnp.minimum(rows_P, slots - 1)  # an unused row computes on a copy that is dropped below
    part = KVCache(
        keys=tuple(layer[source_P] for layer in state.cache.keys),
        values=tuple(layer[source_P] for layer in state.cache.values),
        lengths=jnp.where(fresh_P, 0, state.cache.lengths[source_P]),
    )
    hidden_PTD, part = forward_cached(model, params, part, tokens_PT, valid_P)
    last_PD = hidden_PTD[jnp.arange(rows_P.shape[0]), jnp.maximum(valid_P - 1, 0)]
    filled = SlotState(part, output_logits(params, last_PD))
    return jax.tree.map(lambda whole, new: whole.at[rows_P].set(new, mode="drop"), state, filled)


def decode_block(
    model: Transformer,
    params: Params,
    state: SlotState,
    budgets_S: jax.Array,
    script_SK: jax.Array,
    ids_S3: jax.Array,
    root: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    end_id: jax.Array,
    quota: jax.Array,
) -> tuple[SlotState, Decoded]:
    """Let the slots write, a token each per iteration, until `quota` of them have stopped.

    A slot stops after the end token or when its budget is used up; the block stops after K iterations, or
    when `quota` slots have stopped, or when no slot writes. Every produced token enters the cache, the end
    token too, so the cache always equals that of a forward pass over the trajectory so far.

    Args:
      budgets_S: int32 [S]: most tokens of this block; 0 for a slot that does not write. Never beyond the
        room in the cache.
      script_SK: int32 [S, K]: tokens to write instead of drawing one; -1 draws.
      ids_S3: uint32 [S, 3]: task, sample and turn, for `turn_keys`; the position is folded in here.
      root: key of (seed, phase).
      temperature, top_p: as in `sample`.
      end_id: int32 scalar: the token that ends a turn.
      quota: int32 scalar, at least 1.
    """
    S, K = script_SK.shape
    keys_S = turn_keys(root, ids_S3)
    empty = Decoded(
        tokens=jnp.zeros((S, K), jnp.int32),
        logps=jnp.zeros((S, K), jnp.float32),
        counts=jnp.zeros((S,), jnp.int32),
        ended=jnp.zeros((S,), bool),
        iterations=jnp.int32(0),
    )
    writers = jnp.sum(budgets_S > 0)

    def writing(out: Decoded) -> jax.Array:
        return (out.counts < budgets_S) & ~out.ended

    def unfinished(carry: tuple[SlotState, Decoded]) -> jax.Array:
        out = carry[1]
        left = jnp.sum(writing(out))
        return (out.iterations < K) & (left > 0) & (writers - left < quota)

    def write(carry: tuple[SlotState, Decoded]) -> tuple[SlotState, Decoded]:
        state, out = carry
        step, active_S = out.iterations, writing(out)
        position_keys_S = jax.vmap(jax.random.fold_in)(keys_S, state.cache.lengths)
        drawn_S, logps_SV = sample(state.logits, position_keys_S, temperature, top_p)
        scripted_S = jax.lax.dynamic_index_in_dim(script_SK, step, axis=1, keepdims=False)
        token_S = jnp.where(scripted_S >= 0, scripted_S, drawn_S)
        logp_S = jnp.take_along_axis(logps_SV, token_S[:, None], axis=-1)[:, 0]
        hidden_S1D, cache = forward_cached(
            model, params, state.cache, token_S[:, None], active_S.astype(jnp.int32)
        )
        logits_SV = jnp.where(active_S[:, None], output_logits(params, hidden_S1D[:, 0]), state.logits)
        is_end_S = token_S == end_id
        return SlotState(cache, logits_SV), Decoded(
            tokens=out.tokens.at[:, step].set(token_S),
            logps=out.logps.at[:, step].set(logp_S),
            counts=out.counts + active_S,
            ended=out.ended | (active_S & is_end_S),
            iterations=step + 1,
        )

    return jax.lax.while_loop(unfinished, write, (state, empty))
