"""Pure prefill and decode over the slots of a KV cache: the programs that `sampling.engine` compiles.

Legend: S slots, P prefilled rows, T new tokens, C cache length, K tokens of a decode block, V vocabulary, A
states of a stop table, N likeliest tokens of a draw.
"""

import jax
import jax.numpy as jnp
from flax import struct

from coevo_jax.config.options import ModelConfig
from coevo_jax.models.kv_cache import KVCache, forward_cached, grow_cache, init_cache
from coevo_jax.models.transformer import Params, Transformer, output_logits
from coevo_jax.sampling.draw import Filters, logps_of, sample, turn_keys


@struct.dataclass
class Likeliest:
    """The likeliest tokens where each token of a decode block was drawn, the likeliest first."""

    tokens: jax.Array  # int32 [S, K, N]
    logps: jax.Array  # float32 [S, K, N]: at temperature 1, unfiltered


@struct.dataclass
class Weights:
    """The weights that the forward pass reads, in the form of `kv_cache.unstack`."""

    params: Params
    adapters: Params | None = None  # of several agents, by `kv_cache.join_adapters`


@struct.dataclass
class SlotState:
    """The state that the device keeps between calls."""

    cache: KVCache
    logits: jax.Array  # float32 [S, V]: scores of each slot's next token
    agent: jax.Array  # int32 [S]: whose adapters a slot takes; 0 without adapters
    stop: jax.Array  # int32 [S]: state of each slot in the stop table; 0 where a turn begins


@struct.dataclass
class Decoded:
    """The result of a decode block; the entries of a row from its count on are meaningless."""

    tokens: jax.Array  # int32 [S, K]
    logps: jax.Array  # float32 [S, K]: at temperature 1, unfiltered
    counts: jax.Array  # int32 [S]: tokens produced
    ended: jax.Array  # bool [S]: the last produced token ends the turn
    iterations: jax.Array  # int32 []: forward passes of the block
    likeliest: Likeliest | None = None  # where they are asked for


@struct.dataclass
class Prefill:
    """Tokens to append to some slots."""

    rows: jax.Array  # int32 [P], distinct slots; S marks an unused row
    sources: jax.Array  # int32 [P]: the slot whose tokens the row's begin with; its own where it goes on
    starts: jax.Array  # int32 [P]: how many of those tokens; 0 starts an episode from nothing
    tokens: jax.Array  # int32 [P, T]
    valid: jax.Array  # int32 [P]: 1 <= valid <= T in used rows; they must fit into the cache
    agent: jax.Array  # int32 [P]


def init_state(config: ModelConfig, vocab_size: int, slots: int, length: int) -> SlotState:
    """Empty slots of at most `length` tokens each."""
    logits = jnp.zeros((slots, vocab_size), jnp.float32)
    agent, stop = (jnp.zeros((slots,), jnp.int32) for _ in range(2))  # two buffers: both are donated
    return SlotState(init_cache(config, slots, length), logits, agent, stop)


def grow(state: SlotState, length: int) -> SlotState:
    """Lengthen every slot to `length` tokens; what the slots hold stays."""
    return state.replace(cache=grow_cache(state.cache, length))  # pyright: ignore[reportAttributeAccessIssue]


def take_slot(state: SlotState, slot: jax.Array) -> KVCache:
    """A copy of what one slot holds, a cache of one row."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, slot, 1), state.cache)


def put_slot(state: SlotState, held: KVCache, slot: jax.Array) -> SlotState:
    """Give a slot what `take_slot` took, from slots of the same length or a shorter one."""

    def put(whole: jax.Array, row: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(whole, row, (slot, *(0,) * (whole.ndim - 1)))

    return state.replace(cache=jax.tree.map(put, state.cache, held))  # pyright: ignore[reportAttributeAccessIssue]


def prefill(
    model: Transformer, weights: Weights, state: SlotState, work: Prefill
) -> tuple[SlotState, jax.Array]:
    """Append tokens to slots, and keep the scores of the token after them.

    A row may begin as a copy of what another slot holds: a prompt's prefix is computed once. Returns the
    state and a number that is there when the device is done.
    """
    slots = state.logits.shape[0]
    source_P = jnp.minimum(work.sources, slots - 1)  # an unused row computes on a copy that is dropped below
    part = KVCache(
        keys=tuple(layer[source_P] for layer in state.cache.keys),
        values=tuple(layer[source_P] for layer in state.cache.values),
        lengths=work.starts,
    )
    hidden_PTD, part = forward_cached(
        model, weights.params, part, work.tokens, work.valid, weights.adapters, work.agent
    )
    last_PD = hidden_PTD[jnp.arange(work.rows.shape[0]), jnp.maximum(work.valid - 1, 0)]
    filled = SlotState(part, output_logits(weights.params, last_PD), work.agent, jnp.zeros_like(work.valid))
    done = jnp.sum(part.lengths)
    return jax.tree.map(lambda whole, new: whole.at[work.rows].set(new, mode="drop"), state, filled), done


def decode_block(
    model: Transformer,
    weights: Weights,
    state: SlotState,
    budgets_S: jax.Array,
    script_SK: jax.Array,
    ids_S4: jax.Array,
    root: jax.Array,
    chosen: Filters,
    end_id: jax.Array,
    stop_AV: jax.Array,
    quota: jax.Array,
    likeliest: int = 0,
) -> tuple[SlotState, Decoded]:
    """Let the slots write, a token each per iteration, until `quota` of them have stopped.

    A slot stops after a token that ends its turn or when its budget is used up; the block stops after K
    iterations, or when `quota` slots have stopped, or when no slot writes. Every produced token enters the
    cache, the last one too, so the cache always equals that of a forward pass over the trajectory so far.

    Args:
      budgets_S: int32 [S]: most tokens of this block; 0 for a slot that does not write. Never beyond the
        room in the cache.
      script_SK: int32 [S, K]: tokens to write instead of drawing one; -1 draws.
      ids_S4: uint32 [S, 4]: phase, task, sample and turn, for `turn_keys`; the position is folded in here.
      root: key of the seed.
      end_id: int32 scalar: the token that ends a turn.
      stop_AV: int8 [A, V]: where a drawn token leads from each state; A ends the turn. Zeros never stop.
      quota: int32 scalar, at least 1.
      likeliest: how many of the likeliest tokens are told of each draw (N); 0 computes none.
    """
    (S, K), (A, V) = script_SK.shape, stop_AV.shape
    keys_S = turn_keys(root, ids_S4)
    empty = Decoded(
        tokens=jnp.zeros((S, K), jnp.int32),
        logps=jnp.zeros((S, K), jnp.float32),
        counts=jnp.zeros((S,), jnp.int32),
        ended=jnp.zeros((S,), bool),
        iterations=jnp.int32(0),
        likeliest=Likeliest(jnp.zeros((S, K, likeliest), jnp.int32), jnp.zeros((S, K, likeliest)))
        if likeliest
        else None,
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
        drawn_S = sample(state.logits, position_keys_S, chosen)
        scripted_S = jax.lax.dynamic_index_in_dim(script_SK, step, axis=1, keepdims=False)
        token_S = jnp.where(scripted_S >= 0, scripted_S, drawn_S)
        logp_S = logps_of(state.logits, token_S)
        led_S = stop_AV[jnp.minimum(state.stop, A - 1), jnp.minimum(token_S, V - 1)].astype(jnp.int32)
        stop_S = jnp.where(active_S & (scripted_S < 0), led_S, state.stop)
        hidden_S1D, cache = forward_cached(
            model,
            weights.params,
            state.cache,
            token_S[:, None],
            active_S.astype(jnp.int32),
            weights.adapters,
            state.agent,
        )
        logits_SV = jnp.where(
            active_S[:, None], output_logits(weights.params, hidden_S1D[:, 0]), state.logits
        )
        ends_S = (token_S == end_id) | (stop_S == A)
        return SlotState(cache, logits_SV, state.agent, stop_S), Decoded(
            tokens=out.tokens.at[:, step].set(token_S),
            logps=out.logps.at[:, step].set(logp_S),
            counts=out.counts + active_S,
            ended=out.ended | (active_S & ends_S),
            iterations=step + 1,
            likeliest=out.likeliest and _note_likeliest(out.likeliest, state.logits, step),
        )

    return jax.lax.while_loop(unfinished, write, (state, empty))


def _note_likeliest(noted: Likeliest, logits_SV: jax.Array, step: jax.Array) -> Likeliest:
    scores_SN, tokens_SN = jax.lax.top_k(logits_SV, noted.tokens.shape[-1])
    logps_SN = scores_SN - jax.nn.logsumexp(logits_SV, axis=-1, keepdims=True)
    return Likeliest(noted.tokens.at[:, step].set(tokens_SN), noted.logps.at[:, step].set(logps_SN))
